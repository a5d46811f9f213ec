"""The number of operations for one input does not grow with the other state of a node."""

from collections.abc import Callable

import pytest

from tests.benchmarks.growth.requests import FEW, MANY, MEASURES


@pytest.mark.parametrize(("measure", "most"), MEASURES, ids=[measure.__name__ for measure, _ in MEASURES])
def test_operations_for_one_input_at_two_sizes(measure: Callable[[int], float], most: float) -> None:
    few, many = measure(FEW), measure(MANY)
    assert many <= most * few, (few, many)
