"""The backlog: credit of members, the order of waiting calls, the pace of functions, and admission."""

from dataclasses import dataclass

import pytest

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.requests.backlog import INTERVAL, TARGET, Backlog, CallKey, Credits, Pace, Requirement

A, B = MemberId(b"a"), MemberId(b"b")
F: Requirement = ("f", (), None, None)
GPU: Requirement = ("f", ("gpu",), None, None)
ONE, TWO, THREE = LinkId(1), LinkId(2), LinkId(3)


@dataclass(frozen=True)
class Offer:
    member: MemberId
    capacity: int = 2
    suspect: bool = False
    shown: str = "n#1"
    exact: bool = True
    idempotent: bool = True
    version: str = ""


def key(number: int) -> CallKey:
    return RequestId(number), "x"


def waiting(*clients: LinkId, deadline: int = SECOND, now: int = 0) -> Backlog:
    """Return a backlog with a call of each of these clients, numbered from 1."""
    backlog = Backlog()
    for number, client in enumerate(clients, 1):
        backlog.add(key(number), F, client=client, deadline=deadline, now=now)
    return backlog


def served(backlog: Backlog, most: int = 1_000) -> list[int]:
    """Take calls in turn; return their numbers."""
    numbers: list[int] = []
    while len(numbers) < most and (one := backlog.next("f", lambda requirement: True)) is not None:
        numbers.append(int(one[0]))
        backlog.take_turn(one)
        backlog.discard(one)
    return numbers


# -- credit -----------------------------------------------------------------------------------------------------------


def test_credit_is_what_a_member_announces() -> None:
    credits = Credits()
    for _ in range(2):
        assert credits.allows(Offer(A), "f")
        credits.sent(A, "f")
    assert not credits.allows(Offer(A), "f") and credits.allows(Offer(A), "g") and credits.allows(Offer(B), "f")
    credits.ended(A, "f")
    assert credits.allows(Offer(A), "f")


def test_no_bound_without_a_capacity() -> None:
    credits = Credits()
    for _ in range(1_000):
        credits.sent(A, "f")
    assert credits.allows(Offer(A, capacity=0), "f")


def test_refused_credit_returns_with_results_and_grants() -> None:
    credits = Credits()
    for _ in range(3):
        credits.sent(A, "f")
    credits.ended(A, "f")
    credits.refused(A, "f")
    assert not credits.allows(Offer(A, capacity=8), "f"), "it has two, and takes no third"
    credits.ended(A, "f")
    credits.returned(A, "f", 8)
    assert credits.allows(Offer(A, capacity=8), "f")
    credits.sent(A, "f")
    credits.sent(A, "f")
    assert not credits.allows(Offer(A, capacity=8), "f")
    credits.granted(A, "f")
    assert credits.allows(Offer(A, capacity=8), "f")


def test_window_ends_at_the_capacity() -> None:
    credits = Credits()
    credits.refused(A, "f")
    for _ in range(8):
        credits.returned(A, "f", 8)
    assert credits._windows == {}
    credits.granted(A, "f")
    assert credits._windows == {}, "a grant without a refusal"


def test_window_of_a_member_without_a_capacity_grows_by_one() -> None:
    credits = Credits()
    credits.sent(A, "f")
    credits.refused(A, "f")
    credits.returned(A, "f", 0)
    assert credits.allows(Offer(A, capacity=0), "f")
    credits.sent(A, "f")
    assert not credits.allows(Offer(A, capacity=0), "f")


def test_member_that_refuses_is_tried_again() -> None:
    credits = Credits()
    credits.sent(A, "f")
    credits.refused(A, "f")
    credits.refused(B, "g")
    assert not credits.allows(Offer(A), "f")
    credits.poll("f")
    assert credits.allows(Offer(A), "f") and not credits.allows(Offer(B), "g")
    credits.forget(B)
    assert credits.allows(Offer(B), "g")


def test_suspects_take_no_calls_while_others_only_have_no_place() -> None:
    credits = Credits()
    both = (Offer(A), Offer(B, suspect=True))
    assert credits.allowed(both, "f") == [Offer(A)]
    credits.sent(A, "f")
    credits.sent(A, "f")
    assert credits.allowed(both, "f") == []
    assert credits.allowed((Offer(B, suspect=True),), "f") == (Offer(B, suspect=True),)


# -- order ------------------------------------------------------------------------------------------------------------


def test_clients_take_turns() -> None:
    assert served(waiting(ONE, ONE, ONE, TWO, THREE)) == [1, 4, 5, 2, 3]


