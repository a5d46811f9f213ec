"""Exhaustive exploration of a small cluster, up to a number of steps.

    python -m mpreg_transports.testing.explore --nodes 2 --depth 10

The explorer tries every order of deliveries, losses, crashes and ends. It runs real `Node`s, sends objects instead of
bytes, and has no network except one queue for each direction of each link. A step is one delivery, one dial that
succeeds or fails, one body that ends, one timer, one request, one link that breaks, or one process that dies. `Bounds`
limits how often the last four happen.

The search is breadth first. Each world is built again from its steps, because a copy of a machine would share the state
of its random source. Two worlds are equal if the hash over the state of their machines and over the messages in transit
is equal; the order of tables does not count. Nothing is random: each draw returns the first possibility.

The safety invariants are checked after each step (world.py holds the world and the invariants). A violation contains
the shortest sequence of steps that leads to it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from time import perf_counter

import msgspec

from mpreg_transports.testing.explore.world import Bounds, ClusterState, Step
from mpreg_transports.testing.simulation.watchers import Violation


class Level(msgspec.Struct, frozen=True):
    """One depth: its new worlds, the steps tried to reach them, and the steps that led to known worlds."""

    depth: int
    states: int
    tried: int
    known: int
    seconds: float


class Explored(msgspec.Struct, frozen=True):
    """The result of an exploration. `steps` counts the tried steps by kind."""

    levels: list[Level]
    steps: dict[str, int]
    ends: list[tuple[Step, ...]]
    """The paths to the worlds in which nothing more can happen."""
    exhausted: bool
    """True if no deeper world exists within these bounds."""

    @property
    def states(self) -> int:
        """The number of different worlds."""
        return sum(level.states for level in self.levels)

    @property
    def seconds(self) -> float:
        """The duration of the exploration."""
        return sum(level.seconds for level in self.levels)


def levels(bounds: Bounds, depth: int, counted: Counter[str], ends: list[tuple[Step, ...]]) -> Iterator[Level]:
    """Explore level by level, and yield each level.

    `counted` counts the steps by kind; `ends` records the paths to worlds in which nothing more can happen. Raises
    Violation; its text contains the steps that lead there.
    """
    start = perf_counter()
    world = ClusterState(bounds)
    seen = {world.state()}
    frontier: list[tuple[tuple[Step, ...], list[Step]]] = [((), world.enabled())]
    yield Level(0, 1, 0, 0, perf_counter() - start)
    for number in range(1, depth + 1):
        start = perf_counter()
        following: list[tuple[tuple[Step, ...], list[Step]]] = []
        tried = 0
        for path, choices in frontier:
            if not choices:
                ends.append(path)
            for choice in choices:
                tried += 1
                counted[choice.kind] += 1
                world = reached(bounds, (*path, choice))
                state = world.state()
                if state not in seen:
                    seen.add(state)
                    following.append(((*path, choice), world.enabled()))
        frontier = following
        yield Level(number, len(following), tried, tried - len(following), perf_counter() - start)
        if not following:
            return


def reached(bounds: Bounds, path: tuple[Step, ...]) -> ClusterState:
    """Return the world after these steps.

    Raises Violation for the first step after which an invariant does not hold.
    """
    world = ClusterState(bounds)
    for done, step in enumerate(path, 1):
        try:
            world.do(step)
        except Violation as violation:
            raise Violation(violation.invariant, f"{violation.text}\n{describe_path(path[:done])}") from None
        except Exception as error:
            raise Violation(0, f"{type(error).__name__}: {error}\n{describe_path(path[:done])}") from error
    return world


def describe_path(path: tuple[Step, ...]) -> str:
    """Return the steps as readable text, one on each line."""
    return "\n".join(f"{number:>4}. {step.describe()}" for number, step in enumerate(path, 1))


def explore(bounds: Bounds, *, depth: int) -> Explored:
    """Explore all worlds within `depth` steps. Raises Violation."""
    counted: Counter[str] = Counter()
    ends: list[tuple[Step, ...]] = []
    found = list(levels(bounds, depth, counted, ends))
    return Explored(found, dict(sorted(counted.items())), ends, found[-1].states == 0)


def main(arguments: list[str] | None = None) -> int:
    """Print a table, one line for each level. Return 1 if an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="python -m mpreg_transports.testing.explore")
    parser.add_argument("--nodes", type=int, default=2, choices=(2, 3), help="how many nodes (2)")
    parser.add_argument("--depth", type=int, default=8, help="how many steps (8)")
    parser.add_argument("--resets", type=int, default=1, help="links that break, at most (1)")
    parser.add_argument("--crashes", type=int, default=1, help="processes that die, at most (1)")
    parser.add_argument("--ticks", type=int, default=1, help="times that a node's next timer comes, at most (1)")
    parser.add_argument("--requests", type=int, default=2, choices=(0, 1, 2), help="requests, at most (2)")
    options = parser.parse_args(arguments)
    bounds = Bounds(
        nodes=options.nodes,
        resets=options.resets,
        crashes=options.crashes,
        ticks=options.ticks,
        requests=options.requests,
    )
    counted: Counter[str] = Counter()
    print(f"{'depth':>5}{'states':>10}{'tried':>10}{'known':>10}{'seconds':>10}")
    total = 0
    try:
        for level in levels(bounds, options.depth, counted, []):
            total += level.states
            row = f"{level.depth:>5}{level.states:>10,}{level.tried:>10,}{level.known:>10,}{level.seconds:>10.2f}"
            print(row, flush=True)
    except Violation as violation:
        print(violation)
        return 1
    print(f"{total:,} states, every one within all invariants; steps tried: {dict(sorted(counted.items()))}")
    return 0
