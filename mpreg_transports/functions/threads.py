"""Threads for bodies that block: reused, as many as run at once, and never waited for when the process ends.

`execution.py` brings a call and gets its result in the loop. anyio's own worker threads will not do: on
asyncio the interpreter joins them at its end, so that one body that never returns would keep alive a node that has left
(docs/explanation/guarantees.md). Nothing here is limited; the core's slots are the limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

Deliver = Callable[[], None]
Work = Callable[[], Deliver]
"""Does something, and returns how to tell of it."""

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for work before it ends."""


class WorkerThreads:
    """The threads of one event loop. Dropped, it ends those that idle; the others end when their body returns."""

    def __init__(self) -> None:
        self._pool = _IdleThreads()  # nothing here may refer to the loop, which would keep both

    def start(
        self, call: Callable[[], T], done: Callable[[T], None], call_soon_threadsafe: Callable[..., None]
    ) -> None:
        """Have a thread make `call`, which must not raise; the loop then makes `done(result)`.

        Raises RuntimeError when the system allows no more threads; then nothing has started and nothing will.
        """

        def work() -> Deliver:
            return partial(call_soon_threadsafe, done, call())

        self._pool.submit(work)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._pool.close()


class _IdleThreads:
    """Idle threads, the one that was used last first, so that those that are not needed end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # collecting garbage may close the pool in the midst of what a thread of it does
        self._idle: deque[_WorkerThread] = deque()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Have it done by an idle thread, or by a new one. Raises RuntimeError if there can be none."""
        with self._lock:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _WorkerThread(self)
            thread.work.append(work)  # as an argument it would be kept until the thread's end
            threading.Thread(target=thread.run, name="mpreg function", daemon=True).start()
        else:
            thread.submit(work)

    def mark_idle(self, thread: _WorkerThread) -> bool:
        """A thread has nothing to do. Returns whether it should wait for work."""
        with self._lock:
            if not self._closed:
                self._idle.append(thread)
            return not self._closed

    def remove_idle(self, thread: _WorkerThread) -> bool:
        """A thread has waited for long. Returns whether it may end; False: it is just being given work."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            return True

    def close(self) -> None:
        """End all that idle, and the others when they would."""
        with self._lock:
            self._closed = True
            idle = [*self._idle]
            self._idle.clear()
        for thread in idle:
            thread.submit(None)


class _WorkerThread:
    """One thread, and how it is woken: a lock that is held while there is no work."""

    def __init__(self, pool: _IdleThreads) -> None:
        self._pool = pool
        self._wake = threading.Lock()
        self._wake.acquire()
        self.work: list[Work | None] = []

    def submit(self, work: Work | None) -> None:
        """Wake it up to do this; None: to end."""
        self.work.append(work)
        self._wake.release()

    def run(self) -> None:
        """Do what is given, until nothing is for IDLE_SECONDS."""
        while (work := self.work.pop()) is not None:
            deliver = work()
            more = self._pool.mark_idle(self)  # before `deliver`, so that a call made upon it finds this thread
            deliver()
            del work, deliver  # or they would be kept, with arguments and result, for as long as this thread idles
            if not more:
                return
            while not self._wake.acquire(timeout=IDLE_SECONDS):
                if self._pool.remove_idle(self):
                    return


def get_call_soon_threadsafe() -> Callable[..., None]:
    """`call_soon_threadsafe(call, *arguments)`: any thread may have the loop make that call soon.

    It never waits. Once the loop has ended it does nothing.
    """
    native: Any = anyio.lowlevel.current_token().native_token
    soon = native.run_sync_soon if hasattr(native, "run_sync_soon") else native.call_soon_threadsafe

    def call_soon_threadsafe(call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):
            soon(call, *arguments)

    return call_soon_threadsafe


_of_loop = anyio.lowlevel.RunVar[WorkerThreads]("mpreg threads")


def worker_threads() -> WorkerThreads:
    """Those of the running loop."""
    found = _of_loop.get(None)
    if found is None:
        found = WorkerThreads()
        _of_loop.set(found)
    return found
