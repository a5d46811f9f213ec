"""Each pair of values of the edge matrix, on two real nodes; the full product is `python -m tests.edges`."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.edges.__main__ import installed
from tests.edges.runner import Runner
from tests.edges.table import LOOPS, Cell, pairwise, product

CELLS = pairwise(list(product([loop for loop in LOOPS if installed(loop)])))


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, Runner]]:
    """Runners by event loop; only one exists at a time."""
    made: dict[str, Runner] = {}
    gc.collect()
    gc.freeze()  # each cell collects its own garbage, and should not scan older objects
    try:
        yield made
    finally:
        for runner in made.values():
            runner.__exit__()
        gc.unfreeze()


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell_ends_as_expected_by_the_table(cell: Cell, runners: dict[str, Runner]) -> None:
    if cell.loop not in runners:
        while runners:
            runners.popitem()[1].__exit__()
        runners[cell.loop] = Runner(cell.loop).__enter__()
    found = runners[cell.loop].run(cell)
    assert not found, "\n".join([str(cell), *found])
