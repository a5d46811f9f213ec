"""The table of the guarantees in docs/explanation/testing.md: each test that it names exists, in the right place."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import PAGES, ROOT

VIRTUAL = ("scenarios", "adapters")
"""The folders of tests in virtual time."""


def rows() -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each row of the table with the names of its tests: in virtual time, and others."""
    page = PAGES["docs/explanation/testing.md"]
    table = page.partition("## The guarantees, row by row\n")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| ") and not line.startswith(("| row", "| **")):
            row, virtual, other = (cell.strip() for cell in line.strip("|").split("|"))
            yield row, re.findall(r"`(test_\w+)`", virtual), re.findall(r"`(test_\w+)`", other)


ROWS = list(rows())


def names(*folders: str) -> set[str]:
    """Return the names of all tests below these folders of tests/."""
    files = [path for folder in folders for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    return {name for path in files for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.M)}


def test_rows_of_all_four_parts() -> None:
    assert len(ROWS) >= 36
    assert len({row for row, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("row", "virtual", "other"), ROWS, ids=[row for row, _, _ in ROWS])
def test_named_tests_exist(row: str, virtual: list[str], other: list[str]) -> None:
    assert virtual or other
    assert set(virtual) <= names(*VIRTUAL)
    assert set(other) <= names("integration", "chaos", "dask", "unit")
