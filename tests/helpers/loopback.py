"""Helpers of the transports' tests: a listener on a free port, and a foreign WebSocket peer for either event loop.

The foreign peer is the `websockets` library's Sans-I/O half over an anyio stream, so that independent code checks this
project's adapter on asyncio and on trio. `Scripted` stands for a socket whose every read and write a test decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskStatus
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from mpreg_transports.links.base import MAX_MESSAGE, Link, LinkEnded
from mpreg_transports.links.websocket import WebSocketLink
from mpreg_transports.runtime.listener import (
    Admit,
    HttpRequest,
    HttpResponse,
    Listener,
    OnHttp,
    OnLink,
    ServerTls,
    admit_all,
)

PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits this long otherwise."""


async def echo(link: Link) -> None:
    """Echo each message, text as text, until the link ends."""
    try:
        while True:
            data = await link.receive()
            if isinstance(link, WebSocketLink):
                await link.send_typed(data)
            else:
                await link.send([chunk for chunk in data if not isinstance(chunk, str)])
    except LinkEnded:
        return


async def say_request(request: HttpRequest) -> HttpResponse:
    """Return an answer that contains the request."""
    return HttpResponse.text(200, f"{request.method} {request.path} {request.query} {len(request.body)}")


@asynccontextmanager
async def listening(
    on_link: OnLink = echo,
    on_http: OnHttp = say_request,
    *,
    admit: Admit = admit_all,
    max_message: int = MAX_MESSAGE,
    tls: ServerTls | None = None,
) -> AsyncIterator[Listener]:
    """Yield a listener that serves in this block."""

    async def serve(*, task_status: TaskStatus[None]) -> None:
        await listener.serve(on_link, on_http, max_message=max_message, task_status=task_status)

    with anyio.fail_after(PATIENCE):
        listener = await Listener.bind("127.0.0.1", 0, admit=admit, tls=tls)
        async with anyio.create_task_group() as tasks:
            await tasks.start(serve)
            try:
                yield listener
            finally:
                await listener.close()
                tasks.cancel_scope.cancel()


class ForeignClient:
    """A foreign WebSocket client."""

    def __init__(self, stream: ByteStream, protocol: ClientProtocol) -> None:
        self.stream = stream
        self.protocol = protocol
        self._events: list[object] = []
        self._writing = anyio.Lock()

    @property
    def close_code(self) -> int | None:
        """The code of the received close frame; 1006 for none."""
        return self.protocol.close_code

    async def handshake(self) -> Response:
        """Request the upgrade; return the answer."""
        self.protocol.send_request(self.protocol.connect())
        await self.flush()
        await self._pump()
        event = self._events.pop(0)
        assert isinstance(event, Response)
        return event

    async def flush(self) -> None:
        """Send the pending data of the protocol, in one write."""
        async with self._writing:
            if whole := b"".join(self.protocol.data_to_send()):
                await self.stream.send(whole)

    async def text(self, text: str) -> None:
        """Send a text message."""
        self.protocol.send_text(text.encode())
        await self.flush()

    async def binary(self, data: bytes) -> None:
        """Send a binary message."""
        self.protocol.send_binary(data)
        await self.flush()

    async def frame(self) -> Frame:
        """Return the next frame that the server sent, including control frames."""
        while not self._events:
            assert await self._pump(), "the server hung up"
        event = self._events.pop(0)
        assert isinstance(event, Frame)
        return event

    async def until_closed(self) -> None:
        """Read until the server closes the connection; answer its close frame."""
        while await self._pump():
            pass

    async def _pump(self) -> bool:
        try:
            self.protocol.receive_data(await self.stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.protocol.receive_eof()
            return False
        finally:
            self._events += self.protocol.events_received()
            with suppress(anyio.BrokenResourceError):
                await self.flush()
        return True


@asynccontextmanager
async def foreign_client(
    listener: Listener, *, subprotocols: Sequence[str] = (), path: str = "/"
) -> AsyncIterator[ForeignClient]:
    """Yield a foreign client after its opening handshake."""
    offered = [Subprotocol(name) for name in subprotocols]
    uri = parse_uri(f"ws://127.0.0.1:{listener.port}{path}")
    protocol = ClientProtocol(uri, subprotocols=offered or None, max_size=None)
    async with await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        client = ForeignClient(stream, protocol)
        answer = await client.handshake()
        assert answer.status_code == 101, answer
        yield client


class Scripted(ByteStream):
    """A stream that reads the items of the test, one item a read, then ends; `sent` holds each write."""

    def __init__(self, reads: Iterable[bytes] = ()) -> None:
        self.reads = list(reads)
        self.sent: list[bytes] = []
        self.closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self.closed:
            raise anyio.ClosedResourceError
        if not self.reads:
            raise anyio.EndOfStream
        return self.reads.pop(0)

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(bytes(item))

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        await anyio.lowlevel.checkpoint()


async def read_all(stream: ByteStream) -> bytes:
    """Return all bytes until the other end closes; a reset counts as the end."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return data


async def receive_exactly(link: Link, length: int) -> bytes:
    """Return `length` bytes from a stream link."""
    data = bytearray()
    while len(data) < length:
        for chunk in await link.receive():
            assert not isinstance(chunk, str)
            data += chunk
    return bytes(data)


async def read_exactly(stream: ByteStream, length: int) -> bytes:
    """Return exactly `length` bytes."""
    data = b""
    while len(data) < length:
        data += await stream.receive(length - len(data))
    return data
