"""The engine of the simulator: streams with their faults, clocks, restarts, functions in virtual time."""

import time
from typing import Any

import pytest

from mpreg_proto.errors import Cancelled, CommandNotFound, DeadlineExceeded, ExecutionFailed, OutcomeUnknown
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.graph import Graph
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.durations import exponential, uniform
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation


def double(value: int) -> int:
    return 2 * value


async def nap(seconds: float) -> str:
    await sleep(seconds)
    return "rested"


def pair(*, seed: int = 3, functions: dict[str, Any] | None = None, **more: Any) -> Simulation:
    """Return two joined nodes, with all invariants on: `back` offers the functions, clients call `front`."""
    offered = {"double": double, "nap": nap} if functions is None else functions
    nodes = {"front": Spec(), "back": Spec(functions=offered)}
    sim = Simulation(seed=seed, nodes=nodes, watchers=invariants(), **more)
    sim.run(2)
    return sim


def standing(sim: Simulation, of: str, seen_by: str) -> str:
    member = sim.nodes[seen_by].node.cluster.members.get(sim.nodes[of].node.me)
    return "unknown" if member is None else member.standing.name


# -- calls and time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objects", [False, True])
def test_duration_of_a_call(objects: bool) -> None:
    sim = pair(functions={"double": Fn(double, duration=0.25)}, objects=objects)
    call = sim.call("front", "double", 21)
    assert sim.run(until=call.done, limit=10)
    assert call.value == 42
    assert call.ended is not None
    # Connecting, the handshake, two round trips: eight times a millisecond.
    assert call.ended - call.sent == 258_000_000


def test_time_at_the_end_of_a_run() -> None:
    sim = pair()
    assert not sim.run(until=lambda: False, limit=7)
    assert sim.time == 9.0
    assert sim.run(until=lambda: True)
    assert sim.time == 9.0


def test_simulation_without_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Simulation(nodes={})


def test_graph_and_its_error() -> None:
    def fail(value: int) -> int:
        raise KeyError(value)

    sim = pair(functions={"double": double, "fail": fail})
    graph = Graph()
    graph.call("double", graph.call("double", 1))
    good = sim.graph("front", graph)
    graph = Graph()
    graph.call("double", 1)
    graph.call("fail", 1)
    bad, part = sim.graph("front", graph), sim.graph("front", graph, partial=True)
    sim.run(2)
    assert good.values == {"double-2": 4}
    assert isinstance(bad.error, ExecutionFailed)
    with pytest.raises(ExecutionFailed, match="KeyError"):
        bad.values  # noqa: B018
    assert part.values == {"double": 2}


def test_value_of_a_call_that_has_not_ended() -> None:
    sim = pair()
    call = sim.call("front", "nap", 5)
    sim.run(1)
    assert call.error is None
    with pytest.raises(RuntimeError, match="not ended"):
        call.value  # noqa: B018


# -- functions --------------------------------------------------------------------------------------------------------


def test_coroutine_sleeps_in_virtual_time() -> None:
    sim = pair()
    call = sim.call("front", "nap", 3600, timeout=7200)
    begun = time.perf_counter()
    assert sim.run(until=call.done, limit=4000)
    assert call.value == "rested"
    assert sim.time > 3600
    assert time.perf_counter() - begun < 60


def test_cancel_is_thrown_into_a_coroutine() -> None:
    seen: list[str] = []

    async def patient() -> None:
        try:
            await sleep(100)
        finally:
            seen.append("stopped")

    sim = pair(functions={"patient": patient})
    call = sim.call("front", "patient")
    sim.run(1)
    sim.cancel(call)
    sim.run(1)
    assert seen == ["stopped"]
    assert call.done()
    assert not sim.nodes["back"].running


def test_coroutine_that_catches_a_cancel_gets_it_again() -> None:
    seen: list[str] = []

    async def stubborn() -> str:
        try:
            await sleep(100)
        except BaseException:
            seen.append("caught it")
            await sleep(2)
        seen.append("went on")
        return "done"

    sim = pair(functions={"stubborn": stubborn})
    call = sim.call("front", "stubborn", timeout=1)
    sim.run(2)
    assert isinstance(call.error, DeadlineExceeded)
    assert sim.nodes["back"].running
    sim.run(2)
    assert seen == ["caught it"]
    assert not sim.nodes["back"].running


