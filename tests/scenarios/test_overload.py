"""Overload (docs/explanation/guarantees.md): goodput, refusals, turns of clients, and the time after it.

Two nodes with four slots each run a function of 100 ms, so they can end 80 calls a second.
"""

from __future__ import annotations

from statistics import median

from mpreg_transports import Graph, sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
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


# -- where a backlog must not harm ------------------------------------------------------------------------------------


def ends(calls: list[SimCall]) -> list[int | None]:
    """Return the error code of each call, None for a result."""
    return [None if call.result is None or call.result.fault is None else int(call.result.fault.code) for call in calls]


def only(*, duration: float, concurrency: int | None = None, nodes: str = "a") -> Simulation:
    """Return a simulation of these nodes, of which the last one alone offers `work`."""
    spec = Spec(functions={"work": Fn(work, duration=duration, concurrency=concurrency)})
    sim = Simulation(seed=1, nodes={name: spec if name == nodes[-1] else Spec() for name in nodes}, objects=True)
    sim.run(2)
    return sim


def test_call_that_waited_for_its_function_keeps_its_place_in_the_backlog() -> None:
    sim = only(duration=2, concurrency=1)
    sim.withdraw("a", "work")
    calls = [sim.call("a", "work", number, wait=3, client="c@a") for number in range(6)]
    sim.run(1)
    sim.offer("a", "work", Fn(work, duration=2, concurrency=1))
    sim.run(20)
    assert ends(calls) == [None] * 6


def test_leaving_node_runs_its_backlog() -> None:
    sim = only(duration=0.1, concurrency=2)
    calls = [sim.call("a", "work", number, client="c@a") for number in range(40)]
    sim.run(0.3)
    sim.leave("a")
    sim.run(20)
    assert ends(calls) == [None] * 40


def test_coordinator_that_was_refused_fills_the_slots_of_another() -> None:
    sim = only(duration=10, concurrency=4, nodes="abw")
    first = [sim.call("a", "work", number) for number in range(8)]
    sim.run(0.1)
    second = [sim.call("b", "work", number) for number in range(8)]
    sim.run(60)
    assert ends([*first, *second]) == [None] * 16
    assert max(latencies(second)) <= 41, "four slots, ten seconds, sixteen calls"


def test_calls_with_a_place_beside_a_backlog_for_other_resources() -> None:
    gpu = Spec(functions={"work": Fn(work, duration=0.2, concurrency=1)}, resources={"gpu"})
    plain = Spec(functions={"work": Fn(work, duration=0.2, concurrency=8)})
    sim = Simulation(seed=1, nodes={"a": plain, "b": gpu}, objects=True)
    sim.run(2)
    for number in range(60):
        sim.call("a", "work", number, resources={"gpu"}, client=f"{number % 3}@a", timeout=60)
    sim.run(3)
    calls = [sim.call("a", "work", number, client="0@a") for number in range(5)]
    sim.run(20)
    assert ends(calls) == [None] * 5


def test_client_alone_is_not_refused() -> None:
    sim = only(duration=0.02, concurrency=4)
    calls = [sim.call("a", "work", number, client="c@a") for number in range(400)]
    sim.run(1.5)
    calls += [sim.call("a", "work", number, client="c@a") for number in range(400)]
    sim.run(20)
    assert ends(calls) == [None] * 800


def test_inline_function_takes_any_number_of_calls() -> None:
    sim = Simulation(seed=1, nodes={"a": Spec(functions={"work": Fn(work, inline=True, concurrency=2)})}, objects=True)
    sim.run(2)
    calls = [sim.call("a", "work", number, client="c@a") for number in range(200)]
    sim.run(2)
    assert ends(calls) == [None] * 200


# -- who waits where, and who is next ---------------------------------------------------------------------------------


def held(sim: Simulation, node: str) -> tuple[int, int, int]:
    """Return how many bodies run at a node, how many calls wait there for a slot, and how many in its backlog."""
    host = sim.nodes[node]
    return host.node.worker.running, host.node.worker.queued, host.node.coordinator.pending_calls.backlog.count("work")


