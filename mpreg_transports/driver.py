"""The loop that carries a node's effects out: links, timers, functions.

It is the loop of docs/howto/embed.md on anyio: inputs go into the `Node`, and before anything is awaited its effects
are carried out, so there are no locks and no half states. One reader and one writer task a link, no task a message; all
that one wake-up wants to say over a link leaves in one write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import assert_never

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mpreg_proto.effects import Cancel, Dial, Framing, HangUp, Notify, Pause, Raised, Resume, Run, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.node import Node
from mpreg_proto.notices import Notice
from mpreg_transports.functions import Function, Way
from mpreg_transports.links.base import Link, LinkEnded

log = logging.getLogger(__name__)

clock = time.monotonic_ns

LONG = 100_000_000
"""Nanoseconds for which a function may hold the loop without being told of."""

_SHORT = 64 * 1024
"""Bytes up to which a write is tried at once; a longer one is left to the writer, which knows how to wait."""


async def leave_group(stack: AsyncExitStack, error: BaseException | None) -> None:
    """Wait for the background tasks in `stack`, without letting their group wrap the body's own `error` into another.

    Only a cancellation is shown to the group, as it may be the group's own.
    """
    cancelled = anyio.get_cancelled_exc_class()
    theirs = isinstance(error, cancelled) or (isinstance(error, BaseExceptionGroup) and error.subgroup(cancelled))
    if error is None or not theirs:
        await stack.aclose()
    else:
        await stack.__aexit__(type(error), error, error.__traceback__)


class Outbox:
    """What is to be written to one link. `put` never waits; one writer task empties it in as few writes as can be."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._chunks: list[bytes] = []
        self._code: int | None = None
        self._writing = False
        self._wake = anyio.Event()

    def put(self, chunks: list[bytes]) -> None:
        """Write these after what is there: at once if that can be done without waiting."""
        if not self._writing and not self._chunks and sum(map(len, chunks)) <= _SHORT and self._link.send_now(chunks):
            return
        self._chunks.extend(chunks)
        self._wake.set()

    def close(self, code: int) -> None:
        """Close the link when all is written."""
        self._code = code
        self._wake.set()

    async def run(self) -> None:
        """Write until the link is closed or ends."""
        try:
            while True:
                await self._wake.wait()
                self._writing = True
                while self._chunks:
                    chunks, self._chunks = self._chunks, []
                    await self._link.send(chunks)
                self._writing = False
                if self._code is not None:
                    await self._link.close(self._code)
                    return
                self._wake = anyio.Event()
        except LinkEnded:
            return  # the reader is told so too, and says what follows


