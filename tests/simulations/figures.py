"""The simulator's figures beside the targets of its design, on one core: `python -m tests.simulations figures`.

Each is the best of a few rounds, in processor time and not in clock time, because the machine may be busy.
"""

import platform
import resource
import signal
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.runs.replay import standard_watchers
from mpreg_transports.testing.runs.runs import run_seed
from mpreg_transports.testing.simulation.watchers import Watcher
from mpreg_transports.testing.simulation.workload import add

ROUNDS = 3
PATIENCE = 300
"""Seconds after which the run of the largest cluster is stopped."""
Watching = Callable[[], Iterable[Watcher]]


def unwatched() -> list[Watcher]:
    """Return no invariants."""
    return []


def measure() -> int:
    """Print all figures and return 0: this is no check."""
    print(f"Python {platform.python_version()}, {platform.machine()}; best of {ROUNDS} rounds\n")
    row("", "invariants", "without", "target")
    both("events/s, 5 nodes, objects", lambda watchers: busy(watchers, objects=True), "100,000")
    both("events/s, 5 nodes, codec", lambda watchers: busy(watchers, objects=False), "40,000")
    both("idle 5 nodes, x real time", lambda watchers: idle(5, 600, watchers), "2,000")
    both("idle 100 nodes, x real time", lambda watchers: idle(100, 20, watchers), "100")
    both("seeds a minute, 60 s x 5 nodes", seeds_a_minute, "150", rounds=1)
    both("start of 5 nodes, per second", start, "200 (5 ms)")
    thousand()
    return 0


def row(*cells: str) -> None:
    """Print one line of the table."""
    print(f"{cells[0]:<32}{cells[1]:>14}{cells[2]:>14}   {cells[3]}", flush=True)


def both(name: str, figure: Callable[[Watching], float], target: str, *, rounds: int = ROUNDS) -> None:
    """Print one figure with invariants and without."""
    watched, plain = (max(figure(watchers) for _ in range(rounds)) for watchers in (standard_watchers, unwatched))
    row(name, f"{watched:,.0f}", f"{plain:,.0f}", target)


def busy(watchers: Watching, *, objects: bool) -> float:
    """Return the events per second while five nodes call each other."""
    offering = Spec(functions={"add": Fn(add, idempotent=True)})
    nodes = {"n0": Spec(), **{f"n{index}": offering for index in range(1, 5)}}
    sim = Simulation(seed=1, nodes=nodes, objects=objects, watchers=watchers())
    sim.run(2)
    for index in range(3000):
        sim.schedule(index * 0.001, sim.call, "n0", "add", index, 1)
    before, begun = sim.trace.events, time.process_time()
    sim.run(5)
    took = time.process_time() - begun
    assert all(call.done() for call in sim.calls), "a steady cluster answers"
    return (sim.trace.events - before) / took


def idle(count: int, seconds: float, watchers: Watching) -> float:
    """Return the simulated seconds per second of an idle cluster, once all know each other."""
    sim = Simulation(seed=1, nodes={f"n{index}": Spec() for index in range(count)}, objects=True, watchers=watchers())
    sim.run(10)
    begun = time.process_time()
    sim.run(seconds)
    return seconds / (time.process_time() - begun)


def start(watchers: Watching) -> float:
    """Return the clusters of five nodes that can be started per second."""
    begun = time.process_time()
    for seed in range(20):
        Simulation(seed=seed, nodes={f"n{index}": Spec() for index in range(5)}, watchers=watchers())
    return 20 / (time.process_time() - begun)


def seeds_a_minute(watchers: Watching) -> float:
    """Return the runs of the swarm that one core completes in a minute, including drawing and settling."""
    begun = time.process_time()
    for seed in range(40):
        run_seed(seed, watchers=watchers)
    return 40 / (time.process_time() - begun) * 60


def thousand() -> None:
    """Measure a thousand idle nodes, without invariants: time and memory, in one round of up to `PATIENCE` seconds."""
    count, seconds = 1000, 3.0
    name, target = "idle 1,000 nodes, x real time", "5 within 2 GiB"
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE)
    begun = time.process_time()
    sim = Simulation(seed=1, nodes={f"n{index}": Spec() for index in range(count)}, objects=True)
    try:
        sim.run(1)
        joined = time.process_time() - begun
        sim.run(seconds)
        took = time.process_time() - begun - joined
    except TimeoutError:
        row(name, "-", f"not in {PATIENCE} s", target)
        print(f"  ({sim.time:.3f} s were simulated, {sim.trace.events:,} events; {_memory():.2f} GiB)")
        return
    finally:
        signal.alarm(0)
    row(name, "-", f"{seconds / took:,.2f}", target)
    print(f"  ({sim.trace.events:,} events; the first second took {joined:.0f} s; {_memory():.2f} GiB)")


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024
