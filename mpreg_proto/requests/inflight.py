"""The requests this node answers for, each from its arrival to its one answer.

The coordinator begins them and tells what became of their calls; out go `SendReply`, `CallSettled` for an eager
request, and `CancelDispatch` for what is still out of one that is over. Every way to the end passes through `end`
or, when there is nobody left to answer, `close`; after either the request is no
longer here, so nothing is answered twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpreg_proto.errors import Fault, over_limit
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import Action, CallSettled, CancelDispatch, SendReply
from mpreg_proto.requests.graph import Plan
from mpreg_proto.requests.outstanding import Outstanding
from mpreg_proto.requests.pending import PendingCalls
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Done, Failed, Request, Result


class InFlight:
    """Requests by their id here, and by the link and id with which they came. Timer keys: (TimerKind.DEADLINE, id)."""

    def __init__(
        self, *, outstanding: Outstanding, pending_calls: PendingCalls, timers: Timers, limits: Limits
    ) -> None:
        self.requests: dict[RequestId, Execution] = {}
        self.origins: dict[LinkId, dict[int, RequestId]] = {}
        self._outstanding = outstanding
        self._pending_calls = pending_calls
        self._timers = timers
        self._limits = limits
        self.last_id = 0
        """Of the newest request; they are counted up from 1."""

    def has(self, link: LinkId, number: int) -> bool:
        """Whether a request of that id came over `link` and is in progress."""
        return number in self.origins.get(link, ())

    def get(self, link: LinkId, number: int) -> Execution | None:
        """The request in progress that came over `link` with that id."""
        request_id = self.origins.get(link, {}).get(number)
        return None if request_id is None else self.requests[request_id]

    def from_link(self, link: LinkId) -> list[Execution]:
        """The requests that came over `link`, oldest first."""
        return [self.requests[request_id] for request_id in self.origins.get(link, {}).values()]

    def open_request(self, request: Request, plan: Plan, link: LinkId, *, now: int, deadline: int) -> Execution:
        """A request that has passed all checks, under an id of its own. It is in progress once given to `begin`."""
        self.last_id += 1
        return Execution(RequestId(self.last_id), request, plan, link=link, arrived=now, deadline=deadline)

    def begin(self, execution: Execution) -> None:
        """From now on this request is answered for."""
        self.requests[execution.id] = execution
        self.origins.setdefault(execution.link, {})[execution.reply_id] = execution.id
        self._timers.set((TimerKind.DEADLINE, execution.id), execution.deadline)

    # -- what became of a call ----------------------------------------------------------------------------------------

    def done(self, execution: Execution, row: Done) -> tuple[list[str], list[Action]]:
        """A call has its result. Returns the calls that are ready now for it."""
        ready = execution.complete(row.name, row.value)
        actions: list[Action] = []
        if execution.request.eager and row.name in execution.plan.wanted:
            actions.append(CallSettled(execution.link, execution.reply_id, row))
        if execution.values_size > self._limits.values:
            return [], actions + self.end(execution, over_limit("values", self._limits.values, execution.values_size))
        if execution.finished:
            actions += self.end(execution, None)
        return ready, actions

    def failed(self, execution: Execution, name: str, fault: Fault) -> list[Action]:
        """A call has failed, for good: so has the request, unless it is partial and something else is open."""
        call = execution.plan.calls[name]
        fault = fault.with_details(call=name, function=call.function)
        self._pending_calls.discard(execution, name)
        if not execution.request.partial:
            return self.end(execution, fault)
        failed = execution.fail(name, fault)
        actions = self._settled_failures(execution, failed)
        return actions + self.end(execution, None) if execution.finished else actions

    # -- ends ---------------------------------------------------------------------------------------------------------

    def end(self, execution: Execution, fault: Fault | None) -> list[Action]:
        """Answer, once, and call off what is still out."""
        request = execution.request
        partial = request.partial and fault is None
        if partial:
            fault = execution.first_fault
        if fault is not None:
            fault = fault.with_details(maybe_executed=bool(execution.history.possibly_started))
        done = execution.done() if (fault is None or partial) and not request.eager else ()
        failed = execution.failed() if partial and not request.eager else ()
        reply = SendReply(
            execution.link,
            Result(execution.reply_id, done, failed, fault=fault, trace=tuple(execution.trace)),
        )
        return [reply, *self.close(execution)]

    def deadline_exceeded(self, execution: Execution) -> list[Action]:
        """The deadline has come: under partial for each call that is open, so that what there is goes back."""
        fault = faults.deadline(execution)
        if not execution.request.partial:
            return self.end(execution, fault)
        late = list(execution.open)
        for name in late:
            execution.fail(name, fault.with_details(call=name, function=execution.plan.calls[name].function))
        return [*self._settled_failures(execution, late), *self.end(execution, None)]

    def close(self, execution: Execution) -> list[Action]:
        """Forget a request; what is still out of it is called off, and its late answers match nothing."""
        del self.requests[execution.id]
        self.origins.get(execution.link, {}).pop(execution.reply_id, None)
        self._timers.cancel((TimerKind.DEADLINE, execution.id))
        for name in list(execution.pending) if execution.pending else ():
            self._pending_calls.discard(execution, name)
        pending = [number for number in execution.dispatches if self._outstanding.has(number)]
        execution.release()
        return [CancelDispatch(execution.dispatches[number], number) for number in pending]

    def forget(self, link: LinkId) -> None:
        """A link is gone, and all requests that came over it are closed."""
        self.origins.pop(link, None)

    def _settled_failures(self, execution: Execution, names: Sequence[str]) -> list[Action]:
        """For an eager request: the wanted ones of `names`, which have just failed."""
        if not execution.request.eager:
            return []
        return [
            CallSettled(execution.link, execution.reply_id, Failed(name, execution.faults[name]))
            for name in names
            if name in execution.plan.wanted
        ]
