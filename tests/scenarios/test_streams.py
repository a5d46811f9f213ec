"""Generators and progress in virtual time: backpressure, lost nodes, relays, deadlines, and clients that leave."""

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from mpreg_proto.errors import DeadlineExceeded, OutcomeUnknown
from mpreg_proto.limits import SECOND
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports import Graph, Progress, sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.values import default_codec


def count(items: int, *, progress: Progress) -> Iterator[int]:
    for item in range(items):
        progress(item, items)
        yield item


async def ponder(items: int) -> AsyncIterator[int]:
    for item in range(items):
        await sleep(0.01)
        yield item


FUNCTIONS = {
    "count": Fn(count, duration=0.01, idempotent=True),
    "ponder": Fn(ponder, idempotent=True),
    "once": Fn(ponder),
}


def cluster(*, workers: int = 1) -> Simulation:
    """Return a cluster of `front` and workers, which all offer the generators."""
    nodes = {"front": Spec(), **{f"worker-{number}": Spec(functions=FUNCTIONS) for number in range(workers)}}
    sim = Simulation(seed=5, nodes=nodes, watchers=invariants())
    sim.run(5)
    return sim


def ask(sim: Simulation, function: str, items: int, *, timeout: int = 60, progress: bool = False) -> SimCall:
    call = Call(function, function, default_codec().encode([[items], {}]))
    return sim.submit("front", Request(0, (call,), streams=(function,), timeout=timeout * SECOND, progress=progress))


def running(sim: Simulation) -> list[str]:
    """Return the workers with a body that runs."""
    return [name for name, host in sim.nodes.items() if host.alive and host.running]


@pytest.mark.parametrize("function", ["count", "ponder"])
def test_generator_waits_for_a_consumer_that_pauses(function: str) -> None:
    sim = cluster()
    call = ask(sim, function, 100)
    call.consumes = False
    sim.run(5)
    assert call.items_of(function) == list(range(16))
    (body,) = sim.nodes["worker-0"].running.values()
    assert (len(body.produced), body.idle) == (16, True)
    host = sim.clients[call.client]
    call.taken[function] = 5
    host.session.items_taken(call.number, function, 5, now=host.local)
    sim._engine.after(host)
    sim.run(5)
    assert call.items_of(function) == list(range(21))
    sim.cancel(call)
    sim.run(5)
    assert running(sim) == []
    sim.settle()


@pytest.mark.parametrize("function", ["count", "ponder", "once"])
def test_worker_lost_after_the_first_item(function: str) -> None:
    sim = cluster(workers=2)
    call = ask(sim, function, 1000)
    assert sim.run(until=lambda: bool(call.items), limit=5)
    (worker,) = running(sim)
    sim.crash(worker)
    assert sim.run(until=call.done, limit=30)
    assert isinstance(call.error, OutcomeUnknown) and len(call.items_of(function)) < 1000
    assert call.error.details["maybe_executed"] is (function == "once")
    sim.restart(worker)
    sim.settle()


def test_worker_lost_before_the_first_item() -> None:
    sim = cluster(workers=2)
    call = ask(sim, "ponder", 50)
    assert sim.run(until=lambda: bool(running(sim)), limit=5)
    (worker,) = running(sim)
    sim.crash(worker)
    assert sim.run(until=call.done, limit=30)
    assert call.error is None and call.items_of("ponder") == list(range(50))
    sim.restart(worker)
    sim.settle()


def test_deadline_of_a_stream_that_never_stalls() -> None:
    sim = cluster()
    call = ask(sim, "ponder", 10_000, timeout=3)
    assert sim.run(until=call.done, limit=10)
    assert isinstance(call.error, DeadlineExceeded) and len(call.items_of("ponder")) > 50
    sim.run(1)
    assert running(sim) == []
    sim.settle()


def test_stream_and_progress_over_a_relay() -> None:
    between = Spec()
    sim = Simulation(
        seed=3,
        nodes={"relay": between, "front": Spec(peers=("relay",)), "back": Spec(peers=("relay",), functions=FUNCTIONS)},
        watchers=invariants(),
    )
    sim.partition({"front"}, {"back"})
    sim.run(5)
    call = ask(sim, "count", 60, progress=True)
    assert sim.run(until=call.done, limit=30)
    assert call.error is None and call.items_of("count") == list(range(60))
    assert {one.node for one in call.progress} == {sim.nodes["back"].node.shown} and call.progress[-1].done == 59
    later = ask(sim, "count", 1000)
    assert sim.run(until=lambda: len(later.items_of("count")) > 20, limit=30)
    sim.cancel(later)
    sim.run(5)
    assert running(sim) == [] and len(sim.nodes["relay"].node.relay) == 0
    sim.settle()


def test_client_that_vanishes_ends_its_stream() -> None:
    sim = cluster()
    call = ask(sim, "ponder", 10_000)
    assert sim.run(until=lambda: bool(call.items), limit=5)
    sim.vanish(call.client)
    sim.run(5)
    assert running(sim) == []
    sim.settle()


def test_leaving_worker_finishes_or_ends_its_stream() -> None:
    sim = cluster(workers=2)
    short, long = ask(sim, "ponder", 100), ask(sim, "once", 100_000)
    assert sim.run(until=lambda: bool(short.items and long.items), limit=5)
    for worker in running(sim):
        sim.leave(worker)
    assert sim.run(until=lambda: short.done() and long.done(), limit=30)
    assert short.error is None and short.items_of("ponder") == list(range(100))
    assert isinstance(long.error, OutcomeUnknown)


