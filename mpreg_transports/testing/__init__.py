"""Tests of clusters: simulated in virtual time, or real servers in one process; checks of a driver of your own.

Each name is imported at its first use, so that the pytest plugin, which is also in this package, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_transports.testing.driver_checks.check_driver import check_driver, driver_report
    from mpreg_transports.testing.driver_checks.report import DriverCheck, DriverReport, DriverUnderTest
    from mpreg_transports.testing.faults.swarm import Swarm
    from mpreg_transports.testing.memory.cluster import MemoryCluster, memory_cluster
    from mpreg_transports.testing.pytest_support.decorator import simulate
    from mpreg_transports.testing.pytest_support.machine import ClusterMachine
    from mpreg_transports.testing.runs.replay import replay, saved_case
    from mpreg_transports.testing.runs.shrink import shrink
    from mpreg_transports.testing.simulation.calls import SimCall
    from mpreg_transports.testing.simulation.chooser import Chooser, Hypothesis, Seeded, Tape
    from mpreg_transports.testing.simulation.determinism import DeterminismError
    from mpreg_transports.testing.simulation.durations import constant, exponential, uniform
    from mpreg_transports.testing.simulation.functions import Fn
    from mpreg_transports.testing.simulation.hosts import Spec
    from mpreg_transports.testing.simulation.simulation import Simulation
    from mpreg_transports.testing.simulation.watchers import Violation, Watcher

__all__ = [
    "Chooser",
    "ClusterMachine",
    "DeterminismError",
    "DriverCheck",
    "DriverReport",
    "DriverUnderTest",
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
    "check_driver",
    "constant",
    "driver_report",
    "exponential",
    "memory_cluster",
    "replay",
    "saved_case",
    "shrink",
    "simulate",
    "uniform",
]

_WHERE = {
    "Chooser": "simulation.chooser",
    "ClusterMachine": "pytest_support.machine",
    "DeterminismError": "simulation.determinism",
    "DriverCheck": "driver_checks.report",
    "DriverReport": "driver_checks.report",
    "DriverUnderTest": "driver_checks.report",
    "Fn": "simulation.functions",
    "Hypothesis": "simulation.chooser",
    "MemoryCluster": "memory.cluster",
    "Seeded": "simulation.chooser",
    "SimCall": "simulation.calls",
    "Simulation": "simulation.simulation",
    "Spec": "simulation.hosts",
    "Swarm": "faults.swarm",
    "Tape": "simulation.chooser",
    "Violation": "simulation.watchers",
    "Watcher": "simulation.watchers",
    "check_driver": "driver_checks.check_driver",
    "constant": "simulation.durations",
    "driver_report": "driver_checks.check_driver",
    "exponential": "simulation.durations",
    "memory_cluster": "memory.cluster",
    "replay": "runs.replay",
    "saved_case": "runs.replay",
    "shrink": "runs.shrink",
    "simulate": "pytest_support.decorator",
    "uniform": "simulation.durations",
}
"""The module of this package that defines each name."""


def __getattr__(name: str) -> object:
    """Import and return `name`. Raises AttributeError for a name that is not in `__all__`."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found
