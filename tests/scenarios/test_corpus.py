"""Scenarios that failed in the past, with all invariants on (tests/simulations_corpus)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mpreg_transports.testing.runs.replay import run_case, saved_case
from mpreg_transports.testing.runs.scenarios import case as drawn_case
from tests.simulations_corpus import past_scenarios, saved_runs

SCENARIOS = past_scenarios()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_corpus_scenario(scenario: Callable[[], None]) -> None:
    scenario()


def run_saved(file: Path) -> str:
    """Repeat the script of a saved run, by time. Return the violation, or "" if there is none."""
    ran = run_case(saved_case(file))
    return "" if ran.error is None else f"{file.name}: {ran.sim.violation}"


def test_corpus_saved_runs() -> None:
    assert [fault for file in saved_runs() if (fault := run_saved(file))] == []


def test_saved_run_can_enter_the_corpus(tmp_path: Path) -> None:
    case = drawn_case("partition", nodes=3, seed=5, seconds=6.0)
    file = tmp_path / "partition.jsonl"
    ran = run_case(case)
    ran.sim.trace.save(file)
    assert ran.error is None
    assert [(one.at, one.name) for one in saved_case(file).script] == [(one.at, one.name) for one in case.script]
    assert run_saved(file) == ""


def test_corpus_is_not_empty() -> None:
    assert len(SCENARIOS) >= 4
