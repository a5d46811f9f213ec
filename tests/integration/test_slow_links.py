"""A node at the other end of a link that does not read: it is told which catalogues changed, and the rest once it does.

The hand-made neighbour shows what is on the wire; the real one ends up knowing what it missed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from mpreg_transports import Client, Server
from mpreg_transports.observe.journal import replay
from mpreg_transports.testing import Fn, Spec
from mpreg_transports.testing.memory.cluster import memory_cluster
from mpreg_transports.values import default_codec
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine
from tests.helpers.foreign_clients import REQUEST, RESULT, NativeClient, native

pytestmark = pytest.mark.anyio
NEIGHBOUR = b"a slow neighbour"
NODES_HELLO: list[Any] = [1, [1, 1], [], "default-cluster", NEIGHBOUR, "by hand"]
NEWS, FETCH = 20, 22
LARGE = 24_000_000
"""Bytes of a result that no buffers of the system hold, and that one message may carry."""


def new() -> int:
    return 1


async def news_of(peer: NativeClient, member: bytes, version: int) -> tuple[list[Any], list[Any]]:
    """Deltas and heads of the next message that tells of a member's catalogue at a version; others are passed over."""
    while True:
        kind, *fields = await peer.receive()
        if kind == NEWS:
            _, deltas, heads, *_ = [*fields, [], [], []]
            deltas = [delta for delta in deltas if delta[0][:2] == [member, version]]
            heads = [head for head in heads if head[:2] == [member, version]]
            if deltas or heads:
                return deltas, heads


def version(server: Server) -> int:
    return next(row.catalogue for row in server.view().members if row.me)


async def knows(server: Server, function: str) -> None:
    """Wait until a node knows of a function; it is asked again and again."""
    async with Client(server.url) as client:
        while function not in {row.function for row in (await client.view()).functions}:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_a_neighbour_that_does_not_read_is_told_heads_and_gets_the_content_when_it_asks(tmp_path: Path) -> None:
    produced = anyio.Event()

    async def large() -> bytes:
        produced.set()
        return bytes(LARGE)

    file = tmp_path / "a.journal"
    a = Server(name="a", port=0, journal=file)
    a.register(None, large)
    with anyio.fail_after(PATIENCE):
        async with a, Server(name="b", port=0, peers=[a.url]) as b, native(a.port, hello=NODES_HELLO) as slow:
            await knows(b, "large")
            member = bytes.fromhex(a.view().id)
            await slow.send([REQUEST, 1, [["x", "large", msgpack.packb([[], {}])]]])
            await produced.wait()
            async with Client(a.url) as client:
                await client.call("echo", 1)  # what is not read waits by now
            a.register("missed", new)
            await knows(b, "missed")
            while (await slow.receive())[0] != RESULT:
                pass
            deltas, heads = await news_of(slow, member, version(a))
            assert (deltas, len(heads)) == ([], 1)
            await slow.send([FETCH, member, 0])
            deltas, _ = await news_of(slow, member, version(a))
            assert b"missed" in msgpack.packb(deltas)
            a.register("timely", new)
            deltas, _ = await news_of(slow, member, version(a))
            assert b"timely" in msgpack.packb(deltas), "it reads, so it is sent what is new"
    again = replay(file, codec=default_codec())
    assert again.agreed, "that it did not read is an input like any other"


async def test_a_node_that_could_not_read_knows_afterwards_what_it_missed() -> None:
    bodies = [BlockingCoroutine(), BlockingCoroutine()]

    async def large(which: int) -> bytes:
        await bodies[which].body()
        return bytes(4_000_000)

    functions = {"large": Fn(large)}
    with anyio.fail_after(PATIENCE):
        async with memory_cluster({"a": Spec(functions=functions), "b": Spec(), "c": Spec()}) as cluster:
            a, b = cluster.servers["a"], cluster.servers["b"]
            async with cluster.client("b") as client, anyio.create_task_group() as tasks:
                for which, held in enumerate(bodies):
                    tasks.start_soon(client.call, "large", which)
                    await held.until(started=1)
                cluster.cut("a", "b", silent=True)
                cluster.cut("b", "c", silent=True)
                for held in bodies:  # the first is taken by who waits for something to read, and held back there
                    held.release()
                    await anyio.wait_all_tasks_blocked()
                assert a._driver is not None
                slow = a._driver.node.cluster._gossip.slow_links
                await cluster.until(lambda: slow)
                a.register("missed", new)
                await cluster.until(lambda: "missed" in {row.function for row in cluster.servers["c"].view().functions})
                assert "missed" not in {row.function for row in b.view().functions}
                cluster.heal()
                await cluster.until(lambda: "missed" in {row.function for row in b.view().functions})
                assert await client.call("missed") == 1
                assert not slow, "all has been read"
