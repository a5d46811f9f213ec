"""What is to be written to one link: gathered without waiting, written by one task, ended in bounded time.

The driver and the client put chunks in; a writer task takes all that is there and writes it at once. A peer that does
not read can hold the writer up, but neither the hang-up nor the end of the process: closing has a deadline.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from mpreg_transports import logs
from mpreg_transports.links.base import Link, LinkEnded

log = logs.get(__name__)

SHORT = 64 * 1024
"""Bytes up to which a write is tried at once; a longer one is left to the writer, which knows how to wait."""
MOST = 256 * 1024 * 1024
"""Unsent bytes at which a peer that does not read is hung up on (WebSocket close code 1013, try again later)."""
CLOSING_SECONDS = 2.0
"""How long what was put before `close` may take to be written."""
TRY_AGAIN_LATER = 1013


class Outbox:
    """`put` never waits; `run` empties it in as few writes as can be, until the link is closed or ends.

    With `much` bytes unsent `backlog` is told how many, once; when all have been written it is told 0.
    """

    def __init__(self, link: Link, *, much: int = MOST, backlog: Callable[[int], None] = lambda unsent: None) -> None:
        self._link = link
        self._much = much
        self._backlog = backlog
        self._told = False
        self._chunks: list[bytes] = []
        self._unsent = 0
        self._code: int | None = None
        self._writing = False
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()

    def put(self, chunks: list[bytes]) -> None:
        """Write these after what is there: at once if that can be done without waiting.

        After `close` they are dropped.
        """
        if self._code is not None:
            return
        size = sum(map(len, chunks))
        if not self._writing and not self._chunks and size <= SHORT and self._link.send_now(chunks):
            return
        self._chunks.extend(chunks)
        self._unsent += size
        if self._unsent >= self._much and not self._told:
            self._told = True
            self._backlog(self._unsent)
        if self._unsent > MOST:
            log.warning("%s: does not read, %d bytes are unsent; hung up", self._link.peer, self._unsent)
            self.close(TRY_AGAIN_LATER, within=0)
        self._wake.set()

    def close(self, code: int, *, within: float | None = None) -> None:
        """Close the link when all is written, or after so many seconds (CLOSING_SECONDS unless told otherwise).

        The second call changes nothing.
        """
        if self._code is None:
            self._code = code
            self._scope.deadline = anyio.current_time() + (CLOSING_SECONDS if within is None else within)
            self._wake.set()

    async def run(self) -> None:
        """Write until the link is closed or ends."""
        try:
            with self._scope:
                await self._write()
        except LinkEnded:
            return  # the reader is told so too, and says what follows
        if self._code is not None:
            await self._link.close(self._code)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._writing = True
            while self._chunks:
                chunks, self._chunks = self._chunks, []
                size = sum(map(len, chunks))
                await self._link.send(chunks)
                self._unsent -= size
            self._writing = False
            if self._told:
                self._told = False
                self._backlog(0)
            if self._code is not None:
                return
            self._wake = anyio.Event()


class Mailbox:
    """Stands in for an outbox where one answer is awaited."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._there = anyio.Event()

    def put(self, chunks: list[bytes]) -> None:
        """The answer, or a part of it."""
        self._chunks.extend(chunks)
        self._there.set()

    def close(self, code: int, *, within: float | None = None) -> None:
        """No answer will come."""
        self._there.set()

    async def answer(self) -> bytes:
        """Wait for it. Raises LinkEnded if there will be none."""
        await self._there.wait()
        if not self._chunks:
            raise LinkEnded("the node is leaving")
        return self._chunks[0]
