"""The configuration of a node; all else it learns from others."""

from __future__ import annotations

import msgspec

from mpreg_proto.ids import Address
from mpreg_proto.limits import DEFAULT, Limits


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a node."""

    name: str = "node"
    """For people; may repeat in a cluster."""
    cluster_id: str = "default-cluster"
    addresses: tuple[Address, ...] = ()
    """Where others can dial this node; may come later, with `advertise`."""
    seeds: tuple[Address, ...] = ()
    """Addresses that are dialled until somebody answers."""
    resources: tuple[str, ...] = ()
    limits: Limits = DEFAULT