class _Mailbox:
    """Stands in for an outbox where one answer is awaited."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._there = anyio.Event()

    def put(self, chunks: list[bytes]) -> None:
        self._chunks.extend(chunks)
        self._there.set()

    def close(self, code: int) -> None:
        self._there.set()

    async def answer(self) -> bytes:
        await self._there.wait()
        if not self._chunks:
            raise LinkEnded("the node is leaving")
        return self._chunks[0]


class Driver:
    """Runs one `Node`. `dial` opens a link to an address or raises LinkEnded; `observe` is told each notice."""

    def __init__(
        self,
        node: Node,
        *,
        functions: dict[str, Function],
        dial: Callable[[Address], Awaitable[Link]],
        observe: Callable[[Notice], None],
    ) -> None:
        self.node = node
        self._functions = functions
        self._dial_link = dial
        self._observe = observe
        self._links: dict[LinkId, Outbox | _Mailbox] = {}
        self._running: dict[int, tuple[Function, anyio.CancelScope]] = {}
        self._last_link = 0
        self._due: int | None = None
        self._wakeup = anyio.Event()
        self._tasks: TaskGroup | None = None
        self.ended = anyio.Event()
        """Set when the node has left and its links are closed."""
        self._over = False
        self.on_local_host: Callable[[str], None] | None = None
        """Told this machine's address on each new link."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Drive until the node has left and its links are closed, or the caller cancels."""
        async with anyio.create_task_group() as self._tasks:
            try:
                self.flush()
                task_status.started()
                while not (self.node.left and not self._links):
                    self._due = self.node.next_timeout()
                    await self._sleep()
                    self.node.wake(now=clock())
                    self.flush()
            finally:
                self._over = True
            self._tasks.cancel_scope.cancel()  # threads that cannot be interrupted are not waited for
        self.ended.set()

    def flush(self) -> None:
        """Carry out all that the node wants. Never awaits."""
        writes: dict[LinkId, list[bytes]] = {}
        closing: list[HangUp] = []
        while effects := self.node.drain():
            for effect in effects:
                match effect:
                    case Send(link, chunks):
                        writes.setdefault(link, []).extend(chunks)
                    case Run():
                        self._run(effect)
                    case Notify(notice):
                        self._observe(notice)
                    case Dial(address):
                        self._spawn(self._dial, address)
                    case HangUp():
                        closing.append(effect)
                    case Cancel(run):
                        self._cancel(run)
                    case Pause() | Resume():
                        pass  # never wanted yet: overload comes with its issue
                    case _:
                        assert_never(effect)
        for link, pieces in writes.items():
            if (outbox := self._links.get(link)) is not None:
                outbox.put(pieces)
        for hang_up in closing:
            if (outbox := self._links.get(hang_up.link)) is not None:
                outbox.close(hang_up.code)
        if self.node.next_timeout() != self._due or self.node.left:
            self._wakeup.set()

    async def pump(self, transport: Link, dialled: Address | None = None) -> None:
        """Be the link's reader until it ends; its writer runs beside."""
        self._last_link += 1
        link = LinkId(self._last_link)
        outbox = self._links[link] = Outbox(transport)
        node = self.node
        why = "cancelled"
        if self.on_local_host is not None and transport.local_host is not None:
            self.on_local_host(transport.local_host)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outbox.run)
                node.link_opened(link, framing=transport.framing, dialled=dialled, now=clock())
                self.flush()
                try:
                    while True:
                        items = await transport.receive()
                        now = clock()
                        for data in items:
                            node.receive(link, data, now=now)
                        self.flush()
                except LinkEnded as end:
                    why = end.reason
                tasks.cancel_scope.cancel()
        finally:
            del self._links[link]
            node.link_closed(link, now=clock())
            self.flush()
            self._wakeup.set()
            log.debug("%s: %s", transport.peer, why)
            with anyio.CancelScope(shield=True):
                await transport.close()

    async def exchange(self, body: bytes) -> bytes:
        """The answer to one classic message, as if it had come over a link of its own (`POST /rpc`)."""
        self._last_link += 1
        link = LinkId(self._last_link)
        mailbox = self._links[link] = _Mailbox()
        try:
            self.node.link_opened(link, framing=Framing.CLASSIC_MESSAGES, dialled=None, now=clock())
            self.node.receive(link, body, now=clock())
            self.flush()
            return await mailbox.answer()
        finally:
            del self._links[link]
            self.node.link_closed(link, now=clock())
            self.flush()

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _sleep(self) -> None:
        """Until the node's next deadline, or until that has changed."""
        if self._due is None:
            await self._wakeup.wait()
        else:
            with anyio.move_on_after(max(0, self._due - clock()) / 1e9):
                await self._wakeup.wait()
        self._wakeup = anyio.Event()

    def _spawn(self, start: Callable[..., Coroutine[object, object, None]], *args: object) -> None:
        assert self._tasks is not None, "effects are carried out once run() is running"
        if not self._over:  # when all is cancelled, links may end after `run`, and the node would dial again
            self._tasks.start_soon(start, *args)

    async def _dial(self, address: Address) -> None:
        try:
            transport = await self._dial_link(address)
        except LinkEnded as end:
            log.debug("%s: %s", address, end.reason)
            self.node.dial_failed(address, now=clock())
            self.flush()
        else:
            await self.pump(transport, address)

    def _run(self, run: Run) -> None:
        function = self._functions.get(run.function)
        if function is None:
            self.node.finished(run.run, Raised("LookupError", "it was withdrawn just now"), now=clock())
        elif function.way is Way.INLINE:
            began = clock()
            outcome = function.run_inline(run)
            ended = clock()
            self.node.finished(run.run, outcome, now=ended, began=began)
            if ended - began > LONG:
                took = (ended - began) / 1e6
                log.warning("%s held the loop for %.0f ms; without inline=True it has a thread", run.function, took)
        else:
            scope = anyio.CancelScope()  # exists before any Cancel
            self._running[run.run] = (function, scope)
            self._spawn(self._execute, function, run, scope)

    async def _execute(self, function: Function, run: Run, scope: anyio.CancelScope) -> None:
        began = clock()
        outcome = await function.run(run, scope)
        del self._running[run.run]
        self.node.finished(run.run, outcome, now=clock(), began=began)
        self.flush()

    def _cancel(self, run: int) -> None:
        running = self._running.get(run)
        if running is not None and running[0].way is Way.LOOP:  # a thread goes on: its slot stays taken
            running[1].cancel()
