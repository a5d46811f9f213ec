"""`python -m tests.edges`: the full product of the edge matrix, or the part that options name."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase

from tests.edges.runner import Runner
from tests.edges.table import LOOPS, OUTCOMES, Cell, pairwise, product

_REPORT_EVERY = 30.0
"""Seconds between two progress lines on stderr."""


def main() -> int:
    """Return the exit code: 0 if all cells end as the table expects."""
    parser = argparse.ArgumentParser(prog="python -m tests.edges", description=__doc__)
    parser.add_argument("--loop", action="append", choices=LOOPS, help="only on this event loop (repeatable)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="LOOP:WAY:OUTCOME:WHERE:CLIENT",
        help="only these cells; each part may be a pattern, missing ones mean all (repeatable): '*:def:raises*:other'",
    )
    parser.add_argument("--pairwise", action="store_true", help="only the pairs that the ordinary tests run")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each cell this many times (default 1)")
    parser.add_argument("--list", action="store_true", help="print the cells and run none")
    given = parser.parse_args()
    loops = given.loop or [loop for loop in LOOPS if installed(loop)]
    for loop in loops:
        if not installed(loop):
            parser.error(f"{loop} is not installed here: uv run --extra {loop} python -m tests.edges --loop {loop}")
    cells = list(product(loops))
    if given.pairwise:
        cells = pairwise(cells)
    if given.only:
        cells = [cell for cell in cells if any(_named(cell, pattern) for pattern in given.only)]
    if not cells:
        parser.error(f"no such cell; outcomes are {', '.join(OUTCOMES)}")
    if given.list:
        print(*cells, sep="\n")
        return 0
    return _run(cells, loops, repeat=given.repeat)


def installed(loop: str) -> bool:
    """Return whether this interpreter has that event loop."""
    return loop == "asyncio" or importlib.util.find_spec(loop) is not None


def _named(cell: Cell, pattern: str) -> bool:
    parts = pattern.split(":")
    return all(fnmatchcase(value, part) for value, part in zip(cell, parts, strict=False))


def _run(cells: Sequence[Cell], loops: Iterable[str], *, repeat: int) -> int:
    began = reported = time.monotonic()
    failed: dict[Cell, list[str]] = {}

    for loop in loops:
        mine = [cell for cell in cells if cell.loop == loop]
        with Runner(loop) if mine else nullcontext() as runner:
            for number, cell in enumerate(mine):
                if time.monotonic() - reported > _REPORT_EVERY:
                    reported = time.monotonic()
                    print(f"{loop}: {number} of {len(mine)} cells, at {cell}", file=sys.stderr, flush=True)
                for _ in range(repeat):
                    if found := runner.run(cell):
                        failed[cell] = found
                        _report(cell, found)
                        break
    _summary(cells, failed, seconds=time.monotonic() - began)
    return 1 if failed else 0


def _report(cell: Cell, found: list[str]) -> None:
    extra = "--extra uvloop " if cell.loop == "uvloop" else ""
    print(f"FAILED {cell}\n  " + "\n  ".join(found), flush=True)
    print(f"  again: uv run {extra}python -m tests.edges --only {cell}", flush=True)


def _summary(cells: Sequence[Cell], failed: dict[Cell, list[str]], *, seconds: float) -> None:
    print(f"{len(cells)} cells, {len(failed)} failed, {seconds:.0f} s")
    for at, name in enumerate(Cell._fields):
        counts = Counter(cell[at] for cell in failed)
        if counts:
            print(f"  by {name}: " + ", ".join(f"{value} {count}" for value, count in counts.most_common(12)))


if __name__ == "__main__":
    sys.exit(main())
