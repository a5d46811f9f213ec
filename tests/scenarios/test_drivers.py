"""The swarm on nodes with bad drivers: late and missing reports to the core, with all invariants."""

import pytest

from mpreg_transports.testing.runs.runs import run_seed


@pytest.mark.parametrize("seed", range(12))
def test_bad_drivers_keep_all_invariants(seed: int) -> None:
    report = run_seed(seed, scenario="drivers", nodes=3 + seed % 3, seconds=10, objects=seed % 5 == 4)
    if report.violation is not None:
        pytest.fail(report.violation.report, pytrace=False)