def test_client_that_has_used_less_time_is_next() -> None:
    backlog = waiting(ONE, ONE, TWO, TWO, TWO)
    backlog.charge("f", ONE, 3 * MILLISECOND)
    assert served(backlog) == [3, 4, 5, 1, 2]


@pytest.mark.parametrize("turn", [True, False])
def test_time_that_a_call_ran_is_charged_once(turn: bool) -> None:
    backlog = waiting(*[ONE] * 8, *[TWO] * 8)
    charged = backlog.take_turn(key(1)) if turn else 0
    backlog.discard(key(1))
    backlog.ran("f", ONE, 5 * MILLISECOND, 5 * MILLISECOND, charged=charged)
    assert [number >= 9 for number in served(backlog, 6)] == [True] * 5 + [False]


def test_newcomer_has_no_advantage_from_its_absence() -> None:
    backlog = waiting(*[ONE] * 40)
    assert served(backlog, 30) == list(range(1, 31))
    for number in range(50, 60):
        backlog.add(key(number), F, client=TWO, deadline=SECOND, now=0)
    turns = served(backlog, 10)
    assert sum(number >= 50 for number in turns) in (4, 5, 6), turns


def test_stream_of_new_clients_leaves_turns_to_those_that_stay() -> None:
    backlog = waiting(*[ONE] * 10)
    for number in range(100, 200):
        backlog.add(key(number), F, client=LinkId(number), deadline=SECOND, now=0)
        backlog.add(key(number + 100), F, client=LinkId(number + 100), deadline=SECOND, now=0)
        served(backlog, 1)
    assert key(3) not in backlog


def test_time_used_of_one_function_counts_for_no_other() -> None:
    backlog = waiting(ONE, TWO)
    other: Requirement = ("g", (), None, None)
    backlog.add(key(7), other, client=ONE, deadline=SECOND, now=0)
    backlog.charge("g", ONE, SECOND)
    assert served(backlog) == [1, 2]


def test_earliest_deadline_of_one_client_is_first() -> None:
    backlog = Backlog()
    for number, deadline in ((1, 30), (2, 10), (3, 20)):
        backlog.add(key(number), F, client=ONE, deadline=deadline, now=0)
    assert served(backlog) == [2, 3, 1]


def test_call_whose_members_have_no_place_holds_up_no_other() -> None:
    backlog = Backlog()
    backlog.add(key(1), GPU, client=ONE, deadline=1, now=0)
    backlog.add(key(2), F, client=ONE, deadline=2, now=0)
    assert backlog.next("f", lambda requirement: requirement == F) == key(2)
    assert backlog.next("f", lambda requirement: False) is None and backlog.next("g", lambda requirement: True) is None


def test_no_state_of_calls_that_have_left() -> None:
    backlog = waiting(*[LinkId(number % 7) for number in range(100)])
    backlog.add(key(101), GPU, client=ONE, deadline=1, now=0)
    assert len(backlog) == backlog.count("f") == 101 and backlog.has(GPU) and list(backlog.functions) == ["f"]
    emptied = [backlog.discard(key(number)) for number in range(1, 102)]
    assert emptied == [None] * 100 + ["f"]
    assert not backlog.has(GPU) and key(1) not in backlog and backlog.discard(key(1)) is None
    assert (backlog._calls, backlog._queues) == ({}, {})


def test_rows_of_calls_that_have_left_stay_few() -> None:
    backlog = waiting(ONE, deadline=1)
    for number in range(2, 2_000):
        backlog.add(key(number), F, client=ONE, deadline=SECOND, now=0)
        backlog.discard(key(number))
        backlog.add(key(number), F, client=LinkId(number), deadline=SECOND, now=0)
        backlog.discard(key(number))
    queue = backlog._queues["f"]
    assert len(queue.flows[F][ONE].heap) < 100 and len(queue.turns[F]) < 100 and len(queue.used) < 100
    assert served(backlog) == [1]


# -- pace and admission -----------------------------------------------------------------------------------------------


def test_median_runtime_after_five_calls() -> None:
    pace = Pace()
    for ran in (9, 1, 5, 7):
        pace.ran(ran, 0, busy=True)
    assert pace.median == 0
    pace.ran(3, 0, busy=True)
    assert pace.median == 5


def test_gap_counts_only_busy_times() -> None:
    pace = Pace()
    for now in range(0, 60, 10):
        pace.ran(1, now, busy=True)
    assert pace.gap == 10
    pace.ran(1, 10_000, busy=False)
    assert pace.gap == 0


