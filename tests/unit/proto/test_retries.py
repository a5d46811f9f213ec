from __future__ import annotations

import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.retries import (
    CALLS_PER_REPEAT,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_SAVED,
    RESERVE,
    RetryBudget,
    is_repeatable,
    pause,
)
from mpreg_proto.wire.messages import Done, Result

REFUSED = {"maybe_executed": False}


def spent(budget: RetryBudget) -> int:
    """Spend all; return how much that was."""
    count = 0
    while budget.spend():
        count += 1
    return count


def test_budget_reserve_then_one_repeat_for_ten_calls() -> None:
    budget = RetryBudget()
    assert spent(budget) == RESERVE
    for _ in range(CALLS_PER_REPEAT - 1):
        budget.add_call()
    assert not budget.spend(), "nothing was taken"
    budget.add_call()
    assert spent(budget) == 1


def test_budget_saves_up_a_bounded_number_of_repeats() -> None:
    budget = RetryBudget()
    for _ in range(10 * MOST_SAVED * CALLS_PER_REPEAT):
        budget.add_call()
    assert spent(budget) == MOST_SAVED


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(1), False),
        (Result(1, fault=Fault(1022, "", REFUSED)), True),
        (Result(1, fault=Fault(1024, "", REFUSED)), True),
        (Result(1, fault=Fault(1024, "", {"maybe_executed": True})), False),
        (Result(1, fault=Fault(1024, "", {"maybe_executed": 0})), False),
        (Result(1, fault=Fault(1022, "")), False),
        (Result(1, fault=Fault(1001, "", REFUSED)), False),
        (Result(1, fault=Fault(1020, "", REFUSED)), False),
        (Result(1, fault=Fault(1023, "", REFUSED)), False),
        (Result(1, (Done("x", b"\x01"),), fault=Fault(1022, "", REFUSED)), False),
    ],
)
def test_repeatable_results(result: Result, expected: bool) -> None:
    assert is_repeatable(result) is expected


def test_pause_doubles_up_to_the_longest_with_full_jitter() -> None:
    fault = Fault(1022, "")
    assert [pause(fault, repeats, 1.0) for repeats in range(3)] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pause(fault, 10, 1.0) == pause(fault, 10_000, 1.0) == LONGEST_PAUSE
    assert [pause(fault, 10, fraction) for fraction in (0.0, 0.25)] == [0, LONGEST_PAUSE // 4]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.5, 500 * MILLISECOND),
        (2, 2 * SECOND),
        (-1, 0),
        ("1", 0),
        (True, 0),
        (float("nan"), 0),
        (float("inf"), 86_400 * SECOND),
        (None, 0),
        (1e300, 86_400 * SECOND),
        (10**400, 86_400 * SECOND),
    ],
)
def test_pause_includes_the_time_that_the_node_asks_for(after: object, expected: int) -> None:
    fault = Fault(1022, "", {"retry_after": after})
    assert pause(fault, 0, 0.0) == expected
    assert pause(fault, 0, 1.0) == expected + FIRST_PAUSE
