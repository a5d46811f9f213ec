"""A node's view of the cluster, frozen: for dashboards, `mpreg nodes`, `/api/status`, invariants. JSON by msgspec.

It is read from all machines and changes none of them. Durations are nanoseconds, ids hexadecimal text. Rows keep the
order of the tables they come from.
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
"""Larger clusters show no observers: nobody reads them, and they take long to compute."""


class MemberView(msgspec.Struct, frozen=True):
    """One member in this node's view."""

    id: str
    shown: str
    name: str
    standing: str
    """alive, draining (alive, and takes no new calls), suspect, dead or left."""
    incarnation: int
    since: int
    """The time since its standing last changed."""
    addresses: tuple[str, ...]
    catalogue: int
    """The version of its catalogue that is held here; 0: not at all."""
    functions: int
    resources: tuple[str, ...]
    linked: bool
    me: bool
    waiting: int
    """Calls of this node outstanding there, plus the queue length that it reported."""
    lag: int = 0
    """The number of known versions of its catalogue that this node does not hold yet."""
    rtt: int | None = msgspec.field(default=None, name="trip")
    """The round-trip time of the latest ping; None while none was answered."""
    observers: tuple[str, ...] = ()
    """Its observers, as shown; empty in clusters with too many to read."""
    accusers: int = 0
    """The number of members that claim it does not answer."""


class NodeView(msgspec.Struct, frozen=True):
    """The whole view at one moment."""

    id: str
    shown: str
    cluster: str
    draining: bool
    synced: bool
    requests: int
    """The number of requests that this node coordinates."""
    running: int
    queued: int
    links: int
    members: tuple[MemberView, ...]
    functions: tuple[FunctionRow, ...]
    waiting: dict[str, int] = {}
    """The calls that wait at this node for a place, by function: in its backlog or in the queue for its own slots."""


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
    """Return the whole view at `now`."""
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
        waiting=_waiting(coordinator, worker),
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


def _waiting(coordinator: Coordinator, worker: Worker) -> dict[str, int]:
    backlog, found = coordinator.pending_calls.backlog, worker.queue_lengths()
    for function in backlog.functions:
        found[function] = found.get(function, 0) + backlog.count(function)
    return dict(sorted(found.items()))


def _observers(cluster: Cluster, member: Member) -> tuple[str, ...]:
    if not member.routable or len(cluster.rings) > _OBSERVERS_SHOWN:
        return ()
    return tuple(sorted(show(cluster.name_of(one), one) for one in cluster.rings.observers_of(member.id)))


def _standing(member: Member, content: Content | None) -> str:
    """Return the standing as text. Draining comes from the catalogue, as the cell of a draining member stays ALIVE."""
    if member.standing is Standing.ALIVE and content is not None and content.draining:
        return "draining"
    return member.standing.name.lower()
