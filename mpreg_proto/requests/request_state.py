"""One request in progress: what is waiting, what has a result, what failed, and when it is over.

The coordinator owns one `Execution` for each request and records in it what became of each call; it returns which calls
are ready now. There are no levels: a call is ready the moment its last dependency has a result. `History` holds what
the calls have been through (dispatched, refused, lost) and decides which members are still eligible for a call; empty
tables cost nothing, as most calls are dispatched once and come back. Nothing here knows links or time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.requests.graph import EMPTY_PLAN, Plan
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Traced


def _table() -> Any:
    """An empty table of a `History`."""
    return msgspec.field(default_factory=dict)


class History(msgspec.Struct):
    """Tables by call. All may be read; they are written by the methods alone."""

    queued: dict[str, int] = _table()
    """When each call of a traced request became ready."""
    tries: dict[str, int] = _table()
    """How often a call was dispatched."""
    possibly_started: dict[str, None] = _table()
    """Non-idempotent calls whose body may have started (docs/explanation/guarantees.md)."""
    refusals: dict[str, list[tuple[MemberId, Fault]]] = _table()
    """For calls that were refused somewhere: by whom, and why."""
    losses: dict[str, list[Candidate]] = _table()
    """Whose loss each call has seen, in order; a node whose links come and go may be there more than once."""
    routes: dict[str, dict[MemberId, None]] = _table()
    """For calls that a relay would not pass on: by whom they are not sent any more."""
    earlier_refusals: dict[str, Fault] = _table()
    """For calls that wait: the last refusal before that."""
    versions: dict[str, str] = _table()
    """For calls whose node was lost: the version that alone may run them again."""

    def dispatched(self, name: str, candidate: Candidate) -> None:
        """A call goes to a member."""
        if not candidate.idempotent:
            self.possibly_started[name] = None
        self.tries[name] = self.tries.get(name, 0) + 1

    def not_started(self, name: str) -> None:
        """Whoever had the call says that its body did not start."""
        self.possibly_started.pop(name, None)

    def unsent(self, name: str) -> None:
        """The message with a call never left: it counts as not dispatched."""
        self.possibly_started.pop(name, None)
        self.tries[name] -= 1

    def route_refused(self, name: str, relay: MemberId) -> None:
        """A relay will not pass the call on. That says nothing of the member that the call is for."""
        self.routes.setdefault(name, {})[relay] = None

    def refused(self, name: str, member: MemberId, fault: Fault) -> None:
        """A member will not have the call: it goes elsewhere from now on."""
        self.refusals.setdefault(name, []).append((member, fault))

    def not_connected(self, name: str, member: MemberId, fault: Fault) -> None:
        """A member could not be reached: the call goes elsewhere. What members said of it is a better reason."""
        self.refusals.setdefault(name, []).insert(0, (member, fault))

    def lost(self, name: str, candidate: Candidate, *, failovers: int) -> bool:
        """The member that had the call is gone. Returns whether it may run again: idempotent, and lost with at most
        `failovers` nodes.

        A node that is lost again, as its links come and go, counts once. If so, then as the same version alone.
        """
        self.losses.setdefault(name, []).append(candidate)
        nodes = self.lost_nodes(name)
        if not candidate.idempotent or len(nodes) > failovers:
            return False
        self.versions[name] = candidate.version
        return True

    def lost_nodes(self, name: str) -> list[Candidate]:
        """The nodes that were lost with a call, each once."""
        return list({candidate.member: candidate for candidate in self.losses.get(name, ())}.values())

    def clear_refusals(self, name: str) -> None:
        """Time will pass before the call is placed: whoever refused it may have room again by then."""
        self.routes.pop(name, None)
        refusals = self.refusals.pop(name, None)
        if refusals:
            self.earlier_refusals[name] = refusals[-1][1]

    def last_refusal(self, name: str) -> Fault | None:
        """Why the last member that was asked would not have the call."""
        refusals = self.refusals.get(name)
        return refusals[-1][1] if refusals else None

    def eligible(self, name: str, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those of `candidates` that have not refused the call and fit what was said of it before."""
        if self.refusals and (refusals := self.refusals.get(name)):
            refusers = [member for member, _ in refusals]
            candidates = [candidate for candidate in candidates if candidate.member not in refusers]
        if self.versions and (version := self.versions.get(name)) is not None:
            candidates = [one for one in candidates if one.idempotent and one.version == version]
        return candidates


_SHORT = 1024
"""Bytes of a value up to which it is not worth looking whether anything refers to it."""


def _may_refer(call: Call, dependency: str, value: bytes) -> bool:
    """Whether a call's arguments may hold a reference to `dependency`: then its name is among their bytes.

    Nothing is decoded, and nothing is looked through that is longer than what it may save.
    """
    return len(call.args) > len(value) or dependency.encode("utf-8", "surrogatepass") in call.args


