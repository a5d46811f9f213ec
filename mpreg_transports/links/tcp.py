"""Raw TCP links, and the functions that WebSocket and HTTP share: open a connection, name its ends, write, linger.

Bytes pass unchanged between a socket (or TLS over one) and the driver; the core adds and removes the length prefixes.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from mpreg_proto.errors import CloseCode
from mpreg_transports.background import running_loop
from mpreg_transports.config.addresses import host_and_port, normal_host
from mpreg_transports.config.system_errors import lower_first
from mpreg_transports.functions.fork_safety import close_on_fork
from mpreg_transports.links import asyncio_stream
from mpreg_transports.links.base import Buffer, Framing, Link, LinkEnded
from mpreg_transports.links.buffering import BufferingStream
from mpreg_transports.links.tls import HANDSHAKE_SECONDS, TlsStream, describe_tls_error, is_denial, secure

READ_SIZE = 256 * 1024
"""The bytes of one read; asyncio's own reads are as long."""
LARGE = 64 * 1024
"""The bytes from which on a chunk is written alone: copying it costs more than one more call."""
CONNECT_SECONDS = 10.0
"""The seconds within which a connection must open. Reasonable: 3 to 30; a system's own limit is minutes."""
LINGER_SECONDS = 1.0
"""The seconds for which `linger` waits for the peer to hang up. Reasonable: a round trip or two."""

SLICE = 128 * 1024
"""The bytes of a long chunk that are written at once, so that the progress of the peer can be measured."""
SHORT_SLICE = 16 * 1024
"""The same where a stream does not report how much of a write the system has taken: at 6 kB/s a slice is taken in the
3 s for which a link that is hung up may stand still (`Limits.hang_up`)."""
TURN = 1024 * 1024
"""The bytes after which a writer that never waits lets other tasks run."""
STALLED_SECONDS = 10.0
"""The seconds for which a peer may take nothing of the bytes that wait for it; then the link is closed."""
UNSENT = 128 * 1024
"""The bytes that the system keeps beyond those in transit (TCP_NOTSENT_LOWAT): few bytes are ahead of a ping."""
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""The seconds of silence until the system probes the peer, the seconds between two probes, and the number of probes."""

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
"""All exceptions of reading and writing when the peer or the network fails (ssl.SSLError is an OSError)."""


_WITH_EOF = (SocketStream, asyncio_stream.AsyncioStream, TlsStream)
"""The streams that can end one direction."""


class TcpLink(Link):
    """A `Link` over a connected byte stream; `received` are bytes that were already read from it."""

    framing = Framing.STREAM

    def __init__(self, stream: ByteStream, *, received: bytes = b"") -> None:
        self.peer: str = peer_name(stream)
        self.local_host: str | None = local_host(stream)
        self._stream = stream
        self._output = Output(stream)
        self._received = received
        self._end: LinkEnded | None = None
        self._closed = False

    @property
    def acked_bytes(self) -> int:
        """The number of bytes that the peer has taken. See `Output.acked_bytes`."""
        return self._output.acked_bytes

    @property
    def written_bytes(self) -> int:
        """The number of bytes that were written."""
        return self._output.written_bytes

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes that this system has not taken yet."""
        return self._output.unsent

    def pace(self, size: int) -> None:
        """See `Link.pace`."""
        self._output.pace(size)

    async def receive(self) -> tuple[bytes]:
        """Return one chunk, up to 256 KiB. See `Link.receive`."""
        if self._received:
            chunk, self._received = self._received, b""
            return (chunk,)
        if self._end is not None:
            raise self._end.copy()
        try:
            return (await self._stream.receive(READ_SIZE),)
        except BROKEN as error:
            raise self._ended(error) from None

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Write the concatenation of `chunks`. See `Link.send`."""
        if self._end is not None and not self._end.clean:
            raise self._end.copy()
        try:
            await self._output.write(chunks)
        except BROKEN as error:
            raise self._ended(error) from None

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        """Write short chunks without waiting, where the stream can. See `Link.send_now`."""
        return self._end is None and self._output.write_now(b"".join(chunks))

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """End the sent direction and close the connection. See `Link.close`."""
        if self._closed:
            return
        self._closed = True
        if self._end is None:
            self._end = LinkEnded("closed here", clean=True)
        await hang_up(self._stream)

    def _ended(self, error: BaseException) -> LinkEnded:
        if self._end is None:
            self._end = to_link_ended(error)
        return self._end.copy()


class Output:
    """The output of one stream, written in slices, with a count of the bytes that the peer has taken."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffering = stream if isinstance(stream, BufferingStream) else None
        self._tls = stream if isinstance(stream, TlsStream) else None
        self._written = 0
        self._raw: socket.socket | None = stream.extra(SocketAttribute.raw_socket, None)
        self._slice = SHORT_SLICE if self._buffering is None else SLICE

    @property
    def written_bytes(self) -> int:
        """The number of bytes that were written; with TLS those of its records, as the peer acknowledges these."""
        return self._written if self._tls is None else self._tls.sent_bytes

    async def write(self, chunks: Sequence[Buffer]) -> None:
        """Write the concatenation of `chunks`. Raises the stream's exceptions (BROKEN)."""
        turn = self._written + TURN
        for piece in gather(chunks):
            for part in _slices(piece, self._slice):
                self._written += len(part)  # before the write: from there on the unsent bytes include them
                await self._stream.send(part)
                if self._written >= turn:
                    turn = self._written + TURN
                    await anyio.lowlevel.checkpoint()

    def write_now(self, data: bytes) -> bool:
        """Write without waiting. Return False, with nothing written, where the stream cannot do that."""
        if self._buffering is None or not self._buffering.send_now(data):
            return False
        self._written += len(data)
        return True

    def pace(self, size: int) -> None:
        """See `Link.pace`."""
        if self._buffering is not None:
            self._slice = min(SLICE, size)
            self._buffering.limit_unwritten(size)

    @property
    def unsent(self) -> int:
        """The number of written bytes that the system has not taken yet."""
        return 0 if self._buffering is None else self._buffering.unwritten

    @property
    def acked_bytes(self) -> int:
        """The number of bytes that the peer has taken.

        Its system has acknowledged them, or, where that is not known, the local system has taken them. While bytes
        wait, a growing number is a sign of life.
        """
        return self.written_bytes - self.unsent - _unacknowledged(self._raw)


