"""All that can happen to a small cluster, up to a number of steps: every order of deliveries, losses, crashes, ends.

    python -m mpreg_transports.testing.explore --nodes 2 --depth 10

Real `Node`s, objects instead of bytes, no network but a queue for each direction of each link. A step is one delivery,
one dial that comes through or not, one body that ends, one timer, one request, one link that breaks or one process that
dies; the last four as often as `Bounds` says. Breadth first; a world is made again from its steps, as copying a machine
would share what it holds of chance. Two worlds are one if a hash over all that their machines hold, and over what is on
its way, is the same; the order of tables does not count. There is no chance in it: whoever draws gets the first.

After each step the safety invariants are checked (world.py holds the world and them); a violation comes with
the shortest row of steps that leads there.
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
    """One depth: worlds met for the first time there, steps tried to get there, and how many had been met before."""

    depth: int
    states: int
    tried: int
    known: int
    seconds: float


class Explored(msgspec.Struct, frozen=True):
    """What an exploration came to. `steps` counts the kinds of steps that were tried."""

    levels: list[Level]
    steps: dict[str, int]
    ends: list[tuple[Step, ...]]
    """Ways to the worlds in which nothing more can happen."""
    exhausted: bool
    """With these bounds there is no deeper world."""

    @property
    def states(self) -> int:
        """Different worlds."""
        return sum(level.states for level in self.levels)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return sum(level.seconds for level in self.levels)


def levels(bounds: Bounds, depth: int, counted: Counter[str], ends: list[tuple[Step, ...]]) -> Iterator[Level]:
    """Explore level by level; count kinds of steps, and note where nothing more can happen.

    Raises Violation, with the steps that lead there in its text.
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
    """The world after these steps. Raises Violation for the first step after which something does not hold."""
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
    """Steps for people, one a line."""
    return "\n".join(f"{number:>4}. {step.describe()}" for number, step in enumerate(path, 1))


def explore(bounds: Bounds, *, depth: int) -> Explored:
    """All worlds within `depth` steps. Raises Violation."""
    counted: Counter[str] = Counter()
    ends: list[tuple[Step, ...]] = []
    found = list(levels(bounds, depth, counted, ends))
    return Explored(found, dict(sorted(counted.items())), ends, found[-1].states == 0)


def main(arguments: list[str] | None = None) -> int:
    """Print a table, a level at a time; 1 if something does not hold."""
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
