"""The requests this node answers for, each from its arrival to its one answer.

The coordinator begins them and tells what became of their calls; out go `Answer`, `Partly` for an eager request, and
`Withdraw` for what is still out of one that is over. Every way to the end passes through `end` or, when there is nobody
left to answer, `close`; after either the request is not here any more, so nothing is answered twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpreg_proto.errors import Fault, over_limit
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.graph import Plan
from mpreg_proto.requests.intents import Answer, Intent, Partly, Withdraw
from mpreg_proto.requests.loads import Outstanding
from mpreg_proto.requests.parking import Parking
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Done, Failed, Request, Result


class InFlight:
    """Requests by their id here, and by the link and id with which they came. Timer keys: ("deadline", id)."""

    def __init__(self, *, out: Outstanding, parking: Parking, timers: Timers, limits: Limits) -> None:
        self.requests: dict[RequestId, Execution] = {}
        self.origins: dict[LinkId, dict[int, RequestId]] = {}
        self._out = out
        self._parking = parking
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

    def of(self, link: LinkId) -> list[Execution]:
        """The requests that came over `link`, oldest first."""
        return [self.requests[request_id] for request_id in self.origins.get(link, {}).values()]

    def laid_out(self, request: Request, plan: Plan, link: LinkId, *, now: int, deadline: int) -> Execution:
        """A request that has passed all checks, under an id of its own. It is in progress once given to `begin`."""
        self.last_id += 1
        return Execution(RequestId(self.last_id), request, plan, link=link, arrived=now, deadline=deadline)

    def begin(self, execution: Execution) -> None:
        """From now on this request is answered for."""
        self.requests[execution.id] = execution
        self.origins.setdefault(execution.link, {})[execution.reply_id] = execution.id
        self._timers.set(("deadline", execution.id), execution.deadline)

    # -- what became of a call ----------------------------------------------------------------------------------------

    def done(self, execution: Execution, row: Done) -> tuple[list[str], list[Intent]]:
        """A call has its result. Returns the calls that are ready now for it."""
        ready = execution.bind(row.name, row.value)
        intents: list[Intent] = []
        if execution.request.eager and row.name in execution.plan.wanted:
            intents.append(Partly(execution.link, execution.reply_id, row))
        if execution.held > self._limits.values:
            return [], intents + self.end(execution, over_limit("values", self._limits.values, execution.held))
        if execution.over:
            intents += self.end(execution, None)
        return ready, intents

    def failed(self, execution: Execution, name: str, fault: Fault) -> list[Intent]:
        """A call has failed, for good: so has the request, unless it is partial and something else is open."""
        call = execution.plan.calls[name]
        fault = fault.saying(call=name, function=call.function)
        self._parking.release(execution, name)
        if not execution.request.partial:
            return self.end(execution, fault)
        failed = execution.fail(name, fault)
        intents = self._tell_failed(execution, failed)
        return intents + self.end(execution, None) if execution.over else intents

    # -- ends ---------------------------------------------------------------------------------------------------------

    def end(self, execution: Execution, fault: Fault | None) -> list[Intent]:
        """Answer, once, and call off what is still out."""
        request = execution.request
        partial = request.partial and fault is None
        if partial:
            fault = execution.first_fault
        if fault is not None:
            fault = fault.saying(maybe_executed=bool(execution.history.possibly_started))
        done = execution.done() if (fault is None or partial) and not request.eager else ()
        failed = execution.failed() if partial and not request.eager else ()
        answer = Answer(
            execution.link,
            Result(execution.reply_id, done, failed, fault=fault, trace=tuple(execution.trace)),
        )
        return [answer, *self.close(execution)]

    def too_late(self, execution: Execution) -> list[Intent]:
        """The deadline has come: under partial for each call that is open, so that what there is goes back."""
        fault = faults.deadline(execution)
        if not execution.request.partial:
            return self.end(execution, fault)
        late = list(execution.open)
        for name in late:
            execution.fail(name, fault.saying(call=name, function=execution.plan.calls[name].function))
        return [*self._tell_failed(execution, late), *self.end(execution, None)]

    def close(self, execution: Execution) -> list[Intent]:
        """Forget a request; what is still out of it is called off, and its late answers match nothing."""
        del self.requests[execution.id]
        self.origins.get(execution.link, {}).pop(execution.reply_id, None)
        self._timers.cancel(("deadline", execution.id))
        for name in list(execution.parked) if execution.parked else ():
            self._parking.release(execution, name)
        out = [number for number in execution.dispatches if self._out.has(number)]
        execution.release()
        return [Withdraw(execution.dispatches[number], number) for number in out]

    def forget(self, link: LinkId) -> None:
        """A link is gone, and all requests that came over it are closed."""
        self.origins.pop(link, None)

    def _tell_failed(self, execution: Execution, names: Sequence[str]) -> list[Intent]:
        """For an eager request: the wanted ones of `names`, which have just failed."""
        if not execution.request.eager:
            return []
        return [
            Partly(execution.link, execution.reply_id, Failed(name, execution.faults[name]))
            for name in names
            if name in execution.plan.wanted
        ]
