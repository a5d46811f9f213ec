"""A real cluster inside one process: `Server`s and `Client`s, real functions, real time, no sockets.

    async with memory_cluster({"front": Spec(), "stock": Spec(functions={"take": take})}) as cluster:
        async with cluster.client("front") as client:
            await client.call("take", 3)
            await cluster.kill("stock")

The network between them is `network.py`'s: connections can be cut, nodes killed and started again. Works on asyncio and
trio. For randomness, virtual time and faults in the middle of a message use `Simulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mpreg_transports.background import is_cancellation
from mpreg_transports.client import Client
from mpreg_transports.server import Server
from mpreg_transports.testing.memory.network import SCHEME, MemoryNetwork
from mpreg_transports.testing.simulation.checks import (
    check_callable,
    check_host,
    check_known,
    check_nodes,
    check_number,
)
from mpreg_transports.testing.simulation.functions import Fn, functions_of
from mpreg_transports.testing.simulation.hosts import Spec

PATIENCE = 10.0
"""The default timeout in seconds of `agreed` and `until`. Reasonable: ten times what a busy machine needs."""
BUILT_IN = ("echo", "echos")
"""The functions that every server offers."""
_LOOK_EVERY = 0.005
_GOODBYE = 5.0


class _Life:
    """One run of a server, from start to end."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class MemoryCluster:
    """The nodes by name; made by `memory_cluster`.

    Use it as `async with`: inside it all nodes run and know each other.
    """

    def __init__(self, nodes: Mapping[str, Spec | Server]) -> None:
        check_nodes(nodes, (Spec, Server))
        self.network: MemoryNetwork = MemoryNetwork()
        self.servers: dict[str, Server] = {}
        """All servers, running or not."""
        self._borrowed: list[tuple[Server, tuple[str, ...]]] = []
        self._factories: dict[str, Callable[[], Mapping[str, Any]]] = {}
        """The factories that make the functions of each further life."""
        self._clients: list[str] = []
        self._lives: dict[str, _Life] = {}
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None
        first = next(iter(nodes))
        for name, node in nodes.items():
            others: tuple[str, ...] = () if name == first else (first,)
            if isinstance(node, Spec):
                others = others if node.peers is None else node.peers
                self.servers[name] = self._new_server(name, node, tuple(SCHEME + other for other in others))
                if not isinstance(node.functions, Mapping):
                    self._factories[name] = node.functions
            else:
                self._borrowed.append((node, node.peers))
                node.network = self.network.host(name)
                node.peers = tuple(SCHEME + other for other in others)
                self.servers[name] = node

    async def __aenter__(self) -> Self:
        """Start all nodes and wait until they know each other. Raises TimeoutError if they do not."""
        self._stack = AsyncExitStack()
        tasks = self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        try:
            for name in self.servers:
                await self._start(name)
            await self.agreed()
        except BaseException as error:
            tasks.cancel_scope.cancel()
            await _leave_group(self._stack, error)
            self._restore_servers()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let all nodes leave, without a grace period for running calls."""
        assert self._tasks is not None
        with anyio.move_on_after(_GOODBYE, shield=True):
            self.heal()
            for name, life in list(self._lives.items()):
                self.servers[name].leave(grace=False)
                await life.ended.wait()
        self._tasks.cancel_scope.cancel()
        await _leave_group(self._stack, error)
        self._restore_servers()

    # -- actions of tests ---------------------------------------------------------------------------------------------

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the nodes that run."""
        return tuple(self._lives)

    def client(self, *nodes: str, name: str = "client", **options: Any) -> Client:
        """Return a client of these nodes, in this order; of all nodes if none is named.

        `options` are those of `Client`. `name` is also its name in the network: `cluster.cut("client", "front")` cuts
        it off.
        """
        for node in nodes:
            self._known(node)
        self._clients.append(name)
        urls = [SCHEME + node for node in nodes or self.servers]
        return Client(*urls, name=name, network=self.network.host(name), **options)

    def cut(self, one: str, other: str, *, silent: bool = False) -> None:
        """Cut two nodes off from each other.

        Links between them break and new ones are refused. With `silent` links stay open and nothing arrives; a node
        detects the silence only when `Limits.gone_after` has passed.
        """
        for name in (one, other):
            check_host("name", name, self.servers, self._clients)
        self.network.cut(one, other, silent=silent)

    def heal(self) -> None:
        """Open all connections again; data that was held back in silence arrives."""
        self.network.heal()

    async def kill(self, name: str) -> None:
        """End a node at once: other nodes lose their links to it.

        A plain function that runs in a thread continues, and its result is lost.
        """
        life = self._life(name)
        self.network.host(name).vanish()
        life.scope.cancel()
        await life.ended.wait()

    async def leave(self, name: str) -> None:
        """Let a node drain and leave in order, and wait until it has left."""
        life = self._life(name)
        self.servers[name].leave()
        await life.ended.wait()

    async def restart(self, name: str) -> None:
        """Start a node; kill it first if it runs.

        The node is a new member at the same address, with the same functions, or with new ones of its factory.
        """
        self._known(name)
        if name in self._lives:
            await self.kill(name)
        if name in self._factories:
            self._renew(self.servers[name], functions_of(self._factories[name], node=name))
        await self._start(name)

    async def agreed(self, *, seconds: float = PATIENCE) -> None:
        """Wait until each running node sees all other running nodes alive, with their functions, and no other node.

        Raises TimeoutError. Nodes that are cut off from each other never agree.
        """
        await self.until(lambda: all(self._sees_all(name) for name in self._lives), seconds=seconds)

    async def until(self, condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
        """Wait until `condition()` is true. Raises TimeoutError with the views of all nodes.

        The condition is evaluated every few milliseconds.
        """
        check_callable("condition", condition, "lambda: call.done()")
        check_number("seconds", seconds)
        with anyio.move_on_after(seconds):
            while not condition():  # noqa: ASYNC110  # a condition may read anything, so nothing reports its change
                await anyio.sleep(_LOOK_EVERY)
            return
        raise TimeoutError(f"not within {seconds} s; {self._views()}")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new_server(self, name: str, spec: Spec, peers: tuple[str, ...]) -> Server:
        server = Server(
            name=name, resources=spec.resources, peers=peers, limits=spec.limits, network=self.network.host(name)
        )
        _register_all(server, functions_of(spec.functions, node=name))
        return server

    def _renew(self, server: Server, functions: Mapping[str, Fn]) -> None:
        """Replace all functions of a server that does not run."""
        for former in server.functions:
            if former not in functions and former not in BUILT_IN:
                server.unregister(former)
        _register_all(server, functions)

    async def _start(self, name: str) -> None:
        assert self._tasks is not None, "a cluster is entered before its nodes are started"
        self._lives[name] = _Life()
        await self._tasks.start(self._serve, name, self._lives[name])

    async def _serve(self, name: str, life: _Life, *, task_status: TaskStatus[None]) -> None:
        try:
            with life.scope:
                await self.servers[name].serve(task_status=task_status)
        finally:
            if self._lives.get(name) is life:
                del self._lives[name]
            life.ended.set()

    def _known(self, name: str) -> None:
        check_known("name", name, self.servers)

    def _life(self, name: str) -> _Life:
        self._known(name)
        if name not in self._lives:
            raise RuntimeError(f"{name} does not run")
        return self._lives[name]

    def _sees_all(self, name: str) -> bool:
        rows = [row for row in self.servers[name].view().members if row.standing in ("alive", "draining")]
        seen = sorted(address for row in rows if row.me or row.catalogue for address in row.addresses)
        return seen == sorted(SCHEME + other for other in self._lives)

    def _views(self) -> str:
        """Return the view that each node has of the others, as text for an error."""
        texts = []
        for name in self._lives:
            rows = self.servers[name].view().members
            seen = ", ".join(f"{row.shown} {row.standing}" for row in rows if not row.me)
            texts.append(f"{name} sees {seen or 'nobody'}")
        return "; ".join(texts)

    def _restore_servers(self) -> None:
        """Restore the network and peers of the servers that the caller passed in."""
        for server, peers in self._borrowed:
            server.network, server.peers = None, peers


def _register_all(server: Server, functions: Mapping[str, Fn]) -> None:
    for function, fn in functions.items():
        server.register(
            function,
            fn.call,
            version=fn.version,
            resources=fn.resources,
            idempotent=fn.idempotent,
            concurrency=fn.concurrency,
            inline=fn.inline,
            replace=True,
        )


def memory_cluster(nodes: Mapping[str, Spec | Server]) -> MemoryCluster:
    """Return a cluster of these nodes in this process, for use with `async with`.

    A server is created for a `Spec`. A `Server` from the caller runs as it is, but on this network, and joins the first
    node. Nodes without `peers` join the first one.
    """
    return MemoryCluster(nodes)


__all__ = ["MemoryCluster", "memory_cluster"]


async def _leave_group(stack: AsyncExitStack, error: BaseException | None) -> None:
    """Wait for the background tasks in `stack`, without wrapping the body's own `error` into an exception group.

    Only a cancellation is passed to the task group, because it may be the group's own.
    """
    if error is not None and is_cancellation(error):
        await stack.__aexit__(type(error), error, error.__traceback__)
    else:
        await stack.aclose()
