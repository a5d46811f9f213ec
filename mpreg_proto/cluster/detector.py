"""The failure detector: which members no longer answer (docs/explanation/membership.md).

It probes one neighbour a second over the link that stands, asks three co-observers about who is silent, and accuses;
what it accuses and what it wants sent goes back to `Cluster`. The end of a stream is suspicion at once, never death:
DEAD needs time, and less of it the more observers agree. It sees bytes only through `last_activity`, and dials only
through `Dialer`. A node whose own tick comes late has been stalled itself and suspects nobody for a second. One that is
always late does so all the same: a stall excuses a member `EXCUSES` times in a row. In a cluster of up to four all
neighbours are probed each second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from mpreg_proto.cluster.actions import AbandonLink, AbortLink, ClusterAction, SendMessage, SendPing
from mpreg_proto.cluster.dialer import Dialer
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.suspicion import SMALL_CLUSTER, Suspicions
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import IndirectAck, PingReq

PROBE_INTERVAL = SECOND
"""From one probe to the next; each neighbour's turn comes once in so many seconds as there are neighbours."""
PROBE_TIMEOUT = 500 * MILLISECOND
"""How long a probe waits, first for its own answer, then for anybody else's."""
STALL_THRESHOLD = 500 * MILLISECOND
"""A node whose own tick came later than this was stalled: what it missed meanwhile proves nothing."""
UNLINKED_GRACE = 5 * SECOND
"""So long a neighbour may have no link, before it is asked about as if it had not answered."""
INDIRECT_PROBES = 3
"""How many are asked whether they can reach who is silent (SWIM, section 3.1: k)."""
SILENT_LINK_TIMEOUT = 3 * SECOND
"""A link that brought nothing for so long, to a member that answers others, is given up (guarantees.md)."""
EXCUSES = 3
"""So often in a row what speaks against a member is put down to this node's own lateness; then it counts."""
MAX_HEALTH_MULTIPLIER = 8
"""The most that `Detector.health_multiplier` grows to (Lifeguard, section IV-A: S)."""


class Findings(msgspec.Struct):
    """What the detector comes to in one step: the members that it has declared something of, and what it wants done."""

    declared: list[Member] = []
    """Each with the standing that it has now; to be spread and followed up."""
    actions: list[ClusterAction] = []

    def add(self, other: Findings) -> None:
        """The findings of one more step."""
        self.declared += other.declared
        self.actions += other.actions


class _Probe:
    """A probe under way: `prompted` by another's accusation; `indirect` once others were asked."""

    __slots__ = ("indirect", "prompted", "started")

    def __init__(self, started: int, *, prompted: bool, indirect: bool) -> None:
        self.started = started
        self.prompted = prompted
        self.indirect = indirect


