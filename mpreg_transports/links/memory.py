"""Two links joined in memory: for tests, for clusters inside one process, and for the driver's own tests.

The bytes that one end sends, the other end receives, as a byte stream with a bounded buffer. Immutable data is not
copied. The pair can cut the data into small chunks, and break like a network does. It has no clock and no randomness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio
import anyio.lowlevel

from mpreg_proto.errors import CloseCode
from mpreg_transports.links.base import Buffer, Framing, Link, LinkEnded

BUFFERED = 1024 * 1024
"""The unread bytes from which on a sender waits."""


class _Direction:
    """The bytes in transit from one end to the other."""

    def __init__(self, *, chunk: int | None, buffered: int) -> None:
        self._chunk = chunk
        self._limit = buffered
        self._waiting: deque[bytes | memoryview] = deque()
        self._unread = 0
        self.written_bytes: int = 0
        """The number of bytes that were sent."""
        self._end: LinkEnded | None = None
        self._changed = anyio.Event()

    def end(self, end: LinkEnded) -> None:
        """End this direction. The first end is kept, but a break also drops the unread bytes."""
        if self._end is None:
            self._end = end
        if not end.clean:
            self._end = end
            self.drop()
        self._wake()

    async def put(self, chunks: Sequence[Buffer]) -> None:
        await anyio.lowlevel.checkpoint()
        if self._end is not None:
            raise self._end.copy()
        for chunk in chunks:
            if len(chunk):
                self._waiting.append(_unchanging(chunk))
                self._unread += len(chunk)
                self.written_bytes += len(chunk)
        self._wake()
        while self._unread > self._limit:
            await self._changed.wait()
            if self._end is not None:
                raise self._end.copy()

    async def take(self) -> bytes | memoryview:
        await anyio.lowlevel.checkpoint()
        while not self._waiting:
            if self._end is not None:
                raise self._end.copy()
            await self._changed.wait()
        data = self._next(self._unread if self._chunk is None else self._chunk)
        self._unread -= len(data)
        self._wake()
        return data

    def _next(self, most: int) -> bytes | memoryview:
        """Return up to `most` bytes, whatever the pieces in which they were sent."""
        taken: list[bytes | memoryview] = []
        while self._waiting and most:
            piece = self._waiting.popleft()
            if len(piece) > most:
                view = memoryview(piece)
                piece = view[:most]
                self._waiting.appendleft(view[most:])
            taken.append(piece)
            most -= len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    @property
    def acked_bytes(self) -> int:
        """The number of bytes that the other end has received, or that were dropped."""
        return self.written_bytes - self._unread

    def drop(self) -> None:
        """Drop the unread bytes."""
        self._waiting.clear()
        self._unread = 0

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class MemoryLink(Link):
    """One end of a pair; a `Link` with framing STREAM."""

    framing = Framing.STREAM

    def __init__(self, incoming: _Direction, outgoing: _Direction, *, peer: str) -> None:
        self.peer = peer
        self._incoming = incoming
        self._outgoing = outgoing

    @property
    def written_bytes(self) -> int:
        """The number of bytes that were written."""
        return self._outgoing.written_bytes

    @property
    def acked_bytes(self) -> int:
        """The number of these bytes that the other end has received."""
        return self._outgoing.acked_bytes

    async def receive(self) -> tuple[bytes | memoryview]:
        """Return one chunk: all that waits, or as much as the pair's `chunk`. See `Link.receive`."""
        return (await self._incoming.take(),)

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Send the concatenation of `chunks`; waits while over 1 MiB is unread. See `Link.send`."""
        await self._outgoing.put(chunks)

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """End both directions in order: the other end still reads what was sent, this end reads nothing more."""
        self._incoming.drop()
        for direction in (self._incoming, self._outgoing):
            direction.end(LinkEnded("the link was closed", clean=True))

    def break_(self) -> None:
        """Break the connection at once and drop all unread bytes: both ends raise LinkEnded, `clean` False."""
        for direction in (self._incoming, self._outgoing):
            direction.end(LinkEnded("connection lost"))


def pair(
    *, chunk: int | None = None, buffered: int = BUFFERED, names: tuple[str, str] = ("memory-a", "memory-b")
) -> tuple[MemoryLink, MemoryLink]:
    """Return two joined links.

    `chunk`: the most bytes that one `receive` returns, None for all that waits. `buffered`: the unread bytes from which
    on a sender waits. `names`: the name of each end in logs; an end's `peer` is the other's name.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    there = _Direction(chunk=chunk, buffered=buffered)
    back = _Direction(chunk=chunk, buffered=buffered)
    return MemoryLink(back, there, peer=names[1]), MemoryLink(there, back, peer=names[0])


def _unchanging(chunk: Buffer) -> bytes | memoryview:
    """Return `chunk` itself if it is immutable, else a copy: the sender may reuse its buffer once `send` returns."""
    if isinstance(chunk, bytes) or (isinstance(chunk, memoryview) and chunk.readonly):
        return chunk
    return bytes(chunk)
