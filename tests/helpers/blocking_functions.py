"""Bodies in this process that wait until the test releases them: one for the event loop, one for threads."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import anyio
import anyio.to_thread

PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits this long otherwise."""


class BlockingCoroutine:
    """A coroutine function that waits; `started`, `ended` and `cancelled` count its bodies."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.cancelled = 0
        self._go = anyio.Event()
        self._changed = anyio.Event()

    async def body(self, value: object = None) -> object:
        """Return `value` once released."""
        self.started += 1
        self._notify()
        try:
            await self._go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
            self._notify()
        return value

    def release(self) -> None:
        """Release all bodies, also later ones."""
        self._go.set()

    async def until(self, *, started: int = 0, ended: int = 0, cancelled: int = 0) -> None:
        """Wait until so many bodies have started, ended (including cancelled ones), and been cancelled."""
        while self.started < started or self.ended < ended or self.cancelled < cancelled:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class BlockingThread:
    """A plain function that blocks its thread."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._starts: SimpleQueue[object] = SimpleQueue()

    def body(self, value: object = None) -> object:
        """Return `value` once released."""
        self._starts.put(value)
        assert self._go.wait(PATIENCE)
        return value

    def release(self) -> None:
        """Release all bodies, also later ones."""
        self._go.set()

    async def next_start(self) -> object:
        """Wait for the next body that starts; return its value."""
        return await anyio.to_thread.run_sync(self._starts.get)

    @property
    def more_started(self) -> bool:
        """Return whether bodies have started that `next_start` has not returned."""
        return not self._starts.empty()
