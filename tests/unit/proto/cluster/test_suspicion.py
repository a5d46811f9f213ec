"""How long a suspicion takes to become a verdict."""

from mpreg_proto.cluster.members import Member
from mpreg_proto.cluster.suspicion import HEARD_VERDICT, LONGEST, PAUSE, SHORTEST, Suspicions, enough, patience
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.timers import Timers

SHE = MemberId(b"s" * 16)
OBSERVERS = tuple(MemberId(letter.encode() * 16) for letter in "abcdefghij")


def suspect(*accusers: MemberId) -> Member:
    member = Member(SHE, 0, Standing.SUSPECT, since=0)
    member.accusers = accusers
    return member


def test_how_many_must_agree_and_how_long_it_takes() -> None:
    assert [enough(observers) for observers in (0, 1, 3, 4, 6, 7, 10, 11)] == [1, 1, 1, 2, 2, 3, 3, 3]
    assert [patience(accusers, 10) for accusers in (0, 1, 3, 4)] == [LONGEST, LONGEST, SHORTEST, SHORTEST]
    assert SHORTEST < patience(2, 10) < LONGEST
    assert [patience(2, 10, health=health) for health in (1, 3)] == [patience(2, 10), 3 * patience(2, 10)]


def test_patience_of_a_small_cluster_depends_on_nobody() -> None:
    cases = [(accusers, observers, health) for accusers in (0, 1, 3) for observers in (1, 2, 3) for health in (1, 8)]
    assert {patience(accusers, observers, health=health) for accusers, observers, health in cases} == {PAUSE}
    assert patience(1, 4) == LONGEST


def test_link_end_shortens_a_suspicion_in_a_small_cluster_only() -> None:
    for observers, due in ((OBSERVERS[:3], 9 + SHORTEST), (OBSERVERS, 7 + LONGEST)):
        timers = Timers()
        suspicions = Suspicions(timers)
        suspicions.observe(suspect(OBSERVERS[0]), observers, 7, health=1)
        suspicions.observe(suspect(OBSERVERS[0]), observers, 9, health=1, ended=9)
        assert timers.next() == due


def test_the_more_observers_agree_the_sooner_the_verdict_comes() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    assert suspicions.observe(suspect(OBSERVERS[0]), OBSERVERS, 7, health=1) and timers.next() == 7 + LONGEST
    assert not suspicions.observe(suspect(*OBSERVERS[:4]), OBSERVERS, 9, health=1)
    assert timers.next() == 7 + SHORTEST, "counted from when it began"
    suspicions.observe(suspect(*OBSERVERS[:4]), OBSERVERS, 7 + LONGEST, health=1)
    assert timers.next() == 7 + LONGEST, "never in the past"
    suspicions.observe(suspect(MemberId(b"z" * 16)), OBSERVERS, 9, health=2)
    assert timers.next() == 7 + 2 * LONGEST, "who is no observer does not count; a slow node takes longer"


def test_who_only_hears_of_it_leaves_the_verdict_to_the_observers() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    suspicions.hear(suspect(), 7, health=1)
    assert (suspicions.since(SHE), suspicions.unobserved(), timers.next()) == (7, [SHE], 7 + HEARD_VERDICT)
    assert suspicions.observe(suspect(), OBSERVERS, 9, health=1) and timers.next() == 7 + LONGEST
    suspicions.hear(suspect(), 9, health=1)
    assert (suspicions.unobserved(), timers.next()) == ([], 7 + LONGEST), "an observer once is one until it ends"
    suspicions.again(SHE, 20, health=1, observers=0)
    assert (suspicions.since(SHE), timers.next()) == (20, 20 + HEARD_VERDICT)
    suspicions.forget(SHE)
    assert (suspicions.since(SHE), suspicions.all(), timers.next()) == (None, [], None)
