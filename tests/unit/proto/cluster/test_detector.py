"""Who is doubted, when, and what makes a doubt a death."""

import msgspec
import pytest

from mpreg_proto.cluster.detector import HEARD_VERDICT, OWN_VERDICT, UNREACHED, Detector
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.overlay import Overlay
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Claim

ME, ANN, BOB = (MemberId(letter * 16) for letter in (b"m", b"a", b"b"))
X = Address("ws://x:1")


class World:
    """A detector that knows Ann, at one address; a link to her is there or not, as the test says."""

    def __init__(self) -> None:
        self.links: dict[MemberId, LinkId] = {}
        self.timers = Timers()
        self.members = Members(ME, Card("me"), limits=Limits(), now=0)
        overlay = Overlay(
            self.members, self.links, seeds=(), timers=Timers(), rng=Rng(0), limits=Limits()
        )  # its timers are apart: no dial of its own gets in the way
        self.overlay = overlay
        self.detector = Detector(self.members, overlay, self.links, timers=self.timers)
        self.hear(0)

    def hear(self, now: int, standing: Standing = Standing.ALIVE, incarnation: int = 0) -> list[Member]:
        card = msgspec.msgpack.encode(Card("ann", (X,)))
        more: list[Member] = []
        for rose in self.members.merge([Claim(ANN, incarnation, int(standing), card)], now):
            more += self.detector.heard(rose, now)
            self.overlay.learn(rose, now)
        return more

    def failed(self, now: int) -> list[Standing]:
        self.overlay.failed(X, now)
        return [rose.standing for rose in self.detector.failed(X, now)]

    def wake(self, now: int) -> list[Standing]:
        return [
            rose.standing for key in self.timers.due(now) for rose in self.detector.wake(key, now)
        ]  # a verdict, if one is due

    @property
    def ann(self) -> Standing | None:
        return self.members.standing(ANN)


def test_the_end_of_a_stream_is_suspicion_and_a_dial_in_vain_is_death() -> None:
    world = World()
    (rose,) = world.detector.lost(ANN, 100)
    assert rose.standing is Standing.SUSPECT
    assert world.failed(101) == [Standing.DEAD]
    assert world.failed(102) == []


def test_without_a_dial_it_takes_two_seconds() -> None:
    world = World()
    world.detector.lost(ANN, 0)
    assert world.wake(OWN_VERDICT - 1) == []
    assert world.wake(OWN_VERDICT) == [Standing.DEAD]
    assert OWN_VERDICT == 2 * SECOND


def test_a_link_that_stands_again_is_no_acquittal_but_stops_the_verdict() -> None:
    world = World()
    world.detector.lost(ANN, 0)
    world.links[ANN] = LinkId(1)
    world.detector.linked(ANN)
    assert world.failed(1) == []
    assert world.wake(OWN_VERDICT) == []
    assert world.ann is Standing.SUSPECT
    world.hear(OWN_VERDICT + 1, incarnation=1)
    assert world.ann is Standing.ALIVE
    assert len(world.timers) == 0


def test_a_refutation_ends_the_doubt() -> None:
    world = World()
    world.detector.lost(ANN, 0)
    world.hear(1, incarnation=1)
    assert world.failed(2) == []
    assert world.wake(20 * SECOND) == []
    assert world.ann is Standing.ALIVE


def test_others_suspicion_is_left_to_others_for_twelve_seconds() -> None:
    world = World()
    world.hear(5, Standing.SUSPECT)
    assert world.failed(6) == []
    assert world.wake(5 + HEARD_VERDICT - 1) == []
    assert world.wake(5 + HEARD_VERDICT) == [Standing.DEAD]


def test_after_goodbye_only_repeated_failure_is_suspicious() -> None:
    world = World()
    world.detector.parted(ANN, 0)
    assert world.failed(SECOND) == []
    assert world.failed(3 * SECOND) == [Standing.SUSPECT]
    assert world.failed(4 * SECOND) == [Standing.DEAD]


def test_who_comes_back_after_goodbye_is_as_before() -> None:
    world = World()
    world.detector.parted(ANN, 0)
    world.detector.linked(ANN)
    assert world.failed(3 * SECOND) == []


def test_who_was_never_reached_is_suspected_now_and_then() -> None:
    world = World()
    assert world.failed(UNREACHED - 1) == []
    assert world.failed(UNREACHED) == [Standing.SUSPECT]
    world.hear(UNREACHED + 1, incarnation=1)
    assert world.failed(2 * UNREACHED - 1) == []
    assert world.failed(2 * UNREACHED) == [Standing.SUSPECT]
    assert world.failed(2 * UNREACHED + 1) == [Standing.DEAD]


def test_evidence_makes_suspect_and_the_dead_retired() -> None:
    world = World()
    assert [rose.standing for rose in world.detector.displaced(ANN, 0)] == [Standing.SUSPECT]
    assert world.failed(1) == [Standing.RETIRED]
    assert world.detector.displaced(ANN, 2) == []
    assert world.detector.displaced(BOB, 2) == [], "unknown"
    assert world.detector.displaced(ME, 2) == []


def test_evidence_against_the_dead_retires_them_at_once() -> None:
    world = World()
    world.hear(1, Standing.DEAD)
    assert [rose.standing for rose in world.detector.displaced(ANN, 2)] == [Standing.RETIRED]


def test_who_was_displaced_and_is_said_to_be_dead_is_retired() -> None:
    world = World()
    world.detector.displaced(ANN, 0)
    assert [rose.standing for rose in world.hear(1, Standing.DEAD)] == [Standing.RETIRED]


def test_who_was_displaced_and_refutes_is_alive_and_mortal_as_before() -> None:
    world = World()
    world.detector.displaced(ANN, 0)
    world.hear(1, incarnation=1)
    world.detector.lost(ANN, 2)
    assert world.failed(3) == [Standing.DEAD]


def test_evidence_after_a_lost_link_needs_no_more_waiting() -> None:
    world = World()
    world.detector.lost(ANN, 1)
    world.links[BOB] = LinkId(2)
    world.overlay.want(ANN, 1)
    displaced, _ = world.overlay.reached(X, BOB, 2)
    assert displaced == ANN
    assert [rose.standing for rose in world.detector.displaced(ANN, 2)] == [Standing.RETIRED]


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.LEFT, Standing.RETIRED])
def test_the_gone_are_not_doubted(standing: Standing) -> None:
    world = World()
    world.hear(1, standing)
    assert world.detector.lost(ANN, 2) == []
    world.detector.parted(ANN, 2)
    assert world.failed(100 * SECOND) == []
    assert world.ann is standing


def test_who_leaves_judges_nobody() -> None:
    world = World()
    world.detector.lost(ANN, 0)
    world.detector.stop()
    assert len(world.timers) == 0
    assert world.failed(1) == []
    assert world.detector.displaced(ANN, 2) == []
