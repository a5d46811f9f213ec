"""Peers that implement one dialect each and use no code of this project, as foreign clients.

JSON over WebSocket is the `websockets` library's Sans-I/O half (so it runs on asyncio and on trio) and `json`; JSON
over raw frames is four bytes of length and `json`; native messages are MessagePack arrays written and read by hand.
`ClassicClient` is the common part of the first two. None of them uses the code under test.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio
import msgpack  # type: ignore[import-untyped]
from anyio.abc import ByteStream
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.helpers.loopback import PATIENCE, ForeignClient, read_all, read_exactly

REFUSED, RESULT = 2, 11
"""Kinds of native messages from the node."""
REQUEST = 10
HELLO: list[Any] = [1, [1, 1], [], "", b"", "by hand"]
"""A client's hello: versions 1 to 1, no features, any cluster, no member id."""

_LENGTH = struct.Struct(">I")


class ClassicClient(Protocol):
    """Sends JSON texts over some link and reads the answers."""

    async def send(self, text: str | bytes) -> None:
        """Send one message."""

    async def receive(self) -> Any:
        """Return the next message, decoded."""


async def ask(peer: ClassicClient, message: object) -> Any:
    """Return the answer to one message: an object to be written as JSON, or text as it is."""
    await peer.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
    with anyio.fail_after(PATIENCE):
        return await peer.receive()


class ClassicWebSocketClient:
    """JSON in text frames."""

    def __init__(self, client: ForeignClient) -> None:
        self.client = client

    async def send(self, text: str | bytes) -> None:
        """Send text as a text message, bytes as a binary one."""
        if isinstance(text, str):
            await self.client.text(text)
        else:
            await self.client.binary(text)

    async def receive(self) -> Any:
        """Return the next message, which is text whatever was sent."""
        frame = await self.client.frame()
        assert frame.opcode is Opcode.TEXT and frame.fin, frame
        return json.loads(bytes(frame.data))


class ClassicFrameClient:
    """JSON in frames of their own: a 4-byte length, then the text."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream

    async def send(self, text: str | bytes) -> None:
        """Send one frame."""
        body = text.encode() if isinstance(text, str) else text
        await self.stream.send(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> Any:
        """Return the next frame."""
        return json.loads(await _body(self.stream))


class NativeClient:
    """MessagePack arrays in frames."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream

    async def send(self, message: Sequence[Any]) -> None:
        """Send one array."""
        await self.send_body(msgpack.packb(list(message)))

    async def send_body(self, body: bytes) -> None:
        """Send one frame with any content."""
        await self.stream.send(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> list[Any]:
        """Return the next array."""
        with anyio.fail_after(PATIENCE):
            message: list[Any] = msgpack.unpackb(await _body(self.stream), strict_map_key=False)
        return message

    async def until_closed(self) -> bytes:
        """Return all data until the node closes the connection."""
        with anyio.fail_after(PATIENCE):
            return await read_all(self.stream)

    async def code(self, *request: Any) -> int | None:
        """Send a request's array without its kind; return the code of the answer, None for success."""
        await self.send([REQUEST, *request])
        kind, number, *fields = await self.receive()
        assert (kind, number) == (RESULT, request[0])
        fault = fields[3] if len(fields) > 3 else None
        return None if fault is None else int(fault[0])


async def _body(stream: ByteStream) -> bytes:
    (length,) = _LENGTH.unpack(await read_exactly(stream, 4))
    return await read_exactly(stream, length)


@asynccontextmanager
async def websocket(port: int, *, subprotocols: Sequence[str] = ()) -> AsyncIterator[ForeignClient]:
    """Yield a foreign WebSocket client after its opening handshake."""
    offered = [Subprotocol(name) for name in subprotocols]
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/any/path"), subprotocols=offered or None, max_size=None)
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        client = ForeignClient(stream, protocol)
        answer = await client.handshake()
        assert answer.status_code == 101, answer
        yield client


@asynccontextmanager
async def classic_websocket(port: int) -> AsyncIterator[ClassicWebSocketClient]:
    """Yield a client of the classic dialect over WebSocket."""
    async with websocket(port) as client:
        yield ClassicWebSocketClient(client)


@asynccontextmanager
async def classic_frames(port: int) -> AsyncIterator[ClassicFrameClient]:
    """Yield a client of the classic dialect on raw frames; the first message must start with `{`."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield ClassicFrameClient(stream)


def classic(carrier: str, port: int) -> AbstractAsyncContextManager[ClassicWebSocketClient | ClassicFrameClient]:
    """Yield a client of the classic dialect over "websocket" or "frames"."""
    return classic_websocket(port) if carrier == "websocket" else classic_frames(port)


@asynccontextmanager
async def native(port: int, *, hello: Sequence[Any] | None = HELLO) -> AsyncIterator[NativeClient]:
    """Yield a raw link after the exchange of hellos; with None, nothing is sent yet."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        peer = NativeClient(stream)
        if hello is not None:
            await peer.send(hello)
            assert (await peer.receive())[0] == HELLO[0]
        yield peer
