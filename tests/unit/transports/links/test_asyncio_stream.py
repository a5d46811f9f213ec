"""asyncio's own byte stream: what a sender waits for, and what a closed stream leaves behind."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from mpreg_transports.links import asyncio_stream
from mpreg_transports.links.asyncio_stream import AsyncioStream
from mpreg_transports.links.tcp import TcpLink

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The only backend that has this stream."""
    return "asyncio"


@contextmanager
def peer_socket() -> Iterator[socket.socket]:
    """Yield a listening socket, for one peer that reads what the test reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def connect_and_fill(listening: socket.socket) -> tuple[AsyncioStream, socket.socket, int]:
    """Return a stream that holds bytes the system does not take, its peer, and the number of all sent bytes."""
    stream = await asyncio_stream.connect(*listening.getsockname())
    assert isinstance(stream, AsyncioStream)
    peer, _ = listening.accept()
    sent = 0
    while stream.send_now(bytes(1 << 20)):
        sent += 1 << 20
    assert stream.unwritten
    return stream, peer, sent


def read(peer: socket.socket, size: int) -> None:
    while size:
        size -= len(peer.recv(min(size, 1 << 20)))


async def test_close_leaves_nothing_in_the_event_loop() -> None:
    """The loop may end: uvloop's end would wait for the peer, if the warning of an open transport is an error."""
    with peer_socket() as listening:
        stream, peer, _ = await connect_and_fill(listening)
        with peer:
            await stream.aclose()
            assert stream._lost
            assert stream.unwritten == 0


async def test_drain_waits_until_the_system_has_taken_all() -> None:
    with peer_socket() as listening:
        stream, peer, sent = await connect_and_fill(listening)
        with peer:
            drained = asyncio.ensure_future(stream.drain())
            await anyio.wait_all_tasks_blocked()
            assert not drained.done()
            await asyncio.gather(drained, asyncio.to_thread(read, peer, sent))
            assert stream.unwritten == 0
            assert stream.send_now(b"more")
            await stream.drain()
            await stream.aclose()


async def test_link_that_is_paced_keeps_few_unwritten_bytes() -> None:
    with peer_socket() as listening:
        stream = await asyncio_stream.connect(*listening.getsockname())
        assert isinstance(stream, AsyncioStream)
        peer, _ = listening.accept()
        with peer:
            link, size = TcpLink(stream), 16 * 1024
            link.pace(size)
            sending = asyncio.ensure_future(link.send([bytes(64 << 20)]))
            while stream.unwritten <= size:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert size < link.unsent_bytes <= 2 * size, "the one piece with which it was too much"
            await asyncio.gather(sending, asyncio.to_thread(read, peer, 64 << 20))
            await stream.aclose()
            link.pace(2 * size)  # changes nothing any more


async def test_cancelled_drain_leaves_a_stream_that_can_send() -> None:
    with peer_socket() as listening:
        stream, peer, sent = await connect_and_fill(listening)
        with peer:
            drained = asyncio.ensure_future(stream.drain())
            await anyio.wait_all_tasks_blocked()
            drained.cancel()
            await asyncio.gather(drained, return_exceptions=True)
            await asyncio.gather(stream.send(b"more"), asyncio.to_thread(read, peer, sent + 4))
            await stream.aclose()


async def test_drain_ends_with_the_connection() -> None:
    with peer_socket() as listening:
        stream, peer, _ = await connect_and_fill(listening)
        drained = asyncio.ensure_future(stream.drain())
        await anyio.wait_all_tasks_blocked()
        peer.close()
        with pytest.raises(anyio.BrokenResourceError):
            await drained
        await stream.aclose()
