"""Tests of clusters: simulated in virtual time, or real servers in one process.

Each name is imported when it is first asked for, so that the pytest plugin, which lives here too, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_transports.testing.calls import SimCall
    from mpreg_transports.testing.chooser import Chooser, Hypothesis, Seeded, Tape
    from mpreg_transports.testing.determinism import DeterminismError
    from mpreg_transports.testing.durations import constant, exponential, uniform
    from mpreg_transports.testing.functions import Fn
    from mpreg_transports.testing.hosts import Spec
    from mpreg_transports.testing.machine import ClusterMachine
    from mpreg_transports.testing.memory import MemoryCluster, memory_cluster
    from mpreg_transports.testing.simulate_decorator import simulate
    from mpreg_transports.testing.simulation import Simulation
    from mpreg_transports.testing.swarm import Swarm
    from mpreg_transports.testing.watchers import Violation, Watcher

__all__ = [
    "Chooser",
    "ClusterMachine",
    "DeterminismError",
    "Fn",
    "Hypothesis",
    "MemoryCluster",
    "Seeded",
    "SimCall",
    "Simulation",
    "Spec",
    "Swarm",
    "Tape",
    "Violation",
    "Watcher",
    "constant",
    "exponential",
    "memory_cluster",
    "simulate",
    "uniform",
]

_WHERE = {
    "Chooser": "chooser",
    "ClusterMachine": "machine",
    "DeterminismError": "determinism",
    "Fn": "functions",
    "Hypothesis": "chooser",
    "MemoryCluster": "memory",
    "Seeded": "chooser",
    "SimCall": "calls",
    "Simulation": "simulation",
    "Spec": "hosts",
    "Swarm": "swarm",
    "Tape": "chooser",
    "Violation": "watchers",
    "Watcher": "watchers",
    "constant": "durations",
    "exponential": "durations",
    "memory_cluster": "memory",
    "simulate": "simulate_decorator",
    "uniform": "durations",
}
"""Which module of this package holds a name."""


def __getattr__(name: str) -> object:
    """Import `name` where it lives. Raises AttributeError for what is not in `__all__`."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found
