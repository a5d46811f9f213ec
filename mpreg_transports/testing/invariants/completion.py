"""Invariant 9: each request ends exactly once, by its deadline and 250 ms (docs/explanation/guarantees.md).

Both sides are checked: a client has its reply or an error, and a node keeps nothing of a request that it accepted. A
last reply that is sent twice is detected where it arrives, because the receiver only drops it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message, Request, Result
from mpreg_transports.testing.invariants.execution import span_of
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

GRACE = SECOND // 4
"""The time after its deadline within which a request ends (docs/explanation/guarantees.md)."""


class SingleCompletion(Watcher):
    """Invariant 9, as the module describes."""

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._open: dict[int, SimCall] = {}
        self._ended: dict[tuple[str, int, int], dict[int, None]] = {}
        """The requests whose last reply has arrived, by host, life and link."""
        self._due: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        """A heap of the accepted client requests of each node: the deadline by the node's own clock, the link, the
        number."""

    # -- as clients see it --------------------------------------------------------------------------------------------

    def submitted(self, call: SimCall) -> None:
        self._open[call.label] = call

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result) or not reply.last:
            return
        if self._open.pop(call.label, None) is None:
            raise Violation(9, f"{name_of_call(self._sim, call)} has ended twice")
        ended = -1 if call.ended is None else call.ended
        due = max(call.sent + _span(call), self._sim.clients[call.client].stalled_until)
        if ended > due + GRACE:
            late = (ended - due) / SECOND
            raise Violation(9, f"{name_of_call(self._sim, call)} ended {late:g} s after its deadline")

    def sweep(self, sim: World) -> None:
        for mark, call in list(self._open.items()):
            if call.done():  # cancelled, or its process has ended
                del self._open[mark]
            elif sim.now > call.sent + _span(call) + GRACE and _runs(sim, call):
                late = (sim.now - call.sent - _span(call)) / SECOND
                raise Violation(9, f"{name_of_call(self._sim, call)} has no end {late:g} s after its deadline")
        for host in sim.nodes.values():
            if host.alive:
                self._rid(host)

    # -- as nodes see it ----------------------------------------------------------------------------------------------

    def node_started(self, host: NodeHost) -> None:
        self._due[host.name, host.life] = []

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        kind = type(message)
        if isinstance(host, NodeHost):
            self._look(host)
        if kind is Result:
            self._answer_came(host, link, message)  # type: ignore[arg-type]
        elif kind is Request and isinstance(host, NodeHost) and host.node.links.sessions[link].member is None:
            assert isinstance(message, Request)
            wire, side = host.wires[link]
            peer = wire.ends[1 - side]
            self._ended.get((peer.host.name, peer.life, peer.link), {}).pop(message.id, None)  # it was sent again
            due = host.local + span_of(message, host.spec.limits)
            heappush(self._due[host.name, host.life], (due, link, message.id))

    def timer_due(self, host: Host) -> None:
        if isinstance(host, NodeHost):
            self._look(host)

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        self._look(host)

    def node_event_handled(self, host: NodeHost) -> None:
        self._look(host)

    def _look(self, host: NodeHost) -> None:
        """Check the deadlines of a node's requests.

        This runs before each event that may end a request, so that a request that ends too late is still present, and
        after it.
        """
        due = self._due[host.name, host.life]
        if due and due[0][0] + GRACE < host.local:
            self._rid(host)

    def _answer_came(self, host: Host, link: LinkId, result: Result) -> None:
        ended = self._ended.setdefault((host.name, host.life, link), {})
        if result.id in ended:
            raise Violation(9, f"{host.name} gets another answer for {result.id} after the last, at {host.sim.time} s")
        if result.last:
            ended[result.id] = None

    def _rid(self, host: NodeHost) -> None:
        """Check that a node keeps no request past its deadline, unless it was stalled itself."""
        due = self._due[host.name, host.life]
        if host.sim.now - host.stalled_until < GRACE:
            return
        while due and due[0][0] + GRACE < host.local:
            deadline, link, number = heappop(due)
            for execution in host.node.coordinator.requests.values():
                if execution.link == link and execution.reply_id == number:
                    late = (host.local - deadline) / SECOND
                    raise Violation(9, f"{stamp(host)} still has request {number} {late:g} s after its deadline")


def _span(call: SimCall) -> int:
    limits = 60 * SECOND
    return limits if call.request.timeout is None else call.request.timeout


def _runs(sim: World, call: SimCall) -> bool:
    """Return whether the process of its client runs, and is not stalled."""
    client = sim.clients.get(call.client)
    return client is not None and client.alive and client.stalled_until + GRACE < sim.now
