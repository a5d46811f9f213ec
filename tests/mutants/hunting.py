"""The number of seeds that a mutant survives: each copy of the packages runs in a process of its own.

A seed counts only if the packages without the bug pass it, so that a seed that fails anyhow finds no mutant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.mutants import Mutant, plant

_SCRIPT = Path(__file__).with_name("seeds.py")


class Hunted(msgspec.Struct, frozen=True):
    """The result for one mutant. `survived` is the number of seeds before the one that found it, or of all."""

    mutant: Mutant
    survived: int
    invariant: int | None
    """The invariant that found it; 0: an exception of the core, or a run without an end; None: not found."""
    text: str = ""

    @property
    def verdict(self) -> str:
        """The finder as a text."""
        if self.invariant is None:
            return "NOT FOUND"
        return f"invariant {self.invariant}" if self.invariant else "an exception"


class Failing(msgspec.Struct, frozen=True, array_like=True):
    """The first seed of several that failed."""

    seed: int
    invariant: int
    text: str


def hunt(mutant: Mutant, source: Path, *, seeds: int, seconds: float, start: int = 0) -> Hunted:
    """Plant `mutant` into a copy of the packages in `source` and run seeds from `start` on until one finds it.

    Raises ValueError for a mutant that does not fit the source, RuntimeError for a copy that cannot be run at all.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = plant(mutant, source, Path(folder))
        seed, end, survived = start, start + seeds, 0
        while seed < end:
            failing = first_failing(copy, seed, end, seconds, mutant)
            if failing is None:
                return Hunted(mutant, survived + end - seed, None)
            survived += failing.seed - seed
            if first_failing(source, failing.seed, failing.seed + 1, seconds, mutant) is None:
                return Hunted(mutant, survived, failing.invariant, failing.text)
            seed = failing.seed + 1
    return Hunted(mutant, survived, None)


def first_failing(packages: Path, first: int, last: int, seconds: float, mutant: Mutant) -> Failing | None:
    """Run seeds of the mutant's scenario and size with the packages in that folder.

    Raises RuntimeError if other packages were run.
    """
    numbers = (first, last, seconds, mutant.nodes)
    command = [sys.executable, "-B", str(_SCRIPT), *map(str, numbers), mutant.scenario]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    if ended.returncode or len(lines) != 2 or Path(lines[0]).resolve() != packages.resolve():
        raise RuntimeError(f"seeds of {packages} could not be run: {ended.stderr[-2000:] or ended.stdout}")
    return msgspec.convert(json.loads(lines[1]), Failing | None)
