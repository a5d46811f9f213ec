"""Raw TCP, and what WebSocket and HTTP share with it: opening a connection, naming its ends, writing, lingering.

Bytes go between a socket (or TLS over one) and the driver as they are; the core puts length prefixes on and takes
them off. Nothing here looks at them.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import cast

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from mpreg_transports.addresses import host_and_port, normal_host
from mpreg_transports.links import asyncio_stream
from mpreg_transports.links.base import Buffer, Framing, LinkEnded

READ_SIZE = 256 * 1024
"""Bytes asked for at once; asyncio's own reads are as long."""
LARGE = 64 * 1024
"""From this many bytes on a chunk is written alone: copying it costs more than one more call."""
CONNECT_SECONDS = 10.0
"""How long a connection may take to open. Reasonable: 3 to 30; a system's own limit is minutes."""
LINGER_SECONDS = 1.0
"""How long `linger` waits for the peer to hang up. Reasonable: a round trip or two."""

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
"""All that reading and writing raise when the peer or the network is gone (ssl.SSLError is an OSError)."""


_PLAIN = (SocketStream, asyncio_stream.AsyncioStream)
"""Streams that can end one direction."""


class TcpLink:
    """A `Link` over a connected byte stream; `received` are bytes that were already read from it."""

    framing = Framing.STREAM

    def __init__(self, stream: ByteStream, *, received: bytes = b"") -> None:
        self.peer = peer_name(stream)
        self.local_host = local_host(stream)
        self._stream = stream
        self._received = received
        self._end: LinkEnded | None = None
        self._closed = False

    async def receive(self) -> tuple[bytes]:
        """One chunk, up to 256 KiB. See `Link.receive`."""
        if self._received:
            chunk, self._received = self._received, b""
            return (chunk,)
        if self._end is not None:
            raise self._end.again()
        try:
            return (await self._stream.receive(READ_SIZE),)
        except BROKEN as error:
            raise self._ended(error) from None

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Write the concatenation of `chunks`. See `Link.send`."""
        if self._end is not None and not self._end.clean:
            raise self._end.again()
        try:
            for piece in gather(chunks):
                await self._stream.send(piece)
        except BROKEN as error:
            raise self._ended(error) from None

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        """Write short chunks without waiting, where the stream can. See `Link.send_now`."""
        if self._end is not None or not isinstance(self._stream, asyncio_stream.AsyncioStream):
            return False
        return self._stream.send_now(b"".join(chunks))

    async def close(self, code: int = 1000) -> None:
        """Say that nothing more will come, and hang up. See `Link.close`."""
        if self._closed:
            return
        self._closed = True
        if self._end is None:
            self._end = LinkEnded("closed here", clean=True)
        await hang_up(self._stream)

    def _ended(self, error: BaseException) -> LinkEnded:
        if self._end is None:
            self._end = ending(error)
        return self._end.again()


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> TcpLink:
    """Open a raw link to a node. Raises LinkEnded, whose reason says why not, within 10 seconds."""
    return TcpLink(await open_stream(host, port, tls=tls))


async def open_stream(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> ByteStream:
    """Connect, with TLS if `tls` is given; TCP_NODELAY is set. Raises LinkEnded."""
    where = host_and_port(host, port)
    try:
        with anyio.fail_after(CONNECT_SECONDS):
            if tls is None and asyncio_stream.running_loop() is not None:
                return await asyncio_stream.connect(host, port)
            if tls is None:
                return await anyio.connect_tcp(host, port)
            # Not standard-compatible: an end without TLS's own goodbye is how most peers end.
            return await anyio.connect_tcp(host, port, ssl_context=tls, tls_standard_compatible=False)
    except TimeoutError:
        raise LinkEnded(f"cannot connect to {where}: no answer within {CONNECT_SECONDS:g} s") from None
    except (*BROKEN, UnicodeError) as error:  # UnicodeError: a name that cannot be a host's
        raise LinkEnded(f"cannot connect to {where}: {why(error)}") from None


def why(error: BaseException) -> str:
    """What an error of the network says, in a few words: the system's own text, without its number."""
    inner: BaseException | None = error
    while inner is not None:
        match inner:
            case BaseExceptionGroup():
                return "; ".join(dict.fromkeys(why(one) for one in inner.exceptions))
            case ssl.SSLCertVerificationError():
                return f"its certificate is not accepted ({inner.verify_message})"
            case ssl.SSLError():
                return f"TLS failed ({(inner.reason or str(inner)).replace('_', ' ').lower()})"
            case socket.gaierror():
                return _small(inner.strerror or "the name is not known")
            case OSError() if inner.errno:
                return _small(os.strerror(inner.errno))  # asyncio puts a text of its own into strerror
        inner = inner.__cause__
    return str(error) or type(error).__name__


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def ending(error: BaseException) -> LinkEnded:
    """The LinkEnded for what reading or writing a byte stream raised."""
    if isinstance(error, anyio.EndOfStream):
        return LinkEnded("the peer hung up", clean=True)
    if isinstance(error, anyio.ClosedResourceError):
        return LinkEnded("closed here", clean=True)
    if isinstance(error, anyio.BrokenResourceError) and error.__cause__ is None:
        return LinkEnded("connection lost")
    return LinkEnded(f"connection lost: {why(error)}")


def gather(chunks: Sequence[Buffer]) -> Iterator[bytes]:
    """Group `chunks` into as few writes as is sensible: short ones joined, long ones alone and not copied.

    anyio's streams say bytes and take any buffer, so that is what this says it yields.
    """
    if len(chunks) == 1:
        yield cast(bytes, chunks[0])
        return
    short: list[Buffer] = []
    for chunk in chunks:
        if len(chunk) < LARGE:
            short.append(chunk)
            continue
        if short:
            yield b"".join(short)
            short = []
        yield cast(bytes, chunk)
    if short:
        yield b"".join(short)


def peer_name(stream: ByteStream) -> str:
    """`host:port` of the other end, for logs; "unknown" for one that has gone already."""
    address = stream.extra(SocketAttribute.remote_address, None)
    return host_and_port(normal_host(address[0]), address[1]) if isinstance(address, tuple) else "unknown"


def local_host(stream: ByteStream) -> str | None:
    """The address of this machine at this end, None if it is not known."""
    address = stream.extra(SocketAttribute.local_address, None)
    return normal_host(str(address[0])) if isinstance(address, tuple) else None


async def linger(stream: ByteStream, *, seconds: float = LINGER_SECONDS) -> None:
    """End our direction and read on until the peer hangs up, at most `seconds`. Never raises.

    Closing a socket while bytes of the peer's are unread resets it, and the peer may then lose what we sent last.
    """
    with suppress(*BROKEN), anyio.move_on_after(seconds):
        if isinstance(stream, _PLAIN):  # TLS cannot end one direction
            await stream.send_eof()
        while True:
            await stream.receive(READ_SIZE)


async def hang_up(stream: ByteStream) -> None:
    """Close a stream, what was written going out first, even when cancelled. Never raises."""
    with anyio.CancelScope(shield=True):
        with suppress(*BROKEN):
            if isinstance(stream, _PLAIN):
                await stream.send_eof()
        with suppress(*BROKEN):
            await stream.aclose()
