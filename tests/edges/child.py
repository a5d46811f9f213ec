"""A node in a process of its own, which is killed while the body of a call runs in it.

Run as `python -m tests.edges.child {...}`. The body prints one line on stdout when it starts, and waits; the process
ends with its parent. `node` starts one and waits for its address.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread

from tests.edges import bodies
from tests.edges.house import LIMITS, loop_options
from tests.helpers.nodes.child import Announced, end_with_parent
from tests.helpers.processes import ROOT


def function(way: str) -> str:
    """Return the name of the function that the child offers."""
    return f"{way}-child"


class Process:
    """A child process that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process

    async def started(self) -> None:
        """Wait until the body runs."""
        assert await self._line() == {"started": True}

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()
        self._process.wait()

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await anyio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True))


@asynccontextmanager
async def node(way: str, loop: str, *, peer: str, idempotent: bool) -> AsyncIterator[Process]:
    """Yield a child that offers `function(way)`, joined to `peer`; kill it at the end of the block."""
    command = [sys.executable, "-W", "error", "-m", "tests.edges.child", json.dumps([way, loop, peer, idempotent])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: ASYNC220
        try:
            made = Process(process, 0)
            made.port = int((await made._line())["url"].rpartition(":")[2])
            yield made
        finally:
            process.kill()


def _blocked(*given: object) -> None:
    print(json.dumps({"started": True}), flush=True)
    threading.Event().wait()


async def _waits(*given: object) -> None:
    print(json.dumps({"started": True}), flush=True)
    await anyio.sleep_forever()


def main() -> None:
    """Run that node until it is killed."""
    way, loop, peer, idempotent = json.loads(sys.argv[1])
    end_with_parent()
    server = Announced(name="child", port=0, peers=[peer], limits=LIMITS, codec=bodies.codec())
    options: dict[str, Any] = {"inline": True} if way == "inline" else {}
    if way == "executor":
        options["executor"] = ThreadPoolExecutor(1)
    server.register(function(way), _waits if way == "async" else _blocked, idempotent=idempotent, **options)
    anyio.run(server.serve, **loop_options(loop))


if __name__ == "__main__":
    main()
