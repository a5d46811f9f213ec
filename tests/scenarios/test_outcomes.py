"""The outcomes of calls, row by row (docs/explanation/guarantees.md), in virtual time.

Each test has the term of its row. The last ones run real servers and clients on links in memory, because a simulated
client knows the address of one node only.
"""

from __future__ import annotations

import anyio
import pytest

from mpreg_proto.errors import ErrorCode, OutcomeUnknown, RequestError
from mpreg_transports import Graph, sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.memory.cluster import MemoryCluster, memory_cluster
from mpreg_transports.testing.simulation.calls import SimCall
from tests.helpers import virtual


async def ponder(seconds: float) -> str:
    await sleep(seconds)
    return "done"


def double(value: int) -> int:
    return 2 * value


def wrong(value: int) -> None:
    raise ValueError(f"no {value}")


FUNCTIONS = {
    "once": Fn(ponder),
    "safe": Fn(ponder, idempotent=True),
    "double": Fn(double, idempotent=True),
    "wrong": Fn(wrong),
}


def cluster(*workers: str, more: tuple[str, ...] = (), seed: int = 11) -> Simulation:
    """Return a cluster of `front`, these workers, which offer all functions, and other nodes without functions."""
    nodes = {"front": Spec(), **{name: Spec(functions=FUNCTIONS) for name in workers}}
    nodes |= {name: Spec() for name in more}
    sim = Simulation(seed=seed, nodes=nodes, watchers=invariants())
    sim.run(5)
    return sim


def running(sim: Simulation) -> list[str]:
    """Return the workers with a body that runs."""
    return [name for name, host in sim.nodes.items() if host.alive and host.running]


def seconds(call: SimCall) -> float:
    assert call.ended is not None, call
    return (call.ended - call.sent) / 1e9


def code(call: SimCall) -> int | None:
    return None if call.error is None else int(call.error.code)


# -- at once ----------------------------------------------------------------------------------------------------------


def test_malformed_request() -> None:
    sim = cluster("back")
    client = sim.json_client("front")
    client.send('{"role":"rpc","u":"1","cmds":[{"name":"a"}]}')
    sim.run(0.1)
    (answer,) = client.answers
    assert (answer["error"]["code"], answer["r"]) == (ErrorCode.INVALID_REQUEST, None)
    sim.settle()


def test_graph_error() -> None:
    sim = cluster("back")
    client = sim.json_client("front")
    names = {"a": "b", "b": "a"}
    cmds = ",".join(f'{{"name":"{one}","fun":"double","args":["{other}"]}}' for one, other in names.items())
    client.send(f'{{"role":"rpc","u":"1","cmds":[{cmds}]}}')
    sim.run(0.1)
    assert client.answers[0]["error"]["code"] == ErrorCode.CYCLIC_REFERENCE and not running(sim)
    sim.settle()


def test_unroutable_call_on_arrival() -> None:
    sim = cluster("back")
    graph = Graph()
    graph.call("once", 1)
    graph.call("nowhere", 1)
    call = sim.graph("front", graph)
    sim.run(0.1)
    assert code(call) == ErrorCode.COMMAND_NOT_FOUND and not running(sim), "nothing ran"
    assert call.error is not None and call.error.details["maybe_executed"] is False
    sim.settle()


# -- at the worker ----------------------------------------------------------------------------------------------------


def test_function_that_raises() -> None:
    sim = cluster("back")
    graph = Graph()
    graph.call("double", graph.call("wrong", 4))
    call = sim.graph("front", graph)
    sim.run(1)
    assert call.error is not None and code(call) == ErrorCode.EXECUTION_FAILED
    details = call.error.details
    assert (details["type"], details["message"]) == ("ValueError", "no 4") and "back" in details["node"]
    sim.settle()


@pytest.mark.parametrize("function", ["once", "safe"])
def test_refusal_by_a_node(function: str) -> None:
    """The result comes from another node, also if the function is not idempotent."""
    refusing = Fn(ponder, refuses=1.0, idempotent=function == "safe")
    nodes = {"front": Spec(), "full": Spec(functions={function: refusing}), "free": Spec(functions=FUNCTIONS)}
    sim = Simulation(seed=2, nodes=nodes, watchers=invariants())
    sim.run(5)
    calls = [sim.call("front", function, 0.1) for _ in range(20)]
    sim.run(5)
    assert [call.value for call in calls] == ["done"] * 20
    sim.settle()


