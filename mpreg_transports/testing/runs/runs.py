"""Whole runs by seed: one, or thousands on several processes, with the result of each as a `RunReport`.

    report = run_seed(7)
    for report in run_seeds(range(2000), jobs=2): ...

A failing seed is run twice. If the second run differs, a part of it is not deterministic, and the report states that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import msgspec

from mpreg_transports.testing.runs.failures import failure
from mpreg_transports.testing.runs.replay import Case, CaseResult, Progress, Watchers, run_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.simulation import Simulation


class FoundViolation(msgspec.Struct, frozen=True, kw_only=True):
    """A violation. `invariant` is its number in docs/explanation/testing.md, 0 for an exception of the core."""

    invariant: int
    text: str
    report: str
    """The whole report, for people (failures.py)."""
    file: str = ""
    """The file with the saved trace, or an empty text."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run."""

    seed: int
    scenario: str
    nodes: int
    seconds: float
    objects: bool
    options: dict[str, Any]
    trace_hash: str
    events: int
    requests: dict[str, int]
    """The number of requests by their end: ok, partial, an error's code, cancelled, unanswered."""
    latencies: tuple[int, int, int]
    """The median, the 95 % quantile and the maximum of the requests that are ok, in nanoseconds."""
    sometimes: dict[str, int]
    violation: FoundViolation | None
    took: float
    """The real time of the run, in seconds."""


def run_seed(
    seed: int,
    *,
    scenario: str = "swarm",
    nodes: int = 5,
    seconds: float = 60.0,
    objects: bool = False,
    watchers: Watchers | None = None,
    keep: str | Path | None = None,
) -> RunReport:
    """Draw a run from a seed and run it. A failing run is saved in the folder `keep`, if given."""
    drawn = case(scenario, seed=seed, nodes=nodes, seconds=seconds, objects=objects)
    return run(drawn, watchers=watchers, keep=keep)[0]


def run(
    drawn: Case,
    *,
    watchers: Watchers | None = None,
    keep: str | Path | None = None,
    recording: bool = False,
    progress: Progress | None = None,
) -> tuple[RunReport, Simulation]:
    """Run a case. Return its report, and the simulation at its end."""
    begun = time.perf_counter()
    ran = run_case(drawn, watchers=watchers, recording=recording, progress=progress)
    took = time.perf_counter() - begun
    reached = sometimes_reached()
    sim = ran.sim
    report = RunReport(
        seed=drawn.seed,
        scenario=drawn.scenario,
        nodes=len(drawn.nodes),
        seconds=drawn.seconds,
        objects=drawn.objects,
        options=drawn.options,
        trace_hash=sim.trace.hash,
        events=sim.trace.events,
        requests=outcomes(sim.calls),
        latencies=latencies(sim.calls),
        sometimes=reached,
        violation=None if ran.error is None else describe_violation(drawn, ran, watchers=watchers, keep=keep),
        took=took,
    )
    return report, sim


def describe_violation(
    drawn: Case, ran: CaseResult, *, watchers: Watchers | None, keep: str | Path | None
) -> FoundViolation:
    """Run a failing case again, save its trace, and return its description."""
    file: Path | None = None
    if keep is not None:
        file = Path(keep) / f"{drawn.scenario or 'script'}-{drawn.seed}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        ran.sim.trace.save(file)
    second = run_case(drawn, watchers=watchers)
    sometimes_reached()
    same = second.sim.trace.hash == ran.sim.trace.hash and second.invariant == ran.invariant
    again = "the same, run a second time" if same else f"NOT the same a second time: {second.sim.violation or 'passes'}"
    invariant = ran.invariant
    assert invariant is not None, "only a failing run is looked at"
    return FoundViolation(
        invariant=invariant,
        text=ran.sim.violation,
        report=failure(drawn, ran, saved=file, again=again),
        file="" if file is None else str(file),
    )


def run_seeds(
    seeds: Iterable[int],
    *,
    jobs: int = 2,
    scenario: str = "swarm",
    nodes: int = 5,
    seconds: float = 60.0,
    objects: bool = False,
    watchers: Watchers | None = None,
    keep: str | Path | None = None,
) -> Iterator[RunReport]:
    """Run many seeds on `jobs` processes (0: in this one), and yield the reports in the order of the seeds.

    `watchers` must be importable.
    """
    one = partial(
        run_seed, scenario=scenario, nodes=nodes, seconds=seconds, objects=objects, watchers=watchers, keep=keep
    )
    if jobs == 0:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        yield from pool.map(one, seeds, chunksize=4)


def _end_with_parent() -> None:
    """End this worker when its parent is gone, also if that was killed; the pool itself would wait for ever."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def outcomes(calls: Iterable[SimCall]) -> dict[str, int]:
    """Return the number of requests by their end."""
    counted: dict[str, int] = {}
    for call in calls:
        name = outcome(call)
        counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def outcome(call: SimCall) -> str:
    """Return the end of one request."""
    if call.result is None:
        return "cancelled" if call.cancelled else "unanswered"
    if call.result.fault is None:
        return "ok"
    return "partial" if call.request.partial and call.result.done else str(call.result.fault.code)


def latencies(calls: Iterable[SimCall]) -> tuple[int, int, int]:
    """Return the median, the 95 % quantile and the maximum of the requests that are ok.

    They are in nanoseconds, and zero without such a request.
    """
    spans = sorted(call.ended - call.sent for call in calls if call.ended is not None and outcome(call) == "ok")
    if not spans:
        return 0, 0, 0
    return spans[len(spans) // 2], spans[len(spans) * 95 // 100], spans[-1]


def sometimes_reached() -> dict[str, int]:
    """Return the counts of situations since the last call (coverage.py), and clear them."""
    from mpreg_transports.testing.runs.coverage import take

    return take()
