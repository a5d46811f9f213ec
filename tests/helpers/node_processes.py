"""Many nodes in processes of their own, which tests kill, stop, and start again on the ports of killed ones.

The module polls the view of each node over a client until a condition is true or the time is over; nothing here sleeps
to wait for a process. `Load` calls a function that all nodes offer, in a loop, and records the answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from mpreg_proto.errors import RequestError
from mpreg_proto.view import NodeView
from mpreg_transports import Client

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds until a condition that does not become true is an error. No test waits this long otherwise."""
_LOOK = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


class SpawnedNode:
    """One node process."""

    def __init__(self, name: str, process: subprocess.Popen[str], url: str) -> None:
        self.name = name
        self.url = url
        self.process = process

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the system has closed all its resources."""
        self.process.kill()
        self.process.wait()

    def processor_time(self) -> float:
        """Return the seconds of processor time that it has used so far (Linux: fields 14 and 15 of /proc/PID/stat)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class NodeProcesses:
    """The running nodes by name, and clients of them."""

    def __init__(self) -> None:
        self.nodes: dict[str, SpawnedNode] = {}
        self._processes: list[subprocess.Popen[str]] = []

    async def start(self, names: Iterable[str], *, ports: Iterable[int] = (), peers: Iterable[str] = ()) -> None:
        """Start nodes at once, each with `peers` to join, the first ones on `ports`; return when all listen."""
        given = list(ports)
        begun: list[tuple[str, subprocess.Popen[str]]] = []
        for name in names:
            arguments = {"name": name, "port": given.pop(0) if given else 0, "peers": list(peers)}
            command = [sys.executable, "-W", "error", "-m", "tests.helpers.nodes.plain", json.dumps(arguments)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)  # noqa: ASYNC220
            self._processes.append(process)
            begun.append((name, process))
        for name, process in begun:
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            self.nodes[name] = SpawnedNode(name, process, json.loads(line)["url"])

    async def view(self, name: str) -> NodeView:
        """Return the view of that node."""
        async with Client(self.nodes[name].url) as client:
            return await client.view()

    def forget(self, name: str) -> SpawnedNode:
        """Remove a node from the running ones, and return it."""
        return self.nodes.pop(name)

    async def all_see(self, what: Callable[[NodeView], bool], *, by: Iterable[str] | None = None) -> float:
        """Wait until the condition is true for the views of all nodes, or of those in `by`; return the seconds."""
        began = time.monotonic()
        left = list(self.nodes if by is None else by)
        with anyio.fail_after(PATIENCE):
            while left:
                left = [name for name in left if not what(await self.view(name))]
                if left:
                    await anyio.sleep(_LOOK)
        return time.monotonic() - began

    def knows_all(self, view: NodeView) -> bool:
        """Return whether a view has exactly these nodes as ALIVE, and the functions of each."""
        alive = sorted(row.name for row in view.members if row.standing == "alive")
        offered = {row.function for row in view.functions}
        return alive == sorted(self.nodes) and all(f"of-{name}" in offered for name in self.nodes)

    async def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@asynccontextmanager
async def node_processes() -> AsyncIterator[NodeProcesses]:
    """Yield an empty set of nodes; kill all nodes that were started in the block at its end."""
    made = NodeProcesses()
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await made.close()


class Load:
    """Calls of `where` through one node, a few at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._more = anyio.Event()
        self.answers: list[tuple[float, str]] = []
        """The start time of each call, and the node that ran it."""
        self.errors: list[tuple[float, RequestError]] = []

    async def run(self, *, at_once: int = 4) -> None:
        """Call until cancelled."""
        async with Client(self._url) as client, anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(self._caller, client)

    async def _caller(self, client: Client) -> None:
        while True:
            began = time.monotonic()
            try:
                self.answers.append((began, str(await client.call("where", timeout=10))))
                self._more.set()
            except RequestError as error:
                self.errors.append((began, error))
            await anyio.sleep(0.005)

    async def more(self, count: int) -> None:
        """Wait until `count` more calls were answered."""
        wanted = len(self.answers) + count
        with anyio.fail_after(PATIENCE):
            while len(self.answers) < wanted:
                self._more = anyio.Event()
                await self._more.wait()
