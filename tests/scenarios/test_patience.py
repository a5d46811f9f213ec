"""Slow or deliberate events on clusters of two to four nodes: no member and no call is lost by them.

The swarm draws such faults too, among others. Here there are no other faults, so that two more parts of invariants 13
and 14 apply (`invariants_slow_peers.py`).
"""

from pathlib import Path

import pytest

from mpreg_transports.testing.runs.runs import run_seed

CASES = [(scenario, nodes) for scenario in ("pauses", "slow-lines", "meetings") for nodes in (2, 3, 4)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scenario", "nodes"), CASES)
def test_no_member_and_no_call_is_lost_by_slowness(scenario: str, nodes: int, seed: int, tmp_path: Path) -> None:
    report = run_seed(seed, scenario=scenario, nodes=nodes, keep=tmp_path)
    if report.violation is not None:
        pytest.fail(report.violation.report, pytrace=False)
    assert report.requests["ok"], "something was asked for"