@pytest.mark.parametrize("function", ["once", "safe"])
def test_connection_that_ends_after_the_message_left(function: str) -> None:
    sim = cluster("one", "other")
    call = sim.call("front", function, 3.0)
    sim.run(0.5)
    (worker,) = running(sim)
    sim.crash(worker)
    assert sim.run(until=call.done, limit=10)
    if function == "once":
        assert isinstance(call.error, OutcomeUnknown) and seconds(call) < 0.5 + 1
    else:
        assert call.value == "done" and worker not in running(sim)
    sim.restart(worker)
    sim.settle()


@pytest.mark.parametrize("function", ["once", "safe"])
@pytest.mark.parametrize("fault", ["hang", "cable"])
def test_node_that_hangs_or_has_no_cable(function: str, fault: str) -> None:
    sim = cluster("one", "other", more=("third",))
    call = sim.call("front", function, 30.0, timeout=120)
    sim.run(0.5)
    (worker,) = running(sim)
    if fault == "hang":
        sim.stall(worker, 20)
    else:
        sim.partition({worker}, {name for name in sim.nodes if name != worker})
    if function == "once":
        assert sim.run(until=call.done, limit=10)
        assert isinstance(call.error, OutcomeUnknown) and seconds(call) <= 0.5 + 8
    else:
        sim.run(8)
        assert len([name for name in running(sim) if name != worker]) == 1, "it runs elsewhere by now"
        assert sim.run(until=call.done, limit=60)
        assert call.value == "done"
    sim.settle()


@pytest.mark.parametrize("function", ["once", "safe"])
def test_half_open_link(function: str) -> None:
    """One connection dies without a word, and its member answers others: the calls on it are lost after 3 s."""
    sim = cluster("one", "other", more=("third",))
    call = sim.call("front", function, 10.0, timeout=120)
    sim.run(0.5)
    (worker,) = running(sim)
    sim.kill_link("front", worker)
    sim.run(4)
    if function == "once":
        assert isinstance(call.error, OutcomeUnknown) and 3 <= seconds(call) <= 4.5
    else:
        assert not call.done() and len(running(sim)) >= 1
        assert sim.run(until=call.done, limit=30)
        assert call.value == "done"
    host = sim.nodes["front"]
    assert [row.standing for row in host.node.view(now=host.local).members] == ["alive"] * 4
    sim.settle()


@pytest.mark.parametrize("seed", [6, 10, 14])
def test_half_open_link_that_the_worker_notices_first(seed: int) -> None:
    """The worker has dialled a new link before the coordinator gives up the old one, on which a call is out."""
    sim = cluster("one", more=("third",), seed=seed)
    call = sim.call("front", "once", 30.0, timeout=120)
    sim.run(0.5 + seed * 0.037)
    sim.kill_link("front", "one")
    assert sim.run(until=call.done, limit=5), "after three to four seconds of silence"
    assert isinstance(call.error, OutcomeUnknown)
    sim.settle()


def test_no_placement_on_a_half_open_link() -> None:
    sim = cluster("one", "other", more=("third",))
    lost = sim.call("front", "safe", 20.0, timeout=120)
    sim.run(0.5)
    (worker,) = running(sim)
    sim.kill_link("front", worker)
    sim.run(3.2)
    calls = [sim.call("front", "double", number) for number in range(20)]
    sim.run(1)
    assert [call.value for call in calls] == [2 * number for number in range(20)]
    assert sim.run(until=lost.done, limit=60) and lost.value == "done"
    sim.settle()


def test_partition() -> None:
    """Each side serves what it has, and 15 s after the healing each serves all again, without a restart."""
    here, there = ("front", "one"), ("other", "third")
    nodes = {name: Spec(functions={f"of-{name}": double}) for name in (*here, *there)}
    sim = Simulation(seed=3, nodes=nodes, watchers=invariants())
    sim.run(5)
    lives = {name: host.life for name, host in sim.nodes.items()}
    sim.partition(here, there)
    sim.run(30)
    for ours, theirs in ((here, there), (there, here)):
        calls = [sim.call(node, f"of-{name}", 2) for node in ours for name in (*ours, *theirs)]
        sim.run(1)
        assert [code(call) for call in calls] == [None, None, 1001, 1001] * 2
    sim.heal()
    sim.run(15)
    calls = [sim.call(node, f"of-{name}", 2) for node in nodes for name in nodes]
    sim.run(1)
    assert [call.value for call in calls] == [4] * 16
    assert {name: host.life for name, host in sim.nodes.items()} == lives
    sim.settle()


