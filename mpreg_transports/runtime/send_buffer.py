"""The bytes to be written to one link: queued without waiting, written by one task, closed in bounded time.

The driver and the client put messages in. A writer task takes them and writes them, control messages first, in writes
that take 50 ms at the measured bandwidth. A peer may be slow as long as it takes some bytes. A peer that takes nothing
for `Limits.stalled` is disconnected. Neither the close nor the end of the process waits for that peer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from math import inf

import anyio

from mpreg_proto.effects import Lane
from mpreg_proto.errors import CloseCode
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime import logs

log: logs.NodeLog = logs.get(__name__)

SHORT = 64 * 1024
"""The bytes up to which `put` writes at once; a longer write is left to the writer task, which can wait."""
BATCH = 256 * 1024
"""The bytes from which on the writer adds no message to a write: control messages wait for one write at most."""
SMALLEST_BATCH = 16 * 1024
"""The same on the slowest links."""
WRITE_SECONDS = 0.05
"""The time that one write takes at the measured bandwidth."""
CONTROL_WRITES = 7
"""The most writes in a row that hold nothing but control messages while content waits."""
CHECK_SECONDS = 0.2
"""The interval between two checks of what peers have taken. Reasonable: well below the timeout of a probe."""


class ProgressMonitor:
    """A task that checks the send buffers of one driver or client while they hold bytes that peers have not taken.

    `start` starts the task with `spawn`; with `idle=False` the first bytes that wait do so, as the task takes a tenth
    of the memory of an idle client. It ends when it is cancelled. A task for each time that bytes wait could be
    cancelled before its first step, as asyncio.run does at its end, and anyio's wrapper then never awaits its
    coroutine, which is a RuntimeWarning.
    """

    def __init__(self, spawn: Callable[[Callable[[], Coroutine[object, object, None]]], object]) -> None:
        self._spawn = spawn
        self._waiting: dict[SendBuffer, None] = {}
        self._added = anyio.Event()
        self._may_start = self._started = False

    def start(self, *, idle: bool = True) -> None:
        """Start the task, or allow it to start when bytes wait: `spawn` works from now on."""
        self._may_start = True
        self._start_if_needed(idle)

    def _start_if_needed(self, idle: bool = False) -> None:
        if self._may_start and (idle or self._waiting) and not self._started:
            self._started = True
            self._spawn(self._run)

    def add(self, send_buffer: SendBuffer) -> None:
        """Check a send buffer until the peer has taken all that was sent."""
        self._waiting[send_buffer] = None
        self._added.set()
        self._start_if_needed()

    async def _run(self) -> None:
        while True:
            await self._added.wait()
            self._added = anyio.Event()
            while self._waiting:
                await anyio.sleep(CHECK_SECONDS)
                for send_buffer in list(self._waiting):
                    if not self._check(send_buffer):
                        del self._waiting[send_buffer]

    def _check(self, send_buffer: SendBuffer) -> bool:
        try:
            return send_buffer.check_progress()
        except Exception:  # it ends this link, not the others
            log.exception("a defect while checking what a link has written, which ends")
            send_buffer.abort(CloseCode.INTERNAL_ERROR)
            return False


class SendBuffer:
    """The send buffer of one link. `put` never waits; `run` empties it in few writes until the link is closed or ends.

    `backlog` is called with the number of unsent bytes whenever it has passed a multiple of `high_water`, up or down,
    and with 0 when all have been written. `progress` is called while the peer takes some of the waiting bytes. The link
    ends if the peer takes none of them for `stalled` seconds.
    """

    def __init__(
        self,
        link: Link,
        *,
        monitor: ProgressMonitor,
        high_water: float = inf,
        stalled: float = DEFAULT.stalled / SECOND,
        backlog: Callable[[int], None] = lambda unsent: None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._monitor = monitor
        self._high_water = high_water
        self._stalled_seconds = stalled
        self._backlog = backlog
        self._progress = progress
        self._reported = 0
        """The multiple of `high_water` that was reported last."""
        self._control: list[Sequence[bytes]] = []  # lists, as an empty deque has 600 bytes, and most links are idle
        self._content: list[Sequence[bytes]] = []
        self._unsent = 0
        self._written = 0
        self._acked: int | None = None
        self._was_busy = False
        """True if bytes waited here at the last check."""
        self._bandwidth: float | None = None
        """The bytes per second that the peer takes, as a moving average."""
        self._batch = BATCH
        self._control_writes = 0
        """The writes in a row that held nothing but control messages."""
        self._idle_checks = 0
        """The checks in a row at which the peer had taken nothing.

        A pause of this process counts as one check at most.
        """
        self._code: int | None = None
        self._closing_seconds = 0.0
        self._over = False
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()

    async def keepalive(self) -> bool:
        """Ask the peer for a sign of life. Returns False if the link has no means for that. Raises LinkEnded."""
        return await self._link.keepalive()

    @property
    def moving(self) -> bool:
        """True if bytes wait and the peer takes some of them."""
        return not self._over and self._acked is not None and self._idle_checks == 0

    def put(self, messages: Sequence[Sequence[bytes]], lane: Lane = Lane.CONTENT) -> None:
        """Write messages, each given as its chunks, after the messages that already wait in their lane.

        They are written at once if that needs no waiting. After `close` they are dropped.
        """
        if self._over or self._code is not None:
            return
        chunks = [chunk for message in messages for chunk in message]
        size = sum(map(len, chunks))
        if not self._unsent and size <= SHORT and self._link.send_now(chunks):
            return
        (self._control if lane is Lane.CONTROL else self._content).extend(messages)
        self._unsent += size
        self._report_backlog()
        self._monitor.add(self)
        self._wake.set()

    def close(self, code: int, *, within: float = DEFAULT.hang_up / SECOND) -> None:
        """Close the link when all is written, or when the peer takes nothing for `within` seconds.

        A second call changes nothing.
        """
        if self._code is None:
            self._code = code
            self._closing_seconds = within
            self._idle_checks = 0
            self._monitor.add(self)
            self._wake.set()

    def abort(self, code: int) -> None:
        """Close the link at once, with all that is unsent."""
        self._code = code
        self._scope.cancel()

    async def run(self) -> None:
        """Write until the link is closed or ends."""
        try:
            with self._scope:
                await self._write()
        except LinkEnded:
            return  # the reader gets LinkEnded too, and handles it
        finally:
            self._over = True
        if self._code is None:
            log.warning("%s: takes nothing, %d bytes are unsent; hung up", self._link.peer, self._unsent)
            self._code = CloseCode.TRY_AGAIN_LATER
        await self._link.close(self._code)

    def check_progress(self) -> bool:
        """Check whether the peer has taken bytes since the last check; stop writing if it has taken none for too long.

        Returns False once no bytes are left to be taken.
        """
        if self._over:
            return False
        before, self._acked = self._acked, max(self._acked or 0, self._acked_by_peer())
        if before is None or self._acked > before:
            self._idle_checks = 0
        else:
            self._idle_checks += 1
        was_busy, self._was_busy = self._was_busy, self._unsent > 0
        if before is not None and self._idle_checks == 0:
            if was_busy and self._was_busy:  # else the peer took all there was
                self._measure(self._acked - before)
            self._progress()
        # The core also ends stalled links (`Limits.stalled`), but only those whose backlog is reported: no link of a
        # client, and a node's from `high_water` bytes on. Where no ping is possible (JSON in raw frames), shorter
        # backlogs end here only.
        elif self._idle_checks * CHECK_SECONDS >= (
            self._stalled_seconds if self._code is None else self._closing_seconds
        ):
            self._scope.cancel()
        elif not self._unsent and self._code is None and (self._link.written_bytes or 0) <= self._acked:
            self._acked = None
            return False
        return True

    def _measure(self, taken: int) -> None:
        """Adapt the length of a write to what the peer has taken since the last check."""
        latest = taken / CHECK_SECONDS
        self._bandwidth = latest if self._bandwidth is None else (3 * self._bandwidth + latest) / 4
        batch = min(max(SMALLEST_BATCH, int(self._bandwidth * WRITE_SECONDS)), BATCH)
        if batch != self._batch:
            self._batch = batch
            self._link.pace(batch)

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
                self._report_backlog()
            if self._code is not None:
                while self._link.unsent_bytes:  # noqa: ASYNC110  # the process may end once it is closed
                    await anyio.sleep(CHECK_SECONDS / 10)
                return
            self._wake = anyio.Event()

    def _report_backlog(self) -> None:
        multiple = int(self._unsent // self._high_water)
        if multiple != self._reported and (multiple or not self._unsent):
            self._reported = multiple
            self._backlog(self._unsent)

    def _next(self) -> list[bytes]:
        """Return the chunks of the next write: control messages, then content, in whole messages.

        Content goes first once many writes have held none of it.
        """
        batch: list[bytes] = []
        size = 0
        lanes = (self._control, self._content)
        for lane in lanes if self._control_writes < CONTROL_WRITES else lanes[::-1]:
            count = 0
            while count < len(lane) and size < self._batch:
                batch.extend(lane[count])
                size += sum(map(len, lane[count]))
                count += 1
            del lane[:count]
            if lane is self._content:
                self._control_writes = 0 if count or not lane else self._control_writes + 1
        return batch


class ReplySlot:
    """The replacement of a send buffer where one reply is awaited."""

    moving = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._arrived = anyio.Event()

    def put(self, messages: Sequence[Sequence[bytes]], lane: Lane = Lane.CONTENT) -> None:
        """Add the reply, or a part of it."""
        for message in messages:
            self._chunks.extend(message)
        self._arrived.set()

    def close(self, code: int, *, within: float = 0.0) -> None:
        """End the wait: no reply will come."""
        self._arrived.set()

    async def keepalive(self) -> bool:
        """Return False: nothing but the reply comes, and its request has a deadline."""
        return False

    async def answer(self) -> bytes:
        """Wait for the reply. Raises LinkEnded if there is none."""
        await self._arrived.wait()
        if not self._chunks:
            raise LinkEnded("the node is leaving")
        return self._chunks[0]
