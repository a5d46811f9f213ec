"""The memory of an idle connection, and that connections that have ended leave nothing behind."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest

from mpreg_transports import Server
from tests.benchmarks.growth.links import CLIENT, IDLE, idle
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["raw", "websocket", "json websocket", "client"])
def test_idle_connection_memory(kind: str) -> None:
    assert idle(kind, 100) <= (CLIENT if kind == "client" else IDLE)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\x10half", b"GET / HT", b"POST /rpc HTTP/1.1\r\nHost: a\r\n"])
async def test_peers_lost_in_the_handshake_leave_nothing(said: bytes, anyio_backend: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            await anyio.wait_all_tasks_blocked()
            tasks = len(asyncio.all_tasks())
            for reset in (True, False):
                for _ in range(5):
                    with socket.create_connection(("127.0.0.1", server.port)) as sock:
                        sock.sendall(said)
                        if reset:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            assert server._driver is not None
            while server._driver._links:  # noqa: ASYNC110
                await anyio.sleep(0.01)
