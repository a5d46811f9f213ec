"""The failure detector: it finds members that no longer answer (docs/explanation/membership.md).

Each second it probes one neighbour over the open link. About a silent one it sends PingReqs to three other observers,
and then marks it SUSPECT. It returns the standings that it declares and its actions to `Cluster`. The end of a stream
is suspicion at once, never DEAD: DEAD needs time, and less of it the more observers agree. It sees bytes only through
`last_activity`, and dials only through `Dialer`. A node whose own tick comes late has been stalled itself and suspects
no member for a second. One that is always late still suspects: a stall excuses a member at most `EXCUSES` times in a
row. In a cluster of up to four all neighbours are probed each second.
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
"""The time from one probe to the next; each neighbour is probed once in as many seconds as there are neighbours."""
PROBE_TIMEOUT = 500 * MILLISECOND
"""The time that a probe waits: first for the direct answer, then for an indirect one."""
STALL_THRESHOLD = 500 * MILLISECOND
"""A node whose own tick is later than this was stalled: a missing answer in that time proves nothing."""
UNLINKED_GRACE = 5 * SECOND
"""The time that a neighbour may have no link before PingReqs are sent about it, as if it had not answered."""
INDIRECT_PROBES = 3
"""The number of observers that receive a PingReq about a silent member (SWIM, section 3.1: k)."""
SILENT_LINK_TIMEOUT = 3 * SECOND
"""A link that brought nothing for this long, to a member that answers others, is abandoned (guarantees.md)."""
EXCUSES = 3
"""The number of times in a row that a stall of this node excuses a member; after that the evidence counts."""
MAX_HEALTH_MULTIPLIER = 8
"""The maximum of `Detector.health_multiplier` (Lifeguard, section IV-A: S)."""


class Findings(msgspec.Struct):
    """The result of one step of the detector: the members whose standing it declared, and its actions."""

    declared: list[Member] = []
    """The members, each with its new standing; to be spread and followed up."""
    actions: list[ClusterAction] = []

    def add(self, other: Findings) -> None:
        """Add the findings of another step."""
        self.declared += other.declared
        self.actions += other.actions


class _Probe:
    """A probe in progress: `prompted` by another node's accusation; `indirect` once PingReqs were sent."""

    __slots__ = ("indirect", "prompted", "started")

    def __init__(self, started: int, *, prompted: bool, indirect: bool) -> None:
        self.started = started
        self.prompted = prompted
        self.indirect = indirect