class Detector:
    """The failure detector of one node. It writes to `members` through `declare` alone.

    Timer keys: (TimerKind.PROBE, member); `tick` is `Cluster`'s to call.
    """

    def __init__(
        self,
        members: Members,
        rings: Rings,
        dialer: Dialer,
        links: Mapping[MemberId, LinkId],
        *,
        last_activity: Callable[[LinkId], int],
        timers: Timers,
        rng: Rng,
        closing: Callable[[MemberId], Iterable[LinkId]] = lambda member: (),
    ) -> None:
        """`last_activity`: when a link last moved a byte, either way. `closing`: links that finish what is on them."""
        self._members = members
        self._rings = rings
        self._dialer = dialer
        self._links = links
        self._last_activity = last_activity
        self._closing = closing
        self._timers = timers
        self._rng = rng
        self.health_multiplier = 1
        """1 to 8: the factor of this node's timeouts, as it may be slow itself (Lifeguard: local health multiplier)."""
        self._turns: list[MemberId] = []
        self._probes: dict[MemberId, _Probe] = {}
        self._suspicions = Suspicions(timers)
        self._unlinked: dict[MemberId, int] = {}
        self._queued_ping_reqs: dict[MemberId, dict[MemberId, None]] = {}
        """Whom to ask about whom, once a link to the first stands."""
        self._ping_req_senders: dict[MemberId, dict[LinkId, int]] = {}
        """Who asked whether a member answers me, and when."""
        self._displaced: dict[MemberId, int] = {}
        """At whose address another member answered, and when."""
        self._broken_since: dict[MemberId, int] = {}
        """Neighbours whose last link ended without Goodbye, and when."""
        self._deferred: dict[MemberId, None] = {}
        """Those of them that are looked at again, as this node was stalled when it heard of that."""
        self._half_open: dict[MemberId, int] = {}
        """Neighbours that answer others, while the link here has brought nothing since that time."""
        self._excused: dict[MemberId, tuple[int, int]] = {}
        """How often in a row this node's own lateness has excused a member, and when last."""
        self._next_tick: int | None = None
        self._stalled_until = 0
        self._stopped = False

    def begin(self, first: int) -> None:
        """Ticks come from now on, the first of them then."""
        self._next_tick = first

    def stop(self) -> None:
        """This process is leaving: it suspects nobody any more."""
        self._stopped = True
        for member in self._probes:
            self._timers.cancel((TimerKind.PROBE, member))
        self._suspicions.stop()

    # -- links ----------------------------------------------------------------------------------------------------

    def link_established(self, member: MemberId) -> list[ClusterAction]:
        """A link to a member stands: ask it what it was to be asked; a suspect hears of its accusation elsewhere."""
        for table in (self._unlinked, self._broken_since, self._deferred, self._half_open, self._excused):
            table.pop(member, None)
        link = self._links.get(member)
        about = self._queued_ping_reqs.pop(member, {})
        return (
            [] if link is None else [SendMessage(link, PingReq(target)) for target in about if target in self._probes]
        )

    def link_lost(self, member: MemberId, now: int) -> Findings:
        """The last link to a member ended without Goodbye: SUSPECT, if I watch it and was not stalled myself."""
        if member not in self._rings.neighbours:
            return Findings()
        self._unlinked.setdefault(member, now)
        self._broken_since[member] = now
        if self._excuse(member, now):
            self._deferred[member] = None
            return Findings()
        return self._suspect_lost(member, now)

    def _suspect_lost(self, member: MemberId, now: int) -> Findings:
        """A link that ended without Goodbye, and was not opened again, is told as suspicion."""
        self._deferred.pop(member, None)
        self._end_probe(member)
        current = self._members.get(member)
        suspected = current is not None and current.standing is Standing.SUSPECT
        found = self._declare(member, Standing.SUSPECT, now)
        # Who was suspected of silence before has less time from now on.
        return found if found.declared or current is None or not suspected else self._on_suspect(current, now)

    def link_closed(self, member: MemberId, now: int) -> None:
        """Its last link closed on purpose: no suspicion, as long as it or others can be reached soon."""
        if member in self._rings.neighbours:
            self._unlinked[member] = now
        self._end_probe(member)

    def dial_failed(self, address: Address, now: int) -> Findings:
        """A dial came to nothing: I agree with those who suspect whom I cannot reach either."""
        found = Findings()
        for member in self._dialer.dialled_for(address):
            since = self._suspicions.since(member)
            watched = member in self._rings.neighbours and member not in self._links
            unanswered = since is not None and watched and self._dialer.unanswered(member, since)
            if unanswered and not self._excuse(member, now):
                found.add(self._declare(member, Standing.SUSPECT, now))
        return found

    def displaced(self, member: MemberId, now: int) -> Findings:
        """Another member answered where this one should be: SUSPECT; RETIRED once it is DEAD. Evidence, no hearsay."""
        if member == self._members.me or self._stopped:
            return Findings()
        if self._members.standing(member) is Standing.DEAD:
            return self._declare(member, Standing.RETIRED, now)
        if not self._members.routable(member):
            return Findings()
        self._displaced[member] = now
        return self._declare(member, Standing.SUSPECT, now)

    # -- standings ------------------------------------------------------------------------------------------------

    def member_changed(self, member: Member, now: int) -> Findings:
        """A member rose or has more accusers, by whatever cause. What follows from it, to be spread as well."""
        if member.id == self._members.me or self._stopped:
            return Findings()
        if member.standing is Standing.SUSPECT:
            return self._on_suspect(member, now)
        silent = [] if member.standing is Standing.LEFT else self._silent_link(member.id)
        self._suspicions.forget(member.id)
        self._excused.pop(member.id, None)
        if member.standing is Standing.ALIVE:
            self._displaced.pop(member.id, None)
            return Findings()
        self._end_probe(member.id)
        for table in (self._unlinked, self._broken_since, self._deferred, self._half_open):
            table.pop(member.id, None)
        displaced = self._displaced.pop(member.id, None) is not None
        found = Findings(actions=silent)
        if displaced and member.standing is Standing.DEAD:
            found.add(self._declare(member.id, Standing.RETIRED, now))
        return found

    def _silent_link(self, member: MemberId) -> list[ClusterAction]:
        """The link to a suspect over which nothing came since: it would keep its address from being dialled."""
        since, link = self._suspicions.since(member), self._links.get(member)
        return [] if since is None or link is None or self._last_activity(link) > since else [AbortLink(link)]

    def refuted(self) -> None:
        """I was accused and had to refute: perhaps it is I who is slow."""
        self.health_multiplier = min(MAX_HEALTH_MULTIPLIER, self.health_multiplier + 1)

    def neighbours_changed(self, now: int) -> Findings:
        """My neighbours are others than they were: suspects among the new ones are now mine to observe."""
        found = Findings()
        for member in self._suspicions.unobserved():
            current = self._members.get(member)
            if current is not None and member in self._rings.neighbours:
                found.add(self._on_suspect(current, now))
        for member in [member for member in self._probes if member not in self._rings.neighbours]:
            self._end_probe(member)
        for table in (self._unlinked, self._broken_since, self._deferred, self._half_open):
            for member in [member for member in table if member not in self._rings.neighbours]:
                del table[member]
        return found

    def _on_suspect(self, member: Member, now: int) -> Findings:
        """Set the time of the verdict by who agrees; probe it, if others suspected it first."""
        if member.id not in self._rings.neighbours:
            self._suspicions.add_unobserved(member, now, health_multiplier=self.health_multiplier)
            return Findings()
        observers = self._rings.observers_of(member.id)
        ended = self._broken_since.get(member.id, self._displaced.get(member.id))
        first = self._suspicions.observe(member, observers, now, health_multiplier=self.health_multiplier, ended=ended)
        prompted = first and self._members.me not in member.accusers
        return Findings(actions=self._probe_suspect(member.id, now) if prompted else [])

    # -- probing --------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> Findings:
        """A second has passed: probe the next neighbour. Late, it throws away what waited for an answer meanwhile."""
        late = self._locally_stalled(now)
        self._next_tick = now + PROBE_INTERVAL
        if late:
            self._recover_from_stall(now)
        self._expire_ping_reqs(now)
        if self._stopped or not self._rings.neighbours:
            return Findings()
        found = self._recheck(now)
        for member in (
            list(self._rings.neighbours) if len(self._rings.neighbours) <= SMALL_CLUSTER else self._next_turn()
        ):
            if member not in self._probes:
                found.actions += self._probe_neighbour(member, now)
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

    def _recheck(self, now: int) -> Findings:
        """Accuse whose link ended while this node was stalled, and is gone still; probe over links that seem dead."""
        found = Findings()
        for member in list(self._deferred):
            if not self._excuse(member, now):
                found.add(self._suspect_lost(member, now))
        for member, since in list(self._half_open.items()):
            link = self._links.get(member)
            if link is None or self._last_activity(link) > since:
                del self._half_open[member]
            elif member not in self._probes:
                self._start_probe(member, _Probe(now, prompted=False, indirect=False), now)
                found.actions.append(SendPing(link))
        return found

    def _expire_ping_reqs(self, now: int) -> None:
        """What nobody waits for any more."""
        if not self._probes:
            self._queued_ping_reqs.clear()
        for member, askers in list(self._ping_req_senders.items()):
            for link in [link for link, at in askers.items() if at + PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER <= now]:
                del askers[link]
            if not askers:
                del self._ping_req_senders[member]

    def ack_received(self, member: MemberId, now: int) -> list[ClusterAction]:
        """A probe of a member has its answer. Whoever asked about it is told."""
        probe = self._probes.get(member)
        if probe is not None:
            self._probe_succeeded(member)
        return self._send_indirect_acks(member)

    def indirect_ack_received(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Another says that a member answers it; the link here, if nothing came over it for long, is of no use."""
        probe = self._probes.get(member)
        if probe is None or probe.prompted:
            return []
        self._probe_succeeded(member)
        link = self._links.get(member)
        if link is None or self._last_activity(link) >= probe.started:
            return []
        if now - self._last_activity(link) < SILENT_LINK_TIMEOUT or self._locally_stalled(now):
            self._half_open[member] = self._last_activity(link)
            return []
        self._half_open.pop(member, None)
        return [AbandonLink(link)]

    def ping_req_received(self, link: LinkId, member: MemberId, now: int) -> list[ClusterAction]:
        """Somebody cannot reach a member: can I?"""
        mine = self._links.get(member)
        if mine is None or mine == link or self._stopped:
            return []
        if self._last_activity(mine) + PROBE_TIMEOUT > now:
            return [SendMessage(link, IndirectAck(member))]
        self._ping_req_senders.setdefault(member, {})[link] = now
        return [SendPing(mine)]

    def probe_timed_out(self, member: MemberId, now: int) -> Findings:
        """A probe has waited long enough: any byte since then will do; else others are asked, and then it failed."""
        probe = self._probes.get(member)
        if probe is None:
            return Findings()
        link = self._links.get(member)
        if link is not None and self._last_activity(link) >= probe.started:
            self._probe_succeeded(member)
            return Findings(actions=self._send_indirect_acks(member))
        if self._excuse(member, now):
            self._end_probe(member)
            return Findings()
        if not probe.prompted and not probe.indirect:
            probe.indirect = True
            self._timers.set((TimerKind.PROBE, member), now + PROBE_TIMEOUT * self.health_multiplier)
            return Findings(actions=self._send_ping_reqs(member, now))
        self._end_probe(member)
        current = self._members.get(member)
        alone = current is not None and not current.accusers  # else it is not I who is slow (Lifeguard, section IV-A)
        found = self._declare(member, Standing.SUSPECT, now)
        if found.declared and alone:
            self.health_multiplier = min(MAX_HEALTH_MULTIPLIER, self.health_multiplier + 1)
        return found

    def _probe_neighbour(self, member: MemberId, now: int) -> list[ClusterAction]:
        link = self._links.get(member)
        if link is not None:
            self._unlinked.pop(member, None)
            if (
                0 <= now - self._last_activity(link) < PROBE_INTERVAL
            ):  # any byte is an answer, also one to a question not yet asked
                self._probe_succeeded(member)
                return []
            self._start_probe(member, _Probe(now, prompted=False, indirect=False), now)
            return [SendPing(link)]
        since = self._unlinked.setdefault(member, now)
        if now - since < UNLINKED_GRACE:
            return []
        self._start_probe(member, _Probe(now, prompted=False, indirect=True), now)
        return self._send_ping_reqs(member, now)

    def _probe_suspect(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Somebody accuses whom I watch: see for myself, at once, and by dialling if there is no link."""
        if member in self._probes or self._locally_stalled(now):
            return []
        self._start_probe(member, _Probe(now, prompted=True, indirect=False), now)
        link = self._links.get(member)
        return [*self._dialer.connect(member, now)] if link is None else [SendPing(link)]

    def _start_probe(self, member: MemberId, probe: _Probe, now: int) -> None:
        self._probes[member] = probe
        self._timers.set((TimerKind.PROBE, member), now + PROBE_TIMEOUT * self.health_multiplier)

    def _send_ping_reqs(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Three of its observers, those first to whom a link stands; to others one is opened."""
        others = [one for one in self._rings.observers_of(member) if one != self._members.me]
        self._shuffle(others)
        others.sort(key=lambda one: one not in self._links)
        out: list[ClusterAction] = []
        for other in others[:INDIRECT_PROBES]:
            link = self._links.get(other)
            if link is not None:
                out.append(SendMessage(link, PingReq(member)))
            else:
                self._queued_ping_reqs.setdefault(other, {})[member] = None
                out += self._dialer.connect(other, now)
        return out

    def _shuffle(self, members: list[MemberId]) -> None:
        for place in range(len(members) - 1, 0, -1):  # Fisher and Yates
            other = self._rng.below(place + 1)
            members[place], members[other] = members[other], members[place]

    def _send_indirect_acks(self, member: MemberId) -> list[ClusterAction]:
        return [SendMessage(link, IndirectAck(member)) for link in self._ping_req_senders.pop(member, {})]

    def _probe_succeeded(self, member: MemberId) -> None:
        self._end_probe(member)
        self._excused.pop(member, None)
        self.health_multiplier = max(1, self.health_multiplier - 1)

    def _end_probe(self, member: MemberId) -> None:
        if self._probes.pop(member, None) is not None:
            self._timers.cancel((TimerKind.PROBE, member))

    # -- verdicts -------------------------------------------------------------------------------------------------

    def suspicion_timed_out(self, member: MemberId, now: int) -> Findings:
        """A suspicion is old enough: DEAD, unless it is heard all the same, as then it will refute."""
        since = self._suspicions.since(member)
        if since is None or self._stopped or self._members.standing(member) is not Standing.SUSPECT:
            return Findings()
        if self._last_activity_of(member) > since or self._excuse(member, now):
            self._restart_suspicion(member, now)
            return Findings()
        standing = Standing.DEAD if self._displaced.pop(member, None) is None else Standing.RETIRED
        return self._declare(member, standing, now)

    def _restart_suspicion(self, member: MemberId, now: int) -> None:
        observers = len(self._rings.observers_of(member)) if member in self._rings.neighbours else 0
        self._suspicions.restart(member, now, health_multiplier=self.health_multiplier, observers=observers)

    def _recover_from_stall(self, now: int) -> None:
        """This node was stalled: what it waited for may have come and lie unread."""
        self._stalled_until = now + PROBE_INTERVAL
        for member in list(self._probes):
            if self._excuse(member, now):
                self._end_probe(member)
        for member in self._suspicions.all():
            if self._excuse(member, now):
                self._restart_suspicion(member, now)

    def _excuse(self, member: MemberId, now: int) -> bool:
        """Whether what speaks against a member proves nothing, as this node was stalled.

        All of one second counts once; and who was excused `EXCUSES` times in a row, and never heard, is no more.
        """
        if not self._locally_stalled(now):
            return False
        times, at = self._excused.get(member, (0, now))
        if self._last_activity_of(member) > at:
            times = 0
        if times == 0 or now >= at + PROBE_INTERVAL:
            times, at = times + 1, now
        self._excused[member] = (times, at)
        return times <= EXCUSES

    def _last_activity_of(self, member: MemberId) -> int:
        """When a member was last heard, over whatever link."""
        link = self._links.get(member)
        links = (*self._closing(member), *(() if link is None else (link,)))
        return max(map(self._last_activity, links), default=-1)

    def _locally_stalled(self, now: int) -> bool:
        """Whether this node's own tick is long overdue, or came late a short while ago."""
        return now < self._stalled_until or (self._next_tick is not None and now > self._next_tick + STALL_THRESHOLD)

    def _declare(self, member: MemberId, standing: Standing, now: int) -> Findings:
        if self._stopped or (standing is Standing.SUSPECT and not self._members.routable(member)):
            return Findings()
        current = self._members.declare(member, standing, now)
        return Findings() if current is None else Findings([current])
