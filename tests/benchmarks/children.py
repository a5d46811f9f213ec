"""Server processes of a subject: run in the project's root, ready when they print a line, ended with their parent.

The line comes from the child's stdout; its stderr is that of the harness, so that a crash is visible. Nothing here
depends on what the children serve.
"""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
"""Seconds that a child may take to print its line, and again to end after the signal."""


class Child:
    """One `python -m MODULE ARG...`; its stdin is a pipe that closes when this process ends, also after a crash."""

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        self.process = process
        self.line = line

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @classmethod
    async def start(cls, module: str, *args: str) -> "Child":
        """Start the process and wait for its first line.

        Raises:
            RuntimeError: The process ended, or printed nothing within PATIENCE; it is killed.
        """
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *args),
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            process_group=0,  # the harness handles Ctrl-C
        )
        child = cls(process, "")
        assert process.stdout is not None, "asked for as a pipe"
        try:
            async with asyncio.timeout(PATIENCE):
                child.line = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            await child.stop()
            raise RuntimeError(f"{module} {' '.join(args)} said nothing for {PATIENCE:.0f} s") from None
        if not child.line:
            await child.stop()
            raise RuntimeError(f"{module} {' '.join(args)} ended before it was ready")
        return child

    async def stop(self) -> None:
        """Close its stdin, terminate it, and kill it if it has not ended within PATIENCE."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
