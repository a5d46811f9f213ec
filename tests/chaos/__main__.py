"""`python -m tests.chaos`: the figures of a run beside their targets; ends with 1 if what must never be has been."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

from tests.chaos.run import LATE, Chaos, Report

TARGETS = {("kill",): 0.999, ("stop",): 0.99, ("links",): 0.99}
"""The share of requests of idempotent functions that have a result, under one kind of fault."""


def row(name: str, value: str, target: str = "") -> None:
    """Print one line of the table."""
    print(f"  {name:<52}{value:>16}   {target}", flush=True)


def show(report: Report, faults: tuple[str, ...]) -> bool:
    """Print the figures; return whether nothing happened that must never happen."""
    outcomes, took = report.outcomes, sorted(one.ended for one in report.outcomes if not one.error)
    row("requests", str(len(outcomes)))
    row("faults", ", ".join(f"{count} {kind}" for kind, count in report.faults.items()))
    target = TARGETS.get(faults)
    row("idempotent ones with a result", f"{report.success():.3%}", "" if target is None else f"at least {target:.1%}")
    if len(took) > 1:
        row("time to a result, median and p99", f"{statistics.median(took):.3f}, {took[len(took) * 99 // 100]:.3f} s")
    row("latest end after a deadline", f"{max(0.0, report.latest):.3f} s", f"{LATE} s")
    row("the harness itself was late by", f"{report.lag:.3f} s")
    for (kind, code), count in sorted(Counter((one.kind, one.error) for one in outcomes if one.error).items()):
        row(f"{kind}: ended with {code}", str(count))
    texts = Counter(one.text[:90] for one in outcomes if one.error and one.idempotent and one.timeout > 2)
    for text, count in texts.most_common(5):
        print(f"    {count} x {text}")
    problems = list(islice(report.problems(), 10))
    row("bodies that are not idempotent and started twice, ...", str(len(problems)), "0")
    for problem in problems:
        print(f"    {problem}")
    return not problems


def main() -> int:
    """Run once for each kind of fault, or with those given together."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Real nodes under faults.")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each run (default 120)")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second (default 200)")
    parser.add_argument(
        "--faults", action="append", metavar="KIND,...", help="kill, stop, links; several runs if again"
    )
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two faults (default 3)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    good = True
    for kinds in given.faults or ["kill", "stop", "links", "kill,stop,links"]:
        faults = tuple(kinds.split(","))
        print(f"\n{kinds}, {given.seconds:g} s, {given.rate:g} requests/s, seed {given.seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            chaos = Chaos(Path(folder), seed=given.seed, rate=given.rate, faults=faults, pause=given.pause)
            good = show(asyncio.run(chaos.run(given.seconds)), faults) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
