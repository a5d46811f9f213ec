"""Links in memory with the faults of real ones, in virtual time: delay, bandwidth, other chunks, half-open, reset.

A `Wire` carries the bytes of one direction as TCP does: they arrive later, in other pieces, and only as many are on
their way as the window holds. A wire that `stops` keeps all for ever and reports nothing, which makes a link half-open;
one that `pauses` goes on later.

A link is one of the test's own, with its counters of bytes, or one of the package (`tcp`, `websocket`, `http`) over a
`FaultyStream`, which the package's listener accepts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, TaskGroup, TaskStatus

from mpreg_proto.errors import CloseCode
from mpreg_transports.links import websocket
from mpreg_transports.links.base import Buffer, Framing, Link, LinkEnded
from mpreg_transports.links.tcp import TcpLink
from mpreg_transports.runtime import listener as accepting
from mpreg_transports.runtime.listener import CannotListen, OnHttp, OnLink
from tests.adapters.loops import now

SCHEME = "memory://"
TRANSPORTS = ("own", "own", "messages", "tcp", "websocket", "websocket")
"""The transports of the links that servers and native clients dial, drawn for each link."""
APART = "apart"
"""The beginning of the names of hosts whose links no fault hits."""
INSTANT = 1e-9
ACKED = 16_384
"""The bytes that arrive between two reports of the receiving system."""
Trace = Callable[[str], None]
Item = bytes | str


class Quality:
    """The properties of one direction of a link, drawn."""

    def __init__(self, draw: Random, *, calm: bool, slow: bool = False) -> None:
        self.delay = draw.choice((0.0, 0.0002, 0.001, 0.02, 0.15))
        self.jitter = draw.choice((0.0, 0.0005, 0.01))
        self.rate = draw.choice((1e9, 1e9, 1e6) if calm else (1e9, 1e6, 2e5, 2e4))
        if slow:
            self.rate = 2e4
        """Bytes per second."""
        self.chunk = draw.choice((None, None, 5000, 700, 61))
        self.window = draw.choice((1 << 20, 1 << 20, 70_000, 9_000))
        """The bytes that may be on their way; then the sender waits."""
        self.sends_now = draw.random() < 0.6
        """True if short writes are accepted at once."""
        self.closing = draw.choice((0.0, 0.0, 0.05, 1.9))
        """Seconds that `close` takes."""

    def __str__(self) -> str:
        return f"{self.delay:g} s and {self.rate:g} B/s"


class Wire:
    """One direction of a link."""

    def __init__(self, quality: Quality, draw: Random, framing: Framing) -> None:
        self.quality = quality
        self._draw = draw
        self._framing = framing
        self._queue: deque[tuple[float, Item]] = deque()
        self._free_at = 0.0
        self._last_at = 0.0
        self._arrived: deque[tuple[float, int]] = deque()
        """The time at which the other end's system has bytes, and how many; until they are counted."""
        self._taken = 0
        self.acked = 0
        self.written = 0
        self._end: tuple[float, LinkEnded] | None = None
        self._fails_at = 0.0
        """The time from which on a sender gets the reset: it comes after what the other end has sent."""
        self.stopped_at: float | None = None
        self.has_no_reader = False
        self.reverse: Wire
        """The other direction, which carries what the receiving system reports."""
        self._changed = anyio.Event()

    # -- the sending end

    def accepts(self, size: int) -> bool:
        """Return whether so many bytes fit into the window."""
        return self.on_the_way + size <= self.quality.window

    @property
    def on_the_way(self) -> int:
        """The number of bytes that the other end's system has not taken."""
        self.count()
        return self.written - self.acked

    def count(self) -> None:
        """Count the bytes that have arrived: as many as the receiving buffer holds."""
        at = now() + INSTANT
        if self.reverse.stopped_at is not None:
            return
        while self._arrived and self._arrived[0][0] <= at and not self._stopped(self._arrived[0][0]):
            if self.acked + self._arrived[0][1] - self._taken > self.quality.window and self.acked > self._taken:
                break
            self.acked += self._arrived.popleft()[1]

    def put(self, chunks: Sequence[Buffer]) -> None:
        """Send the bytes."""
        for item in self._items(chunks):
            size = len(item)
            self._free_at = max(now(), self._free_at) + size / self.quality.rate
            jitter = self._draw.random() * self.quality.jitter
            self._last_at = max(self._last_at, self._free_at + self.quality.delay + jitter)
            self.written += size
            for start in range(0, size, ACKED):  # the receiving system reports a long chunk bit by bit
                part = min(ACKED, size - start)
                self._arrived.append((self._last_at - (size - start - part) / self.quality.rate, part))
            self._queue.append((self._last_at, item))
        self._wake()

    def _items(self, chunks: Sequence[Buffer]) -> list[Item]:
        if self._framing is Framing.CLASSIC_MESSAGES:
            return [bytes(chunk).decode() for chunk in chunks]
        if self._framing is Framing.NATIVE_MESSAGES:
            return [bytes(chunk) for chunk in chunks]
        data = b"".join(chunks)
        size = self.quality.chunk or ACKED
        if len(data) > 30 * size:
            size = len(data) // 30 + 1
        return [data[start : start + size] for start in range(0, len(data), size)]

    def failure(self) -> LinkEnded | None:
        """Return the error that a sender gets."""
        if self._end is None or self._end[1].clean or self.reverse.stopped_at is not None or now() < self._fails_at:
            return None
        return self._end[1]

    async def wait_for_room(self) -> None:
        """Wait until the window has room. Raises LinkEnded."""
        while self.on_the_way > self.quality.window:
            if (end := self.failure()) is not None:
                raise end.copy()
            await self._wait(self._next_report())

    def _next_report(self) -> float | None:
        """Return the time at which the receiving system takes more, if it does so by itself."""
        at = now()
        return next((due for due, _ in self._arrived if due > at and not self._stopped(due)), None)

    # -- the receiving end

    async def take(self) -> list[Item]:
        """Wait for what arrives next. Raises LinkEnded."""
        await anyio.lowlevel.checkpoint()
        while True:
            if self.has_no_reader:
                raise LinkEnded("closed here", clean=True)
            at = now() + INSTANT
            ended = self._end is not None and self._end[0] <= at and not self._stopped(self._end[0])
            if ended and not self._end[1].clean:  # type: ignore[index]
                self._queue.clear()
            taken: list[Item] = []
            while self._queue and self._queue[0][0] <= at and not self._stopped(self._queue[0][0]):
                taken.append(self._queue.popleft()[1])
                if self._framing is Framing.STREAM:
                    break
            if taken:
                self._taken += sum(map(len, taken))
                self._wake()
                return taken
            if ended and not self._queue:
                assert self._end is not None
                raise self._end[1].copy()
            times = [one for one in (self._queue[0][0] if self._queue else None, self._end and self._end[0]) if one]
            times = [one for one in times if not self._stopped(one) and one > at]
            await self._wait(min(times, default=None))

    # -- both

    def end(self, end: LinkEnded, *, at_once: bool = False) -> None:
        """End it: in order after what is on its way, or by a reset, which overtakes it."""
        if self._end is None or (self._end[1].clean and not end.clean):
            late = self._last_at if end.clean else 0.0
            self._end = (now() if at_once else max(late, now() + self.quality.delay), end)
        if not end.clean and self.reverse.stopped_at is None:
            self.acked, self._taken = self.written, self.written
            self._arrived.clear()
        self._wake()

    def close_reader(self) -> None:
        """Drop all: its reader is gone, and its sender gets a reset."""
        self.has_no_reader = True
        self._queue.clear()
        self._fails_at = self.reverse._last_at
        self.end(LinkEnded("connection reset"), at_once=True)

    def pause(self, seconds: float) -> None:
        """Let nothing arrive for a while; all comes later, in order."""
        self._free_at = max(now(), self._free_at) + seconds
        self._last_at = max(now(), self._last_at) + seconds
        self._queue = deque((at + seconds, item) for at, item in self._queue)
        self._arrived = deque((at + seconds, size) for at, size in self._arrived)
        if self._end is not None and self._end[1].clean:
            self._end = (self._end[0] + seconds, self._end[1])
        self._wake()

    def stop(self) -> None:
        """Let nothing arrive from now on, without a word to either end."""
        if self.stopped_at is None:
            self.stopped_at = now()
            self._wake()

    def _stopped(self, at: float) -> bool:
        return self.stopped_at is not None and at > self.stopped_at

    async def _wait(self, until: float | None) -> None:
        if until is None:
            await self._changed.wait()
        else:
            with anyio.move_on_after(max(INSTANT, until - now())):
                await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class FaultyLink(Link):
    """One end of a link."""

    def __init__(self, network: Network, host: str, incoming: Wire, outgoing: Wire, *, peer: str, framing: Framing):
        self.framing = framing
        self.peer = peer
        self.host = host
        self.incoming = incoming
        self.outgoing = outgoing
        self.other: FaultyLink
        self._network = network
        self.closed = False
        self.sending = self.receiving = False

    @property
    def written_bytes(self) -> int:
        return self.outgoing.written

    @property
    def acked_bytes(self) -> int:
        self.outgoing.count()
        return self.outgoing.acked

    async def receive(self) -> Sequence[bytes | str]:
        if self.receiving:
            self._network.broken_rules.append(f"{self.host} receives twice at once from {self.peer}")
        self.receiving = True
        try:
            if self.closed:
                raise LinkEnded("closed here", clean=True)
            return await self.incoming.take()
        finally:
            self.receiving = False

    async def send(self, chunks: Sequence[Buffer]) -> None:
        if self.sending:
            self._network.broken_rules.append(f"{self.host} sends twice at once to {self.peer}")
        self.sending = True
        try:
            await anyio.lowlevel.checkpoint()
            self._check()
            self._record(chunks)
            self.outgoing.put(chunks)
            self._network.waited += not self.outgoing.accepts(0)
            await self.outgoing.wait_for_room()
        finally:
            self.sending = False

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        if self.sending:
            self._network.broken_rules.append(f"{self.host} sends beside a write to {self.peer}")
        quality = self.outgoing.quality
        fits = quality.sends_now and self.outgoing.accepts(sum(map(len, chunks)))
        if not fits or self.closed or self.outgoing.failure() is not None:
            return False
        self._record(chunks)
        self.outgoing.put(chunks)
        return True

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        if self.closed:
            return
        self.closed = True
        self._network.on_close(self)
        self._network.trace(f"{self.host} closes its link to {self.peer} with {int(code)}")
        self.incoming.close_reader()
        self.outgoing.end(LinkEnded("the other end closed it", clean=True))
        if self.outgoing.quality.closing:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.outgoing.quality.closing)
        self._network.open.pop(self, None)
        self._network.on_closed(self)

    def break_(self) -> None:
        """Lose the connection: both ends get a reset, unless their direction has stopped."""
        for wire in (self.incoming, self.outgoing):
            wire.end(LinkEnded("connection lost"))

    def _check(self) -> None:
        if self.closed:
            raise LinkEnded("closed here", clean=True)
        if (end := self.outgoing.failure()) is not None:
            raise end.copy()

    def _record(self, chunks: Sequence[Buffer]) -> None:
        self._network.sent(self.host, self.peer, b"".join(chunks))


