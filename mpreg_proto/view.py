"""A node's view of the cluster, frozen: for dashboards, `mpreg nodes`, `/api/status`, invariants. JSON by msgspec.

Durations are nanoseconds, ids hexadecimal text. Rows keep the order of the tables they come from.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.cluster.index import FunctionRow


class MemberView(msgspec.Struct, frozen=True):
    """One member as this node sees it."""

    id: str
    shown: str
    name: str
    standing: str
    """alive, draining (alive, and takes no new calls), suspect, dead or left."""
    incarnation: int
    since: int
    """How long it has been so."""
    addresses: tuple[str, ...]
    catalogue: int
    """Version of its catalogue that is held here; 0: not at all."""
    functions: int
    resources: tuple[str, ...]
    linked: bool
    me: bool
    waiting: int
    """Calls of this node that are out there, and the queue it told."""
    lag: int = 0
    """By how many versions its catalogue is known to be further than it is held here."""
    rtt: int | None = msgspec.field(default=None, name="trip")
    """The round-trip time of the latest ping; None while none was answered."""
    observers: tuple[str, ...] = ()
    """Who watches it, as shown; left out of clusters too large for anybody to read that."""
    accusers: int = 0
    """How many say that it does not answer."""


__all__ = ["FunctionRow", "MemberView", "NodeView"]


class NodeView(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    id: str
    shown: str
    cluster: str
    draining: bool
    synced: bool
    requests: int
    """Requests this node answers for."""
    running: int
    queued: int
    links: int
    members: tuple[MemberView, ...]
    functions: tuple[FunctionRow, ...]
