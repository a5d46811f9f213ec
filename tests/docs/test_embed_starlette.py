"""The example docs/examples/embed_starlette.py under uvicorn, in its own process, on a port that the system chooses.

Its clients are HTTP, the `websockets` library in the classic dialect, and the client of this project. An ordinary
`Server` is the rest of its cluster.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
from websockets.sync.client import connect

from mpreg_transports import Client, Server

ROOT = Path(__file__).resolve().parents[2]
LISTENS = re.compile(r"Uvicorn running on http://(127\.0\.0\.1:\d+)")


@contextmanager
def uvicorn(*peers: str) -> Iterator[str]:
    """The application in its own process; yields `host:port`. After its signal it must end by itself."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", "docs/examples", "--ws", "wsproto", "--port", "0"]
    with subprocess.Popen(
        [*command, "embed_starlette:app"],
        cwd=ROOT,
        env={**os.environ, "MPREG_PEERS": " ".join(peers)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if listens := LISTENS.search(line):
                    yield listens[1]
                    break
            else:
                pytest.fail("".join(said))
        finally:
            process.terminate()
            said.append(process.stderr.read())
            process.wait(20)
    assert "Application shutdown complete" in said[-1], "".join(said)
    assert "Traceback" not in said[-1], said[-1]


def get(url: str, body: bytes | None = None) -> object:
    with urllib.request.urlopen(url, body, timeout=20) as response:
        return json.load(response)


def ask(url: str, **request: object) -> object:
    """Send one classic request over WebSocket, with a library that does not depend on mpreg."""
    with connect(url) as websocket:
        websocket.send(json.dumps({"role": "rpc", "u": "1", **request}))
        return json.loads(websocket.recv(timeout=20))


@pytest.mark.anyio
async def test_node_in_an_application(anyio_backend: str) -> None:
    async with Server(name="worker", port=0) as server:

        @server.function(idempotent=True)
        def add(x: int, y: int) -> int:
            return x + y

        app = uvicorn(server.url)
        host = await anyio.to_thread.run_sync(app.__enter__)
        in_thread = anyio.to_thread.run_sync
        try:
            async with Client(server.url) as client:
                assert await client.call("shout", "hello", wait=10) == "HELLO!"
            async with Client(f"ws://{host}/mpreg") as client:
                assert client.node == "starlette"
                assert await client.call("add", 2, 3, wait=10) == 5
            assert await in_thread(get, f"http://{host}/add?x=1&y=2") == {"sum": 3}
            cmds = [{"name": "a", "fun": "add", "args": [1, 2]}, {"name": "b", "fun": "echos", "args": ["a", "x"]}]
            answer = {"r": {"b": [3, "x"]}, "error": None, "u": "1"}
            assert await in_thread(partial(ask, f"ws://{host}/mpreg", cmds=cmds)) == answer
            body = json.dumps({"role": "rpc", "u": "1", "cmds": cmds}).encode()
            assert await in_thread(get, f"http://{host}/rpc", body) == answer
        finally:
            await in_thread(app.__exit__, None, None, None)


@pytest.mark.anyio
async def test_server_joins_through_the_application(anyio_backend: str) -> None:
    app = uvicorn()
    host = await anyio.to_thread.run_sync(app.__enter__)
    try:
        async with Server(name="joins", port=0, peers=[f"ws://{host}/mpreg"]) as server, Client(server.url) as client:
            assert await client.call("shout", "over websocket", wait=10) == "OVER WEBSOCKET!"
    finally:
        await anyio.to_thread.run_sync(app.__exit__, None, None, None)