def _unacknowledged(sock: socket.socket | None) -> int:
    """Return the number of bytes that the peer has not acknowledged; 0 where the system does not report it."""
    if sock is None or sys.platform == "win32":
        return 0
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _slices(piece: bytes, size: int = SLICE) -> Iterator[bytes]:
    if len(piece) <= size:
        yield piece
        return
    view = memoryview(piece)
    for start in range(0, len(piece), size):
        yield cast(bytes, view[start : start + size])


def tune(stream: ByteStream) -> None:
    """Let the system detect that a silent peer is lost, and keep few bytes beyond those in transit. Never raises."""
    sock: socket.socket | None = stream.extra(SocketAttribute.raw_socket, None)
    if sock is None:
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (*KEEPALIVE, ("TCP_NOTSENT_LOWAT", UNSENT)):
        number = getattr(socket, name, _LINUX.get(name) if sys.platform == "linux" else None)
        if number is not None:
            options.append((socket.IPPROTO_TCP, number, value))
    for level, number, value in options:
        with suppress(OSError):  # not every system supports each of them
            sock.setsockopt(level, number, value)


_LINUX = {"TCP_NOTSENT_LOWAT": 25}
"""The option numbers that Python's socket module does not define everywhere."""


async def write_all(stream: ByteStream, data: bytes) -> None:
    """Write to a peer that may be slow; return when the system has taken everything.

    Raises LinkEnded, also when the peer takes nothing for STALLED_SECONDS.
    """
    try:
        for part in _slices(data):
            with anyio.fail_after(STALLED_SECONDS):
                await stream.send(part)
                await drain(stream)
    except TimeoutError:
        raise LinkEnded(f"the peer took nothing for {STALLED_SECONDS:g} s") from None
    except BROKEN as error:
        raise to_link_ended(error) from None


async def drain(stream: ByteStream) -> None:
    """Wait until the system has taken all sent bytes. Raises the stream's exceptions (BROKEN)."""
    if isinstance(stream, BufferingStream):  # anyio's streams return from `send` only then
        await stream.drain()


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> TcpLink:
    """Open a raw link to a node. Raises LinkEnded with the reason within 10 seconds."""
    return TcpLink(await open_stream(host, port, tls=tls))


