"""Planted bugs: one-line mutants of the core, which the simulator's invariants must find.

`planted.toml` holds them as data. `python -m tests.mutants` plants each into a copy of the packages and runs seeds of
a scenario over it in a process of its own (hunting.py), until one fails. The packages themselves are never changed.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
PACKAGES = ("mpreg_proto", "mpreg_transports")


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bug: in `file`, below `mpreg_proto`, the only `old` becomes `new`, which changes one line."""

    title: str
    file: str
    old: str
    new: str
    nodes: int = 5
    """How many it is hunted with: rings and all that follows from them begin at 12 (docs/explanation/membership.md)."""
    scenario: str = "swarm"
    """Whose seeds are run; a story of its own for what the swarm brings about too rarely."""
    why: str = ""
    """Why no seed can find it, for those that change nothing that anybody is promised."""

    @property
    def run(self) -> str:
        """What it is hunted with, for the table: how many nodes, and the scenario unless it is the swarm."""
        return str(self.nodes) if self.scenario == "swarm" else f"{self.scenario}, {self.nodes}"


class Planted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of planted.toml."""

    mutant: tuple[Mutant, ...]
    """Each must be found."""
    dropped: tuple[Mutant, ...] = ()
    """Tried and left out, each with its reason."""


def planted() -> Planted:
    """The mutants as they are written down. Raises msgspec.ValidationError for what is no list of mutants."""
    return msgspec.convert(tomllib.loads((ROOT / "tests/mutants/planted.toml").read_text("utf-8")), Planted)


def mutated(mutant: Mutant, folder: Path = ROOT) -> str:
    """The text of its file below `folder` with the bug. Raises ValueError unless `old` is there exactly once."""
    text = (folder / "mpreg_proto" / mutant.file).read_text("utf-8")
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.title}: what it replaces is {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def copy_packages(source: Path, target: Path) -> Path:
    """Copy the packages from one folder to another, without what was compiled from them; gives `target`."""
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def plant(mutant: Mutant, source: Path, target: Path) -> Path:
    """A copy of the packages in `source` with the bug in it; gives `target`."""
    text = mutated(mutant, source)
    copy_packages(source, target)
    (target / "mpreg_proto" / mutant.file).write_text(text, "utf-8")
    return target
