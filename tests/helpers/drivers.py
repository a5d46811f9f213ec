"""Drivers of this project as `check_driver` takes them: a node in a thread, its URL, `leave` and `wait`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from queue import Queue
from types import ModuleType
from typing import Any

import uvicorn
from msgspec import structs

from mpreg_proto import Address, NodeConfig
from mpreg_transports import Server
from mpreg_transports.embed import function

SECONDS = 30.0
"""The limit for a node to start. No test waits this long otherwise."""
Functions = Mapping[str, Callable[..., Any]]


class InThread:
    """A driver whose `run` ends when its node has left."""

    def __init__(self, url: str, run: Callable[[], None], leave: Callable[[], None]) -> None:
        self.url = url
        self._run = run
        self._leave = leave
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._body, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Let the node leave, unless its driver has ended."""
        if self._thread.is_alive():
            self._leave()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the driver. Raises the error that has ended it."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _body(self) -> None:
        try:
            self._run()
        except Exception as error:
            self._error = error


class Stopped(Exception):
    """The test that has started a driver is over."""


def selector_driver(
    example: ModuleType, cleanup: Callable[[Callable[[], None]], object] = lambda stop: None
) -> Callable[[NodeConfig, Functions], InThread]:
    """Return `make` for docs/examples/embed_selectors.py, or for a variant of it.

    `cleanup` takes a function that ends a driver which does not end by itself.
    """

    def make(config: NodeConfig, functions: Functions) -> InThread:
        node = example.SelectorNode(
            config.name,
            functions,
            resources=config.resources,
            seeds=config.seeds,
            threaded=functions,
            cluster_id=config.cluster_id,
            limits=config.limits,
        )

        def run() -> None:
            try:
                node.run()
            finally:
                node.release()
                for connection in node.connections.values():  # those of a driver that has failed
                    connection.sock.close()

        def leave() -> None:
            node.call_from_thread(lambda: node.node.leave(now=example.clock()))

        def stop() -> None:
            raise Stopped

        driver = InThread(node.url, run, leave)
        cleanup(lambda: node.call_from_thread(stop))
        return driver

    return make


def asyncio_driver(example: ModuleType) -> Callable[[NodeConfig, Functions], InThread]:
    """Return `make` for docs/examples/embed_asyncio.py: each node has an event loop and a thread of its own."""

    def make(config: NodeConfig, functions: Functions) -> InThread:
        started: Queue[Any] = Queue()

        async def main() -> None:
            node = example.AsyncioNode(config, functions)
            await node.start()
            started.put(node)
            await node.wait_until_left()

        driver = InThread("", lambda: asyncio.run(main()), lambda: node.loop.call_soon_threadsafe(node.leave))
        node = started.get(timeout=SECONDS)
        driver.url = node.url
        return driver

    return make


def starlette_driver(example: ModuleType) -> Callable[[NodeConfig, Functions], InThread]:
    """Return `make` for docs/examples/embed_starlette.py under uvicorn, in a thread for each node.

    uvicorn closes all WebSockets before it ends the application, so the node leaves first, and then uvicorn ends.
    """

    def make(config: NodeConfig, functions: Functions) -> InThread:
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/mpreg"
        offered = [function(call, name=name) for name, call in functions.items()]
        started: Queue[Any] = Queue()

        async def main() -> None:
            embedded = example.EmbeddedNode(structs.replace(config, addresses=(Address(url),)), offered)
            app = uvicorn.Config(
                example.create_app(embedded), ws="wsproto", log_level="critical", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(app)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started and not serving.done():  # noqa: ASYNC110  # nothing reports the start
                await asyncio.sleep(0.01)
            started.put((asyncio.get_running_loop(), embedded))
            await embedded.driver.ended.wait()
            server.should_exit = True
            await serving

        driver = InThread(url, lambda: asyncio.run(main()), lambda: loop.call_soon_threadsafe(begin_to_leave))
        loop, embedded = started.get(timeout=SECONDS)

        leaving: list[asyncio.Task[None]] = []

        def begin_to_leave() -> None:  # in a task, as anyio needs one
            leaving.append(loop.create_task(embedded.leave()))

        return driver

    return make


def server_driver(backend: str, *, scheme: str = "ws") -> Callable[[NodeConfig, Functions], InThread]:
    """Return `make` for `Server` on this event loop, reached over this scheme."""

    def make(config: NodeConfig, functions: Functions) -> InThread:
        server = Server(
            name=config.name, cluster_id=config.cluster_id, port=0, peers=config.seeds, limits=config.limits
        )
        for name, call in functions.items():
            server.register(name, call)
        listening = threading.Event()

        def run() -> None:
            try:
                server.run_until_signal(listening.set, backend=backend)
            finally:
                listening.set()

        driver = InThread("", run, server.leave)
        listening.wait()
        driver.url = server.url.replace("ws://", f"{scheme}://")
        return driver

    return make


__all__ = ["InThread", "asyncio_driver", "selector_driver", "server_driver", "starlette_driver"]
