"""Shrinking finds a small cause: on plain lists, against the needed items, and on whole simulations."""

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_transports.testing.runs import shrink as shrinking
from mpreg_transports.testing.runs.failures import describe_action
from mpreg_transports.testing.runs.replay import run_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.runs.shrink import NotFailing, ddmin, shrink
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher


@given(st.lists(st.integers(0, 50), max_size=60), st.sets(st.integers(0, 50), max_size=6))
def test_ddmin_keeps_only_the_needed_items(items: list[int], needed: set[int]) -> None:
    needed &= set(items)

    def fails(part: Sequence[int]) -> bool:
        return needed <= set(part)

    kept = ddmin(items, fails)
    assert sorted(kept) == sorted(needed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 100))
def test_ddmin_result_needs_each_item(items: list[int], wanted: int) -> None:
    """A cause that is no set of items: a sum, which many minimal parts reach."""

    def fails(part: Sequence[int]) -> bool:
        return sum(part) >= wanted

    if fails(items):
        kept = ddmin(items, fails)
        assert fails(kept)
        assert not any(fails(kept[:place] + kept[place + 1 :]) for place in range(len(kept)))


def test_ddmin_needs_few_tries() -> None:
    asked = 0

    def fails(part: Sequence[int]) -> bool:
        nonlocal asked
        asked += 1
        return 400 in part and 777 in part

    assert ddmin(list(range(1000)), fails) == [400, 777]
    assert asked < 120


class NoTwoCrashesOfOne(Watcher):
    """Not an invariant: fails for a cause of two actions."""

    def __init__(self) -> None:
        self.crashed_before: set[str] = set()

    def crashed(self, host: NodeHost) -> None:
        if host.name in self.crashed_before:
            raise Violation(3, f"{host.name} has ended twice")
        self.crashed_before.add(host.name)


def watchers() -> list[Watcher]:
    return [NoTwoCrashesOfOne()]


def test_run_shrinks_to_its_cause() -> None:
    churning = case("churn", seed=2, seconds=60, objects=True)
    assert run_case(churning, watchers=watchers).invariant == 3
    small = shrink(churning, watchers=watchers)
    assert small.minimal
    assert small.ran.invariant == 3
    names = [action.name for action in small.case.script]
    assert len(names) <= 3, names
    assert set(names) <= {"crash", "leave", "restart"}
    assert len(small.case.nodes) == 1
    assert small.case.seconds < 60
    assert run_case(small.case, watchers=watchers).invariant == 3
    words = small.describe()
    assert f"with {len(names)} of {len(churning.script)} actions, 1 nodes" in words
    assert describe_action(small.case.script[0]) in words


def test_shrinking_stops_after_the_given_runs() -> None:
    small = shrink(case("churn", seed=2, seconds=60, objects=True), watchers=watchers, runs=8)
    assert small.runs == 8
    assert not small.minimal
    assert small.ran.invariant == 3


def test_shrinking_stops_after_the_given_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes 10 s by this clock, so the third is the last one."""
    seconds = itertools.count(0, 5)
    monkeypatch.setattr(shrinking.time, "monotonic", lambda: float(next(seconds)))
    lines: list[str] = []
    small = shrink(
        case("churn", seed=2, seconds=60, objects=True), watchers=watchers, limit=30.0, progress=lines.append
    )
    assert 2 <= small.runs <= 4
    assert not small.minimal
    assert len(lines) == small.runs
    assert re.fullmatch(r"1 runs in \d+ s: \d+ actions, 5 nodes, 60 s still fail", lines[0])


def test_run_that_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(NotFailing, match="nothing to shrink"):
        shrink(case("steady", seed=0, seconds=5), watchers=list)


class Breaks(Watcher):
    """A defect: an exception, as the core might raise it."""

    def crashed(self, host: NodeHost) -> None:
        raise KeyError(host.name)


def test_run_with_an_exception_is_shrunk() -> None:
    small = shrink(case("churn", seed=2, seconds=30, objects=True), watchers=lambda: [Breaks()])
    assert small.ran.invariant == 0
    assert len(small.case.script) == 1
    assert small.describe().startswith("KeyError: 'n")
