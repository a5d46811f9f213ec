"""The dialer: which addresses to dial, and when (docs/explanation/membership.md).

It reads members, rings and links; its inputs are handshakes, failures and ends of links. Outputs are `Dial` effects,
one notice for an address that does not answer, and `DialBack` for members that can only be dialled from the other side.
Links are needed to neighbours, to members that a call waits for, and, with fewer than three links, to any member. Rows
are kept by address: those of members to be dialled, of the dead, and seeds. A row that is not needed has no timer. The
node behind an address may change: an address that led to this process itself is tried again like one that failed.
`Backoff` returns how long to wait. Pauses double with full jitter, so that many nodes do not come back at one moment
(Brooker 2015, "Exponential Backoff And Jitter"). Those of seeds and of the dead are shared by all living members, so
that a cluster of any size together tries them as often as one node does alone. The dialer ends no link and changes no
standing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import Address, LinkId, MemberId, is_dialable
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import PeerUnreachable, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, TimerKind, Timers

MIN_LINK_AGE = 5 * SECOND
"""A link that lasted less is not dialled again at once, else two nodes that cannot agree would dial without end."""
RARELY_AFTER = 8
"""An address that led to this process so often in a row is tried rarely as well; once is enough if this node is not
alone."""
YIELD_DELAY = SECOND
"""Of two members the one with the smaller id dials; the other waits this long for that link."""
STAGGER = 250_000_000
"""The delay between the addresses of one member (RFC 8305, section 5: the delay between attempts)."""
MIN_LINKS = 3
"""With fewer links than this, and others alive, a link to any member is useful."""
OWN_AFTER = 5
"""An address that led to this process so often in a row counts as its own; it is still tried at intervals."""
ONE_MEMBER_AFTER = 4
"""A seed that led to the same member so often in a row is another address of that member, not a name for several."""
LINK_KEPT_FOR = 30 * SECOND
"""The time for which a link that a call waited for is kept after that."""


class AddressRow:
    """One address: the members it is dialled for, the member it led to, and its failures since then."""

    __slots__ = (
        "due",
        "failures",
        "flaps",
        "interested",
        "last_member",
        "own_hits",
        "rare",
        "reached",
        "revisits",
        "seed",
        "silent",
        "silent_since",
        "tried",
        "visits",
    )

    def __init__(self) -> None:
        self.seed: bool = False
        self.due: int | None = None
        self.interested: dict[MemberId, None] = {}
        self.last_member: MemberId | None = None
        self.own_hits: int = 0
        """The number of times in a row that it led to this process."""
        self.reached: int = 0
        """The time of the last completed handshake there."""
        self.flaps: int = 0
        """The number of links in a row that lasted less than `MIN_LINK_AGE`."""
        self.failures: int = 0
        self.silent: bool = False
        self.silent_since: int = 0
        self.rare: bool = False
        """True if it is tried rarely now."""
        self.tried: int = -1
        """The time of its last failure."""
        self.visits: int = 0
        """The number of completed handshakes there."""
        self.revisits: int = 0
        """The number of them in a row that led to the same member as the one before."""


class Backoff:
    """Pauses in nanoseconds. It draws from `rng` and writes only to the row that it gets."""

    __slots__ = ("_limits", "_rings", "_rng")

    def __init__(self, rings: Rings, rng: Rng, limits: Limits) -> None:
        self._rings = rings
        self._rng = rng
        self._limits = limits

    def after_failure(self, row: AddressRow, now: int, *, dead: bool) -> int:
        """Return the pause until the next dial; `dead`: no living member is expected there."""
        own = row.own_hits >= RARELY_AFTER or (row.own_hits > 0 and len(self._rings) > 1)
        if not own and (not dead or now - row.silent_since < self._limits.rare_from):
            return self.pause(row.failures - 1, dead=dead)
        whole = self._limits.rare_dial * len(self._rings)
        if row.rare:
            return whole
        # The first time is random within the round; otherwise the whole cluster would try at one time and then pause.
        row.rare = True
        return int(whole * self._rng.fraction())

    def flap_delay(self, row: AddressRow, member: MemberId, now: int) -> int:
        """Return the delay before a lost link is dialled again: 0, unless it lasted too short a time."""
        if row.last_member != member or row.reached + MIN_LINK_AGE <= now:
            row.flaps = 0
            return 0
        row.flaps += 1
        return self.pause(row.flaps - 1, dead=False)

    def next_visit(self, row: AddressRow) -> int:
        """Return the pause before a seed is dialled again that may lead to other members, shared by all members."""
        whole = min(self._limits.dial_longest << min(row.visits, 32), self._limits.rare_dial) * len(self._rings)
        return whole // 2 + int(whole * self._rng.fraction()) // 2 + 1

    def pause(self, failures: int, *, dead: bool) -> int:
        """Return a pause doubled from `dial_first`, with full jitter; living members share those of seeds and the dead.

        The first of these shared pauses ends at a random time within the round, as all members detect the silence at
        one time. A node that is alone dials seeds and the dead soon at first, as it has nothing else to do.
        """
        longest = self._limits.dial_longest
        pause = min(longest, self._limits.dial_first << min(failures, 32))
        if dead and (pause == longest or len(self._rings) > 2):
            least = longest // 2 if failures else 0
            return (least + int((longest - least) * self._rng.fraction())) * len(self._rings) + 1
        return int(pause * self._rng.fraction()) + 1


class Rank(enum.IntEnum):
    """The order in which addresses get the slots for dials; there may be fewer slots than addresses."""

    FRESH = 0
    """Leads to a living member, and has not failed since it last answered."""
    UNSURE = 1
    """Has failed, or is a seed that may lead to any node. A seed that failed has this rank only while the node is
    alone."""
    DEAD = 2
    """No member known to be alive is expected there."""


class Dialer:
    """The links that this node should hold. `links` is read, never written: it shows which members are linked."""

    def __init__(
        self,
        members: Members,
        rings: Rings,
        links: Mapping[MemberId, LinkId],
        *,
        seeds: tuple[Address, ...],
        timers: Timers,
        rng: Rng,
        limits: Limits,
    ) -> None:
        self._members = members
        self._rings = rings
        self._links = links
        self._timers = timers
        self._rng = rng
        self._limits = limits
        self._backoff = Backoff(rings, rng, limits)
        self._rows: dict[Address, AddressRow] = {}
        self._addresses: dict[MemberId, tuple[str, ...]] = {}
        self._dialling: dict[Address, tuple[MemberId | None, Rank]] = {}
        """The addresses being dialled, the member that each is for, and the rank of its slot."""
        self._waiting: dict[Rank, dict[Address, None]] = {rank: {} for rank in Rank}
        """The addresses that are due and have no slot yet, the longest waiting first."""
        self._own_addresses: dict[Address, None] = {}
        """The addresses that this process advertises."""
        self._neighbours: dict[MemberId, None] = {}
        self._dial_back_sent: dict[MemberId, int] = {}
        """The members that last received a DialBack from this node, and when."""
        self._link_needed_until: dict[MemberId, int] = {}
        """The members that a call waits for, or that are dialled for lack of links, and until when that holds."""
        self.seeds: tuple[Address, ...] = tuple(dict.fromkeys(seeds))
        self.stopped: bool = False
        for seed in self.seeds:
            self._rows.setdefault(seed, AddressRow()).seed = True

    def start(self, now: int) -> list[Dial | Notify]:
        """Dial the seeds."""
        return [effect for seed in self.seeds for effect in self._due(seed, now)]

    def stop(self) -> None:
        """Stop: this process is leaving and dials no address any more."""
        self.stopped = True
        for waiting in self._waiting.values():
            waiting.clear()
        for address in self._rows:
            self._cancel_timer(address)
        for address in self._dialling:
            self._timers.cancel((TimerKind.DIAL_TIMEOUT, address))

    def is_seed(self, member: MemberId) -> bool:
        """Return whether a member is one of the seeds: it answered at a seed's address, or names one as its own."""
        return any(self._leads_to(seed, member) for seed in self.seeds)

    @property
    def seedless(self) -> bool:
        """True if there is no seed to compare with: no seeds, or all of them seem to be this process itself."""
        return all(seed in self._own_addresses or self._rows[seed].own_hits >= OWN_AFTER for seed in self.seeds)

    # -- inputs ---------------------------------------------------------------------------------------------------

    def forget(self, member: MemberId) -> None:
        """Forget a member: its addresses are not dialled for it any more."""
        for address in self._addresses.pop(member, ()):
            self._remove_interest(Address(address), member)

    def member_changed(self, member: Member, now: int) -> None:
        """Handle a member whose card or standing rose: its addresses are needed, or no longer."""
        if member.id == self._members.me:
            return
        if member.standing >= Standing.LEFT:
            self.forget(member.id)
            for seed in self.seeds:
                if seed in member.addresses:  # a new process at that address is joined again
                    self._dial_by(seed, now + self._limits.dial_longest)
            return
        if member.routable and not self._needs_link(member.id):
            self.forget(member.id)
            return
        addresses = tuple(one for one in dict.fromkeys(member.addresses) if is_dialable(one))
        known = self._addresses.get(member.id, ())
        self._addresses[member.id] = addresses
        for address in known:
            if address not in addresses:
                self._remove_interest(Address(address), member.id)
        if member.id in self._links:
            early = None
        elif member.routable:
            early = now if self._members.me < member.id or member.id in self._link_needed_until else now + YIELD_DELAY
        else:
            # The first dial is at a random time within the first round, so that the whole cluster together begins at
            # once.
            alone = self._backoff.pause(0, dead=True)
            whole = int(self._limits.dial_longest * len(self._rings) * self._rng.fraction())
            early = now + (alone if len(self._rings) <= 2 else whole)
            for seed in self.seeds:
                if self._rows[seed].last_member == member.id:
                    self._dial_by(seed, early)
        for place, address in enumerate(addresses):
            row = self._rows.setdefault(Address(address), AddressRow())
            row.interested[member.id] = None
            if early is not None and (address not in known or member.routable):
                self._dial_by(Address(address), early + place * STAGGER)

    def neighbours_changed(self, now: int) -> None:
        """Handle changed neighbours: dial the new ones, and forget the addresses of the former ones."""
        before, self._neighbours = self._neighbours, dict(self._rings.neighbours)
        for member in (*before, *self._neighbours):
            if member not in before or member not in self._neighbours:
                current = self._members.get(member)
                if current is not None:
                    self.member_changed(current, now)

    def dial_succeeded(
        self, dialled: Address, member: MemberId, now: int
    ) -> tuple[MemberId | None, list[Dial | Notify]]:
        """Handle a completed handshake at a dialled address.

        Returns first the member that was expected there instead of `member`, if any.
        """
        expected, _ = self._end_dial(dialled) or (None, Rank.FRESH)
        row = self._rows.get(dialled)
        if row is not None:
            row.visits, row.revisits = row.visits + 1, row.revisits + 1 if row.last_member == member else 0
            row.last_member, row.reached, row.failures, row.silent, row.rare = member, now, 0, False, False
            row.own_hits = 0
            self._cancel_timer(dialled)
            if row.seed:
                self._dial_by(dialled, now + self._backoff.next_visit(row))
        return expected if expected != member else None, self._start_waiting(now)

    def dial_answered(self, address: Address) -> None:
        """Stop the timer of a dial: its transport is open."""
        self._timers.cancel((TimerKind.DIAL_TIMEOUT, address))

    def _end_dial(self, address: Address) -> tuple[MemberId | None, Rank] | None:
        self._timers.cancel((TimerKind.DIAL_TIMEOUT, address))
        return self._dialling.pop(address, None)

    def dial_failed(self, address: Address, now: int) -> list[Dial | Notify] | None:
        """Handle a failed dial: try again later, and notify once that the address does not answer.

        Returns None if no dial to the address is in progress: it has failed, or ended, before.
        """
        if self._end_dial(address) is None:
            return None
        effects: list[Dial | Notify] = []
        row = self._rows.get(address)
        if row is not None and address not in self._own_addresses:
            row.last_member, row.own_hits = None, 0
            if not row.silent:
                row.silent = True
                effects.append(Notify(PeerUnreachable(address)))
            self._record_failure(address, row, now)
        return effects + self._start_waiting(now)

    def reached_self(self, address: Address, now: int) -> list[Dial | Notify]:
        """Record that an address led to this process; a balancer or a name may lead to another one the next time."""
        self._end_dial(address)
        row = self._rows.get(address)
        if row is not None and address not in self._own_addresses:
            row.last_member = self._members.me
            row.own_hits += 1
            self._record_failure(address, row, now)
        return self._start_waiting(now)

    def _record_failure(self, address: Address, row: AddressRow, now: int) -> None:
        if row.failures == 0:
            row.silent_since = now
        row.failures += 1
        row.tried = now
        self._retry_later(address, row, now)

    def set_own_addresses(self, *addresses: Address) -> None:
        """Set the addresses of this process. They replace the former ones."""
        before, self._own_addresses = self._own_addresses, dict.fromkeys(addresses)
        for address in addresses:
            self._unqueue(address)
            self._cancel_timer(address)
        for address in before:
            row = self._rows.get(address)
            if address not in self._own_addresses and row is not None and (row.interested or row.seed):
                self._dial_by(address, row.tried + self._limits.dial_longest)

    def link_established(self, member: MemberId) -> None:
        """Cancel the planned dials to a member that is linked now."""
        for address in self._addresses.get(member, ()):
            if not self._needed(Address(address)):
                self._cancel_timer(Address(address))
                self._unqueue(Address(address))

    def link_lost(self, member: MemberId, now: int, *, pause: int = 0) -> list[Dial | Notify]:
        """Handle the end of a member's last link: dial it, and the seeds that led to it, after `pause`."""
        effects: list[Dial | Notify] = []
        rows = [
            *map(Address, self._addresses.get(member, ())),
            *(seed for seed in self.seeds if self._leads_to(seed, member)),
        ]
        for place, address in enumerate(dict.fromkeys(rows)):
            wait = max(pause, self._backoff.flap_delay(self._rows[address], member, now)) + place * STAGGER
            if wait == 0:
                effects += self._due(address, now)
            else:
                self._dial_by(address, now + wait)
        return effects

    def connect(self, member: MemberId, now: int) -> list[Dial | Notify]:
        """Dial for a call that waits for a link, unless a dial is in progress or the last failure is too recent."""
        current = self._members.get(member)
        if current is None or not current.routable or self.stopped:
            return []
        self._link_needed_until[member] = now + LINK_KEPT_FOR
        if member in self._links:
            return []
        if member not in self._addresses:
            self.member_changed(current, now)
        addresses = [Address(address) for address in self._addresses.get(member, ())]
        if any(address in self._dialling for address in addresses):
            return []
        for address in addresses:
            row = self._rows[address]
            if row.failures == 0 or row.tried + self._limits.dial_first <= now:
                return self._due(address, now)
        return []

    def housekeeping(self, now: int) -> list[Dial | Notify]:
        """Forget the links that are not needed any more, and dial any members if there are too few links."""
        kept = self._limits.rare_dial
        self._dial_back_sent = {member: at for member, at in self._dial_back_sent.items() if at + kept > now}
        for member in [member for member, until in self._link_needed_until.items() if until <= now]:
            del self._link_needed_until[member]
            current = self._members.get(member)
            if current is not None and current.routable and not self._needs_link(member):
                self.forget(member)
        if self.stopped or not self._too_few_links:
            return []
        effects: list[Dial | Notify] = []
        missing = [member for member in self._rings.ids() if member not in self._links and member != self._rings.me]
        for _ in range(min(MIN_LINKS, len(missing))):
            effects += self.connect(missing.pop(self._rng.below(len(missing))), now)
        for seed in self.seeds:
            row = self._rows[seed]
            if row.failures == 0 or row.tried + self._limits.dial_longest <= now:
                effects += self._due(seed, now)
        return effects

    def is_surplus(self, member: MemberId) -> bool:
        """Return whether only calls need a link to a member."""
        return not self._needs_link(member) and len(self._links) > MIN_LINKS

    def needs_dial_back(self, member: MemberId, now: int) -> bool:
        """Return whether a needed member must dial this node, as it cannot be dialled; True once in `MIN_LINK_AGE`."""
        rows = [self._rows.get(Address(address)) for address in self._addresses.get(member, ())]
        if (
            member in self._links
            or not self._needs_link(member)
            or self._dial_back_sent.get(member, -MIN_LINK_AGE) + MIN_LINK_AGE > now
        ):
            return False
        if any(row is not None and (row.failures == 0 or row.last_member == member) for row in rows):
            return False
        self._dial_back_sent[member] = now
        return True

    def unanswered(self, member: MemberId, since: int) -> bool:
        """Return whether each of its addresses was dialled without success after `since`, and none is being dialled."""
        addresses = self._addresses.get(member, ())
        return bool(addresses) and all(
            address not in self._dialling
            and (row := self._rows.get(Address(address))) is not None
            and (row.tried >= since or row.last_member not in (None, member) or address in self._own_addresses)
            for address in addresses
        )

    def dialled_for(self, address: Address) -> list[MemberId]:
        """Return the members that an address is dialled for."""
        row = self._rows.get(address)
        return [] if row is None else list(row.interested)

    # -- time -----------------------------------------------------------------------------------------------------

    def wake(self, key: Key, now: int) -> list[Dial | Notify]:
        """Dial an address that is due."""
        address = Address(str(key[-1]))
        row = self._rows.get(address)
        if row is not None:
            row.due = None
        return self._due(address, now)

    def _due(self, address: Address, now: int) -> list[Dial | Notify]:
        row = self._rows.get(address)
        if row is None or address in self._dialling or self.stopped or address in self._own_addresses:
            return []
        if not self._wanted(address, row):
            if row.interested or row.seed:  # a member met there may leave without notice
                self._dial_by(address, now + self._limits.rare_dial)
            return []
        rank = self._rank(row)
        if not self._has_slot(rank):
            if address not in self._waiting[rank]:
                self._unqueue(address)
                self._waiting[rank][address] = None
            return []
        self._unqueue(address)
        self._cancel_timer(address)
        self._dialling[address] = self._expected(row), rank
        self._timers.set((TimerKind.DIAL_TIMEOUT, address), now + self._limits.dial)
        return [Dial(address, self._limits.dial)]

    def _start_waiting(self, now: int) -> list[Dial | Notify]:
        effects: list[Dial | Notify] = []
        for rank, waiting in self._waiting.items():
            while waiting and self._has_slot(rank):
                address = next(iter(waiting))
                del waiting[address]
                effects += self._due(address, now)
        return effects

    def _rank(self, row: AddressRow) -> Rank:
        if any(self._members.routable(member) for member in row.interested):
            return Rank.UNSURE if row.failures else Rank.FRESH
        joins = row.seed and not row.interested and (not row.failures or len(self._rings) == 1)
        return Rank.UNSURE if joins else Rank.DEAD

    def _has_slot(self, rank: Rank) -> bool:
        """Return whether a dial may begin: DEAD gets a quarter of the slots; one is kept for FRESH if possible."""
        dials = self._limits.dials
        quarter = max(1, dials // 4)
        of_rank = [other for _, other in self._dialling.values()]
        if len(of_rank) >= dials:
            return False
        if rank is Rank.DEAD and of_rank.count(Rank.DEAD) >= quarter:
            return False
        if rank is Rank.FRESH or len(self._rings) == 1:
            return True
        return len(of_rank) - of_rank.count(Rank.FRESH) < max(1, dials - quarter)

    def _unqueue(self, address: Address) -> None:
        for waiting in self._waiting.values():
            waiting.pop(address, None)

    def _retry_later(self, address: Address, row: AddressRow, now: int) -> None:
        if not self.stopped and self._wanted(address, row):
            dead = not any(self._members.routable(member) for member in row.interested)
            self._cancel_timer(address)
            self._dial_by(address, now + self._backoff.after_failure(row, now, dead=dead))

    def _dial_by(self, address: Address, at: int) -> None:
        """Dial at `at` or earlier, if it is needed then."""
        row = self._rows[address]
        if self.stopped or address in self._dialling or address in self._own_addresses:
            return
        if row.due is None or at < row.due:
            row.due = at
            self._timers.set((TimerKind.DIAL, address), at)

    def _cancel_timer(self, address: Address) -> None:
        row = self._rows.get(address)
        if row is not None and row.due is not None:
            row.due = None
            self._timers.cancel((TimerKind.DIAL, address))

    # -- needed addresses and links -------------------------------------------------------------------------------

    def _needed(self, address: Address) -> bool:
        """Return whether a dial could open a missing link; a member that is linked needs no other address."""
        row = self._rows.get(address)
        if (
            row is None
            or address in self._own_addresses
            or (row.last_member is not None and row.last_member in self._links)
        ):
            return False
        if any(self._needs_link(member) for member in row.interested if member not in self._links):
            return True
        if any(member in self._links for member in row.interested):
            return False
        if row.seed:
            met = row.last_member not in (None, self._rings.me) and row.last_member in self._rings
            known = met or any(address in self._addresses_of(member) for member in self._rings.ids())
            return not known or self._too_few_links
        return any(self._members.standing(member) is Standing.DEAD for member in row.interested)

    def _wanted(self, address: Address, row: AddressRow) -> bool:
        """Return whether an address is to be dialled: a dial could open a missing link, or find an unknown member."""
        return self._needed(address) or self._is_shared(address, row)

    def _is_shared(self, address: Address, row: AddressRow) -> bool:
        """Return whether a seed may lead to several members, as a service name does.

        It is dialled now and then although a member answered there: if all nodes of a cluster start with a name, some
        may meet only each other, and form a cluster of their own.
        """
        if not row.seed or row.revisits >= ONE_MEMBER_AFTER or address in self._own_addresses:
            return False
        return not any(address in self._addresses_of(member) for member in self._rings.ids())

    @property
    def _too_few_links(self) -> bool:
        """True if there are too few links, and living members without one."""
        return len(self._links) < min(MIN_LINKS, len(self._rings) - 1)

    def _addresses_of(self, member: MemberId) -> tuple[str, ...]:
        current = self._members.get(member)
        return () if current is None else current.addresses

    def _needs_link(self, member: MemberId) -> bool:
        """Return whether this node should hold a link to a member: a neighbour, or one that a call waits for."""
        if member in self._rings.neighbours or member in self._link_needed_until:
            return self._members.routable(member)
        return False

    def _expected(self, row: AddressRow) -> MemberId | None:
        """Return the member that a dial is for: the latest living one whose card names the address, else the latest."""
        expected: MemberId | None = None
        for member in row.interested:
            if member not in self._links and (expected is None or self._members.routable(member)):
                expected = member
        return expected

    def _leads_to(self, seed: Address, member: MemberId) -> bool:
        row = self._rows[seed]
        return row.last_member == member or member in row.interested or seed in self._addresses_of(member)

    def _remove_interest(self, address: Address, member: MemberId) -> None:
        row = self._rows.get(address)
        if row is not None:
            row.interested.pop(member, None)
            if not row.interested and not row.seed:
                self._cancel_timer(address)
                del self._rows[address]
                self._unqueue(address)
