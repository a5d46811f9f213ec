"""Real clusters in memory: what tests can do to them, on both event loops. No sockets; each wait has a condition."""

from __future__ import annotations

import anyio
import pytest

from mpreg_transports import CommandNotFound, DeadlineExceeded, NotConnected, OutcomeUnknown, Server
from mpreg_transports.links.base import LinkEnded
from mpreg_transports.runtime.listener import CannotListen
from mpreg_transports.testing import Fn, MemoryCluster, Spec, memory_cluster
from mpreg_transports.testing.memory import network as network_module
from mpreg_transports.testing.memory.network import MemoryHost, MemoryListener, MemoryNetwork

pytestmark = pytest.mark.anyio


def add(a: int, b: int) -> int:
    return a + b


class Held:
    """A function that runs until `go_on` is set."""

    def __init__(self) -> None:
        self.started: list[anyio.Event] = []
        self.go_on = anyio.Event()

    async def body(self) -> int:
        self.started.append(anyio.Event())
        await self.go_on.wait()
        return len(self.started)


async def test_servers_of_specs_know_each_other_at_once() -> None:
    nodes = {
        "front": Spec(),
        "gpu": Spec(functions={"add": add, "twice": Fn(lambda n: 2 * n, inline=True)}, resources={"gpu"}),
    }
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client:
        assert client.node == "front"
        assert await client.call("add", 1, 2, resources={"gpu"}) == 3
        assert await client.call("twice", 4) == 8
        assert [row.name for row in cluster.servers["front"].view().members] == ["front", "gpu"]


async def test_given_server_runs_in_the_cluster_and_is_restored() -> None:
    server = Server(name="mine", port=0, peers=["ws://127.0.0.1:9999"])
    server.register("add", add)
    for _ in range(2):
        async with memory_cluster({"front": Spec(), "shop": server}) as cluster, cluster.client("front") as client:
            assert await client.call("add", 1, 2) == 3
            assert server.url == "memory://shop"
    assert (server.network, server.peers) == (None, ("ws://127.0.0.1:9999",))
    async with server:
        assert server.url.startswith("ws://127.0.0.1:")


async def test_idempotent_call_of_a_killed_node_fails_over() -> None:
    held = Held()
    fn = Fn(held.body, idempotent=True)
    nodes = {"front": Spec(), "one": Spec(functions={"held": fn}), "two": Spec(functions={"held": fn})}
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client, anyio.create_task_group() as tasks:
        results: list[object] = []

        async def ask() -> None:
            results.append(await client.call("held"))

        tasks.start_soon(ask)
        await cluster.until(lambda: held.started)
        (busy,) = [name for name in ("one", "two") if cluster.servers[name].view().running]
        await cluster.kill(busy)
        await cluster.agreed()
        assert busy not in cluster.running
        await cluster.until(lambda: len(held.started) == 2)
        held.go_on.set()
        await cluster.until(lambda: results == [2])


async def test_call_that_is_not_idempotent_fails_with_its_node() -> None:
    held = Held()
    nodes = {"front": Spec(), "one": Spec(functions={"held": held.body})}
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(OutcomeUnknown):
                await client.call("held")
            tasks.cancel_scope.cancel()

        tasks.start_soon(ask)
        await cluster.until(lambda: held.started)
        await cluster.kill("one")


async def test_restarted_node_is_a_new_member_with_its_functions() -> None:
    nodes = {"front": Spec(), "one": Spec(functions={"add": add})}
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client:
        before = cluster.servers["one"].view().id
        await cluster.restart("one")
        await cluster.agreed()
        assert cluster.servers["one"].view().id != before
        assert await client.call("add", 1, 2) == 3
        await cluster.leave("one")
        await cluster.agreed()
        with pytest.raises(CommandNotFound):
            await client.call("add", 1, 2)
        await cluster.restart("one")
        await cluster.agreed()
        assert await client.call("add", 1, 2) == 3


async def test_cut_breaks_links_until_it_is_healed() -> None:
    nodes = {"front": Spec(), "one": Spec(functions={"add": add})}
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client:
        cluster.cut("front", "one")
        await cluster.until(lambda: not _sees(cluster, "one"))
        with pytest.raises(CommandNotFound):
            await client.call("add", 1, 2)
        cluster.heal()
        await cluster.agreed()
        assert await client.call("add", 1, 2) == 3