async def open_stream(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> ByteStream:
    """Connect, with TLS if `tls` is given; TCP_NODELAY is set. Raises LinkEnded."""
    where = host_and_port(host, port)
    try:
        with anyio.fail_after(CONNECT_SECONDS):
            stream = await _open(host, port)
    except TimeoutError:
        raise LinkEnded(f"cannot connect to {where}: no answer within {CONNECT_SECONDS:g} s") from None
    except (*BROKEN, UnicodeError) as error:  # UnicodeError: a name that is not valid for a host
        raise LinkEnded(f"cannot connect to {where}: {describe_error(error)}") from None
    tune(stream)
    return stream if tls is None else await _secured(stream, tls, host, where)


async def _open(host: str, port: int) -> ByteStream:
    if running_loop() is not None:
        return await asyncio_stream.connect(host, port)
    stream = await anyio.connect_tcp(host, port)
    close_on_fork(stream.extra(SocketAttribute.raw_socket))
    return stream


async def _secured(stream: ByteStream, context: ssl.SSLContext, host: str, where: str) -> ByteStream:
    """Return the plain text of a new connection. Raises LinkEnded; then the connection is closed."""
    try:
        return await secure(stream, context, host=host)
    except BaseException as error:
        await hang_up(stream)
        if isinstance(error, TimeoutError):
            reason = f"no TLS handshake within {HANDSHAKE_SECONDS:g} s"
        elif isinstance(error, (*BROKEN, UnicodeError)):
            reason = describe_error(error)
        else:
            raise
        raise LinkEnded(f"cannot connect to {where}: {reason}", denied=is_denial(error)) from None


def describe_error(error: BaseException) -> str:
    """Return a short text for a network error: the system's own text, without its number."""
    inner: BaseException | None = error
    while inner is not None:
        match inner:
            case BaseExceptionGroup():
                return "; ".join(dict.fromkeys(describe_error(one) for one in inner.exceptions))
            case ssl.SSLError():
                return describe_tls_error(inner)
            case socket.gaierror():
                return lower_first(inner.strerror or "the name is not known")
            case OSError() if inner.errno:
                return lower_first(os.strerror(inner.errno))  # asyncio puts a text of its own into strerror
        inner = inner.__cause__
    return str(error) or type(error).__name__


def to_link_ended(error: BaseException) -> LinkEnded:
    """Return the LinkEnded for an exception of reading or writing a byte stream."""
    if isinstance(error, anyio.EndOfStream):
        return LinkEnded("the peer hung up", clean=True)
    if isinstance(error, anyio.ClosedResourceError):
        return LinkEnded("closed here", clean=True)
    if isinstance(error, anyio.BrokenResourceError) and error.__cause__ is None:
        return LinkEnded("connection lost")
    if is_denial(error.__cause__):
        return LinkEnded(describe_error(error), denied=True)
    return LinkEnded(f"connection lost: {describe_error(error)}")


def gather(chunks: Sequence[Buffer]) -> Iterator[bytes]:
    """Group `chunks` into few writes: short ones joined, long ones alone and not copied.

    anyio's streams declare bytes but accept any buffer, so this declares bytes too.
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
    """Return `host:port` of the other end, for logs; "unknown" if it is no longer known."""
    address = stream.extra(SocketAttribute.remote_address, None)
    return host_and_port(normal_host(address[0]), address[1]) if isinstance(address, tuple) else "unknown"


def local_host(stream: ByteStream) -> str | None:
    """Return the address of this machine at this end, None if it is not known."""
    address = stream.extra(SocketAttribute.local_address, None)
    return normal_host(str(address[0])) if isinstance(address, tuple) else None


async def linger(stream: ByteStream, *, seconds: float = LINGER_SECONDS) -> None:
    """End the sent direction and read until the peer hangs up, at most `seconds`. Never raises.

    Closing a socket with unread bytes of the peer resets it, and the peer may then lose the last bytes that this end
    sent.
    """
    with suppress(*BROKEN), anyio.move_on_after(seconds):
        if isinstance(stream, _WITH_EOF):
            await stream.send_eof()
        while True:
            await stream.receive(READ_SIZE)


async def hang_up(stream: ByteStream) -> None:
    """Close a stream, even when cancelled. Bytes that the system has not taken are dropped. Never raises."""
    with anyio.CancelScope(shield=True):
        with suppress(*BROKEN):
            if isinstance(stream, _WITH_EOF):
                await stream.send_eof()
        with suppress(*BROKEN):
            await stream.aclose()
