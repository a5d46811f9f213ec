"""Planted bugs of the adapters: `python -m tests.adapters.planted [--seeds N] [--jobs N] [--only TITLE] [--unseen]`.

Each bug of planted.toml, or of the unseen ones of `tests/mutants`, is put into a copy of the packages, in which seeds
run until one fails.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.mutants import ROOT, Mutant, mutated, plant, unseen

PATIENCE = 900.0
"""Seconds for the seeds of one bug; a bug whose seeds take longer counts as found, as they hang."""


@dataclass
class Found:
    """The seeds that a bug has survived, and the first line of the report that found it; empty: not found."""

    bug: Mutant
    seeds: int
    text: str


def bugs() -> tuple[Mutant, ...]:
    """Return the planted bugs. Raises msgspec.ValidationError for data that is no list of them."""
    table = tomllib.loads(Path(__file__).with_name("planted.toml").read_text("utf-8"))
    return msgspec.convert(table["mutant"], tuple[Mutant, ...])


def hunt(bug: Mutant, *, seeds: int, start: int) -> Found:
    """Run seeds with the bug until one fails."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        plant(bug, ROOT, folder)
        for part in ("tests/adapters", "tests/helpers", "tests/mutants"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tests" / "__init__.py").write_text("")
        command = [sys.executable, "-B", "-u", "-m", "tests.adapters.planted", "--inside"]
        command += ["--start", str(start), "--seeds", str(seeds)]
        environment = {"PYTHONPATH": name, "PATH": "/usr/bin:/bin"}
        try:
            ended = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            done = (error.stdout or b"").decode().splitlines() if isinstance(error.stdout, bytes) else []
            return Found(bug, len(done), f"not within {PATIENCE} s")
    lines = ended.stdout.splitlines()
    if ended.returncode == 0:
        return Found(bug, len(lines), "")
    if not lines or not lines[-1].startswith("FAILED"):
        return Found(bug, len(lines), (ended.stderr.strip().splitlines() or ["it ended"])[-1])
    return Found(bug, len(lines) - 1, lines[-1])


def inside(start: int, seeds: int) -> int:
    """Run the seeds here, on the two event loops in turn; print a line for each; stop at the first that fails."""
    from tests.adapters.seeds import cases, reports

    for report in reports(cases(start, seeds, "alternate"), jobs=1):
        print(f"FAILED {report.line}" if report.wrong else report.hash, flush=True)
        if report.wrong:
            return 1
    return 0


def hunted(some: Iterable[Mutant], *, jobs: int, seeds: int, start: int) -> Iterator[Found]:
    """Yield the result for each bug as it comes."""
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(hunt, bug, seeds=seeds, start=start) for bug in some]):
            yield done.result()


def main() -> int:
    """Return the exit code: 0 if all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.adapters.planted", description="Check planted bugs.")
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="the most seeds for each (default 100)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--only", default="", metavar="TITLE", help="only titles that contain this")
    parser.add_argument("--unseen", action="store_true", help="the bugs of unseen.toml instead, also of the core")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(given.start, given.seeds)
    some = [bug for bug in (unseen() if given.unseen else bugs()) if given.only in bug.title]
    for bug in some:
        mutated(bug)
    found = 0
    for one in hunted(some, jobs=given.jobs, seeds=given.seeds, start=given.start):
        found += bool(one.text)
        print(f"{one.seeds:>5}  {one.bug.title}: {one.text[:180] or 'NOT FOUND'}", flush=True)
    print(f"{found} of {len(some)} planted bugs were found within {given.seeds} seeds")
    return 0 if found == len(some) else 1


if __name__ == "__main__":
    sys.exit(main())