class FaultyStream(ByteStream):
    """An end of a link as the stream of a socket, for the package's own transports."""

    def __init__(self, end: FaultyLink) -> None:
        self.end = end
        self._unread = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            found = self._unread or (await self.end.receive())[0]
        except LinkEnded as ended:
            if self.end.closed:
                raise anyio.ClosedResourceError from None
            raise (anyio.EndOfStream if ended.clean else anyio.BrokenResourceError) from None
        assert isinstance(found, bytes)
        self._unread = found[max_bytes:]
        return found[:max_bytes]

    async def send(self, item: bytes) -> None:
        try:
            await self.end.send([item])
        except LinkEnded:
            raise (anyio.ClosedResourceError if self.end.closed else anyio.BrokenResourceError) from None

    async def send_eof(self) -> None:
        self.end.outgoing.end(LinkEnded("the other end sends no more", clean=True))

    async def aclose(self) -> None:
        await self.end.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The substitute of the socket; see `unacknowledged`."""
        return {SocketAttribute.raw_socket: lambda: self.end}


def unacknowledged(end: FaultyLink | None) -> int:
    """Return the number of bytes that the other end's system has not taken; it replaces tcp's `_unacknowledged`."""
    return 0 if end is None else end.outgoing.on_the_way


class Network:
    """The hosts by name; the links between them are drawn."""

    def __init__(self, draw: Random, trace: Trace, sent: Callable[[str, str, bytes], None], *, calm: bool) -> None:
        self._draw = draw
        self.trace = trace
        self.sent = sent
        self.calm = calm
        self.open: dict[FaultyLink, None] = {}
        """The ends that nobody has closed."""
        self.cut: set[tuple[str, str]] = set()
        """Pairs of hosts between which dials are not answered."""
        self.waited = 0
        """The number of writes that waited for their peer."""
        self.on_dial: Callable[[str, str], None] = lambda source, target: None
        self.on_failed_dial: Callable[[str, str], None] = lambda source, target: None
        self.on_link: Callable[[str, str], None] = lambda source, target: None
        self.on_close: Callable[[FaultyLink], None] = lambda end: None
        self.on_closed: Callable[[FaultyLink], None] = lambda end: None
        self.broken_rules: list[str] = []
        """The uses of links that their contract forbids."""
        self._hosts: dict[str, NetworkHost] = {}

    def host(self, name: str) -> NetworkHost:
        """Return the host of this name; the first call makes it."""
        if name not in self._hosts:
            self._hosts[name] = NetworkHost(self, name, Random(self._draw.random()))
        return self._hosts[name]

    def links(self, *hosts: str) -> list[FaultyLink]:
        """Return the open ends at these hosts; if none is named, all that faults may hit."""
        return [end for end in self.open if (end.host in hosts if hosts else not end.host.startswith(APART))]

    def heal(self) -> None:
        """Answer all dials again. Links that have stopped stay as they are."""
        self.cut.clear()

    async def dial(self, source: NetworkHost, address: str) -> Link:
        """Open a link with a drawn transport. Raises LinkEnded."""
        kind = self._draw.choice(TRANSPORTS)
        if kind in ("tcp", "websocket"):
            stream = await self.open_stream(source, address, kind)
            return TcpLink(stream) if kind == "tcp" else await open_websocket(stream, native=True)
        framing = Framing.NATIVE_MESSAGES if kind == "messages" else Framing.STREAM
        end, far, listener = await self._open(source, address, framing, kind)
        listener.accept(far, far)
        return end

    async def open_stream(self, source: NetworkHost, address: str, kind: str) -> FaultyStream:
        """Open a stream as to the port of a node, whose listener finds out what it carries. Raises LinkEnded."""
        end, far, listener = await self._open(source, address, Framing.STREAM, kind)
        listener.accept(far, FaultyStream(far))
        return FaultyStream(end)

    async def open_classic(self, source: NetworkHost, address: str, *, real: bool) -> Link:
        """Open a link for JSON texts: a real WebSocket, or one of the test's own links. Raises LinkEnded."""
        if real:
            return await open_websocket(await self.open_stream(source, address, "websocket"), native=False)
        end, far, listener = await self._open(source, address, Framing.CLASSIC_MESSAGES, "texts")
        listener.accept(far, far)
        return end

    async def _open(
        self, source: NetworkHost, address: str, framing: Framing, kind: str
    ) -> tuple[FaultyLink, FaultyLink, FaultyListener]:
        target = self.host(address.removeprefix(SCHEME))
        self.on_dial(source.name, target.name)
        try:
            draw = self._draw
            slow = source.slow or target.slow
            there, back = (Quality(draw, calm=self.calm, slow=slow) for _ in range(2))
            if framing is not Framing.STREAM:  # they come whole: on a narrow link nothing would arrive for too long
                there.rate, back.rate = max(1e6, there.rate), max(1e6, back.rate)
            await anyio.sleep(there.delay + back.delay)
            if (min(source.name, target.name), max(source.name, target.name)) in self.cut:
                await anyio.sleep(3.0)
                raise LinkEnded(f"{address} does not answer")
            listener = target.listener
            if listener is None or not listener.listens:
                raise LinkEnded(f"connection to {address} refused")
        except LinkEnded:
            self.on_failed_dial(source.name, target.name)
            raise
        end, far = self.pair(source.name, target.name, framing, there, back)
        self.trace(f"{source.name} has a link to {target.name}: {kind}, {there}, {back}")
        self.on_link(source.name, target.name)
        return end, far, listener

    def pair(
        self, one: str, other: str, framing: Framing, there: Quality, back: Quality
    ) -> tuple[FaultyLink, FaultyLink]:
        """Return the two ends of a new link."""
        out, into = Wire(there, self._draw, framing), Wire(back, self._draw, framing)
        out.reverse, into.reverse = into, out
        end = FaultyLink(self, one, into, out, peer=other, framing=framing)
        far = FaultyLink(self, other, out, into, peer=one, framing=framing)
        end.other, far.other = far, end
        self.open[end] = self.open[far] = None
        return end, far


