"""A small simulated cluster with all invariants, and a check that an action violates one of them."""

from collections.abc import Callable
from typing import Any

import pytest

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Violation


def double(value: int) -> int:
    return 2 * value


async def slow(value: int) -> int:
    await sleep(3)
    return value


FUNCTIONS = {"double": double, "slow": slow, "again": Fn(slow, idempotent=True), "single": Fn(slow, concurrency=1)}


def cluster(**more: Any) -> Simulation:
    """Return a simulation of three joined nodes that differ only in their resources."""
    nodes = {name: Spec(functions=FUNCTIONS, resources={name}) for name in ("front", "left", "right")}
    sim = Simulation(seed=5, nodes=nodes, watchers=invariants(), **more)
    sim.run(2)
    return sim


def violated(number: int, act: Callable[[], object]) -> str:
    """Check that `act` violates this invariant and no other; return the text of the violation."""
    with pytest.raises(Violation) as caught:
        act()
    assert caught.value.invariant == number, caught.value.text
    return caught.value.text
