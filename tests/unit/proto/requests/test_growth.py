"""The work for one input of the request core does not grow with all else that a node holds."""

from collections.abc import Callable

import pytest

from tests.benchmarks.growth.requests import FEW, MANY, MEASURES


@pytest.mark.parametrize(("measure", "most"), MEASURES, ids=[measure.__name__ for measure, _ in MEASURES])
def test_operations_at_two_sizes(measure: Callable[[int], float], most: float) -> None:
    few, many = measure(FEW), measure(MANY)
    assert many <= most * few, (few, many)