class Execution:
    """The state of one request.

    Each call is waiting, ready (returned by `start` or `complete`), or ended, in this order.
    """

    __slots__ = (
        "_dependencies_left",
        "_dependents_left",
        "_retained",
        "arrived",
        "deadline",
        "dispatches",
        "explained",
        "faults",
        "first_fault",
        "history",
        "id",
        "link",
        "local_calls",
        "open",
        "pending",
        "plan",
        "reply_id",
        "request",
        "trace",
        "values",
        "values_size",
    )

    def __init__(
        self, request_id: RequestId, request: Request, plan: Plan, *, link: LinkId, arrived: int, deadline: int
    ) -> None:
        self.id = request_id
        self.request = request
        self.plan = plan
        self.link = link
        """Where the answer goes."""
        self.reply_id = request.id
        self.arrived = arrived
        self.deadline = deadline
        self.values: dict[str, bytes] = {}
        """Results that somebody still needs, and wanted ones that were not sent when they came."""
        self.values_size = 0
        """Bytes of `values`."""
        self.faults: dict[str, Fault] = {}
        self.first_fault: Fault | None = None
        self.open = dict.fromkeys(plan.calls)
        """Calls that have not ended."""
        self.local_calls = dict.fromkeys(request.here)
        """Calls that this node alone may run."""
        self.explained = 0
        """For how many calls an error said what there is instead."""
        self.history = History()
        self.dispatches: dict[int, LinkId] = {}
        """The numbers under which calls of this request went out, and where."""
        self.pending: dict[str, None] = {}
        """Calls that wait for a node or a link, each with its timers."""
        self.trace: list[Traced] = []
        self._retained = () if request.eager else plan.wanted
        """Calls whose results are for the last answer."""
        self._dependencies_left = {name: len(others) for name, others in plan.dependencies.items()}
        self._dependents_left = {name: len(others) for name, others in plan.dependents.items()}

    def start(self) -> list[str]:
        """The calls that wait for nothing and have not failed yet, in the request's order."""
        if not self._dependencies_left:
            return list(self.open)
        return [name for name in self.open if name not in self._dependencies_left]

    def complete(self, name: str, value: bytes) -> list[str]:
        """`name` has its result; the calls that are ready now for it. A second result for one name is ignored."""
        if name not in self.open:
            return []
        del self.open[name]
        if self._dependents_left.get(name) or name in self._retained:
            self.values[name] = value
            self.values_size += len(value)
        if name in self.plan.dependencies:
            self._release_inputs(name)
        ready: list[str] = []
        for dependent in self.plan.dependents.get(name, ()):
            left = self._dependencies_left.get(dependent)
            if left is None:
                continue  # it has failed for want of another input
            if left == 1:
                del self._dependencies_left[dependent]
                ready.append(dependent)
            else:
                self._dependencies_left[dependent] = left - 1
        return ready

    def fail(self, name: str, fault: Fault) -> list[str]:
        """`name` has failed, and with it all that waits for it, each with 1021 and the call that was to blame.

        Returns all that have failed now.
        """
        if name not in self.open:
            return []
        if self.first_fault is None:
            self.first_fault = fault
        self._mark_failed(name, fault)
        ended = [name]
        waiting = list(self.plan.dependents.get(name, ()))
        while waiting:
            dependent = waiting.pop()
            if dependent in self.open:
                reason = f"call {dependent!r} was not run, as {name!r} failed"
                self._mark_failed(dependent, Fault(ErrorCode.CANCELLED, reason, {"call": dependent, "because": name}))
                ended.append(dependent)
                waiting.extend(self.plan.dependents.get(dependent, ()))

        return ended

    @property
    def finished(self) -> bool:
        """Whether every call has ended."""
        return not self.open

    def inputs_of(self, name: str) -> Mapping[str, bytes]:
        """The results that `name`'s arguments may refer to, those that came with the request among them.

        Long ones of calls that only had to end before (`after=`) are left out.
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
        """The wanted results that are there, in the order wanted."""
        return tuple(Done(name, self.values[name]) for name in self.plan.wanted if name in self.values)

    def failed(self) -> tuple[Failed, ...]:
        """The wanted calls that failed, in the order wanted."""
        return tuple(Failed(name, self.faults[name]) for name in self.plan.wanted if name in self.faults)

    def release(self) -> None:
        """The request is over: let go of all values and arguments, as one of its bodies may run on for long."""
        self.request = Request(self.reply_id, ())
        self.plan = EMPTY_PLAN
        self.values = {}
        self.values_size = 0
        self.faults = {}
        self.trace = []
        self._dependencies_left = {}
        self._dependents_left = {}

    def _mark_failed(self, name: str, fault: Fault) -> None:
        del self.open[name]
        self.faults[name] = fault
        self._dependencies_left.pop(name, None)
        if name in self.plan.dependencies:
            self._release_inputs(name)

    def _release_inputs(self, ended: str) -> None:
        """Let go of inputs that nobody else needs now that `ended` has ended."""
        for dependency in self.plan.dependencies[ended]:
            self._dependents_left[dependency] -= 1
            if not self._dependents_left[dependency] and dependency not in self._retained and dependency in self.values:
                self.values_size -= len(self.values.pop(dependency))