async def test_silent_cut_delays_messages() -> None:
    nodes = {"front": Spec(), "one": Spec(functions={"add": add})}
    async with memory_cluster(nodes) as cluster, cluster.client("front") as client:
        cluster.cut("one", "front", silent=True)
        with pytest.raises(DeadlineExceeded):
            await client.call("add", 1, 2, timeout=0.05)
        results: list[object] = []

        async def ask() -> None:
            results.append(await client.call("add", 1, 2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await cluster.until(lambda: cluster.servers["front"].view().requests == 1)
            await anyio.wait_all_tasks_blocked()
            assert results == []
            cluster.heal()
        assert results == [3]


async def test_client_that_is_cut_off_uses_its_next_node() -> None:
    async with memory_cluster({"a": Spec(), "b": Spec()}) as cluster, cluster.client("a", "b") as client:
        assert client.node == "a"
        cluster.cut("client", "a")
        await cluster.until(lambda: client.node == "b")
        assert await client.call("echo", 1) == 1


async def test_client_of_a_killed_node_is_refused() -> None:
    async with memory_cluster({"a": Spec(), "b": Spec()}) as cluster:
        await cluster.kill("b")
        with pytest.raises(NotConnected, match="memory://b refused"):
            async with cluster.client("b"):
                pass


async def test_errors_of_wrong_arguments_list_the_nodes() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        memory_cluster({})
    async with memory_cluster({"a": Spec(), "b": Spec()}) as cluster:
        with pytest.raises(ValueError, match="there are a, b"):
            await cluster.kill("c")
        with pytest.raises(ValueError, match="there are a, b"):
            cluster.client("c")
        await cluster.kill("b")
        with pytest.raises(RuntimeError, match="b does not run"):
            await cluster.kill("b")
        with pytest.raises(TimeoutError, match="a sees b"):
            await cluster.until(lambda: False, seconds=0.01)


async def test_exception_of_a_test_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        async with memory_cluster({"a": Spec()}):
            _ = 1 / 0


# -- the network alone -------------------------------------------------------------------------------------------------


async def test_cancelled_receive_in_a_silent_cut_loses_nothing() -> None:
    network = MemoryNetwork()
    here, there = await _joined(network)
    network.cut("a", "b", silent=True)
    await here.send([b"one"])
    with anyio.move_on_after(0.01):
        await there.receive()
    network.heal()
    assert b"".join(await there.receive()) == b"one"
    await here.close()
    with pytest.raises(LinkEnded):
        await there.receive()


async def test_end_of_a_link_in_a_silent_cut() -> None:
    network = MemoryNetwork()
    here, there = await _joined(network)
    network.cut("a", "b", silent=True)
    await here.close()
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            with pytest.raises(LinkEnded):
                await there.receive()

        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        await there.close()


async def test_dial_refused_unanswered_and_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "DIAL_SECONDS", 0.01)
    network = MemoryNetwork()
    place = network.host("a")
    with pytest.raises(LinkEnded, match="refused"):
        await place.dial("memory://b")
    port = network.host("b").listen()
    with pytest.raises(CannotListen, match="another server"):
        network.host("b").listen()
    network.cut("b", "a", silent=True)
    with pytest.raises(LinkEnded, match="does not answer"):
        await place.dial("memory://b")
    network.cut("a", "b")
    with pytest.raises(LinkEnded, match="refused"):
        await place.dial("memory://b")
    network.heal()
    assert (await place.dial("memory://b")).peer == "b"
    await port.close()
    with pytest.raises(LinkEnded, match="refused"):
        await place.dial("memory://b")


async def _joined(network: MemoryNetwork) -> tuple[network_module.InterruptibleLink, network_module.InterruptibleLink]:
    target: MemoryHost = network.host("b")
    port: MemoryListener = target.listen()
    here = await network.host("a").dial("memory://b")
    (there,) = port.waiting
    return here, there


def _sees(cluster: MemoryCluster, name: str) -> bool:
    rows = cluster.servers["front"].view().members
    return any(row.name == name and row.standing == "alive" for row in rows)
