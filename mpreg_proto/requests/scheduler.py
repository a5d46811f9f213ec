"""The scheduler: chooses a member for each ready call, and joins the calls for one member into one dispatch.

Inputs are ready calls; outputs are `Dispatch`, or `Connect` for a member without a link. A call is placed by the offers
of that moment, never earlier. `PendingCalls` holds the calls that cannot be dispatched yet: no node offers their
function, a link is opened first, or their node was lost a moment ago. It indexes them by what they wait for, so a
changed offer touches only its own. `explain` uses the same functions and runs nothing. A call that no node can run and
that does not wait is returned with its fault; the coordinator ends calls and requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

import msgspec

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import LOCAL, Connect, Dispatch, RequestAction, SendUpdate
from mpreg_proto.requests.backlog import POLL, Backlog, Credits, Requirement
from mpreg_proto.requests.graph import plan
from mpreg_proto.requests.item_feed import ItemFeed
from mpreg_proto.requests.outstanding import Attempt, Outstanding
from mpreg_proto.requests.placement import (
    ONLY_CANDIDATE,
    Candidate,
    CatalogueView,
    Loads,
    choice_reason,
    draw,
    rank,
    rejected,
)
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Call, Explained, Explanation, InputItems, Request

_Key = tuple[RequestId, str]
_Requirement = tuple[str, tuple[str, ...], str | None]
"""Function, resources and version. Calls with the same requirement become ready at the same moment."""


class PendingCalls:
    """The pending calls, by request and name. Timer kinds: OFFER_WAIT, LINK_WAIT and, after a loss, RETRY."""

    __slots__ = (
        "_by_function",
        "_by_member",
        "_credits",
        "_link_targets",
        "_requirements",
        "_reserved",
        "_retry_times",
        "_timers",
        "backlog",
        "calls",
    )

    def __init__(self, timers: Timers, credits: Credits) -> None:
        self._timers = timers
        self._credits = credits
        self._reserved: dict[_Key, tuple[MemberId, str]] = {}
        """The member and function of each call that waits for a link: it uses credit as if it were there."""
        self.calls: dict[_Key, None] = {}
        """All pending calls in the order in which they were added, with the backlog; written by the methods alone."""
        self._requirements: dict[_Key, _Requirement] = {}
        """The requirement of each of `calls`, but of those that pause after a loss."""
        self._by_function: dict[str, dict[_Requirement, dict[_Key, None]]] = {}
        """The inverse of `_requirements`."""
        self._link_targets: dict[_Key, MemberId] = {}
        """The members that calls wait for a link to."""
        self._by_member: dict[MemberId, dict[_Key, None]] = {}
        """The inverse of `_link_targets`."""
        self._retry_times: dict[_Key, int] = {}
        """The calls that pause after a loss, and the end of the pause."""
        self.backlog: Backlog = Backlog()
        """The calls that wait until a member takes another call of their function."""

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait_for_offer(self, execution: Execution, name: str, at: int) -> None:
        """Wait until `at` for a node that offers the function. A call that waits already keeps its time."""
        self._enter(execution, name)
        key = (TimerKind.OFFER_WAIT, execution.id, name)
        if key not in self._timers:
            self._timers.set(key, at)

    def wait_for_link(self, execution: Execution, name: str, member: MemberId, at: int) -> None:
        """Wait until `at` for a link to `member`. A call that waits for that link already keeps its time."""
        self._enter(execution, name)
        key = (TimerKind.LINK_WAIT, execution.id, name)
        if self._link_targets.get((execution.id, name)) != member or key not in self._timers:
            self._expect_link(execution, name, member)
            self._timers.set(key, at)

    def retry_at(self, execution: Execution, name: str, at: int) -> None:
        """Pause a call until `at`."""
        key = (execution.id, name)
        execution.pending[name] = None
        self.calls[key] = None
        self._retry_times[key] = at
        self._timers.set((TimerKind.RETRY, *key), at)

    def wait_for_place(self, execution: Execution, name: str, requirement: Requirement, now: int) -> None:
        """Wait in the backlog until a member takes another call of the function, and for nothing else any more."""
        key = (execution.id, name)
        self._timers.cancel((TimerKind.OFFER_WAIT, *key))
        self._timers.cancel((TimerKind.LINK_WAIT, *key))
        self._forget_link_target(key)
        execution.pending[name] = None
        self.calls[key] = None
        self.backlog.add(key, requirement, client=execution.client, deadline=execution.deadline, now=now)
        timer = (TimerKind.BACKLOG, requirement[0])
        if timer not in self._timers:
            self._timers.set(timer, now + POLL)

    def _enter(self, execution: Execution, name: str) -> None:
        key = (execution.id, name)
        call = execution.plan.calls[name]
        execution.pending[name] = None
        self.calls[key] = None
        requirement = self._requirements[key] = (call.function, call.resources, call.version)
        self._by_function.setdefault(call.function, {}).setdefault(requirement, {})[key] = None

    def _expect_link(self, execution: Execution, name: str, member: MemberId) -> None:
        key = (execution.id, name)
        self._forget_link_target(key)
        self._link_targets[key] = member
        self._by_member.setdefault(member, {})[key] = None
        self._reserved[key] = member, execution.plan.calls[name].function
        self._credits.sent(*self._reserved[key])

    def link_target(self, execution: Execution, name: str) -> MemberId | None:
        """Return the member that a call waits for a link to, or None."""
        return self._link_targets.get((execution.id, name)) if self._link_targets else None

    # -- going on -----------------------------------------------------------------------------------------------------

    @property
    def functions(self) -> Iterable[str]:
        """The functions that pending calls need."""
        return self._by_function

    def matching(self, functions: Iterable[str], can_run: Callable[[_Requirement], bool]) -> list[_Key]:
        """Return the calls of these functions whose requirement `can_run` accepts."""
        return [
            key
            for function in functions
            for requirement, calls in self._by_function.get(function, {}).items()
            if can_run(requirement)
            for key in calls
        ]

    def waiting_for_link(self, members: Iterable[MemberId]) -> list[_Key]:
        """Return the calls that wait for a link to one of these members."""
        return [key for member in members for key in self._by_member.get(member, ())]

    def pop(self, keys: Iterable[_Key]) -> dict[RequestId, list[str]]:
        """Remove calls to place them again; returns them by request. Their timers run until they are dispatched."""
        ready: dict[RequestId, list[str]] = {}
        for key in keys:
            if key in self._requirements:
                del self.calls[key]
                self._forget_requirement(key)
                ready.setdefault(key[0], []).append(key[1])
        return ready

    def pop_all(self) -> dict[RequestId, list[str]]:
        """Remove and return all calls that wait for an offer or a link."""
        return self.pop([key for key in self.calls if key in self._requirements])

    def retries_due(self, execution: Execution, name: str, now: int) -> list[str]:
        """Remove and return the calls of a request whose pause is over, if `name` is one of them.

        The first of several timers that are due takes them all, and the others find nothing.
        """
        if self._retry_times.get((execution.id, name), now + 1) > now:
            return []
        names = [name for name in execution.pending if self._retry_times.get((execution.id, name), now + 1) <= now]
        for name in names:
            self.discard(execution, name)
        return names

    def expire(self, execution: Execution, name: str) -> bool:
        """Handle a timer of a call: remove the call. Returns whether it was pending."""
        key = (execution.id, name)
        if key not in self.calls:
            return False
        del self.calls[key]
        self._forget_requirement(key)
        return True

    def link_timed_out(self, execution: Execution, name: str) -> MemberId | None:
        """Stop waiting for the link of a call, which did not open in time. Returns its member."""
        return self._forget_link_target((execution.id, name))

    def discard(self, execution: Execution, name: str) -> None:
        """Remove a call that is no longer pending, and its timers, which must not end a later wait."""
        if name not in execution.pending:
            return
        del execution.pending[name]
        key = (execution.id, name)
        self.calls.pop(key, None)
        self._forget_requirement(key)
        self._forget_link_target(key)
        self._retry_times.pop(key, None)
        if len(self.backlog) and (function := self.backlog.discard(key)) is not None:
            self._timers.cancel((TimerKind.BACKLOG, function))
        self._timers.cancel((TimerKind.OFFER_WAIT, execution.id, name))
        self._timers.cancel((TimerKind.LINK_WAIT, execution.id, name))
        self._timers.cancel((TimerKind.RETRY, execution.id, name))

    def _forget_requirement(self, key: _Key) -> None:
        requirement = self._requirements.pop(key, None)
        if requirement is None:
            return
        by_requirement = self._by_function[requirement[0]]
        calls = by_requirement[requirement]
        del calls[key]
        if not calls:
            del by_requirement[requirement]
            if not by_requirement:
                del self._by_function[requirement[0]]

    def release(self, key: _Key) -> None:
        """Give back the credit of a call that waits for a link, as it is placed again."""
        reserved = self._reserved.pop(key, None)
        if reserved is not None:
            self._credits.ended(*reserved)

    def _forget_link_target(self, key: _Key) -> MemberId | None:
        self.release(key)
        member = self._link_targets.pop(key, None)
        if member is not None:
            calls = self._by_member[member]
            del calls[key]
            if not calls:
                del self._by_member[member]
        return member


NextHop = Callable[[MemberId, Collection[bytes]], LinkId | None]
"""Returns the link over which a member may be reached, other than over the relays given."""
_Batches = dict[tuple[LinkId, bytes], "_Batch"]
"""Dispatches by their link and, if they are relayed, their member."""
_NO_PLACE = "each node that can run it has as many calls of the function as it takes"
_EXPLAINED = 32
"""The most calls of one request whose error names alternatives: similar names, what the nearest node lacks."""
_OVERHEAD = 1024
"""The most bytes of a dispatch beside its calls and their inputs."""
_VALUE_OVERHEAD = 16
"""The most bytes of an argument or input beside itself and its name."""


class _Batch(msgspec.Struct):
    """One dispatch that is being filled. `size` is an upper bound of its bytes."""

    dispatch: Dispatch
    size: int = _OVERHEAD


def no_match_details(catalogue: CatalogueView, call: Call, place: int) -> dict[str, object]:
    """Return the details of 1001 for the call at `place`, from 1, among those of its request that no node can run."""
    if place <= _EXPLAINED:
        return catalogue.explain_no_match(call.function, call.resources, call.version)
    unknown = "resources" if catalogue.offers(call.function, (), call.version) else "function"
    return {"unknown": unknown, "function": call.function, "resources": list(call.resources)}


class Scheduler:
    """Adds dispatched calls to `outstanding`, and the others to `pending_calls`."""

    def __init__(
        self,
        me: MemberId,
        *,
        outstanding: Outstanding,
        pending_calls: PendingCalls,
        catalogue: CatalogueView,
        links: Mapping[MemberId, LinkId],
        rng: Rng,
        limits: Limits,
        next_hop: NextHop,
    ) -> None:
        self.me = me
        self._outstanding = outstanding
        self._pending_calls = pending_calls
        self._catalogue = catalogue
        self._links = links
        self._rng = rng
        self._limits = limits
        self._next_hop = next_hop

    # -- who can run a call -------------------------------------------------------------------------------------------

    def candidates(self, execution: Execution, call: Call) -> Sequence[Candidate]:
        """Return the members that may run `call`: they offer it, have not refused it, and fit its earlier attempts."""
        candidates = self._catalogue.offers(call.function, call.resources, call.version)
        if execution.request.again and not self._is_repeatable(call):
            return ()
        if execution.local_calls and call.name in execution.local_calls:
            candidates = [candidate for candidate in candidates if candidate.member == self.me]
        history = execution.history
        if history.refusals or history.versions:
            candidates = history.eligible(call.name, candidates)
        if execution.fed and (stream := execution.fed.get(call.name)) is not None:
            return [one for one in candidates if stream.accepts(call, one.consumes)]
        return candidates

    def unroutable(self, request: Request) -> list[Call]:
        """Return the calls of a request that no node offers now, ready or not."""
        offers = self._catalogue.offers
        local_calls = dict.fromkeys(request.here)
        return [
            call
            for call in request.calls
            if not offers(call.function, call.resources, call.version) and call.name not in local_calls
        ]

    def not_repeatable(self, request: Request) -> Fault | None:
        """Return 1023 if a call of a request that is sent again could go to a node where it is not idempotent."""
        return next((faults.not_repeatable(call) for call in request.calls if not self._is_repeatable(call)), None)

    def _is_repeatable(self, call: Call) -> bool:
        """Return whether a call is idempotent at each node to which it could go."""
        return all(one.idempotent for one in self._catalogue.offers(call.function, call.resources, call.version))

    def not_found(self, call: Call, *, place: int) -> Fault:
        """Return 1001 for the call at `place`, from 1, among those of its request that no node can run."""
        return faults.not_found(call, no_match_details(self._catalogue, call, place))

    def explain_not_found(self, execution: Execution, call: Call) -> Fault:
        """Return 1001 for a call; for the first calls of a request with alternatives."""
        execution.explained += 1
        return self.not_found(call, place=execution.explained)

    def offered_by(self, member: MemberId) -> Container[str]:
        """Return the functions that a member offers."""
        return self._catalogue.offered_by(member)

    def can_run(self, asked: tuple[str, tuple[str, ...], str | None]) -> bool:
        """Return whether a node offers that function in that version with those resources now."""
        return bool(self._catalogue.offers(*asked))

    def placeable(
        self, execution: Execution, names: Sequence[str], now: int
    ) -> tuple[list[tuple[Call, Sequence[Candidate]]], list[tuple[str, Fault]]]:
        """Return the calls that a node can run, with their candidates, and those that fail; the rest is pending."""
        found: list[tuple[Call, Sequence[Candidate]]] = []
        failing: list[tuple[str, Fault]] = []
        wait = execution.request.wait
        for name in names:
            if execution.states[name] is not CallState.READY:
                execution.move(name, CallState.READY, now)
            call = execution.plan.calls[name]
            if candidates := self.candidates(execution, call):
                found.append((call, candidates))
            elif execution.request.again and not self._is_repeatable(call):  # its offers have changed
                execution.unverified = True
                failing.append((name, faults.not_repeatable(call)))
            elif wait:
                execution.move(name, CallState.PENDING, now, reason=self._no_candidate(execution, call))
                execution.history.clear_refusals(name)
                self._pending_calls.wait_for_offer(execution, name, now + wait)
            else:
                failing.append((name, execution.history.last_refusal(name) or self.explain_not_found(execution, call)))
        return found, failing

    def _no_candidate(self, execution: Execution, call: Call) -> str:
        """Return why no member gets a call now, in short: `explain_no_match` costs too much for each wait."""
        if (refusal := execution.history.last_refusal(call.name)) is not None:
            return f"no other node can run it: {refusal.message}"
        if execution.local_calls and call.name in execution.local_calls:
            return f"this node, the only one that may run it, does not offer {call.function!r}"
        if (version := execution.history.versions.get(call.name)) is not None:
            return f"no other node offers {call.function!r} as idempotent in version {version!r}, which ran before"
        if self._catalogue.offers(call.function, (), None):
            return f"no node that offers {call.function!r} has its resources and version"
        return f"no node offers {call.function!r}"

    # -- dispatching ---------------------------------------------------------------------------------------------------

    def requirement(self, execution: Execution, call: Call) -> Requirement:
        """Return what decides which members may run a call; the call itself if its earlier attempts do so too."""
        history, name = execution.history, call.name
        own = name in history.refusals or name in history.versions or name in execution.local_calls
        own = own or execution.request.again or name in execution.fed
        return call.function, call.resources, call.version, (execution.id, name) if own else None

    def has_place(self, requirement: Requirement, execution: Execution | None) -> bool:
        """Return whether a member takes another such call, or no member can run it any more; `execution`: its own."""
        function, resources, version, key = requirement
        if key is None or execution is None:
            candidates: Sequence[Candidate] = self._catalogue.offers(function, resources, version)
        else:
            candidates = self.candidates(execution, execution.plan.calls[key[1]])
        return not candidates or bool(self._outstanding.credits.allowed(candidates, function))

    def dispatch(
        self,
        execution: Execution,
        calls: Sequence[tuple[Call, Sequence[Candidate]]],
        now: int,
        *,
        charged: int = 0,
        bounded: bool = True,
    ) -> list[RequestAction]:
        """Choose a member for each call. Calls for one member go in one dispatch, as far as a message holds them.

        A call for which no member has a place, or behind others that wait for one, goes into the backlog, unless it has
        its turn there (`charged`, see `Backlog.take_turn`), or places are not `bounded`.
        """
        full: list[RequestAction] = []
        actions: list[RequestAction] = []
        batches: _Batches = {}
        backlog, credits = self._pending_calls.backlog, self._outstanding.credits
        for call, every in calls:
            self._pending_calls.release((execution.id, call.name))
            candidates = credits.allowed(every, call.function) if bounded else every
            behind = not charged and bounded and len(backlog) and backlog.has(self.requirement(execution, call))
            if not candidates or behind:
                execution.move(call.name, CallState.PENDING, now, reason=_NO_PLACE)
                self._pending_calls.wait_for_place(execution, call.name, self.requirement(execution, call), now)
                continue
            if len(candidates) == 1 == len(every):
                chosen, why = candidates[0], ONLY_CANDIDATE
            else:
                equals = rank(candidates, self._outstanding, resources=call.resources, now=now)
                chosen, why = self._choose(execution, call, equals, now), choice_reason(equals, every)
            route = self._route_to(execution, call.name, chosen.member, now)
            if route is None:
                execution.move(call.name, CallState.PENDING, now, chosen.shown, "no link to that node yet")
                self._pending_calls.wait_for_link(execution, call.name, chosen.member, now + self._limits.link_wait)
                actions.append(Connect(chosen.member))
            else:
                if (chosen.streaming or execution.item_feeds) and self._is_streamed(execution, call, chosen):
                    batch = self._batch(execution, call, route, batches={}, full=full, together=False)
                    self._add(execution, call, chosen, batch, why, now, charged)
                    full += _with_items(execution, call, batch.dispatch)
                    continue
                batch = self._batch(execution, call, route, batches=batches, full=full, together=len(calls) > 1)
                self._add(execution, call, chosen, batch, why, now, charged)
        return [*actions, *full, *[batch.dispatch for batch in batches.values()]]

    def _is_streamed(self, execution: Execution, call: Call, chosen: Candidate) -> bool:
        """Return whether a call takes items one by one, or produces some for a consumer: it is dispatched alone.

        So it can be cancelled alone. A stream for the items of a generator is opened here.
        """

        def accepts(stream: ItemFeed) -> bool:
            consumer = execution.plan.calls[stream.consumer]
            return any(stream.accepts(consumer, one.consumes) for one in self.candidates(execution, consumer))

        if not chosen.streaming:
            execution.close_stream(call.name)
        elif call.name in execution.plan.dependents and execution.open_stream(call.name, accepts) is not None:
            return True
        return call.name in execution.fed

    def link_timed_out(self, execution: Execution, name: str, now: int) -> None:
        """Avoid the member chosen for that call for a while, as no link to it opened in time.

        If no relay reaches it either, it never gets this call.
        """
        target = self._pending_calls.link_timed_out(execution, name)
        for candidate in self.candidates(execution, execution.plan.calls[name]):
            if candidate.member != target or self._outstanding.connected(candidate.member):
                continue
            self._outstanding.mark_unreachable(candidate.member, now)
            if self._next_hop(candidate.member, execution.history.routes.get(name, ())) is None:
                fault = Fault(
                    ErrorCode.COMMAND_NOT_FOUND, f"could not connect to {candidate.shown}", {"node": candidate.shown}
                )
                execution.history.not_connected(name, candidate.member, fault)

    def _choose(self, execution: Execution, call: Call, equals: Sequence[Candidate], now: int) -> Candidate:
        """Return one of the equals. A call that waits for a link keeps its member, unless another is connected."""
        target = self._pending_calls.link_target(execution, call.name)
        if target is not None:
            connected = [one for one in equals if self._outstanding.connected(one.member)]
            equals = connected or [one for one in equals if one.member == target] or equals
        return draw(equals, self._outstanding, self._rng, now)

    def _route_to(self, execution: Execution, name: str, member: MemberId, now: int) -> tuple[LinkId, bytes] | None:
        """Return the link for a call to a member, and that member if a relay passes the call on.

        None if a link has to be opened first. A member that could not be dialled lately is reached by relay.
        """
        link = LOCAL if member == self.me else self._links.get(member)
        if link is not None:
            return link, b""
        if self._outstanding.reachable(member, now):
            return None
        next_hop = self._next_hop(member, execution.history.routes.get(name, ()))
        return None if next_hop is None else (next_hop, member)

    def _batch(
        self,
        execution: Execution,
        call: Call,
        route: tuple[LinkId, bytes],
        *,
        batches: _Batches,
        full: list[RequestAction],
        together: bool,
    ) -> _Batch:
        """Return the dispatch for this call, which may be `together` with others; a new one if the last is full."""
        batch = batches.get(route)
        link, to = route
        size = 0
        if together and link != LOCAL:
            size = self._size(execution, call, {} if batch is None else batch.dispatch.inputs)
            if batch is not None and batch.size + size > self._limits.node_message:
                full.append(batch.dispatch)
                batch, size = None, self._size(execution, call, {})
        if batch is None:
            number = self._outstanding.next_number()
            progress = execution.request.progress
            dispatch = Dispatch(
                link, number, [], {}, execution.deadline, to=to, client=execution.client, progress=progress
            )
            batch = batches[route] = _Batch(dispatch)
            execution.dispatches[number] = link
        batch.size += size
        return batch

    def _size(self, execution: Execution, call: Call, included: Mapping[str, bytes]) -> int:
        """Return the most bytes that a call adds to a dispatch that includes these inputs."""
        names = 3 * len(call.name) + len(call.function) + len(call.version or "") + len("".join(call.resources))
        size = len(call.args) + 4 * names + _VALUE_OVERHEAD * (8 + len(call.resources))
        for dependency, value in execution.inputs_of(call.name).items():
            size += 4 * len(dependency) + _VALUE_OVERHEAD
            if dependency not in included:
                size += len(value) + 4 * len(dependency) + _VALUE_OVERHEAD
        return size

    def _add(
        self, execution: Execution, call: Call, chosen: Candidate, batch: _Batch, why: str, now: int, charged: int
    ) -> None:
        name, dispatch = call.name, batch.dispatch
        if name in execution.pending:
            self._pending_calls.discard(execution, name)
        dispatch.calls.append(call)
        if call.dependencies:
            dispatch.inputs.update(execution.inputs_of(name))
        if chosen.idempotent:
            dispatch.idempotent.append(name)
        if name in execution.streams:
            dispatch.streams.append(name)
        if execution.item_feeds:
            if (produced := execution.item_feeds.get(name)) is not None:
                dispatch.streams.append(name)
                produced.source = dispatch.number
            if (taken := execution.fed.get(name)) is not None:
                dispatch.iterates[name] = taken.generator
                taken.target = dispatch.number
        state = CallState.DISPATCHED if chosen.idempotent else CallState.POSSIBLY_STARTED
        execution.move(name, state, now, chosen.shown, why)
        self._outstanding.add(
            Attempt(execution, name, dispatch.number, dispatch.link, chosen, now, call.function, charged)
        )


def _with_items(execution: Execution, call: Call, dispatch: Dispatch) -> list[RequestAction]:
    """Return the dispatch of a call that is alone in it, and the items that it takes."""
    stream = execution.fed.get(call.name)
    if stream is None:
        return [dispatch]
    items = InputItems(dispatch.number, call.name, stream.kept)
    return [dispatch, SendUpdate(dispatch.link, items)]


def explain(request: Request, catalogue: CatalogueView, loads: Loads, limits: Limits, now: int) -> Explanation:
    """Return a row for each call in the request's order: the equals of the draw now, or the error."""
    planned = plan(request, limits)
    if isinstance(planned, Fault):
        return Explanation(request.id, fault=planned.with_details(maybe_executed=False))
    rows: list[Explained] = []
    explained = 0
    for call in request.calls:
        candidates = catalogue.offers(call.function, call.resources, call.version)
        equals = rank(candidates, loads, resources=call.resources, now=now)
        if not equals:
            explained += 1
            fault = faults.not_found(call, no_match_details(catalogue, call, explained))
            if not request.partial:
                return Explanation(request.id, fault=fault.with_details(maybe_executed=False))
            rows.append(Explained(call.name, call.function, (), fault.message))
            continue
        rows.append(
            Explained(
                call.name,
                call.function,
                tuple(equal.shown for equal in equals),
                choice_reason(equals, candidates),
                rejected(candidates, equals, loads, now),
            )
        )
    return Explanation(request.id, tuple(rows))
