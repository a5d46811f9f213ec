"""The random sample of mutants. It depends on the seed and on the code of each mutant alone.

The order of the mutants is that of their hashes. So a change of one file changes only the mutants of that file in the
sample, and results of the others stay valid.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import msgspec

from tests.mutation import LEFT_OUT, PACKAGES, ROOT
from tests.mutation.operators import Mutant, compiles, mutants


class Drawn(msgspec.Struct, frozen=True):
    """One mutant of a sample."""

    key: str
    """The hash of the file, the place in the code and the change: the same after changes elsewhere in the file."""
    file: str
    """The file, relative to the repository."""
    mutant: Mutant
    old: str
    """The text that the mutant replaces."""

    @property
    def line(self) -> int:
        """The line where the change begins."""
        return (ROOT / self.file).read_bytes()[: self.mutant.start].count(b"\n") + 1

    @property
    def diff(self) -> str:
        """The change on one line."""
        old, new = (" ".join(text.split()) for text in (self.old, self.mutant.new))
        return f"{old} -> {new or '(nothing)'}"


def files() -> list[str]:
    """Return the files that have mutants, sorted."""
    names = (str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(name for name in names if not name.startswith(LEFT_OUT))


def all_mutants(names: list[str]) -> list[Drawn]:
    """Return all mutants of these files; not all of them compile."""
    drawn = []
    for name in names:
        text = (ROOT / name).read_text("utf-8")
        raw, lines = text.encode(), text.splitlines()
        seen: Counter[str] = Counter()
        for mutant in mutants(text):
            statement = "\n".join(line.strip() for line in lines[mutant.first_line - 1 : mutant.last_line])
            old = raw[mutant.start : mutant.end].decode()
            described = "\0".join((name, mutant.where, mutant.operator, statement, old, mutant.new))
            seen[described] += 1
            drawn.append(Drawn(_hash(f"{described}\0{seen[described]}")[:12], name, mutant, old))
    return drawn


def sample(number: int, seed: int, names: list[str] | None = None) -> list[Drawn]:
    """Return so many mutants that compile, in the order in which they are drawn."""
    chosen: list[Drawn] = []
    texts: dict[str, str] = {}
    for one in sorted(all_mutants(files() if names is None else names), key=lambda one: _hash(f"{seed} {one.key}")):
        if len(chosen) == number:
            break
        if one.file not in texts:
            texts[one.file] = Path(ROOT / one.file).read_text("utf-8")
        if compiles(texts[one.file], one.mutant):
            chosen.append(one)
    return chosen


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
