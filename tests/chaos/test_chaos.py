"""A short run of `python -m tests.chaos` with all kinds of faults: what must never be is not."""

import asyncio
from pathlib import Path

from tests.chaos.run import LATE, Chaos, Outcome, Report

SEED = 7


def test_five_nodes_under_all_faults(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed=SEED, rate=40, faults=("kill", "stop", "links"), pause=1.0)
    report = asyncio.run(chaos.run(15))
    assert list(report.problems()) == [], f"seed {SEED}"
    assert report.latest <= 5 * LATE + report.lag, f"seed {SEED}"
    assert len(report.outcomes) >= 590 and report.faults.total() >= 3
    done = sum(not one.error for one in report.outcomes)
    assert done >= len(report.outcomes) // 2, f"{done} of {len(report.outcomes)} requests had a result, seed {SEED}"


def test_problems_that_a_report_names() -> None:
    report = Report(1, unfinished=2)
    report.bodies.update(["twice", "twice", "denied"])
    report.outcomes = [
        Outcome("once", 20, ["twice"]),
        Outcome("once", 20, ["never"]),
        Outcome("once", 20, ["denied"], error=1024, text="draining"),
        Outcome("once", 20, ["lost"], error=1023, maybe_executed=True),
        Outcome("safe", 20, [], wrong="the result is {}"),
    ]
    assert list(report.problems()) == [
        "2 requests never ended",
        "twice, which is not idempotent, started 2 times",
        "twice has a result and started 2 times",
        "never has a result and started 0 times",
        "denied started, and its error 1024 promised that it had not: draining",
        "a safe request: the result is {}",
    ]
