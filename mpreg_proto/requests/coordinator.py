"""The requests this node answers for: plan, place, supervise, fail over, answer once, by the deadline.

In: requests of clients and nodes, answers of workers, lost links, changed offers, timers. Out: intents. A call is
placed when it is ready, from the offers of that moment; it belongs to the link it was handed to and is lost with it. It
may go elsewhere only while its body cannot have started, or when its function is idempotent
(docs/explanation/guarantees.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mpreg_proto.effects import Notify
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import StrayResult
from mpreg_proto.requests import faults
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.graph import plan
from mpreg_proto.requests.intents import LOCAL, Answer, Assign, Intent, Partly, WantLink, Withdraw
from mpreg_proto.requests.loads import Attempt, Outstanding
from mpreg_proto.requests.placement import Candidate, CatalogueView, draw, rank, reason
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, Timers
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Result, Traced

_ELSEWHERE = (1001, 1022, 1024)
"""Refusals after which a call may try another member: a stale route, overload, a member that leaves."""


class Coordinator:
    """Every request in progress here. Timer keys: ("deadline", id), ("wait", id, call), ("link", id, call)."""

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
        way: Callable[[MemberId], LinkId | None] = lambda member: None,
    ) -> None:
        """`last_number`: of an earlier coordinator, some of whose calls our own worker may still run.

        `way`: the link over which a member may be reached that no link can be had to.
        """
        self.me = me
        self.out = Outstanding(me, links, limits)
        self.requests: dict[RequestId, Execution] = {}
        self._catalogue = catalogue
        self._links = links
        self._timers = timers
        self._rng = rng
        self._limits = limits
        self._origins: dict[LinkId, dict[int, RequestId]] = {}
        self._parked: dict[tuple[RequestId, str], Execution] = {}
        self._last_id = 0
        self._last_number = last_number
        self._way = way
        self._awaited: dict[tuple[RequestId, str], MemberId] = {}
        """To whom a parked call waits for a link."""

    @property
    def last_number(self) -> int:
        """The newest dispatch's number; they are counted up from 1, over the whole life of the process."""
        return self._last_number

    def next_number(self) -> int:
        """A number for a dispatch that is passed on for another node."""
        self._last_number += 1
        return self._last_number

    # -- inputs -------------------------------------------------------------------------------------------------------

    def submit(self, request: Request, link: LinkId, now: int) -> list[Intent]:
        """Take on a request that came over `link`. It will be answered exactly once, unless that link ends first."""
        self.out.now = now
        theirs = self._origins.setdefault(link, {})
        if request.id in theirs:
            return [_refuse(request, link, Fault(1010, f"request {request.id} is already in progress on this link"))]
        if len(self.requests) >= self._limits.requests:
            return [_refuse(request, link, faults.overloaded("requests", self._limits.requests))]
        laid_out = plan(request, self._limits)
        if isinstance(laid_out, Fault):
            return [_refuse(request, link, laid_out)]
        given = self._limits.default_timeout if request.timeout is None else request.timeout
        deadline = now + min(given, self._limits.longest_timeout)
        self._last_id += 1
        request_id = RequestId(self._last_id)
        execution = Execution(request_id, request, laid_out, link=link, arrived=now, deadline=deadline)
        unroutable = [] if request.wait else self._unroutable(execution)
        if unroutable and not request.partial:
            return [_refuse(request, link, self._not_found(unroutable[0]))]
        self.requests[request_id] = execution
        theirs[request.id] = request_id
        self._timers.set(("deadline", request_id), deadline)
        intents: list[Intent] = []
        for call in unroutable:
            if call.name in execution.open:  # else it has failed with a call that it needs
                intents += self._call_failed(execution, call.name, self._not_found(call), now)
        return intents if execution.over else intents + self._place(execution, execution.start(), now)

    def answered(self, link: LinkId, result: Result, now: int) -> list[Intent]:
        """What a member says became of a dispatch, or of some of its calls."""
        self.out.now = now
        intents: list[Intent] = []
        ready: dict[RequestId, list[str]] = {}
        rows: tuple[Done | Failed, ...] = (*result.done, *result.failed)
        for row in rows:
            intents += self._settle(link, result.id, row, queue=result.queue, ready=ready, now=now)
        if result.last and result.fault is not None and result.fault.details.get("relayed"):
            intents += self._lose(self.out.of(result.id), now)
        elif result.last:
            for failed in self._unanswered(result):
                intents += self._settle(link, result.id, failed, queue=result.queue, ready=ready, now=now)
        return intents + self._place_all(ready, now) if ready else intents

    def ended(self, number: int, row: Done | Failed, now: int) -> list[Intent]:
        """What became of one call that our own worker had."""
        self.out.now = now
        ready: dict[RequestId, list[str]] = {}
        intents = self._settle(LOCAL, number, row, queue=0, ready=ready, now=now)
        return intents + self._place_all(ready, now) if ready else intents

    def cancel(self, link: LinkId, number: int, now: int) -> list[Intent]:
        """Who asked wants it no more; it still gets its answer, 1021."""
        self.out.now = now
        request_id = self._origins.get(link, {}).get(number)
        if request_id is None:
            return []
        return self._end(self.requests[request_id], faults.CANCELLED)

    def link_lost(self, link: LinkId, now: int) -> list[Intent]:
        """A link has ended: the calls on it are lost, and the requests that came over it are dropped."""
        self.out.now = now
        intents: list[Intent] = []
        for request_id in list(self._origins.get(link, {}).values()):
            intents += self._close(self.requests[request_id])
        self._origins.pop(link, None)
        return intents + self._lose(self.out.over(link), now)

    def gone(self, member: MemberId, now: int) -> list[Intent]:
        """A member is dead or has left: the calls it had are lost."""
        self.out.now = now
        intents = self._lose(self.out.at(member), now)
        self.out.forget(member)
        return intents

    def offers_changed(self, now: int) -> list[Intent]:
        """Offers, standings or links are other than they were: what is parked may go on."""
        if not self._parked:
            return []
        self.out.now = now
        parked, self._parked = self._parked, {}
        ready: dict[RequestId, list[str]] = {}
        for request_id, name in parked:
            ready.setdefault(request_id, []).append(name)
        return self._place_all(ready, now)

    def wake(self, key: Key, now: int) -> list[Intent]:
        """A timer of ours has come."""
        self.out.now = now
        execution = self.requests.get(RequestId(int(key[1])))
        if execution is None:
            return []
        if key[0] == "deadline":
            return self._too_late(execution)
        name = str(key[2])
        if self._parked.pop((execution.id, name), None) is None:
            return []
        call = execution.plan.calls[name]
        if key[0] == "wait":
            return self._call_failed(execution, name, self._not_found(call), now)
        awaited = self._awaited.pop((execution.id, name), None)
        for candidate in self._candidates(execution, call):
            if candidate.member != awaited or self.out.stands(candidate.member):
                continue
            self.out.refused(candidate.member)
            if self._way(candidate.member) is None:
                fault = Fault(1001, f"no link to {candidate.shown} could be had", {"node": candidate.shown})
                execution.avoid.setdefault(name, []).append((candidate.member, fault))
        return self._place(execution, [name], now)

    def end_all(self) -> list[Intent]:
        """This node's grace is over: every request ends now, 1023 where something may have started, else 1024."""
        intents: list[Intent] = []
        for execution in list(self.requests.values()):
            intents += self._end(execution, faults.LOST_BY_LEAVING if execution.possibly_started else faults.DRAINING)
        return intents

    def pending(self, link: LinkId) -> bool:
        """Whether anything is still to come or to go on `link`: our calls out there, or requests from there."""
        return bool(self._origins.get(link)) or bool(self.out.over(link))

    # -- placing ------------------------------------------------------------------------------------------------------

    def _place_all(self, ready: Mapping[RequestId, Sequence[str]], now: int) -> list[Intent]:
        intents: list[Intent] = []
        for request_id, names in ready.items():
            if (execution := self.requests.get(request_id)) is not None:
                intents += self._place(execution, names, now)
        return intents

    def _place(self, execution: Execution, names: Sequence[str], now: int) -> list[Intent]:
        """Hand ready calls out, those for one member together; a call that nobody can run may end the request first."""
        intents: list[Intent] = []
        placeable: list[tuple[Call, Sequence[Candidate]]] = []
        calls = execution.plan.calls
        for name in names:
            call = calls[name]
            candidates = self._candidates(execution, call)
            if candidates:
                placeable.append((call, candidates))
            else:
                intents += self._nobody(execution, call, now)
                if execution.id not in self.requests:
                    return intents
        groups: dict[LinkId | MemberId, Assign] = {}
        traced = execution.request.trace
        for call, candidates in placeable:
            if traced:
                execution.queued.setdefault(call.name, now)
            equals = rank(candidates, self.out, resources=call.resources)
            chosen = self._chosen(execution, call, equals)
            link = LOCAL if chosen.member == self.me else self._links.get(chosen.member)
            group: Assign | None
            if link is None:
                group = self._relayed(execution, chosen.member, groups)
            else:
                group = self._group(execution, link, groups)
            if group is None:
                intents += self._await_link(execution, call, chosen.member, now)
            else:
                why = reason(equals, candidates) if traced else ""
                self._hand_out(execution, call, chosen, group, why, now)
        return [*intents, *groups.values()]

    def _group(
        self, execution: Execution, link: LinkId, groups: dict[LinkId | MemberId, Assign], to: bytes = b""
    ) -> Assign:
        """The dispatch that takes this request's calls over `link` now, begun with the first of them."""
        group = groups.get(MemberId(to) if to else link)
        if group is None:
            self._last_number += 1
            group = Assign(link, self._last_number, [], {}, execution.deadline, [], to)
            groups[MemberId(to) if to else link] = group
            execution.dispatches[group.number] = link
        return group

    def _chosen(self, execution: Execution, call: Call, equals: Sequence[Candidate]) -> Candidate:
        """One of the equals; for a call that waits for a link the same one as before, unless others have theirs."""
        awaited = self._awaited.get((execution.id, call.name)) if self._awaited else None
        if awaited is not None:
            linked = [one for one in equals if self.out.stands(one.member)]
            equals = linked or [one for one in equals if one.member == awaited] or equals
        return draw(equals, self.out, self._rng)

    def _relayed(
        self, execution: Execution, member: MemberId, groups: dict[LinkId | MemberId, Assign]
    ) -> Assign | None:
        """The dispatch that reaches a member over another one, if no link to it could be had a short while ago."""
        link = None if self.out.linked(member) else self._way(member)
        return None if link is None else self._group(execution, link, groups, member)

    def _hand_out(self, execution: Execution, call: Call, chosen: Candidate, group: Assign, why: str, now: int) -> None:
        name = call.name
        if name in execution.parked:
            self._unpark(execution, name)
        group.calls.append(call)
        if call.needs:
            group.given.update(execution.given(name))
        if chosen.idempotent:
            group.idempotent.append(name)
        else:
            execution.possibly_started[name] = None
        execution.tries[name] = execution.tries.get(name, 0) + 1
        self.out.add(Attempt(execution, name, group.number, group.link, chosen, now, why))

    def _candidates(self, execution: Execution, call: Call) -> Sequence[Candidate]:
        """Who may still run `call`: offers it now, has not refused it, and fits what was said of it before."""
        candidates = self._catalogue.offers(call.function, call.resources, call.version)
        if execution.avoid and (refusals := execution.avoid.get(call.name)):
            avoid = [member for member, _ in refusals]
            candidates = [candidate for candidate in candidates if candidate.member not in avoid]
        if execution.request.here and call.name in execution.request.here:
            candidates = [candidate for candidate in candidates if candidate.member == self.me]
        if execution.repeats and (version := execution.repeats.get(call.name)) is not None:
            candidates = [one for one in candidates if one.idempotent and one.version == version]
        return candidates

    def _nobody(self, execution: Execution, call: Call, now: int) -> list[Intent]:
        """No candidate is left: wait for one if the request says so, else the call has failed."""
        wait = execution.request.wait
        if wait:
            key = ("wait", execution.id, call.name)
            self._park(execution, call.name)
            execution.avoid.pop(call.name, None)  # whoever refused may have room again by then
            if key not in self._timers:
                self._timers.set(key, now + wait)
            return []
        refusals = execution.avoid.get(call.name)
        fault = refusals[-1][1] if refusals else self._not_found(call)
        return self._call_failed(execution, call.name, fault, now)

    def _await_link(self, execution: Execution, call: Call, member: MemberId, now: int) -> list[Intent]:
        key = ("link", execution.id, call.name)
        self._park(execution, call.name)
        if self._awaited.get((execution.id, call.name)) != member or key not in self._timers:
            self._awaited[execution.id, call.name] = member
            self._timers.set(key, now + self._limits.link_wait)
        return [WantLink(member)]

    def _park(self, execution: Execution, name: str) -> None:
        execution.parked[name] = None
        self._parked[execution.id, name] = execution

    def _unpark(self, execution: Execution, name: str) -> None:
        """A call waits no more, or its request is over: its timers must not speak of a later wait."""
        del execution.parked[name]
        self._parked.pop((execution.id, name), None)
        self._awaited.pop((execution.id, name), None)
        self._timers.cancel(("wait", execution.id, name))
        self._timers.cancel(("link", execution.id, name))

    def _unroutable(self, execution: Execution) -> list[Call]:
        offers = self._catalogue.offers
        here = execution.request.here
        return [
            call
            for call in execution.request.calls
            if not offers(call.function, call.resources, call.version) and call.name not in here
        ]

    def _not_found(self, call: Call) -> Fault:
        details = self._catalogue.lacking(call.function, call.resources, call.version)
        return faults.not_found(call, details)

    # -- what became of calls -----------------------------------------------------------------------------------------

    def _settle(
        self, link: LinkId, number: int, row: Done | Failed, *, queue: int, ready: dict[RequestId, list[str]], now: int
    ) -> list[Intent]:
        """One call of a dispatch has ended; what is ready for it goes into `ready`, to be placed together."""
        attempt = self.out.take(number, row.name, link)
        if attempt is None:
            return [Notify(StrayResult(link, number))]
        self.out.told(attempt.candidate.member, queue, row.ran)
        if attempt.execution.id not in self.requests:
            return []
        if isinstance(row, Done):
            names, intents = self._bind(attempt, row, now)
        else:
            names, intents = self._failed_there(attempt, row, now)
        if names:
            ready.setdefault(attempt.execution.id, []).extend(names)
        return intents

    def _bind(self, attempt: Attempt, row: Done, now: int) -> tuple[list[str], list[Intent]]:
        execution, name = attempt.execution, attempt.call
        if execution.request.trace:
            self._trace(attempt, row, now)
        ready = execution.bind(name, row.value)
        intents: list[Intent] = []
        if execution.request.eager and name in execution.plan.wanted:
            intents.append(Partly(execution.link, execution.reply_id, row))
        if execution.over:
            intents += self._end(execution, None)
        return ready, intents

    def _failed_there(self, attempt: Attempt, row: Failed, now: int) -> tuple[list[str], list[Intent]]:
        execution, name = attempt.execution, attempt.call
        if row.refused:
            execution.possibly_started.pop(name, None)
            if row.fault.code in _ELSEWHERE and now < execution.deadline:
                if not self._link_closed_first(attempt, row.fault):
                    execution.avoid.setdefault(name, []).append((attempt.candidate.member, row.fault))
                return [name], []
        if execution.request.trace:
            self._trace(attempt, row, now)
        fault = row.fault if "node" in row.fault.details else row.fault.saying(node=attempt.candidate.shown)
        return [], self._call_failed(execution, name, fault, now)

    def _link_closed_first(self, attempt: Attempt, fault: Fault) -> bool:
        """Whether only the link refused: it was closing when the call came, and the member has or gets another."""
        return fault.code == faults.DRAINING.code and self._links.get(attempt.candidate.member, LOCAL) != attempt.link

    def _lose(self, attempts: Sequence[Attempt], now: int) -> list[Intent]:
        """These calls will not be answered any more: start again elsewhere what may be, and tell of the rest."""
        intents: list[Intent] = []
        ready: dict[RequestId, list[str]] = {}
        for attempt in attempts:
            self.out.take(attempt.number, attempt.call, attempt.link)
        for attempt in attempts:
            execution, name = attempt.execution, attempt.call
            if execution.id not in self.requests:
                continue
            losses = execution.losses[name] = execution.losses.get(name, 0) + 1
            if attempt.candidate.idempotent and losses <= self._limits.failovers:
                execution.repeats[name] = attempt.candidate.version
                ready.setdefault(execution.id, []).append(name)
            else:
                intents += self._call_failed(execution, name, faults.lost(attempt.call, attempt.candidate.shown), now)
        return intents + self._place_all(ready, now)

    def _unanswered(self, result: Result) -> list[Failed]:
        """A last Result settles all that is pending of its dispatch: what it did not name has failed as a whole."""
        left = self.out.of(result.id)
        if not left:
            return []
        fault = result.fault or Fault(1002, "a node ended a request without saying what became of this call")
        refused = fault.code in _ELSEWHERE and not fault.details.get("maybe_executed", False)
        return [Failed(attempt.call, fault, refused) for attempt in left]

    def _call_failed(self, execution: Execution, name: str, fault: Fault, now: int) -> list[Intent]:
        call = execution.plan.calls[name]
        fault = fault.saying(call=name, function=call.function)
        if name in execution.parked:
            self._unpark(execution, name)
        if not execution.request.partial:
            return self._end(execution, fault)
        before = len(execution.faults)
        execution.fail(name, fault)
        intents = self._tell_failed(execution, list(execution.faults)[before:])
        return intents + self._end(execution, None) if execution.over else intents

    def _trace(self, attempt: Attempt, row: Done | Failed, now: int) -> None:
        """Only spans come over a link, so the way there is reckoned as half of what is left of the round trip.

        A worker may tell any numbers; what it says is held against how long it has had the call.
        """
        execution = attempt.execution
        left = now - attempt.sent
        ran = min(max(row.ran, 0), left)
        waited = min(max(row.waited, 0), left - ran)
        travelled = 0 if attempt.link == LOCAL else left - ran - waited
        moved = attempt.sent + travelled // 2 - execution.arrived
        started = moved + waited
        execution.trace.append(
            Traced(
                name=attempt.call,
                node=attempt.candidate.shown,
                queued=execution.queued[attempt.call] - execution.arrived,
                moved=moved,
                started=started,
                ended=started + ran,
                tries=execution.tries[attempt.call],
                why=attempt.why,
            )
        )

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _end(self, execution: Execution, fault: Fault | None) -> list[Intent]:
        """Answer, once, and call off what is still out."""
        request = execution.request
        partial = request.partial and fault is None
        if partial:
            fault = execution.first_fault
        if fault is not None:
            fault = fault.saying(maybe_executed=bool(execution.possibly_started))
        done = execution.done() if (fault is None or partial) and not request.eager else ()
        failed = execution.failed() if partial and not request.eager else ()
        answer = Answer(
            execution.link,
            Result(execution.reply_id, done, failed, fault=fault, trace=tuple(execution.trace)),
        )
        return [answer, *self._close(execution)]

    def _too_late(self, execution: Execution) -> list[Intent]:
        """The deadline has come: under partial for each call that is open, so that what there is goes back."""
        fault = faults.deadline(execution)
        if not execution.request.partial:
            return self._end(execution, fault)
        late = list(execution.open)
        for name in late:
            execution.fail(name, fault.saying(call=name, function=execution.plan.calls[name].function))
        return [*self._tell_failed(execution, late), *self._end(execution, None)]

    def _tell_failed(self, execution: Execution, names: Sequence[str]) -> list[Intent]:
        """For an eager request: the wanted ones of `names`, which have just failed."""
        if not execution.request.eager:
            return []
        return [
            Partly(execution.link, execution.reply_id, Failed(name, execution.faults[name]))
            for name in names
            if name in execution.plan.wanted
        ]

    def _close(self, execution: Execution) -> list[Intent]:
        """Forget a request; what is still out of it is called off, and its late answers match nothing."""
        del self.requests[execution.id]
        self._origins.get(execution.link, {}).pop(execution.reply_id, None)
        self._timers.cancel(("deadline", execution.id))
        for name in list(execution.parked) if execution.parked else ():
            self._unpark(execution, name)
        return [Withdraw(link, number) for number, link in execution.dispatches.items() if self.out.of(number)]


def _refuse(request: Request, link: LinkId, fault: Fault) -> Answer:
    return Answer(link, Result(request.id, fault=fault.saying(maybe_executed=False)))
