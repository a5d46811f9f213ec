"""Threads for bodies that block: reused, as many as bodies run at once, and not joined when the process ends.

`execution.py` submits a call and gets its result in the event loop. anyio's own worker threads are not suitable: on
asyncio the interpreter joins them at its end, so one body that never returns would keep a node alive that has left
(docs/explanation/guarantees.md). Nothing here is limited; the core's slots are the limit.

A wake-up of a thread or of the event loop costs far more than a short body. So jobs wait in one queue, and one thread
at a time is woken for it, the searcher. When it takes a job and others wait, it wakes the next searcher before it
begins. So a body that blocks delays no other, and short bodies are run by a thread that is awake already. Results wait
for as long as there is a searcher, which posts all of them to the event loop together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

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
        self._pool = _Pool()  # it must not refer to the event loop, or neither would be collected

    def start(
        self, call: Callable[[], T], done: Callable[[T], None], call_soon_threadsafe: Callable[..., None]
    ) -> None:
        """Run `call`, which must not raise, in a thread; then the event loop calls `done(result)`.

        Raises RuntimeError when the system allows no more threads; then nothing has started and nothing will.
        """

        self._pool.submit(_Job(call, done, call_soon_threadsafe))

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._pool.close()


class _Job:
    """A call, and the way its result takes."""

    __slots__ = ("call", "call_soon_threadsafe", "done")

    def __init__(
        self, call: Callable[[], Any], done: Callable[[Any], None], call_soon_threadsafe: Callable[..., None]
    ) -> None:
        self.call = call
        self.done = done
        self.call_soon_threadsafe = call_soon_threadsafe


_Result = tuple[Callable[..., None], Callable[[Any], None], Any]
"""`call_soon_threadsafe` and `done` of a job, and the result of its call."""


class _Pool:
    """The queue of jobs, and the threads without one: at least as many as jobs wait."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage collection may close the pool while one of its threads holds the lock
        self._jobs: deque[_Job] = deque()
        self._idle: list[_WorkerThread] = []
        """The threads that sleep. The last used one is taken first, so that unneeded threads end."""
        self._searcher: _WorkerThread | None = None
        """The thread that was woken and has not looked for a job yet. There is one while jobs wait."""
        self._results: list[_Result] = []
        """The results that wait for the searcher; empty without one."""
        self._closed = False

    def submit(self, job: _Job) -> None:
        """Let an idle thread run the job, or a new one. Raises RuntimeError if no thread can be started."""
        with self._lock:
            if len(self._idle) + (self._searcher is not None) > len(self._jobs):
                self._jobs.append(job)
                self._wake_searcher()
                return
        thread = _WorkerThread(self)
        first = [job]  # a list that the thread empties: its arguments are kept until its end
        threading.Thread(target=thread.run, args=(first,), name="mpreg function", daemon=True).start()

    def next_job(self, thread: _WorkerThread, result: _Result | None) -> tuple[_Job | None, list[_Result], bool]:
        """Take the result of the last job of `thread`, None at first.

        Return its next job, or None; the results that it has to post; and whether it may end.
        """
        with self._lock:
            if result is not None:
                self._results.append(result)
            was_searcher = self._searcher is thread
            if was_searcher:
                self._searcher = None
            job = self._jobs.popleft() if self._jobs else None
            if job is None and not self._closed:
                self._idle.append(thread)  # before the results are posted, so that a call from there finds it
            self._wake_searcher()
            results: list[_Result] = []
            if was_searcher or self._searcher is None:
                results, self._results = self._results, results
            return job, results, job is None and self._closed

    def remove_idle(self, thread: _WorkerThread) -> bool:
        """Remove a thread that has waited for long. Return whether it may end; False: it is needed."""
        with self._lock:
            if thread not in self._idle or self._jobs:
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
            thread.wake()

    def _wake_searcher(self) -> None:
        if self._jobs and self._searcher is None and self._idle:
            self._searcher = self._idle.pop()
            self._searcher.wake()


class _WorkerThread:
    """One thread, and the lock that wakes it: the lock is held while the thread sleeps or works."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._awake = threading.Lock()
        self._awake.acquire()

    def wake(self) -> None:
        """Let the thread look for a job. Called once for each time that it is idle."""
        self._awake.release()

    def run(self, first: list[_Job]) -> None:
        """Do jobs, until there is none for IDLE_SECONDS."""
        job: _Job | None = first.pop()
        while True:
            result = None if job is None else (job.call_soon_threadsafe, job.done, job.call())
            job, results, may_end = self._pool.next_job(self, result)
            del result  # else it would be kept for as long as this thread idles, as would `results`
            if results:
                _post(results)
            del results
            if may_end or (job is None and not self._sleep()):
                return

    def _sleep(self) -> bool:
        """Wait until the thread is woken. Return False if it may end instead."""
        while not self._awake.acquire(timeout=IDLE_SECONDS):
            if self._pool.remove_idle(self):
                return False
        return True


def _post(results: list[_Result]) -> None:
    """Let the event loop take the results, in this order: one wake-up, as all are of one event loop."""
    results[0][0](_deliver, deque(results))


def _deliver(results: deque[_Result]) -> None:
    while results:
        call_soon_threadsafe, done, result = results.popleft()
        try:
            done(result)
        except BaseException:
            if results:  # it must not keep the others back
                call_soon_threadsafe(_deliver, results)
            raise


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