def test_call_of_a_generator_gives_the_list() -> None:
    sim = cluster()
    call = sim.call("front", "ponder", 40)
    assert sim.run(until=call.done, limit=5)
    assert call.value == list(range(40)) and not call.items
    sim.settle()


def test_dependents_of_a_generator_get_the_list() -> None:
    functions = {**FUNCTIONS, "total": Fn(sum, idempotent=True)}
    sim = Simulation(seed=5, nodes={"front": Spec(), "back": Spec(functions=functions)}, watchers=invariants())
    sim.run(5)
    graph = Graph()
    items = graph.call("ponder", 40)
    graph.call("total", items)
    graph.call("total", items)
    call = sim.graph("front", graph)
    assert sim.run(until=call.done, limit=5)
    assert call.values == {"total": 780, "total-2": 780}
    sim.settle()


def test_progress_comes_at_most_ten_times_a_second() -> None:
    """A hundred reports in ten seconds would be 10 each second; here are 1,000, and the last one arrives."""
    sim = cluster()
    call = ask(sim, "count", 1000, progress=True)
    began = sim.time
    assert sim.run(until=call.done, limit=60)
    assert 2 <= len(call.progress) <= 10 * (sim.time - began) + 2
    assert (call.progress[-1].done, call.progress[-1].total) == (999, 1000)
    done = [one.done for one in call.progress]
    assert done == sorted(done)
    sim.settle()


def test_no_progress_without_a_client_that_wants_it() -> None:
    sim = cluster()
    call = ask(sim, "count", 100)
    assert sim.run(until=call.done, limit=60)
    assert call.progress == []
    sim.settle()


# -- items that another call takes one by one -------------------------------------------------------------------------


async def total(rows: AsyncIterator[int]) -> int:
    found = 0
    async for row in rows:
        found += row
    return found


async def slow_total(rows: AsyncIterator[int]) -> int:
    await sleep(1)
    found = 0
    async for row in rows:
        await sleep(0.1)
        found += row
    return found


TAKERS = {"total": Fn(total, idempotent=True), "slow": Fn(slow_total, idempotent=True)}


def takers() -> Simulation:
    """Return a cluster of `front`, a `maker` with the generators, and two takers."""
    nodes = {"front": Spec(), "maker": Spec(functions=FUNCTIONS)}
    nodes |= {f"taker-{number}": Spec(functions=TAKERS) for number in range(2)}
    sim = Simulation(seed=5, nodes=nodes, watchers=invariants())
    sim.run(5)
    return sim


def ask_both(sim: Simulation, function: str, items: int, *, generator: str = "ponder") -> SimCall:
    graph = Graph()
    graph.call(function, graph.call(generator, items))
    return sim.submit("front", graph.request(timeout=60 * SECOND))


def taken(sim: Simulation) -> list[str]:
    """Return the takers with a body that runs."""
    return [name for name in running(sim) if name.startswith("taker")]


def test_items_of_one_node_taken_on_another() -> None:
    sim = takers()
    call = ask_both(sim, "slow", 60)
    assert sim.run(until=lambda: bool(taken(sim)), limit=5)
    sim.run(0.9)
    (body,) = sim.nodes["maker"].running.values()
    assert (len(body.produced), body.idle) == (16, True), "the call has started, and has taken nothing"
    assert sim.run(until=call.done, limit=30)
    assert call.values["slow"] == sum(range(60))
    sim.settle()


def test_call_lost_before_it_has_taken_an_item_gets_all_of_them_elsewhere() -> None:
    sim = takers()
    call = ask_both(sim, "slow", 60)
    assert sim.run(until=lambda: bool(taken(sim)), limit=5)
    (lost,) = taken(sim)
    sim.crash(lost)
    assert sim.run(until=call.done, limit=30)
    assert call.values["slow"] == sum(range(60))
    sim.restart(lost)
    sim.settle()


@pytest.mark.parametrize("which", ["taker", "maker"])
def test_node_lost_after_items_were_taken(which: str) -> None:
    sim = takers()
    call = ask_both(sim, "slow", 600, generator="count")
    assert sim.run(until=lambda: bool(taken(sim)), limit=5)
    sim.run(2)
    lost = taken(sim)[0] if which == "taker" else "maker"
    sim.crash(lost)
    assert sim.run(until=call.done, limit=30)
    assert isinstance(call.error, OutcomeUnknown)
    assert call.error.details["call"] == ("slow" if which == "taker" else "count")
    sim.restart(lost)
    sim.run(5)
    assert running(sim) == []
    sim.settle()


@pytest.mark.parametrize("old", [False, True])
def test_items_over_a_relay(old: bool) -> None:
    """An old relay could not pass the items on, so the call gets the list."""
    peers = ("relay",)
    sim = Simulation(
        seed=3,
        nodes={
            "relay": Spec(),
            "front": Spec(peers=peers, functions=FUNCTIONS),
            "back": Spec(peers=peers, functions=TAKERS),
        },
        watchers=invariants(),
    )
    if old:
        links = sim.nodes["relay"].node.links
        usual = links._hello
        links._hello = lambda: msgspec.structs.replace(usual(), features=("again", "drain"))
    sim.partition({"front"}, {"back"})
    sim.run(5)
    call = ask_both(sim, "total", 60)
    passed = sim.run(until=lambda: any(body.run.fed for body in sim.nodes["back"].running.values()), limit=2)
    assert passed is not old
    assert sim.run(until=call.done, limit=50)
    assert call.values["total"] == sum(range(60))
    sim.settle()
