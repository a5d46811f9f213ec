"""Nodes as separate processes on this machine, for `mpreg dev` and `demo`. No process is left behind.

`Children` starts them, waits until each listens, and passes on their stderr. The exit from its `async with` ends them
in every case: first with SIGTERM, so that running calls may finish, then with SIGKILL. If this process itself is
killed, the children read the end of their stdin and leave (cli/node_process.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ByteReceiveStream, Process, TaskGroup
from anyio.streams.text import TextReceiveStream

from mpreg_transports.cli.errors import CommandFailed, ExitCode
from mpreg_transports.cli.node_process import command, environment
from mpreg_transports.config.settings import Value

START_SECONDS = 30.0
"""The time until a child listens. Reasonable: what the slowest machine needs to import its functions."""
END_SECONDS = 12.0
"""The time in which a child ends, a little longer than the grace period of a node."""


class Child:
    """One node in a process of its own. `url` is its address."""

    def __init__(self, name: str, url: str, process: Process) -> None:
        self.name = name
        self.url = url
        self.process = process

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self.url.rpartition(":")[2].partition("/")[0])


class Children:
    """The running child nodes. `on_line(name, line)` is called for each line that a child writes to stderr."""

    def __init__(self, on_line: Callable[[str, str], None]) -> None:
        self._on_line = on_line
        self._running: list[Process] = []
        self._tasks: TaskGroup
        self._last_lines: dict[int, str] = {}

    async def __aenter__(self) -> Self:
        """Start without children."""
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End all running children, and wait for them."""
        with anyio.CancelScope(shield=True):
            await self.end()
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, error, traceback)

    async def start(self, target: str | None, settings: dict[str, Value]) -> Child:
        """Start a node and wait until it listens. Raises CommandFailed with the node's own reason if it does not."""
        name = str(settings.get("name", "node"))
        process = await anyio.open_process(
            command(target, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which then ends the children
        )
        self._running.append(process)
        assert process.stdout is not None and process.stderr is not None
        stderr_ended = anyio.Event()
        self._tasks.start_soon(self._listen, name, process, process.stderr, stderr_ended)
        url = None
        with anyio.move_on_after(START_SECONDS):
            url = await _url(process.stdout)
            if url is None:
                await process.wait()  # it ends by itself: a signal now would replace its exit code
        if url is None:
            await self._end([process])
            with anyio.move_on_after(1):
                await stderr_ended.wait()
            raise self._failed(name, process)
        self._tasks.start_soon(_drain, process.stdout)
        return Child(name, url, process)

    async def end(self) -> None:
        """Send SIGTERM to all children, and kill those that do not end."""
        running, self._running = self._running, []
        await self._end(running)

    async def _end(self, processes: list[Process]) -> None:
        with anyio.CancelScope(shield=True):
            for process in processes:
                with suppress(ProcessLookupError):
                    process.terminate()
            try:
                with anyio.move_on_after(END_SECONDS):
                    for process in processes:
                        await process.wait()
            finally:
                for process in processes:
                    if process.returncode is None:
                        with suppress(ProcessLookupError):
                            process.kill()
                        await process.wait()
                    if process.stdin is not None:
                        await process.stdin.aclose()
                    if process in self._running:
                        self._running.remove(process)

    async def _listen(self, name: str, process: Process, stream: ByteReceiveStream, stderr_ended: anyio.Event) -> None:
        """Pass on the stderr of a child. Keep a line as the reason in case the child ends."""
        rest = ""
        try:
            async for text in TextReceiveStream(stream, errors="replace"):
                *lines, rest = (rest + text).split("\n")
                for line in lines:
                    self._keep_line(name, process, line)
        finally:
            if rest:
                self._keep_line(name, process, rest)
            stderr_ended.set()

    def _keep_line(self, name: str, process: Process, line: str) -> None:
        """Pass on a line. The last one is the reason, or the last one of mpreg itself."""
        own = line.startswith("mpreg: ")
        if own or (line.strip() and not self._last_lines.get(process.pid, "").startswith("mpreg: ")):
            self._last_lines[process.pid] = line
        self._on_line(name, line)

    def _failed(self, name: str, process: Process) -> CommandFailed:
        reason = self._last_lines.get(process.pid, "").removeprefix("mpreg: ") or "it printed nothing"
        known = process.returncode in list(ExitCode)
        code = ExitCode(process.returncode) if known and process.returncode else ExitCode.OTHER
        return CommandFailed(f"node {name} did not start: {reason}", code=code)


async def _url(stream: ByteReceiveStream) -> str | None:
    """Return the address that the node prints when it listens, or None if the stream ends before.

    The user's module may print lines of its own before.
    """
    rest = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            *lines, rest = (rest + await stream.receive()).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    match json.loads(line):
                        case {"name": str(), "url": str(url)}:
                            return url
    return None


async def _drain(stream: ByteReceiveStream) -> None:
    """Read to the end, so that functions that print never wait for a reader."""
    async for _ in stream:
        pass


__all__ = ["Child", "Children"]
