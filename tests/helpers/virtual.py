"""Event loops with a clock that does not run: it jumps to the next deadline when all tasks wait.

`Server`s, `Client`s and their driver are the real ones. With a network in memory nothing outside the event loop has an
effect. So hours pass in the time that their events take, and a busy machine changes nothing. Threads and sockets do not
work here: the clock does not wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import anyio
import pytest
import trio.testing

from mpreg_transports.testing.memory.network import MemoryHost

SECOND = 1_000_000_000


class _Leaping(selectors.DefaultSelector):
    """A selector that jumps to a deadline at once instead of waiting for it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None:
            self.now += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop with such a clock."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._leaping.now


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return the value of a fixture `anyio_backend` whose tests run on such a loop, asyncio's or trio's."""
    if name == "trio":
        return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return name, {"loop_factory": JumpingLoop}


def set_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make servers and clients on a network in memory use the clock of the event loop that they run on."""
    monkeypatch.setattr(MemoryHost, "clock", lambda host: round(anyio.current_time() * SECOND))
