"""Many seeds: one line for each that fails, a summary, and the situations that were reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import get_context

from tests.adapters.loops import LOOPS
from tests.adapters.world import Report, run

LONG = 500
"""The number of runs from which on every situation must be reached."""
SITUATIONS = (
    "a JSON link carried another request",
    "a JSON reply at an edge of WebSocket frames",
    "a JSON request at an edge of WebSocket frames",
    "a body was abandoned at the end of its node",
    "a body was cancelled by its caller",
    "a cancel came while a body ran",
    "a generator produced all of its items",
    "a generator was left early",
    "a plain generator waited for its consumer",
    "a call ended while its node left",
    "a client dialled again after a pause",
    "a client reconnected with calls out",
    "a client used another address",
    "a client was closed while its calls were out",
    "a half-open link was given up",
    "a link stood still for a while",
    "a link stood still while its node began to leave",
    "a link was not read for a while",
    "a made executor broke while bodies ran",
    "a message at an edge of WebSocket frames",
    "a part of a failed call's result was asked for",
    "a request waited at its client for credit",
    "a server was ended while bodies ran",
    "a server was ended while cancelled bodies cleaned up",
    "a stream was left early",
    "an executor broke while bodies ran",
    "an idempotent body started twice",
    "a writer waited for its peer",
    "half-open of a client's link while its calls were out",
    "replace function while its bodies ran",
    "reset of a client's link while its calls were out",
    "silent link of a client's link while its calls were out",
    "withdraw function while its bodies ran",
)
"""The situations that many runs must reach now and then."""


def cases(start: int, seeds: int, loop: str) -> list[tuple[int, str]]:
    """Return the runs of so many seeds: on one loop, on `both`, or each seed on one of the two (`alternate`)."""
    numbers = range(start, start + seeds)
    if loop == "both":
        return [(seed, one) for seed in numbers for one in LOOPS]
    return [(seed, LOOPS[seed % 2] if loop == "alternate" else loop) for seed in numbers]


def reports(some: Iterable[tuple[int, str]], *, jobs: int) -> Iterator[Report]:
    """Yield the report of each run as it ends."""
    if jobs == 1:
        yield from map(_one, some)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_one, some)


def _one(case: tuple[int, str]) -> Report:
    return run(*case)


def many(some: list[tuple[int, str]], *, jobs: int, full: bool, most: int) -> int:
    """Run, print, and return the exit code."""
    begun = time.perf_counter()
    failed: list[Report] = []
    reached: Counter[str] = Counter(dict.fromkeys(SITUATIONS, 0))
    done = calls = 0
    virtual = cpu = 0.0
    for report in reports(some, jobs=jobs):
        done += 1
        calls += report.calls
        virtual += report.seconds
        cpu += report.cpu
        reached.update(report.reached)
        if report.wrong:
            failed.append(report)
            print(report.text if full else report.line, flush=True)
            if len(failed) >= most:
                break
    took = time.perf_counter() - begun
    print(f"{done} runs in {took:.0f} s ({cpu / max(1, done):.2f} s of processor time each), {len(failed)} failed")
    print(f"{calls:,} requests in {virtual:,.0f} virtual seconds; reached:")
    for name, count in sorted(reached.items(), key=lambda item: (item[1], item[0])):
        print(f"  {count:>8,}  {name}" if count else f"     NEVER  {name}")
    never = [name for name in SITUATIONS if not reached[name]]
    if never and done >= LONG:
        print(f"FAILED: never reached: {', '.join(never)}")
    return 1 if failed or (never and done >= LONG) else 0
