"""Overload (docs/explanation/guarantees.md): goodput, refusals, turns of clients, and the time after it.

Two nodes with four slots each run a function of 100 ms, so they can end 80 calls a second.
"""

from __future__ import annotations

from statistics import median

from mpreg_transports import Graph
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.simulation.calls import SimCall

CAPACITY = 80
UNLOADED = 0.1


def work(number: int) -> int:
    return number


def cluster(seed: int = 1) -> Simulation:
    spec = Spec(functions={"work": Fn(work, duration=UNLOADED, concurrency=4)})
    sim = Simulation(seed=seed, nodes={"a": spec, "b": spec}, objects=True, watchers=())
    sim.run(2)
    return sim


def offer(
    sim: Simulation, rate: float, seconds: float, *, client: str, at: float = 0.0, timeout: float | None = None
) -> list[SimCall]:
    """Schedule calls at this rate from four clients, two at each node; they are in the list once sent."""
    calls: list[SimCall] = []

    def send(number: int) -> None:
        node, which = "ab"[number % 2], number // 2 % 2
        calls.append(sim.call(node, "work", number, client=f"{client}{which}@{node}", timeout=timeout))

    for number in range(int(rate * seconds)):
        sim.schedule(at + number / rate, send, number)
    return calls


def latencies(calls: list[SimCall], code: int | None = None) -> list[float]:
    """Return the seconds of the calls that ended with that error code, or with a result, sorted."""
    spans = []
    for call in calls:
        assert call.result is not None and call.ended is not None, call
        fault = call.result.fault
        if (None if fault is None else fault.code) == code:
            spans.append((call.ended - call.sent) / 1e9)
    return sorted(spans)


def test_goodput_and_refusals_at_ten_times_the_capacity() -> None:
    sim = cluster()
    calls = offer(sim, 10 * CAPACITY, 10, client="c")
    sim.run(30)
    done, refused = latencies(calls), latencies(calls, 1022)
    assert len(done) + len(refused) == len(calls), "each ends in a result or is refused"
    in_time = [call for call in calls if call.result and call.result.fault is None and (call.ended or 0) < 12e9]
    assert len(in_time) >= 0.8 * CAPACITY * 10
    assert refused[len(refused) * 99 // 100] <= 0.05
    for call in calls:
        if call.result and call.result.fault is not None:
            details = call.result.fault.details
            assert details["maybe_executed"] is False and details["retry_after"] > 0


def test_normal_latency_soon_after_an_overload() -> None:
    sim = cluster()
    offer(sim, 10 * CAPACITY, 1, client="c")
    after = offer(sim, CAPACITY / 4, 5, client="d", at=16)
    sim.run(25)
    assert latencies(after)[-1] <= UNLOADED + 0.15


def test_answers_by_the_deadline_in_an_overload() -> None:
    sim = cluster()
    calls = offer(sim, 20 * CAPACITY, 5, client="c", timeout=2)
    sim.run(12)
    assert all(call.ended is not None and call.ended - call.sent <= 2.25e9 for call in calls)
    assert len(latencies(calls)) >= 0.6 * CAPACITY * 5


def test_client_with_few_calls_beside_one_with_many() -> None:
    sim = cluster()
    offer(sim, 10 * CAPACITY, 10, client="greedy")
    few = offer(sim, 5, 8, client="modest", at=2)
    sim.run(30)
    spans = latencies(few)
    assert len(spans) == len(few), "none of them is refused"
    assert median(spans) <= 5 * UNLOADED, "its turn, the queue, and its runtime"


def test_small_requests_beside_one_of_ten_thousand_calls() -> None:
    alone = cluster()
    small = offer(alone, 5, 4, client="small")
    alone.run(10)
    without = median(latencies(small))
    sim = cluster()
    graph = Graph()
    for number in range(10_000):
        graph.call("work", number)
    sim.submit("a", graph.request(timeout=300 * 10**9), client="large@a")
    small = offer(sim, 5, 4, client="small", at=1)
    sim.run(10)
    assert median(latencies(small)) <= 2 * without + UNLOADED
