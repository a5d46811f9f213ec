"""The state of one request in progress: the state of each call, the results so far, and when the request is over.

The coordinator owns one `Execution` for each request and records the outcome of each call in it; `Execution` returns
the calls that are ready now. There are no levels: a call is ready as soon as its last dependency has a result.
`History` records the attempts of the calls (dispatched, refused, lost) and decides which members are eligible for a
call; most calls are dispatched once, so its tables are mostly empty. Nothing here uses links; time is an argument.

A call has a `CallState`, and `TRANSITIONS` lists every step between two states. Each step adds a row to the story of
the request: which call, when, to which state, at which node, and why (dask/distributed: `story`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mpreg_proto.describe import cut
from mpreg_proto.errors import ErrorCode, Fault, LocalProtocolError
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.requests.graph import EMPTY_PLAN, Plan
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Traced


class CallState(enum.IntEnum):
    """The state of one call of a request. States below DONE are open."""

    WAITING = 0
    """A dependency has no result yet."""
    READY = 1
    """Every dependency has a result; the call is being placed. No call stays in this state between two inputs."""
    PENDING = 2
    """It waits for a node, for a link, or for the end of a pause after a loss."""
    DISPATCHED = 3
    """It is at a member and idempotent: another member may start it again."""
    POSSIBLY_STARTED = 4
    """It is at a member, it is not idempotent, and its body may have started."""
    DONE = 5
    """It has a result."""
    FAILED = 6
    """It has an error: of its body, of its node, or because no node can run it."""
    CANCELLED = 7
    """The request ended before it."""
    SKIPPED = 8
    """It was not run, as a dependency has failed."""


_STATE = CallState
_DISPATCHED = (_STATE.DISPATCHED, _STATE.POSSIBLY_STARTED)
_ENDED_EARLY = frozenset((_STATE.FAILED, _STATE.CANCELLED))
TRANSITIONS: Mapping[CallState, frozenset[CallState]] = {
    _STATE.WAITING: _ENDED_EARLY | {_STATE.READY, _STATE.SKIPPED},
    _STATE.READY: _ENDED_EARLY | {_STATE.PENDING, _STATE.DISPATCHED, _STATE.POSSIBLY_STARTED},
    _STATE.PENDING: _ENDED_EARLY | {_STATE.READY},
    _STATE.DISPATCHED: _ENDED_EARLY | {_STATE.READY, _STATE.PENDING, _STATE.DONE},
    _STATE.POSSIBLY_STARTED: _ENDED_EARLY | {_STATE.READY, _STATE.DONE},
    _STATE.DONE: frozenset(),
    _STATE.FAILED: frozenset(),
    _STATE.CANCELLED: frozenset(),
    _STATE.SKIPPED: frozenset(),
}
"""The states that may follow each state."""


_STEPS_PER_CALL = 16
_STEPS = 64
"""The most steps in the story of a request: so many, and `_STEPS_PER_CALL` for each call."""
_REASON = 256
"""The most characters of a reason in a story."""


class RunTimes(msgspec.Struct, frozen=True, gc=False):
    """The times at which a call arrived at its member, started and ended, in ns of this node's clock."""

    arrived: int
    started: int
    ended: int


class StoryRow(msgspec.Struct, frozen=True, gc=False):
    """One step of one call. `at` is the time of the step in ns of this node's clock."""

    at: int
    request: RequestId
    call: str
    state: CallState
    node: str = ""
    """The member where the step happened. A call that is READY again with no node was never sent to any."""
    reason: str = ""
    times: RunTimes | None = None
    """The times of the call at its member; None unless that member reported how it ended."""


def trace_of(story: Sequence[StoryRow], arrived: int, dropped_tries: Mapping[str, int]) -> tuple[Traced, ...]:
    """Return a row for each call that a member has ended, in the order of their ends, from the story of a request.

    Its times count from `arrived`; `dropped_tries` are those whose steps are no longer in the story.
    """
    queued: dict[str, int] = {}
    out: dict[str, StoryRow] = {}
    rows: list[Traced] = []
    tries = tries_of(story)
    for row in story:
        name = row.call
        if row.state in _DISPATCHED:
            out[name] = row
            continue
        if row.state is _STATE.READY:
            queued.setdefault(name, row.at)
        sent, times = out.pop(name, None), row.times
        if sent is not None and times is not None:
            moved, started, ended = times.arrived - arrived, times.started - arrived, times.ended - arrived
            ready, count = queued.get(name, sent.at) - arrived, tries[name] + dropped_tries.get(name, 0)
            rows.append(Traced(name, sent.node, ready, moved, started, ended, count, sent.reason))
    return tuple(rows)


