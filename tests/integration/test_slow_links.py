"""A node behind a link that does not read: it gets the versions of changed catalogues, and the content once it reads.

The hand-made neighbour shows what is on the wire. The real one has the missed content at the end.
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
"""The size of a result that exceeds all buffers of the system and fits into one message, in bytes."""


def new() -> int:
    return 1


async def news_of(peer: NativeClient, member: bytes, version: int) -> tuple[list[Any], list[Any]]:
    """Return the deltas and heads of the next message about a member's catalogue at a version; skip other messages."""
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
    """Wait until a node lists a function; poll its view."""
    async with Client(server.url) as client:
        while function not in {row.function for row in (await client.view()).functions}:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_slow_neighbour_gets_heads_and_fetches_content(tmp_path: Path) -> None:
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
                await client.call("echo", 1)  # by now the backlog waits
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


async def test_neighbour_gets_missed_changes_after_it_reads_again() -> None:
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
                for held in bodies:  # a reader that waits takes the first message, and it is held back there
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
