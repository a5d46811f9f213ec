"""What follows when members rise: who is told, who is dialled, judged, watched, and what is no longer or again there.

`Cluster` brings what was merged from news (`members_changed`) and what the detector returned (`follow_up`); a finding
may lead to another, so both run until nothing is left to follow, and give back all that is wanted for it, in the order
of causes. Each member is `LinkSelected` or `MemberLost` in turn, never twice the same. Nothing here knows messages or
decides who is dead.
"""

from __future__ import annotations

from collections.abc import Iterable

from mpreg_proto.cluster.actions import IdRetired, LinkSelected, MemberLost, OffersChanged, Output
from mpreg_proto.cluster.members import Member
from mpreg_proto.cluster.parts import Parts
from mpreg_proto.effects import Notify
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import CardsDiffer, MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers

TICK = SECOND
REFUTE_TIMEOUT = SECOND
"""How long a linked member that others call DEAD may take to say that it is not, before its calls are lost."""


class Changes:
    """See the module. Timers that it sets: TICK, ANTI_ENTROPY, COLLECT, and MEMBER_LOST with an id."""

    def __init__(self, parts: Parts, *, timers: Timers, rng: Rng, limits: Limits) -> None:
        self._parts = parts
        self._members = parts.members
        self._rings = parts.rings
        self._links = parts.links
        self._peer_links = parts.peer_links
        self._gossip = parts.gossip
        self._dialer = parts.dialer
        self._detector = parts.detector
        self._timers = timers
        self._rng = rng
        self._limits = limits
        self._routable: dict[MemberId, None] = {}
        """Who is known to be routable, myself left out: each is `MemberLost` once."""
        self.loss_deferred: dict[MemberId, None] = {}
        """Who is gone by the word of others and still has a link here: `MemberLost` when that closes, as its last
        results may be on the way there while the news of it came faster over another; who is DEAD also when it does not
        refute."""
        self._seen_changes = 0
        self._id_retired_sent = False
        self._collection: int | None = None

    def follow_up(self, findings: Iterable[Member | Output], now: int) -> list[Output]:
        """What the detector found: whom it accuses, and what it wants done."""
        raised: list[Member] = []
        out: list[Output] = []
        for finding in findings:
            if isinstance(finding, Member):
                raised.append(finding)
            else:
                out.append(finding)
        return out + self.members_changed(raised, source=None, now=now) if raised else out

    def members_changed(self, raised: Iterable[Member], *, source: LinkId | None, now: int) -> list[Output]:
        """What follows from members that rose: news to others, dials, and what is no longer or again there."""
        waiting = list(raised)
        if not waiting:
            return self.housekeeping()
        self._gossip.members_changed(waiting, source=source)
        out: list[Output] = []
        concerned: dict[MemberId, None] = {}
        functions: dict[str, None] = {}
        while waiting:
            member = waiting.pop(0)
            concerned[member.id] = None
            if member.routable and member.id not in self._routable:
                functions.update(dict.fromkeys(self._parts.index.offered_by(member.id)))
            out.append(Notify(MemberChanged(member.id, member.name, member.standing, member.incarnation)))
            if member.id == self._members.me:
                if source is not None:
                    self._detector.refuted()
                continue
            out += self._update_view(member, source, now)
            for finding in self._detector.member_changed(member, now):
                if isinstance(finding, Member):
                    waiting.append(finding)
                    self._gossip.members_changed([finding], source=None)
                else:
                    out.append(finding)
            self._dialer.member_changed(member, now)
        self._parts.changed()
        return [
            *out,
            *self._update_neighbours(now),
            OffersChanged(tuple(functions), tuple(concerned)),
            *self.housekeeping(),
            *self._gossip.flush(now),
        ]

    def _update_view(self, member: Member, source: LinkId | None, now: int) -> list[Output]:
        """A member is in the view, or is no longer."""
        if member.routable and member.id not in self._routable:
            link = self._links.get(member.id)
            self._routable[member.id] = None
            self.report_lost(member.id)
            self._rings.enter(member.id)
            self.begin_ticking(now)
            self._begin_repair(now)
            return [] if link is None else [LinkSelected(member.id, link)]
        if not member.routable and member.id in self._routable:
            del self._routable[member.id]
            self._rings.depart(member.id)
            self._gossip.forget(member.id)
            if source is None or not self._peer_links.to_member(member.id) or member.standing is Standing.RETIRED:
                return [MemberLost(member.id)]
            self.loss_deferred[member.id] = None
            if member.standing is Standing.DEAD:
                # Who is linked can refute in no time, as they all do when a partition heals.
                self._timers.set((TimerKind.MEMBER_LOST, member.id), now + REFUTE_TIMEOUT)
        return []

    def report_lost(self, member: MemberId) -> list[Output]:
        """What was put off, if it was."""
        if member not in self.loss_deferred:
            return []
        del self.loss_deferred[member]
        self._timers.cancel((TimerKind.MEMBER_LOST, member))
        return [MemberLost(member)]

    def begin_ticking(self, now: int) -> None:
        """There is something to do now and then; and a tick that comes late is all that tells of standing still."""
        if (TimerKind.TICK,) not in self._timers and not self._dialer.stopped:
            # Whoever starts at the same moment shall not probe at the same moment for ever.
            first = now + int(TICK * (1 + self._rng.fraction()) / 2)
            self._timers.set((TimerKind.TICK,), first)
            self._detector.begin(first)

    def _begin_repair(self, now: int) -> None:
        """Somebody is there to compare with from now on."""
        if (TimerKind.ANTI_ENTROPY,) not in self._timers and not self._dialer.stopped:
            repair = int(self._limits.gossip_interval * (1 + self._rng.fraction()) / 2)
            self._timers.set((TimerKind.ANTI_ENTROPY,), now + repair)

    def _update_neighbours(self, now: int) -> list[Output]:
        if self._rings.changes == self._seen_changes:
            return []
        self._seen_changes = self._rings.changes
        self._dialer.neighbours_changed(now)
        return self.follow_up(self._detector.neighbours_changed(now), now)

    def housekeeping(self) -> list[Output]:
        """After members may have changed: forget who was evicted, set the time of the next collection."""
        for member in self._members.evicted:
            self._dialer.forget(member)
        self._members.evicted.clear()
        due = self._members.next_collection()
        if due != self._collection:
            self._collection = due
            if due is None:
                self._timers.cancel((TimerKind.COLLECT,))
            else:
                self._timers.set((TimerKind.COLLECT,), due)
        out: list[Output] = []
        for member in self._members.card_conflicts:
            current = self._members.get(member)
            out.append(Notify(CardsDiffer(member, "" if current is None else current.name)))
        self._members.card_conflicts.clear()
        if self._members.id_retired and not self._id_retired_sent:
            self._id_retired_sent = True
            out.append(IdRetired())
        return out

    def collect(self, now: int) -> list[Output]:
        """Time to retire the long dead, and to forget the long retired."""
        self._collection = None
        for retired in self._members.collect(now):
            self._dialer.forget(retired.id)
        self._parts.anti_entropy.buckets.invalidate()
        return self.housekeeping()
