"""A hundred seeds of the swarm: 10 or 60 simulated seconds of work under faults, then settling, all invariants on.

The seeds are data (`seeds.json`), spread over numbers of nodes and both framings; `python -m tests.simulations` runs
thousands. A failing seed names the violated invariant and the command that repeats it; its trace is kept in the test's
folder.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mpreg_transports.testing.runs.runs import run_seed

SEEDS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("seeds.json").read_text("utf-8"))


def test_100_different_swarm_seeds() -> None:
    assert len({row["seed"] for row in SEEDS}) == 100


@pytest.mark.parametrize("row", SEEDS, ids=lambda row: f"seed-{row['seed']}")
def test_swarm_seed_keeps_all_invariants(row: dict[str, Any], tmp_path: Path) -> None:
    report = run_seed(row["seed"], nodes=row["nodes"], seconds=row["seconds"], objects=row["objects"], keep=tmp_path)
    if report.violation is not None:
        pytest.fail(report.violation.report, pytrace=False)
    assert report.requests, "something was asked for"
