"""What is to be written to one link: gathered without waiting, written by one task, ended in bounded time.

The driver and the client put messages in; a writer task takes what is there and writes it, control messages first. A
peer may be slow for as long as it takes something: only one that takes nothing for a while is hung up on, and neither
the hang-up nor the end of the process waits for that one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from math import inf

import anyio

from mpreg_proto.effects import Lane
from mpreg_proto.errors import CloseCode
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.links.tcp import STALLED_SECONDS
from mpreg_transports.runtime import logs

log = logs.get(__name__)

SHORT = 64 * 1024
"""Bytes up to which a write is tried at once; a longer one is left to the writer, which knows how to wait."""
BATCH = 256 * 1024
"""Bytes from which on the writer takes no further message into a write: what has priority waits for one write."""
CLOSING_SECONDS = 3.0
"""How long a link that is closing waits for a peer that takes nothing of what was put before `close`."""
CHECK_SECONDS = 0.2
"""From one look at what peers have taken to the next. Reasonable: well below the wait for a probe's answer."""


class ProgressMonitor:
    """Checks the send buffers of one driver or client while something waits to leave on them.

    `spawn` starts a task, which ends when nothing waits any more.
    """

    def __init__(self, spawn: Callable[[Callable[[], Coroutine[object, object, None]]], object]) -> None:
        self._spawn = spawn
        self._waiting: dict[SendBuffer, None] = {}

    def add(self, send_buffer: SendBuffer) -> None:
        """Look at it until all that it has sent is taken."""
        if not self._waiting:
            self._spawn(self._run)
        self._waiting[send_buffer] = None

    async def _run(self) -> None:
        while self._waiting:
            await anyio.sleep(CHECK_SECONDS)
            for send_buffer in list(self._waiting):
                if not send_buffer.check_progress():
                    del self._waiting[send_buffer]


class SendBuffer:
    """`put` never waits; `run` empties it in as few writes as can be, until the link is closed or ends.

    With `high_water` bytes unsent `backlog` is told how many, once; when all have been written it is told 0.
    `progress` is called while the peer takes some of what waits to leave.
    """

    def __init__(
        self,
        link: Link,
        *,
        monitor: ProgressMonitor,
        high_water: float = inf,
        backlog: Callable[[int], None] = lambda unsent: None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._monitor = monitor
        self._high_water = high_water
        self._backlog = backlog
        self._progress = progress
        self._above_high_water = False
        self._control: list[Sequence[bytes]] = []  # lists, as an empty deque has 600 bytes, and most links are idle
        self._content: list[Sequence[bytes]] = []
        self._unsent = 0
        self._written = 0
        self._acked: int | None = None
        self._idle_checks = 0
        """Looks in a row at which the peer had taken nothing; a pause of this process is one look at most."""
        self._code: int | None = None
        self._over = False
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def moving(self) -> bool:
        """Whether something waits to leave and the peer takes it."""
        return not self._over and self._acked is not None and self._idle_checks == 0

    def put(self, messages: Sequence[Sequence[bytes]], lane: Lane = Lane.CONTENT) -> None:
        """Write these, each the chunks of one message, after what is there in their lane.

        At once if that can be done without waiting. After `close` they are dropped.
        """
        if self._code is not None:
            return
        chunks = [chunk for message in messages for chunk in message]
        size = sum(map(len, chunks))
        if not self._unsent and size <= SHORT and self._link.send_now(chunks):
            return
        (self._control if lane is Lane.CONTROL else self._content).extend(messages)
        self._unsent += size
        if self._unsent >= self._high_water and not self._above_high_water:
            self._above_high_water = True
            self._backlog(self._unsent)
        self._monitor.add(self)
        self._wake.set()

    def close(self, code: int) -> None:
        """Close the link when all is written, or when the peer takes nothing for CLOSING_SECONDS.

        The second call changes nothing.
        """
        if self._code is None:
            self._code = code
            self._idle_checks = 0
            self._monitor.add(self)
            self._wake.set()

    async def run(self) -> None:
        """Write until the link is closed or ends."""
        try:
            with self._scope:
                await self._write()
        except LinkEnded:
            return  # the reader is told so too, and says what follows
        finally:
            self._over = True
        if self._code is None:
            log.warning("%s: takes nothing, %d bytes are unsent; hung up", self._link.peer, self._unsent)
            self._code = CloseCode.TRY_AGAIN_LATER
        await self._link.close(self._code)

    def check_progress(self) -> bool:
        """See whether the peer has taken something since the last look, and give it up if it has not for long.

        Returns False once nothing is left to be taken.
        """
        if self._over:
            return False
        before, self._acked = self._acked, max(self._acked or 0, self._acked_by_peer())
        if before is None or self._acked > before:
            self._idle_checks = 0
        else:
            self._idle_checks += 1
        if before is not None and self._idle_checks == 0:
            self._progress()
        elif self._idle_checks * CHECK_SECONDS >= (STALLED_SECONDS if self._code is None else CLOSING_SECONDS):
            self._scope.cancel()
        elif not self._unsent and self._code is None and (self._link.written_bytes or 0) <= self._acked:
            self._acked = None
            return False
        return True

    def _acked_by_peer(self) -> int:
        acked = self._link.acked_bytes
        return self._written if acked is None else acked

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            while batch := self._next():
                size = sum(map(len, batch))
                await self._link.send(batch)
                self._unsent -= size
                self._written += size
            if self._above_high_water:
                self._above_high_water = False
                self._backlog(0)
            if self._code is not None:
                while self._link.unsent_bytes:  # noqa: ASYNC110  # the process may end once it is closed
                    await anyio.sleep(CHECK_SECONDS / 10)
                return
            self._wake = anyio.Event()

    def _next(self) -> list[bytes]:
        """The chunks of the next write: all control messages, and content up to a bound, whole messages."""
        batch: list[bytes] = []
        size = 0
        for lane in (self._control, self._content):
            count = 0
            while count < len(lane) and size < BATCH:
                batch.extend(lane[count])
                size += sum(map(len, lane[count]))
                count += 1
            del lane[:count]
        return batch


class ReplySlot:
    """Stands in for a send buffer where one answer is awaited."""

    moving = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._arrived = anyio.Event()

    def put(self, messages: Sequence[Sequence[bytes]], lane: Lane = Lane.CONTENT) -> None:
        """The answer, or a part of it."""
        for message in messages:
            self._chunks.extend(message)
        self._arrived.set()

    def close(self, code: int) -> None:
        """No answer will come."""
        self._arrived.set()

    async def answer(self) -> bytes:
        """Wait for it. Raises LinkEnded if there will be none."""
        await self._arrived.wait()
        if not self._chunks:
            raise LinkEnded("the node is leaving")
        return self._chunks[0]