async def open_websocket(stream: FaultyStream, *, native: bool) -> Link:
    """Run the client's opening handshake as `websocket.connect` does. Raises LinkEnded."""
    subprotocols = (websocket.SUBPROTOCOL,) if native else ()
    try:
        with anyio.fail_after(websocket.HANDSHAKE_SECONDS):
            handshake, chosen = await websocket._shake_hands(stream, "localhost", "/", subprotocols)
    except BaseException as error:
        await stream.aclose()
        if isinstance(error, TimeoutError):
            raise LinkEnded("no answer to the opening handshake") from None
        raise
    return websocket._link(stream, handshake, chosen, received=b"", max_message=websocket.MAX_MESSAGE * 2)


class NetworkHost:
    """The `NetworkBackend` of one process."""

    def __init__(self, network: Network, name: str, draw: Random) -> None:
        self.name = name
        self.url = SCHEME + name
        self.listener: FaultyListener | None = None
        self.slow = False
        """True if all its links are narrow."""
        self._network = network
        self._draw = draw

    def listen(self) -> FaultyListener:
        if self.listener is not None and self.listener.listens:
            raise CannotListen(f"cannot listen on {self.url}: another server does")
        self.listener = FaultyListener()
        return self.listener

    async def dial(self, address: str) -> Link:
        return await self._network.dial(self, address)

    def clock(self) -> int:
        return round(now() * 1e9)

    def entropy(self, size: int) -> bytes:
        return self._draw.randbytes(size)

    def vanish(self, *, silent: bool) -> None:
        """End the process: others get a reset of each link, or nothing at all."""
        if self.listener is not None:
            self.listener.listens = False
        for end in self._network.links(self.name):
            if silent:
                end.outgoing.stop()
                end.incoming.stop()
            else:
                end.break_()


