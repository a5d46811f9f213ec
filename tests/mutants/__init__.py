"""Planted bugs: one-line mutants of the core, which the simulator's invariants must find.

`planted.toml` holds them as data. `python -m tests.mutants` plants each into a copy of the packages and runs seeds of a
scenario with it in a process of its own (hunting.py), until one fails. The packages themselves are never changed.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
PACKAGES = ("mpreg_proto", "mpreg_transports")


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bug: in `file`, below `package`, the only `old` becomes `new`, which changes one line, or a few."""

    title: str
    file: str
    old: str
    new: str
    nodes: int = 5
    """The number of nodes of its runs; rings and their effects begin at 12 (docs/explanation/membership.md)."""
    scenario: str = "swarm"
    """The scenario whose seeds run; a special one for situations that the swarm reaches too rarely."""
    why: str = ""
    """The reason why no seed can find it, for mutants that change no promised behaviour."""
    package: str = "mpreg_proto"
    promise: str = ""
    """The documented sentence that it breaks, and when a user notices; only in unseen.toml."""

    @property
    def run(self) -> str:
        """The size and scenario of its runs, for the table: the nodes, and the scenario unless it is the swarm."""
        return str(self.nodes) if self.scenario == "swarm" else f"{self.scenario}, {self.nodes}"


class Planted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of planted.toml."""

    mutant: tuple[Mutant, ...]
    """The mutants that must be found."""
    dropped: tuple[Mutant, ...] = ()
    """Mutants that were tried and left out, each with its reason."""


def planted() -> Planted:
    """Return the mutants of planted.toml. Raises msgspec.ValidationError for data that is no list of mutants."""
    return msgspec.convert(tomllib.loads((ROOT / "tests/mutants/planted.toml").read_text("utf-8")), Planted)


def unseen() -> tuple[Mutant, ...]:
    """Return the mutants of unseen.toml, which somebody wrote who had read no test, of both packages."""
    return msgspec.convert(tomllib.loads((ROOT / "tests/mutants/unseen.toml").read_text("utf-8")), Planted).mutant


def mutated(mutant: Mutant, folder: Path = ROOT) -> str:
    """Return the text of its file below `folder` with the bug. Raises ValueError unless `old` is there exactly once."""
    text = (folder / mutant.package / mutant.file).read_text("utf-8")
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.title}: what it replaces is {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def copy_packages(source: Path, target: Path) -> Path:
    """Copy the packages from one folder to another, without compiled files; return `target`."""
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def plant(mutant: Mutant, source: Path, target: Path) -> Path:
    """Make a copy of the packages in `source` with the bug in it; return `target`."""
    text = mutated(mutant, source)
    copy_packages(source, target)
    (target / mutant.package / mutant.file).write_text(text, "utf-8")
    return target
