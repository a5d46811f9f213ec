"""Who no longer answers (docs/explanation/membership.md).

It probes one neighbour a second over the link that stands, asks three co-observers about who is silent, and accuses;
what it accuses and what it wants sent goes back to `Cluster`. The end of a stream is suspicion at once, never death:
DEAD needs time, and less of it the more observers agree. It sees bytes only through `heard`, and dials only through
`Overlay`. A node whose own tick comes late has been held up itself and judges nobody for a second. One that is always
late judges all the same: that excuses a member `EXCUSES` times in a row. In a cluster of up to four all neighbours are
probed each second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.outputs import Abandon, Drop, Out, Probe, Tell
from mpreg_proto.cluster.overlay import Overlay
from mpreg_proto.cluster.rings import Rings
from mpreg_proto.cluster.suspicion import SMALL, Suspicions
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Check, Vouch

EVERY = SECOND
"""From one probe to the next; each neighbour's turn comes once in so many seconds as there are neighbours."""
ANSWER = 500 * MILLISECOND
"""How long a probe waits, first for its own answer, then for anybody else's."""
LATE = 500 * MILLISECOND
"""A node whose own tick came later than this was held up: what it missed meanwhile proves nothing."""
UNLINKED = 5 * SECOND
"""So long a neighbour may have no link, before it is asked about as if it had not answered."""
ASKED = 3
"""How many are asked whether they can reach who is silent (SWIM, section 3.1: k)."""
SILENT = 3 * SECOND
"""A link that brought nothing for so long, to a member that answers others, is given up (guarantees.md)."""
EXCUSES = 3
"""So often in a row what speaks against a member is put down to this node's own lateness; then it counts."""
HEALTH = 8
"""The most that `Detector.health` grows to (Lifeguard, section IV-A: S)."""


class _Trial:
    """A probe under way: `prompted` by another's accusation; `indirect` once others were asked."""

    __slots__ = ("indirect", "prompted", "started")

    def __init__(self, started: int, *, prompted: bool, indirect: bool) -> None:
        self.started = started
        self.prompted = prompted
        self.indirect = indirect


