"""The nodes, the clients that load them, and one client with small calls that measures how others fare."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mpreg_transports import Client, RequestError

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024


class Node:
    """One node process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return int(self.url.rpartition(":")[2])

    def memory(self, row: str = "VmRSS") -> int:
        """Return its memory now in bytes (Linux); "VmHWM" for the most that it ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{row}:")[2].split()[0]) * 1024


@asynccontextmanager
async def two_nodes() -> AsyncIterator[list[Node]]:
    """Yield two nodes that know each other and each other's functions."""
    nodes: list[Node] = []
    try:
        for name in ("one", "two"):
            pipe = subprocess.PIPE
            arguments = json.dumps({"name": name, "peers": [node.url for node in nodes]})
            command = [sys.executable, "-m", "tests.overload.node", arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)  # noqa: ASYNC220
            assert process.stdout is not None
            nodes.append(Node(process, json.loads(await asyncio.to_thread(process.stdout.readline))["url"]))
        async with Client(nodes[0].url) as client:
            await client.call("ready-two", 0, wait=20)
        yield nodes
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
            for stream in (node.process.stdin, node.process.stdout):
                if stream is not None:
                    stream.close()


@dataclass
class Calls:
    """The calls of one load: the seconds of those that were answered, by error code (0: a result)."""

    timeout: float
    took: dict[int, list[float]] = field(default_factory=dict)

    def count(self, code: int = 0) -> int:
        """Return the number of calls that ended so."""
        return len(self.took.get(code, ()))

    def quantile(self, share: float, code: int = 0) -> float:
        """Return the time within which that share of them ended, in seconds; 0 if there are none."""
        rows = sorted(self.took.get(code, ()))
        return rows[min(len(rows) - 1, int(len(rows) * share))] if rows else 0.0

    @property
    def latest(self) -> float:
        """The most seconds by which a call ended after its deadline."""
        return max((max(rows) - self.timeout for rows in self.took.values()), default=0.0)

    @property
    def errors(self) -> str:
        """The numbers of errors by code."""
        return ", ".join(f"{len(rows)} x {code}" for code, rows in sorted(self.took.items()) if code) or "none"


async def one(client: Client, calls: Calls, function: str, *args: object) -> None:
    """Call once and record how it ended."""
    began, code = time.perf_counter(), 0
    try:
        await client.call(function, *args, timeout=calls.timeout)
    except RequestError as error:
        code = error.code
    calls.took.setdefault(code, []).append(time.perf_counter() - began)


async def offer(client: Client, function: str, *, rate: float, seconds: float, timeout: float) -> Calls:
    """Call at a fixed rate, whatever becomes of earlier calls; return when all have ended."""
    calls, loop = Calls(timeout), asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()
    due = loop.time()
    ends = due + seconds
    while due < ends:
        await asyncio.sleep(max(0.0, due - loop.time()))
        due += 1 / rate
        task = asyncio.ensure_future(one(client, calls, function))
        pending.add(task)
        task.add_done_callback(pending.discard)
    if pending:
        await asyncio.wait(pending)
    return calls


class Small:
    """The figures of small calls during a time, in seconds."""

    def __init__(self, line: str) -> None:
        self.median, self.longest, self.count = json.loads(line)


class Beside:
    """A process with one small call at a time (beside.py)."""

    def __init__(self, url: str, function: str = "echo", *args: object) -> None:
        self._call = (url, function, json.dumps(args if args or function != "echo" else ["small"]))

    async def __aenter__(self) -> Beside:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "tests.overload.beside", *self._call)
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        await self._process.wait()

    async def since(self) -> Small:
        """Return the figures since the last call of this method."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return Small((await self._process.stdout.readline()).decode())

    async def alone(self, seconds: float = 2.0) -> Small:
        """Return the figures of the next seconds, without other work."""
        await asyncio.sleep(1)  # it is connected by then
        await self.since()
        await asyncio.sleep(seconds)
        return await self.since()
