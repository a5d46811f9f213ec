"""Threads for bodies that block: reused, as many as bodies run at once, and not joined when the process ends.

`execution.py` submits a call and gets its result in the event loop. anyio's own worker threads are not suitable: on
asyncio the interpreter joins them at its end, so one body that never returns would keep a node alive that has left
(docs/explanation/guarantees.md). Nothing here is limited; the core's slots are the limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

Deliver = Callable[[], None]
Work = Callable[[], Deliver]
"""Runs a call, and returns the function that delivers its result."""

IDLE_SECONDS: Final = 10.0
"""The seconds for which a thread waits for work before it ends."""


class Threads(Protocol):
    """The place where the plain functions of one event loop run."""

    def start(
        self, call: Callable[[], T], done: Callable[[T], None], call_soon_threadsafe: Callable[..., None]
    ) -> None:
        """See `WorkerThreads.start`."""


class WorkerThreads:
    """The threads of one event loop. When it is dropped, idle threads end; the others end when their body returns."""

    def __init__(self) -> None:
        self._pool = _IdleThreads()  # it must not refer to the event loop, or neither would be collected

    def start(
        self, call: Callable[[], T], done: Callable[[T], None], call_soon_threadsafe: Callable[..., None]
    ) -> None:
        """Run `call`, which must not raise, in a thread; then the event loop calls `done(result)`.

        Raises RuntimeError when the system allows no more threads; then nothing has started and nothing will.
        """

        def work() -> Deliver:
            return partial(call_soon_threadsafe, done, call())

        self._pool.submit(work)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._pool.close()


class _IdleThreads:
    """The idle threads. The last used one is taken first, so that unneeded threads end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage collection may close the pool while one of its threads holds the lock
        self._idle: deque[_WorkerThread] = deque()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Run the work in an idle thread, or in a new one. Raises RuntimeError if no thread can be started."""
        with self._lock:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _WorkerThread(self)
            thread.work.append(work)  # as an argument it would be kept until the thread's end
            threading.Thread(target=thread.run, name="mpreg function", daemon=True).start()
        else:
            thread.submit(work)

    def mark_idle(self, thread: _WorkerThread) -> bool:
        """Register a thread without work. Return whether it should wait for work."""
        with self._lock:
            if not self._closed:
                self._idle.append(thread)
            return not self._closed

    def remove_idle(self, thread: _WorkerThread) -> bool:
        """Remove a thread that has waited for long. Return whether it may end; False: it is just getting work."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            return True

    def close(self) -> None:
        """End all idle threads; the others end after their work."""
        with self._lock:
            self._closed = True
            idle = [*self._idle]
            self._idle.clear()
        for thread in idle:
            thread.submit(None)


class _WorkerThread:
    """One thread, and the lock that wakes it: the lock is held while there is no work."""

    def __init__(self, pool: _IdleThreads) -> None:
        self._pool = pool
        self._wake = threading.Lock()
        self._wake.acquire()
        self.work: list[Work | None] = []

    def submit(self, work: Work | None) -> None:
        """Wake the thread to do this work; None: to end."""
        self.work.append(work)
        self._wake.release()

    def run(self) -> None:
        """Do the submitted work, until there is none for IDLE_SECONDS."""
        while (work := self.work.pop()) is not None:
            deliver = work()
            more = self._pool.mark_idle(self)  # before `deliver`, so that a call from there finds this thread
            deliver()
            del work, deliver  # else they, with arguments and result, would be kept for as long as this thread idles
            if not more:
                return
            while not self._wake.acquire(timeout=IDLE_SECONDS):
                if self._pool.remove_idle(self):
                    return


def get_call_soon_threadsafe() -> Callable[..., None]:
    """Return `call_soon_threadsafe(call, *arguments)`, by which any thread lets the event loop make that call soon.

    It never waits. Once the event loop has ended, it does nothing.
    """
    native: Any = anyio.lowlevel.current_token().native_token
    soon = native.run_sync_soon if hasattr(native, "run_sync_soon") else native.call_soon_threadsafe

    def call_soon_threadsafe(call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):
            soon(call, *arguments)

    return call_soon_threadsafe


_of_loop = anyio.lowlevel.RunVar[Threads]("mpreg threads")


def use_threads(threads: Threads) -> None:
    """Let nodes that start later in the running event loop run plain functions in `threads` (tests in virtual time)."""
    _of_loop.set(threads)


def worker_threads() -> Threads:
    """Return the worker threads of the running event loop."""
    found = _of_loop.get(None)
    if found is None:
        found = WorkerThreads()
        _of_loop.set(found)
    return found
