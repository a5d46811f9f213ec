"""Stories of what is slow or done on purpose, on clusters of two to four nodes: no member is lost by it, and no call.

The swarm draws such faults too, among others; here nothing else goes wrong, so that two more parts of invariants 13 and
14 apply (`invariants_slow_peers.py`).
"""

from pathlib import Path

import pytest

from mpreg_transports.testing.runs.runs import run_seed

STORIES = [(scenario, nodes) for scenario in ("pauses", "slow-lines", "meetings") for nodes in (2, 3, 4)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scenario", "nodes"), STORIES)
def test_patience_with_what_is_slow(scenario: str, nodes: int, seed: int, tmp_path: Path) -> None:
    report = run_seed(seed, scenario=scenario, nodes=nodes, keep=tmp_path)
    if report.violation is not None:
        pytest.fail(report.violation.report, pytrace=False)
    assert report.requests["ok"], "something was asked for"
