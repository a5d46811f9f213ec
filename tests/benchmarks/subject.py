"""mpreg as a subject: three nodes in processes of their own, and an ordinary `Client` in this one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from mpreg_transports import Client, Graph
from mpreg_transports.security.secret import Secret, new_secret
from tests.benchmarks import rows
from tests.benchmarks.children import Child
from tests.benchmarks.rows import Transport
from tests.benchmarks.subjects import Tally, in_flight, one_at_a_time

NODE = "tests.benchmarks.mpreg_nodes"
_EVERY_FUNCTION = [
    one.format(name)
    for one in ("echo_{}", "echo_{}_def", "echo_{}_async", "make_{}", "measure_{}", "cpu_{}")
    for name in rows.NODES
]


class Mpreg:
    """Satisfies `subjects.Subject`."""

    def __init__(self, transport: Transport, *, secret: Secret | None = None) -> None:
        self.name = "mpreg" if secret is None else "mpreg tls"
        self._transport = transport
        self._secret = secret
        self._children: list[Child] = []
        self._client: Client | None = None

    @property
    def processes(self) -> Sequence[int]:
        """The process ids of the three nodes."""
        return [child.pid for child in self._children]

    @property
    def client(self) -> Client:
        """The connection to node a."""
        assert self._client is not None, "started first"
        return self._client

    async def start(self) -> None:
        """Start the nodes, each with the ones before as peers, connect to a, and wait until a lists every function."""
        peers: list[str] = []
        url = ""
        for name in reversed(rows.NODES):
            options = ["--websocket"] if self._transport is Transport.WS else []
            if self._secret is not None:
                options += ["--secret", self._secret.reveal()]
            for peer in peers:
                options += ["--peer", peer]
            child = await Child.start(NODE, name, *options)
            self._children.append(child)
            url = child.line.removeprefix("ready ")
            peers.append(url)
        if self._transport is Transport.TCP:
            url = url.replace("wss://", "tls://").replace("ws://", "tcp://")
        client = Client(url, secret=self._secret)
        self._client = await client.__aenter__()
        async with asyncio.timeout(20):
            while True:
                view = await client.view()
                offered = {row.function for row in view.functions}
                linked = all(row.linked for row in view.members if not row.me) and len(view.members) == len(rows.NODES)
                if linked and offered.issuperset(_EVERY_FUNCTION):
                    return
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close the client and end the nodes."""
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
        for child in self._children:
            await child.stop()

    def call(self, function: str, *args: Any) -> Callable[[], Awaitable[object]]:
        """Return an operation that calls the function."""
        client = self.client
        return lambda: client.call(function, *args)

    def _run(self, build: Callable[[Graph], object]) -> Callable[[], Awaitable[object]]:
        """Return an operation that builds and runs a new graph each time, as a program does."""
        client = self.client

        async def operation() -> object:
            graph = client.graph()
            return await graph.run(build(graph))  # type: ignore[arg-type]  # the last handle

        return operation

    @staticmethod
    def _chain(graph: Graph) -> object:
        handle: object = rows.SMALL
        for function in rows.CHAIN:
            handle = graph.call(function, handle)
        return handle

    @staticmethod
    def _fan(graph: Graph, kind: str = "") -> object:
        return graph.call("echos", *[graph.call(function + kind, rows.SMALL) for function in rows.FAN])

    @staticmethod
    def _move(graph: Graph) -> object:
        return graph.call("measure_c", graph.call("make_b", rows.BIG))

    async def echo(self, seconds: float) -> Tally:
        """`rows.ROWS` describes each measure. `echo_a`, because plain `echo` would be drawn among three equal nodes."""
        return await one_at_a_time(self.call("echo_a", rows.SMALL), seconds)

    async def echo_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await in_flight(self.call("echo_a", rows.SMALL), rows.IN_FLIGHT, seconds)

    async def echo_1mib(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self.call("echo_a", rows.MIB), seconds)

    async def routed(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self.call("echo_b", rows.SMALL), seconds)

    async def routed_64(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await in_flight(self.call("echo_b", rows.SMALL), rows.IN_FLIGHT, seconds)

    async def chain(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self._run(self._chain), seconds)

    async def chain_16(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await in_flight(self._run(self._chain), rows.GRAPHS_IN_FLIGHT, seconds)

    async def fan(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self._run(self._fan), seconds)

    async def fan_16(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await in_flight(self._run(self._fan), rows.GRAPHS_IN_FLIGHT, seconds)

    async def echo_def(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self.call("echo_a_def", rows.SMALL), seconds)

    async def echo_async(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self.call("echo_a_async", rows.SMALL), seconds)

    async def fan_def(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self._run(partial(self._fan, kind="_def")), seconds)

    async def fan_async(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self._run(partial(self._fan, kind="_async")), seconds)

    async def move_16mib(self, seconds: float) -> Tally:
        """See `rows.ROWS`."""
        return await one_at_a_time(self._run(self._move), seconds)


def subject(transport: Transport) -> Mpreg:
    """Return mpreg's client and nodes over that transport."""
    return Mpreg(transport)


def secured(transport: Transport) -> Mpreg:
    """Return the same with a secret, so in TLS."""
    return Mpreg(transport, secret=new_secret())
