"""The planted bugs fit the core as it is, and the hunt for them finds what it should, and only that."""

import ast
import difflib
import re
from pathlib import Path
from statistics import median

import pytest

from tests.mutants import ROOT, Mutant, copy_packages, mutated, plant, planted
from tests.mutants.__main__ import main, summary, table
from tests.mutants.hunting import Hunted, first_failing, hunt

ALL = (*planted().mutant, *planted().dropped)
DOCUMENT = ROOT / "docs/explanation/testing.md"


def named(title: str) -> Mutant:
    return next(mutant for mutant in ALL if mutant.title == title)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.title)
def test_a_mutant_fits_the_core_and_differs_in_one_line(mutant: Mutant) -> None:
    before = (ROOT / "mpreg_proto" / mutant.file).read_text("utf-8")
    after = mutated(mutant)
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))
    changes = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]
    assert len(changes) <= 2, changes


def test_there_are_many_each_once_and_those_left_out_say_why() -> None:
    assert len(planted().mutant) >= 24
    assert len({mutant.title for mutant in ALL}) == len(ALL)
    assert all(mutant.why for mutant in planted().dropped)
    assert not any(mutant.why for mutant in planted().mutant)


def test_the_table_in_the_documentation_is_of_these() -> None:
    page = DOCUMENT.read_text("utf-8")
    found_by = r"(?:invariant \d+|an exception)"
    rows = re.findall(rf"^\| (.+) \| `mpreg_proto/(\S+\.py)` \| ([\w, -]+) \| (\d+) \| {found_by} \|$", page, re.M)
    known = [(mutant.title, mutant.file, mutant.run) for mutant in planted().mutant]
    assert [row[:3] for row in rows] == known
    survived = [int(row[3]) for row in rows]
    assert max(survived) < 2000
    assert f"all {len(known)} were found, after a median of {median(survived):g} seeds" in " ".join(page.split())


@pytest.mark.parametrize(
    ("title", "invariant"),
    [
        ("the last claim about a member wins", 1),
        ("the deadline is not passed on", 11),
        ("what is out of a request that is over is not called off", 15),
    ],
)
def test_a_planted_bug_is_found_within_a_few_seeds(title: str, invariant: int) -> None:
    hunted = hunt(named(title), ROOT, seeds=12, seconds=20)
    assert hunted.invariant == invariant, hunted
    assert hunted.survived < 12
    assert hunted.text.startswith(f"invariant {invariant}: ")


def test_what_changes_nothing_survives(tmp_path: Path) -> None:
    same = Mutant("nothing", "rng.py", '"""', '"""', why="it is the same")
    with pytest.raises(ValueError, match="nothing: what it replaces is"):
        hunt(same, ROOT, seeds=1, seconds=5)
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert hunt(word, ROOT, seeds=2, seconds=5) == Hunted(word, 2, None)


def test_a_seed_that_fails_anyhow_finds_nothing(tmp_path: Path) -> None:
    broken = plant(named("the deadline is not passed on"), ROOT, tmp_path / "broken")
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert hunt(word, broken, seeds=1, seconds=5) == Hunted(word, 0, None)


def test_the_copy_is_what_runs(tmp_path: Path) -> None:
    copy = copy_packages(ROOT, tmp_path / "copy")
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert first_failing(copy, 0, 1, 2.0, word) is None
    (copy / "mpreg_proto" / "__init__.py").write_text("raise ImportError('this one')", "utf-8")
    with pytest.raises(RuntimeError, match="this one"):
        first_failing(copy, 0, 1, 2.0, word)


def test_the_command_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "the last claim", "--seeds", "12", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| the last claim about a member wins | `mpreg_proto/cluster/members.py` | 5 | " in printed
    assert "1 of 1 planted bugs were found, after a median of " in printed
    assert main(["--list", "--only", "deadline"]) == 0
    assert "router.py                 the deadline is not passed on" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--only", "no such thing"])


def test_a_survivor_is_said() -> None:
    hunted = [
        Hunted(named("the last claim about a member wins"), 3, 1, "x"),
        Hunted(named("failovers have no bound"), 9, None),
    ]
    assert table(hunted)[-1].endswith("| 9 | NOT FOUND |")
    assert summary(hunted, 20).startswith(
        "1 of 2 planted bugs were found, after a median of 3 seeds that passed, 3 at most;"
    )
