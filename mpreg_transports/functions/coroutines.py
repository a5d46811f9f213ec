"""`async def` bodies: each runs in a task and a context of its own, and is cancelled once.

A body may clean up after itself (`finally: await ...`), as in a plain asyncio task; anyio would cancel each of its
awaits again. A body that goes on after its cancellation neither spins nor keeps the node from ending: at the node's end
it is abandoned, which ends its task and leaves the coroutine suspended. Outcomes go to the driver; this module does not
use calls.

On trio cancellation is a state, not an event. There a body is shielded from the moment at which the cancellation was
raised in it, with the same effect; only tasks in its own nurseries are cancelled in trio's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any, Final

import anyio

from mpreg_proto.effects import Outcome, Returned, Stopped
from mpreg_transports.functions.exceptions import describe_exception

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
"""Starts a task of the driver."""

_OWN_FRAMES: Final = 3
"""The frames between a task and the body in it."""
_abandoned: list[object] = []
"""The coroutines that did not end with their node.

If they were collected, Python would close each again, and log an error to stderr when it refuses.
"""


class _Abandoned(BaseException):
    """Ends the task of a body, not the body."""


class CoroutineRun:
    """One body. `done` is called once with its outcome, in its task, unless the body was abandoned before."""

    def __init__(
        self,
        call: Callable[[], Awaitable[Any]],
        done: Callable[[Outcome], None],
        *,
        on_start: Callable[[], None],
        own_frames: int = _OWN_FRAMES,
    ) -> None:
        """Create the run; `on_start` is called when its task begins. `own_frames` are left out of tracebacks."""
        self._call: Callable[[], Awaitable[Any]] | None = call
        """The call with its arguments. It is cleared once the body has them, so that nothing here keeps them."""
        self._done = done
        self._on_start: Callable[[], None] | None = on_start
        self._own_frames = own_frames
        self._cancelled = False
        self._is_abandoned = False
        self._ended = False
        self._cancellation: type[BaseException] = asyncio.CancelledError
        self._task: asyncio.Task[None] | None = None
        self._scopes: tuple[anyio.CancelScope, anyio.CancelScope] | None = None

    def start(self, context: Context, loop: asyncio.AbstractEventLoop | None, spawn: Spawn) -> None:
        """Start the body's task; `loop` is asyncio's, None on trio."""
        if loop is not None:
            self._task = loop.create_task(self._main(), context=context)
            self._task.add_done_callback(self._on_task_done)
        else:
            self._cancellation = anyio.get_cancelled_exc_class()
            self._scopes = (anyio.CancelScope(shield=True), anyio.CancelScope())
            context.run(spawn, self._main_on_trio)

    def cancel(self) -> None:
        """Raise a cancellation in the body at its next await. A second call does nothing."""
        if self._cancelled or self._ended:
            return
        self._cancelled = True
        if self._scopes is not None:
            self._scopes[0].cancel()
        elif self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """End the body's task, wherever the body is; its outcome is not reported."""
        self._is_abandoned = True
        if self._scopes is not None:
            self._scopes[1].shield = False
            self._scopes[0].cancel()
        elif self._task is not None:
            self._task.cancel()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """Report Stopped for a task that was cancelled before its first step: nothing else has reported it."""
        if not self._ended:
            self._finish(Stopped())

    def _finish(self, outcome: Outcome) -> None:
        self._ended = True
        self._call = self._on_start = None  # the receiver of `done` refers to this body: a cycle would keep arguments
        if not self._is_abandoned:
            self._done(outcome)

    async def _main_on_trio(self) -> None:
        assert self._scopes is not None
        outer, inner = self._scopes
        try:
            with outer, inner:
                await self._main()
        except RuntimeError:
            if not self._is_abandoned:  # an abandoned body is still within its own scopes, for which trio raises
                raise
        if not self._ended:
            self._finish(Stopped())

    async def _main(self) -> None:
        assert self._on_start is not None
        self._on_start()
        outcome: Outcome
        try:
            outcome = Stopped() if self._cancelled else Returned(await self._body())
        except _Abandoned:
            self._ended = True
            return
        except self._cancellation as error:
            outcome = Stopped() if self._cancelled else describe_exception(error, skip_frames=self._own_frames)
        except BaseException as error:  # an exception of a body is its call's error, never the node's end
            outcome = describe_exception(error, skip_frames=self._own_frames)
        self._finish(outcome)

    async def _body(self) -> Any:
        call, self._call = self._call, None
        assert call is not None
        awaitable = call()
        del call
        return await self._drive(awaitable if type(awaitable) is CoroutineType else _as_coroutine(awaitable))

    @coroutine
    def _drive(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await `body`, and inspect each exception that its event loop raises in it."""
        value: Any = None
        error: BaseException | None = None
        cancellation_seen = False
        while True:
            try:
                if error is None:
                    yielded = body.send(value)
                else:
                    thrown, error = error, None
                    try:
                        yielded = body.throw(thrown)
                    finally:
                        del thrown  # else its traceback and this frame would refer to each other
            except StopIteration as end:
                return end.value
            if cancellation_seen and self._scopes is not None:
                self._scopes[1].shield = True  # once is enough; set before, a scope of the body might absorb it
            value = error = None
            try:
                value = yield yielded
            except BaseException as caught:
                error = caught
            if self._is_abandoned or type(error) is GeneratorExit:  # its event loop has ended before it
                self._is_abandoned = True
                _abandoned.append(body)
                raise _Abandoned
            if self._scopes is not None and self._cancelled:
                what = error or getattr(value, "error", None)  # trio sends outcomes, of which one may hold an error
                if isinstance(what, self._cancellation):
                    cancellation_seen = True


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
