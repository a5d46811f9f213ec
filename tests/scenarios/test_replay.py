"""A replay repeats a saved run of the swarm exactly, by its steps and by its times."""

from pathlib import Path

import pytest

from mpreg_transports.testing.runs.replay import replay, run_case, saved_case
from mpreg_transports.testing.runs.scenarios import case


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_replay_of_a_swarm_run_draws_no_faults(tmp_path: Path, seed: int) -> None:
    ran = run_case(case(seed=seed, seconds=20))
    file = tmp_path / "x.jsonl"
    ran.sim.trace.save(file)
    assert replay(file).trace.hash == ran.sim.trace.hash
    assert run_case(saved_case(file)).sim.trace.hash == ran.sim.trace.hash, "and by time"