def started(sim: Simulation, calls: list[SimCall]) -> list[int]:
    """Run until all have ended; return their positions in the order in which their results came."""
    sim.run(until=lambda: all(call.done() for call in calls), limit=120)
    return sorted(range(len(calls)), key=lambda number: calls[number].ended or 0)


def test_backlog_waits_at_the_coordinator() -> None:
    """The worker runs four calls and queues four; `queue=1` leaves one. All others are still unbound."""
    sim = only(duration=1, concurrency=4, nodes="aw")
    calls = [sim.call("a", "work", number, client="c@a") for number in range(50)]
    sim.run(0.5)
    assert held(sim, "w") == (4, 4, 0) and held(sim, "a") == (0, 0, 42)
    sim.cancel(calls[-1])
    sim.run(0.01)
    assert held(sim, "a") == (0, 0, 41), "cancelled without a message to a worker"
    spec = Spec(functions={"work": Fn(work, duration=1, concurrency=4, queue=1)})
    narrow = Simulation(seed=1, nodes={"a": Spec(), "w": spec}, objects=True)
    narrow.run(2)
    calls = [narrow.call("a", "work", number, client="c@a") for number in range(50)]
    narrow.run(0.5)
    assert held(narrow, "w") == (4, 1, 0) and held(narrow, "a") == (0, 0, 45)


def test_backlog_moves_to_a_node_that_comes_later() -> None:
    spec = Spec(functions={"work": Fn(work, duration=1, concurrency=2)})
    sim = Simulation(seed=1, nodes={"a": Spec(), "w": spec, "later": spec}, objects=True)
    sim.crash("later")
    sim.run(10)
    calls = [sim.call("a", "work", number, client="c@a", timeout=120) for number in range(40)]
    sim.run(1.5)
    sim.restart("later")
    assert sim.run(until=lambda: all(call.done() for call in calls), limit=120)
    assert latencies(calls)[-1] <= 1.5 + 40 / 4 + 3, "two nodes shared them from then on"


def test_credit_is_shared_by_coordinators() -> None:
    """Two coordinators with the same load get about the same number of calls through, in any second."""
    sim = only(duration=0.1, concurrency=4, nodes="abw")
    calls = {node: [sim.call(node, "work", number, timeout=60) for number in range(200)] for node in "ab"}
    sim.run(3)
    done = {node: sum(call.done() for call in calls[node]) for node in "ab"}
    assert sum(done.values()) >= 0.8 * 40 * 3 and min(done.values()) >= 0.4 * sum(done.values()), done


def test_admission_by_the_expected_wait_and_the_deadline() -> None:
    """A request that would wait beyond its deadline is refused at once; one with more time is admitted."""
    sim = only(duration=1, concurrency=1)
    calls = [sim.call("a", "work", number, client="c@a", timeout=120) for number in range(30)]
    sim.run(10)
    hasty = sim.call("a", "work", 1, client="c@a", timeout=5)
    patient = sim.call("a", "work", 1, client="c@a", timeout=60)
    sim.run(0.1)
    assert ends([hasty]) == [1022] and hasty.error is not None and hasty.error.details["retry_after"] > 0
    assert hasty.error.details["maybe_executed"] is False
    sim.run(60)
    assert ends([*calls, patient]) == [None] * 31, "what was admitted is never refused later"


def test_call_with_less_time_than_the_median_is_not_started() -> None:
    """Its turn comes when 0.5 s are left, and a body takes a second: it ends with 1020 at once, and no body begins."""
    begun: list[int] = []

    def body(number: int) -> int:
        begun.append(number)
        return number

    spec = Spec(functions={"work": Fn(body, duration=1, concurrency=1)})
    sim = Simulation(seed=1, nodes={"a": spec}, objects=True, watchers=())
    sim.run(2)
    first = [sim.call("a", "work", number, client="c@a", timeout=60) for number in range(8)]
    sim.run(until=first[-1].done, limit=20)
    running = [sim.call("a", "work", number, client="c@a", timeout=60) for number in (10, 11)]
    late = sim.call("a", "work", 12, client="d@a", timeout=1.5)
    sim.run(10)
    assert ends(running) == [None, None] and ends([late]) in ([1020], [1022])
    assert 12 not in begun and late.error is not None and late.error.details["maybe_executed"] is False