def paced(*clients: LinkId, gap: int = 10 * MILLISECOND) -> Backlog:
    """Return a backlog whose function ends a call each `gap`, which is also how long each runs."""
    backlog = waiting(*clients)
    for number in range(1, 17):
        backlog.ran("f", THREE, gap, number * gap, charged=0)
    return backlog


def test_expected_wait_of_fair_turns() -> None:
    backlog = paced(*[ONE] * 10, TWO)
    assert backlog.expected_wait("f", ONE) == 11 * 10 * MILLISECOND
    assert backlog.expected_wait("f", TWO) == 3 * 10 * MILLISECOND
    assert backlog.expected_wait("f", THREE) == 2 * 10 * MILLISECOND
    assert backlog.expected_wait("g", ONE) == 0


def test_admission_ends_after_an_interval_over_the_target() -> None:
    backlog = paced(*[ONE] * 19, THREE)
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET) is None
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET + INTERVAL - 1) is None
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET + INTERVAL) == 200 * MILLISECOND
    assert backlog.refuses("f", TWO, 60 * SECOND, TARGET + INTERVAL) is None, "its turn comes soon"


def test_client_whose_turn_comes_soon_is_admitted_when_an_overload_begins() -> None:
    backlog = paced(*[ONE] * 20, TWO)
    assert backlog.refuses("f", THREE, 60 * SECOND, TARGET + INTERVAL) is None
    assert backlog._overloads == {}
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET + INTERVAL) == 210 * MILLISECOND


def test_only_client_is_admitted_as_long_as_its_timeouts_allow() -> None:
    backlog = paced(*[ONE] * 1_000)
    assert backlog.refuses("f", ONE, 60 * SECOND, 30 * SECOND) is None
    assert backlog.refuses("f", ONE, 10 * SECOND, 30 * SECOND) == 10 * SECOND


def test_overload_is_over_after_ten_intervals() -> None:
    backlog = paced(*[ONE] * 20, TWO)
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET + INTERVAL) is not None
    later = TARGET + 11 * INTERVAL
    for number in range(1, 22):
        backlog.discard(key(number))
        backlog.add(key(number + 30), F, client=TWO if number > 20 else ONE, deadline=SECOND, now=later)
    assert backlog.refuses("f", ONE, 60 * SECOND, later + TARGET // 2 + 1) is None


def test_admission_goes_on_after_a_short_wait() -> None:
    backlog = paced(*[ONE] * 20)
    assert backlog.refuses("f", ONE, 60 * SECOND, 2 * TARGET) is None
    for number in range(1, 20):
        backlog.discard(key(number))
    backlog.discard(key(20))
    backlog.turn_taken("f", 3 * TARGET)
    backlog.add(key(21), F, client=ONE, deadline=SECOND, now=3 * TARGET)
    assert backlog.refuses("f", ONE, 60 * SECOND, TARGET + INTERVAL) is None


def test_half_the_target_is_too_long_for_a_while_after_an_overload() -> None:
    backlog = paced(*[ONE] * 19, THREE)
    now = TARGET + INTERVAL
    assert backlog.refuses("f", ONE, 60 * SECOND, now) is not None
    for number in range(1, 21):
        backlog.discard(key(number))
    for number in range(30, 42):
        backlog.add(key(number), F, client=ONE if number > 30 else THREE, deadline=SECOND, now=now)
    assert backlog.refuses("f", ONE, 60 * SECOND, now + TARGET // 2) is None
    assert backlog.refuses("f", ONE, 60 * SECOND, now + TARGET // 2 + 1) is not None
    later = now + 11 * INTERVAL
    for number in range(30, 42):
        backlog.discard(key(number))
        backlog.add(key(number + 20), F, client=ONE, deadline=SECOND, now=later)
    assert backlog.refuses("f", ONE, 60 * SECOND, later + TARGET) is None


def test_request_that_would_wait_beyond_its_timeout_is_refused() -> None:
    backlog = paced(*[ONE] * 20)
    assert backlog.refuses("f", ONE, 209 * MILLISECOND, MILLISECOND) == 200 * MILLISECOND
    assert backlog.refuses("f", ONE, 210 * MILLISECOND, MILLISECOND) is None


def test_long_functions_have_a_long_target() -> None:
    backlog = paced(ONE, ONE, THREE, gap=2 * SECOND)
    assert backlog.refuses("f", ONE, 60 * SECOND, 5 * SECOND) is None, "two turns are no overload"
    assert backlog.refuses("f", ONE, 60 * SECOND, 21 * SECOND) is None
    assert backlog.refuses("f", ONE, 60 * SECOND, 22 * SECOND) == 6 * SECOND
