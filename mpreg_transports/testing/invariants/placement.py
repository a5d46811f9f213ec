"""Invariants 5 and 6: where calls are placed, and the check of the executing node (docs/explanation/architecture.md).

Both watchers read the raw entries of catalogues and compare plain sets. A node's view may change in the middle of an
event. So a placement in an event that brought gossip, or in which timers were due, is compared with the view before the
event and the view after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from mpreg_proto.effects import Run
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.notices import Standing
from mpreg_proto.requests.outstanding import Attempt
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Call, Digest, Goodbye, Gossip, Hello, Message, Request
from mpreg_transports.testing.invariants.oracles import NOTHING, CatalogueReader, Offers, attempt_of, cell, stamp
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World


class _Seen(msgspec.Struct, frozen=True):
    """The view that a node has of one member."""

    rank: int
    offers: Offers

    def takes(self, call: Call) -> bool:
        """Return whether a call may be placed on the member."""
        return Standing.ALIVE <= self.rank <= Standing.SUSPECT and self.offers.fits(call)

    def rank_for(self, call: Call) -> tuple[int, bool]:
        """Return the rank of a member that takes the call, the least for the best."""
        return self.rank, bool(call.resources) and not self.offers.exact(call)


_UNSEEN = _Seen(-1, NOTHING)


class ValidPlacement(Watcher):
    """Invariant 5: a call is placed on a suitable node.

    In the chooser's view the chosen node had the function and a superset of the resources, and was routable. And no
    better node was visible: ALIVE is better than SUSPECT, then exactly the required resources are better than more.
    """

    message_types: ClassVar[tuple[type, ...]] = (Gossip, Hello, Goodbye, Digest)

    def begin(self, sim: World) -> None:
        self._catalogues = CatalogueReader()
        self._gossiped: dict[str, None] = {}
        """The hosts that gossip has reached in the present event."""
        self._before: dict[str, dict[bytes, _Seen]] = {}
        """The earlier view of the members that the present event may have changed, by host."""

    def timer_due(self, host: Host) -> None:
        """Keep the view: the event may bring verdicts, place the calls lost by them, and then raise a suspicion."""
        if isinstance(host, NodeHost) and host.node.coordinator.requests:
            members = host.node.cluster.members.all()
            self._before[host.name] = {record.id: self._see(host, record.id) for record in members}

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(host, NodeHost):
            self._gossiped[host.name] = None
            before = self._before.setdefault(host.name, {})
            if isinstance(message, Gossip):
                about = dict.fromkeys(claim.member for claim in message.claims)
                about.update(dict.fromkeys(delta.head.member for delta in message.deltas))
                about.update(dict.fromkeys(head.member for head in message.heads))
                for member in about:
                    before.setdefault(member, self._see(host, member))

    def node_event_handled(self, host: NodeHost) -> None:
        if self._before:
            self._before.pop(host.name, None)
        if self._gossiped:
            self._gossiped.pop(host.name, None)

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        call = attempt.execution.plan.calls[key.call]
        member = attempt.candidate.member
        seen = self._see(host, member)
        before = self._before.get(host.name)
        earlier = seen if before is None else before.get(member, seen)
        if not seen.takes(call) and not earlier.takes(call):
            rank = Standing(seen.rank).name if seen.rank >= 0 else "unknown"
            offer = seen.offers.functions.get(call.function)
            raise Violation(
                5,
                f"{stamp(host)} placed {call.name!r} ({call.function}, {sorted(call.resources)}) on "
                f"{show('', member)}, which it sees as {rank}, draining {seen.offers.draining}, offering "
                f"{'nothing of that name' if offer is None else sorted(offer.resources | seen.offers.resources)}",
            )
        if host.name not in self._gossiped:
            self._best(host, attempt, call, (seen, earlier), before or {})

    def _see(self, host: NodeHost, member: bytes) -> _Seen:
        cluster = host.node.cluster
        incarnation, rank = cell(cluster.members, MemberId(member))
        if incarnation < 0:
            return _UNSEEN
        return _Seen(rank, self._catalogues.read(cluster.catalogue.content(MemberId(member))))

    def _best(
        self, host: NodeHost, attempt: Attempt, call: Call, chosen: tuple[_Seen, _Seen], before: dict[bytes, _Seen]
    ) -> None:
        """Check that no better node could be chosen, by the view before the event and the view after it.

        Nodes with many calls are left out, because loads change, and those whose links have long been silent.
        """
        execution, node = attempt.execution, host.node
        if call.name in execution.request.here:
            return
        rank = min(one.rank_for(call) for one in chosen if one.takes(call))
        if rank == (0, False):
            return
        few = host.spec.limits.calls_per_worker // 2
        for record in node.cluster.members.all():
            other = self._see(host, record.id)
            if (
                (record.id == node.me or record.id in node.cluster.links)
                and all(
                    one.takes(call)
                    and one.rank_for(call) < rank
                    and not _excluded(execution, call.name, record.id, one.offers, call)
                    for one in (other, before.get(record.id, other))
                )
                and len(node.coordinator.outstanding.by_member(record.id)) < few
                and not _silent(host, record.id)
            ):
                raise Violation(
                    5,
                    f"{stamp(host)} placed {call.name!r} on {show('', attempt.candidate.member)} though "
                    f"{show('', record.id)} is better: {Standing(other.rank).name}, "
                    f"{'exact' if other.offers.exact(call) else 'with more than asked for'}",
                )


def _silent(host: NodeHost, member: MemberId) -> bool:
    """Return whether the link to a member has moved no byte for so long that others may come first."""
    link = host.node.cluster.links.get(member)
    return link is not None and host.local - host.node.links.last_activity(link) >= host.spec.limits.frozen_after


def _excluded(execution: Execution, name: str, member: bytes, offered: Offers, call: Call) -> bool:
    """Return whether the member has refused the call, or may not run it again."""
    if any(refuser == member for refuser, _ in execution.history.refusals.get(name, ())):
        return True
    offer, version = offered.functions[call.function], execution.history.versions.get(name)
    return version is not None and not (offer.idempotent and offer.version == version)


class WorkerAdmission(Watcher):
    """Invariant 6: a body starts only on a node that offers its function itself.

    The node holds the resources, is not draining, and the request came over an open link.
    """

    message_types: ClassVar[tuple[type, ...]] = (Request,)

    def begin(self, sim: World) -> None:
        self._catalogues = CatalogueReader()
        self._draining: dict[tuple[str, int], int] = {}
        """The time at which a life began to drain, by its own clock."""
        self._too_late: dict[tuple[str, int, int, int], None] = {}
        """The requests that came over a closing link, by host, life, link and number."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Request and isinstance(host, NodeHost):
            session = host.node.links.sessions[link]
            if session.closing and session.member is not None:
                self._too_late[host.name, host.life, link, message.id] = None

    def node_event_handled(self, host: NodeHost) -> None:
        content = host.node.cluster.catalogue.content(host.node.me)
        if content is not None and content.draining:
            self._draining.setdefault((host.name, host.life), host.local)

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        assert job is not None, "it is about to start"
        call = job.call
        mine = self._catalogues.read(host.node.cluster.catalogue.content(host.node.me))
        fits = mine.has(call)  # a call that was accepted before the drain still runs
        since = self._draining.get((host.name, host.life))
        if not fits or call.function != run.function:
            raise Violation(
                6,
                f"{stamp(host)} runs {call.name!r} ({call.function}, version {call.version}, {sorted(call.resources)}) "
                f"and offers {sorted(mine.functions)} with {sorted(mine.resources)} itself",
            )
        if since is not None and job.accepted > since:
            raise Violation(6, f"{stamp(host)} runs {call.name!r}, which came while it was draining")
        if (host.name, host.life, job.link, job.request) in self._too_late:
            raise Violation(6, f"{stamp(host)} runs {call.name!r}, which came over a link that was closing")
