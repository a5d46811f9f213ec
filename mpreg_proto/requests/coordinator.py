"""The coordinator: places the calls of the requests that this node answers for, and acts on their outcomes.

Inputs are requests of clients and nodes, results of workers, lost links, changed offers and timers. Outputs are
actions. The scheduler chooses the node for a call. A call belongs to the link over which it was dispatched, and is lost
with it. It may run elsewhere only while its body cannot have started, or when its function is idempotent
(docs/explanation/guarantees.md). `InFlight` holds the requests from their arrival to their one reply: each ends through
`end` or, when its caller has disconnected, through `close`, so nothing is answered twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mpreg_proto.effects import Notify
from mpreg_proto.errors import ErrorCode, Fault, over_limit
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import StrayResult
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import LOCAL, CallSettled, CancelDispatch, RequestOutput, SendReply, SendUpdate
from mpreg_proto.requests.backlog import POLL, Requirement
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.outstanding import Attempt, Outstanding, run_times
from mpreg_proto.requests.placement import CatalogueView
from mpreg_proto.requests.request_state import CallState, Execution, RunTimes, StoryRow
from mpreg_proto.requests.scheduler import NextHop, PendingCalls, Scheduler
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, TimerKind, Timers
from mpreg_proto.wire.messages import CallProgress, Done, Failed, Items, ItemsTaken, Request, Result

_STORY_ROWS = 4096
"""Rows of ended requests that are kept for `Coordinator.story`."""


class InFlight:
    """Requests by their local id, and by the link and id that they came with. Timer keys: (TimerKind.DEADLINE, id)."""

    def __init__(
        self, *, outstanding: Outstanding, pending_calls: PendingCalls, timers: Timers, limits: Limits
    ) -> None:
        self.requests: dict[RequestId, Execution] = {}
        self.origins: dict[LinkId, dict[int, RequestId]] = {}
        self.sizes: dict[LinkId, int] = {}
        """The bytes of the requests of each link."""
        self._outstanding = outstanding
        self._pending_calls = pending_calls
        self._timers = timers
        self._limits = limits
        self.last_id: int = 0
        """The id of the newest request; ids count up from 1."""
        self.ended: deque[StoryRow] = deque(maxlen=_STORY_ROWS)
        """The stories of the requests that ended last."""

    def get(self, link: LinkId, number: int) -> Execution | None:
        """Return the request in progress that came over `link` with that id."""
        request_id = self.origins.get(link, {}).get(number)
        return None if request_id is None else self.requests[request_id]

    def from_link(self, link: LinkId) -> list[Execution]:
        """Return the requests that came over `link`, oldest first."""
        return [self.requests[request_id] for request_id in self.origins.get(link, {}).values()]

    def open_request(
        self, request: Request, plan: Plan, link: LinkId, *, now: int, deadline: int, size: int
    ) -> Execution:
        """Add a request that has passed all checks, under an id of its own."""
        self.last_id += 1
        request_id = RequestId(self.last_id)
        execution = Execution(request_id, request, plan, link=link, arrived=now, deadline=deadline, size=size)
        self.requests[request_id] = execution
        if link != LOCAL:
            self.sizes[link] = self.sizes.get(link, 0) + size
        self.origins.setdefault(link, {})[request.id] = request_id
        self._timers.set((TimerKind.DEADLINE, request_id), deadline)
        return execution

    # -- what became of a call ----------------------------------------------------------------------------------------

    def done(
        self, execution: Execution, row: Done, now: int, node: str, times: RunTimes
    ) -> tuple[list[str], list[RequestOutput]]:
        """Record the result of a call. Returns the calls that are ready now."""
        ready = execution.complete(row.name, row.value, now, node, times)
        actions: list[RequestOutput] = []
        if execution.request.eager and row.name in execution.plan.wanted:
            actions.append(CallSettled(execution.link, execution.reply_id, row))
        if execution.values_size > self._limits.values:
            fault = over_limit("values", self._limits.values, execution.values_size)
            return [], actions + self.end(execution, fault, now)
        if not execution.open_count:
            actions += self.end(execution, None, now)
        return ready, actions

    def failed(
        self, execution: Execution, name: str, fault: Fault, now: int, times: RunTimes | None = None
    ) -> list[RequestOutput]:
        """Record the final failure of a call. It ends the request, unless that is partial and has open calls."""
        call = execution.plan.calls[name]
        fault = fault.with_details(call=name, function=call.function)
        self._pending_calls.discard(execution, name)
        failed = execution.fail(name, fault, now, times)
        if not execution.request.partial:
            return self.end(execution, fault, now)
        actions = self._settled_failures(execution, failed)
        return actions + self.end(execution, None, now) if execution.finished else actions

    # -- ends ---------------------------------------------------------------------------------------------------------

    def end(self, execution: Execution, fault: Fault | None, now: int) -> list[RequestOutput]:
        """Send the one reply, and cancel what is still dispatched."""
        request = execution.request
        partial = request.partial and fault is None
        if partial:
            fault = execution.first_fault
        if fault is not None:
            fault = fault.with_details(maybe_executed=bool(execution.possibly_started) or execution.unverified)
        done = execution.done() if (fault is None or partial) and not request.eager else ()
        failed = execution.failed() if partial and not request.eager else ()
        trace = execution.trace if request.trace else ()
        result = Result(execution.reply_id, done, failed, fault=fault, trace=trace)
        reply = SendReply(execution.link, result, bool(execution.possibly_started))
        return [reply, *self.close(execution, now, "" if fault is None else fault.message)]

    def deadline_exceeded(self, execution: Execution, now: int) -> list[RequestOutput]:
        """Handle the deadline. Of a partial request each open call fails, and the results so far are returned."""
        fault = faults.deadline(execution)
        if not execution.request.partial:
            return self.end(execution, fault, now)
        late = execution.open
        for name in late:
            execution.fail(name, fault.with_details(call=name, function=execution.plan.calls[name].function), now)
        return [*self._settled_failures(execution, late), *self.end(execution, None, now)]

    def close(self, execution: Execution, now: int, reason: str) -> list[RequestOutput]:
        """Remove a request and cancel its open calls and dispatches. Their late answers match nothing."""
        del self.requests[execution.id]
        self.origins.get(execution.link, {}).pop(execution.reply_id, None)
        if execution.link != LOCAL:
            self.sizes[execution.link] -= execution.size
        self._timers.cancel((TimerKind.DEADLINE, execution.id))
        for name in reversed(list(execution.pending)) if execution.pending else ():  # the backlog's first ones last
            self._pending_calls.discard(execution, name)
        outstanding = [number for number in execution.dispatches if self._outstanding.has(number)]
        if execution.open_count:
            execution.cancel_open(now, reason)
        self.ended.extend(execution.story)
        execution.release()
        return [CancelDispatch(execution.dispatches[number], number) for number in outstanding]

    def forget(self, link: LinkId) -> None:
        """Forget a closed link, all of whose requests are closed."""
        self.origins.pop(link, None)
        self.sizes.pop(link, None)

    def _settled_failures(self, execution: Execution, names: Sequence[str]) -> list[RequestOutput]:
        """Return the rows of the wanted calls among `names`, which have just failed, if the request is eager."""
        if not execution.request.eager:
            return []
        return [
            CallSettled(execution.link, execution.reply_id, Failed(name, execution.faults[name]))
            for name in names
            if name in execution.plan.wanted
        ]


_TRY_ELSEWHERE = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.DRAINING)
"""Refusals after which a call may go to another member: a stale route, overload, a member that leaves."""
_LOST_THERE = "its node or link was lost, and it starts again"
_SLICE: Final = 128
"""The most calls that are placed at once. Other inputs come between two slices."""
_SHARED_SLICE: Final = 16
"""The same while other clients ask: with inline functions, which run at once, a slice takes about two milliseconds."""
_SHARED_FOR: Final = SECOND
"""The time for which that holds after a request of another client has arrived, in ns."""
_MAX_RETRY_DELAY = 5 * SECOND
"""The longest pause before a lost call is started again, in ns."""


class Coordinator:
    """The requests in progress here. `in_flight`, `scheduler`, `pending_calls` and `outstanding` are for reading."""

    def __init__(
        self,
        me: MemberId,
        *,
        catalogue: CatalogueView,
        links: Mapping[MemberId, LinkId],
        timers: Timers,
        rng: Rng,
        limits: Limits,
        last_number: int = 0,
        next_hop: NextHop = lambda member, avoiding: None,
        draw_number: Callable[[], int] = lambda: 0,
        silent: Callable[[LinkId, int], bool] = lambda link, now: False,
    ) -> None:
        """`last_number`: the last one of an earlier coordinator, some of whose calls the own worker may still run.

        `next_hop` returns the link over which an undialable member may be reached. `draw_number` returns the random
        part of a dispatch number, at most 23 bits, so that numbers cannot be guessed. `silent` returns whether a link
        has brought nothing for long although a call is out on it.
        """
        self.me = me
        self._links = links
        self._limits = limits
        self._timers = timers
        self._rng = rng.child("failover")
        self.outstanding: Outstanding = Outstanding(
            me, links, limits, last_number=last_number, draw_number=draw_number, silent=silent
        )
        self.pending_calls: PendingCalls = PendingCalls(timers, self.outstanding.credits)
        self.in_flight: InFlight = InFlight(
            outstanding=self.outstanding, pending_calls=self.pending_calls, timers=timers, limits=limits
        )
        self.requests: Mapping[RequestId, Execution] = self.in_flight.requests
        """The requests in progress, by their local id."""
        self.unplaced: dict[RequestId, list[str]] = {}
        """The ready calls that are still to be placed, of requests with more than one slice; they take turns."""
        self._shared_until = 0
        """The time until which slices are short, as clients have arrived beside others."""
        self.scheduler: Scheduler = Scheduler(
            me,
            outstanding=self.outstanding,
            pending_calls=self.pending_calls,
            catalogue=catalogue,
            links=links,
            rng=rng,
            limits=limits,
            next_hop=next_hop,
        )

    # -- inputs -------------------------------------------------------------------------------------------------------

    def submit(
        self, request: Request, link: LinkId, now: int, *, size: int = 0, credit: tuple[int, int] | None = None
    ) -> list[RequestOutput]:
        """Accept a request of `size` bytes that came over `link`; `credit` is that of a native client.

        It is answered exactly once, unless that link ends first.
        """
        if request.id in self.in_flight.origins.get(link, ()):
            fault = Fault(ErrorCode.INVALID_REQUEST, f"request {request.id} is already in progress on this link")
            return [self.refuse(request, link, fault)]
        mine, left = len(self.in_flight.origins.get(link, ())), self._limits.requests - len(self.requests)
        if credit is not None and mine and (mine >= credit[0] or size > credit[1] - self.in_flight.sizes[link]):
            return [self.refuse(request, link, self._beyond_credit(link, mine, size, credit))]
        if mine >= left:
            # A client gets as many as there is room for more: alone it has half of the limit, and however many others
            # there are, room is left for one more (dynamic thresholds; Choudhury and Hahne, 1998).
            fault = faults.too_many_requests(mine, len(self.requests), self._limits.requests)
            return [self.refuse(request, link, fault)]
        planned = plan(request, self._limits)
        if isinstance(planned, Fault):
            return [self.refuse(request, link, planned)]
        unroutable = [] if request.wait else self.scheduler.unroutable(request)
        if unroutable and not request.partial:
            return [self.refuse(request, link, self.scheduler.not_found(unroutable[0], place=1))]
        if request.again and (refusal := self.scheduler.not_repeatable(request)) is not None:
            return [self.refuse(request, link, refusal)]
        if len(self.pending_calls.backlog) and (refusal := self._not_admitted(request, planned, link, now)) is not None:
            return [self.refuse(request, link, refusal)]
        if mine < len(self.requests):
            self._shared_until = now + _SHARED_FOR
        timeout = self._limits.default_timeout if request.timeout is None else request.timeout
        deadline = now + min(timeout, self._limits.longest_timeout)
        execution = self.in_flight.open_request(request, planned, link, now=now, deadline=deadline, size=size)
        execution.unverified = request.again and bool(self.scheduler.unroutable(request))
        if not unroutable:
            return self._place(execution, execution.start(now), now)
        actions: list[RequestOutput] = []
        for call in unroutable:
            if execution.is_open(call.name):  # else it was skipped, as a dependency has failed
                fault = self.scheduler.explain_not_found(execution, call)
                actions += self.in_flight.failed(execution, call.name, fault, now)
        return actions if execution.finished else actions + self._place(execution, execution.start(now), now)

    def _beyond_credit(self, link: LinkId, mine: int, size: int, credit: tuple[int, int]) -> Fault:
        """Return 1022 for a request of `size` bytes beside `mine` others of a native client."""
        if mine >= credit[0]:
            return faults.over_credit("client_requests", credit[0], mine + 1)
        return faults.over_credit("client_bytes", credit[1], self.in_flight.sizes[link] + size)

    def refuse(self, request: Request, link: LinkId, fault: Fault) -> SendReply:
        """Return the reply to a request of which nothing starts here.

        One that was sent before may have started elsewhere, unless all of its functions are known to be idempotent.
        """
        started = request.again and (
            bool(self.scheduler.unroutable(request)) or self.scheduler.not_repeatable(request) is not None
        )
        return SendReply(link, Result(request.id, fault=fault.with_details(maybe_executed=started)), started)

    def _not_admitted(self, request: Request, plan: Plan, link: LinkId, now: int) -> Fault | None:
        """Return 1022 if one of the first calls of a request would wait for too long, or None."""
        backlog = self.pending_calls.backlog
        timeout = self._limits.default_timeout if request.timeout is None else request.timeout
        waiting: dict[str, None] = {}
        for call in request.calls:
            if call.name not in plan.dependencies and call.function in backlog.functions:
                requirement: Requirement = (call.function, call.resources, call.version, None)
                if backlog.has(requirement) or not self.scheduler.has_place(requirement, None):
                    waiting[call.function] = None
        for function in waiting:
            after = backlog.refuses(function, link, timeout, now)
            if after is not None:
                return faults.not_admitted(function, waited=backlog.waited(function, now), retry_after=after)
        return None

    def credit_returned(self, member: MemberId, function: str, now: int) -> list[RequestOutput]:
        """Handle a place for one more call of a function at a member that had refused one."""
        self.outstanding.credits.granted(member, function)
        return self._drain([function], now)

    def result_received(self, link: LinkId, result: Result, now: int) -> list[RequestOutput]:
        """Handle a Result: the outcome of a dispatch, or of some of its calls."""
        actions: list[RequestOutput] = []
        ready: dict[RequestId, list[str]] = {}
        rows: tuple[Done | Failed, ...] = (*result.done, *result.failed)
        for row in rows:
            actions += self._settle(link, result.id, row, queue=result.queue, ready=ready, now=now)
        left = self._unsettled(link, result.id) if result.last else []
        if left and faults.lost_in_relay(result.fault):
            actions += self._lose(left, now)
        elif left:
            for failed in _unanswered(left, result):
                actions += self._settle(link, result.id, failed, queue=result.queue, ready=ready, now=now)
        elif result.last and self.outstanding.has(result.id):  # its dispatch went out on another link
            actions.append(Notify(StrayResult(link, result.id)))
        if ready:
            actions += self._place_all(ready, now)
        return actions + self._drain_all(now) if len(self.pending_calls.backlog) else actions

    def unsent(self, number: int, fault: Fault | None, now: int) -> list[RequestOutput]:
        """Handle a dispatch that was never sent: it was too long (`fault`), or its link is closed (None).

        None of its calls can have started. If it was too long, calls that may fit alone are dispatched one by one.
        """
        actions: list[RequestOutput] = []
        attempts = self.outstanding.by_number(number)
        for attempt in attempts:
            self.outstanding.pop(number, attempt.call, attempt.link)
            if attempt.execution.id in self.requests:
                attempt.execution.move(attempt.call, CallState.READY, now, reason="the message was not sent")
        for attempt in attempts:
            execution, name = attempt.execution, attempt.call
            if execution.id not in self.requests:
                continue
            if fault is not None and len(attempts) == 1:
                fault = fault.with_details(node=attempt.candidate.shown)
                actions += self.in_flight.failed(execution, name, fault, now)
            elif fault is not None:
                actions += self._place(execution, [name], now)
        if fault is None and attempts:
            names = [attempt.call for attempt in attempts]
            actions += self._place_all({attempts[0].execution.id: names}, now)
        return actions + self._drain_all(now) if len(self.pending_calls.backlog) else actions

    def call_finished(self, number: int, row: Done | Failed, now: int) -> list[RequestOutput]:
        """Handle the outcome of one call at the own worker."""
        ready: dict[RequestId, list[str]] = {}
        actions = self._settle(LOCAL, number, row, queue=0, ready=ready, now=now)
        if ready:
            actions += self._place_all(ready, now)
        return actions + self._drain_all(now) if len(self.pending_calls.backlog) else actions

    def cancel(self, link: LinkId, number: int, now: int) -> list[RequestOutput]:
        """Cancel a request for its caller, which still receives an answer, 1021."""
        execution = self.in_flight.get(link, number)
        return [] if execution is None else self.in_flight.end(execution, faults.cancelled(execution), now)

    def update_received(self, link: LinkId, message: CallProgress | Items) -> list[RequestOutput]:
        """Handle news of a call that was dispatched over `link`: its caller gets them, if it wants them."""
        attempt = self.outstanding.get(message.id, message.call, link)
        if attempt is None:
            return [Notify(StrayResult(link, message.id))]
        execution = attempt.execution
        if not execution.is_open(message.call):
            return []
        if isinstance(message, Items):
            if message.call not in execution.streams:
                return []
            execution.streamed[message.call] = message.id
        elif not execution.request.progress:
            return []
        return [SendUpdate(execution.link, msgspec.structs.replace(message, id=execution.reply_id))]

    def items_taken(self, link: LinkId, message: ItemsTaken) -> list[RequestOutput]:
        """Pass on that a caller has used items of a call: the node that runs it may produce more."""
        execution = self.in_flight.get(link, message.id)
        number = None if execution is None else execution.streamed.get(message.call)
        if execution is None or number is None or not execution.is_open(message.call):
            return []
        return [SendUpdate(execution.dispatches[number], msgspec.structs.replace(message, id=number))]

    def item_too_long(self, link: LinkId, items: Items, fault: Fault, now: int) -> list[RequestOutput]:
        """Fail a call with an item that is longer than a message to its caller may be."""
        execution = self.in_flight.get(link, items.id)
        if execution is None or not execution.is_open(items.call):
            return []
        return self.in_flight.failed(execution, items.call, fault, now)

    def link_lost(self, link: LinkId, now: int) -> list[RequestOutput]:
        """Handle the end of a link: its dispatched calls are lost, the requests that came over it are closed."""
        actions: list[RequestOutput] = []
        for execution in self.in_flight.from_link(link):
            actions += self.in_flight.close(execution, now, "the caller has disconnected")
        self.in_flight.forget(link)
        actions += self._lose(self.outstanding.by_link(link), now)
        return actions + self._drain_all(now)

    def member_lost(self, member: MemberId, now: int) -> list[RequestOutput]:
        """Handle a member that is DEAD or LEFT: the calls dispatched to it are lost."""
        actions = self._lose(self.outstanding.by_member(member), now)
        self.outstanding.forget(member)
        return actions + self._drain_all(now)

    def offers_changed(
        self, now: int, *, functions: Iterable[str] | None = None, members: Iterable[MemberId] = ()
    ) -> list[RequestOutput]:
        """Place pending calls again: these functions (None: any) may have more offers than before, and the standing,
        the links or the offers of these members have changed.
        """
        if not self.pending_calls.calls:
            return []
        if functions is None:
            return [*self._place_all(self.pending_calls.pop_all(), now), *self._drain_all(now)]
        pending, functions, members = self.pending_calls, dict.fromkeys(functions), tuple(members)
        keys = [*pending.matching(functions, self.scheduler.can_run), *pending.waiting_for_link(members)]
        actions = self._place_all(self.pending_calls.pop(keys), now) if keys else []
        if not len(pending.backlog):
            return actions
        offered = [
            self.scheduler.offered_by(member) for member in members
        ]  # one that is no suspect any more has places
        concerned = [one for one in pending.backlog.functions if one in functions or any(one in row for row in offered)]
        return actions + self._drain(concerned, now)

    def link_selected(self, member: MemberId, now: int) -> list[RequestOutput]:
        """Place the pending calls that `member` can run, to which a link stands now."""
        if not self.pending_calls.calls:
            return []
        mine, pending = self.scheduler.offered_by(member), self.pending_calls
        waiting = dict.fromkeys((*pending.functions, *pending.backlog.functions))
        functions = [function for function in waiting if function in mine]
        return self.offers_changed(now, functions=functions, members=(member,))

    def routes_changed(self, now: int) -> list[RequestOutput]:
        """Place the calls for undialable members again: one more link is open, and may be a route to them."""
        return self.offers_changed(now, functions=(), members=self.outstanding.unreachable)

    def wake(self, key: Key, now: int) -> list[RequestOutput]:
        """Handle a timer of the coordinator."""
        if key[0] == TimerKind.BACKLOG:
            return self._poll(str(key[1]), now)
        if key[0] == TimerKind.PLACE:
            return self._place_slice(now)
        execution = self.requests.get(RequestId(int(key[1])))
        if execution is None:
            return []
        if key[0] == TimerKind.DEADLINE:
            return self.in_flight.deadline_exceeded(execution, now)
        name = str(key[2])
        if key[0] == TimerKind.RETRY:
            return self._place(execution, self.pending_calls.retries_due(execution, name, now), now)
        if not self.pending_calls.expire(execution, name):
            return []
        if key[0] == TimerKind.OFFER_WAIT:
            return self.in_flight.failed(execution, name, self._wait_expired(execution, name), now)
        self.scheduler.link_timed_out(execution, name, now)
        return self._place(execution, [name], now)

    def _wait_expired(self, execution: Execution, name: str) -> Fault:
        """Return the reason: the last refusal of a node that offers the function, or that no node offers it."""
        call = execution.plan.calls[name]
        refusal = execution.history.earlier_refusals.get(name)
        offered = refusal is not None and self.scheduler.candidates(execution, call)
        return refusal if offered and refusal is not None else self.scheduler.explain_not_found(execution, call)

    def end_all(
        self, now: int, *, started: Fault = faults.LOST_BY_LEAVING, waiting: Fault = faults.DRAINING
    ) -> list[RequestOutput]:
        """End every request: with `started` (1023) if a body may have started, else with `waiting` (1024).

        By default the reason is that the grace of this node is over.
        """
        actions: list[RequestOutput] = []
        for execution in list(self.requests.values()):
            actions += self.in_flight.end(execution, started if execution.possibly_started else waiting, now)
        return actions

    def busy_on(self, link: LinkId) -> bool:
        """Return whether `link` carries dispatched calls, or requests that came over it."""
        return bool(self.in_flight.origins.get(link)) or self.outstanding.busy_on(link)

    def story(self, request: RequestId) -> list[StoryRow]:
        """Return the steps of the calls of a request, in order.

        Of a request with very many steps the older ones are missing; all requests that have ended share the last
        4,096 steps.
        """
        execution = self.requests.get(request)
        rows = self.in_flight.ended if execution is None else execution.story
        return [row for row in rows if row.request == request]

    # -- what became of calls -----------------------------------------------------------------------------------------

    def _settle(
        self, link: LinkId, number: int, row: Done | Failed, *, queue: int, ready: dict[RequestId, list[str]], now: int
    ) -> list[RequestOutput]:
        """Handle the outcome of one call of a dispatch; add the calls that are ready now to `ready`."""
        attempt = self.outstanding.pop(number, row.name, link)
        if attempt is None:
            return [Notify(StrayResult(link, number))]
        ran = min(max(row.ran, 0), now - attempt.sent)  # a peer's word
        self.outstanding.record_result(attempt.candidate.member, queue, ran, now)
        execution = attempt.execution
        member, function = attempt.candidate.member, attempt.function
        if not (isinstance(row, Failed) and row.refused):
            self.outstanding.credits.returned(member, function, attempt.candidate.capacity)
            if len(self.pending_calls.backlog):
                self.pending_calls.backlog.ran(function, execution.link, ran, now, charged=attempt.charged)
        elif faults.has_no_place(row.fault):
            self.outstanding.credits.refused(member, function)
        if execution.id not in self.requests:
            return []
        if isinstance(row, Failed):
            names, actions = self._call_failed(attempt, row, now)
        else:
            times = run_times(attempt, row, now)
            names, actions = self.in_flight.done(execution, row, now, attempt.candidate.shown, times)
        if names:
            ready.setdefault(execution.id, []).extend(names)
        return actions

    def _call_failed(self, attempt: Attempt, row: Failed, now: int) -> tuple[list[str], list[RequestOutput]]:
        """Handle the failure of a call. Returns the call as ready again if another member may run it."""
        execution, name = attempt.execution, attempt.call
        if row.refused:
            execution.not_started(name)
            if row.fault.code in _TRY_ELSEWHERE and now < execution.deadline:
                self._call_refused(attempt, row.fault)
                execution.move(name, CallState.READY, now, attempt.candidate.shown, row.fault.message)
                return [name], []
            if faults.has_no_place(row.fault):  # it would have waited
                return [], self.in_flight.deadline_exceeded(execution, now)
        elif row.fault.code == faults.LOST and name not in execution.streamed and self._retry_after_loss(attempt, now):
            return [], []
        fault = row.fault if "node" in row.fault.details else row.fault.with_details(node=attempt.candidate.shown)
        return [], self.in_flight.failed(execution, name, fault, now, run_times(attempt, row, now))

    def _call_refused(self, attempt: Attempt, fault: Fault) -> None:
        """Record the refusal: of the member, only of its link, or of a relay that has no route to it."""
        history, name = attempt.execution.history, attempt.call
        if fault.details.get("relayed"):
            relay = next((member for member, link in self._links.items() if link == attempt.link), None)
            if relay is None:  # its link is closing, so no call goes over it again
                return
            if relay != attempt.candidate.member:
                history.route_refused(name, relay)
                return
        if not faults.has_no_place(fault) and not self._link_closed_first(attempt, fault):
            history.refused(name, attempt.candidate.member, fault)

    def _retry_after_loss(self, attempt: Attempt, now: int) -> bool:
        """Start a call again, after a pause, that was lost at a member that lives. Returns whether that is allowed.

        Each loss counts, also on the same node, as the call itself may end the process that runs it.
        """
        execution, name, failovers = attempt.execution, attempt.call, self._limits.failovers
        history = execution.history
        if not history.lost(name, attempt.candidate, failovers=failovers) or len(history.losses[name]) > failovers:
            return False
        self._pause(attempt, now + self._retry_delay(execution, name, self._rng.fraction(), now), now)
        return True

    def _pause(self, attempt: Attempt, until: int, now: int) -> None:
        """Let a lost call wait before it is started again."""
        execution, name = attempt.execution, attempt.call
        execution.move(name, CallState.PENDING, now, attempt.candidate.shown, _LOST_THERE)
        self.pending_calls.retry_at(execution, name, until)

    def _link_closed_first(self, attempt: Attempt, fault: Fault) -> bool:
        """Return whether only the link refused, as it was closing, and the member has or gets another one."""
        return fault.code == faults.DRAINING.code and self._links.get(attempt.candidate.member, LOCAL) != attempt.link

    def _lose(self, attempts: Sequence[Attempt], now: int) -> list[RequestOutput]:
        """Handle calls that are lost. Those that may start again do so after a pause, as more links may end at this
        moment; the others fail.
        """
        actions: list[RequestOutput] = []
        ready: dict[RequestId, list[str]] = {}
        jitter = self._rng.fraction() if attempts else 0.0
        for attempt in attempts:
            self.outstanding.pop(attempt.number, attempt.call, attempt.link)
        for attempt in attempts:
            execution, name, candidate = attempt.execution, attempt.call, attempt.candidate
            if execution.id not in self.requests:
                continue
            history, failovers = execution.history, self._limits.failovers
            if name in execution.streamed:
                actions += self.in_flight.failed(execution, name, faults.lost_amid_items(name, candidate.shown), now)
                continue
            if history.lost(name, candidate, failovers=failovers):
                if delay := self._retry_delay(execution, name, jitter, now):
                    self._pause(attempt, now + delay, now)
                else:
                    execution.move(name, CallState.READY, now, candidate.shown, _LOST_THERE)
                    ready.setdefault(execution.id, []).append(name)
                continue
            nodes = [one.shown for one in history.lost_nodes(name)]
            fault = faults.failover_limit_reached(name, nodes, failovers) if candidate.idempotent else None
            actions += self.in_flight.failed(execution, name, fault or faults.lost(name, candidate.shown), now)
        return actions + self._place_all(ready, now) if ready else actions

    def _retry_delay(self, execution: Execution, name: str, jitter: float, now: int) -> int:
        """Return the pause before a call starts again: longer with each loss, at most a quarter of the time left."""
        earlier = min(len(execution.history.losses[name]) - 1, 8)
        longest = min(self._limits.failover_pause << 2 * earlier, _MAX_RETRY_DELAY)
        return min(int(longest * (1 + jitter) / 2), max(0, execution.deadline - now) // 4)

    def _unsettled(self, link: LinkId, number: int) -> list[Attempt]:
        """Return what is outstanding of a dispatch that went out over `link`, the only link that may answer it."""
        return [attempt for attempt in self.outstanding.by_number(number) if attempt.link == link]

    # -- the backlog --------------------------------------------------------------------------------------------------

    def _drain_all(self, now: int) -> list[RequestOutput]:
        return self._drain(list(self.pending_calls.backlog.functions), now)

    def _drain(self, functions: Iterable[str], now: int) -> list[RequestOutput]:
        """Dispatch calls of the backlog for which a member has a place, in turn."""
        actions: list[RequestOutput] = []
        for function in functions:
            while (key := self.pending_calls.backlog.next(function, self._has_place)) is not None:
                actions += self._take_turn(key, function, now)
        return actions

    def _take_turn(self, key: tuple[RequestId, str], function: str, now: int) -> list[RequestOutput]:
        """Dispatch a call of the backlog. It is not started if its runtime no longer fits before its deadline."""
        execution, name = self.requests[key[0]], key[1]
        backlog = self.pending_calls.backlog
        charged = backlog.take_turn(key)
        self.pending_calls.discard(execution, name)
        backlog.turn_taken(function, now)
        median, left = backlog.median(function), execution.deadline - now
        if left < median:
            fault = faults.too_late(execution.plan.calls[name], left, median)
            execution.move(name, CallState.READY, now)
            return self.in_flight.failed(execution, name, fault, now)
        return self._place(execution, [name], now, charged=charged)

    def _has_place(self, requirement: Requirement) -> bool:
        key = requirement[3]
        return self.scheduler.has_place(requirement, None if key is None else self.requests[key[0]])

    def keep_backlog(self, now: int) -> list[RequestOutput]:
        """Give the own worker the calls of the backlog that it can run, as this node is about to refuse new ones."""
        actions: list[RequestOutput] = []
        while self.unplaced:
            actions += self._place_slice(now)
        for key in list(self.pending_calls.backlog.keys()):
            execution, name = self.requests[key[0]], key[1]
            own = [
                one for one in self.scheduler.candidates(execution, execution.plan.calls[name]) if one.member == self.me
            ]
            if own:
                self.pending_calls.discard(execution, name)
                execution.move(name, CallState.READY, now)
                actions += self.scheduler.dispatch(execution, [(execution.plan.calls[name], own)], now, bounded=False)
        return actions

    def _poll(self, function: str, now: int) -> list[RequestOutput]:
        """Try members again that refuse calls of a function, as a `Credit` may have been lost with its link."""
        self.outstanding.credits.poll(function)
        actions = self._drain([function], now)
        if self.pending_calls.backlog.count(function):
            self._timers.set((TimerKind.BACKLOG, function), now + POLL)
        return actions

    # -- what is ready ------------------------------------------------------------------------------------------------

    def _place_all(self, ready: Mapping[RequestId, Sequence[str]], now: int) -> list[RequestOutput]:
        actions: list[RequestOutput] = []
        for request_id, names in ready.items():
            if (execution := self.requests.get(request_id)) is not None:
                actions += self._place(execution, names, now)
        return actions

    def _place(self, execution: Execution, names: Sequence[str], now: int, *, charged: int = 0) -> list[RequestOutput]:
        """Dispatch ready calls; one that has its turn in the backlog was `charged` for it.

        A call that no node can run may end the request before. Of more than one slice the rest is placed in the next
        ones.
        """
        most = _SHARED_SLICE if now < self._shared_until else _SLICE
        if len(names) > most:
            self.unplaced.setdefault(execution.id, []).extend(names[most:])
            self._timers.set((TimerKind.PLACE, 0), now)
            names = names[:most]
        calls, failing = self.scheduler.placeable(execution, names, now)
        actions: list[RequestOutput] = []
        for name, fault in failing:
            actions += self.in_flight.failed(execution, name, fault, now)
            if execution.id not in self.requests:
                return actions
        return actions + self.scheduler.dispatch(execution, calls, now, charged=charged)

    def _place_slice(self, now: int) -> list[RequestOutput]:
        """Place the next slice of the request whose turn it is, if any."""
        if not self.unplaced:  # the timer is from before this node became another member
            return []
        request_id, names = next(iter(self.unplaced.items()))
        del self.unplaced[request_id]
        execution = self.requests.get(request_id)
        actions = [] if execution is None else self._place(execution, names, now)
        if self.unplaced:
            self._timers.set((TimerKind.PLACE, 0), now)
        return actions


def _unanswered(left: Sequence[Attempt], result: Result) -> list[Failed]:
    """Return failures of the calls that the last Result of a dispatch did not name."""
    fault = result.fault or Fault(ErrorCode.INTERNAL, "a node ended a request without an outcome of this call")
    maybe_executed = fault.details.get("maybe_executed", fault.code not in _TRY_ELSEWHERE)
    return [Failed(attempt.call, fault, not maybe_executed) for attempt in left]