def test_plain_function_cannot_be_interrupted() -> None:
    sim = pair(functions={"double": Fn(double, duration=5)})
    call = sim.call("front", "double", 1)
    sim.run(1)
    sim.cancel(call)
    sim.run(1)
    assert sim.nodes["back"].running
    sim.run(4)
    assert not sim.nodes["back"].running


def test_inline_functions_end_at_once_and_slots_are_respected() -> None:
    sim = pair(functions={"inline": Fn(double, inline=True), "one": Fn(double, duration=1, concurrency=1)})
    inline = sim.call("front", "inline", 1)
    ones = [sim.call("front", "one", value) for value in range(3)]
    sim.run(1.5)
    assert inline.value == 2
    assert [call.done() for call in ones] == [True, False, False]
    sim.run(2)
    assert [call.value for call in ones] == [0, 2, 4]


def test_offer_and_withdraw() -> None:
    sim = pair()
    sim.offer("front", "late", Fn(double))
    sim.withdraw("back", "double")
    sim.withdraw("back", "double")  # no error the second time, as a shrunk script may do so
    sim.run(1)
    late, withdrawn = sim.call("back", "late", 4), sim.call("front", "double", 4)
    sim.run(1)
    assert late.value == 8
    assert isinstance(withdrawn.error, CommandNotFound)


def test_functions_that_a_simulation_refuses() -> None:
    with pytest.raises(TypeError, match="virtual time"):
        Fn(double, executor=object())  # type: ignore[arg-type]


# -- streams ----------------------------------------------------------------------------------------------------------


def test_streams_arrive_in_pieces() -> None:
    sim = pair(functions={"double": double, "long": Fn(lambda: "ab" * 40_000)})
    sim.link("front", "back").set(rechunk=1.0, delay=uniform(0.001, 0.05))
    sim.link("client@front", "front").set(rechunk=1.0)
    calls = [sim.call("front", "double", value) for value in range(20)]
    long = sim.call("front", "long")
    sim.run(10)
    assert [call.value for call in calls] == [2 * value for value in range(20)]
    assert long.value == "ab" * 40_000
    assert sim.network.rechunked > 40


def test_transfer_time_at_a_bandwidth() -> None:
    sim = pair(functions={"long": Fn(lambda: b"x" * 100_000)})
    sim.link("front", "back").set(bandwidth=50_000)
    call = sim.call("front", "long")
    assert sim.run(until=call.done, limit=20)
    assert call.ended is not None
    assert 2.0 < (call.ended - call.sent) / 1e9 < 2.2


def test_slow_link_of_a_node_with_a_backlog() -> None:
    sim = pair(functions={"long": Fn(lambda: b"x" * 2_000_000)})
    sim.link("front", "back").set(bandwidth=500_000)
    slow = sim.nodes["back"].node.cluster._gossip.slow_links
    sim.call("front", "long")
    sim.run(1)
    assert slow
    sim.offer("back", "missed", Fn(lambda: 1))
    assert sim.run(until=sim.call("front", "missed", wait=10).done, limit=10)
    assert not slow


def test_reset_loses_data_in_transit() -> None:
    sim = pair()
    call = sim.call("front", "nap", 3)
    sim.run(1)
    sim.link("front", "back").set(reset=1.0, delay=0.5)
    lost = sim.call("front", "double", 1)
    sim.run(2)
    assert isinstance(call.error, OutcomeUnknown)
    assert isinstance(lost.error, OutcomeUnknown)
    sim.link("front", "back").set(reset=0.0)
    sim.settle()
    again = sim.call("front", "double", 1)
    sim.run(5)
    assert again.value == 2


def test_partition_delays_messages_and_keeps_their_order() -> None:
    sim = pair()
    sim.partition({"front"}, {"back"})
    calls = [sim.call("front", "double", value) for value in range(3)]
    sim.run(1)
    assert not any(call.done() for call in calls)
    sim.heal()
    sim.run(1)
    assert [call.value for call in calls] == [0, 2, 4]


