"""A network inside one process, in place of the system's: named hosts, links between them, and cuts.

A `MemoryHost` is the `network=` argument of a `Server` or `Client`; its address is `memory://NAME`. Links are those of
`links/memory.py`; the receiving end holds data back while the connection is cut silently. Nothing in it is random, and
the only use of time is the limit on a dial without an answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from mpreg_proto.errors import CloseCode
from mpreg_transports.links import memory
from mpreg_transports.links.base import Buffer, Framing, Link, LinkEnded
from mpreg_transports.runtime.listener import CannotListen, OnHttp, OnLink

SCHEME = "memory://"
DIAL_SECONDS = 3.0
"""The time until a dial over a silently cut connection fails. Reasonable: shorter than the timeout of a test."""


class MemoryNetwork:
    """The hosts by name, and the cuts between them."""

    def __init__(self) -> None:
        self._hosts: dict[str, MemoryHost] = {}
        self._pairs: dict[tuple[str, str], HostPair] = {}

    def host(self, name: str) -> MemoryHost:
        """Return the host of this name. It is created at the first call."""
        if name not in self._hosts:
            self._hosts[name] = MemoryHost(self, name)
        return self._hosts[name]

    def pair(self, one: str, other: str) -> HostPair:
        """Return the connection between two hosts, in any order."""
        key = (one, other) if one < other else (other, one)
        if key not in self._pairs:
            self._pairs[key] = HostPair()
        return self._pairs[key]

    def cut(self, one: str, other: str, *, silent: bool = False) -> None:
        """Break the links between two hosts and refuse dials.

        With `silent` links stay open, and nothing arrives until `heal`.
        """
        self.pair(one, other).set(refused=not silent, silent=silent)

    def heal(self) -> None:
        """Open all connections again; data that was held back arrives."""
        for pair in self._pairs.values():
            pair.set(refused=False, silent=False)


class HostPair:
    """The connection between two hosts: open, `refused`, or `silent`.

    `changed` is set and replaced at every change.
    """

    def __init__(self) -> None:
        self.refused: bool = False
        self.silent: bool = False
        self.ends: dict[InterruptibleLink, None] = {}
        self.changed: anyio.Event = anyio.Event()

    def set(self, *, refused: bool, silent: bool) -> None:
        """Set the state of the connection."""
        self.refused = refused
        self.silent = silent
        if refused:
            for end in list(self.ends):
                end.break_()
        self.wake()

    def wake(self) -> None:
        """Wake all tasks that wait for a change."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class InterruptibleLink(Link):
    """One end of a link between two hosts; a `Link` with framing STREAM."""

    framing = Framing.STREAM

    def __init__(self, inner: memory.MemoryLink, pair: HostPair) -> None:
        self.peer: str = inner.peer
        self._inner = inner
        self._pair = pair
        self.closed: bool = False
        self._buffered: Sequence[bytes | memoryview] = ()
        pair.ends[self] = None

    @property
    def written_bytes(self) -> int:
        """See `MemoryLink.written_bytes`."""
        return self._inner.written_bytes

    @property
    def acked_bytes(self) -> int:
        """See `MemoryLink.acked_bytes`."""
        return self._inner.acked_bytes

    async def receive(self) -> Sequence[bytes | memoryview]:
        """Return one chunk, after the connection is not silent. See `Link.receive`."""
        while True:
            await self._wait_while_silent()
            if self._buffered and not self.closed:
                buffered, self._buffered = self._buffered, ()
                return buffered
            try:
                received = await self._inner.receive()
            except LinkEnded:
                await self._wait_while_silent()
                raise
            if not self._pair.silent:
                return received
            self._buffered = received  # it was cut during the wait, and the next wait may be cancelled

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """See `Link.send`."""
        await self._inner.send(chunks)

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """See `Link.close`."""
        self._forget()
        await self._inner.close(code)

    def break_(self) -> None:
        """Lose the connection at once, at both ends, with all unread data."""
        self._inner.break_()

    def vanish(self) -> None:
        """End the process at this end. The other end is notified unless the connection is silent."""
        self._forget()
        self._inner.break_()

    async def _wait_while_silent(self) -> None:
        """Wait while the connection is silent and this end is open."""
        while self._pair.silent and not self.closed:
            await self._pair.changed.wait()

    def _forget(self) -> None:
        self.closed = True
        self._pair.ends.pop(self, None)
        self._pair.wake()


class MemoryHost:
    """The network access of one process: a `NetworkBackend` (mpreg_transports/runtime/dialing.py)."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.url: str = f"{SCHEME}{name}"
        self._network = network
        self._port: MemoryListener | None = None
        self._ends: dict[InterruptibleLink, None] = {}

    def listen(self) -> MemoryListener:
        """Listen at `url`. Raises CannotListen if another server listens there."""
        if self._port is not None and not self._port.closed:
            raise CannotListen(f"cannot listen on {self.url}: another server does")
        self._port = MemoryListener()
        return self._port

    async def dial(self, address: str) -> InterruptibleLink:
        """Return a link to the host at `address`. Raises LinkEnded."""
        await anyio.lowlevel.checkpoint()
        target = self._network.host(address.removeprefix(SCHEME))
        pair = self._network.pair(self.name, target.name)
        with anyio.move_on_after(DIAL_SECONDS):
            while pair.silent:
                await pair.changed.wait()
        port = target._port
        if pair.silent:
            raise LinkEnded(f"{address} does not answer")
        if pair.refused or port is None or port.closed:
            raise LinkEnded(f"connection to {address} refused")
        here, there = memory.pair(names=(self.name, target.name))
        end = self._end(here, pair)
        port.accept(target._end(there, pair))
        return end

    def clock(self) -> int:
        """Return the time of this process in nanoseconds."""
        return time.monotonic_ns()

    def entropy(self, size: int) -> bytes:
        """Return random bytes of this system."""
        return os.urandom(size)

    def vanish(self) -> None:
        """Kill the process: it receives and sends nothing more, and other hosts lose their links to it."""
        if self._port is not None:
            self._port.closed = True
        ends, self._ends = self._ends, {}
        for end in ends:
            end.vanish()

    def _end(self, inner: memory.MemoryLink, pair: HostPair) -> InterruptibleLink:
        self._ends = {one: None for one in self._ends if not one.closed}
        end = InterruptibleLink(inner, pair)
        self._ends[end] = None
        return end


class MemoryListener:
    """The listener of a server: a `LinkListener` (mpreg_transports/runtime/dialing.py)."""

    def __init__(self) -> None:
        self.closed: bool = False
        self.waiting: list[InterruptibleLink] = []
        self._ended = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._on_link: OnLink | None = None

    def accept(self, end: InterruptibleLink) -> None:
        """Accept a link. Before `serve` it waits."""
        if self._tasks is None:
            self.waiting.append(end)
        else:
            self._tasks.start_soon(self._run, end)

    async def serve(
        self,
        on_link: OnLink,
        on_http: OnHttp,
        *,
        max_message: int,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept links until `close`, then wait for the open ones. A cancellation ends the open ones too."""
        self._on_link = on_link
        async with anyio.create_task_group() as self._tasks:
            while self.waiting:
                self.accept(self.waiting.pop(0))
            task_status.started()
            await self._ended.wait()

    async def close(self) -> None:
        """Accept no more links. Never raises."""
        self.closed = True
        self._ended.set()

    async def _run(self, end: InterruptibleLink) -> None:
        assert self._on_link is not None, "links run once somebody serves"
        try:
            await self._on_link(end)
        finally:
            await end.close()
