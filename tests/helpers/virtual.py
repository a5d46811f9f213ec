"""Event loops whose clock does not run: it jumps to the next deadline whenever all tasks wait.

`Server`s, `Client`s and their driver are the real ones; with a network in memory nothing outside the loop has a say, so
hours pass in as long as what happens in them takes, and a busy machine changes nothing. Threads and sockets do not
belong here: time would not wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import anyio
import pytest
import trio.testing

from mpreg_transports import client, server
from mpreg_transports.runtime import driver

SECOND = 1_000_000_000


class _Leaping(selectors.DefaultSelector):
    """Where the loop would wait for a deadline, that has come."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None:
            self.now += max(0.0, timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Seconds that have passed for those who wait."""
        return self._leaping.now


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """What a fixture `anyio_backend` returns to have its tests run on such a loop, asyncio's or trio's."""
    if name == "trio":
        return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return name, {"loop_factory": _Loop}


def set_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers and clients tell the time by the loop they run on."""
    for module in (driver, server, client):
        monkeypatch.setattr(module, "clock", lambda: round(anyio.current_time() * SECOND))