def test_one_way_partition() -> None:
    sim = pair()
    sim.partition({"back"}, {"front"}, oneway=True)
    call = sim.call("front", "nap", 0.1)
    sim.run(0.05)
    assert sim.nodes["back"].running  # it receives, but its messages do not arrive
    sim.run(3)
    assert not call.done()
    sim.heal()
    sim.run(1)
    assert call.value == "rested"


def test_half_open_link_is_found_by_probes() -> None:
    sim = pair()
    sim.crash("back", silent=True)
    sim.run(0.9)
    assert standing(sim, "back", "front") == "ALIVE"
    sim.run(7)
    assert standing(sim, "back", "front") == "DEAD"
    assert not sim.nodes["front"].wires


def test_end_in_the_middle_of_a_frame() -> None:
    """Data sent before the end arrives first. A frame that is cut off is dropped, and is no error."""
    sim = pair(functions={"long": Fn(lambda: b"x" * 100_000), "double": double})
    sim.link("front", "back").set(rechunk=1.0, bandwidth=100_000, delay=exponential(0.2))
    call = sim.call("front", "long")
    front = sim.nodes["front"]

    def halfway() -> bool:
        readers = [session._reader for session in front.node.links.sessions.values()]
        return any(reader is not None and reader.buffered > 1000 for reader in readers)

    assert sim.run(until=halfway, limit=30)
    sim.link("front", "back").set(reset=1.0)
    sim.call("front", "double", 1)  # this breaks the connection
    sim.run(60)
    assert isinstance(call.error, OutcomeUnknown)
    sim.link("front", "back").set(reset=0.0, delay=0.001)  # else each is SUSPECT now and then
    sim.settle()
    assert not any(session._reader.buffered for session in front.node.links.sessions.values() if session._reader)


def test_crashed_node_restarts_as_another_member() -> None:
    sim = pair()
    before = sim.nodes["back"].node.me
    call = sim.call("front", "nap", 5)
    sim.run(1)
    sim.crash("back")
    sim.run(1)
    assert isinstance(call.error, OutcomeUnknown)
    sim.restart("back", after=1)
    sim.run(5)
    assert sim.nodes["back"].node.me != before
    assert standing(sim, "back", "front") == "ALIVE"
    again = sim.call("front", "double", 1)
    sim.run(1)
    assert again.value == 2


def test_leaving_node_is_left() -> None:
    sim = pair()
    sim.leave("back")
    sim.run(1)
    assert not sim.nodes["back"].alive
    assert standing(sim, "back", "front") == "LEFT"


# -- machines ---------------------------------------------------------------------------------------------------------


def test_stalled_node_receives_all_later_in_order() -> None:
    sim = pair()
    sim.stall("back", 3)
    calls = [sim.call("front", "double", value) for value in range(3)]
    sim.run(2.9)
    assert not any(call.done() for call in calls)
    sim.run(0.2)
    assert [call.value for call in calls] == [0, 2, 4]


def test_clock_drift_never_goes_back() -> None:
    sim = pair(functions={"nap": nap})
    back = sim.nodes["back"]
    before, at = back.local, sim.now
    sim.skew("back", drift=0.01)
    sim.run(100)
    assert back.local - before == (sim.now - at) * 101 // 100
    sim.skew("back", drift=-0.01)
    shown = back.local
    sim.run(10)
    assert back.local - shown == 9_900_000_000
    call = sim.call("front", "nap", 1, timeout=5)
    sim.run(3)
    assert call.value == "rested"


def test_cancelled_request_of_a_client() -> None:
    """A cancelled request is answered with 1021, and its client ignores the answer."""
    sim = pair()
    call = sim.call("front", "nap", 5)
    sim.run(1)
    sim.cancel(call)
    sim.run(1)
    assert call.result is None
    assert not sim.nodes["front"].node.coordinator.requests
    assert not sim.nodes["back"].running
    assert Cancelled.default_code == 1021


def test_call_to_an_unknown_node_is_refused() -> None:
    sim = pair()
    with pytest.raises(ValueError, match="there is no node 'bakc'; there are front, back"):
        sim.call("bakc", "nap", 5)
    assert not sim.calls and not sim.clients
