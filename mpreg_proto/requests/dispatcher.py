"""Ready calls to members: who can run each, which of them shall, and one dispatch for all that go the same way.

The coordinator gives in calls that are ready; out come `Assign`s, or `WantLink` for a member to whom no link stands. A
call is placed by the offers of that moment, never earlier. What nobody can run waits, if its request says so, else it
goes back with the fault that it fails with; ending calls and requests is not for here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.intents import LOCAL, Assign, Intent, WantLink
from mpreg_proto.requests.loads import Attempt, Outstanding, dispatch_number
from mpreg_proto.requests.parking import Parking
from mpreg_proto.requests.placement import Candidate, CatalogueView, draw, rank, reason
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call

Way = Callable[[MemberId, Collection[bytes]], LinkId | None]
"""The link over which a member may be reached, but for the relays named."""
_Groups = dict[tuple[LinkId, bytes], "_Group"]
"""Dispatches by the link that they go over and, if another is to pass them on, who they are for."""
_HELPED = 32
"""For so many calls of one request an error says what there is instead: names like it, what the nearest node lacks."""
_AROUND = 1024
"""Bytes of a dispatch beside its calls and their inputs, at most."""
_AROUND_VALUE = 16
"""Bytes that an argument or an input takes beside itself and its name, at most."""


class _Group:
    """One dispatch that is being filled. `size` is not less than the bytes that it will take."""

    __slots__ = ("assign", "size")

    def __init__(self, assign: Assign) -> None:
        self.assign = assign
        self.size = _AROUND


def why_not(catalogue: CatalogueView, call: Call, place: int) -> dict[str, object]:
    """The details of 1001 for the call at `place`, from 1, of those of its request that nobody can run."""
    if place <= _HELPED:
        return catalogue.lacking(call.function, call.resources, call.version)
    unknown = "resources" if catalogue.offers(call.function, (), call.version) else "function"
    return {"unknown": unknown, "function": call.function, "resources": list(call.resources)}


class Dispatcher:
    """Numbers dispatches, enters what is handed out into `out`, and parks what cannot be handed out yet."""

    def __init__(
        self,
        me: MemberId,
        *,
        out: Outstanding,
        parking: Parking,
        catalogue: CatalogueView,
        links: Mapping[MemberId, LinkId],
        rng: Rng,
        limits: Limits,
        way: Way,
        draw_number: Callable[[], int],
        last_number: int,
    ) -> None:
        self.me = me
        self.last_number = last_number
        """How many dispatches were begun, over the whole life of the process."""
        self._out = out
        self._parking = parking
        self._catalogue = catalogue
        self._links = links
        self._rng = rng
        self._limits = limits
        self._way = way
        self._draw_number = draw_number

    def next_number(self) -> int:
        """A number for a dispatch, never the same twice and not to be guessed."""
        self.last_number += 1
        return dispatch_number(self.last_number, self._draw_number())

    # -- who can run a call -------------------------------------------------------------------------------------------

    def candidates(self, execution: Execution, call: Call) -> Sequence[Candidate]:
        """Who may still run `call`: offers it now, has not refused it, and fits what was said of it before."""
        candidates = self._catalogue.offers(call.function, call.resources, call.version)
        if execution.here and call.name in execution.here:
            candidates = [candidate for candidate in candidates if candidate.member == self.me]
        history = execution.history
        return history.eligible(call.name, candidates) if history.refusals or history.versions else candidates

    def unroutable(self, execution: Execution) -> list[Call]:
        """The calls of a request that nobody offers now, whether they are ready or not."""
        offers = self._catalogue.offers
        here = execution.here
        return [
            call
            for call in execution.request.calls
            if not offers(call.function, call.resources, call.version) and call.name not in here
        ]

    def not_found(self, execution: Execution, call: Call) -> Fault:
        """1001, for the first calls of a request with what there is instead."""
        execution.helped += 1
        return faults.not_found(call, why_not(self._catalogue, call, execution.helped))

    def offered_by(self, member: MemberId) -> Container[str]:
        """The functions that a member offers."""
        return self._catalogue.offered_by(member)

    def can_run(self, asked: tuple[str, tuple[str, ...], str | None]) -> bool:
        """Whether anybody offers that function in that version with those resources now."""
        return bool(self._catalogue.offers(*asked))

    def placeable(
        self, execution: Execution, names: Sequence[str], now: int
    ) -> tuple[list[tuple[Call, Sequence[Candidate]]], list[tuple[str, Fault]]]:
        """Ready calls that somebody can run, and by whom; those that fail, and with what. The others are parked."""
        found: list[tuple[Call, Sequence[Candidate]]] = []
        failing: list[tuple[str, Fault]] = []
        wait = execution.request.wait
        for name in names:
            call = execution.plan.calls[name]
            if candidates := self.candidates(execution, call):
                found.append((call, candidates))
            elif wait:
                execution.history.pardon(name)
                self._parking.until_offered(execution, name, now + wait)
            else:
                failing.append((name, execution.history.last_refusal(name) or self.not_found(execution, call)))
        return found, failing

    # -- handing out --------------------------------------------------------------------------------------------------

    def hand_out(
        self, execution: Execution, calls: Sequence[tuple[Call, Sequence[Candidate]]], now: int
    ) -> list[Intent]:
        """Draw a member for each call, and send those for one member together, as far as a message takes them."""
        full: list[Intent] = []
        intents: list[Intent] = []
        groups: _Groups = {}
        traced = execution.request.trace
        for call, candidates in calls:
            if traced:
                execution.history.queued.setdefault(call.name, now)
            equals = rank(candidates, self._out, resources=call.resources)
            chosen = self._chosen(execution, call, equals)
            way = self._way_to(execution, call.name, chosen.member)
            if way is None:
                self._parking.until_linked(execution, call.name, chosen.member, now + self._limits.link_wait)
                intents.append(WantLink(chosen.member))
            else:
                group = self._group(execution, call, way, groups=groups, full=full, together=len(calls) > 1)
                self._add(execution, call, chosen, group, reason(equals, candidates) if traced else "", now)
        return [*intents, *full, *[group.assign for group in groups.values()]]

    def link_missed(self, execution: Execution, name: str) -> None:
        """No link to the member that was chosen for that call came in time: it is avoided for a while.

        If it cannot be reached over others either, it never gets this call.
        """
        awaited = self._parking.link_missed(execution, name)
        for candidate in self.candidates(execution, execution.plan.calls[name]):
            if candidate.member != awaited or self._out.stands(candidate.member):
                continue
            self._out.refused(candidate.member)
            if self._way(candidate.member, execution.history.routes.get(name, ())) is None:
                fault = Fault(1001, f"no link to {candidate.shown} could be had", {"node": candidate.shown})
                execution.history.refused(name, candidate.member, fault)

    def _chosen(self, execution: Execution, call: Call, equals: Sequence[Candidate]) -> Candidate:
        """One of the equals; for a call that waits for a link the same one as before, unless others have theirs."""
        awaited = self._parking.awaited(execution, call.name)
        if awaited is not None:
            linked = [one for one in equals if self._out.stands(one.member)]
            equals = linked or [one for one in equals if one.member == awaited] or equals
        return draw(equals, self._out, self._rng)

    def _way_to(self, execution: Execution, name: str, member: MemberId) -> tuple[LinkId, bytes] | None:
        """The link that takes a call to a member, and who is to pass it on to, if it is not at the other end.

        None if a link has to be had first. If none could be had a short while ago, the member is reached over another.
        """
        link = LOCAL if member == self.me else self._links.get(member)
        if link is not None:
            return link, b""
        if self._out.linked(member):
            return None
        way = self._way(member, execution.history.routes.get(name, ()))
        return None if way is None else (way, member)

    def _group(
        self,
        execution: Execution,
        call: Call,
        way: tuple[LinkId, bytes],
        *,
        groups: _Groups,
        full: list[Intent],
        together: bool,
    ) -> _Group:
        """The dispatch that takes this call, `together` with others, a new one if it does not fit into the last."""
        group = groups.get(way)
        link, to = way
        size = 0
        if together and link != LOCAL:
            size = self._size(execution, call, {} if group is None else group.assign.given)
            if group is not None and group.size + size > self._limits.node_message:
                full.append(group.assign)
                group, size = None, self._size(execution, call, {})
        if group is None:
            number = self.next_number()
            group = groups[way] = _Group(Assign(link, number, [], {}, execution.deadline, [], to))
            execution.dispatches[number] = link
        group.size += size
        return group

    def _size(self, execution: Execution, call: Call, given: Mapping[str, bytes]) -> int:
        """How many bytes a call adds to a dispatch that has these inputs already, at most."""
        names = 3 * len(call.name) + len(call.function) + len(call.version or "") + len("".join(call.resources))
        size = len(call.args) + 4 * names + _AROUND_VALUE * (8 + len(call.resources))
        for need, value in execution.given(call.name).items():
            size += 4 * len(need) + _AROUND_VALUE
            if need not in given:
                size += len(value) + 4 * len(need) + _AROUND_VALUE
        return size

    def _add(self, execution: Execution, call: Call, chosen: Candidate, group: _Group, why: str, now: int) -> None:
        name, assign = call.name, group.assign
        if name in execution.parked:
            self._parking.release(execution, name)
        assign.calls.append(call)
        if call.needs:
            assign.given.update(execution.given(name))
        if chosen.idempotent:
            assign.idempotent.append(name)
        execution.history.handed_out(name, chosen)
        self._out.add(Attempt(execution, name, assign.number, assign.link, chosen, now, why))
