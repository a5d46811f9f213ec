"""`python -m tests.mutation [--sample N] [--seed S] [--seeds N] [--jobs N] [--resume FILE] [--list] [--only TEXT]`.

`python -m tests.mutation --unseen` runs the unit tests against the bugs of `tests/mutants/unseen.toml` instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.mutants import Mutant as Planted
from tests.mutants import mutated, unseen
from tests.mutation import PACKAGES, ROOT
from tests.mutation.running import Bench, Result
from tests.mutation.sample import Drawn, sample

T = TypeVar("T")
R = TypeVar("R")

CACHE = ROOT / ".mutation"


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code. 0: every mutant was killed; 1: one survived; 2: wrong usage."""
    given = _parser().parse_args(arguments)
    if given.unseen:
        return run_unseen(given.only, given.jobs)
    drawn = [one for one in sample(given.sample, given.seed) if given.only in f"{one.key} {one.file} {one.diff}"]
    if given.list:
        for one in drawn:
            print(f"{one.key}  {one.file}:{one.line}  {one.mutant.where}  {one.mutant.operator}: {one.diff}")
        return 0
    CACHE.mkdir(exist_ok=True)
    results = given.resume or CACHE / f"seed-{given.seed}.jsonl"
    known = {one.key: one for one in read(results)}
    if results.is_file():  # without a last line that was cut
        results.write_bytes(results.read_bytes()[: results.read_bytes().rfind(b"\n") + 1])
    left = [one for one in drawn if one.key not in known or _has_seeds_left(known[one.key], given.seeds)]
    print(f"{len(drawn)} mutants, {len(drawn) - len(left)} of them in {results} already", flush=True)
    for result in run_all(left, given.seeds, given.jobs, results):
        known[result.key] = result
    ended = [known[one.key] for one in drawn if one.key in known]
    print("", *summary(ended), sep="\n")
    return int(any(one.verdict == "survived" for one in ended))


def run_all(drawn: list[Drawn], seeds: int, jobs: int, results: Path) -> Iterable[Result]:
    """Run mutants in so many copies of the repository, and append each result to the file when it is there."""
    for number, result in enumerate(on_benches(Bench.run, drawn, seeds, jobs), 1):
        with results.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")
        place = f"{result.file}:{result.line}"
        print(
            f"{number:>4} {result.verdict:<8} {result.seconds:>6.1f} s  {result.key}  {place}  "
            f"{result.operator}: {result.diff[:100]}  [{result.killer[:120]}]",
            flush=True,
        )
        yield result


def on_benches(run: Callable[[Bench, T], R], some: Iterable[T], seeds: int, jobs: int) -> Iterable[R]:
    """Yield what `run` returns for each of `some`, as it comes, in so many copies of the repository."""
    benches: list[Bench] = []

    def take(one: T) -> R:
        bench = benches.pop()
        try:
            return run(bench, one)
        finally:
            benches.append(bench)

    with tempfile.TemporaryDirectory(prefix="mutation-") as folder, ThreadPoolExecutor(jobs) as pool:
        benches.extend(Bench(Path(folder, str(number)), seeds) for number in range(jobs))
        pending = [pool.submit(take, one) for one in some]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for bench in benches:
                bench.close()


def run_unseen(only: str, jobs: int) -> int:
    """Print which of the bugs of unseen.toml the tests of their modules find, without seeds; return the exit code."""

    def run(bench: Bench, bug: Planted) -> tuple[Planted, str, str]:
        verdict, killer, _, _ = bench.judge(f"{bug.package}/{bug.file}", mutated(bug))
        return bug, verdict, killer

    bugs = [bug for bug in unseen() if only in bug.title]
    killed = 0
    for bug, verdict, killer in on_benches(run, bugs, 0, jobs):
        killed += verdict != "survived"
        print(f"{verdict:<8}  {bug.title}  [{killer[:160]}]", flush=True)
    print(f"{killed} of {len(bugs)} unseen bugs were found by the tests of their modules")
    return int(killed < len(bugs))


def _has_seeds_left(result: Result, seeds: int) -> bool:
    return result.verdict == "survived" and result.file.startswith("mpreg_proto/") and result.seeds < seeds


def read(results: Path) -> list[Result]:
    """Return the results of a file, without a last line that was cut; none if there is no file."""
    if not results.is_file():
        return []
    lines = results.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Result) for line in lines if line]


def summary(results: list[Result]) -> list[str]:
    """Return the counts, for both packages and each."""
    lines = []
    for title, part in (("both packages", ""), *((package, f"{package}/") for package in PACKAGES)):
        some = [one for one in results if one.file.startswith(part)]
        verdicts = Counter(one.verdict for one in some)
        seeds = sum(one.killer.startswith("seed ") for one in some)
        lines.append(
            f"{title}: {len(some)} mutants, {verdicts['killed'] - seeds} killed by tests, {seeds} by seeds, "
            f"{verdicts['timeout']} by the time limit, {verdicts['survived']} survived"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Run a sample of mutants.")
    parser.add_argument("--sample", type=int, default=200, metavar="N", help="the number of mutants (200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the seed of the sample (1)")
    parser.add_argument(
        "--seeds", type=int, default=30, metavar="N", help="seeds for each mutant of the core that the tests miss (30)"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="the results file (.mutation/seed-SEED.jsonl)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose key, file or change has this")
    parser.add_argument("--unseen", action="store_true", help="the bugs of unseen.toml instead, without seeds")
    parser.add_argument("--list", action="store_true", help="list the sample and run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
