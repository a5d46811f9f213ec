"""Nodes in processes of their own, and a gate at which their functions wait until the test releases them.

`node` starts tests/helpers/nodes/worker.py and reads its address. `Gate` is a TCP port of the test. Each body that
takes time connects to it, so the test knows which calls have started, and where, and decides when they end. No test
sleeps to wait for a process: it waits for a line, an arrival, an answer, or an exit.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits this long otherwise."""


class Offer(NamedTuple):
    """A function of a node: its name, the body of the worker that it runs, and whether it is idempotent."""

    name: str
    body: str
    idempotent: bool = False


class NodeProcess:
    """A running node."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return await anyio.to_thread.run_sync(self._process.wait, PATIENCE)

    @property
    def running(self) -> bool:
        """True if it has not ended yet."""
        return self._process.poll() is None


@asynccontextmanager
async def node(
    name: str, backend: str, gate: Gate, *, offers: Sequence[Offer] = (), peers: Sequence[str] = (), grace: float = 10
) -> AsyncIterator[NodeProcess]:
    """Yield a node in a process; kill it at the end of the block if it still runs. Warnings are errors in it too.

    Its stderr is that of the test, so that a failure shows its output.
    """
    arguments = {
        "name": name,
        "backend": backend,
        "gate": gate.port,
        "offers": [offer._asdict() for offer in offers],
        "peers": list(peers),
        "grace": grace,
    }
    command = [sys.executable, "-W", "error", "-m", "tests.helpers.nodes.worker", json.dumps(arguments)]
    with _start(command) as process:
        try:
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            yield NodeProcess(process, json.loads(line)["url"])
        finally:
            process.kill()


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Gate:
    """The gate of bodies. `arrivals` lists those that wait or have waited as (node, tag), in the order of arrival.

    A body whose process or task has ended leaves by itself.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.arrivals: list[tuple[str, str]] = []
        self._waiting: dict[tuple[str, str], list[SocketStream]] = {}
        self._changed = anyio.Event()
        self._open = False

    def waiting(self) -> list[tuple[str, str]]:
        """Return the bodies that wait now."""
        return [key for key, streams in self._waiting.items() for _ in streams]

    async def arrived(self, count: int) -> None:
        """Wait until `count` bodies have arrived, counted from the start."""
        while len(self.arrivals) < count:
            await self._changed.wait()

    async def gone(self, count: int) -> None:
        """Wait until no more than `count` bodies wait."""
        while len(self.waiting()) > count:
            await self._changed.wait()

    async def release(self, node: str, tag: str) -> None:
        """Release one body that waits there with that tag."""
        await self._waiting[node, tag][0].send(b".")

    async def open(self) -> None:
        """Release all bodies, also later ones."""
        self._open = True
        for stream in [stream for streams in self._waiting.values() for stream in streams]:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it may have ended just now
                await stream.send(b".")

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                buffered = BufferedByteReceiveStream(stream)
                node, tag = json.loads(await buffered.receive_until(b"\n", 1024))
                streams = self._waiting.setdefault((node, tag), [])
                streams.append(stream)
                self.arrivals.append((node, tag))
                self._notify()
                try:
                    if self._open:
                        await stream.send(b".")
                    await buffered.receive(1)
                finally:
                    streams.remove(stream)
                    self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    """Yield a gate for this block; after `PATIENCE` seconds the block is cancelled and the test fails."""
    with anyio.fail_after(PATIENCE):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024) as listener,
            anyio.create_task_group() as tasks,
        ):
            made = Gate(listener.extra(SocketAttribute.local_port))
            tasks.start_soon(listener.serve, made._serve)
            try:
                yield made
            finally:
                tasks.cancel_scope.cancel()
