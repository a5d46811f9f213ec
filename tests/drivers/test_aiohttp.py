"""The example docs/examples/embed_aiohttp.py passes `check_driver`, and joins a cluster of ordinary servers."""

import asyncio
import json
from collections.abc import Callable, Mapping
from queue import Queue
from typing import Any

import pytest
from aiohttp import ClientSession, web

from docs.examples.embed_aiohttp import NODE, AiohttpNode, create_app, shout
from mpreg_proto import Address, NodeConfig
from mpreg_transports import Client, Server
from mpreg_transports.testing import check_driver
from tests.helpers.drivers import InThread


class Application:
    """The application on a port that the system chooses."""

    def __init__(self, config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.config = config
        self.functions = functions
        self.host = ""

    async def __aenter__(self) -> "Application":
        app = await create_app(self.config, self.functions)
        self.node: AiohttpNode = app[NODE]
        self.runner = web.AppRunner(app, shutdown_timeout=5.0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self.runner.addresses[0][1]}"
        self.url = f"ws://{self.host}/mpreg"
        self.node.node.advertise((Address(self.url),), now=self.node.now())
        self.node.flush()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.runner.cleanup()


def make(config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> InThread:
    started: Queue[Application] = Queue()

    async def main() -> None:
        async with Application(config, functions) as app:
            started.put(app)
            await app.node.ended.wait()

    def leave() -> None:
        app.node.loop.call_soon_threadsafe(begin_to_leave)

    def begin_to_leave() -> None:
        app.node.node.leave(now=app.node.now())
        app.node.flush()

    driver = InThread("", lambda: asyncio.run(main()), leave)
    app = started.get(timeout=30)
    driver.url = app.url
    return driver


def test_aiohttp_example_passes_check_driver() -> None:
    check_driver(make)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_node_in_an_aiohttp_application(anyio_backend: str) -> None:
    async with Server(name="worker", port=0) as server:

        @server.function(idempotent=True)
        def add(x: int, y: int) -> int:
            return x + y

        config = NodeConfig(name="aiohttp", seeds=(Address(server.url),))
        async with Application(config, {"shout": shout}) as app, ClientSession() as http:
            async with Client(server.url) as client:
                assert await client.call("shout", "hello", wait=10) == "HELLO!"
            async with Client(app.url) as client:
                assert await client.call("add", 2, 3, wait=10) == 5
            async with http.get(f"http://{app.host}/add?x=1&y=2") as answer:
                assert await answer.json() == {"sum": 3}
            async with http.ws_connect(app.url) as websocket:
                cmds = [{"name": "a", "fun": "add", "args": [1, 2]}]
                await websocket.send_str(json.dumps({"role": "rpc", "u": "1", "cmds": cmds}))
                assert await websocket.receive_json() == {"r": {"a": 3}, "error": None, "u": "1"}
