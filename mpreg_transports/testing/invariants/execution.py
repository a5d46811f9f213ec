"""Invariants 7, 10 and 11: when bodies start (docs/explanation/requests.md and guarantees.md).

Each watcher keeps a ledger of the calls that were placed, started and ended, by the key that the coordinator gives a
call (`CallKey`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mpreg_proto.effects import Outcome, Returned, Run
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.limits import Limits
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Call, Done, Failed, Message, Request, Result
from mpreg_proto.wire.values import UnsendableValue
from mpreg_transports.testing.invariants.oracles import attempt_of, stamp
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_by_number, name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher
from mpreg_transports.values import default_codec

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

RequestKey = tuple[str, int, int]
"""A request at its coordinator: host, life, number."""


def request_of(key: CallKey) -> RequestKey:
    """Return the key of the request that a call belongs to."""
    return key.host, key.life, key.request


def source_of(host: NodeHost, run: Run) -> str | None:
    """Return the call whose items a body takes one by one, or None."""
    job = host.node.worker.job(run.run)
    return None if job is None or job.input is None else job.input.source


class _Graph:
    """A request in the ledger: its calls, the results that bodies returned, and the results that were used."""

    __slots__ = ("bound", "calls", "results")

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self.calls = {call.name: call for call in calls}
        self.results: dict[str, list[bytes]] = {}
        self.bound: dict[str, bytes] = {}

    def needs(self, name: str) -> list[str]:
        """Return the calls of this request that a call depends on."""
        return [need for need in dict.fromkeys(self.calls[name].dependencies) if need in self.calls]


class DependencyOrder(Watcher):
    """Invariant 7: a call starts only after each of its dependencies has a result.

    All dependents of a call get the same result.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._graphs: dict[RequestKey, _Graph] = {}
        self._produced: dict[CallKey, None] = {}
        """The calls of generators that have produced an item."""
        self._names: dict[int, dict[str, None]] = {}
        """The calls that a client has received a result for, by the label of the request."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        execution = attempt.execution
        graph = self._graphs.get(request_of(key))
        if graph is None:
            graph = self._graphs[request_of(key)] = _Graph(execution.request.calls)
        if key.call in graph.bound:
            raise Violation(7, f"{stamp(host)} places {key.call!r} of request {key.request}, whose result is there")
        taken = execution.fed.get(key.call)
        for need in graph.needs(key.call):
            if taken is not None and taken.generator == need:
                self._check_first_item(host, key, need, "places")
                continue
            results = graph.results.get(need)
            if not results:
                raise Violation(7, f"{stamp(host)} places {key.call!r}, and {need!r}, which it needs, has no result")
            value = execution.values.get(need)
            if value is None:  # released in this event, after its last use
                continue
            if value not in results:
                raise Violation(7, f"{stamp(host)} gives {key.call!r} what no body of {need!r} has returned")
            if graph.bound.setdefault(need, value) != value:
                raise Violation(7, f"{stamp(host)}: the result of {need!r} was bound twice, to different values")

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        graph = self._graphs.get(request_of(key))
        source = source_of(host, run)
        if graph is not None:
            for need in graph.needs(key.call):
                if need == source:
                    self._check_first_item(host, key, need, "runs")
                elif need not in graph.results:
                    raise Violation(7, f"{stamp(host)} runs {key.call!r}, and {need!r}, which it needs, has no result")

    def produced(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        self._produced[key] = None

    def _check_first_item(self, host: NodeHost, key: CallKey, need: str, does: str) -> None:
        if CallKey(key.host, key.life, key.request, need) not in self._produced:
            raise Violation(7, f"{stamp(host)} {does} {key.call!r}, and {need!r}, whose items it takes, has none")

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        graph = self._graphs.get(request_of(key))
        if graph is not None and isinstance(outcome, Returned):
            try:
                value = default_codec().encode(outcome.value)
            except UnsendableValue:
                return
            graph.results.setdefault(key.call, []).append(value)

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result):
            return
        names = self._names.setdefault(call.label, {})
        rows: tuple[Done | Failed, ...] = (*reply.done, *reply.failed)
        for row in rows:
            if row.name in names:
                raise Violation(7, f"{name_of_call(self._sim, call)} has two answers for {row.name!r}")
            names[row.name] = None


class _Starts:
    """The number of starts of the body of a call, and the attributes of its function at each start."""

    __slots__ = ("count", "idempotent", "versions", "where")

    def __init__(self) -> None:
        self.count = 0
        self.idempotent = True
        self.versions: dict[str, None] = {}
        self.where: list[tuple[str, MemberId, int]] = []
        """The host, the member id and the time of each start."""


class AtMostOnceExecution(Watcher):
    """Invariant 10: a body starts at most once for each call.

    The body of an idempotent function may start once more for each lost node, in the same version.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._ledger: dict[CallKey, _Starts] = {}
        self._requests: dict[tuple[str, int, int], RequestKey] = {}
        """The request at its first coordinator for a client's request, by client, life and number."""
        self._first: dict[RequestKey, RequestKey] = {}
        """The same for each request at a coordinator: a client may have sent it before to another one."""
        self._once: dict[tuple[RequestKey, str], CallKey] = {}
        """The calls that are not idempotent and have started, with the key of that start."""
        self._touchy: dict[RequestKey, str] = {}
        """The requests of which a body that is not idempotent has started, with the name of that call."""
        self._promised: dict[RequestKey, None] = {}
        """The requests whose reply promised that no such body has started."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        execution = attempt.execution
        if execution.link in host.wires:
            wire, side = host.wires[execution.link]
            peer = wire.ends[1 - side]
            if not isinstance(peer.host, ClientHost):  # JSON clients send nothing again, and number by link
                return
            request = request_of(key)
            self._first[request] = self._requests.setdefault((peer.host.name, peer.life, execution.reply_id), request)

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result) or reply.fault is None:
            return
        request = self._requests.get((call.client, self._sim.clients[call.client].life, call.number))
        if request is not None and not reply.fault.details.get("maybe_executed", True):
            self._promised[request] = None
            self._kept(request)

    def _name(self, request: RequestKey) -> str:
        """Return the name of a request of a client."""
        found = [sent for sent, one in self._requests.items() if one == request]
        name = name_by_number(self._sim, found[0][0], found[0][2]) if found else ""
        return name or f"request #{request[2]} of {request[0]}"

    def _kept(self, request: RequestKey) -> None:
        """Check the promise of `maybe_executed` false (docs/reference/errors.md)."""
        if request in self._promised and request in self._touchy:
            name = self._touchy[request]
            raise Violation(10, f"{self._name(request)} promised that nothing was done; {name!r} was")

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        spec = host.offers[run.function].function.spec
        if not spec.idempotent:
            request = self._first.get(request_of(key), request_of(key))
            if self._once.setdefault((request, key.call), key) != key:
                name = f"{key.call!r} of {self._name(request)}"
                raise Violation(10, f"{name} started again when its client sent it again, and is not idempotent")
            self._touchy.setdefault(request, key.call)
            self._kept(request)
        starts = self._ledger.setdefault(key, _Starts())
        starts.count += 1
        starts.idempotent = starts.idempotent and spec.idempotent
        starts.versions[spec.version] = None
        starts.where.append((host.name, host.node.me, host.sim.now))
        if starts.count == 1:
            return
        where = ", ".join(f"{show(name, me)} at {at / SECOND:.6f} s" for name, me, at in starts.where)
        name = f"{key.call!r} of {self._name(self._first.get(request_of(key), request_of(key)))}"
        if not starts.idempotent:
            raise Violation(10, f"{name} started {starts.count} times, and is not idempotent: {where}")
        most = 1 + host.sim.specs[key.host].limits.failovers
        members = dict.fromkeys([me for _, me, _ in starts.where])  # a member that is lost again counts once
        if len(members) > most or len(starts.versions) > 1:
            versions = sorted(starts.versions)
            raise Violation(10, f"{name} started {starts.count} times, at most {most}, as {versions}: {where}")


class DeadlineEnforcement(Watcher):
    """Invariant 11: no body starts after its deadline, and a dispatched call gets no more time than is left.

    Deadlines are calculated here from the requests as they arrived, each by the clock of the node that received it.
    """

    message_types: ClassVar[tuple[type, ...]] = (Request,)

    def begin(self, sim: World) -> None:
        self._deadlines: dict[tuple[str, int, int, int], int] = {}
        """The deadline of each request, by host, life, link and number."""
        self._left: dict[tuple[str, int, int], int] = {}
        """The time that a dispatch had left when it was sent, by host, life and number."""
        self._local: dict[tuple[str, int, int], int] = {}
        """The deadline of each dispatch of a node to itself, by host, life and number."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is not Request or not isinstance(host, NodeHost):
            return
        limits = host.spec.limits
        span = span_of(message, limits)
        key = (host.name, host.life, link, message.id)
        if key not in self._deadlines or message.id not in host.node.coordinator.in_flight.origins.get(link, ()):
            self._deadlines[key] = host.local + span  # a client may send it again after a refusal
        if message.here:
            wire, side = host.wires[link]
            peer = wire.ends[1 - side]
            left = self._left.get((peer.host.name, peer.life, message.id))
            if left is not None and span > left:
                raise Violation(
                    11,
                    f"{stamp(host)} gets request {message.id} of {peer.host.name} with {span / 1e9:g} s left; "
                    f"it had {left / 1e9:g} s when it left",
                )

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        execution = attempt.execution
        deadline = self._deadlines.get((host.name, host.life, execution.link, execution.reply_id))
        if deadline is not None:
            self._left[host.name, host.life, number] = deadline - host.local
            self._local[host.name, host.life, number] = deadline

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        assert job is not None, "it is about to start"
        if job.link == 0:
            deadline = self._local.get((host.name, host.life, job.request))
        else:
            deadline = self._deadlines.get((host.name, host.life, job.link, job.request))
        if deadline is not None and host.local >= deadline:
            late = (host.local - deadline) / 1e9
            raise Violation(11, f"{stamp(host)} starts {key.call!r} of {key.host} {late:g} s after its deadline")


def span_of(request: Request, limits: Limits) -> int:
    """Return the longest time that a request may take from its arrival."""
    return min(limits.default_timeout if request.timeout is None else request.timeout, limits.longest_timeout)