class Detector:
    """This node's doubts. It writes to `members` by accusing alone.

    Timer keys: ("cluster", "answer", member); `tick` is `Cluster`'s to call.
    """

    def __init__(
        self,
        members: Members,
        rings: Rings,
        overlay: Overlay,
        links: Mapping[MemberId, LinkId],
        *,
        heard: Callable[[LinkId], int],
        timers: Timers,
        rng: Rng,
        closing: Callable[[MemberId], Iterable[LinkId]] = lambda member: (),
    ) -> None:
        """`heard`: when a link last brought any byte, in nanoseconds. `closing`: links that finish what is on them."""
        self._members = members
        self._rings = rings
        self._overlay = overlay
        self._links = links
        self._heard = heard
        self._closing = closing
        self._timers = timers
        self._rng = rng
        self.health = 1
        """1 to 8: by what this node multiplies its own patience, as it may be itself who is slow."""
        self._turns: list[MemberId] = []
        self._trials: dict[MemberId, _Trial] = {}
        self._suspicions = Suspicions(timers)
        self._unlinked: dict[MemberId, int] = {}
        self._errands: dict[MemberId, dict[MemberId, None]] = {}
        """Whom to ask about whom, once a link to the first stands."""
        self._asking: dict[MemberId, dict[LinkId, int]] = {}
        """Who asked whether a member answers me, and when."""
        self._displaced: dict[MemberId, int] = {}
        """At whose address another member answered, and when."""
        self._ended: dict[MemberId, int] = {}
        """Neighbours whose last link ended without Goodbye, and when."""
        self._put_off: dict[MemberId, None] = {}
        """Those of them that are looked at again, as this node was held up when it heard of that."""
        self._half_open: dict[MemberId, int] = {}
        """Neighbours that answer others, while the link here has brought nothing since that time."""
        self._excused: dict[MemberId, tuple[int, int]] = {}
        """How often in a row this node's own lateness has excused a member, and when last."""
        self._due: int | None = None
        self._held_up_until = 0
        self._stopped = False

    def begin(self, first: int) -> None:
        """Ticks come from now on, the first of them then."""
        self._due = first

    def stop(self) -> None:
        """This process is leaving: it judges nobody any more."""
        self._stopped = True
        for member in self._trials:
            self._timers.cancel(("cluster", "answer", member))
        self._suspicions.stop()

    # -- links ----------------------------------------------------------------------------------------------------

    def linked(self, member: MemberId) -> list[Out]:
        """A link to a member stands: ask it what it was to be asked; a suspect hears of its accusation elsewhere."""
        for table in (self._unlinked, self._ended, self._put_off, self._half_open, self._excused):
            table.pop(member, None)
        link = self._links.get(member)
        about = self._errands.pop(member, {})
        return [] if link is None else [Tell(link, Check(target)) for target in about if target in self._trials]

    def lost(self, member: MemberId, now: int) -> list[Member | Out]:
        """The last link to a member ended without Goodbye: SUSPECT, if I watch it and was not held up myself."""
        if member not in self._rings.neighbours:
            return []
        self._unlinked.setdefault(member, now)
        self._ended[member] = now
        if self._excuse(member, now):
            self._put_off[member] = None
            return []
        return self._accuse_lost(member, now)

    def _accuse_lost(self, member: MemberId, now: int) -> list[Member | Out]:
        """A link that ended without Goodbye, and was not opened again, is told as suspicion."""
        self._put_off.pop(member, None)
        self._forget_trial(member)
        held = self._members.get(member)
        suspected = held is not None and held.standing is Standing.SUSPECT
        found = self._accuse(member, Standing.SUSPECT, now)
        # Who was suspected of silence before has less time from now on.
        return found if found or held is None or not suspected else self._doubt(held, now)

    def parted(self, member: MemberId, now: int) -> None:
        """Its last link closed on purpose: no suspicion, as long as it or others can be reached soon."""
        if member in self._rings.neighbours:
            self._unlinked[member] = now
        self._forget_trial(member)

    def failed(self, address: Address, now: int) -> list[Member | Out]:
        """A dial came to nothing: I agree with those who suspect whom I cannot reach either."""
        found: list[Member | Out] = []
        for member in self._overlay.awaited(address):
            since = self._suspicions.since(member)
            watched = member in self._rings.neighbours and member not in self._links
            if since is not None and watched and self._overlay.unanswered(member, since):
                found += [] if self._excuse(member, now) else self._accuse(member, Standing.SUSPECT, now)
        return found

    def displaced(self, member: MemberId, now: int) -> list[Member | Out]:
        """Another member answered where this one should be: SUSPECT; RETIRED once it is DEAD. Evidence, no hearsay."""
        if member == self._members.me or self._stopped:
            return []
        if self._members.standing(member) is Standing.DEAD:
            return self._accuse(member, Standing.RETIRED, now)
        if not self._members.routable(member):
            return []
        self._displaced[member] = now
        return self._accuse(member, Standing.SUSPECT, now)

    # -- news -----------------------------------------------------------------------------------------------------

    def heard(self, member: Member, now: int) -> list[Member | Out]:
        """A member rose or has more accusers, by whatever cause. What follows from it, to be spread as well."""
        if member.id == self._members.me or self._stopped:
            return []
        if member.standing is Standing.SUSPECT:
            return self._doubt(member, now)
        silent = [] if member.standing is Standing.LEFT else self._silent_link(member.id)
        self._suspicions.forget(member.id)
        self._excused.pop(member.id, None)
        if member.standing is Standing.ALIVE:
            self._displaced.pop(member.id, None)
            return []
        self._forget_trial(member.id)
        for table in (self._unlinked, self._ended, self._put_off, self._half_open):
            table.pop(member.id, None)
        displaced = self._displaced.pop(member.id, None) is not None
        if displaced and member.standing is Standing.DEAD:
            return [*silent, *self._accuse(member.id, Standing.RETIRED, now)]
        return [*silent]

    def _silent_link(self, member: MemberId) -> list[Out]:
        """The link to a suspect over which nothing came since: it would keep its address from being dialled."""
        since, link = self._suspicions.since(member), self._links.get(member)
        return [] if since is None or link is None or self._heard(link) > since else [Drop(link)]

    def refuted(self) -> None:
        """I was accused and had to refute: perhaps it is I who is slow."""
        self.health = min(HEALTH, self.health + 1)

    def renew(self, now: int) -> list[Member | Out]:
        """My neighbours are others than they were: suspects among the new ones are now mine to judge."""
        found: list[Member | Out] = []
        for member in self._suspicions.unobserved():
            held = self._members.get(member)
            if held is not None and member in self._rings.neighbours:
                found += self._doubt(held, now)
        for member in [member for member in self._trials if member not in self._rings.neighbours]:
            self._forget_trial(member)
        for table in (self._unlinked, self._ended, self._put_off, self._half_open):
            for member in [member for member in table if member not in self._rings.neighbours]:
                del table[member]
        return found

    def _doubt(self, member: Member, now: int) -> list[Member | Out]:
        """Set the time of the verdict by who agrees; look for myself, if others were first to doubt."""
        if member.id not in self._rings.neighbours:
            self._suspicions.hear(member, now, health=self.health)
            return []
        observers = self._rings.of(member.id)
        ended = self._ended.get(member.id, self._displaced.get(member.id))
        first = self._suspicions.observe(member, observers, now, health=self.health, ended=ended)
        return self._prompted(member.id, now) if first and self._members.me not in member.accusers else []

    # -- probing --------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> list[Member | Out]:
        """A second has passed: probe the next neighbour. Late, it throws away what waited for an answer meanwhile."""
        late = self._held_up(now)
        self._due = now + EVERY
        if late:
            self._begin_anew(now)
        self._forget_questions(now)
        if self._stopped or not self._rings.neighbours:
            return []
        found = self._look_again(now)
        for member in list(self._rings.neighbours) if len(self._rings.neighbours) <= SMALL else self._next_turn():
            found += [] if member in self._trials else self._probe(member, now)
        return found

    def _next_turn(self) -> tuple[MemberId]:
        """The next neighbour of a round, in which each has its turn once, in shuffled order."""
        while True:
            if not self._turns:
                self._turns = list(self._rings.neighbours)
                self._shuffle(self._turns)
            member = self._turns.pop()
            if member in self._rings.neighbours:
                return (member,)

    def _look_again(self, now: int) -> list[Member | Out]:
        """Accuse whose link ended while this node was held up, and is gone still; probe over links that seem dead."""
        found: list[Member | Out] = []
        for member in list(self._put_off):
            if not self._excuse(member, now):
                found += self._accuse_lost(member, now)
        for member, since in list(self._half_open.items()):
            link = self._links.get(member)
            if link is None or self._heard(link) > since:
                del self._half_open[member]
            elif member not in self._trials:
                self._try(member, _Trial(now, prompted=False, indirect=False), now)
                found.append(Probe(link))
        return found

    def _forget_questions(self, now: int) -> None:
        """What nobody waits for any more."""
        if not self._trials:
            self._errands.clear()
        for member, askers in list(self._asking.items()):
            for link in [link for link, at in askers.items() if at + ANSWER * HEALTH <= now]:
                del askers[link]
            if not askers:
                del self._asking[member]

    def answered(self, member: MemberId, now: int) -> list[Out]:
        """A probe of a member has its answer. Whoever asked about it is told."""
        trial = self._trials.get(member)
        if trial is not None:
            self._passed(member)
        return self._vouch(member)

    def vouched(self, member: MemberId, now: int) -> list[Out]:
        """Another says that a member answers it; the link here, if nothing came over it for long, is of no use."""
        trial = self._trials.get(member)
        if trial is None or trial.prompted:
            return []
        self._passed(member)
        link = self._links.get(member)
        if link is None or self._heard(link) >= trial.started:
            return []
        if now - self._heard(link) < SILENT or self._held_up(now):
            self._half_open[member] = self._heard(link)
            return []
        self._half_open.pop(member, None)
        return [Abandon(link)]

    def check(self, link: LinkId, member: MemberId, now: int) -> list[Out]:
        """Somebody cannot reach a member: can I?"""
        mine = self._links.get(member)
        if mine is None or mine == link or self._stopped:
            return []
        if self._heard(mine) + ANSWER > now:
            return [Tell(link, Vouch(member))]
        self._asking.setdefault(member, {})[link] = now
        return [Probe(mine)]

    def answer_due(self, member: MemberId, now: int) -> list[Member | Out]:
        """A probe has waited long enough: any byte since then will do; else others are asked, and then it failed."""
        trial = self._trials.get(member)
        if trial is None:
            return []
        link = self._links.get(member)
        if link is not None and self._heard(link) >= trial.started:
            self._passed(member)
            return [*self._vouch(member)]
        if self._excuse(member, now):
            self._forget_trial(member)
            return []
        if not trial.prompted and not trial.indirect:
            trial.indirect = True
            self._timers.set(("cluster", "answer", member), now + ANSWER * self.health)
            return [*self._ask_others(member, now)]
        self._forget_trial(member)
        held = self._members.get(member)
        alone = held is not None and not held.accusers  # else it is not I who is slow (Lifeguard, section IV-A)
        found = self._accuse(member, Standing.SUSPECT, now)
        if found and alone:
            self.health = min(HEALTH, self.health + 1)
        return found

    def _probe(self, member: MemberId, now: int) -> list[Member | Out]:
        link = self._links.get(member)
        if link is not None:
            self._unlinked.pop(member, None)
            if 0 <= now - self._heard(link) < EVERY:  # any byte is an answer, also one to a question not yet asked
                self._passed(member)
                return []
            self._try(member, _Trial(now, prompted=False, indirect=False), now)
            return [Probe(link)]
        since = self._unlinked.setdefault(member, now)
        if now - since < UNLINKED:
            return []
        self._try(member, _Trial(now, prompted=False, indirect=True), now)
        return [*self._ask_others(member, now)]

    def _prompted(self, member: MemberId, now: int) -> list[Member | Out]:
        """Somebody accuses whom I watch: see for myself, at once, and by dialling if there is no link."""
        if member in self._trials or self._held_up(now):
            return []
        self._try(member, _Trial(now, prompted=True, indirect=False), now)
        link = self._links.get(member)
        return [*self._overlay.want(member, now)] if link is None else [Probe(link)]

    def _try(self, member: MemberId, trial: _Trial, now: int) -> None:
        self._trials[member] = trial
        self._timers.set(("cluster", "answer", member), now + ANSWER * self.health)

    def _ask_others(self, member: MemberId, now: int) -> list[Out]:
        """Three of its observers, those first to whom a link stands; to others one is opened."""
        others = [one for one in self._rings.of(member) if one != self._members.me]
        self._shuffle(others)
        others.sort(key=lambda one: one not in self._links)
        out: list[Out] = []
        for other in others[:ASKED]:
            link = self._links.get(other)
            if link is not None:
                out.append(Tell(link, Check(member)))
            else:
                self._errands.setdefault(other, {})[member] = None
                out += self._overlay.want(other, now)
        return out

    def _shuffle(self, members: list[MemberId]) -> None:
        for place in range(len(members) - 1, 0, -1):  # Fisher and Yates
            other = self._rng.below(place + 1)
            members[place], members[other] = members[other], members[place]

    def _vouch(self, member: MemberId) -> list[Out]:
        return [Tell(link, Vouch(member)) for link in self._asking.pop(member, {})]

    def _passed(self, member: MemberId) -> None:
        self._forget_trial(member)
        self._excused.pop(member, None)
        self.health = max(1, self.health - 1)

    def _forget_trial(self, member: MemberId) -> None:
        if self._trials.pop(member, None) is not None:
            self._timers.cancel(("cluster", "answer", member))

    # -- judging --------------------------------------------------------------------------------------------------

    def verdict_due(self, member: MemberId, now: int) -> list[Member | Out]:
        """A suspicion is old enough: DEAD, unless it is heard all the same, as then it will refute."""
        since = self._suspicions.since(member)
        if since is None or self._stopped or self._members.standing(member) is not Standing.SUSPECT:
            return []
        if self._heard_of(member) > since or self._excuse(member, now):
            self._begin_again(member, now)
            return []
        standing = Standing.DEAD if self._displaced.pop(member, None) is None else Standing.RETIRED
        return self._accuse(member, standing, now)

    def _begin_again(self, member: MemberId, now: int) -> None:
        observers = len(self._rings.of(member)) if member in self._rings.neighbours else 0
        self._suspicions.again(member, now, health=self.health, observers=observers)

    def _begin_anew(self, now: int) -> None:
        """This node was held up: what it waited for may have come and lie unread."""
        self._held_up_until = now + EVERY
        for member in list(self._trials):
            if self._excuse(member, now):
                self._forget_trial(member)
        for member in self._suspicions.all():
            if self._excuse(member, now):
                self._begin_again(member, now)

    def _excuse(self, member: MemberId, now: int) -> bool:
        """Whether what speaks against a member proves nothing, as this node was held up.

        All of one second counts once; and who was excused `EXCUSES` times in a row, and never heard, is no more.
        """
        if not self._held_up(now):
            return False
        times, at = self._excused.get(member, (0, now))
        if self._heard_of(member) > at:
            times = 0
        if times == 0 or now >= at + EVERY:
            times, at = times + 1, now
        self._excused[member] = (times, at)
        return times <= EXCUSES

    def _heard_of(self, member: MemberId) -> int:
        """When a member was last heard, over whatever link."""
        link = self._links.get(member)
        links = (*self._closing(member), *(() if link is None else (link,)))
        return max(map(self._heard, links), default=-1)

    def _held_up(self, now: int) -> bool:
        """Whether this node's own tick is long overdue, or came late a short while ago."""
        return now < self._held_up_until or (self._due is not None and now > self._due + LATE)

    def _accuse(self, member: MemberId, standing: Standing, now: int) -> list[Member | Out]:
        if self._stopped or (standing is Standing.SUSPECT and not self._members.routable(member)):
            return []
        held = self._members.accuse(member, standing, now)
        return [] if held is None else [held]
