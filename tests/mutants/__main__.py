"""`python -m tests.mutants [--seeds N] [--seconds S] [--only TITLE] [--jobs N] [--dropped] [--list]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from tests.mutants import ROOT, Mutant, copy_packages, mutated, planted, unseen
from tests.mutants.hunting import Hunted, hunt


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code. 0: every mutant was found; 1: one survived; 2: wrong usage."""
    given = _parser().parse_args(arguments)
    known = planted()
    listed = known.dropped if given.dropped else known.mutant
    if given.unseen:
        listed = tuple(one for one in unseen() if one.package == "mpreg_proto")
    mutants = [one for one in listed if _asked(one, given.only)]
    if not mutants:
        _parser().error(f"no mutant's title has {' or '.join(given.only)!r} in it")
    try:
        for mutant in mutants:
            mutated(mutant)
    except ValueError as error:
        _parser().error(f"the core has changed under a mutant: {error}")
    if given.list:
        for mutant in mutants:
            print(f"{mutant.file:<26}{mutant.title}" + (f": {mutant.why}" if mutant.why else ""))
        return 0
    hunted = []
    for one in hunt_all(mutants, jobs=given.jobs, seeds=given.seeds, seconds=given.seconds, start=given.start):
        hunted.append(one)
        print(f"{one.survived:>6}  {one.verdict:<14}  {one.mutant.title}  ({one.text[:160]})", flush=True)
    print("", *table(hunted), "", summary(hunted, given.seconds), sep="\n")
    return int(any(one.invariant is None for one in hunted))


def hunt_all(
    mutants: Iterable[Mutant], *, jobs: int, seeds: int, seconds: float, start: int = 0, source: Path = ROOT
) -> Iterator[Hunted]:
    """Yield the result for each mutant in order, with so many processes. All are planted into the current packages."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copied = copy_packages(source, Path(folder))
        yield from pool.map(partial(hunt, source=copied, seeds=seeds, seconds=seconds, start=start), mutants)


def table(hunted: Iterable[Hunted]) -> list[str]:
    """Return the table in Markdown, as in docs/explanation/testing.md."""
    rows = [
        f"| {one.mutant.title} | `mpreg_proto/{one.mutant.file}` | {one.mutant.run} | {one.survived} | {one.verdict} |"
        for one in hunted
    ]
    return ["| planted bug | file | nodes | seeds survived | found by |", "|---|---|---|---|---|", *rows]


def summary(hunted: list[Hunted], seconds: float) -> str:
    """Return how many were found, and the median of the seeds that they survived."""
    found = [one.survived for one in hunted if one.invariant is not None]
    middle = f", after a median of {median(found):g} seeds that passed, {max(found)} at most" if found else ""
    sizes = " or ".join(str(size) for size in sorted({one.mutant.nodes for one in hunted}))
    return (
        f"{len(found)} of {len(hunted)} planted bugs were found{middle}; {sizes} nodes, {seconds:g} simulated seconds"
    )


def _asked(mutant: Mutant, only: list[str]) -> bool:
    return not only or any(part in mutant.title for part in only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Check that planted bugs are found.")
    parser.add_argument("--seeds", type=int, default=2000, metavar="N", help="the most seeds for each mutant (2000)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="simulated, of work and faults (20)")
    parser.add_argument("--only", action="append", default=[], metavar="TITLE", help="only titles that contain this")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--dropped", action="store_true", help="the mutants that were tried and left out, instead")
    parser.add_argument("--unseen", action="store_true", help="those of the core in unseen.toml, instead")
    parser.add_argument("--list", action="store_true", help="list the mutants and run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
