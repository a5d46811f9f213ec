"""Parts of invariants 9 and 14: calls wait for a node, and nodes for their last calls, as long as they may.

Both bounds are checked: what waits does not give up before its time, and does not wait longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire.messages import Result
from mpreg_transports.testing.invariants.completion import GRACE
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call, name_of_execution
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

_NO_NODE = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.DRAINING)
"""The errors of a call that no node runs: it fails with them only after its `wait`."""


class PendingWait(Watcher):
    """Invariants 9 and 14: a call without a node waits for the `wait` of its request, not less (14) and not longer (9).

    A leaving node ends when its grace is over (9).
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._since: dict[str, dict[tuple[int, str], int]] = {}
        """The time at which each pending call was first seen waiting for an offer, by its node's clock, by host."""
        self._coordinators: dict[str, tuple[int, bytes]] = {}
        self._leaving: dict[tuple[str, int], int] = {}

    def node_event_handled(self, host: NodeHost) -> None:
        calls = host.node.coordinator.pending_calls._requirements
        if calls or self._since.get(host.name):
            self._pending(host)
        if host.node.draining:
            since = self._leaving.setdefault((host.name, host.life), host.local)
            grace = host.spec.limits.drain_grace + GRACE
            if host.local > since + grace and not host.node.left and not self._was_stalled(host):
                raise Violation(9, f"{stamp(host)} has not left {(host.local - since) / SECOND:g} s after it began to")

    def _pending(self, host: NodeHost) -> None:
        node, coordinator = host.node, host.node.coordinator
        since = self._since.setdefault(host.name, {})
        identity = (host.life, node.me)
        if self._coordinators.get(host.name) != identity:
            self._coordinators[host.name] = identity
            since.clear()
        calls = coordinator.pending_calls._requirements
        for key in [key for key in since if key not in calls]:
            del since[key]
        for request, name in calls:
            if (TimerKind.LINK_WAIT, request, name) in node._timers or (TimerKind.RETRY, request, name) in node._timers:
                continue
            began = since.setdefault((request, name), host.local)
            execution = coordinator.requests[request]
            if host.local > began + execution.request.wait + GRACE and not self._was_stalled(host):
                waited, may = (host.local - began) / SECOND, execution.request.wait / SECOND
                where = name_of_execution(host, execution)
                raise Violation(9, f"{stamp(host)} lets {name!r} of {where} wait for {waited:g} s, at most {may:g} s")

    def _was_stalled(self, host: NodeHost) -> bool:
        return host.sim.now - host.stalled_until < GRACE

    def replied(self, call: SimCall, reply: Reply) -> None:
        wait = call.request.wait
        if not wait or not isinstance(reply, Result):
            return
        least = wait if call.request.timeout is None else min(wait, call.request.timeout)
        waited = self._sim.now - call.sent
        if waited >= least * 98 // 100:  # the clocks differ
            return
        faults: list[Fault] = [row.fault for row in reply.failed]
        faults += [] if reply.fault is None else [reply.fault]
        for fault in faults:
            if fault.code in _NO_NODE and "call" in fault.details:
                what = f"{name_of_call(self._sim, call)} ended with {fault.code} {fault.message}"
                raise Violation(14, f"{what}, {waited / SECOND:g} s after it was sent; its wait is {wait / SECOND:g} s")
