"""The dialer: the mesh, backoff, seeds, several addresses, and addresses where another node answers."""

from itertools import pairwise

import msgspec
import pytest

from mpreg_proto.cluster.dialer import (
    LINK_KEPT_FOR,
    MIN_LINK_AGE,
    ONE_MEMBER_AFTER,
    STAGGER,
    YIELD_DELAY,
    AddressRow,
    Backoff,
    Dialer,
)
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.notices import PeerUnreachable, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim

ME, ANN, ZOE = (MemberId(letter * 16) for letter in (b"m", b"a", b"z"))
X, Y, Z = Address("ws://x:1"), Address("ws://y:1"), Address("ws://z:1")


class World:
    """A dialer and the state that it reads."""

    def __init__(self, *seeds: Address, seed: int = 0, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.members = Members(ME, Card("me"), limits=self.limits, now=0)
        self.links: dict[MemberId, LinkId] = {}
        self.timers = Timers()
        self.rings = Rings(ME)
        self.dialer = Dialer(
            self.members, self.rings, self.links, seeds=seeds, timers=self.timers, rng=Rng(seed), limits=self.limits
        )

    def know(self, member: MemberId, *addresses: Address, now: int = 0, incarnation: int = 0) -> None:
        card = msgspec.msgpack.encode(Card("she", addresses))
        self.rose(self.members.merge([Claim(member, incarnation, 0, card)], now), now)

    def accuse(self, member: MemberId, standing: Standing, now: int) -> None:
        rose = self.members.declare(member, standing, now)
        assert rose is not None
        self.rose([rose], now)

    def rose(self, risen: list[Member], now: int) -> None:
        for rose in risen:
            (self.rings.enter if rose.routable else self.rings.depart)(rose.id)
            self.dialer.member_changed(rose, now)
        self.dialer.neighbours_changed(now)

    def link(self, member: MemberId, dialled: Address | None, now: int) -> MemberId | None:
        self.links[member] = LinkId(len(self.links) + 1)
        displaced = None
        if dialled is not None:
            displaced, _ = self.dialer.dial_succeeded(dialled, member, now)
        self.dialer.link_established(member)
        return displaced

    def dials(self, until: int) -> list[tuple[int, Address]]:
        """Return every dial up to a time; each fails at once."""
        found: list[tuple[int, Address]] = []
        while (at := self.timers.next()) is not None and at <= until:
            for key in self.timers.due(at):
                for effect in self.dialer.wake(key, at):
                    if isinstance(effect, Dial):
                        found.append((at, effect.address))
                        following = self.dialer.dial_failed(effect.address, at)
                        assert following is not None and all(isinstance(more, Notify) for more in following)
        return found

    def dial_and_fail(self, address: Address, now: int) -> list[Dial | Notify] | None:
        """Dial an address now; the dial fails at once."""
        assert Dial(address) in self.dialer.wake((TimerKind.DIAL, address), now)
        return self.dialer.dial_failed(address, now)


def test_smaller_id_dials_first() -> None:
    world = World()
    world.know(ZOE, X, now=5)
    world.know(ANN, Y, now=5)
    assert world.dials(5) == [(5, X)]
    assert (5 + YIELD_DELAY, Y) in world.dials(5 + YIELD_DELAY)
    assert YIELD_DELAY == SECOND


def test_no_dial_to_a_linked_member() -> None:
    world = World()
    world.know(ANN, Y)
    world.link(ANN, None, 1)
    assert world.timers.next() is None
    world.know(ANN, Y, X, incarnation=1)
    assert world.timers.next() is None


def test_staggered_dials_until_one_address_answers() -> None:
    world = World()
    world.know(ZOE, X, Y)
    (key,) = world.timers.due(0)
    assert world.dialer.wake(key, 0) == [Dial(X)]
    assert world.timers.next() == STAGGER
    world.link(ZOE, X, 1)
    assert world.timers.next() is None


@pytest.mark.parametrize("seed", range(5))
def test_backoff_doubles_with_full_jitter(seed: int) -> None:
    world = World(seed=seed)
    world.know(ZOE, X)
    times = [at for at, _ in world.dials(60 * SECOND)]
    waits = [later - earlier for earlier, later in pairwise(times)]
    longest = [min(200_000_000 << step, 5 * SECOND) for step in range(len(waits))]
    assert all(0 < wait <= most + 1 for wait, most in zip(waits, longest, strict=True))
    assert len(waits) > 60 // 5


def test_one_notice_for_a_silent_address() -> None:
    world = World(X)
    assert world.dialer.start(0) == [Dial(X)]
    assert world.dialer.dial_failed(X, 1) == [Notify(PeerUnreachable(X))]
    assert world.dialer.dial_failed(X, 2) is None, "no dial was in progress"
    assert world.dial_and_fail(X, 2) == []
    world.link(ANN, X, 3)
    del world.links[ANN]
    assert world.dial_and_fail(X, 4) == [Notify(PeerUnreachable(X))]


def test_dial_without_an_answer() -> None:
    world = World(X)
    assert world.dialer.start(0) == [Dial(X, within=world.limits.dial)]
    assert (TimerKind.DIAL_TIMEOUT, X) in world.timers.due(world.limits.dial)
    assert world.dialer.dial_failed(X, world.limits.dial) == [Notify(PeerUnreachable(X))]
    assert world.dialer.dial_failed(X, world.limits.dial + 1) is None, "the answer of the driver comes too late"


def test_dial_with_an_open_transport_has_no_timer() -> None:
    world = World(X)
    world.dialer.start(0)
    world.dialer.dial_answered(X)
    assert world.timers.next() is None, "its handshake has a timer of its own"


def test_address_of_a_network_of_the_user() -> None:
    world = World()
    world.know(ZOE, Address("my-net.v2+x://node-1/a?b"), Y)
    assert {dialled for _, dialled in world.dials(20 * SECOND)} == {"my-net.v2+x://node-1/a?b", Y}


@pytest.mark.parametrize(
    "address", ["", "ws://", "ws://h:70000", "ws://h:0", "h:1", "ws://a b:1", "ws://u@h:1", "ws://h\n"]
)
def test_address_that_cannot_be_dialled(address: str) -> None:
    world = World()
    world.know(ZOE, Address(address), Y)
    assert {dialled for _, dialled in world.dials(20 * SECOND)} == {Y}


def test_rare_dials_to_a_dead_member() -> None:
    world = World()
    world.know(ZOE, X)
    world.accuse(ZOE, Standing.DEAD, 0)
    early = len(world.dials(DEFAULT.rare_from))
    assert 600 / 5 <= early <= 600 / 2.5 + 10
    world.dials(DEFAULT.rare_from + DEFAULT.rare_dial)
    late = [at for at, _ in world.dials(DEFAULT.rare_from + 10 * DEFAULT.rare_dial)]
    assert all(later - earlier == DEFAULT.rare_dial for earlier, later in pairwise(late))
    assert len(late) >= 8


@pytest.mark.parametrize("standing", [Standing.LEFT, Standing.RETIRED])
def test_no_dial_to_a_left_or_retired_member(standing: Standing) -> None:
    world = World()
    world.know(ZOE, X)
    world.rose(world.members.merge([Claim(ZOE, 0, int(standing))], 1), 1)
    assert world.timers.next() is None
    assert world.dialer.dialled_for(X) == []


def test_new_card_replaces_the_addresses() -> None:
    world = World()
    world.know(ZOE, X)
    world.know(ZOE, Y, now=1, incarnation=1)
    assert {address for _, address in world.dials(3 * SECOND)} == {Y}


def test_no_dial_to_the_own_address() -> None:
    world = World(X)
    world.dialer.set_own_addresses(X)
    assert world.dialer.start(0) == []
    assert world.dialer.seedless
    world.know(ZOE, X)
    assert world.dials(SECOND) == []


def test_address_that_reached_this_node() -> None:
    world = World(X, Y, dials=1)
    assert world.dialer.start(0) == [Dial(X)]
    assert world.dialer.reached_self(X, 1) == [Dial(Y)]
    assert world.dialer.dial_failed(X, 1) is None, "the end of the link to myself is no failure"
    assert world.dialer.dial_failed(Y, 2) == [Notify(PeerUnreachable(Y))]
    assert {address for _, address in world.dials(100 * SECOND)} == {X, Y}


def test_dial_to_a_former_own_address() -> None:
    world = World(X)
    world.dialer.set_own_addresses(X)
    assert world.dialer.start(0) == []
    world.know(ZOE, Y)
    world.dialer.set_own_addresses(Y)
    assert {address for _, address in world.dials(10 * SECOND)} == {X}
    assert not world.dialer.seedless


def _dead(world: World, count: int) -> None:
    for number in range(count):
        member = MemberId(number.to_bytes(16, "big"))
        world.know(member, Address(f"ws://gone-{number}:1"))
        world.accuse(member, Standing.DEAD, 0)


def _due(world: World, until: int) -> list[Address]:
    """Return every address dialled up to a time; none answers."""
    found: list[Address] = []
    while (at := world.timers.next()) is not None and at <= until:
        for key in world.timers.due(at):
            found += [effect.address for effect in world.dialer.wake(key, at) if isinstance(effect, Dial)]
    return found


def test_dead_members_get_a_quarter_of_the_dial_slots() -> None:
    world = World(dials=8)
    _dead(world, 50)
    assert len(_due(world, 100 * SECOND)) == 2
    world.know(ZOE, X, now=100 * SECOND)
    assert _due(world, 100 * SECOND) == [X]


def test_order_of_new_failing_and_dead_addresses() -> None:
    world = World(dials=4)
    for number in range(6):
        world.know(MemberId(bytes([200 + number]) * 16), Address(f"ws://silent-{number}:1"))
    first = _due(world, 0)
    assert len(first) == 4
    _dead(world, 3)
    _due(world, 40 * SECOND)
    following = []
    for address in first:  # each frees its slot for a waiting address
        effects = world.dialer.dial_failed(address, 40 * SECOND)
        following += [effect.address for effect in effects if isinstance(effect, Dial)]
    assert following[:2] == ["ws://silent-4:1", "ws://silent-5:1"], "the living first"
    assert following[2].startswith("ws://gone-"), "one of the dead, a quarter of the slots"
    _due(world, 50 * SECOND)
    for address in following[:2]:
        world.dialer.dial_failed(Address(address), 50 * SECOND)
    _due(world, 60 * SECOND)
    world.know(ZOE, X, now=60 * SECOND)
    assert _due(world, 60 * SECOND) == [X], "what fails again and again leaves room"


def test_silent_seeds_leave_dial_slots_to_members() -> None:
    world = World(*(Address(f"ws://seed-{number}:1") for number in range(20)), dials=8)
    world.know(ANN, Y)
    world.link(ANN, None, 0)
    started = [effect for effect in world.dialer.start(0) if isinstance(effect, Dial)]
    assert len(started) == 6
    world.know(ZOE, X)
    assert _due(world, 0) == [X]


def test_row_of_an_address_ends_with_its_member() -> None:
    world = World()
    for number in range(300):
        member = MemberId(number.to_bytes(16, "big"))
        world.know(member, *(Address(f"ws://{number}-{place}:1") for place in range(16)))
        world.dialer.connect(member, 0)
        world.accuse(member, Standing.DEAD, 0)
        world.accuse(member, Standing.RETIRED, 0)
    dialer = world.dialer
    dialer.housekeeping(100 * SECOND)
    tables = (
        dialer._rows,
        dialer._addresses,
        dialer._link_needed_until,
        dialer._dial_back_sent,
        *dialer._waiting.values(),
    )
    assert [len(table) for table in tables] == [0] * len(tables)


def test_displaced_member_when_another_answers() -> None:
    world = World()
    world.know(ZOE, X)
    (key,) = world.timers.due(0)
    world.dialer.wake(key, 0)
    assert world.link(ANN, X, 1) == ZOE
    # ANN is linked there, so the address is not dialled for ZOE until the link to ANN is lost.
    assert world.dialer.unanswered(ZOE, 0)
    world.know(ZOE, X, now=2, incarnation=1)
    assert world.dials(20 * DEFAULT.rare_dial) == []
    world.links.clear()
    later = 21 * DEFAULT.rare_dial
    assert world.dialer.link_lost(ANN, 20 * DEFAULT.rare_dial) == [], "nothing of hers is known"
    assert 20 * DEFAULT.rare_dial < world.dials(later + SECOND)[0][0] <= later


def test_immediate_dial_after_a_lost_link() -> None:
    world = World(X)
    world.dialer.start(0)
    world.know(ZOE, Y)
    world.link(ZOE, X, 1)
    world.links.clear()
    later = 1 + MIN_LINK_AGE
    assert world.dialer.link_lost(ZOE, later) == [Dial(Y)]
    assert [address for at, address in world.dials(later + STAGGER) if at == later + STAGGER] == [X]


def test_service_name_is_dialled_again_after_a_member_has_answered() -> None:
    world = World(X)
    world.dialer.start(0)
    world.know(ZOE, Y)
    world.link(ZOE, X, 1)
    whole = 2 * len(world.rings) * DEFAULT.dial_longest
    (key,) = world.timers.due(whole)
    assert world.dialer.wake(key, whole) == [Dial(X)]
    world.know(ANN, Z)
    world.link(ANN, X, whole)
    assert world.timers.next() is not None


def test_seed_that_is_the_address_of_a_member_is_not_dialled_again() -> None:
    world = World(X)
    world.dialer.start(0)
    world.link(ZOE, X, 1)
    world.know(ZOE, X)
    assert world.dials(20 * DEFAULT.rare_dial) == []


def test_seed_that_always_leads_to_one_member_is_another_address_of_it() -> None:
    world = World(X)
    world.dialer.start(0)
    world.know(ZOE, Y)
    now = 1
    for _ in range(1 + ONE_MEMBER_AFTER):
        world.link(ZOE, X, now)
        at = world.timers.next()
        assert at is not None and at <= now + len(world.rings) * DEFAULT.rare_dial + 1
        now, found = at, [effect for key in world.timers.due(at) for effect in world.dialer.wake(key, at)]
    assert found == [], "it was dialled again so often, and once more would prove nothing"
    world.links.clear()
    assert Dial(Y) in world.dialer.link_lost(ZOE, now)
    assert X in [address for _, address in world.dials(now + STAGGER)]


def test_service_name_that_fails_is_dialled_again() -> None:
    world = World(X)
    world.dialer.start(0)
    world.know(ZOE, Y)
    world.link(ZOE, X, 1)
    assert [address for _, address in world.dials(20 * DEFAULT.rare_dial)].count(X) > 2


def test_delayed_dial_after_a_short_link() -> None:
    world = World()
    world.know(ZOE, X)
    (key,) = world.timers.due(0)
    now, dials = 0, 0
    effects = world.dialer.wake(key, 0)
    while now < 60 * SECOND:
        dials += len(effects)
        world.link(ZOE, X, now)
        world.links.clear()
        effects = world.dialer.link_lost(ZOE, now)
        now = world.timers.next() or now + 60 * SECOND
        for key in world.timers.due(now):
            effects += world.dialer.wake(key, now)
    assert 12 <= dials <= 60


def test_connect_dials_unless_just_dialled() -> None:
    world = World()
    world.know(ANN, X)
    assert world.dialer.connect(ANN, 1) == [Dial(X)]
    assert world.dialer.connect(ANN, 2) == [], "under way"
    world.dialer.dial_failed(X, 3)
    assert world.dialer.connect(ANN, 4) == []
    assert world.dialer.connect(ANN, 3 + world.limits.dial_first) == [Dial(X)]
    assert world.dialer.connect(ZOE, 5) == []


def test_unanswered_requires_each_address_to_fail_since_then() -> None:
    world = World()
    world.know(ZOE, X, Y)
    assert not world.dialer.unanswered(ZOE, 0)
    world.dial_and_fail(X, 10)
    assert not world.dialer.unanswered(ZOE, 5)
    world.dial_and_fail(Y, 11)
    assert world.dialer.unanswered(ZOE, 5)
    assert not world.dialer.unanswered(ZOE, 11)
    assert not world.dialer.unanswered(ANN, 0), "nobody without an address was ever dialled"


def test_no_dial_after_stop() -> None:
    world = World(X)
    world.know(ZOE, Y)
    world.dialer.stop()
    assert world.timers.next() is None
    assert world.dialer.start(1) == []
    world.know(ANN, Address("ws://w:1"), now=2)
    assert world.timers.next() is None


def test_seed_known_by_dialled_or_advertised_address() -> None:
    world = World(X, Y)
    world.dialer.start(0)
    world.know(ANN, Y)
    world.link(ZOE, X, 1)
    assert [world.dialer.is_seed(member) for member in (ZOE, ANN, ME)] == [True, True, False]
    assert not world.dialer.seedless


# -- backoff: pauses double up to a bound, with jitter; ALIVE members share the dials to DEAD ones --------------------

LIMITS = Limits(dial_first=SECOND, dial_longest=8 * SECOND)


def backoff(*others: int) -> Backoff:
    rings = Rings(ME)
    for number in others:
        rings.enter(MemberId(number.to_bytes(16, "big")))
    return Backoff(rings, Rng(7), LIMITS)


def drawn(pauses: Backoff, failures: int, *, dead: bool) -> list[int]:
    return [pauses.pause(failures, dead=dead) for _ in range(200)]


def test_pause_doubles_up_to_its_maximum_with_full_jitter() -> None:
    pauses = backoff()
    for failures, most in ((0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (10**6, 8)):
        found = drawn(pauses, failures, dead=False)
        assert 0 < min(found) < most * SECOND / 8 and most * SECOND * 7 / 8 < max(found) <= most * SECOND


def test_dials_to_dead_members_shared_by_the_cluster() -> None:
    found = drawn(backoff(1, 2, 3), 1, dead=True)
    assert min(found) >= 4 * 4 * SECOND and max(found) <= 4 * 8 * SECOND
    first = drawn(backoff(1, 2, 3), 0, dead=True)
    assert 0 < min(first) < 4 * SECOND and 4 * 7 * SECOND < max(first) <= 4 * 8 * SECOND, "at any time in the round"
    assert max(drawn(backoff(), 0, dead=True)) <= SECOND, "who is alone has nothing else to do"


def test_rare_dials_after_a_long_silence() -> None:
    pauses, row = backoff(1, 2, 3), AddressRow()
    row.failures = 9
    assert pauses.after_failure(row, DEFAULT.rare_from - 1, dead=True) <= 4 * 8 * SECOND and not row.rare
    assert 0 <= pauses.after_failure(row, DEFAULT.rare_from, dead=True) < 4 * DEFAULT.rare_dial and row.rare
    assert pauses.after_failure(row, DEFAULT.rare_from, dead=True) == 4 * DEFAULT.rare_dial
    assert pauses.after_failure(row, DEFAULT.rare_from, dead=False) <= 8 * SECOND


def test_flap_delay_grows_with_short_links() -> None:
    pauses, row = backoff(), AddressRow()
    row.last_member = ZOE
    for short in (1, 2, 3):
        assert 0 < pauses.flap_delay(row, ZOE, MIN_LINK_AGE - 1) <= SECOND << (short - 1)
        assert row.flaps == short
    assert pauses.flap_delay(row, ZOE, MIN_LINK_AGE) == 0 and row.flaps == 0
    assert pauses.flap_delay(row, ME, 0) == 0, "another member answered there"


def test_dead_member_is_dialled_after_the_call_that_needed_its_link() -> None:
    world = World()
    world.know(ZOE, X)
    assert [one.address for one in world.dialer.connect(ZOE, 0) if isinstance(one, Dial)] == [X]
    world.dialer.dial_failed(X, 0)
    world.accuse(ZOE, Standing.DEAD, SECOND)
    world.dialer.housekeeping(LINK_KEPT_FOR)
    assert [address for at, address in world.dials(3600 * SECOND) if at > LINK_KEPT_FOR]


def test_address_that_answers_begins_again_with_the_first_pause() -> None:
    world = World()
    world.know(ZOE, X)
    world.dials(60 * SECOND)
    world.dialer.wake((TimerKind.DIAL, X), 61 * SECOND)
    world.link(ZOE, X, 61 * SECOND)
    del world.links[ZOE]
    now = 200 * SECOND
    assert world.dialer.link_lost(ZOE, now) == [Dial(X)]
    assert world.dialer.dial_failed(X, now) == [Notify(PeerUnreachable(X))]
    times = [now, *(at for at, _ in world.dials(now + 3 * SECOND))]
    waits = [later - earlier for earlier, later in pairwise(times)]
    longest = [world.limits.dial_first << step for step in range(len(waits))]
    assert len(waits) >= 3
    assert all(0 < wait <= most + 1 for wait, most in zip(waits[:3], longest[:3], strict=True))


def test_silent_seed_that_answers_is_not_tried_rarely() -> None:
    world = World(X)
    world.know(ANN, Y)
    world.link(ANN, None, 0)
    assert world.dialer.start(0) == [Dial(X)]
    world.dialer.dial_failed(X, 0)
    silent = DEFAULT.rare_from + 2 * DEFAULT.rare_dial
    world.dials(silent)
    row = world.dialer._rows[X]
    assert row.rare and row.failures > 10
    world.dialer.wake((TimerKind.DIAL, X), silent)
    world.link(ZOE, X, silent)
    assert (row.rare, row.silent, row.failures, row.own_hits) == (False, False, 0, 0)
    assert (row.last_member, row.reached) == (ZOE, silent)


def test_own_hits_in_a_row_end_with_another_answer() -> None:
    for answered in (True, False):
        world = World(X)
        world.dialer.start(0)
        for number in range(4):
            world.dialer.reached_self(X, number)
            world.dialer.wake((TimerKind.DIAL, X), number)
        if answered:
            world.link(ZOE, X, 5)
        else:
            world.dialer.dial_failed(X, 5)
        assert world.dialer._rows[X].own_hits == 0 and not world.dialer.seedless


def test_wait_of_a_member_for_the_link_of_a_smaller_id() -> None:
    """Of two members that closed their link on purpose, only the one with the smaller id dials at once."""
    world = World()
    world.know(ANN, X)
    world.link(ANN, None, 0)
    del world.links[ANN]
    assert world.dialer.link_lost(ANN, 100 * SECOND, pause=YIELD_DELAY) == []
    assert world.dials(100 * SECOND + YIELD_DELAY)[0] == (100 * SECOND + YIELD_DELAY, X)


def test_dial_back_requested_once_in_the_least_age_of_a_link() -> None:
    world = World()
    world.know(ZOE)
    assert world.dialer.needs_dial_back(ZOE, 0)
    assert not world.dialer.needs_dial_back(ZOE, MIN_LINK_AGE - 1)
    assert world.dialer.needs_dial_back(ZOE, MIN_LINK_AGE)
    world.link(ZOE, None, MIN_LINK_AGE)
    assert not world.dialer.needs_dial_back(ZOE, 10 * MIN_LINK_AGE)


def test_no_dial_back_before_its_address_has_failed() -> None:
    world = World()
    world.know(ZOE, X)
    assert not world.dialer.needs_dial_back(ZOE, 0)
    world.dial_and_fail(X, 0)
    assert world.dialer.needs_dial_back(ZOE, 0)


@pytest.mark.parametrize("seed", range(4))
def test_dials_to_members_without_a_link_while_there_are_few(seed: int) -> None:
    world = World(seed=seed)
    others = {MemberId(bytes([200 + number]) * 16): Address(f"ws://{number}:1") for number in range(3)}
    world.know(ANN, Y)
    world.link(ANN, None, 0)
    for member, address in others.items():
        world.know(member, address)
    dialled = [effect.address for effect in world.dialer.housekeeping(0) if isinstance(effect, Dial)]
    assert sorted(dialled) == sorted(others.values())
    assert ANN not in world.dialer._link_needed_until, "no call needs its link"


def test_no_dials_while_there_are_enough_links() -> None:
    world = World(X)
    for number in range(4):
        member = MemberId(bytes([200 + number]) * 16)
        world.know(member, Address(f"ws://{number}:1"))
        if number < 3:
            world.link(member, None, 0)
    assert world.dialer.housekeeping(0) == []
    world.links.popitem()
    assert X in [effect.address for effect in world.dialer.housekeeping(0) if isinstance(effect, Dial)], "seeds too"