def tries_of(story: Sequence[StoryRow]) -> dict[str, int]:
    """Return the number of dispatches of each call in a story, without those that were never sent."""
    tries: dict[str, int] = {}
    out: dict[str, None] = {}
    for row in story:
        name = row.call
        if row.state in _DISPATCHED:
            tries[name] = tries.get(name, 0) + 1
            out[name] = None
        else:
            if name in out and row.state is _STATE.READY and not row.node:
                tries[name] -= 1
            out.pop(name, None)
    return tries


def _table() -> Any:
    """An empty table of a `History`."""
    return msgspec.field(default_factory=dict)


class History(msgspec.Struct):
    """The attempts of the calls, in tables by call. The methods alone write to them."""

    refusals: dict[str, list[tuple[MemberId, Fault]]] = _table()
    """The refusals of a call: the member and its fault."""
    losses: dict[str, list[Candidate]] = _table()
    """The nodes that were lost with a call, in order; a node with unstable links may appear more than once."""
    routes: dict[str, dict[MemberId, None]] = _table()
    """The relays that refused a call and do not get it again."""
    earlier_refusals: dict[str, Fault] = _table()
    """The last refusal of a pending call."""
    versions: dict[str, str] = _table()
    """The only version that may run a call again whose node was lost."""

    def route_refused(self, name: str, relay: MemberId) -> None:
        """Record that a relay refused the call, which does not concern the member that the call is for."""
        self.routes.setdefault(name, {})[relay] = None

    def refused(self, name: str, member: MemberId, fault: Fault) -> None:
        """Record that a member refused the call, which goes elsewhere from now on."""
        self.refusals.setdefault(name, []).append((member, fault))

    def not_connected(self, name: str, member: MemberId, fault: Fault) -> None:
        """Record that a member could not be reached. Refusals by members come first as a reason."""
        self.refusals.setdefault(name, []).insert(0, (member, fault))

    def lost(self, name: str, candidate: Candidate, *, failovers: int) -> bool:
        """Record that the node of a call was lost. Returns whether the call may run again, in the same version.

        It may if it is idempotent and at most `failovers` nodes were lost with it; each node counts once.
        """
        self.losses.setdefault(name, []).append(candidate)
        nodes = self.lost_nodes(name)
        if not candidate.idempotent or len(nodes) > failovers:
            return False
        self.versions[name] = candidate.version
        return True

    def lost_nodes(self, name: str) -> list[Candidate]:
        """Return the nodes that were lost with a call, each once."""
        return list({candidate.member: candidate for candidate in self.losses.get(name, ())}.values())

    def clear_refusals(self, name: str) -> None:
        """Forget the refusals of a call that becomes pending: members may have room later."""
        self.routes.pop(name, None)
        refusals = self.refusals.pop(name, None)
        if refusals:
            self.earlier_refusals[name] = refusals[-1][1]

    def last_refusal(self, name: str) -> Fault | None:
        """Return the fault of the last refusal of a call, or None."""
        refusals = self.refusals.get(name)
        return refusals[-1][1] if refusals else None

    def eligible(self, name: str, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Return the candidates that have not refused the call and fit its earlier attempts."""
        if self.refusals and (refusals := self.refusals.get(name)):
            refusers = [member for member, _ in refusals]
            candidates = [candidate for candidate in candidates if candidate.member not in refusers]
        if self.versions and (version := self.versions.get(name)) is not None:
            candidates = [one for one in candidates if one.idempotent and one.version == version]
        return candidates


_SHORT = 1024
"""Bytes of a value below which a search for references costs more than it saves."""


def _may_refer(call: Call, dependency: str, value: bytes) -> bool:
    """Return whether the arguments of a call may refer to `dependency`: its name is among their bytes.

    Nothing is decoded, and arguments longer than the value are not searched.
    """
    return len(call.args) > len(value) or dependency.encode("utf-8", "surrogatepass") in call.args


def _streams(request: Request, plan: Plan) -> dict[str, None]:
    """Return the calls whose items can be passed on: nothing else needs their results."""
    return {name: None for name in request.streams if name in plan.wanted and name not in plan.dependents}


class Execution:
    """The state of one request: `states` by call, in the request's order. `move` alone changes them."""

    __slots__ = (
        "_dependencies_left",
        "_dependents_left",
        "_retained",
        "arrived",
        "deadline",
        "dispatches",
        "dropped_tries",
        "explained",
        "faults",
        "first_fault",
        "history",
        "id",
        "link",
        "local_calls",
        "open_count",
        "pending",
        "plan",
        "possibly_started",
        "reply_id",
        "request",
        "size",
        "states",
        "story",
        "streamed",
        "streams",
        "unverified",
        "values",
        "values_size",
    )

    def __init__(
        self,
        request_id: RequestId,
        request: Request,
        plan: Plan,
        *,
        link: LinkId,
        arrived: int,
        deadline: int,
        size: int = 0,
    ) -> None:
        self.id: RequestId = request_id
        self.request: Request = request
        self.plan: Plan = plan
        self.link: LinkId = link
        """The link that the reply goes to."""
        self.reply_id: int = request.id
        self.size: int = size
        """The bytes of its message; 0 if it was never encoded."""
        self.arrived: int = arrived
        self.deadline: int = deadline
        self.values: dict[str, bytes] = {}
        """The results that dependents need, and the wanted ones for the last reply."""
        self.values_size: int = 0
        """The bytes of `values`."""
        self.faults: dict[str, Fault] = {}
        self.first_fault: Fault | None = None
        self.states: dict[str, CallState] = dict.fromkeys(plan.calls, CallState.WAITING)
        self.open_count: int = len(plan.calls)
        """The number of calls in an open state."""
        self.story: list[StoryRow] = []
        """The steps of the calls, in order; of very many, `_drop_steps` keeps the most useful ones."""
        self.dropped_tries: dict[str, int] = {}
        """The number of dispatches of a call whose steps were dropped."""
        self.local_calls: dict[str, None] = dict.fromkeys(request.here)
        """The calls that only this node may run."""
        self.explained: int = 0
        """The number of calls whose error named alternatives."""
        self.history: History = History()
        self.dispatches: dict[int, LinkId] = {}
        """The numbers under which calls of this request went out, and where."""
        self.pending: dict[str, None] = {}
        """The pending calls, each with its timers."""
        self.possibly_started: dict[str, None] = {}
        """Non-idempotent calls whose body may have started, ended ones too (docs/explanation/guarantees.md)."""
        self.streams: dict[str, None] = _streams(request, plan) if request.streams else {}
        """The calls whose items the caller gets one by one."""
        self.streamed: dict[str, int] = {}
        """The number of the dispatch of each of them that has produced an item: it may not start again."""
        self.unverified: bool = False
        """True if it is sent again, and a call of it is not known to be idempotent everywhere: that may have run."""
        self._retained = () if request.eager else plan.wanted
        """The calls whose results are for the last reply."""
        self._dependencies_left = {name: len(others) for name, others in plan.dependencies.items()}
        self._dependents_left = {name: len(others) for name, others in plan.dependents.items()}

    # -- states -------------------------------------------------------------------------------------------------------

    def move(
        self,
        name: str,
        state: CallState,
        now: int,
        node: str = "",
        reason: str = "",
        times: RunTimes | None = None,
    ) -> None:
        """Put a call into its next state. Raises LocalProtocolError for a step that `TRANSITIONS` does not have."""
        current = self.states[name]
        if state not in TRANSITIONS[current]:
            raise LocalProtocolError(f"call {name!r} is {current.name} and cannot become {state.name}")
        self.states[name] = state
        if state >= _STATE.DONE:
            self.open_count -= 1
        elif state is _STATE.POSSIBLY_STARTED:
            self.possibly_started[name] = None
        elif current is _STATE.POSSIBLY_STARTED:  # only a call that has not started may be placed again
            self.possibly_started.pop(name, None)
        if len(self.story) >= _STEPS_PER_CALL * len(self.states) + _STEPS:
            self._drop_steps()
        self.story.append(
            StoryRow(now, self.id, name, state, node, reason if len(reason) <= _REASON else cut(reason, _REASON), times)
        )

    def _drop_steps(self) -> None:
        """Drop steps of the older half. For each call its first READY, its last dispatch and its last step stay."""
        first: dict[str, int] = {}
        dispatched: dict[str, int] = {}
        last: dict[str, int] = {}
        for at, row in enumerate(self.story):
            last[row.call] = at
            if row.state is _STATE.READY:
                first.setdefault(row.call, at)
            elif row.state in _DISPATCHED:
                dispatched[row.call] = at
        kept = dict.fromkeys((*first.values(), *dispatched.values(), *last.values()))
        before, half = tries_of(self.story), len(self.story) // 2
        self.story = [row for at, row in enumerate(self.story) if at >= half or at in kept]
        after = tries_of(self.story)
        for name, tries in before.items():
            if dropped := tries - after.get(name, 0):
                self.dropped_tries[name] = self.dropped_tries.get(name, 0) + dropped

    @property
    def trace(self) -> tuple[Traced, ...]:
        """A row for each call that a member has ended."""
        return trace_of(self.story, self.arrived, self.dropped_tries)

    def is_open(self, name: str) -> bool:
        """Return whether a call has not ended. After the end of the request none is open."""
        return self.states.get(name, _STATE.DONE) < _STATE.DONE

    @property
    def open(self) -> list[str]:
        """The calls that have not ended, in the request's order."""
        return [name for name, state in self.states.items() if state < _STATE.DONE]

    def given_out(self) -> list[tuple[str, str, bool]]:
        """Return each call that a node has, and may have started, or has ended: its name, the node, whether it ended.

        A call that failed at its node ends the request, unless that is partial.
        """
        nodes = {row.call: row.node for row in self.story if row.state in _DISPATCHED}
        had = (*_DISPATCHED, _STATE.DONE, _STATE.FAILED)
        states = [(name, state) for name, state in self.states.items() if state in had and name in nodes]
        return [(name, nodes[name], state not in _DISPATCHED) for name, state in states]

    def not_started(self, name: str) -> None:
        """Record that the body of a dispatched call did not start, as its member refused it."""
        self.possibly_started.pop(name, None)

    def cancel_open(self, now: int, reason: str) -> None:
        """Mark all open calls CANCELLED."""
        for name in self.open:
            self.move(name, _STATE.CANCELLED, now, reason=reason)

    def validate(self) -> None:
        """Check that the tables agree with the states, for tests and simulations. Raises AssertionError."""
        states, last = self.states, {row.call: row.state for row in self.story}
        assert list(states) == list(self.plan.calls), "each call has a state"
        assert self.open_count == len(self.open), f"{self.open_count} calls count as open, and these are: {self.open}"
        for name, state in states.items():
            ends = last.get(name, _STATE.WAITING)
            assert ends is state, f"the story of {name!r} ends otherwise: {state.name}"
            left = self._dependencies_left.get(name, 0)
            waiting = state is _STATE.WAITING or (state is _STATE.CANCELLED and bool(left))
            assert waiting == bool(left), f"{name!r} is {state.name} with {left} dependencies left"
            assert name not in self.values or state is _STATE.DONE, f"{name!r} has a result and is {state.name}"
            assert (name in self.faults) == (state in (_STATE.FAILED, _STATE.SKIPPED)), f"{name!r}: {state.name}"
            assert state is not _STATE.POSSIBLY_STARTED or name in self.possibly_started, f"{name!r} may have started"
            if name in self.possibly_started:
                may_be = state is _STATE.POSSIBLY_STARTED or (state >= _STATE.DONE and state is not _STATE.SKIPPED)
                assert may_be, f"{name!r} may have started and is {state.name}"
            needed = name in self._retained or any(self.is_open(one) for one in self.plan.dependents.get(name, ()))
            kept = state is _STATE.DONE and needed
            assert kept == (name in self.values), f"the result of {name!r}, {state.name}, is kept: {not kept}"
        assert self.values_size == sum(map(len, self.values.values())), "the bytes of the results are counted wrong"

    def start(self, now: int) -> list[str]:
        """Return the open calls without dependencies, in the request's order: they are READY."""
        waiting, left = _STATE.WAITING, self._dependencies_left
        ready = [name for name, state in self.states.items() if state is waiting and name not in left]
        for name in ready:
            self.move(name, _STATE.READY, now)
        return ready

    def complete(self, name: str, value: bytes, now: int, node: str = "", times: RunTimes | None = None) -> list[str]:
        """Record the result of a call; a second one is ignored. Returns the calls that are READY now."""
        if self.states.get(name, _STATE.DONE) >= _STATE.DONE:
            return []
        self.move(name, _STATE.DONE, now, node, times=times)
        if self._dependents_left.get(name) or name in self._retained:
            self.values[name] = value
            self.values_size += len(value)
        if name in self.plan.dependencies:
            self._release_inputs(name)
        ready: list[str] = []
        for dependent in self.plan.dependents.get(name, ()):
            left = self._dependencies_left.get(dependent)
            if left is None:
                continue  # it was skipped, as another dependency has failed
            if left == 1:
                del self._dependencies_left[dependent]
                self.move(dependent, _STATE.READY, now)
                ready.append(dependent)
            else:
                self._dependencies_left[dependent] = left - 1
        return ready

    def fail(self, name: str, fault: Fault, now: int, times: RunTimes | None = None) -> list[str]:
        """Record the failure of a call, and fail all its dependents with 1021, which names this call.

        Returns all calls that have failed now.
        """
        if not self.is_open(name):
            return []
        if self.first_fault is None:
            self.first_fault = fault
        self._mark_failed(name, fault, _STATE.FAILED, now, times)
        ended = [name]
        waiting = list(self.plan.dependents.get(name, ()))
        while waiting:
            dependent = waiting.pop()
            if self.is_open(dependent):
                reason = f"call {dependent!r} was not run, as {name!r} failed"
                skipped = Fault(ErrorCode.CANCELLED, reason, {"call": dependent, "because": name})
                self._mark_failed(dependent, skipped, _STATE.SKIPPED, now)
                ended.append(dependent)
                waiting.extend(self.plan.dependents.get(dependent, ()))

        return ended

    @property
    def finished(self) -> bool:
        """True if every call has ended."""
        return not self.open_count

    def inputs_of(self, name: str) -> Mapping[str, bytes]:
        """Return the inputs of a call: the results of its dependencies, some of which came with the request.

        Long results that the arguments do not refer to (`after=`) are left out.
        """
        call = self.plan.calls[name]
        if not call.dependencies:
            return {}
        values, came = self.values, self.request.inputs
        inputs = {
            dependency: values[dependency] if dependency in values else came[dependency]
            for dependency in call.dependencies
        }
        return {
            dependency: value
            for dependency, value in inputs.items()
            if len(value) <= _SHORT or _may_refer(call, dependency, value)
        }

    def done(self) -> tuple[Done, ...]:
        """Return the wanted results so far, in the order wanted."""
        return tuple(Done(name, self.values[name]) for name in self.plan.wanted if name in self.values)

    def failed(self) -> tuple[Failed, ...]:
        """Return the wanted calls that failed, in the order wanted."""
        return tuple(Failed(name, self.faults[name]) for name in self.plan.wanted if name in self.faults)

    def release(self) -> None:
        """Drop all values and arguments of an ended request, as one of its bodies may run on for long."""
        self.request = Request(self.reply_id, ())
        self.plan = EMPTY_PLAN
        self.states = {}
        self.story = []
        self.values = {}
        self.values_size = 0
        self.faults = {}
        self._dependencies_left = {}
        self._dependents_left = {}

    def _mark_failed(self, name: str, fault: Fault, state: CallState, now: int, times: RunTimes | None = None) -> None:
        node = fault.details.get("node")  # a peer's word, of any kind and length
        self.move(name, state, now, cut(node, _REASON) if isinstance(node, str) else "", fault.message, times)
        self.faults[name] = fault
        self._dependencies_left.pop(name, None)
        if name in self.plan.dependencies:
            self._release_inputs(name)

    def _release_inputs(self, ended: str) -> None:
        """Drop the inputs that no other call needs after `ended` has ended."""
        for dependency in self.plan.dependencies[ended]:
            self._dependents_left[dependency] -= 1
            if not self._dependents_left[dependency] and dependency not in self._retained and dependency in self.values:
                self.values_size -= len(self.values.pop(dependency))
