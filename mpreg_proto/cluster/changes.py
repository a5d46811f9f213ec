"""What follows when members rise: who is told, who is dialled, judged, watched, and what is no longer or again there.

`Cluster` brings what was merged from news (`rose`) and what the detector returned (`found`); a finding may lead to
another, so both run until nothing is left to follow, and give back all that is wanted for it, in the order of causes.
Each member is `Usable` or `Gone` in turn, never twice the same. Nothing here knows messages or decides who is dead.
"""

from __future__ import annotations

from collections.abc import Iterable

from mpreg_proto.cluster.members import Member
from mpreg_proto.cluster.outputs import Gone, OffersChanged, Out, TakeNewId, Usable
from mpreg_proto.cluster.parts import Parts
from mpreg_proto.effects import Notify
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import CardsDiffer, MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers

TICK = SECOND
REFUTES = SECOND
"""How long a linked member that others call DEAD may take to say that it is not, before its calls are lost."""


class Changes:
    """See the module. Timer keys that it sets: ("cluster", "tick" | "repair" | "collect"), ("cluster", "gone", id)."""

    def __init__(self, parts: Parts, *, timers: Timers, rng: Rng, limits: Limits) -> None:
        self._parts = parts
        self._members = parts.members
        self._rings = parts.rings
        self._links = parts.links
        self._linked = parts.linked
        self._gossip = parts.gossip
        self._overlay = parts.overlay
        self._detector = parts.detector
        self._timers = timers
        self._rng = rng
        self._limits = limits
        self._up: dict[MemberId, None] = {}
        """Who is known to be routable, myself left out: each is `Gone` once."""
        self.going: dict[MemberId, None] = {}
        """Who is gone by the word of others and still has a link here: `Gone` when that closes, as its last results may
        be on the way there while the news of it came faster over another; who is DEAD also when it does not refute."""
        self._seen_changes = 0
        self._said_disowned = False
        self._collection: int | None = None

    def found(self, findings: Iterable[Member | Out], now: int) -> list[Out]:
        """What the detector found: whom it accuses, and what it wants done."""
        risen: list[Member] = []
        out: list[Out] = []
        for finding in findings:
            if isinstance(finding, Member):
                risen.append(finding)
            else:
                out.append(finding)
        return out + self.rose(risen, source=None, now=now) if risen else out

    def rose(self, risen: Iterable[Member], *, source: LinkId | None, now: int) -> list[Out]:
        """What follows from members that rose: news to others, dials, and what is no longer or again there."""
        waiting = list(risen)
        if not waiting:
            return self.tidy()
        self._gossip.claims(waiting, source=source)
        out: list[Out] = []
        concerned: dict[MemberId, None] = {}
        functions: dict[str, None] = {}
        while waiting:
            member = waiting.pop(0)
            concerned[member.id] = None
            if member.routable and member.id not in self._up:
                functions.update(dict.fromkeys(self._parts.index.offered_by(member.id)))
            out.append(Notify(MemberChanged(member.id, member.name, member.standing, member.incarnation)))
            if member.id == self._members.me:
                if source is not None:
                    self._detector.refuted()
                continue
            out += self._came_or_went(member, source, now)
            for finding in self._detector.heard(member, now):
                if isinstance(finding, Member):
                    waiting.append(finding)
                    self._gossip.claims([finding], source=None)
                else:
                    out.append(finding)
            self._overlay.learn(member, now)
        self._parts.changed()
        return [
            *out,
            *self._reneighbour(now),
            OffersChanged(tuple(functions), tuple(concerned)),
            *self.tidy(),
            *self._gossip.flush(now),
        ]

    def _came_or_went(self, member: Member, source: LinkId | None, now: int) -> list[Out]:
        """A member is in the view, or is no longer."""
        if member.routable and member.id not in self._up:
            link = self._links.get(member.id)
            self._up[member.id] = None
            self.gone(member.id)
            self._rings.enter(member.id)
            self.begin_ticking(now)
            self._begin_repair(now)
            return [] if link is None else [Usable(member.id, link)]
        if not member.routable and member.id in self._up:
            del self._up[member.id]
            self._rings.depart(member.id)
            self._gossip.gone(member.id)
            if source is None or not self._linked.of(member.id) or member.standing is Standing.RETIRED:
                return [Gone(member.id)]
            self.going[member.id] = None
            if member.standing is Standing.DEAD:
                # Who is linked can refute in no time, as they all do when a partition heals.
                self._timers.set(("cluster", "gone", member.id), now + REFUTES)
        return []

    def gone(self, member: MemberId) -> list[Out]:
        """What was put off, if it was."""
        if member not in self.going:
            return []
        del self.going[member]
        self._timers.cancel(("cluster", "gone", member))
        return [Gone(member)]

    def begin_ticking(self, now: int) -> None:
        """There is something to do now and then; and a tick that comes late is all that tells of standing still."""
        if ("cluster", "tick") not in self._timers and not self._overlay.stopped:
            # Whoever starts at the same moment shall not probe at the same moment for ever.
            first = now + int(TICK * (1 + self._rng.fraction()) / 2)
            self._timers.set(("cluster", "tick"), first)
            self._detector.begin(first)

    def _begin_repair(self, now: int) -> None:
        """Somebody is there to compare with from now on."""
        if ("cluster", "repair") not in self._timers and not self._overlay.stopped:
            repair = int(self._limits.gossip_interval * (1 + self._rng.fraction()) / 2)
            self._timers.set(("cluster", "repair"), now + repair)

    def _reneighbour(self, now: int) -> list[Out]:
        if self._rings.changes == self._seen_changes:
            return []
        self._seen_changes = self._rings.changes
        self._overlay.renew(now)
        return self.found(self._detector.renew(now), now)

    def tidy(self) -> list[Out]:
        """After members may have changed: forget who was evicted, set the time of the next collection."""
        for member in self._members.evicted:
            self._overlay.forget(member)
        self._members.evicted.clear()
        due = self._members.next_collection()
        if due != self._collection:
            self._collection = due
            if due is None:
                self._timers.cancel(("cluster", "collect"))
            else:
                self._timers.set(("cluster", "collect"), due)
        out: list[Out] = []
        for member in self._members.violations:
            held = self._members.get(member)
            out.append(Notify(CardsDiffer(member, "" if held is None else held.name)))
        self._members.violations.clear()
        if self._members.disowned and not self._said_disowned:
            self._said_disowned = True
            out.append(TakeNewId())
        return out

    def collect(self, now: int) -> list[Out]:
        """Time to retire the long dead, and to forget the long retired."""
        self._collection = None
        for retired in self._members.collect(now):
            self._overlay.forget(retired.id)
        self._parts.repair.buckets.touch()
        return self.tidy()
