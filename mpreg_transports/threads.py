"""Threads for bodies that block: reused, as many as run at once, and never waited for when the process ends.

`functions.py` brings a call and waits in the loop for what comes of it. anyio's own worker threads will not do: on
asyncio the interpreter joins them at its end, so that one body that never returns would keep alive a node that has left
(docs/explanation/guarantees.md). Nothing here is limited; the core's slots are the limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

Work = Callable[[], None]


class Threads:
    """The threads of one event loop. Dropped, it ends those that idle; the others end when their body returns."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._count = 0
        self._idle = 0
        """Threads that wait for work or are about to; only the loop's thread reads or writes it."""

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` gives, from a thread; it must not raise. Cancelled, this waits no longer, and the thread goes on.

        Raises RuntimeError when the system allows no more threads; nothing has changed then.
        """
        done = anyio.Event()
        results: list[T] = []
        post = poster()

        def back(result: T) -> None:
            self._idle += 1
            results.append(result)
            done.set()

        def work() -> None:
            post(back, copy_context().run(call))  # what a body sets in its context is not the next one's

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=_serve, args=(self._work,), name="mpreg function", daemon=True).start()
            self._count += 1
        self._work.put(work)
        await done.wait()
        return results[0]

    def __del__(self) -> None:
        for _ in range(self._count):
            self._work.put(None)


def _serve(queue: SimpleQueue[Work | None]) -> None:
    while (work := queue.get()) is not None:
        work()
        del work  # or it would be kept, with its arguments, for as long as this thread idles


def poster() -> Callable[..., None]:
    """`post(call, *arguments)` for any thread, the loop's own too: has the loop make that call soon, and never waits.

    Once the loop has ended it does nothing.
    """
    native: Any = anyio.lowlevel.current_token().native_token
    soon = native.run_sync_soon if hasattr(native, "run_sync_soon") else native.call_soon_threadsafe

    def post(call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):
            soon(call, *arguments)

    return post


_of_loop = anyio.lowlevel.RunVar[Threads]("mpreg threads")


def threads() -> Threads:
    """Those of the running loop."""
    found = _of_loop.get(None)
    if found is None:
        found = Threads()
        _of_loop.set(found)
    return found