def test_earliest_deadline_of_a_client_is_first() -> None:
    sim = only(duration=0.1, concurrency=1)
    timeouts = [90, 30, 60, 45, 75]
    for number in range(2):
        sim.call("a", "work", number, client="c@a", timeout=120)
    calls = [sim.call("a", "work", number, client="c@a", timeout=timeout) for number, timeout in enumerate(timeouts)]
    assert started(sim, calls) == [1, 3, 2, 4, 0]


def test_turns_of_clients_at_a_worker() -> None:
    """The key of a client travels with its calls: in the queue of the worker they take turns too."""
    spec = Spec(functions={"work": Fn(work, duration=0.1, concurrency=1, queue=40)})
    sim = Simulation(seed=1, nodes={"a": Spec(), "w": spec}, objects=True)
    sim.run(2)
    many = [sim.call("a", "work", number, client="many@a") for number in range(20)]
    sim.run(0.05)
    assert held(sim, "w") == (1, 19, 0)
    few = [sim.call("a", "work", number, client="few@a") for number in range(3)]
    sim.run(0.05)
    order = started(sim, [*many, *few])
    assert max(order.index(20 + number) for number in range(3)) <= 8, "about every second place"


# -- links ------------------------------------------------------------------------------------------------------------


def large(size: int) -> bytes:
    return bytes(size)


async def hold(value: bytes, seconds: float) -> int:
    await sleep(seconds)
    return len(value)


def test_slow_consumer_that_reads_on_is_kept() -> None:
    """Its answer takes 20 s, twice as long as `Limits.stalled`."""
    sim = Simulation(seed=1, nodes={"a": Spec(functions={"large": Fn(large), "work": Fn(work)})})
    sim.run(2)
    warm = sim.call("a", "work", 1, client="c@a")
    sim.run(until=warm.done, limit=2)
    sim.link("a", "c@a").set(bandwidth=100_000)
    answer = sim.call("a", "large", 2_000_000, client="c@a", timeout=300)
    assert sim.run(until=answer.done, limit=60)
    assert len(answer.value) == 2_000_000


def test_cancel_follows_its_request() -> None:
    """The request takes ten seconds to leave; its cancel comes behind it, and no body goes on."""
    sim = Simulation(seed=1, nodes={"a": Spec(functions={"hold": Fn(hold)})}, watchers=invariants())
    sim.run(2)
    sim.run(until=sim.call("a", "hold", b"", 0.0, client="c@a").done, limit=2)
    sim.link("a", "c@a").set(bandwidth=100_000)
    call = sim.call("a", "hold", bytes(1_000_000), 60.0, client="c@a", timeout=300)
    sim.run(5)
    sim.cancel(call)
    sim.run(15)
    assert not sim.nodes["a"].running and not sim.nodes["a"].node.coordinator.requests
    sim.settle()


def test_goodbye_is_last() -> None:
    """A node that leaves sends its long answer over a slow link before its goodbye."""
    sim = Simulation(seed=1, nodes={"a": Spec(functions={"large": Fn(large)})}, watchers=invariants())
    sim.run(2)
    sim.run(until=sim.call("a", "large", 1, client="c@a").done, limit=2)
    sim.link("a", "c@a").set(bandwidth=200_000)
    call = sim.call("a", "large", 1_000_000, client="c@a", timeout=60)
    sim.run(1)
    sim.leave("a")
    assert sim.run(until=call.done, limit=30)
    assert len(call.value) == 1_000_000


def test_membership_messages_pass_long_values() -> None:
    """A value of 4 MB on a link of 400 kB/s between two nodes: neither of them is suspected, and pings are answered."""
    sim = Simulation(seed=1, nodes={"a": Spec(), "w": Spec(functions={"large": Fn(large)})}, watchers=invariants())
    sim.run(2)
    sim.run(until=sim.call("a", "large", 1).done, limit=2)
    sim.link("a", "w").set(bandwidth=400_000)
    call = sim.call("a", "large", 4_000_000, timeout=60)
    standings = set()
    while not call.done():
        sim.run(0.5)
        standings |= {row.standing for host in sim.nodes.values() for row in host.node.view(now=host.local).members}
    assert standings == {"alive"} and len(call.value) == 4_000_000
