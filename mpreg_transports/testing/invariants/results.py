"""Invariant 8: results equal those of a sequential oracle, for every interleaving and placement.

Each reply is compared with the bodies that ran for this call. Their arguments must be those of the request, and the
result must be what one of them returned. If all functions of a request are known to be pure, the whole request is also
evaluated again in plain Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.effects import Outcome, Raised, Returned, Run
from mpreg_proto.errors import ErrorCode
from mpreg_proto.wire.messages import Call, Done, Failed, Result
from mpreg_proto.wire.values import UnsendableValue
from mpreg_transports.testing.invariants.execution import RequestKey, request_of, source_of
from mpreg_transports.testing.invariants.oracles import attempt_of, stamp
from mpreg_transports.testing.invariants.sequential import Failure, KnownPure, Pure, arguments, evaluate
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher
from mpreg_transports.values import default_codec

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World


class _Placed:
    """A placed call, and the encoded results of its dependencies."""

    __slots__ = ("call", "ended", "given")

    def __init__(self, call: Call, given: dict[str, bytes | None]) -> None:
        self.call = call
        self.given = given
        self.ended: list[bytes | Failure] = []
        """The outcomes of its bodies."""


class OracleWatcher(Watcher):
    """A watcher that evaluates requests again.

    `pure` maps names to functions that may be evaluated again; None: those that provably hold no state.
    """

    def __init__(self, pure: Pure | None = None) -> None:
        self._named = pure

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._known = KnownPure()
        self._pure: Pure = self._known.calls if self._named is None else self._named

    def node_started(self, host: NodeHost) -> None:
        self._known.add(host.functions)


def difference(value: bytes, expected: bytes | Failure) -> str:
    """Return how an encoded result differs from that of the oracle, as the end of a sentence; empty if it does not."""
    codec = default_codec()
    if isinstance(expected, Failure):
        return f"is {codec.decode(value)!r}; one after the other it fails"
    if value != expected and codec.decode(value) != codec.decode(expected):
        return f"is {codec.decode(value)!r}, not {codec.decode(expected)!r}"
    return ""


class SequentialEquivalence(OracleWatcher):
    """Invariant 8, as the module describes."""

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._placed: dict[CallKey, _Placed] = {}
        self._requests: dict[tuple[str, int, int], RequestKey] = {}
        """The request at its coordinator for a client's request, by client, life and number."""
        self._expected: dict[int, dict[str, bytes | Failure]] = {}

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        execution = attempt.execution
        if key not in self._placed:
            call = execution.plan.calls[key.call]
            given = {need: execution.values.get(need, execution.request.inputs.get(need)) for need in call.dependencies}
            self._placed[key] = _Placed(call, given)
        if execution.link in host.wires:
            wire, side = host.wires[execution.link]
            peer = wire.ends[1 - side]
            self._requests[peer.host.name, peer.life, execution.reply_id] = request_of(key)

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        placed = self._placed.get(key)
        if placed is None:
            return
        call = placed.call
        if run.function != call.function:
            raise Violation(8, f"{stamp(host)} runs {run.function} for {call.name!r}, which calls {call.function}")
        codec, inputs = default_codec(), placed.given
        if (source := source_of(host, run)) is not None:  # its items come later, and None stands for them
            inputs = {**inputs, source: codec.encode(None)}
        if any(value is None for value in inputs.values()):  # released before it could be read
            return
        given = codec.encode([run.args, run.kwargs])
        if not call.dependencies and given == call.args:  # exactly what the client wrote
            return
        try:
            args, kwargs = arguments(call, inputs, codec)
        except (LookupError, TypeError):
            raise Violation(8, f"{stamp(host)} runs {call.name!r} though a path in it leads nowhere") from None
        if codec.encode([args, kwargs]) != given:
            raise Violation(
                8, f"{stamp(host)} runs {call.name!r} with {run.args!r} {run.kwargs!r}, not {args!r} {kwargs!r}"
            )

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        placed = self._placed.get(key)
        if placed is None:
            return
        if isinstance(outcome, Returned):
            try:
                placed.ended.append(default_codec().encode(outcome.value))
            except UnsendableValue:
                placed.ended.append(Failure("UnsendableValue"))
        elif isinstance(outcome, Raised):
            placed.ended.append(Failure(outcome.kind))

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result):
            return
        request = self._requests.get((call.client, self._sim.clients[call.client].life, call.number))
        wanted = _wanted(call)
        rows: tuple[Done | Failed, ...] = (*reply.done, *reply.failed)
        for row in rows:
            if row.name not in wanted:
                raise Violation(8, f"{self._who(row, call)} was not asked for")
            if isinstance(row, Done) and not row.value and row.name in call.items:  # its items came before it
                row = Done(row.name, default_codec().encode(call.items_of(row.name)))
            elif isinstance(row, Done) and not row.value:
                row = Done(row.name, default_codec().encode([]))
            if isinstance(row, Done):
                self._compare_with_bodies(row, request, call)
            self._compare_with_oracle(row, call)
        fault = reply.fault
        if fault is not None and fault.code == ErrorCode.EXECUTION_FAILED and not reply.failed:
            name = str(fault.details.get("call", ""))
            self._compare_with_oracle(Failed(name, fault), call)

    def _who(self, row: Done | Failed, call: SimCall) -> str:
        return f"{row.name!r} of {name_of_call(self._sim, call)} at {self._sim.time:.6f} s"

    def _compare_with_bodies(self, row: Done, request: RequestKey | None, call: SimCall) -> None:
        placed = None if request is None else self._placed.get(CallKey(*request, row.name))
        if placed is None or row.value not in placed.ended:
            given = default_codec().decode(row.value)
            raise Violation(8, f"{self._who(row, call)} came back as {given!r}, and no body of this call returned that")

    def _compare_with_oracle(self, row: Done | Failed, call: SimCall) -> None:
        expected = self._expected.get(call.label)
        if expected is None:
            expected = self._expected[call.label] = evaluate(call.request, self._pure, default_codec())
        result = expected.get(row.name)
        if result is None:
            return
        if isinstance(row, Failed):
            kind = row.fault.details.get("type")
            if row.fault.code == ErrorCode.EXECUTION_FAILED and not (
                isinstance(result, Failure) and result.kind in (kind, "")
            ):
                raise Violation(8, f"{self._who(row, call)} failed with {kind}; one after the other it does not")
        elif text := difference(row.value, result):
            raise Violation(8, f"{self._who(row, call)} {text}")


def _wanted(call: SimCall) -> dict[str, None]:
    """Return the names that a reply may contain: the wanted calls, or the leaves."""
    request = call.request
    if request.want is not None:
        return dict.fromkeys(request.want)
    needed = {need for one in request.calls for need in one.dependencies}
    return dict.fromkeys(one.name for one in request.calls if one.name not in needed)
