"""Closed links leave no timer in the event loop, whatever the peer does."""

from __future__ import annotations

import asyncio

import pytest

from mpreg_transports import Client, Server
from mpreg_transports.links import tcp, websocket

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The event loop of asyncio itself, the only one that shows its timers."""
    return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}


def timers() -> list[asyncio.TimerHandle]:
    """Return the pending timers of the event loop, without the timeout of the test itself."""
    loop = asyncio.get_running_loop()
    return [one for one in loop._scheduled if not one.cancelled()]  # type: ignore[attr-defined]


async def test_links_servers_and_clients_leave_no_timer() -> None:
    async with Server(port=0) as seed, Server(port=0, peers=[seed.url]) as server:
        async with Client(server.url) as client:
            assert await client.call("echo", bytes(1 << 20)) == bytes(1 << 20)
        link = await tcp.connect("127.0.0.1", server.port)
        await link.close()
        classic = await websocket.connect("localhost", server.port, subprotocols=())
        await classic.close()
    assert timers() == []
