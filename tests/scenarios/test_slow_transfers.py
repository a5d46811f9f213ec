"""A transfer over a slow link, in virtual time: for any duration, no link is closed and no member is marked DEAD."""

import pytest

from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants


def large(size: int) -> bytes:
    return bytes(size)


def size(data: bytes) -> int:
    return len(data)


FUNCTIONS = {"large": Fn(large), "size": Fn(size)}


@pytest.mark.parametrize("rate", [20_000, 100_000])
@pytest.mark.parametrize("function", ["large", "size"])
def test_slow_transfer_between_two_nodes(function: str, rate: int) -> None:
    sim = Simulation(seed=5, nodes={"front": Spec(), "back": Spec(functions=FUNCTIONS)}, watchers=invariants())
    sim.run(5)
    sim.link("front", "back").set(bandwidth=rate)
    argument = 55 * rate
    call = sim.call("front", function, argument if function == "large" else bytes(argument), timeout=300)
    while not call.done():
        sim.run(1)
        for host in sim.nodes.values():
            rows = [row.standing for row in host.node.view(now=host.local).members]
            assert "dead" not in rows, (sim.time, host.name, rows)
        assert sim.time < 300
    assert call.error is None, call.error
    assert sim.time > 55
