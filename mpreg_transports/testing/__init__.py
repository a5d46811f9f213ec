"""Tests of clusters: simulated in virtual time, or real servers in one process."""

from mpreg_transports.testing.bodies import Fn
from mpreg_transports.testing.calls import SimCall
from mpreg_transports.testing.chooser import Chooser, Hypothesis, Seeded, Tape
from mpreg_transports.testing.determinism import DeterminismError
from mpreg_transports.testing.hosts import Spec
from mpreg_transports.testing.simulation import Simulation
from mpreg_transports.testing.spans import constant, exponential, uniform
from mpreg_transports.testing.watching import Violation, Watcher

__all__ = [
    "Chooser",
    "DeterminismError",
    "Fn",
    "Hypothesis",
    "Seeded",
    "SimCall",
    "Simulation",
    "Spec",
    "Tape",
    "Violation",
    "Watcher",
    "constant",
    "exponential",
    "uniform",
]
