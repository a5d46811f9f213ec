"""A house: two real nodes in this process, joined, each with a function for each way to run one.

Clients connect to `asked`; `other` is the other node. A house serves cell after cell until a cell ends a node or leaves
something behind.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from multiprocessing import get_context
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from mpreg_proto.limits import Limits
from mpreg_proto.view import NodeView
from mpreg_transports import Server
from tests.edges import bodies

LIMITS = Limits(message=1024 * 1024, node_message=2 * 1024 * 1024)
"""Small, so that a too long value is quick to make."""
LOOK = 0.002
"""Seconds between two polls."""


def loop_options(loop: str) -> dict[str, Any]:
    """Return the arguments of `anyio.run` for that event loop."""
    if loop == "trio":
        return {"backend": "trio", "backend_options": {}}
    return {"backend": "asyncio", "backend_options": {"use_uvloop": loop == "uvloop"}}


def function_name(way: str, where: str, *, slots: int | None = None) -> str:
    """Return the name under which a body is registered; a body with one slot has its own name."""
    return f"{way}-{where}" + ("-one" if slots == 1 else "")


class Pool:
    """A pool of two processes whose bodies wait at two events."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._started = self._context.Semaphore(0)
        self.go = self._context.Event()
        self.executor = self._new()

    def replace_broken(self) -> None:
        """Replace the processes if a body has broken the pool. Blocks."""
        try:
            self.executor.submit(bodies.plain, "returns").result()
        except BrokenProcessPool:
            self.executor = self._new()

    def _new(self) -> ProcessPoolExecutor:
        made = ProcessPoolExecutor(2, self._context, bodies.join_pool, (self._started, self.go))
        made.submit(bodies.plain, "returns").result()
        return made

    def has_started(self) -> bool:
        """Return whether another held body has begun since the last call that returned true."""
        return bool(self._started.acquire(False))

    def reset(self) -> None:
        """Make bodies wait again, and forget those that have begun."""
        self.go.clear()
        while self.has_started():
            pass

    def close(self) -> None:
        """End the processes."""
        self.go.set()
        self.executor.shutdown(cancel_futures=True)


class House:
    """The two nodes, see the module. `housed` makes it."""

    def __init__(self, threads: Executor, pool: Pool | None) -> None:
        self.asked = Server(name="asked", port=0, limits=LIMITS, codec=bodies.codec())
        self.other = Server(name="other", port=0, limits=LIMITS, codec=bodies.codec())
        self.crash: BaseException | None = None
        """The exception that ended a node without `leave`."""
        self.on_crash: Callable[[], object] = lambda: None
        self._leaving = anyio.Event()
        self._options = _ways(threads, pool)
        for where in ("asked", "other"):
            for slots in (None, 1):
                for way in self._options:
                    self.offer(way, where, slots=slots)

    def offer(self, way: str, where: str, *, slots: int | None) -> None:
        """Register the body of that way on that node, in place of an earlier one."""
        self.offer_as(function_name(way, where, slots=slots), way, where, concurrency=slots)

    def offer_as(self, name: str, way: str, where: str, **more: Any) -> None:
        """Register it under any name."""
        call = bodies.coroutine if way == "async" else bodies.inline if way == "inline" else bodies.plain
        self.node(where).register(name, call, replace=True, **self._options[way], **more)

    def node(self, where: str) -> Server:
        """Return the node "asked" or "other"."""
        return self.asked if where == "asked" else self.other

    @property
    def nodes(self) -> tuple[Server, Server]:
        """Both nodes."""
        return self.asked, self.other

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until `leave`; call `on_crash` if a node ends by itself."""
        try:
            async with self.asked:
                self.other.peers = (self.asked.url,)
                async with self.other:
                    await self._meshed()
                    task_status.started()
                    await self._leaving.wait()
        except Exception as error:
            self.crash = error
        if not self._leaving.is_set():
            self.crash = self.crash or RuntimeError("a node ended by itself")
            self.on_crash()

    def leave(self) -> None:
        """Make both nodes leave."""
        self._leaving.set()

    async def _meshed(self) -> None:
        """Wait until each of the two lists the functions of the other, over one link."""
        wanted = len(self.asked.functions) + len(self.other.functions)

        def meshed(view: NodeView) -> bool:
            linked = sum(member.linked for member in view.members)
            return len(view.functions) == wanted and view.links == linked == 1

        with anyio.fail_after(bodies.PATIENCE):
            await until(lambda: all(meshed(node.view()) for node in self.nodes))


async def until(true: Callable[[], bool]) -> None:
    """Wait until `true()` is true."""
    while not true():  # noqa: ASYNC110 - nothing says so when it is
        await anyio.sleep(LOOK)


def _ways(threads: Executor, pool: Pool | None) -> dict[str, dict[str, Any]]:
    """Return the options with which each way is registered."""
    ways: dict[str, dict[str, Any]] = {
        "inline": {"inline": True},
        "async": {},
        "def": {},
        "executor": {"executor": threads},
    }
    return ways if pool is None else {**ways, "processes": {"executor": pool.executor}}


@asynccontextmanager
async def housed(tasks: TaskGroup, pool: Pool | None) -> AsyncIterator[House]:
    """Yield a house that runs in this block; its threads end with it."""
    threads = ThreadPoolExecutor(8, "edges pool")
    house = House(threads, pool)
    try:
        await tasks.start(house.run)
        yield house
    finally:
        house.leave()
        threads.shutdown(wait=False, cancel_futures=True)


def in_own_thread_names() -> list[str]:
    """Return the names of the threads of this process, without those of the test helpers."""
    foreign = ("MainThread", "AnyIO worker thread", "asyncio_", "Trio thread", "edges", "QueueFeederThread", "Thread-")
    return sorted(one.name for one in threading.enumerate() if not one.name.startswith(foreign))
