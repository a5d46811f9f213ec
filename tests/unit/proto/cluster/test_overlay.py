"""Whom to dial and when: the mesh, backoff, seeds, several addresses, addresses that lead elsewhere."""

from itertools import pairwise

import msgspec
import pytest

from mpreg_proto.cluster.backoff import RARELY, YOUNG
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.overlay import STAGGER, YIELD, Overlay
from mpreg_proto.cluster.rings import Rings
from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import PeerSilent, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Claim

ME, ANN, ZOE = (MemberId(letter * 16) for letter in (b"m", b"a", b"z"))
X, Y = Address("ws://x:1"), Address("ws://y:1")


class World:
    """An overlay and what it reads."""

    def __init__(self, *seeds: Address, seed: int = 0, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.members = Members(ME, Card("me"), limits=self.limits, now=0)
        self.links: dict[MemberId, LinkId] = {}
        self.timers = Timers()
        self.rings = Rings(ME)
        self.overlay = Overlay(
            self.members, self.rings, self.links, seeds=seeds, timers=self.timers, rng=Rng(seed), limits=self.limits
        )

    def know(self, member: MemberId, *addresses: Address, now: int = 0, incarnation: int = 0) -> None:
        card = msgspec.msgpack.encode(Card("she", addresses))
        self.rose(self.members.merge([Claim(member, incarnation, 0, card)], now), now)

    def accuse(self, member: MemberId, standing: Standing, now: int) -> None:
        rose = self.members.accuse(member, standing, now)
        assert rose is not None
        self.rose([rose], now)

    def rose(self, risen: list[Member], now: int) -> None:
        for rose in risen:
            (self.rings.enter if rose.routable else self.rings.depart)(rose.id)
            self.overlay.learn(rose, now)
        self.overlay.renew(now)

    def link(self, member: MemberId, dialled: Address | None, now: int) -> MemberId | None:
        self.links[member] = LinkId(len(self.links) + 1)
        displaced = None
        if dialled is not None:
            displaced, _ = self.overlay.reached(dialled, member, now)
        self.overlay.linked(member)
        return displaced

    def dials(self, until: int) -> list[tuple[int, Address]]:
        """Every dial up to a time, each failing at once."""
        found: list[tuple[int, Address]] = []
        while (at := self.timers.next()) is not None and at <= until:
            for key in self.timers.due(at):
                for effect in self.overlay.wake(key, at):
                    if isinstance(effect, Dial):
                        found.append((at, effect.address))
                        assert all(isinstance(more, Notify) for more in self.overlay.failed(effect.address, at))
        return found


def test_the_smaller_id_dials_at_once_and_the_other_waits_a_second() -> None:
    world = World()
    world.know(ZOE, X, now=5)
    world.know(ANN, Y, now=5)
    assert world.dials(5) == [(5, X)]
    assert (5 + YIELD, Y) in world.dials(5 + YIELD)
    assert YIELD == SECOND


def test_no_dial_once_a_link_stands() -> None:
    world = World()
    world.know(ANN, Y)
    world.link(ANN, None, 1)
    assert world.timers.next() is None
    world.know(ANN, Y, X, incarnation=1)
    assert world.timers.next() is None


def test_several_addresses_are_tried_one_after_the_other_and_one_is_enough() -> None:
    world = World()
    world.know(ZOE, X, Y)
    (key,) = world.timers.due(0)
    assert world.overlay.wake(key, 0) == [Dial(X)]
    assert world.timers.next() == STAGGER
    world.link(ZOE, X, 1)
    assert world.timers.next() is None


@pytest.mark.parametrize("seed", range(5))
def test_backoff_doubles_with_full_jitter_up_to_its_longest(seed: int) -> None:
    world = World(seed=seed)
    world.know(ZOE, X)
    times = [at for at, _ in world.dials(60 * SECOND)]
    waits = [later - earlier for earlier, later in pairwise(times)]
    longest = [min(200_000_000 << step, 5 * SECOND) for step in range(len(waits))]
    assert all(0 < wait <= most + 1 for wait, most in zip(waits, longest, strict=True))
    assert len(waits) > 60 // 5


def test_a_silent_address_is_told_once_until_it_answers() -> None:
    world = World(X)
    assert world.overlay.start(0) == [Dial(X)]
    assert world.overlay.failed(X, 1) == [Notify(PeerSilent(X))]
    assert world.overlay.failed(X, 2) == []
    world.link(ANN, X, 3)
    del world.links[ANN]
    assert world.overlay.failed(X, 4) == [Notify(PeerSilent(X))]


def test_a_dead_members_address_is_tried_less_and_less() -> None:
    world = World()
    world.know(ZOE, X)
    world.accuse(ZOE, Standing.DEAD, 0)
    early = len(world.dials(YOUNG))
    assert 600 / 5 <= early <= 600 / 2.5 + 10
    world.dials(YOUNG + RARELY)
    late = [at for at, _ in world.dials(YOUNG + 10 * RARELY)]
    assert all(later - earlier == RARELY for earlier, later in pairwise(late))
    assert len(late) >= 8


@pytest.mark.parametrize("standing", [Standing.LEFT, Standing.RETIRED])
def test_who_is_gone_for_good_is_not_dialled(standing: Standing) -> None:
    world = World()
    world.know(ZOE, X)
    world.rose(world.members.merge([Claim(ZOE, 0, int(standing))], 1), 1)
    assert world.timers.next() is None
    assert world.overlay.awaited(X) == []


def test_a_new_card_replaces_the_addresses() -> None:
    world = World()
    world.know(ZOE, X)
    world.know(ZOE, Y, now=1, incarnation=1)
    assert {address for _, address in world.dials(3 * SECOND)} == {Y}


def test_my_own_address_is_never_dialled() -> None:
    world = World(X)
    world.overlay.mine(X)
    assert world.overlay.start(0) == []
    assert world.overlay.seedless
    world.know(ZOE, X)
    assert world.dials(SECOND) == []


def test_an_address_that_led_to_myself_is_forgotten_and_makes_room() -> None:
    world = World(X, Y, dials=1)
    assert world.overlay.start(0) == [Dial(X)]
    assert world.overlay.met_myself(X, 1) == [Dial(Y)]
    assert world.overlay.failed(X, 1) == [], "the end of the link to myself is no failure"
    assert world.overlay.failed(Y, 2) == [Notify(PeerSilent(Y))]
    assert {address for _, address in world.dials(100 * SECOND)} == {Y}


def test_who_answers_in_anothers_place_is_told_as_evidence() -> None:
    world = World()
    world.know(ZOE, X)
    (key,) = world.timers.due(0)
    world.overlay.wake(key, 0)
    assert world.link(ANN, X, 1) == ZOE
    # Ann is there, so nobody looks for Zoe there; when Ann goes, it is looked at again.
    assert world.overlay.unanswered(ZOE, 0)
    world.know(ZOE, X, now=2, incarnation=1)
    assert world.dials(20 * RARELY) == []
    world.links.clear()
    later = 21 * RARELY
    assert world.overlay.lost(ANN, 20 * RARELY) == [], "nothing of hers is known"
    assert 20 * RARELY < world.dials(later + SECOND)[0][0] <= later


def test_a_lost_link_is_dialled_at_once_with_the_seed_that_led_there() -> None:
    world = World(X)
    world.overlay.start(0)
    world.know(ZOE, Y)
    world.link(ZOE, X, 1)
    world.links.clear()
    later = 100 * SECOND
    assert world.overlay.lost(ZOE, later) == [Dial(Y)]
    assert [address for at, address in world.dials(later + STAGGER) if at == later + STAGGER] == [X]


def test_a_link_that_hardly_lasted_is_not_dialled_again_at_once() -> None:
    world = World()
    world.know(ZOE, X)
    (key,) = world.timers.due(0)
    now, dials = 0, 0
    effects = world.overlay.wake(key, 0)
    while now < 60 * SECOND:
        dials += len(effects)
        world.link(ZOE, X, now)
        world.links.clear()
        effects = world.overlay.lost(ZOE, now)
        now = world.timers.next() or now + 60 * SECOND
        for key in world.timers.due(now):
            effects += world.overlay.wake(key, now)
    assert 12 <= dials <= 60


def test_wanting_a_link_dials_unless_that_was_just_tried() -> None:
    world = World()
    world.know(ANN, X)
    assert world.overlay.want(ANN, 1) == [Dial(X)]
    assert world.overlay.want(ANN, 2) == [], "under way"
    world.overlay.failed(X, 3)
    assert world.overlay.want(ANN, 4) == []
    assert world.overlay.want(ANN, 3 + world.limits.dial_first) == [Dial(X)]
    assert world.overlay.want(ZOE, 5) == []


def test_unanswered_means_each_address_since_then() -> None:
    world = World()
    world.know(ZOE, X, Y)
    assert not world.overlay.unanswered(ZOE, 0)
    world.overlay.failed(X, 10)
    assert not world.overlay.unanswered(ZOE, 5)
    world.overlay.failed(Y, 11)
    assert world.overlay.unanswered(ZOE, 5)
    assert not world.overlay.unanswered(ZOE, 11)
    assert not world.overlay.unanswered(ANN, 0), "nobody without an address was ever dialled"


def test_who_leaves_dials_nobody() -> None:
    world = World(X)
    world.know(ZOE, Y)
    world.overlay.stop()
    assert world.timers.next() is None
    assert world.overlay.start(1) == []
    world.know(ANN, Address("ws://w:1"), now=2)
    assert world.timers.next() is None


def test_a_seed_is_known_by_where_it_answered_or_by_what_it_says() -> None:
    world = World(X, Y)
    world.overlay.start(0)
    world.know(ANN, Y)
    world.link(ZOE, X, 1)
    assert [world.overlay.sees_seed(member) for member in (ZOE, ANN, ME)] == [True, True, False]
    assert not world.overlay.seedless
