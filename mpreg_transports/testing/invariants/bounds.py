"""Invariant 12: buffers, tables, timers and queues stay within limits, and within what is open.

After each event, what is quick to count is checked. On a sweep every table is compared with the requests, links and
members that it refers to: nothing is kept for those that have ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from mpreg_proto.effects import Run
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.limits import SECOND
from mpreg_proto.node import Node
from mpreg_proto.notices import Standing
from mpreg_proto.requests.backlog import POLL
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.timers import Key, TimerKind
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Gossip, Message
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_HEAP = 64
"""The number of stale rows that a heap of timers may have in addition to one stale row for each valid row."""


_AGAIN = 4
"""The number of times that one claim may arrive over one link as gossip, also when both sides send it at the same time.
Replies to digests are not counted: each has a digest, of which several may wait on a link that is cut."""


_WAITING = (TimerKind.OFFER_WAIT, TimerKind.LINK_WAIT, TimerKind.RETRY)


class ResourceBounds(Watcher):
    """Invariant 12, as the module describes."""

    message_types: ClassVar[tuple[type, ...]] = (Gossip,)

    def begin(self, sim: World) -> None:
        self._slots: dict[tuple[str, int, str], int] = {}
        """The most slots that a function ever had, by host, life and function."""
        self._places: dict[tuple[str, int, str], int] = {}
        """The most calls of a function that ever had a place, likewise."""
        self._high: dict[str, tuple[int, int]] = {}
        """For each host: how often its heap was too large, and the number of its last timer at that time."""
        self._received: dict[tuple[str, int, int], dict[tuple[bytes, int, int, tuple[bytes, ...]], int]] = {}
        """The number of times that each claim arrived over a link, by host, life and link."""
        self._verified: dict[str, tuple[object, object]] = {}
        """The tables of each host that were right when they were last compared."""

    def node_event_handled(self, host: NodeHost) -> None:
        node, limits = host.node, host.spec.limits
        worker, requests, sessions = node.worker, node.coordinator.requests, node.links.sessions
        if worker._queues:
            self._queues(host)
        if len(worker._runs) != len(host.running):
            self._wrong(host, f"{len(worker._runs)} runs in its books, and {len(host.running)} bodies run")
        if len(requests) > limits.requests:
            self._wrong(host, f"{len(requests)} requests, at most {limits.requests}")
        if node.replies._rows:
            self._wrong(host, f"answers to {list(node.replies._rows)} that nobody sends")
        if len(sessions) > len(host.wires):
            self._wrong(host, f"{len(sessions)} links in its books, and {len(host.wires)} stand")
        timers = node._timers
        if len(timers) > 256 or len(timers._heap) > 256:
            self._timers(host)

    def _queues(self, host: NodeHost) -> None:
        """Check that no function has more calls here than run at once and may be queued."""
        worker, offered = host.node.worker, host.node.cluster.catalogue.offered
        for function, queue in worker._queues.items():
            spec = offered.get(function)
            if spec is not None and not spec.inline and not host.node.draining:
                mark = (host.name, host.life, function)
                places = spec.concurrency + (spec.queue or spec.concurrency)
                most = self._places[mark] = max(places, self._places.get(mark, 0))
                if worker._busy.get(function, 0) + len(queue) > most:
                    self._wrong(host, f"{len(queue)} calls of {function} queued, with the running ones at most {most}")

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        """Check that no claim circulates: gossip is forwarded only on first receipt.

        A claim that arrives over one link again and again goes round a cycle of members.
        """
        if type(message) is Gossip and not message.answer:
            received = self._received.setdefault((host.name, host.life, link), {})
            for claim in message.claims:
                key = (claim.member, claim.incarnation, claim.standing, claim.accusers)
                times = received[key] = received.get(key, 0) + 1
                if times > _AGAIN and isinstance(host, NodeHost):
                    who = show("", claim.member)
                    self._wrong(host, f"received {times} times over link {link} that {who} is {key[1:3]}")

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        slots = host.offers[run.function].function.spec.concurrency
        mark = (host.name, host.life, run.function)
        most = self._slots[mark] = max(slots, self._slots.get(mark, 0))
        busy = 1 + sum(body.run.function == run.function for body in host.running.values())
        if busy > most:
            self._wrong(host, f"{busy} bodies of {run.function}, at most {most}")

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive:
                self._timers(host)
                self._buffers(host)
                self._calls(host)
                self._backlog(host)
                self._credits(host)
                now = sim.tables.members(host), sim.tables.catalogues(host)
                if not _same(now, self._verified.get(host.name)):
                    self._members(host)
                    self._verified[host.name] = now
                self._wants(host)

    def _timers(self, host: NodeHost) -> None:
        """Check that each timer belongs to an open link, request, waiting call, member or address."""
        node, timers = host.node, host.node._timers
        for key in timers._at:
            if not _belongs(node, key):
                self._wrong(host, f"a timer {(str(key[0]), *key[1:])} of something that is no more")
        if len(timers._heap) > 2 * len(timers) + _HEAP + 1:
            times, last = self._high.get(host.name, (0, -1))
            if timers._sequence != last:  # the heap shrinks when a timer is set, not when one is cancelled
                self._high[host.name] = times + 1, timers._sequence
            if times > 3:
                self._wrong(host, f"a heap of {len(timers._heap)} for {len(timers)} timers")
        else:
            self._high.pop(host.name, None)

    def _buffers(self, host: NodeHost) -> None:
        for link, session in host.node.links.sessions.items():
            buffered = 0 if session._reader is None else session._reader.buffered
            if buffered > session.limit + 4:
                self._wrong(host, f"{buffered} bytes of one message on link {link}, at most {session.limit}")

    def _calls(self, host: NodeHost) -> None:
        """Check that outstanding, pending and running calls belong to open links and open requests."""
        node, coordinator = host.node, host.node.coordinator
        sessions, requests = node.links.sessions, coordinator.requests
        for number, attempts in coordinator.outstanding._by_number.items():
            for attempt in attempts.values():
                if attempt.link != 0 and attempt.link not in sessions:
                    what = f"call {attempt.call!r} of dispatch {number}"
                    self._wrong(host, f"{what} out on link {attempt.link}, which is gone")
        for request, name in coordinator.pending_calls.calls:
            if request not in requests or requests[request].states[name] is not CallState.PENDING:
                self._wrong(host, f"call {name!r} of request {request}, which is over, waiting")
            function = requests[request].plan.calls[name].function
            in_backlog = (request, name) in coordinator.pending_calls.backlog
            waits = (TimerKind.BACKLOG, function) in node._timers if in_backlog else False
            if not waits and not any((kind, request, name) in node._timers for kind in _WAITING):
                self._wrong(host, f"call {name!r} of request {request} waiting for ever")
        for execution in requests.values():
            if lost := _lost_calls(coordinator, execution):
                self._wrong(host, f"request {execution.id} with calls that are ready and nowhere: {lost[:5]}")
            try:
                execution.validate()
            except AssertionError as error:
                self._wrong(host, f"request {execution.id} with tables that do not agree: {error}")
            if execution.link != 0 and execution.link not in sessions:
                self._wrong(host, f"request {execution.id} of link {execution.link}, which is gone")
        for (link, number), jobs in node.worker._dispatches.items():
            if link != 0 and link not in sessions and any(job.cancelled is None for job in jobs.values()):
                self._wrong(
                    host, f"calls of dispatch {number} of link {link}, which is gone, not called off: {list(jobs)}"
                )

    def _backlog(self, host: NodeHost) -> None:
        """Check that the tables of the backlog agree with each other, with the pending calls, and with the links."""
        pending, sessions = host.node.coordinator.pending_calls, host.node.links.sessions
        backlog = pending.backlog
        elsewhere = len(pending._requirements) + len(pending._retry_times)
        if len(backlog) + elsewhere != len(pending.calls) or not backlog._calls.keys() <= pending.calls.keys():
            self._wrong(host, f"{len(pending.calls)} pending calls, {len(backlog)} in the backlog, {elsewhere} not")
        counts: dict[str, dict[LinkId, int]] = {}
        for one in backlog._calls.values():
            clients = counts.setdefault(one.requirement[0], {})
            clients[one.client] = clients.get(one.client, 0) + 1
        if counts != (found := {function: queue.clients for function, queue in backlog._queues.items()}):
            self._wrong(host, f"a backlog of {counts} in a table of {found}")
        if {key for queue in backlog._queues.values() for key in queue.calls} != backlog._calls.keys():
            self._wrong(host, "a backlog by function that differs from that by call")
        for function, queue in backlog._queues.items():
            if gone := [client for client in queue.clients if client != 0 and client not in sessions]:
                self._wrong(host, f"calls of clients {gone}, whose links are gone, waiting for {function}")
            for requirement, flows in queue.flows.items():
                for client, flow in flows.items():
                    deadline, number, _ = flow.heap[0]
                    rows = sum(backlog._is_true(row) for row in flow.heap)
                    turn = (queue.used[client], deadline, number, client)
                    if rows != flow.count or not backlog._is_true(flow.heap[0]) or turn not in queue.turns[requirement]:
                        self._wrong(host, f"{flow.count} calls of client {client} for {requirement}, and {rows} rows")
            if sum(flow.count for flows in queue.flows.values() for flow in flows.values()) != len(queue.calls):
                self._wrong(host, f"{len(queue.calls)} calls waiting for {function}, and others by requirement")

    def _credits(self, host: NodeHost) -> None:
        """Check that credit is that of the outstanding calls and of members, and that links are promised places."""
        node = host.node
        credits, members, worker = node.coordinator.outstanding.credits, node.cluster.members, node.worker
        out: dict[tuple[MemberId, str], int] = {}
        for attempts in node.coordinator.outstanding._by_number.values():
            for attempt in attempts.values():
                at = (attempt.candidate.member, attempt.function)
                out[at] = out.get(at, 0) + 1
        for at in node.coordinator.pending_calls._reserved.values():
            out[at] = out.get(at, 0) + 1
        if out != credits._out:
            self._wrong(host, f"{credits._out} as its calls at members, which are {out}")
        for member, function in credits._windows:
            if member != node.me and not members.routable(member) and member not in node.cluster._changes.loss_deferred:
                self._wrong(host, f"a bound for calls of {function} at {show('', member)}, which is gone")
        for name, table in (("waiting for", worker._waiters), ("promised", worker._promised)):
            for function, links in table.items():
                gone = [link for link in links if link != 0 and link not in node.links.sessions]
                if gone or not links:
                    self._wrong(host, f"links {gone} {name} a place for {function}, which are gone")
                if function not in node.cluster.catalogue.offered:
                    self._wrong(host, f"links {name} a place for {function}, which it does not offer")
        for function, promised in worker._promised.items():
            if max(promised.values()) > host.local + POLL:
                self._wrong(host, f"a place for {function} promised for more than {POLL / SECOND:g} s")

    def _members(self, host: NodeHost) -> None:
        cluster, limits = host.node.cluster, host.spec.limits
        members = cluster.members.all()
        dead = sum(record.standing > Standing.SUSPECT for record in members)
        if len(members) > limits.members + limits.dead_members or dead > limits.dead_members + 1:
            self._wrong(host, f"{len(members)} members, {dead} of them dead")
        for head in cluster.catalogue.heads():
            held_for = cluster.members.get(head.member)  # type: ignore[arg-type]  # a head has a member's id
            if held_for is None or not (held_for.routable or head.member == host.node.me):
                self._wrong(host, f"a catalogue of {show('', head.member)}, which is gone")
            content = cluster.catalogue.content(head.member)  # type: ignore[arg-type]
            if content is not None and len(content.changes) > limits.changes:
                self._wrong(host, f"{len(content.changes)} changes of {show('', head.member)}")

    def _wants(self, host: NodeHost) -> None:
        cluster = host.node.cluster
        for member in cluster._gossip._fetches:
            if not cluster.members.routable(member):
                self._wrong(host, f"a catalogue of {show('', member)} asked for, which is gone")

    def _wrong(self, host: NodeHost, text: str) -> NoReturn:
        raise Violation(12, f"{stamp(host)} has {text}")


def _lost_calls(coordinator: Coordinator, execution: Execution) -> list[str]:
    """Return the calls whose state names a table that does not have them."""
    out, pending = coordinator.outstanding, coordinator.pending_calls.calls
    placed = {attempt.call for number in execution.dispatches for attempt in out.by_number(number)}
    needs, states = execution.plan.dependencies, execution.states
    unplaced = dict.fromkeys(coordinator.unplaced.get(execution.id, ()))
    lost: list[str] = []
    for name, state in states.items():
        match state:
            case CallState.WAITING if not any(states[need] < CallState.DONE for need in needs.get(name, ())):
                lost.append(name)  # no dependency is open, so nothing will make it ready
            case CallState.READY if name not in unplaced:
                lost.append(name)
            case CallState.PENDING if (execution.id, name) not in pending:
                lost.append(name)
            case CallState.DISPATCHED | CallState.POSSIBLY_STARTED if name not in placed:
                lost.append(name)
    return lost


def _same(one: tuple[object, object], other: tuple[object, object] | None) -> bool:
    return other is not None and one[0] is other[0] and one[1] is other[1]


def _belongs(node: Node, key: Key) -> bool:
    """Return whether the subject of a timer still exists."""
    match key:
        case (TimerKind.HANDSHAKE | TimerKind.PING | TimerKind.GOODBYE | TimerKind.STALLED | TimerKind.DECODE, link):
            return link in node.links.sessions
        case (TimerKind.DEADLINE, request):
            return request in node.coordinator.requests
        case (TimerKind.OFFER_WAIT | TimerKind.LINK_WAIT | TimerKind.RETRY, request, name):
            return (request, name) in node.coordinator.pending_calls.calls
        case (TimerKind.PLACE, _):
            return bool(node.coordinator.unplaced)
        case (TimerKind.REPORT, run):
            return node.worker.job(run) is not None  # type: ignore[arg-type]
        case (TimerKind.BACKLOG, function):
            calls = node.coordinator.pending_calls.backlog._calls
            return any(one.requirement[0] == function for one in calls.values())
        case (TimerKind.DIAL, address):
            return address in node.cluster._dialer._rows
        case (TimerKind.DIAL_TIMEOUT, address):
            return address in node.cluster._dialer._dialling
        case (TimerKind.PROBE, member):
            return member in node.cluster._detector._probes
        case (TimerKind.MEMBER_LOST, member):
            return member in node.cluster._changes.loss_deferred
        case (TimerKind.SUSPICION, member):
            return node.cluster.members.routable(member)  # type: ignore[arg-type]
        case (TimerKind.TICK | TimerKind.GOSSIP | TimerKind.ANTI_ENTROPY | TimerKind.COLLECT,) | (
            TimerKind.DRAIN_GRACE,
            _,
        ):
            return True
        case _:
            return False
