"""The bodies of generators: stepped in a worker thread or in a task, as far as their consumer wants items.

The core says how many items may be produced (`demand`). A generator that has produced them waits after its last
`yield`: a `def` in its thread, an `async def` in its task. A generator that is cancelled is closed there, so that its
`finally` runs. Items go to the driver in order, several together if the event loop is busy; the outcome follows them.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context
from typing import Any, Final

import anyio
import anyio.lowlevel

from mpreg_proto.effects import Outcome, Returned, Stopped
from mpreg_transports.functions.coroutines import CoroutineRun, Spawn
from mpreg_transports.functions.exceptions import describe_exception
from mpreg_transports.functions.threads import Threads

Deliver = Callable[[list[Any]], None]
"""Takes the next items, in the event loop's thread."""

_TASK_FRAMES: Final = 4
"""The frames between a task and the generator in it."""


def is_generator(call: Callable[..., Any]) -> bool:
    """Return whether a call of `call` returns a generator or an async generator, as far as Python knows."""
    own = type(call).__call__
    checks = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(check(one) for one in (call, own) for check in checks)


def is_async_generator(call: Callable[..., Any]) -> bool:
    """Return whether a call of `call` returns an async generator, as far as Python knows."""
    return inspect.isasyncgenfunction(call) or inspect.isasyncgenfunction(type(call).__call__)


class GeneratorThread:
    """A `def` generator in a worker thread. It keeps the thread until it ends, also while it waits."""

    def __init__(
        self,
        call: Callable[[], Generator[Any, Any, Any]],
        deliver: Deliver,
        done: Callable[[Outcome], None],
        *,
        demand: int,
        call_soon_threadsafe: Callable[..., None],
    ) -> None:
        self._call: Callable[[], Generator[Any, Any, Any]] | None = call
        self._generator: Generator[Any, Any, Any] | None = None
        self._context: Context | None = None
        self._deliver = deliver
        self._done = done
        self._call_soon_threadsafe = call_soon_threadsafe
        self._changed = threading.Condition()
        self._demand = demand
        self._closing = False
        self._items: list[Any] = []
        """The items that the event loop has not taken yet."""
        self.on_change: Callable[[], None] | None = None
        """Called when `is_ready` may have become true, for threads that cannot wait in `run` (`use_threads`)."""

    def start(self, context: Context, threads: Threads) -> None:
        """Start it. Raises RuntimeError when the system allows no more threads."""
        self._context = context
        threads.start(self.run, self._settle, self._call_soon_threadsafe)

    def demand(self, items: int) -> None:
        """Let it produce so many more items. Called in the event loop's thread."""
        with self._changed:
            self._demand += items
            self._changed.notify()
        self._notify()

    def cancel(self) -> None:
        """Close the generator at its next `yield`, or at the one where it waits."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._notify()

    def _notify(self) -> None:
        if self.on_change is not None:
            self.on_change()

    @property
    def is_ready(self) -> bool:
        """True if an item is wanted, or the generator is to be closed."""
        return self._demand > 0 or self._closing

    def run(self) -> Outcome:
        """Produce all items, and wait in between. Called in the worker thread."""
        while (outcome := self.advance()) is None:
            with self._changed:
                while not self.is_ready:
                    self._changed.wait()
        return outcome

    def advance(self) -> Outcome | None:
        """Produce the items that are wanted. Return the outcome, or None if the generator waits for `is_ready`."""
        assert self._context is not None
        try:
            return self._context.run(self._produce)
        except BaseException as error:  # in a worker thread of this package only the body raises
            return describe_exception(error, skip_frames=2)

    def _produce(self) -> Outcome | None:
        if self._generator is None:
            call, self._call = self._call, None
            assert call is not None
            self._generator = call()
            del call  # it keeps the arguments
        generator, ended = self._generator, True
        try:
            while self._may_go_on():
                try:
                    item = next(generator)
                except StopIteration:
                    return Returned(None)
                self._emit(item)
                del item
            ended = self._closing
        finally:
            if ended:
                self._generator = None
                generator.close()
        return Stopped() if ended else None

    def _may_go_on(self) -> bool:
        """Use up one item of the demand. Return False if there is none, or if the generator is to be closed."""
        with self._changed:
            if self._closing or not self._demand:
                return False
            self._demand -= 1
            return True

    def _emit(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            first = len(self._items) == 1
        if first:
            self._call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        with self._changed:
            items, self._items = self._items, []
        if items:
            self._deliver(items)

    def _settle(self, outcome: Outcome) -> None:
        self._flush()
        self._done(outcome)


class GeneratorTask:
    """An `async def` generator in a task of its own."""

    def __init__(
        self,
        call: Callable[[], AsyncGenerator[Any, Any]],
        deliver: Deliver,
        done: Callable[[Outcome], None],
        *,
        demand: int,
        on_start: Callable[[], None],
    ) -> None:
        self._call: Callable[[], AsyncGenerator[Any, Any]] | None = call
        self._deliver = deliver
        self._demand = demand
        self._wanted = anyio.Event()
        self._closing = False
        self.body: CoroutineRun = CoroutineRun(self._step, done, on_start=on_start, own_frames=_TASK_FRAMES)

    def start(self, context: Context, loop: asyncio.AbstractEventLoop | None, spawn: Spawn) -> None:
        """Start its task."""
        self.body.start(context, loop, spawn)

    def demand(self, items: int) -> None:
        """Let it produce so many more items."""
        self._demand += items
        self._wanted.set()

    def cancel(self) -> None:
        """Raise a cancellation in the generator at its next await; where it waits, close it."""
        self._closing = True
        self.body.cancel()

    async def _step(self) -> None:
        call, self._call = self._call, None
        assert call is not None
        generator = call()
        del call  # it keeps the arguments
        next_step: Callable[[AsyncGenerator[Any, Any]], Awaitable[Any]] = _unmanaged_step
        try:
            while await self._may_go_on():
                try:
                    item = await next_step(generator)
                except StopAsyncIteration:
                    return
                next_step = _step
                self._deliver([item])
                del item
        finally:
            await generator.aclose()

    async def _may_go_on(self) -> bool:
        """Wait until an item is wanted. Return False if the generator is to be closed, whatever it has caught."""
        while not self._demand and not self._closing:
            self._wanted = anyio.Event()
            await self._wanted.wait()
        if self._closing:  # on trio a cancellation that was not raised yet is raised here, not in the clean-up
            await anyio.lowlevel.checkpoint()
        self._demand -= 1
        return not self._closing


def _step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    return anext(generator)


def _unmanaged_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Return the next step of an async generator, which the event loop does not get to know with its first step.

    It would close the generator at its end; this module closes it, or abandons it.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)


GeneratorRun = GeneratorThread | GeneratorTask