class Detector:
    """The failure detector of one node. It writes to `members` only through `declare`.

    Timer keys: (TimerKind.PROBE, member); `Cluster` calls `tick`.
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
        """`last_activity` returns when a link last moved a byte, either way; `closing` returns closing links."""
        self._members = members
        self._rings = rings
        self._dialer = dialer
        self._links = links
        self._last_activity = last_activity
        self._closing = closing
        self._timers = timers
        self._rng = rng
        self.health_multiplier: int = 1
        """The factor of this node's timeouts, 1 to 8, as it may be slow itself (Lifeguard: local health multiplier)."""
        self._turns: list[MemberId] = []
        self._probes: dict[MemberId, _Probe] = {}
        self._suspicions = Suspicions(timers)
        self._unlinked: dict[MemberId, int] = {}
        self._queued_ping_reqs: dict[MemberId, dict[MemberId, None]] = {}
        """The PingReqs that wait for a link: observer -> members to ask it about."""
        self._ping_req_senders: dict[MemberId, dict[LinkId, int]] = {}
        """The links whose peers sent a PingReq about a member, and when."""
        self._displaced: dict[MemberId, int] = {}
        """The members at whose address another member answered, and when."""
        self._broken_since: dict[MemberId, int] = {}
        """The neighbours whose last link ended without Goodbye, and when."""
        self._deferred: dict[MemberId, None] = {}
        """Those of them to be checked again: this node was stalled when it learnt of the end."""
        self._half_open: dict[MemberId, int] = {}
        """The neighbours that answer others, while the link here has brought nothing since that time."""
        self._excused: dict[MemberId, tuple[int, int]] = {}
        """The number of times in a row that a stall of this node has excused a member, and the time of the last."""
        self._next_tick: int | None = None
        self._stalled_until = 0
        self._stopped = False

    def begin(self, first: int) -> None:
        """Expect ticks from now on, the first one at `first`."""
        self._next_tick = first

    def stop(self) -> None:
        """Stop: this process is leaving and suspects no member any more."""
        self._stopped = True
        for member in self._probes:
            self._timers.cancel((TimerKind.PROBE, member))
        self._suspicions.stop()

    # -- links ----------------------------------------------------------------------------------------------------

    def link_established(self, member: MemberId) -> list[ClusterAction]:
        """Handle a new link to a member: send the PingReqs that wait for it. `Cluster` sends a suspect its claim."""
        for table in (self._unlinked, self._broken_since, self._deferred, self._half_open, self._excused):
            table.pop(member, None)
        link = self._links.get(member)
        about = self._queued_ping_reqs.pop(member, {})
        return (
            [] if link is None else [SendMessage(link, PingReq(target)) for target in about if target in self._probes]
        )

    def link_lost(self, member: MemberId, now: int) -> Findings:
        """Handle the end of a last link without Goodbye: a neighbour is SUSPECT, unless this node was stalled."""
        if member not in self._rings.neighbours:
            return Findings()
        self._unlinked.setdefault(member, now)
        self._broken_since[member] = now
        if self._excuse(member, now):
            self._deferred[member] = None
            return Findings()
        return self._suspect_lost(member, now)

    def _suspect_lost(self, member: MemberId, now: int) -> Findings:
        """Declare a member SUSPECT whose link ended without Goodbye and was not opened again."""
        self._deferred.pop(member, None)
        self._end_probe(member)
        current = self._members.get(member)
        suspected = current is not None and current.standing is Standing.SUSPECT
        found = self._declare(member, Standing.SUSPECT, now)
        # A member that was already suspected of silence has less time from now on.
        return found if found.declared or current is None or not suspected else self._on_suspect(current, now)

    def link_closed(self, member: MemberId, now: int) -> None:
        """Handle the clean end of a member's last link: no suspicion while it or its observers can be reached soon."""
        if member in self._rings.neighbours:
            self._unlinked[member] = now
        self._end_probe(member)

    def dial_failed(self, address: Address, now: int) -> Findings:
        """Agree with the accusers of the members that a failed dial was for, if these cannot be reached here either."""
        found = Findings()
        for member in self._dialer.dialled_for(address):
            since = self._suspicions.since(member)
            watched = member in self._rings.neighbours and member not in self._links
            unanswered = since is not None and watched and self._dialer.unanswered(member, since)
            if unanswered and not self._excuse(member, now):
                found.add(self._declare(member, Standing.SUSPECT, now))
        return found

    def displaced(self, member: MemberId, now: int) -> Findings:
        """Handle another member's answer at this one's address: SUSPECT, and RETIRED once it is DEAD.

        This is direct evidence, not a claim of others.
        """
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
        """Handle a member that rose or has more accusers, for any reason. Returns what follows, to be spread too."""
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
        """Abort the link to a suspect that brought nothing since; an open link would prevent dials to its address."""
        since, link = self._suspicions.since(member), self._links.get(member)
        return [] if since is None or link is None or self._last_activity(link) > since else [AbortLink(link)]

    def refuted(self) -> None:
        """Raise the health multiplier: this node was accused and had to refute, so it may be slow itself."""
        self.health_multiplier = min(MAX_HEALTH_MULTIPLIER, self.health_multiplier + 1)

    def neighbours_changed(self, now: int) -> Findings:
        """Handle changed neighbours: start to observe the suspects among the new ones."""
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
        """Set the timeout of a suspicion from its accusers; probe the member, if others suspected it first."""
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
        """Probe the next neighbour, once a second. A late tick ends running probes and restarts suspicions."""
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
        """Return the next neighbour of a round, in which each has one turn, in shuffled order."""
        while True:
            if not self._turns:
                self._turns = list(self._rings.neighbours)
                self._shuffle(self._turns)
            member = self._turns.pop()
            if member in self._rings.neighbours:
                return (member,)

    def _recheck(self, now: int) -> Findings:
        """Suspect members whose links ended during a stall and are still missing; probe possibly half-open links."""
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
        """Drop PingReqs whose senders no longer wait."""
        if not self._probes:
            self._queued_ping_reqs.clear()
        for member, askers in list(self._ping_req_senders.items()):
            for link in [link for link, at in askers.items() if at + PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER <= now]:
                del askers[link]
            if not askers:
                del self._ping_req_senders[member]

    def probe(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Probe a member out of turn, as its link brings nothing although an answer is expected on it.

        A member that is no neighbour has other observers, who judge it; here only the link may turn out half-open.
        """
        if self._stopped or member in self._probes:
            return []
        if member not in self._rings.neighbours and member not in self._links:
            return []
        return self._probe_neighbour(member, now)

    def ack_received(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Handle the answer to a probe: it succeeds, and the senders of PingReqs for it receive IndirectAcks."""
        probe = self._probes.get(member)
        if probe is not None:
            self._probe_succeeded(member)
        return self._send_indirect_acks(member)

    def indirect_ack_received(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Handle an IndirectAck: the member is alive. A link to it that has long been silent is abandoned."""
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
        """Handle a PingReq: check whether this node reaches the member."""
        mine = self._links.get(member)
        if mine is None or mine == link or self._stopped:
            return []
        if self._last_activity(mine) + PROBE_TIMEOUT > now:
            return [SendMessage(link, IndirectAck(member))]
        self._ping_req_senders.setdefault(member, {})[link] = now
        return [SendPing(mine)]

    def probe_timed_out(self, member: MemberId, now: int) -> Findings:
        """Handle the timeout of a probe: any byte since its start is an answer; else send PingReqs, then fail."""
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
        if member not in self._rings.neighbours:
            return Findings()
        current = self._members.get(member)
        alone = current is not None and not current.accusers  # else this node is not slow (Lifeguard, section IV-A)
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
            ):  # any byte is an answer, also one before the question
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
        """Probe a neighbour that another node accuses, at once, and dial it if there is no link."""
        if member in self._probes or self._locally_stalled(now):
            return []
        self._start_probe(member, _Probe(now, prompted=True, indirect=False), now)
        link = self._links.get(member)
        return [*self._dialer.connect(member, now)] if link is None else [SendPing(link)]

    def _start_probe(self, member: MemberId, probe: _Probe, now: int) -> None:
        self._probes[member] = probe
        self._timers.set((TimerKind.PROBE, member), now + PROBE_TIMEOUT * self.health_multiplier)

    def _send_ping_reqs(self, member: MemberId, now: int) -> list[ClusterAction]:
        """Send PingReqs to three of a member's observers, linked ones first; open links to the others."""
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

    # -- timeouts -------------------------------------------------------------------------------------------------

    def suspicion_timed_out(self, member: MemberId, now: int) -> Findings:
        """Handle the timeout of a suspicion: DEAD, unless bytes came from the member, as then it will refute."""
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
        """Recover from a stall of this node: the answers it waited for may have arrived and not been read yet."""
        self._stalled_until = now + PROBE_INTERVAL
        for member in list(self._probes):
            if self._excuse(member, now):
                self._end_probe(member)
        for member in self._suspicions.all():
            if self._excuse(member, now):
                self._restart_suspicion(member, now)

    def _excuse(self, member: MemberId, now: int) -> bool:
        """Return whether the evidence against a member proves nothing, as this node was stalled.

        All excuses within one second count as one. After `EXCUSES` in a row without a byte from the member there is no
        more.
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
        """Return when a member last showed activity, over any link."""
        link = self._links.get(member)
        links = (*self._closing(member), *(() if link is None else (link,)))
        return max(map(self._last_activity, links), default=-1)

    def _locally_stalled(self, now: int) -> bool:
        """Return whether this node's own tick is long overdue, or came late a short time ago."""
        return now < self._stalled_until or (self._next_tick is not None and now > self._next_tick + STALL_THRESHOLD)

    def _declare(self, member: MemberId, standing: Standing, now: int) -> Findings:
        if self._stopped or (standing is Standing.SUSPECT and not self._members.routable(member)):
            return Findings()
        current = self._members.declare(member, standing, now)
        return Findings() if current is None else Findings([current])
