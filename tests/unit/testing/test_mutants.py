"""The planted bugs fit the current core, and the page lists them. tests/scenarios/test_hunting.py hunts for some."""

import ast
import difflib
import re
from statistics import median

import pytest

from tests.mutants import ROOT, Mutant, mutated, planted, unseen
from tests.mutants.__main__ import summary, table
from tests.mutants.hunting import Hunted

ALL = (*planted().mutant, *planted().dropped)
DOCUMENT = ROOT / "docs/explanation/testing.md"


def named(title: str) -> Mutant:
    return next(mutant for mutant in ALL if mutant.title == title)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.title)
def test_mutant_fits_its_package_and_differs_in_one_line(mutant: Mutant) -> None:
    before = (ROOT / mutant.package / mutant.file).read_text("utf-8")
    after = mutated(mutant)
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))
    changes = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]
    assert len(changes) <= 2, changes


@pytest.mark.parametrize("mutant", unseen(), ids=lambda mutant: mutant.title)
def test_unseen_mutant_fits_its_package(mutant: Mutant) -> None:
    before = (ROOT / mutant.package / mutant.file).read_text("utf-8")
    assert ast.dump(ast.parse(mutated(mutant))) != ast.dump(ast.parse(before))
    assert mutant.promise


def test_mutants_are_unique_and_dropped_ones_have_a_reason() -> None:
    assert len(planted().mutant) >= 24
    assert len({mutant.title for mutant in ALL}) == len(ALL)
    assert all(mutant.why for mutant in planted().dropped)
    assert not any(mutant.why for mutant in planted().mutant)


def test_mutants_of_the_documentation() -> None:
    page = DOCUMENT.read_text("utf-8")
    found_by = r"(?:invariant \d+|an exception)"
    rows = re.findall(rf"^\| (.+) \| `mpreg_proto/(\S+\.py)` \| ([\w, -]+) \| (\d+) \| {found_by} \|$", page, re.M)
    known = [(mutant.title, mutant.file, mutant.run) for mutant in planted().mutant]
    assert [row[:3] for row in rows] == known
    survived = [int(row[3]) for row in rows]
    assert max(survived) < 2000
    assert f"all {len(known)} were found, after a median of {median(survived):g} seeds" in " ".join(page.split())


def test_report_of_a_survivor() -> None:
    hunted = [
        Hunted(named("members: the last claim about a member wins"), 3, 1, "x"),
        Hunted(named("request state: the number of failovers is not limited"), 9, None),
    ]
    assert table(hunted)[-1].endswith("| 9 | NOT FOUND |")
    assert summary(hunted, 20).startswith(
        "1 of 2 planted bugs were found, after a median of 3 seeds that passed, 3 at most;"
    )
