"""Supervises the requests this node answers for: has their calls placed, and decides what follows from what became of
each: bound, tried elsewhere, started again after a loss, or failed.

In: requests of clients and nodes, answers of workers, lost links, changed offers, timers. Out: intents. Who a call goes
to is the dispatcher's to say, how a request ends `InFlight`'s. A call belongs to the link it was handed to and is lost
with it. It may go elsewhere only while its body cannot have started, or when its function is idempotent
(docs/explanation/guarantees.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mpreg_proto.effects import Notify
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import StrayResult
from mpreg_proto.requests import faults
from mpreg_proto.requests.dispatcher import Dispatcher, Way
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.graph import plan
from mpreg_proto.requests.inflight import InFlight
from mpreg_proto.requests.intents import LOCAL, Answer, Intent
from mpreg_proto.requests.loads import Attempt, Outstanding
from mpreg_proto.requests.parking import Parking
from mpreg_proto.requests.placement import CatalogueView
from mpreg_proto.requests.tracing import traced
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, Timers
from mpreg_proto.wire.messages import Done, Failed, Request, Result

_ELSEWHERE = (1001, 1022, 1024)
"""Refusals after which a call may try another member: a stale route, overload, a member that leaves."""
_LONGEST_PAUSE = 5 * SECOND
"""How long a call waits at most to be started again after a loss."""


class Coordinator:
    """Every request in progress here. `in_flight`, `dispatcher`, `parking` and `out` may be looked at, never used."""

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
        way: Way = lambda member, avoiding: None,
        draw_number: Callable[[], int] = lambda: 0,
    ) -> None:
        """`last_number`: of an earlier coordinator, some of whose calls our own worker may still run.

        `way`: the link over which a member may be reached that no link can be had to. `draw_number`: what is drawn of
        each dispatch's number, so that nobody can guess it (`DRAWN` bits at most).
        """
        self.me = me
        self._links = links
        self._limits = limits
        self._rng = rng.child("failover")
        self.out = Outstanding(me, links, limits)
        self.parking = Parking(timers)
        self.in_flight = InFlight(out=self.out, parking=self.parking, timers=timers, limits=limits)
        self.requests: Mapping[RequestId, Execution] = self.in_flight.requests
        """The requests in progress, by their id here."""
        self.dispatcher = Dispatcher(
            me,
            out=self.out,
            parking=self.parking,
            catalogue=catalogue,
            links=links,
            rng=rng,
            limits=limits,
            way=way,
            draw_number=draw_number,
            last_number=last_number,
        )

    @property
    def last_number(self) -> int:
        """How many dispatches were begun."""
        return self.dispatcher.last_number

    def next_number(self) -> int:
        """A number for a dispatch that is passed on for another node."""
        return self.dispatcher.next_number()

    # -- inputs -------------------------------------------------------------------------------------------------------

    def submit(self, request: Request, link: LinkId, now: int) -> list[Intent]:
        """Take on a request that came over `link`. It will be answered exactly once, unless that link ends first."""
        self.out.now = now
        if self.in_flight.has(link, request.id):
            return [_refuse(request, link, Fault(1010, f"request {request.id} is already in progress on this link"))]
        if len(self.requests) >= self._limits.requests:
            return [_refuse(request, link, faults.overloaded("requests", self._limits.requests))]
        laid_out = plan(request, self._limits)
        if isinstance(laid_out, Fault):
            return [_refuse(request, link, laid_out)]
        given = self._limits.default_timeout if request.timeout is None else request.timeout
        deadline = now + min(given, self._limits.longest_timeout)
        execution = self.in_flight.laid_out(request, laid_out, link, now=now, deadline=deadline)
        unroutable = [] if request.wait else self.dispatcher.unroutable(execution)
        if unroutable and not request.partial:
            return [_refuse(request, link, self.dispatcher.not_found(execution, unroutable[0]))]
        self.in_flight.begin(execution)
        intents: list[Intent] = []
        for call in unroutable:
            if call.name in execution.open:  # else it has failed with a call that it needs
                intents += self.in_flight.failed(execution, call.name, self.dispatcher.not_found(execution, call))
        return intents if execution.over else intents + self._place(execution, execution.start(), now)

    def answered(self, link: LinkId, result: Result, now: int) -> list[Intent]:
        """What a member says became of a dispatch, or of some of its calls."""
        self.out.now = now
        intents: list[Intent] = []
        ready: dict[RequestId, list[str]] = {}
        rows: tuple[Done | Failed, ...] = (*result.done, *result.failed)
        for row in rows:
            intents += self._settle(link, result.id, row, queue=result.queue, ready=ready, now=now)
        left = self._rest(link, result.id) if result.last else []
        if left and faults.lost_on_the_way(result.fault):
            intents += self._lose(left, now)
        elif left:
            for failed in _unanswered(left, result):
                intents += self._settle(link, result.id, failed, queue=result.queue, ready=ready, now=now)
        elif result.last and self.out.has(result.id):  # of a dispatch that went out on another link
            intents.append(Notify(StrayResult(link, result.id)))
        return intents + self._place_all(ready, now) if ready else intents

    def unsent(self, number: int, fault: Fault | None, now: int) -> list[Intent]:
        """The message with a dispatch never left: it was too long, as `fault` says, or its link is gone (None).

        Nothing of it can have started. Calls of which each may fit go out again one by one.
        """
        self.out.now = now
        intents: list[Intent] = []
        attempts = self.out.of(number)
        for attempt in attempts:
            self.out.take(number, attempt.call, attempt.link)
            attempt.execution.history.unsent(attempt.call)
        for attempt in attempts:
            execution, name = attempt.execution, attempt.call
            if execution.id not in self.requests:
                continue
            if fault is not None and len(attempts) == 1:
                intents += self.in_flight.failed(execution, name, fault.saying(node=attempt.candidate.shown))
            elif fault is not None:
                intents += self._place(execution, [name], now)
        if fault is None and attempts:
            names = [attempt.call for attempt in attempts]
            intents += self._place_all({attempts[0].execution.id: names}, now)
        return intents

    def ended(self, number: int, row: Done | Failed, now: int) -> list[Intent]:
        """What became of one call that our own worker had."""
        self.out.now = now
        ready: dict[RequestId, list[str]] = {}
        intents = self._settle(LOCAL, number, row, queue=0, ready=ready, now=now)
        return intents + self._place_all(ready, now) if ready else intents

    def cancel(self, link: LinkId, number: int, now: int) -> list[Intent]:
        """Who asked wants it no more; it still gets its answer, 1021."""
        self.out.now = now
        execution = self.in_flight.get(link, number)
        return [] if execution is None else self.in_flight.end(execution, faults.CANCELLED)

    def link_lost(self, link: LinkId, now: int) -> list[Intent]:
        """A link has ended: the calls on it are lost, and the requests that came over it are dropped."""
        self.out.now = now
        intents: list[Intent] = []
        for execution in self.in_flight.of(link):
            intents += self.in_flight.close(execution)
        self.in_flight.forget(link)
        return intents + self._lose(self.out.over(link), now)

    def gone(self, member: MemberId, now: int) -> list[Intent]:
        """A member is dead or has left: the calls it had are lost."""
        self.out.now = now
        intents = self._lose(self.out.at(member), now)
        self.out.forget(member)
        return intents

    def offers_changed(
        self, now: int, *, functions: Iterable[str] | None = None, members: Iterable[MemberId] = ()
    ) -> list[Intent]:
        """What calls wait for may be there: these functions (None: any) may have more offers than before, and these
        members are, are linked or offer something other than before.
        """
        if not self.parking.calls:
            return []
        self.out.now = now
        if functions is None:
            return self._place_all(self.parking.take_all(), now)
        keys = [*self.parking.offered(functions, self.dispatcher.can_run), *self.parking.awaiting(members)]
        return self._place_all(self.parking.take(keys), now) if keys else []

    def link_stands(self, member: MemberId, now: int) -> list[Intent]:
        """Calls can go to `member` over a link: also those that wait for a link to another, if it can run them."""
        if not self.parking.calls:
            return []
        mine, waiting = self.dispatcher.offered_by(member), self.parking.functions
        functions = [function for function in waiting if function in mine]
        return self.offers_changed(now, functions=functions, members=(member,))

    def routes_changed(self, now: int) -> list[Intent]:
        """A link more stands: over it a member may be reached to whom no link could be had."""
        return self.offers_changed(now, functions=(), members=self.out.unreachable)

    def wake(self, key: Key, now: int) -> list[Intent]:
        """A timer of ours has come."""
        self.out.now = now
        execution = self.requests.get(RequestId(int(key[1])))
        if execution is None:
            return []
        if key[0] == "deadline":
            return self.in_flight.too_late(execution)
        name = str(key[2])
        if key[0] == "again":
            return self._place(execution, self.parking.due(execution, now), now)
        if not self.parking.come_due(execution, name):
            return []
        if key[0] == "wait":
            return self.in_flight.failed(execution, name, self._waited_in_vain(execution, name))
        self.dispatcher.link_missed(execution, name)
        return self._place(execution, [name], now)

    def _waited_in_vain(self, execution: Execution, name: str) -> Fault:
        """Why: whoever offers the function refused the call, or nobody offers it."""
        call = execution.plan.calls[name]
        refusal = execution.history.pardoned.get(name)
        offered = refusal is not None and self.dispatcher.candidates(execution, call)
        return refusal if offered and refusal is not None else self.dispatcher.not_found(execution, call)

    def end_all(self) -> list[Intent]:
        """This node's grace is over: every request ends now, 1023 where something may have started, else 1024."""
        intents: list[Intent] = []
        for execution in list(self.requests.values()):
            started = execution.history.possibly_started
            intents += self.in_flight.end(execution, faults.LOST_BY_LEAVING if started else faults.DRAINING)
        return intents

    def pending(self, link: LinkId) -> bool:
        """Whether anything is still to come or to go on `link`: our calls out there, or requests from there."""
        return bool(self.in_flight.origins.get(link)) or self.out.pending(link)

    # -- what became of calls -----------------------------------------------------------------------------------------

    def _settle(
        self, link: LinkId, number: int, row: Done | Failed, *, queue: int, ready: dict[RequestId, list[str]], now: int
    ) -> list[Intent]:
        """One call of a dispatch has ended; what is ready for it goes into `ready`, to be placed together."""
        attempt = self.out.take(number, row.name, link)
        if attempt is None:
            return [Notify(StrayResult(link, number))]
        self.out.told(attempt.candidate.member, queue, row.ran)
        execution = attempt.execution
        if execution.id not in self.requests:
            return []
        if isinstance(row, Failed):
            names, intents = self._failed_there(attempt, row, now)
        else:
            if execution.request.trace:
                execution.trace.append(traced(attempt, row, now))
            names, intents = self.in_flight.done(execution, row)
        if names:
            ready.setdefault(execution.id, []).extend(names)
        return intents

    def _failed_there(self, attempt: Attempt, row: Failed, now: int) -> tuple[list[str], list[Intent]]:
        """A member says that a call failed. Returns it as ready again if another may have it."""
        execution, name = attempt.execution, attempt.call
        if row.refused:
            execution.history.not_started(name)
            if row.fault.code in _ELSEWHERE and now < execution.deadline:
                self._refused_there(attempt, row.fault)
                return [name], []
        elif row.fault.code == faults.LOST and self._starts_again(attempt, now):
            return [], []
        if execution.request.trace:
            execution.trace.append(traced(attempt, row, now))
        fault = row.fault if "node" in row.fault.details else row.fault.saying(node=attempt.candidate.shown)
        return [], self.in_flight.failed(execution, name, fault)

    def _refused_there(self, attempt: Attempt, fault: Fault) -> None:
        """Who refused: the member, only its link, or a relay that has no route to it."""
        history, name = attempt.execution.history, attempt.call
        if fault.details.get("relayed"):
            relay = next((member for member, link in self._links.items() if link == attempt.link), None)
            if relay is not None and relay != attempt.candidate.member:
                history.route_refused(name, relay)
                return
        if not self._link_closed_first(attempt, fault):
            history.refused(name, attempt.candidate.member, fault)

    def _starts_again(self, attempt: Attempt, now: int) -> bool:
        """Whether a call that was lost at a member that lives is started again, after a pause.

        Each loss counts, on one node too, as the call itself may be what ends the process that runs it.
        """
        execution, name, failovers = attempt.execution, attempt.call, self._limits.failovers
        history = execution.history
        if not history.lost(name, attempt.candidate, failovers=failovers) or len(history.losses[name]) > failovers:
            return False
        self.parking.pause(execution, name, now + self._pause(execution, name, self._rng.fraction(), now))
        return True

    def _link_closed_first(self, attempt: Attempt, fault: Fault) -> bool:
        """Whether only the link refused: it was closing when the call came, and the member has or gets another."""
        return fault.code == faults.DRAINING.code and self._links.get(attempt.candidate.member, LOCAL) != attempt.link

    def _lose(self, attempts: Sequence[Attempt], now: int) -> list[Intent]:
        """These calls will not be answered any more: those that may start again do so a little later, as more links
        may end in this moment, and the rest fails.
        """
        intents: list[Intent] = []
        ready: dict[RequestId, list[str]] = {}
        jitter = self._rng.fraction() if attempts else 0.0
        for attempt in attempts:
            self.out.take(attempt.number, attempt.call, attempt.link)
        for attempt in attempts:
            execution, name, candidate = attempt.execution, attempt.call, attempt.candidate
            if execution.id not in self.requests:
                continue
            history, failovers = execution.history, self._limits.failovers
            if history.lost(name, candidate, failovers=failovers):
                if pause := self._pause(execution, name, jitter, now):
                    self.parking.pause(execution, name, now + pause)
                else:
                    ready.setdefault(execution.id, []).append(name)
                continue
            nodes = [one.shown for one in history.lost_nodes(name)]
            fault = faults.lost_often(name, nodes, failovers) if candidate.idempotent else None
            intents += self.in_flight.failed(execution, name, fault or faults.lost(name, candidate.shown))
        return intents + self._place_all(ready, now) if ready else intents

    def _pause(self, execution: Execution, name: str, jitter: float, now: int) -> int:
        """How long to wait before a call is started again: longer with each loss, never most of the time left."""
        earlier = min(len(execution.history.losses[name]) - 1, 8)
        longest = min(self._limits.failover_pause << 2 * earlier, _LONGEST_PAUSE)
        return min(int(longest * (1 + jitter) / 2), max(0, execution.deadline - now) // 4)

    def _rest(self, link: LinkId, number: int) -> list[Attempt]:
        """What is pending of one dispatch that went out over `link`: nobody else can say what became of it."""
        return [attempt for attempt in self.out.of(number) if attempt.link == link]

    # -- what is ready ------------------------------------------------------------------------------------------------

    def _place_all(self, ready: Mapping[RequestId, Sequence[str]], now: int) -> list[Intent]:
        intents: list[Intent] = []
        for request_id, names in ready.items():
            if (execution := self.requests.get(request_id)) is not None:
                intents += self._place(execution, names, now)
        return intents

    def _place(self, execution: Execution, names: Sequence[str], now: int) -> list[Intent]:
        """Have ready calls handed out; one that nobody can run may end the request first."""
        calls, failing = self.dispatcher.placeable(execution, names, now)
        intents: list[Intent] = []
        for name, fault in failing:
            intents += self.in_flight.failed(execution, name, fault)
            if execution.id not in self.requests:
                return intents
        return intents + self.dispatcher.hand_out(execution, calls, now)


def _refuse(request: Request, link: LinkId, fault: Fault) -> Answer:
    return Answer(link, Result(request.id, fault=fault.saying(maybe_executed=False)))


def _unanswered(left: Sequence[Attempt], result: Result) -> list[Failed]:
    """A last Result settles all that is pending of its dispatch: what it did not name has failed as a whole."""
    fault = result.fault or Fault(1002, "a node ended a request without saying what became of this call")
    maybe_executed = fault.details.get("maybe_executed", fault.code not in _ELSEWHERE)
    return [Failed(attempt.call, fault, not maybe_executed) for attempt in left]
