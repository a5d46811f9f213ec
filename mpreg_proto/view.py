"""A node's view of the cluster, frozen: for dashboards, `mpreg nodes`, `/api/status`, invariants. JSON by msgspec.

It is read from all machines; nothing is changed by looking. Durations are nanoseconds, ids hexadecimal text. Rows keep
the order of the tables they come from.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mpreg_proto.cluster.catalogue import Content
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.cluster.index import FunctionRow
from mpreg_proto.cluster.members import Member
from mpreg_proto.ids import MemberId, show
from mpreg_proto.links import Links
from mpreg_proto.notices import Standing
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.worker import Worker

__all__ = ["FunctionRow", "MemberView", "NodeView", "build_view", "member_views"]

_OBSERVERS_SHOWN = 1024
"""In larger clusters nobody reads who observes whom, and to work it out takes long."""


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
    """Calls of this node outstanding there, plus the queue length it reported."""
    lag: int = 0
    """By how many versions its catalogue is known to be further than it is held here."""
    rtt: int | None = msgspec.field(default=None, name="trip")
    """The round-trip time of the latest ping; None while none was answered."""
    observers: tuple[str, ...] = ()
    """Its observers, as shown; left out of clusters too large for anybody to read that."""
    accusers: int = 0
    """How many say that it does not answer."""


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


def build_view(
    *,
    shown: str,
    cluster_id: str,
    draining: bool,
    cluster: Cluster,
    coordinator: Coordinator,
    worker: Worker,
    links: Links,
    now: int,
) -> NodeView:
    """Return everything at once, as it is at `now`."""
    return NodeView(
        id=cluster.me.hex(),
        shown=shown,
        cluster=cluster_id,
        draining=draining,
        synced=cluster.synced(),
        requests=len(coordinator.requests),
        running=worker.running,
        queued=worker.queued,
        links=len(links.sessions),
        members=member_views(
            cluster,
            now=now,
            waiting=lambda member: coordinator.outstanding.waiting(member, now),
            rtt=lambda member: links.rtt(cluster.links.get(member)),
        ),
        functions=cluster.index.table(),
    )


def member_views(
    cluster: Cluster,
    *,
    now: int,
    waiting: Callable[[MemberId], int] = lambda member: 0,
    rtt: Callable[[MemberId], int | None] = lambda member: None,
) -> tuple[MemberView, ...]:
    """Return all members but the RETIRED, by name and id."""
    found = []
    for member in cluster.members.all():
        content = cluster.catalogue.content(member.id)
        version = 0 if content is None else content.version
        name = cluster.name_of(member.id)
        found.append(
            MemberView(
                id=member.id.hex(),
                shown=show(name, member.id),
                name=name,
                standing=_standing(member, content),
                incarnation=member.incarnation,
                since=now - member.since,
                addresses=member.addresses,
                catalogue=version,
                functions=0 if content is None else len(content.functions),
                resources=() if content is None else content.resources,
                linked=member.id in cluster.links,
                me=member.id == cluster.me,
                waiting=waiting(member.id),
                lag=max(0, cluster.fetching(member.id) - version),
                rtt=rtt(member.id),
                observers=_observers(cluster, member),
                accusers=len(member.accusers),
            )
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.id)))


def _observers(cluster: Cluster, member: Member) -> tuple[str, ...]:
    if not member.routable or len(cluster.rings) > _OBSERVERS_SHOWN:
        return ()
    return tuple(sorted(show(cluster.name_of(one), one) for one in cluster.rings.observers_of(member.id)))


def _standing(member: Member, content: Content | None) -> str:
    """In a word. A member that drains says so in its catalogue, as its cell is as ALIVE as before."""
    if member.standing is Standing.ALIVE and content is not None and content.draining:
        return "draining"
    return member.standing.name.lower()
