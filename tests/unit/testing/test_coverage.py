"""Situations are counted over all simulations until a caller takes the counts."""

from collections.abc import Iterator

import pytest

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.runs.coverage import SITUATIONS, Coverage, never, sometimes, table, take
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    take()
    yield
    take()


async def nap(value: int) -> int:
    await sleep(2)
    return value


def test_situations_that_were_never_reached_are_listed() -> None:
    sometimes("it rains", False)
    sometimes("the sun shines")
    sometimes("the sun shines", "also by what is true")
    reached = take()
    assert reached["it rains"] == 0
    assert reached["the sun shines"] == 2
    assert never(reached) == [*SITUATIONS, "it rains"]
    assert table({"it rains": 0, "the sun shines": 2}) == ["    NEVER  it rains", "        2  the sun shines"]
    assert take() == dict.fromkeys(SITUATIONS, 0)


def test_situations_of_a_crash() -> None:
    functions = {"again": Fn(nap, idempotent=True), "once": nap}
    nodes = {"front": Spec(), "left": Spec(functions=functions), "right": Spec(functions=functions)}
    sim = Simulation(seed=1, nodes=nodes, watchers=[Coverage()])
    sim.run(2)
    for value in range(8):
        sim.call("front", "again", value)
        sim.call("front", "once", value)
    stopped = [sim.call("front", "once", value) for value in range(8)]
    sim.run(1)
    for call in stopped:
        sim.cancel(call)
    sim.run(0.1)
    sim.crash("left")
    sim.settle()
    reached = take()
    assert len(never(reached)) < len(SITUATIONS)
    for name in (
        "a call failed over to another node",
        "an idempotent body started twice",
        "a body was cancelled while it ran",
        "a dial found nobody",
        "a member was found DEAD",
        "the outcome was unknown (1023)",
    ):
        assert reached[name] > 0, name
    for name in ("a frame came in pieces", "a reset took data that was on its way", "a member said LEFT"):
        assert reached[name] == 0, name


def test_situations_of_links_and_leaving() -> None:
    nodes = {name: Spec(functions={"nap": nap}) for name in "abc"}
    sim = Simulation(seed=1, nodes=nodes, watchers=[Coverage()])
    sim.link("a", "b").set(reset=0.2, rechunk=0.5)
    for _ in range(20):
        sim.call("a", "nap", 1, timeout=1)
        sim.call("b", "nowhere")
        sim.run(0.5)
    sim.leave("c")
    sim.settle()
    reached = take()
    for name in (
        "a frame came in pieces",
        "a member said LEFT",
        "nobody could run a call (1001)",
        "the deadline passed (1020)",
    ):
        assert reached[name] > 0, name
