"""A network inside one process, in place of the system's: named places, links between them, and ways that can be cut.

A `Place` is what a `Server` or `Client` takes as `network=`; its address is `memory://NAME`. Links are those of
`links/memory.py`, held at the receiving end while their way is cut in silence. There is no chance in it, and no clock
but the bound on a dial that nobody answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from mpreg_transports.links import memory
from mpreg_transports.links.base import Buffer, Framing, LinkEnded
from mpreg_transports.listener import CannotListen, OnHttp, OnLink

SCHEME = "memory://"
DIAL_SECONDS = 3.0
"""How long a dial into a way that is cut in silence takes to fail. Reasonable: shorter than a test's patience."""


class MemoryNetwork:
    """Places by name, and what is cut between them."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._ways: dict[tuple[str, str], Way] = {}

    def place(self, name: str) -> Place:
        """The place of this name; there is one from the first time it is asked for."""
        if name not in self._places:
            self._places[name] = Place(self, name)
        return self._places[name]

    def way(self, one: str, other: str) -> Way:
        """What lies between two places, whichever is named first."""
        key = (one, other) if one < other else (other, one)
        if key not in self._ways:
            self._ways[key] = Way()
        return self._ways[key]

    def cut(self, one: str, other: str, *, silent: bool = False) -> None:
        """Links between them break and dials are refused; with `silent` links stand, and nothing arrives until
        `heal`.
        """
        self.way(one, other).set(refused=not silent, silent=silent)

    def heal(self) -> None:
        """All ways are open again; what was held back arrives."""
        for way in self._ways.values():
            way.set(refused=False, silent=False)


class Way:
    """Between two places: open, `refused`, or `silent`. `changed` is set, and made anew, at every change."""

    def __init__(self) -> None:
        self.refused = False
        self.silent = False
        self.ends: dict[End, None] = {}
        self.changed = anyio.Event()

    def set(self, *, refused: bool, silent: bool) -> None:
        """Be so from now on."""
        self.refused, self.silent = refused, silent
        if refused:
            for end in list(self.ends):
                end.break_()
        self.wake()

    def wake(self) -> None:
        """Have everybody who waits look again."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class End:
    """One end of a link between two places; a `Link` with framing STREAM."""

    framing = Framing.STREAM
    local_host: str | None = None

    def __init__(self, inner: memory.MemoryLink, way: Way) -> None:
        self.peer = inner.peer
        self._inner = inner
        self._way = way
        self.closed = False
        self._held: Sequence[bytes | memoryview] = ()
        way.ends[self] = None

    @property
    def given(self) -> int:
        """See `MemoryLink.given`."""
        return self._inner.given

    @property
    def taken(self) -> int:
        """See `MemoryLink.taken`."""
        return self._inner.taken

    async def receive(self) -> Sequence[bytes | memoryview]:
        """One chunk, once the way is not silent. See `Link.receive`."""
        while True:
            await self._heard()
            if self._held and not self.closed:
                held, self._held = self._held, ()
                return held
            try:
                received = await self._inner.receive()
            except LinkEnded:
                await self._heard()
                raise
            if not self._way.silent:
                return received
            self._held = received  # it was cut while we waited, and waiting on may be cancelled

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """See `Link.send`."""
        await self._inner.send(chunks)

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        """Never: see `Link.send_now`."""
        return False

    async def close(self, code: int = 1000) -> None:
        """See `Link.close`."""
        self._forget()
        await self._inner.close(code)

    def break_(self) -> None:
        """Lose the connection at once, at both ends, with all that is unread."""
        self._inner.break_()

    def vanish(self) -> None:
        """The process at this end is gone: the other end finds out unless its way is silent."""
        self._forget()
        self._inner.break_()

    async def _heard(self) -> None:
        """Wait while the way is silent and this end is open."""
        while self._way.silent and not self.closed:
            await self._way.changed.wait()

    def _forget(self) -> None:
        self.closed = True
        self._way.ends.pop(self, None)
        self._way.wake()


class Place:
    """Where one process is: a `Network` (mpreg_transports/dialing.py)."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.url = f"{SCHEME}{name}"
        self._network = network
        self._port: Port | None = None
        self._ends: dict[End, None] = {}

    def listen(self) -> Port:
        """Be found at `url` from now on. Raises CannotListen if somebody is already."""
        if self._port is not None and not self._port.closed:
            raise CannotListen(f"cannot listen on {self.url}: another server does")
        self._port = Port()
        return self._port

    async def dial(self, address: str) -> End:
        """A link to the place at `address`. Raises LinkEnded."""
        await anyio.lowlevel.checkpoint()
        target = self._network.place(address.removeprefix(SCHEME))
        way = self._network.way(self.name, target.name)
        with anyio.move_on_after(DIAL_SECONDS):
            while way.silent:
                await way.changed.wait()
        port = target._port
        if way.silent:
            raise LinkEnded(f"{address} does not answer")
        if way.refused or port is None or port.closed:
            raise LinkEnded(f"connection to {address} refused")
        here, there = memory.pair(names=(self.name, target.name))
        end = self._end(here, way)
        port.take(target._end(there, way))
        return end

    def vanish(self) -> None:
        """The process is killed: it hears and says nothing any more, and others lose their links to it."""
        if self._port is not None:
            self._port.closed = True
        ends, self._ends = self._ends, {}
        for end in ends:
            end.vanish()

    def _end(self, inner: memory.MemoryLink, way: Way) -> End:
        self._ends = {one: None for one in self._ends if not one.closed}
        end = End(inner, way)
        self._ends[end] = None
        return end


class Port:
    """Where a server takes links: a `Listening` (mpreg_transports/dialing.py)."""

    def __init__(self) -> None:
        self.closed = False
        self.waiting: list[End] = []
        self._ended = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._on_link: OnLink | None = None

    def take(self, end: End) -> None:
        """A link has come; before `serve` it waits."""
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
        """Take links until `close`, then wait for those that are open; cancel it to end them too."""
        self._on_link = on_link
        async with anyio.create_task_group() as self._tasks:
            while self.waiting:
                self.take(self.waiting.pop(0))
            task_status.started()
            await self._ended.wait()

    async def close(self) -> None:
        """Take no more. Never raises."""
        self.closed = True
        self._ended.set()

    async def _run(self, end: End) -> None:
        assert self._on_link is not None, "links run once somebody serves"
        try:
            await self._on_link(end)
        finally:
            await end.close()
