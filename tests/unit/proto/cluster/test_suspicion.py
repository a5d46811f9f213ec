"""The suspicion timeout: the time from SUSPECT to DEAD."""

from mpreg_proto.cluster.members import Member
from mpreg_proto.cluster.suspicion import (
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    SMALL_CLUSTER_TIMEOUT,
    UNOBSERVED_TIMEOUT,
    Suspicions,
    confirmations_needed,
    suspicion_timeout,
)
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.timers import Timers

SHE = MemberId(b"s" * 16)
OBSERVERS = tuple(MemberId(letter.encode() * 16) for letter in "abcdefghij")


def suspect(*accusers: MemberId) -> Member:
    member = Member(SHE, 0, Standing.SUSPECT, since=0)
    member.accusers = accusers
    return member


def test_confirmations_needed_and_suspicion_timeout() -> None:
    assert [confirmations_needed(observers) for observers in (0, 1, 3, 4, 6, 7, 10, 11)] == [1, 1, 1, 2, 2, 3, 3, 3]
    assert [suspicion_timeout(accusers, 10) for accusers in (0, 1, 3, 4)] == [
        MAX_TIMEOUT,
        MAX_TIMEOUT,
        MIN_TIMEOUT,
        MIN_TIMEOUT,
    ]
    assert MIN_TIMEOUT < suspicion_timeout(2, 10) < MAX_TIMEOUT
    assert [suspicion_timeout(2, 10, health_multiplier=health_multiplier) for health_multiplier in (1, 3)] == [
        suspicion_timeout(2, 10),
        3 * suspicion_timeout(2, 10),
    ]


def test_suspicion_timeout_of_a_small_cluster_is_constant() -> None:
    cases = [
        (accusers, observers, health_multiplier)
        for accusers in (0, 1, 3)
        for observers in (1, 2, 3)
        for health_multiplier in (1, 8)
    ]
    assert {
        suspicion_timeout(accusers, observers, health_multiplier=health_multiplier)
        for accusers, observers, health_multiplier in cases
    } == {SMALL_CLUSTER_TIMEOUT}
    assert suspicion_timeout(1, 4) == MAX_TIMEOUT


def test_link_end_shortens_a_suspicion_in_a_small_cluster_only() -> None:
    for observers, due in ((OBSERVERS[:3], 9 + MIN_TIMEOUT), (OBSERVERS, 7 + MAX_TIMEOUT)):
        timers = Timers()
        suspicions = Suspicions(timers)
        suspicions.observe(suspect(OBSERVERS[0]), observers, 7, health_multiplier=1)
        suspicions.observe(suspect(OBSERVERS[0]), observers, 9, health_multiplier=1, ended=9)
        assert timers.next() == due


def test_suspicion_timeout_shrinks_with_accusers() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    assert (
        suspicions.observe(suspect(OBSERVERS[0]), OBSERVERS, 7, health_multiplier=1)
        and timers.next() == 7 + MAX_TIMEOUT
    )
    assert not suspicions.observe(suspect(*OBSERVERS[:4]), OBSERVERS, 9, health_multiplier=1)
    assert timers.next() == 7 + MIN_TIMEOUT, "counted from when it began"
    suspicions.observe(suspect(*OBSERVERS[:4]), OBSERVERS, 7 + MAX_TIMEOUT, health_multiplier=1)
    assert timers.next() == 7 + MAX_TIMEOUT, "never in the past"
    suspicions.observe(suspect(MemberId(b"z" * 16)), OBSERVERS, 9, health_multiplier=2)
    assert timers.next() == 7 + 2 * MAX_TIMEOUT, "who is no observer does not count; a slow node takes longer"


def test_suspicion_by_a_member_that_is_no_observer() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    suspicions.add_unobserved(suspect(), 7, health_multiplier=1)
    assert (suspicions.since(SHE), suspicions.unobserved(), timers.next()) == (7, [SHE], 7 + UNOBSERVED_TIMEOUT)
    assert suspicions.observe(suspect(), OBSERVERS, 9, health_multiplier=1) and timers.next() == 7 + MAX_TIMEOUT
    suspicions.add_unobserved(suspect(), 9, health_multiplier=1)
    assert (suspicions.unobserved(), timers.next()) == ([], 7 + MAX_TIMEOUT), "an observer once is one until it ends"
    suspicions.restart(SHE, 20, health_multiplier=1, observers=0)
    assert (suspicions.since(SHE), timers.next()) == (20, 20 + UNOBSERVED_TIMEOUT)
    suspicions.restart(SHE, 30, health_multiplier=2, observers=0)
    assert (suspicions.since(SHE), timers.next()) == (30, 30 + 2 * UNOBSERVED_TIMEOUT)
    suspicions.forget(SHE)
    assert (suspicions.since(SHE), suspicions.all(), timers.next()) == (None, [], None)


def test_restart_of_an_observed_suspicion_has_the_longest_timeout() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    suspicions.observe(suspect(*OBSERVERS[:3]), OBSERVERS, 7, health_multiplier=1)
    assert timers.next() == 7 + MIN_TIMEOUT
    suspicions.restart(SHE, 20, health_multiplier=1, observers=len(OBSERVERS))
    assert (suspicions.since(SHE), timers.next()) == (20, 20 + MAX_TIMEOUT)
    suspicions.restart(SHE, 30, health_multiplier=3, observers=len(OBSERVERS))
    assert timers.next() == 30 + 3 * MAX_TIMEOUT
    suspicions.restart(SHE, 40, health_multiplier=3, observers=3)
    assert timers.next() == 40 + SMALL_CLUSTER_TIMEOUT


def test_stopped_suspicions_have_no_timers() -> None:
    timers = Timers()
    suspicions = Suspicions(timers)
    suspicions.observe(suspect(OBSERVERS[0]), OBSERVERS, 7, health_multiplier=1)
    suspicions.stop()
    assert timers.next() is None and suspicions.all() == [SHE]
