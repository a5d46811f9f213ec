"""The outcomes of calls, row by row (docs/explanation/guarantees.md), on real processes with real faults.

The same rows in virtual time are in tests/scenarios/test_outcomes.py. `front` has the clients; `one` and `other` offer
the same functions behind proxies. A ledger on disk shows which bodies have started.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mpreg_proto.errors import ErrorCode
from mpreg_transports import Client, RequestError
from tests.chaos.ledger import starts
from tests.chaos.proxy import Proxy
from tests.chaos.run import Node

PATIENCE = 60.0
BUSY = 2.0
"""Seconds that a busy machine may add to a bound."""


class Cluster:
    """The nodes of one test; they join in the order in which they are started."""

    def __init__(self, ledger: Path) -> None:
        self.nodes: list[Node] = []
        self.ledger = ledger

    async def start(self, *, offers: tuple[int, ...]) -> Node:
        """Start one more node that knows all earlier ones."""
        proxy = Proxy()
        await proxy.start()
        node = Node(len(self.nodes), self.ledger, proxy, offers)
        self.nodes.append(node)
        await node.start([one.url for one in self.nodes[:-1]])
        return node

    async def joined(self) -> None:
        """Wait until all nodes see each other and have links."""
        for node in self.nodes:
            async with Client(node.url) as client, asyncio.timeout(PATIENCE):
                while not await self._sees_all(client):
                    pass

    async def _sees_all(self, client: Client) -> bool:
        view = await client.view()
        linked = [row for row in view.members if row.standing == "alive" and (row.linked or row.me)]
        return len(linked) == len(self.nodes)

    async def worker_of(self, body: str) -> Node:
        """Wait until a body has started, and return its node."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for file in self.ledger.iterdir():
                    if body in file.read_text().split():
                        return self.nodes[int(file.name.partition("-")[0].removeprefix("n"))]
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for node in self.nodes:
            node.kill()
            await node.proxy.close()


@asynccontextmanager
async def cluster(ledger: Path, *offers: tuple[int, ...]) -> AsyncIterator[Cluster]:
    """Yield a cluster with a node for each of `offers`, joined."""
    made = Cluster(ledger)
    try:
        for numbers in offers:
            await made.start(offers=numbers)
        await made.joined()
        yield made
    finally:
        await made.close()


async def outcome(client: Client, function: str, *args: object, timeout: float = 60) -> tuple[object, float]:
    """Return the result or the error code of a call, and the time at which it ended."""
    try:
        result: object = await client.call(function, *args, timeout=timeout)
    except RequestError as error:
        result = ErrorCode(error.code)
    return result, time.monotonic()


TWO = ((), (1,), (1,))


async def lost(made: Cluster, fault: signal.Signals, *, seconds: float) -> tuple[object, float]:
    """Send a worker a signal while it runs bodies of both kinds.

    Return the outcome of the body that is not idempotent, and the seconds until it ended. All others must succeed.
    """
    safe = [f"safe-{number}" for number in range(12)]
    async with Client(made.nodes[0].url) as client:
        once = asyncio.ensure_future(outcome(client, "long-once-1", "once", seconds))
        others = [asyncio.ensure_future(outcome(client, "long-safe-1", body, seconds)) for body in safe]
        worker = await made.worker_of("once")
        for body in safe:
            await made.worker_of(body)
        began = time.monotonic()
        worker.signal(fault)
        result, ended = await once
        assert [found for found, _ in await asyncio.gather(*others)] == safe, "idempotent bodies run elsewhere"
        worker.signal(signal.SIGCONT)
    assert starts(made.ledger)["once"] == 1
    return result, ended - began


def test_connection_that_ends_after_the_message_left(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path, *TWO) as made:
            result, seconds = await lost(made, signal.SIGKILL, seconds=5)
            assert result == ErrorCode.OUTCOME_UNKNOWN and seconds <= 1 + BUSY

    asyncio.run(run())


def test_node_that_hangs(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path, *TWO) as made:
            result, seconds = await lost(made, signal.SIGSTOP, seconds=15)
            assert result == ErrorCode.OUTCOME_UNKNOWN and seconds <= 8 + BUSY

    asyncio.run(run())


@pytest.mark.parametrize("function", ["long-once-1", "long-safe-1"])
def test_half_open_link(tmp_path: Path, function: str) -> None:
    """All connections between two nodes die without a word, and a third node reaches both."""

    async def run() -> None:
        async with cluster(tmp_path, (), (1,)) as made:
            front, one = made.nodes
            between = [(node.proxy, node.proxy.ends) for node in (front, one)]
            await made.start(offers=(2,))
            await made.joined()
            async with Client(front.url) as client:
                pending = asyncio.ensure_future(outcome(client, function, "body", 5.0))
                await made.worker_of("body")
                began = time.monotonic()
                for proxy, ends in between:
                    proxy.muted |= ends
                result, ended = await pending
                if function == "long-once-1":
                    assert result == ErrorCode.OUTCOME_UNKNOWN and 2 <= ended - began <= 5 + BUSY
                else:
                    assert result == "body" and starts(made.ledger)["body"] == 2
                standings = [row.standing for row in (await client.view()).members]
                assert standings == ["alive"] * 3

    asyncio.run(run())


@pytest.mark.parametrize("end", ["freezes", "dies", "drains"])
def test_client_node_that_is_lost(tmp_path: Path, end: str) -> None:
    """A client with two addresses goes to the next one: after 3 s, at once, or when its node announces its end."""

    async def run() -> None:
        async with cluster(tmp_path, (1,), (1,)) as made:
            first, second = made.nodes
            async with Client(first.url, second.url) as client:
                once = asyncio.ensure_future(outcome(client, "long-once-1", "once", 4.0))
                safe = asyncio.ensure_future(outcome(client, "long-safe-1", "safe", 4.0))
                for body in ("once", "safe"):
                    await made.worker_of(body)
                began = time.monotonic()
                first.signal({"freezes": signal.SIGSTOP, "dies": signal.SIGKILL, "drains": signal.SIGTERM}[end])
                async with asyncio.timeout(3 + BUSY):
                    while client.node != "n1":
                        await client.call("echo", 1)
                assert (await safe)[0] == "safe"
                result, ended = await once
                if end == "drains":
                    assert result == "once", "running calls are finished"
                else:
                    assert result in ("once", ErrorCode.OUTCOME_UNKNOWN)
                    assert ended - began <= 4 + BUSY
                first.signal(signal.SIGCONT) if end == "freezes" else None
            assert starts(made.ledger)["once"] == 1

    asyncio.run(run())
