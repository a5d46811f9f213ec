"""The links of one core: what each link reads goes into the core, and what the core sends is written to the links.

A `Driver` has one link loop for its node, and a client's connection has one for its session. Each link has one reader,
`run`, and one writer beside it. All messages of one wake-up for one link go out in one write.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import inf
from typing import Protocol

import anyio

from mpreg_proto.effects import Framing, HangUp, KeepAlive, Lane, Pause, Resume, Send
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime import logs
from mpreg_transports.runtime.send_buffer import ProgressMonitor, ReplySlot, SendBuffer
from mpreg_transports.runtime.slices import Slicer

log: logs.NodeLog = logs.get(__name__)


class Core(Protocol):
    """The common interface of `Node` and `ClientSession`, which document it."""

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None: ...
    def progress(self, link: LinkId, *, now: int) -> None: ...
    def link_closed(self, link: LinkId, *, now: int) -> None: ...


class LinkLoop:
    """Reads and writes the links of `core`. `flush` carries out the effects of the core; `spawn` starts a task."""

    def __init__(
        self,
        core: Core,
        *,
        flush: Callable[[], None],
        spawn: Callable[[Callable[[], Coroutine[object, object, None]]], object],
        clock: Callable[[], int],
    ) -> None:
        self._core = core
        self._flush = flush
        self._clock = clock
        self._spawn = spawn
        self._monitor = ProgressMonitor(spawn)
        self._buffers: dict[LinkId, SendBuffer | ReplySlot] = {}
        self._paused: dict[LinkId, anyio.Event] = {}
        self._writes: dict[tuple[LinkId, Lane], list[tuple[bytes, ...]]] = {}
        self._closing: list[HangUp] = []
        self._last = 0

    def __len__(self) -> int:
        return len(self._buffers)

    @property
    def moving(self) -> bool:
        """True if unsent bytes wait on a link and its peer takes some of them."""
        return any(send_buffer.moving for send_buffer in self._buffers.values())

    def start(self, *, idle: bool = True) -> None:
        """Start the task that checks what peers have taken; `spawn` must be able to start tasks from now on.

        `idle=False` delays the task until bytes wait.
        """
        self._monitor.start(idle=idle)

    # -- links --------------------------------------------------------------------------------------------------------

    def attach(
        self,
        transport: Link,
        *,
        high_water: float = inf,
        stalled: float = DEFAULT.stalled / SECOND,
        backlog: Callable[[LinkId, int], None] = lambda *_: None,
    ) -> LinkId:
        """Give a link its number. It may be written to from now on; `run` must follow.

        `backlog` is called with the number of unsent bytes whenever it has passed a multiple of `high_water`, and with
        0 when all have been written. The link ends if its peer takes no unsent byte for `stalled` seconds.
        """
        link = self._next()

        def report_progress() -> None:
            self._core.progress(link, now=self._clock())

        transport.on_partial = report_progress
        self._buffers[link] = SendBuffer(
            transport,
            monitor=self._monitor,
            high_water=high_water,
            stalled=stalled,
            backlog=lambda unsent: backlog(link, unsent),
            progress=report_progress,
        )
        return link

    async def run(
        self, link: LinkId, transport: Link, *, begin: Callable[[], None], end: Callable[[], None] = lambda: None
    ) -> LinkEnded:
        """Read an attached link until it ends, and return its end; its writer runs beside.

        `begin` reports the opened link to the core. `end` is called after the core was notified of its end.
        """
        core, clock = self._core, self._clock
        writer = self._buffers[link]
        assert isinstance(writer, SendBuffer), "a reply slot has no link"
        slicer = Slicer(lambda data, now: core.receive(link, data, now=now), self._flush, clock)
        stream = transport.framing is Framing.STREAM
        ended = LinkEnded("cancelled")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writer.run)
                begin()
                self._flush()
                try:
                    while True:
                        while (paused := self._paused.get(link)) is not None:
                            await paused.wait()
                        await slicer.feed(await transport.receive(), stream=stream)
                except LinkEnded as raised:
                    ended = raised.copy()
                tasks.cancel_scope.cancel()
        finally:
            try:
                self.end(link)
            finally:
                end()
                log.debug("%s: %s", transport.peer, ended.reason)
                with anyio.CancelScope(shield=True):
                    await transport.close()
        return ended

    def open_slot(self) -> tuple[LinkId, ReplySlot]:
        """Open a link without a transport, over which one reply is awaited; `end` must follow."""
        link = self._next()
        slot = self._buffers[link] = ReplySlot()
        return link, slot

    def end_slots(self) -> None:
        """End the wait for all replies of `open_slot`: the core has ended."""
        for slot in self._buffers.values():
            if isinstance(slot, ReplySlot):
                slot.close(CloseCode.GOING_AWAY)

    def end(self, link: LinkId) -> None:
        """Report the end of an opened link to the core, once. Its transport closes when the task of `run` ends."""
        if self._buffers.pop(link, None) is None:
            return
        self._paused.pop(link, None)
        self._core.link_closed(link, now=self._clock())
        self._flush()

    def _next(self) -> LinkId:
        self._last += 1
        return LinkId(self._last)

    # -- effects ------------------------------------------------------------------------------------------------------

    def apply(self, effect: Send | HangUp | KeepAlive | Pause | Resume) -> None:
        """Carry out an effect of the core on a link. Writes and hang-ups wait for `write`."""
        match effect:
            case Send(link, chunks, _, lane):
                self._writes.setdefault((link, lane), []).append(chunks)
            case HangUp():
                self._closing.append(effect)
            case KeepAlive(link):
                self._spawn(partial(self._ask_for_life, link))
            case Pause(link):
                self._paused.setdefault(link, anyio.Event())
            case Resume(link):
                if (paused := self._paused.pop(link, None)) is not None:
                    paused.set()

    def write(self) -> None:
        """Write what was sent since the last call, all bytes of one link together; then hang up. Never waits."""
        writes, self._writes = self._writes, {}
        closing, self._closing = self._closing, []
        for (link, lane), messages in writes.items():
            self._put(link, messages, lane)
        for hang_up in closing:
            if (send_buffer := self._buffers.get(hang_up.link)) is not None:
                send_buffer.close(hang_up.code, within=hang_up.within / 1e9)

    def _put(self, link: LinkId, messages: list[tuple[bytes, ...]], lane: Lane) -> None:
        send_buffer = self._buffers.get(link)
        if send_buffer is None:
            return
        try:
            send_buffer.put(messages, lane)
        except Exception:  # it ends this link, not the others
            log.exception("a defect while writing to a link, which ends")
            send_buffer.close(CloseCode.INTERNAL_ERROR, within=0)

    async def _ask_for_life(self, link: LinkId) -> None:
        """Send a ping over a link, whose answer is reported as progress; a link that has no ping counts as alive."""
        send_buffer = self._buffers.get(link)
        if send_buffer is None:
            return
        try:
            with suppress(LinkEnded):
                if not await send_buffer.keepalive() and link in self._buffers:
                    self._core.progress(link, now=self._clock())
        except Exception:  # it ends this link, not the others
            log.exception("a defect while asking a link for a sign of life, which ends")
            send_buffer.close(CloseCode.INTERNAL_ERROR, within=0)
