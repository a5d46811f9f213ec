"""Many calls of one client at once, on every transport: those beyond the credit of its node wait, and all end right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mpreg_proto.limits import Limits
from mpreg_transports import Client, Server
from mpreg_transports.testing import Fn, Spec, memory_cluster
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio
LINKS = ("ws", "tcp", "memory")
MANY = 10_000


class Peak:
    """The most requests that a node had in flight, read whenever a body of it runs."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.requests = 0

    def twice(self, number: int) -> int:
        assert self.server is not None and self.server._driver is not None
        self.requests = max(self.requests, len(self.server._driver.node.coordinator.requests))
        return 2 * number

    async def forever(self) -> None:
        await anyio.sleep_forever()

    async def slow(self, number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return self.twice(number)


@asynccontextmanager
async def client_of(link: str, peak: Peak, limits: Limits) -> AsyncIterator[Client]:
    """A client of one node over that kind of link; a test that hangs fails."""
    functions: dict[str, Any] = {"twice": Fn(peak.twice, inline=True), "slow": peak.slow, "forever": peak.forever}
    with anyio.fail_after(6 * PATIENCE):
        if link == "memory":
            async with memory_cluster({"node": Spec(functions=functions, limits=limits)}) as cluster:
                peak.server = cluster.servers["node"]
                async with cluster.client("node") as client:
                    yield client
            return
        async with Server(port=0, limits=limits) as server:
            peak.server = server
            server.register("twice", peak.twice, inline=True)
            server.register("slow", peak.slow)
            server.register("forever", peak.forever)
            async with Client(server.url.replace("ws:", f"{link}:")) as client:
                yield client


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("link", LINKS)
async def test_ten_thousand_gathered_calls(link: str) -> None:
    peak = Peak()
    async with client_of(link, peak, Limits()) as client:
        results = await asyncio.gather(*[client.call("twice", number) for number in range(MANY)])
        assert results == [2 * number for number in range(MANY)]
        assert len(client._connection.session) == 0
    assert 0 < peak.requests <= 1024


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("limit", [{"requests": 5}, {"client_requests": 1}, {"client_bytes": 300}], ids=str)
async def test_many_calls_at_a_node_with_small_limits(link: str, limit: dict[str, int]) -> None:
    peak, limits, results = Peak(), Limits(**limit), {}

    async def call(number: int) -> None:
        results[number] = await client.call("slow" if number % 2 else "twice", number)

    async with client_of(link, peak, limits) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(call, number)
        assert results == {number: 2 * number for number in range(500)}
        assert len(client._connection.session) == 0
    assert peak.requests <= (limits.credit[0] if "client_bytes" not in limit else 300 // 20)


@pytest.mark.parametrize("link", LINKS)
async def test_cancelled_calls_return_their_credit(link: str) -> None:
    peak = Peak()
    async with client_of(link, peak, Limits(client_requests=2)) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(client.call, "forever")
                await anyio.wait_all_tasks_blocked()
                assert len(client._connection.session) == 200
                scope.cancel()
        assert len(client._connection.session) == 0
        assert await client.call("twice", 21) == 42
        assert len(client._connection.session._window) == 0


async def test_view_beside_many_calls() -> None:
    peak = Peak()
    async with client_of("tcp", peak, Limits(client_requests=2)) as client, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(client.call, "forever")
        await anyio.wait_all_tasks_blocked()
        assert (await client.view()).requests == 2, "it does not wait for credit"
        tasks.cancel_scope.cancel()
