"""The cost of the kinds of functions: `python -m tests.benchmarks.functions [--rounds 5] [--seconds 1] [--json]`.

It compares plain `def` and `async def` functions with inline ones that do the same. Each round starts fresh nodes and
measures the kinds directly after one another, in an order that changes by round; a ratio is the median of the rounds.
CPU time is that of a process with all its threads, so other work on the machine affects it little. The fans run on one
core as in the row `fan`: on a quiet machine, their time is the CPU time of all processes.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Final

from tests.benchmarks import rows
from tests.benchmarks.harness import WARM_UP
from tests.benchmarks.pinning import Pinning
from tests.benchmarks.rows import Cores, Transport
from tests.benchmarks.subject import Mpreg, subject
from tests.benchmarks.subjects import Tally, in_flight

INLINE: Final = "inline"
KINDS: Final = (INLINE, "async", "def")


@dataclass(frozen=True)
class Measure:
    """One quantity, of inline, `async def` and `def` functions, with the goals of the ratios to inline."""

    name: str
    what: str
    goals: dict[str, float | None]
    taken: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """The microseconds of each kind, by round."""

    def ratios(self, kind: str) -> list[float]:
        """Return the ratios to inline, by round."""
        return [one / inline for one, inline in zip(self.taken[kind], self.taken[INLINE], strict=True)]


def _measures() -> tuple[Measure, ...]:
    return (
        Measure("cpu_64", "CPU of the node per call, 64 in flight", {"async": 1.2, "def": 1.6}),
        Measure("cpu_1", "CPU of the node per call, one at a time", {"async": None, "def": None}),
        Measure("fan", "time of a fan of 16 calls and a join, one at a time", {"async": None, "def": 2.5}),
        Measure("fan_cpu", "the same, CPU of client and nodes", {"async": None, "def": 2.5}),
    )


async def _cpu(nodes: Mpreg, kind: str, *, width: int, seconds: float) -> list[float]:
    """Return the microseconds of CPU time that node a spends on a call."""
    call = nodes.call("echo_a" if kind == INLINE else f"echo_a_{kind}", rows.SMALL)
    await in_flight(call, width, seconds * WARM_UP)
    before = await _cpu_time(nodes, "a")
    tally = await in_flight(call, width, seconds)
    return [(await _cpu_time(nodes, "a") - before) / tally.operations * 1e6]


async def _fan(nodes: Mpreg, kind: str, *, seconds: float) -> list[float]:
    """Return the microseconds of one graph, and those of CPU time of the nodes and this process."""
    measure: Callable[[float], Awaitable[Tally]] = nodes.fan if kind == INLINE else getattr(nodes, f"fan_{kind}")
    await measure(seconds * WARM_UP)
    before = await _cpu_time(nodes, *rows.NODES) + time.process_time()
    tally = await measure(seconds)
    cpu = await _cpu_time(nodes, *rows.NODES) + time.process_time() - before
    return [tally.elapsed / tally.operations / 1e3, cpu / tally.operations * 1e6]


async def _cpu_time(nodes: Mpreg, *names: str) -> float:
    """Return the seconds of CPU time that the nodes have used."""
    return sum([float(await nodes.client.call(f"cpu_{name}")) for name in names])


async def _round(number: int, measures: tuple[Measure, ...], *, seconds: float, pinning: Pinning) -> None:
    cpu_64, cpu_1, *fan = measures
    ways: tuple[tuple[Cores, Callable[..., Awaitable[list[float]]], list[Measure]], ...] = (
        (Cores.ALL, partial(_cpu, width=rows.IN_FLIGHT), [cpu_64]),
        (Cores.ALL, partial(_cpu, width=1), [cpu_1]),
        (Cores.ONE, _fan, fan),
    )
    nodes = subject(Transport.TCP)
    try:
        await nodes.start()
        for cores, way, results in ways:
            pinning.apply(cores, nodes.processes)
            for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
                for measure, taken in zip(results, await way(nodes, kind, seconds=seconds), strict=True):
                    measure.taken[kind].append(taken)
    finally:
        pinning.apply(Cores.ALL, [])
        await nodes.stop()


def _lines(measure: Measure) -> list[str]:
    lines = [f"{measure.name}: {measure.what}"]
    for kind, taken in measure.taken.items():
        ratios = measure.ratios(kind)
        text = f"  {kind:<7}{median(taken):>8,.0f} us{median(ratios):>7.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        goal = measure.goals.get(kind)
        if goal is not None:
            text += f"   goal {goal:g}: {'met' if median(ratios) <= goal else 'missed'}"
        lines.append(text)
    return lines


async def _main(rounds: int, seconds: float, *, as_json: bool) -> None:
    measures, pinning = _measures(), Pinning()
    for number in range(rounds):
        await _round(number, measures, seconds=seconds, pinning=pinning)
    if as_json:
        print(json.dumps({one.name: {"goals": one.goals, "us": one.taken} for one in measures}, indent=2))
    else:
        print(f"kinds of functions, as ratios to inline: medians of {rounds} rounds of {seconds:g} s")
        print("\n".join(line for one in measures for line in _lines(one)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.functions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for each kind, measure and round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds must be 1 or more, --seconds more than 0")
    asyncio.run(_main(options.rounds, options.seconds, as_json=options.json))


if __name__ == "__main__":
    main()
