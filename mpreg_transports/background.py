"""A task that belongs to an object, not to the code that opened the object; and the event loop of that object.

The task that enters a task group must also leave it, and nested groups must be left in reverse order. Fixtures,
notebooks and exit stacks break these rules: they open an object in one task and close it in another. So `Client` and
`Server` run in a task of their own, which enters and leaves its task groups itself: a plain task on asyncio, a system
task on trio.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus


class Main(Protocol):
    """The coroutine function that runs in the background. It calls `task_status.started()` once it is up."""

    def __call__(self, *, task_status: TaskStatus[None]) -> Coroutine[Any, Any, None]: ...


class LoopAffinity:
    """The process and the event loop in which an object was opened. The object works only there."""

    __slots__ = ("_loop", "_process")

    def __init__(self) -> None:
        self._loop = _running()
        self._process = os.getpid()

    @property
    def is_current(self) -> bool:
        """True if the current code runs in that process and that event loop."""
        return self._process == os.getpid() and self._loop is _running()

    @property
    def is_closed(self) -> bool:
        """True if nothing can run there any more: the event loop is closed, or belongs to a parent process."""
        closed = getattr(self._loop, "is_closed", None)
        return self._process != os.getpid() or (closed is not None and bool(closed()))

    def check(self, what: str) -> None:
        """Raise RuntimeError with the reason unless the current code runs in that process and event loop."""
        self.check_process(what)
        if self._loop is not _running():
            raise RuntimeError(
                f"{what} belongs to the event loop in which it was opened, and this is another one; "
                "open one in each loop, or use SyncClient from threads"
            )

    def check_process(self, what: str) -> None:
        """Raise RuntimeError with the reason if this is another process. Any event loop and any thread are allowed."""
        if self._process != os.getpid():
            raise RuntimeError(
                f"{what} belongs to process {self._process}, and this is process {os.getpid()}, forked from it; "
                "a connection cannot be shared: open another one here"
            )


class Background:
    """One task. Any task of the same event loop may start it, wait for it and stop it."""

    def __init__(self, main: Main, *, name: str) -> None:
        self._main = main
        self._name = name
        self._scope = anyio.CancelScope()
        self._settled: anyio.Event | None = anyio.Event()
        """Set once the task is up or has ended; then there is none, as an event takes 700 bytes."""
        self._ended = anyio.Event()
        self._waiting = 0
        self._has_started = False
        self._up = False
        self._error: Exception | None = None

    @property
    def ended(self) -> bool:
        """True if the task has ended, also when it ended with its event loop."""
        return self._ended.is_set()

    async def start(self) -> None:
        """Start the task and wait until it is up. Several tasks may wait.

        Raises the error with which the task ends before it is up. If the caller is cancelled, the task is stopped,
        unless another caller also waits for it.
        """
        if not self._has_started:
            self._has_started = True
            _spawn(self._run, self._name)
        self._waiting += 1
        try:
            if self._settled is not None:
                await self._settled.wait()
        except BaseException:
            if self._waiting == 1 and self._settled is not None:
                await self.stop()
            raise
        finally:
            self._waiting -= 1
        if self._error is not None and not self._up:
            raise self._error

    def cancel(self) -> None:
        """Cancel the task. Never waits."""
        self._scope.cancel()

    async def stop(self) -> None:
        """Cancel the task and wait for its end. Raises, once, the error that ended it after it was up."""
        self.cancel()
        await self.wait()

    async def wait(self) -> None:
        """Wait for the end of the task, also when the caller is cancelled: the end takes a bounded time.

        Raises, once, the error that ended the task after it was up.
        """
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
        if self._up and self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._main(task_status=StartedCallback(self._is_up))
        except Exception as error:
            self._error = single(error)
        finally:
            self._ended.set()
            self._settle()

    def _is_up(self) -> None:
        self._up = True
        self._settle()

    def _settle(self) -> None:
        if self._settled is not None:
            self._settled.set()
            self._settled = None


class StartedCallback(TaskStatus[None]):
    """A task status that calls a function when the task is up."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def started(self, value: None = None) -> None:
        self._then()


_tasks: set[asyncio.Task[None]] = set()
"""The running tasks: asyncio itself has only weak references to its tasks."""


def _spawn(run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    loop = running_loop()
    if loop is None:
        import trio.lowlevel

        trio.lowlevel.spawn_system_task(run, name=name, context=copy_context())
        return
    task = loop.create_task(run(), name=name)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return asyncio's event loop, or None on another backend."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _running() -> object:
    """Return an object that identifies the running event loop: always the same one for one event loop."""
    return running_loop() or anyio.lowlevel.current_token().native_token


def is_cancellation(error: BaseException | None) -> bool:
    """Return whether `error` is the event loop's cancellation or a group that contains one."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(cancelled) is not None
    return isinstance(error, cancelled)


def single(error: Exception) -> Exception:
    """Return the only error in nested groups, or the group if it contains several."""
    found = error
    while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return error if isinstance(found, ExceptionGroup) else found


@contextmanager
def single_errors() -> Iterator[None]:
    """Raise the only error of a task group without the group, so that users catch the error that was raised."""
    try:
        yield
    except ExceptionGroup as group:
        error = single(group)
        if error is group:
            raise
        raise error from error.__cause__
