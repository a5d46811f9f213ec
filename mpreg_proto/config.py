"""The configuration of a node. The node receives everything else from other nodes."""

from __future__ import annotations

import msgspec

from mpreg_proto.ids import Address
from mpreg_proto.limits import DEFAULT, Limits


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a node."""

    name: str = "node"
    """A name for people; it may repeat in a cluster."""
    cluster_id: str = "default-cluster"
    addresses: tuple[Address, ...] = ()
    """The addresses at which others can dial this node; `advertise` can set them later."""
    seeds: tuple[Address, ...] = ()
    """The addresses that are dialled until one answers."""
    resources: tuple[str, ...] = ()
    limits: Limits = DEFAULT
