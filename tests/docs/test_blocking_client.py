"""The example docs/examples/blocking_client.py against ordinary servers, and against none."""

import select
import socket
from functools import partial

import anyio
import pytest
from anyio.to_thread import run_sync

from docs.examples.blocking_client import BlockingClient
from mpreg_proto import Limits, RequestError
from mpreg_proto.limits import MILLISECOND
from mpreg_transports import Server


def raw(server: Server) -> str:
    return server.url.replace("ws://", "tcp://")


@pytest.mark.anyio
async def test_blocking_client_calls_functions(anyio_backend: str) -> None:
    async with Server(port=0) as server:

        @server.function
        def fail(text: str) -> None:
            raise ValueError(text)

        client = BlockingClient(raw(server))
        assert await run_sync(client.call, "echo", [1, {"a": b"x"}]) == [1, {"a": b"x"}]
        value = b"x" * 5_000_000
        assert await run_sync(client.call, "echo", value) == value
        with pytest.raises(RequestError, match="ValueError: no"):
            await run_sync(client.call, "fail", "no")
        await run_sync(client.close)


@pytest.mark.anyio
async def test_blocking_client_dials_again(anyio_backend: str) -> None:
    async with Server(port=0) as first:
        client = BlockingClient(raw(first))
        assert await run_sync(client.call, "echo", 1) == 1
    async with Server(port=first.port):
        assert await run_sync(client.call, "echo", 2) == 2
    client.close()


@pytest.mark.anyio
async def test_idle_blocking_client_dials_again(anyio_backend: str) -> None:
    """A client that makes no call answers no pings, so its node hangs up; the next call notices that."""
    async with Server(port=0, limits=Limits(ping_every=20 * MILLISECOND, gone_after=40 * MILLISECOND)) as server:
        client = BlockingClient(raw(server))
        assert await run_sync(client.call, "echo", 1) == 1
        assert client.sock is not None
        closed = select.poll()
        closed.register(client.sock, select.POLLRDHUP)
        assert await run_sync(closed.poll, 30_000)
        assert await run_sync(client.call, "echo", 2) == 2
        client.close()


@pytest.mark.anyio
async def test_deadline_of_a_blocking_client(anyio_backend: str) -> None:
    async with Server(port=0) as server:
        held = anyio.Event()

        @server.function
        async def hold() -> None:
            await held.wait()

        client = BlockingClient(raw(server))
        with pytest.raises(RequestError, match="not done within"):
            await run_sync(partial(client.call, "hold", timeout=0.05))
        held.set()
        assert await run_sync(client.call, "echo", 1) == 1
        client.close()


def test_blocking_client_without_a_node() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        client = BlockingClient(f"tcp://127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(RequestError, match="refused"):
            client.call("echo", 1, timeout=0.05)


def test_node_that_never_reads_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = BlockingClient(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(RequestError):
            client.call("echo", b"x" * 15_000_000, timeout=0.1)
        client.hang_up()
