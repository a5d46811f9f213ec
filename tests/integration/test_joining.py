"""Several servers in one process: how they find each other, what a restart does, and how calls are distributed."""

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence

import anyio
import pytest

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import Client, ClusterMismatch, Graph, Handle, Server
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine
from tests.helpers.servers import joined_servers, reserved_port, wait_until_meshed

pytestmark = pytest.mark.anyio

IMPATIENT = Limits(dial_first=MILLISECOND, dial_longest=10 * MILLISECOND)


def named(name: str, *functions: str, **settings: object) -> Server:
    """A server whose functions return its name."""
    server = Server(name=name, port=0, **settings)  # type: ignore[arg-type]
    for function in functions:
        server.register(function, lambda: name, idempotent=True, inline=True)
    return server


# -- finding each other -----------------------------------------------------------------------------------------------


async def test_unreachable_peer_is_logged_once_and_found_later(caplog: pytest.LogCaptureFixture) -> None:
    """First nothing listens there, then a listener that closes every connection, then a node."""
    tried = 0
    enough = anyio.Event()

    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        nonlocal tried
        await stream.aclose()
        tried += 1
        if tried == 6:
            enough.set()

    caplog.set_level(logging.WARNING)
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        address = f"ws://127.0.0.1:{port}"
        async with named("early", peers=[address], limits=IMPATIENT) as early, Client(early.url) as client:
            async with (
                await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(listener.serve, hang_up)
                await enough.wait()
                tasks.cancel_scope.cancel()
            said = [record.getMessage() for record in caplog.records]
            assert said == [f"{address} does not answer; trying again until it does"]
            late = named("late", "f")
            late.port = port
            async with late:
                assert await client.call("f", wait=PATIENCE) == "late"
                await wait_until_meshed(client, (early, late))


async def test_wildcard_host_advertises_the_address_towards_a_seed() -> None:
    def own(server: Server) -> tuple[str, ...]:
        return next(row.addresses for row in server.view().members if row.me)

    with reserved_port() as port:
        seed = Server(name="seed", port=port)
        peers = [f"ws://127.0.0.1:{port}"]
        async with Server(name="n", host="0.0.0.0", port=0, insecure=True, peers=peers, limits=IMPATIENT) as server:
            assert own(server) == ()
            async with Client(f"ws://127.0.0.3:{server.port}") as client:  # another address of this machine
                await client.view()
                assert own(server) == (f"ws://127.0.0.3:{server.port}",), "better than none, until a seed is met"
                async with seed, Client(seed.url) as other:
                    with anyio.fail_after(PATIENCE):
                        while not [row for row in (await other.view()).members if row.name == "n" and row.linked]:
                            pass
                    assert own(server) == (f"ws://127.0.0.1:{server.port}",) and server.url == own(server)[0]


class Evidence:
    """The part of a driver that `Server` uses to find its own address: the open links and the advertised address."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.advertised: list[str] = []
        self.node = self

    def local_hosts(self) -> set[str]:
        return set(self.hosts)

    def advertise(self, addresses: tuple[str, ...], *, now: int) -> None:
        self.advertised += addresses


@pytest.mark.parametrize("seed", [True, False])
def test_advertised_address_is_corrected_by_better_evidence(seed: bool) -> None:
    peer = "ws://10.0.0.9:9001"
    server = Server(host="0.0.0.0", port=9001, insecure=True, peers=[peer] if seed else [])
    driver = server._driver = Evidence()  # type: ignore[assignment]
    for host, dialled in (
        ("127.0.0.1", None),  # a health check
        ("127.0.0.2", None),
        ("10.0.0.1", None),  # the first from another machine
        ("127.0.0.1", None),
        ("10.0.0.2", None),  # not better evidence
        ("10.0.0.3", "ws://10.0.0.5:9001"),
        ("10.0.0.4", peer),
        ("10.0.0.1", None),
    ):
        driver.hosts.append(host)
        server._learn_address(host, dialled)  # type: ignore[arg-type]
    last = ["ws://10.0.0.4:9001"] if seed else []
    assert driver.advertised == ["ws://127.0.0.1:9001", "ws://10.0.0.1:9001", "ws://10.0.0.3:9001", *last]
    driver.hosts = ["10.0.1.4"]  # the machine has another address now, and no link at the old one
    server._learn_address("10.0.1.4", peer if seed else "ws://10.0.0.5:9001")  # type: ignore[arg-type]
    assert driver.advertised[-1] == server.url == "ws://10.0.1.4:9001"


async def test_two_nodes_with_each_other_as_peer_start_at_once() -> None:
    with reserved_port() as first, reserved_port() as second:
        servers = named("one", "f"), named("two", "f")
        for server, port, other in ((servers[0], first, second), (servers[1], second, first)):
            server.port = port
            server.peers = (f"ws://127.0.0.1:{other}",)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for server in servers:
                    tasks.start_soon(server.serve)
                while not all(server.url for server in servers):
                    await anyio.lowlevel.checkpoint()
                for server in servers:
                    async with Client(server.url) as client:
                        await wait_until_meshed(client, servers)
                        assert {await client.call("f") for _ in range(40)} == {"one", "two"}
                        assert len((await client.view()).members) == 2
                for server in servers:
                    server.leave()


async def test_node_of_other_cluster_is_no_peer(caplog: pytest.LogCaptureFixture) -> None:
    """Both nodes log it, and a client that names a cluster is refused by the other cluster with the reason."""
    caplog.set_level(logging.WARNING)
    with anyio.fail_after(PATIENCE):
        async with (
            named("one", cluster_id="blue") as one,
            named("two", cluster_id="red", peers=[one.url]) as two,
            Client(two.url, cluster_id="red") as client,
        ):
            while "blue" not in caplog.text:
                await client.call("echo", 1)
            assert [member.name for member in (await client.view()).members] == ["two"]
            with pytest.raises(ClusterMismatch, match="blue"):
                await Client(one.url, cluster_id="red").__aenter__()


@pytest.mark.parametrize("crash", [False, True], ids=["after a goodbye", "after a crash"])
async def test_restarted_node_at_its_address_is_used_soon(crash: bool) -> None:
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        first = named("first")
        async with first, Client(first.url) as client:
            for life in range(2):
                worker = named(f"life-{life}", "f", peers=[first.url])
                worker.port = port
                began = time.monotonic()
                async with anyio.create_task_group() as tasks:
                    await tasks.start(worker.serve)
                    while (name := await client.call("f", wait=PATIENCE)) != worker.name:
                        assert name == "life-0"  # the gossip of its end is still on its way
                    took = time.monotonic() - began
                    print(f"{worker.name} was used {took * 1e3:.0f} ms after its start")
                    assert took < 5
                    if crash:
                        tasks.cancel_scope.cancel()
                    else:
                        worker.leave()


# -- where calls go ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a third", "one of them"])
async def test_1000_calls_over_two_equal_nodes(asked: str) -> None:
    equals = named("one", "where"), named("two", "where")
    async with joined_servers(*([named("front")] if asked == "a third" else []), *equals) as client:
        counts = Counter([await client.call("where") for _ in range(1000)])
    print(counts)
    assert 400 <= counts["one"] <= 600
    assert counts.total() == 1000


async def test_slow_calls_go_to_the_less_loaded_node() -> None:
    servers = named("front"), named("one"), named("two")
    held = BlockingCoroutine()
    for server in servers[1:]:
        server.register("held", held.body)
    async with joined_servers(*servers) as client, anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(client.call, "held", number)
        await held.until(started=200)
        waiting = {member.name: member.waiting for member in (await client.view()).members}
        assert waiting == {"front": 0, "one": 100, "two": 100}
        held.release()


FUNCTIONS = ("f", "g", "h")
TAGS = ("red", "green", "blue")


def some_cluster(draw: random.Random) -> tuple[Server, ...]:
    """Four nodes with random resources and functions; two of them offer and hold everything."""
    servers = []
    for name, chance in {"front": 0.3, "all": 1.0, "twin": 1.0, "some": 0.5}.items():
        server = Server(name=name, port=0, resources=[tag for tag in TAGS if draw.random() < chance])
        for function in FUNCTIONS:
            if draw.random() < chance:
                extra = [tag for tag in TAGS if draw.random() < 0.3]
                server.register(function, lambda *inputs: len(inputs), resources=extra, inline=draw.random() < 0.5)
        servers.append(server)
    return tuple(servers)


def some_graph(draw: random.Random, client: Client) -> Graph:
    """Up to a dozen calls with random dependencies and resources."""
    graph = client.graph()
    made: list[Handle] = []
    for _ in range(draw.randint(1, 12)):
        needs: Sequence[Handle] = draw.sample(made, draw.randint(0, min(3, len(made))))
        tags = draw.sample(TAGS, draw.choice((0, 0, 1, 1, 2, 3)))
        made.append(graph.call(draw.choice(FUNCTIONS), *needs, resources=tags))
    return graph


async def test_nodes_of_calls_are_among_the_candidates_of_explain() -> None:
    """On a quiet cluster, for 100 of 100 random graphs."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    servers = some_cluster(draw)
    async with joined_servers(*servers) as client:
        several = 0
        for _ in range(100):
            graph = some_graph(draw, client)
            plans = {row.name: row for row in await graph.explain()}
            answer = await client.answer(graph, trace=True)
            assert len(answer.trace) == len(plans) == len(graph)
            for ran in answer.trace:
                assert ran.node in plans[ran.name].nodes, (ran, plans[ran.name])
                several += len(plans[ran.name].nodes) > 1
                others = {node for node, _ in plans[ran.name].rejected}
                assert others.isdisjoint(plans[ran.name].nodes)
                assert 0 <= ran.queued <= ran.moved <= ran.started <= ran.ended
                assert ran.tries == 1
        assert several > 0, "no call had a choice"