def test_slow_node() -> None:
    """1020 at the deadline, and the node receives a cancel."""
    sim = cluster("back")
    call = sim.call("front", "once", 30.0, timeout=2)
    sim.run(1)
    assert running(sim) == ["back"]
    assert sim.run(until=call.done, limit=5)
    assert code(call) == ErrorCode.DEADLINE_EXCEEDED and 2 <= seconds(call) <= 2.25
    sim.run(0.1)
    assert running(sim) == []
    sim.settle()


def test_restart_at_the_same_address() -> None:
    sim = cluster("back")
    call = sim.call("front", "once", 30.0)
    sim.run(0.5)
    sim.restart("back")
    assert sim.run(until=call.done, limit=5)
    assert isinstance(call.error, OutcomeUnknown) and seconds(call) <= 1.5, "old calls end with the connection"
    fresh = sim.call("front", "double", 4, wait=5)
    assert sim.run(until=fresh.done, limit=5), "the new process is used within 5 s"
    assert fresh.value == 8
    sim.settle()


def test_clock_that_runs_wrong() -> None:
    """No clocks are compared: one that is too fast by a tenth, and one that is too slow, change no result."""
    sim = cluster("one", "other")
    sim.skew("one", drift=0.1)
    sim.skew("other", drift=-0.1)
    calls = [sim.call("front", "once", 2.0, timeout=3) for _ in range(20)]
    sim.run(5)
    assert [call.value for call in calls] == ["done"] * 20
    sim.settle()


# -- the client's own node --------------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both event loops, with a clock that jumps."""
    return virtual.backend(request.param)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give nodes and clients the virtual clock."""
    virtual.set_clocks(monkeypatch)


async def think(time: float) -> str:
    await anyio.sleep(time)
    return "done"


def two_nodes() -> MemoryCluster:
    functions = {"once": Fn(think), "safe": Fn(think, idempotent=True)}
    return memory_cluster({name: Spec(functions=functions) for name in ("first", "second")})


@pytest.mark.anyio
@pytest.mark.usefixtures("clocks")
async def test_frozen_client_node() -> None:
    """Its client pings after a second, goes to the next address after three, and repeats what is idempotent."""
    found: dict[str, object] = {}

    async def call(function: str) -> None:
        try:
            found[function] = await client.call(function, 10.0, timeout=60)
        except RequestError as error:
            found[function] = error.code
        found[f"{function} ended"] = anyio.current_time() - cut

    async with two_nodes() as cluster, cluster.client("first", "second") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, "once")
        tasks.start_soon(call, "safe")
        await anyio.sleep(5)
        cut = anyio.current_time()
        cluster.cut("first", "client", silent=True)
        await cluster.until(lambda: client.node == "second", seconds=4)
    assert (found["once"], found["safe"]) == (ErrorCode.OUTCOME_UNKNOWN, "done")


@pytest.mark.anyio
@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("end", ["dies", "drains"])
async def test_client_node_that_dies_or_drains(end: str) -> None:
    """The client goes to its next address; one that drains ends its running calls first."""
    found: dict[str, object] = {}

    async def call(function: str) -> None:
        try:
            found[function] = await client.call(function, 3.0)
        except RequestError as error:
            found[function] = error.code

    async with two_nodes() as cluster, cluster.client("first", "second") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, "once")
        tasks.start_soon(call, "safe")
        await anyio.sleep(1)
        if end == "dies":
            await cluster.kill("first")
        else:
            cluster.servers["first"].leave()
        assert await client.call("safe", 0.1) == "done" and client.node == "second"
        await cluster.until(lambda: len(found) == 2, seconds=10)
    lost = ErrorCode.OUTCOME_UNKNOWN if end == "dies" else "done"
    assert found == {"once": lost, "safe": "done"}
