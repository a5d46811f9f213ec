"""The cluster of the conformance cases: front, alpha and beta with their resources and functions.

`serving` runs them as three `Server`s on ports that the system chooses, `in_memory` as three `Node`s whose drivers are
joined by memory links that split all data into small chunks. Both yield the cluster once front lists all functions of
the others. The functions are in `OFFERS`, from the table beside the cases; nothing here depends on a case.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import anyio

from mpreg_proto.client import ClientSession, ReplyReceived
from mpreg_proto.effects import Send
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Request, Result
from mpreg_transports import Client, Server
from mpreg_transports.functions.execution import built_in, function
from mpreg_transports.links import memory
from mpreg_transports.links.base import Link
from mpreg_transports.runtime.clock import clock
from mpreg_transports.runtime.driver import Driver
from mpreg_transports.values import default_codec

PATIENCE = 30
"""Seconds until a test that hangs fails. No test waits this long otherwise."""

CHUNK = 1000
"""The chunk size of a memory link in bytes: short enough to split some prefixes and many bodies in two."""


class Offer(NamedTuple):
    """One function that one node offers besides echo and echos."""

    node: str
    name: str
    call: Callable[..., Any]
    resources: frozenset[str] = frozenset()


def add(x: Any, y: Any) -> Any:
    """Return x + y."""
    return x + y


def fail(text: str) -> None:
    """Raise ValueError."""
    raise ValueError(text)


async def sleep(seconds: float) -> None:
    """Sleep, then return."""
    await anyio.sleep(seconds)


RESOURCES = {"front": (), "alpha": ("red", "round"), "beta": ("blue",)}
OFFERS = (
    Offer("alpha", "where", lambda: "alpha"),
    Offer("alpha", "add", add),
    Offer("alpha", "fail", fail),
    Offer("alpha", "sleep", sleep),
    Offer("beta", "where", lambda: "beta"),
    Offer("beta", "add", add),
    Offer("beta", "tagged", lambda: "beta", frozenset({"tag"})),
)

_NO_ARGUMENTS = default_codec().encode([[], {}])
EVERYTHING_THERE = Request(
    0,
    tuple(
        Call(f"{offer.name} at {offer.node}", offer.name, _NO_ARGUMENTS, (), (*RESOURCES[offer.node], *offer.resources))
        for offer in OFFERS
        if offer.name not in ("fail", "sleep", "add")
    )
    # These expect arguments. A call without any fails, but only once the function can be called, which is enough.
    + tuple(
        Call(f"{offer.name} at {offer.node}", offer.name, _NO_ARGUMENTS, (), RESOURCES[offer.node])
        for offer in OFFERS
        if offer.name in ("fail", "sleep", "add")
    ),
    wait=PATIENCE * SECOND,
    partial=True,
)
"""A request that is answered as soon as every function of every node can be called."""


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Yield the node front as a server; the other two have it as peer."""
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(Server(name="front", port=0))
        for name in ("alpha", "beta"):
            server = Server(name=name, port=0, resources=RESOURCES[name], peers=[front.url])
            for offer in OFFERS:
                if offer.node == name:
                    server.register(offer.name, offer.call, resources=offer.resources)
            await stack.enter_async_context(server)
        with anyio.fail_after(PATIENCE):
            async with Client(f"tcp://127.0.0.1:{front.port}") as client:
                answer = await client.answer(EVERYTHING_THERE)
        assert not any(error.code == 1001 for error in answer.errors.values()), answer
        yield front


class InMemory:
    """Three nodes in one process; `connect` returns a link to front, as for a client."""

    def __init__(self) -> None:
        self._drivers: dict[str, Driver] = {}
        self._tasks = anyio.create_task_group()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[InMemory]:
        """Run the nodes in this block."""
        async with self._tasks:
            for name, resources in RESOURCES.items():
                self._drivers[name] = self._driver(name, resources)
                await self._tasks.start(self._drivers[name].run)
            try:
                yield self
            finally:
                self._tasks.cancel_scope.cancel()

    def connect(self, node: str = "front") -> Link:
        """Return the near end of a new link to `node`."""
        mine, theirs = memory.pair(chunk=CHUNK, names=("caller", node))
        self._tasks.start_soon(self._drivers[node].pump, theirs)
        return mine

    def _driver(self, name: str, resources: tuple[str, ...]) -> Driver:
        functions = {one.spec.name: one for one in built_in()}
        for offer in OFFERS:
            if offer.node == name:
                functions[offer.name] = function(offer.call, name=offer.name, resources=offer.resources)
        node = Node(
            NodeConfig(
                name=name,
                addresses=(Address(name),),
                seeds=() if name == "front" else (Address("front"),),
                resources=resources,
            ),
            me=MemberId(name.encode().ljust(16)),
            rng=Rng(1),
            entropy=os.urandom,
            now=clock(),
            codec=default_codec(),
        )
        for one in functions.values():
            node.offer(one.spec, now=clock())
        return Driver(node, functions=functions, dial=self._dial, observe=lambda notice: None)

    async def _dial(self, address: Address) -> Link:
        return self.connect(address)


class Caller:
    """A pure `ClientSession` on one link, driven by a minimal loop: one request at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._session = ClientSession(codec=default_codec())
        self._replies: dict[int, Result] = {}
        self._session.link_opened(LinkId(1), framing=link.framing, address=Address("front"), now=clock())

    async def ask(self, request: Request) -> Result:
        """Return the answer to `request`."""
        number = self._session.submit(request, now=clock())
        await self._flush()
        while number not in self._replies:
            for data in await self._link.receive():
                self._session.receive(LinkId(1), data, now=clock())
            await self._flush()
        return self._replies.pop(number)

    async def _flush(self) -> None:
        for effect in self._session.drain():
            if isinstance(effect, Send):
                await self._link.send(effect.chunks)
            elif isinstance(effect, ReplyReceived):
                assert isinstance(effect.reply, Result)
                self._replies[effect.id] = effect.reply


@asynccontextmanager
async def in_memory() -> AsyncIterator[InMemory]:
    """Yield the cluster without a socket."""
    async with InMemory().running() as cluster:
        with anyio.fail_after(PATIENCE):
            result = await Caller(cluster.connect()).ask(EVERYTHING_THERE)
        assert not any(row.fault.code == 1001 for row in result.failed), result
        yield cluster
