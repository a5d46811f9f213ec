"""The table of the edge matrix is complete, and its pairwise selection covers all pairs."""

from __future__ import annotations

import pytest

from mpreg_proto.errors import BY_CODE
from tests.edges import bodies, odd
from tests.edges.table import (
    CLIENTS,
    HTTP_STATUS,
    LIVES,
    LOOPS,
    OUTCOMES,
    RAISES,
    RESULTS,
    WAYS,
    WHERES,
    Cell,
    exclusion,
    expected,
    pairs,
    pairwise,
    product,
)


def test_every_combination_has_a_row() -> None:
    for loop in LOOPS:
        for way in WAYS:
            for outcome in OUTCOMES:
                for where in WHERES:
                    for client in CLIENTS:
                        cell = Cell(loop, way, outcome, where, client)
                        if exclusion(cell):
                            with pytest.raises(LookupError):
                                expected(cell)
                        else:
                            want = expected(cell)
                            assert (want.end == "error") == (want.code in BY_CODE), cell
                            assert want.code in HTTP_STATUS, cell


def test_makers_cover_exceptions_and_results() -> None:
    assert set(odd.EXCEPTIONS) == set(RAISES)
    assert set(odd.RESULTS) | {"returns"} == set(RESULTS)
    assert set(bodies.HELD) - {"blocks"} <= set(LIVES)


def test_makers_return_an_exception() -> None:
    for name, make in odd.EXCEPTIONS.items():
        assert isinstance(make(), BaseException), name


@pytest.mark.parametrize("loops", [LOOPS[:1], LOOPS[:2]])
def test_pairwise_coverage(loops: tuple[str, ...]) -> None:
    cells = list(product(loops))
    chosen = pairwise(cells)
    assert {pair for cell in chosen for pair in pairs(cell)} == {pair for cell in cells for pair in pairs(cell)}
    assert len(chosen) == len(set(chosen)) < len(cells) / 6


def test_pairwise_order_is_repeatable() -> None:
    cells = list(product(LOOPS[:1]))
    assert pairwise(cells) == pairwise(cells)
