"""Cancelled requests in virtual time: where their calls are at that moment, and what becomes of each."""

from __future__ import annotations

import pytest

from mpreg_transports import Graph, sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.calls import SimCall


async def ponder(seconds: float) -> str:
    """Sleep, and clean up for half a second when cancelled."""
    try:
        await sleep(seconds)
    finally:
        await sleep(0.5)
    return "done"


def plain(number: int) -> int:
    return number


FUNCTIONS = {
    "ponder": Fn(ponder, concurrency=1),
    "plain": Fn(plain, duration=3, concurrency=1),
}


def cluster() -> Simulation:
    """Return a cluster of `front` and `back`, which offers functions with one slot each."""
    sim = Simulation(seed=7, nodes={"front": Spec(), "back": Spec(functions=FUNCTIONS)}, watchers=invariants())
    sim.run(5)
    return sim


def held(sim: Simulation) -> tuple[int, int]:
    """Return how many bodies run at `back`, and how many calls wait there."""
    return len(sim.nodes["back"].running), sim.nodes["back"].node.worker.queued


def cancel(sim: Simulation, *calls: SimCall) -> None:
    for call in calls:
        sim.cancel(call)
    sim.run(0.1)


def test_cancel_of_a_running_coroutine_waits_for_its_cleanup() -> None:
    """One cancellation: `finally: await ...` runs to its end, and the slot is held until then."""
    sim = cluster()
    call, other = sim.call("front", "ponder", 60.0), sim.call("front", "ponder", 0.1)
    sim.run(0.2)
    assert held(sim) == (1, 1)
    cancel(sim, call)
    assert held(sim) == (1, 1), "it cleans up"
    sim.run(0.5)
    assert held(sim) == (1, 0), "the other one has its slot"
    assert sim.run(until=other.done, limit=5) and other.value == "done"
    sim.settle()


def test_cancel_of_queued_calls_at_another_node() -> None:
    sim = cluster()
    first, second = sim.call("front", "plain", 1), sim.call("front", "plain", 2)
    sim.run(0.2)
    assert held(sim) == (1, 1)
    cancel(sim, second)
    assert held(sim) == (1, 0)
    assert sim.run(until=first.done, limit=5) and first.value == 1
    sim.settle()


def test_cancel_of_calls_in_the_backlog() -> None:
    sim = cluster()
    calls = [sim.call("front", "plain", number) for number in range(10)]
    sim.run(0.2)
    backlog = sim.nodes["front"].node.coordinator.pending_calls.backlog
    assert backlog.count("plain") == 8
    cancel(sim, *calls[2:])
    assert backlog.count("plain") == 0 and held(sim) == (1, 1)
    assert sim.run(until=calls[1].done, limit=10)
    sim.settle()


def test_cancelled_thread_keeps_its_slot_until_it_returns() -> None:
    sim = cluster()
    call, other = sim.call("front", "plain", 1), sim.call("front", "plain", 2)
    sim.run(0.2)
    cancel(sim, call)
    assert held(sim) == (1, 1), "a plain function cannot be interrupted"
    assert sim.run(until=other.done, limit=10)
    assert (other.ended or 0) - other.sent >= 6e9 - 1e8
    sim.settle()


@pytest.mark.parametrize("at", [0.2, 0.7, 1.3])
def test_cancel_of_a_graph_ends_all_its_calls(at: float) -> None:
    sim = cluster()
    graph = Graph()
    last = graph.call("ponder", 1.0)
    for _ in range(3):
        last = graph.call("ponder", 1.0, after=[last])
    call = sim.graph("front", graph)
    sim.run(at)
    cancel(sim, call)
    sim.run(1)
    assert held(sim) == (0, 0) and not sim.nodes["front"].node.coordinator.requests
    sim.settle()


def test_client_that_vanishes_cancels_its_calls() -> None:
    sim = cluster()
    call = sim.call("front", "ponder", 60.0)
    sim.run(0.2)
    assert held(sim) == (1, 0)
    sim.vanish(call.client)
    sim.run(1)
    assert held(sim) == (0, 0)
    sim.settle()
