"""Tests of clusters: simulated in virtual time, or real servers in one process; checks of a driver of your own.

Each name is imported at its first use, so that the pytest plugin, which is also in this package, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_transports.testing.driver_checks.check_driver import check_driver, driver_report
    from mpreg_transports.testing.driver_checks.report import DriverCheck, DriverReport, DriverUnderTest
    from mpreg_transports.testing.expected import Expected, oracle
    from mpreg_transports.testing.faults.script import Script
    from mpreg_transports.testing.faults.swarm import Swarm
    from mpreg_transports.testing.memory.cluster import MemoryCluster, memory_cluster
    from mpreg_transports.testing.placing import place
    from mpreg_transports.testing.pytest_support.decorator import simulate
    from mpreg_transports.testing.pytest_support.machine import ClusterMachine
    from mpreg_transports.testing.runs.replay import replay, saved_case
    from mpreg_transports.testing.runs.shrink import shrink
    from mpreg_transports.testing.simulation.calls import CallKey, SimCall
    from mpreg_transports.testing.simulation.chooser import Chooser, Hypothesis, Seeded, Tape
    from mpreg_transports.testing.simulation.determinism import DeterminismError
    from mpreg_transports.testing.simulation.drivers import DriverFaults
    from mpreg_transports.testing.simulation.durations import constant, exponential, uniform
    from mpreg_transports.testing.simulation.functions import Fn
    from mpreg_transports.testing.simulation.hosts import Host, NodeHost, Spec, World
    from mpreg_transports.testing.simulation.network import Profile
    from mpreg_transports.testing.simulation.simulation import Simulation
    from mpreg_transports.testing.simulation.watchers import Violation, Watcher

__all__ = [
    "CallKey",
    "Chooser",
    "ClusterMachine",
    "DeterminismError",
    "DriverCheck",
    "DriverFaults",
    "DriverReport",
    "DriverUnderTest",
    "Expected",
    "Fn",
    "Host",
    "Hypothesis",
    "MemoryCluster",
    "NodeHost",
    "Profile",
    "Script",
    "Seeded",
    "SimCall",
    "Simulation",
    "Spec",
    "Swarm",
    "Tape",
    "Violation",
    "Watcher",
    "World",
    "check_driver",
    "constant",
    "driver_report",
    "exponential",
    "memory_cluster",
    "oracle",
    "place",
    "replay",
    "saved_case",
    "shrink",
    "simulate",
    "uniform",
]

_WHERE = {
    "CallKey": "simulation.calls",
    "Chooser": "simulation.chooser",
    "ClusterMachine": "pytest_support.machine",
    "DeterminismError": "simulation.determinism",
    "DriverCheck": "driver_checks.report",
    "DriverReport": "driver_checks.report",
    "DriverUnderTest": "driver_checks.report",
    "DriverFaults": "simulation.drivers",
    "Expected": "expected",
    "Fn": "simulation.functions",
    "Host": "simulation.hosts",
    "Hypothesis": "simulation.chooser",
    "MemoryCluster": "memory.cluster",
    "NodeHost": "simulation.hosts",
    "Profile": "simulation.network",
    "Script": "faults.script",
    "Seeded": "simulation.chooser",
    "SimCall": "simulation.calls",
    "Simulation": "simulation.simulation",
    "Spec": "simulation.hosts",
    "Swarm": "faults.swarm",
    "Tape": "simulation.chooser",
    "Violation": "simulation.watchers",
    "Watcher": "simulation.watchers",
    "World": "simulation.hosts",
    "check_driver": "driver_checks.check_driver",
    "constant": "simulation.durations",
    "driver_report": "driver_checks.check_driver",
    "exponential": "simulation.durations",
    "memory_cluster": "memory.cluster",
    "oracle": "expected",
    "place": "placing",
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


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
