"""The hunt for planted bugs finds these bugs, and only these."""

from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, copy_packages, plant, planted
from tests.mutants.__main__ import main
from tests.mutants.hunting import Hunted, first_failing, hunt


def named(title: str) -> Mutant:
    return next(mutant for mutant in planted().mutant if mutant.title == title)


@pytest.mark.parametrize(
    ("title", "invariant"),
    [
        ("members: the last claim about a member wins", 1),
        ("router: a dispatch has no deadline", 11),
        ("coordinator: dispatches of an ended request are not cancelled", 15),
    ],
)
def test_planted_bug_is_found_within_a_few_seeds(title: str, invariant: int) -> None:
    hunted = hunt(named(title), ROOT, seeds=12, seconds=20)
    assert hunted.invariant == invariant, hunted
    assert hunted.survived < 12
    assert hunted.text.startswith(f"invariant {invariant}: ")


def test_mutant_without_effect_survives(tmp_path: Path) -> None:
    same = Mutant("nothing", "rng.py", '"""', '"""', why="it is the same")
    with pytest.raises(ValueError, match="nothing: what it replaces is"):
        hunt(same, ROOT, seeds=1, seconds=5)
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert hunt(word, ROOT, seeds=2, seconds=5) == Hunted(word, 2, None)


def test_seed_that_fails_without_the_mutant_does_not_count(tmp_path: Path) -> None:
    broken = plant(named("router: a dispatch has no deadline"), ROOT, tmp_path / "broken")
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert hunt(word, broken, seeds=1, seconds=5) == Hunted(word, 0, None)


def test_mutant_runs_in_the_copy(tmp_path: Path) -> None:
    copy = copy_packages(ROOT, tmp_path / "copy")
    word = Mutant("a word", "timers.py", "_SLACK = 64", "_SLACK = 63")
    assert first_failing(copy, 0, 1, 2.0, word) is None
    (copy / "mpreg_proto" / "__init__.py").write_text("raise ImportError('this one')", "utf-8")
    with pytest.raises(RuntimeError, match="this one"):
        first_failing(copy, 0, 1, 2.0, word)


def test_output_of_the_hunting_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "the last claim about", "--seeds", "12", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| members: the last claim about a member wins | `mpreg_proto/cluster/members.py` | 5 | " in printed
    assert "1 of 1 planted bugs were found, after a median of " in printed
    assert main(["--list", "--only", "deadline"]) == 0
    assert "router.py                 router: a dispatch has no deadline" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--only", "no such thing"])
