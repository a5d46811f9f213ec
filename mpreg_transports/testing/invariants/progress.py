"""Parts of invariants 4 to 6 and 12 to 14: queues and calls make progress, and nothing is kept of lost members."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.effects import Run
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.limits import SECOND
from mpreg_proto.notices import MemberChanged, Notice, Standing
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Digest, Goodbye, Gossip, Hello, Message, Result
from mpreg_transports.testing.invariants.oracles import CatalogueReader, attempt_of, cell, stamp
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_ELSEWHERE = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.DRAINING)
"""The refusals after which a call goes to another node (docs/explanation/guarantees.md)."""


class QueueProgress(Watcher):
    """Invariants 6 and 12: no call is queued without need.

    No call waits while a slot is free, or behind one of its client that was accepted later (12). No call waits for a
    function that the node does not offer (6).
    """

    def node_event_handled(self, host: NodeHost) -> None:
        if not host.node.worker._queues:
            return
        offered = host.node.cluster.catalogue.offered
        for function, queue in host.node.worker._queues.items():
            names = [job.call.name for job in queue]
            if function not in offered:
                if not host.node.draining:
                    raise Violation(6, f"{stamp(host)} has {names} waiting for {function}, which it does not offer")
                continue
            if function in host.node.worker._blocked and host.running:
                continue  # it waits for memory (Limits.inputs), not for a slot
            busy = sum(body.run.function == function for body in host.running.values())
            if busy < offered[function].concurrency:
                raise Violation(12, f"{stamp(host)} has {names} waiting for {function}, and {busy} of it run")

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        queue = host.node.worker._queues.get(run.function)
        job = host.node.worker.job(run.run)
        if not queue or job is None:
            return
        if any(other.client == job.client and other.accepted < job.accepted for other in queue):
            raise Violation(12, f"{stamp(host)} starts {job.call.name!r} before what its client has waited for longer")


class PendingCallProgress(Watcher):
    """Invariant 14: a call is not pending if a linked node offers its function and takes another call of it.

    A call that was refused or lost before is not checked, as that node may have refused it. The same holds for a call
    that waits for a link. A node that has none of the calls for which others wait is tried again within a second,
    whatever it has refused.
    """

    def begin(self, sim: World) -> None:
        self._untried: dict[str, dict[tuple[int, str, MemberId], int]] = {}
        """Since when members have had no call of a function whose calls wait, by host; with its life."""

    def node_event_handled(self, host: NodeHost) -> None:
        coordinator = host.node.coordinator
        if len(coordinator.pending_calls.backlog):
            self._backlog(host)
        elif self._untried.get(host.name):
            self._untried[host.name] = {}
        for request, name in coordinator.pending_calls._requirements:
            execution = coordinator.requests.get(request)
            if execution is None or (TimerKind.LINK_WAIT, request, name) in host.node._timers:
                continue
            history = execution.history
            if name in history.refusals or name in history.earlier_refusals or name in history.losses:
                continue
            offers = coordinator.scheduler.candidates(execution, execution.plan.calls[name])
            if any(coordinator.outstanding.connected(one.member) for one in offers):
                raise Violation(14, f"{stamp(host)} lets {name!r} wait for a function that is offered")

    def _backlog(self, host: NodeHost) -> None:
        """Check one call of each requirement, as all wait for the same members."""
        coordinator = host.node.coordinator
        before = {} if host.sim.now < host.stalled_until + SECOND else self._untried.get(host.name, {})
        untried = self._untried[host.name] = {}
        backlog = coordinator.pending_calls.backlog
        for function in backlog.functions:
            for _, resources, version, key in backlog.requirements(function):
                if key is None:
                    for one in host.node.cluster.index.offers(function, resources, version):
                        linked = coordinator.outstanding.connected(one.member)
                        if not linked or one.suspect:
                            continue
                        out = out_at(host, one.member, function)
                        if has_place(host, one, function, out):
                            raise Violation(14, f"{stamp(host)} lets calls of {function} wait beside a free place")
                        if not out and one.member != host.node.me:  # a node refuses its own calls at once
                            mark = (host.life, function, one.member)
                            since = untried[mark] = before.get(mark, host.local)
                            if host.local > since + SECOND:
                                raise Violation(14, f"{stamp(host)} never gives {function} to {one.shown} again")


def out_at(host: NodeHost, member: MemberId, function: str) -> int:
    """Return the number of outstanding calls of a function at a member."""
    return sum(one.function == function for one in host.node.coordinator.outstanding.by_member(member))


def has_place(host: NodeHost, candidate: Candidate, function: str, out: int) -> bool:
    """Return whether a member takes another call of a function from a node that has so many there."""
    windows = host.node.coordinator.outstanding.credits._windows
    window = windows.get((candidate.member, function), candidate.capacity)
    return out < window or (window == candidate.capacity == 0)


class LostMemberCleanup(Watcher):
    """Invariants 4 and 12: nothing is kept of a lost member.

    No call is outstanding at a lost member, and no member is listed for a function that it does not offer (12). Change
    logs have no gaps (4).
    """

    def begin(self, sim: World) -> None:
        self._lost: dict[str, dict[MemberId, None]] = {}
        self._verified: dict[str, object] = {}
        """The table of each host that was right when it was last compared."""

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is MemberChanged and notice.standing > Standing.SUSPECT and notice.member != host.node.me:
            self._lost.setdefault(host.name, {})[notice.member] = None

    def node_event_handled(self, host: NodeHost) -> None:
        for member in self._lost.pop(host.name, ()) if self._lost else ():
            node = host.node
            rank = cell(node.cluster.members, member)[1]
            awaited = member in node.cluster._changes.loss_deferred  # replies, or a refutation, may be in transit
            out = node.coordinator.outstanding._by_member.get(member)
            if out and rank > Standing.SUSPECT and not awaited:
                what = f"calls {list(out)[:5]} out at {show('', member)}"
                raise Violation(12, f"{stamp(host)} has {what}, which it sees as {Standing(rank).name}")

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive and self._verified.get(host.name) is not (now := sim.tables.catalogues(host)):
                self._look(host)
                self._verified[host.name] = now

    def _look(self, host: NodeHost) -> None:
        catalogue = host.node.cluster.catalogue
        for function, members in catalogue.offering.items():
            for member in members:
                content = catalogue.content(member)
                if content is None or function not in content.functions:
                    what = f"lists {show('', member)} with {function}"
                    raise Violation(12, f"{stamp(host)} {what}, which is not in its catalogue")
        for head in catalogue.heads():
            content = catalogue.content(MemberId(head.member))
            assert content is not None, "it has a head"
            versions = [change.version for change in content.changes]
            if versions != list(range(content.version - len(versions) + 1, content.version + 1)):
                what = f"changes {versions} of {show('', head.member)}"
                raise Violation(4, f"{stamp(host)} keeps {what}, which do not lead to {content.version}")


class LinkClosing(Watcher):
    """Invariant 5: no call goes over a link on which a Goodbye came."""

    message_types: ClassVar[tuple[type, ...]] = (Goodbye,)

    def begin(self, sim: World) -> None:
        self._goodbyes: dict[str, list[LinkId]] = {}
        self._closing: dict[tuple[str, int, LinkId], None] = {}

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(host, NodeHost):
            self._goodbyes.setdefault(host.name, []).append(link)

    def node_event_handled(self, host: NodeHost) -> None:
        for link in self._goodbyes.pop(host.name, ()) if self._goodbyes else ():
            self._closing[host.name, host.life, link] = None

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is not None and (host.name, host.life, attempt.link) in self._closing:
            raise Violation(5, f"{stamp(host)} placed {key.call!r} over link {attempt.link}, on which a Goodbye came")


class CallFailover(Watcher):
    """Invariant 14: a call that one node refused goes to another suitable node before it fails for that reason."""

    message_types: ClassVar[tuple[type, ...]] = (Gossip, Hello, Goodbye, Digest, Result)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._catalogues = CatalogueReader()
        self._refusers: dict[CallKey, dict[bytes, None]] = {}
        self._now: dict[str, list[tuple[Execution, CallKey]]] = {}
        self._changing: dict[str, None] = {}
        """The hosts whose view may change in the present event."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if not isinstance(host, NodeHost):
            return
        if not isinstance(message, Result):
            self._changing[host.name] = None
        else:
            for row in message.failed:
                attempt = attempt_of(host.node.coordinator, message.id, row.name)
                key = self._sim.observers.keys.get((host.name, host.life, message.id, row.name))
                if row.refused and row.fault.code in _ELSEWHERE and attempt is not None and key is not None:
                    self._refusers.setdefault(key, {})[attempt.candidate.member] = None
                    self._now.setdefault(host.name, []).append((attempt.execution, key))

    def node_event_handled(self, host: NodeHost) -> None:
        refused = self._now.pop(host.name, ()) if self._now else ()
        changing = self._changing.pop(host.name, False) is None
        if not changing:
            for execution, key in refused:
                self._look(host, execution, key)

    def _look(self, host: NodeHost, execution: Execution, key: CallKey) -> None:
        fault = execution.faults.get(key.call)
        if fault is None or fault.code not in _ELSEWHERE or host.local >= execution.deadline:
            return
        call, version = execution.plan.calls[key.call], execution.history.versions.get(key.call)
        avoided = [member for member, _ in execution.history.refusals.get(key.call, ())]
        cluster = host.node.cluster
        for member in (host.node.me, *cluster.links):
            offers = self._catalogues.read(cluster.catalogue.content(member))
            if (
                cell(cluster.members, member)[1] in (Standing.ALIVE, Standing.SUSPECT)
                and offers.fits(call)
                and member not in self._refusers[key]
                and member not in avoided
                and (
                    version is None
                    or (
                        offers.functions[call.function].idempotent
                        and offers.functions[call.function].version == version
                    )
                )
            ):
                what = f"{key.call!r} end with {fault.code} and did not try {show('', member)}"
                raise Violation(14, f"{stamp(host)} let {what}, which offers it")
