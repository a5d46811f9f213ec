"""Ready calls to members: who can run each, which of them shall, and one dispatch for all that go the same way.

The coordinator gives in calls that are ready; out come `Assign`s, or `WantLink` for a member to whom no link stands. A
call is placed by the offers of that moment, never earlier. What nobody can run waits, if its request says so, else it
goes back with the fault that it fails with; ending calls and requests is not for here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.intents import LOCAL, Assign, Intent, WantLink
from mpreg_proto.requests.loads import Attempt, Outstanding
from mpreg_proto.requests.parking import Parking
from mpreg_proto.requests.placement import Candidate, CatalogueView, draw, rank, reason
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call

_Groups = dict[LinkId | MemberId, Assign]
"""Dispatches by the link that they go over, or by the member that they reach over another."""


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
        way: Callable[[MemberId], LinkId | None],
        last_number: int,
    ) -> None:
        self.me = me
        self.last_number = last_number
        """The newest dispatch's; they are counted up from 1, over the whole life of the process."""
        self._out = out
        self._parking = parking
        self._catalogue = catalogue
        self._links = links
        self._rng = rng
        self._limits = limits
        self._way = way

    def next_number(self) -> int:
        """A number for a dispatch, never the same twice."""
        self.last_number += 1
        return self.last_number

    # -- who can run a call -------------------------------------------------------------------------------------------

    def candidates(self, execution: Execution, call: Call) -> Sequence[Candidate]:
        """Who may still run `call`: offers it now, has not refused it, and fits what was said of it before."""
        candidates = self._catalogue.offers(call.function, call.resources, call.version)
        if execution.request.here and call.name in execution.request.here:
            candidates = [candidate for candidate in candidates if candidate.member == self.me]
        history = execution.history
        return history.eligible(call.name, candidates) if history.refusals or history.versions else candidates

    def unroutable(self, execution: Execution) -> list[Call]:
        """The calls of a request that nobody offers now, whether they are ready or not."""
        offers = self._catalogue.offers
        here = execution.request.here
        return [
            call
            for call in execution.request.calls
            if not offers(call.function, call.resources, call.version) and call.name not in here
        ]

    def not_found(self, call: Call) -> Fault:
        """1001, with what there is instead."""
        return faults.not_found(call, self._catalogue.lacking(call.function, call.resources, call.version))

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
                failing.append((name, execution.history.last_refusal(name) or self.not_found(call)))
        return found, failing

    # -- handing out --------------------------------------------------------------------------------------------------

    def hand_out(
        self, execution: Execution, calls: Sequence[tuple[Call, Sequence[Candidate]]], now: int
    ) -> list[Intent]:
        """Draw a member for each call, and send those for one member together."""
        intents: list[Intent] = []
        groups: _Groups = {}
        traced = execution.request.trace
        for call, candidates in calls:
            if traced:
                execution.history.queued.setdefault(call.name, now)
            equals = rank(candidates, self._out, resources=call.resources)
            chosen = self._chosen(execution, call, equals)
            group = self._group_for(execution, chosen.member, groups)
            if group is None:
                self._parking.until_linked(execution, call.name, chosen.member, now + self._limits.link_wait)
                intents.append(WantLink(chosen.member))
            else:
                self._add(execution, call, chosen, group, reason(equals, candidates) if traced else "", now)
        return [*intents, *groups.values()]

    def link_missed(self, execution: Execution, name: str) -> None:
        """No link to the member that was chosen for that call came in time: it is avoided for a while.

        If it cannot be reached over others either, it never gets this call.
        """
        awaited = self._parking.link_missed(execution, name)
        for candidate in self.candidates(execution, execution.plan.calls[name]):
            if candidate.member != awaited or self._out.stands(candidate.member):
                continue
            self._out.refused(candidate.member)
            if self._way(candidate.member) is None:
                fault = Fault(1001, f"no link to {candidate.shown} could be had", {"node": candidate.shown})
                execution.history.refused(name, candidate.member, fault)

    def _chosen(self, execution: Execution, call: Call, equals: Sequence[Candidate]) -> Candidate:
        """One of the equals; for a call that waits for a link the same one as before, unless others have theirs."""
        awaited = self._parking.awaited(execution, call.name)
        if awaited is not None:
            linked = [one for one in equals if self._out.stands(one.member)]
            equals = linked or [one for one in equals if one.member == awaited] or equals
        return draw(equals, self._out, self._rng)

    def _group_for(self, execution: Execution, member: MemberId, groups: _Groups) -> Assign | None:
        """The dispatch that takes calls to `member`; None if a link has to be had first.

        If none could be had a short while ago, it is reached over another member.
        """
        link = LOCAL if member == self.me else self._links.get(member)
        if link is not None:
            return self._group(execution, link, groups)
        way = None if self._out.linked(member) else self._way(member)
        return None if way is None else self._group(execution, way, groups, member)

    def _group(self, execution: Execution, link: LinkId, groups: _Groups, to: bytes = b"") -> Assign:
        """The dispatch that takes this request's calls over `link` now, begun with the first of them."""
        group = groups.get(MemberId(to) if to else link)
        if group is None:
            group = Assign(link, self.next_number(), [], {}, execution.deadline, [], to)
            groups[MemberId(to) if to else link] = group
            execution.dispatches[group.number] = link
        return group

    def _add(self, execution: Execution, call: Call, chosen: Candidate, group: Assign, why: str, now: int) -> None:
        name = call.name
        if name in execution.parked:
            self._parking.release(execution, name)
        group.calls.append(call)
        if call.needs:
            group.given.update(execution.given(name))
        if chosen.idempotent:
            group.idempotent.append(name)
        execution.history.handed_out(name, chosen)
        self._out.add(Attempt(execution, name, group.number, group.link, chosen, now, why))
