"""The floor as a subject: three bare nodes in processes of their own, and a client of callbacks in this one.

Requests go over one connection to node a, which forwards, coordinates and joins. This is the least cost with CPython's
asyncio and MessagePack, and all other subjects are compared with it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.benchmarks import rows
from tests.benchmarks.children import Child
from tests.benchmarks.floor_link import FloorLink
from tests.benchmarks.subjects import Stopwatch, Tally, in_flight

NODE = "tests.benchmarks.floor_nodes"
CHAIN = [[name, [] if at else [rows.SMALL], [at - 1] if at else []] for at, name in enumerate(rows.CHAIN)]
FAN = [*([name, [rows.SMALL], []] for name in rows.FAN), ["echos", [], list(range(len(rows.FAN)))]]
MOVE = [["make_b", [rows.BIG], []], ["measure_c", [], [0]]]


def _nobody(link: FloorLink, number: int, function: str, args: list[Any]) -> None:
    raise RuntimeError(f"a node asked the client for {function}")


class CallbackFloor:
    """Satisfies `subjects.Subject` with the least work: even the caller's side has no coroutines."""

    name = "callbacks"
    options: Sequence[str] = ()
    """Further options of each node's command line, besides its name and peers."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._link: FloorLink | None = None

    @property
    def processes(self) -> Sequence[int]:
        """The process ids of the three nodes."""
        return [child.pid for child in self._children]

    async def start(self) -> None:
        """Start b and c, then a with links to them, then connect to a."""
        peers: list[str] = []
        port = ""
        for name in reversed(rows.NODES):
            child = await Child.start(NODE, name, *self.options, *peers)
            self._children.append(child)
            port = child.line.removeprefix("ready ")
            peers += ["--peer", f"{name}:{port}"]
        loop = asyncio.get_running_loop()
        _, self._link = await loop.create_connection(lambda: FloorLink(_nobody, []), "127.0.0.1", int(port))

    async def stop(self) -> None:
        """Close the connection and end the nodes."""
        if self._link is not None:
            self._link.on_loss = lambda: None
            self._link.close()
        for child in self._children:
            await child.stop()

    @property
    def link(self) -> FloorLink:
        """The connection to node a."""
        assert self._link is not None, "started first"
        return self._link

    async def drive(self, function: str, args: list[Any], width: int, seconds: float) -> Tally:
        """Keep `width` calls in flight, each made by the callback of the one before it.

        Raises:
            ConnectionError: The node closed the connection, which it does when a function raises.
        """
        link = self.link
        done: asyncio.Future[Tally] = asyncio.get_running_loop().create_future()
        watch = Stopwatch(seconds)
        ended = 0

        def answered(result: object) -> None:
            nonlocal ended
            if watch.more():
                link.call(function, args, answered)
                return
            ended += 1
            if ended == width:
                done.set_result(watch.tally(result))

        def lost() -> None:
            if not done.done():
                done.set_exception(ConnectionError("the floor's node a hung up"))

        link.on_loss = lost
        for _ in range(width):
            link.call(function, args, answered)
        link.flush_all()
        return await done

    async def echo(self, seconds: float) -> Tally:
        """`rows.ROWS` describes each measure."""
        return await self.drive("echo", [rows.SMALL], 1, seconds)

    async def echo_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("echo", [rows.SMALL], rows.IN_FLIGHT, seconds)

    async def echo_1mib(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("echo", [rows.MIB], 1, seconds)

    async def routed(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("echo_b", [rows.SMALL], 1, seconds)

    async def routed_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("echo_b", [rows.SMALL], rows.IN_FLIGHT, seconds)

    async def chain(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("graph", CHAIN, 1, seconds)

    async def chain_16(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("graph", CHAIN, rows.GRAPHS_IN_FLIGHT, seconds)

    async def fan(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("graph", FAN, 1, seconds)

    async def fan_16(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("graph", FAN, rows.GRAPHS_IN_FLIGHT, seconds)

    echo_def = echo_async = echo
    fan_def = fan_async = fan
    """The floor has one kind of function: a call in the event loop."""

    async def move_16mib(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.drive("graph", MOVE, 1, seconds)


class Floor(CallbackFloor):
    """The same nodes; for 64 calls in flight, 64 tasks of the client each await one, as programs of users do.

    The floor of the goals made 121,000 and 76,000 calls/s in these two rows, and this client is near that. A client of
    bare callbacks makes more than twice as many (`--subject callbacks`), but no user can have one.
    """

    name = "floor"

    async def awaited(self, function: str, args: list[Any], width: int, seconds: float) -> Tally:
        """Keep `width` calls in flight, each a future that a task awaits; the harness detects a lost connection."""
        loop = asyncio.get_running_loop()
        link = self.link

        async def operation() -> object:
            future: asyncio.Future[Any] = loop.create_future()
            link.call(function, args, future.set_result)
            link.flush_all()
            return await future

        return await in_flight(operation, width, seconds)

    async def echo_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.awaited("echo", [rows.SMALL], rows.IN_FLIGHT, seconds)

    async def routed_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await self.awaited("echo_b", [rows.SMALL], rows.IN_FLIGHT, seconds)


class SteadyFloor(Floor):
    """The same nodes with an allocator that keeps freed memory: see `floor_nodes.STEADYING`."""

    name = "steady"
    options = ("--steady",)