class FaultyListener:
    """The listener of a server: a `LinkListener`."""

    def __init__(self) -> None:
        self.listens = True
        self._waiting: list[tuple[FaultyLink, Link | FaultyStream]] = []
        self._ended = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._on_link: OnLink | None = None
        self._on_http: OnHttp | None = None
        self._max_message = 0

    def accept(self, end: FaultyLink, how: Link | FaultyStream) -> None:
        """Accept a link, or a stream whose content decides."""
        if self._tasks is None:
            self._waiting.append((end, how))
        else:
            self._tasks.start_soon(self._run, end, how)

    async def serve(self, on_link: OnLink, on_http: OnHttp, *, max_message: int, task_status: TaskStatus[None]) -> None:
        self._on_link, self._on_http, self._max_message = on_link, on_http, max_message
        try:
            async with anyio.create_task_group() as self._tasks:
                for end, how in self._waiting:
                    self.accept(end, how)
                task_status.started()
                try:
                    await self._ended.wait()
                finally:  # before the open links have closed
                    self.listens = False
        finally:
            self._tasks = self._on_link = self._on_http = None

    async def close(self) -> None:
        self.listens = False
        if self._tasks is None:
            for end, _ in self._waiting:
                end.break_()
                await end.close()
        self._ended.set()

    async def _run(self, end: FaultyLink, how: Link | FaultyStream) -> None:
        on_link, on_http = self._on_link, self._on_http
        assert on_link is not None and on_http is not None
        try:
            if isinstance(how, FaultyStream):
                await accepting._Connection(how, on_link, on_http, accepting.admit_all, self._max_message).run()
            else:
                await on_link(how)
        finally:
            await end.close()
