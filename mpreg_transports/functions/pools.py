"""The executors that run bodies: submission, outcomes, and the handling of an executor that takes no more calls.

If `submit` raises, it has refused: the body has not begun, and the call goes to another node. A body in an executor
that breaks may have begun. A given executor that takes no more calls is closed, and the driver withdraws its functions.
If a function makes the executor, a new one is made, a few times in a row, in a worker thread: it may wait for a cluster
that does not answer, and meanwhile only the calls of its functions wait. The standard library's executors get a
`_Work`, which describes exceptions where they are raised, separates the contexts of calls, and knows if a body was
still in the queue when the executor broke: such a body runs in the next executor. Others get the plain function, as
their handling of it is unknown; of Dask's the errors are known that mean a lost worker and a closed client.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

from mpreg_proto.describe import exception_text, type_name
from mpreg_proto.effects import Lost, NotStarted, Outcome, Raised, Returned, Stopped
from mpreg_transports.errors import CannotImport
from mpreg_transports.functions.exceptions import describe_exception

ExecutorSource = Executor | Callable[[], Executor]
"""The type of `executor=`."""
InThread = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Runs the first function in a worker thread, and then the second with its result in the event loop.

Raises RuntimeError when the system allows no more threads; then nothing has started.
"""

_TRIES: Final = 3
"""The executors made in a row of which none has finished a body; then the functions are withdrawn."""
_SHUT: Final = ("_shutdown", "_shutdown_thread", "_broken")
"""The attributes by which the standard library's executors and similar ones show that they take no more calls."""
_CLIENT_CLOSED: Final = "distributed.client.ClosedClientError"
"""The error of Dask's executor for each call after the end of its client."""
_CLIENT_ENDS: Final = ("closing", "closed")
_WORKER_LOST: Final = "distributed.scheduler.KilledWorker"
"""The outcome of a call in Dask whose workers died. It concerns that call alone: others work, and new ones start."""


_Parts = tuple[Callable[..., Any], list[Any], dict[str, Any], Context]
"""A body: the function, its arguments, and the context in which it is called."""


class Pool:
    """One executor, or a function that makes one, and all functions that run in it."""

    def __init__(self, source: ExecutorSource) -> None:
        self.closed_reason: str = ""
        """The reason why it takes no more calls, ever; empty while it takes calls."""
        self._make = None if isinstance(source, Executor) else source
        self._executor = source if isinstance(source, Executor) else None
        self._tries = 0
        self._making = False
        """True while a thread makes the executor, for which the bodies in `_waiting` wait."""
        self._waiting: list[PoolRun] = []
        self.life: int = 0
        """The number of times that it was closed with its node."""

    def check(self, name: str, call: Callable[..., Any], *, make: bool = False) -> None:
        """Raise CannotImport for a function that the processes of the executor cannot import.

        With `make`, and for a doubtful function only, an executor is made to find out what it is: Dask's, for one, runs
        every function.
        """
        if not_importable(call) is None:
            return
        is_new = self._executor is None
        if is_new and make and not self.closed_reason:
            self._create_executor()
        if not isinstance(self._executor, ProcessPoolExecutor):
            return
        reason = not_importable(call, forked=_start_method(self._executor) == "fork")
        if reason is not None:
            if is_new:
                self.close()
            raise CannotImport(f"{name} {reason}: processes cannot import it; move it out")

    def start(
        self,
        call: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        context: Context,
        in_thread: InThread | None = None,
    ) -> PoolRun | NotStarted | Lost:
        """Submit a body. NotStarted: it has not begun and never will. Lost: it may have begun.

        With `in_thread`, the executor is made in a thread, and the body is submitted then; without, it is made here.
        """
        body = PoolRun(self, (call, args, kwargs, context), in_thread)
        ended = self.submit(body)
        return body if ended is None else ended

    def submit(self, body: PoolRun) -> NotStarted | Lost | None:
        """Submit a body, now or once there is an executor; return None, or its outcome as `start` does."""
        refused = NotStarted(self.closed_reason)
        while not self.closed_reason:
            if self._executor is None and body.in_thread is not None:
                return self._wait(body, body.in_thread)
            executor = self._executor
            if executor is None and (executor := self._create_executor()) is None:
                continue
            call, args, kwargs, context = body.parts
            is_stdlib = isinstance(executor, (ThreadPoolExecutor, ProcessPoolExecutor))
            work = _Work(call, args, kwargs, context) if is_stdlib else None
            try:
                future = executor.submit(work) if work is not None else executor.submit(call, *args, **kwargs)
            except BaseException as error:
                cause = f"its executor takes no calls: {type_name(type(error))}: {exception_text(error)}"
                if work is not None and not work.claim():  # it was queued, and began, before the error
                    return Lost(cause)
                refused = NotStarted(cause)
                if not _takes_no_more(executor, error):
                    return refused
                self.mark_broken(executor, refused.reason)
            else:
                body.submitted(executor, future, work)
                return None
        return refused if refused.reason else NotStarted(self.closed_reason)

    def _wait(self, body: PoolRun, in_thread: InThread) -> NotStarted | None:
        """Let a body wait for the executor, which a thread makes."""
        if not self._making:
            try:
                in_thread(partial(self._call_for, self.life), partial(self._made, self.life))
            except RuntimeError as error:
                return NotStarted(f"no worker thread could be started: {exception_text(error)}")
            self._making = True
        self._waiting.append(body)
        return None

    def stop_waiting(self, body: PoolRun) -> bool:
        """Remove a body that waits for the executor; return whether it did."""
        if body not in self._waiting:
            return False
        self._waiting.remove(body)
        return True

    def _call_for(self, life: int) -> Executor | str | None:
        """Make an executor, in a thread; None if its node has ended meanwhile, and nobody would shut it down."""
        made = self._call_factory()
        if life == self.life or isinstance(made, str):
            return made
        _shut_down(made)
        return None

    def _made(self, life: int, made: Executor | str | None) -> None:
        """Submit the bodies that have waited, in the event loop."""
        if life != self.life:
            if isinstance(made, Executor):
                _shut_down(made)
            return
        waiting, self._waiting, self._making = self._waiting, [], False
        if made is not None:
            self._record_made(made)
        for body in waiting:
            body.resume()

    def mark_broken(self, executor: Executor, cause: str) -> None:
        """Handle an `executor` that takes no more calls: make another for the next call, or close the pool."""
        if executor is not self._executor:
            return  # already known; another one exists
        if self._make is None:
            self.closed_reason = cause
            return
        self._executor = None
        with suppress(Exception):
            executor.shutdown(wait=False)
        if self._tries >= _TRIES:
            self.closed_reason = (
                f"{_TRIES} executors in a row broke before they had finished a call; the last one: {cause}"
            )

    def finished(self) -> None:
        """Record that a body has ended in the executor."""
        self._tries = 0

    def close(self) -> None:
        """Close an executor that was made for the ended node. The next call makes another."""
        if self._make is not None:
            executor, self._executor = self._executor, None
            self._tries = 0
            self._making, self._waiting = False, []
            self.life += 1
            if executor is not None:
                _shut_down(executor)

    def _create_executor(self) -> Executor | None:
        return self._record_made(self._call_factory())

    def _call_factory(self) -> Executor | str:
        """Return an executor, or the reason why there is none. Any thread may call it."""
        assert self._make is not None
        try:
            made: object = self._make()
        except BaseException as error:
            return f"the function given as executor= raised {type_name(type(error))}: {exception_text(error)}"
        if isinstance(made, Executor):
            return made
        return f"the function given as executor= made {type_name(type(made))}, expected an Executor"

    def _record_made(self, made: Executor | str) -> Executor | None:
        self._tries += 1
        if isinstance(made, Executor):
            self._executor = made
            return made
        if self._tries >= _TRIES:
            self.closed_reason = made
        return None


class Pools:
    """The pools of one server: one for each executor or function that makes one, for all functions that run in it."""

    def __init__(self) -> None:
        self._pools: list[tuple[ExecutorSource, Pool]] = []

    def pool_for(self, source: ExecutorSource) -> Pool:
        """Return the pool for an `executor=` argument."""
        self._pools = [(one, pool) for one, pool in self._pools if not pool.closed_reason]
        for one, pool in self._pools:
            if one is source:
                return pool
        self._pools.append((source, Pool(source)))
        return self._pools[-1][1]


class PoolRun:
    """One body in an executor, or one that waits for an executor that is being made."""

    def __init__(self, pool: Pool, parts: _Parts, in_thread: InThread | None) -> None:
        self.parts = parts
        self.in_thread = in_thread
        self._pool = pool
        self._executor: Executor | None = None
        self._future: Future[Any] | None = None
        self._work: _Work | None = None
        self._life = pool.life
        self._cancelled = False
        self._alone = False
        """True if the executor goes on, although it has lost this body."""
        self._done: Callable[[PoolRun, Outcome], None] | None = None

    def submitted(self, executor: Executor, future: Future[Any], work: _Work | None) -> None:
        """Record that the body is in an executor."""
        self._executor, self._future, self._work = executor, future, work
        if self._done is not None:
            self.add_done_callback(self._done)

    def add_done_callback(self, done: Callable[[PoolRun, Outcome], None]) -> None:
        """Call `done` with the outcome, in any thread; in the calling thread if there is an outcome already."""
        self._done = done
        if self._future is not None:
            self._future.add_done_callback(lambda future: done(self, self._outcome(future)))

    def cancel(self) -> None:
        """Remove the body from the executor's queue; if it has begun, it goes on."""
        self._cancelled = True
        if self._future is not None:
            self._future.cancel()
        elif self._pool.stop_waiting(self) and self._done is not None:
            self._done(self, Stopped())

    def resume(self) -> None:
        """Submit the body, which has waited for the executor."""
        ended = self._pool.submit(self)
        if ended is not None and self._done is not None:
            self._done(self, ended)

    def record_outcome(self, outcome: Outcome) -> Outcome | None:
        """Update the state of the executor from an outcome. Runs in the event loop's thread.

        Return the outcome of the body. None: it was in the queue of an executor that broke, and is in another now.
        """
        if self._executor is None:
            return outcome  # it was never in an executor
        if isinstance(outcome, (Lost, NotStarted)) and not self._alone:
            self._pool.mark_broken(self._executor, outcome.reason)
            if isinstance(outcome, NotStarted) and self._life == self._pool.life:
                return Stopped() if self._cancelled else self._start_again()
        elif isinstance(outcome, (Returned, Raised)):
            self._pool.finished()
        return outcome

    def _start_again(self) -> Outcome | None:
        """Submit the body to the next executor. Return its outcome if there is one already."""
        self._executor = self._future = self._work = None
        return self._pool.submit(self)

    def _outcome(self, future: Future[Any]) -> Outcome:
        assert self._executor is not None
        is_stdlib = isinstance(self._executor, (ThreadPoolExecutor, ProcessPoolExecutor))
        if future.cancelled():
            if self._cancelled:
                return Stopped()
            self._alone = not is_stdlib and not _is_closed(self._executor, unknown=True)
            cause = "its executor was shut down before it came to this call"
            return NotStarted(cause) if is_stdlib else Lost("its executor has cancelled it")
        error = future.exception()
        if error is not None:
            self._alone = _is_a(error, _WORKER_LOST)
            if self._alone or issubclass(type(error), BrokenExecutor):
                cause = f"{type_name(type(error))}: {exception_text(error)}"
                return NotStarted(cause) if self._work is not None and self._work.claim() else Lost(cause)
            return describe_exception(error, skip_frames=1)
        result = future.result()
        if not is_stdlib:
            return Returned(result)
        return _unpacked(result) if type(result) is bytes else result


class _Work:
    """One call for an executor of the standard library: called here, or pickled and called in another process."""

    def __init__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], context: Context) -> None:
        self._call = call
        self._args = args
        self._kwargs = kwargs
        self._context = context
        self._unclaimed = [True]

    def claim(self) -> bool:
        """Return True to the first caller only: it may run the call or cancel it."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def __call__(self) -> Outcome:
        if not self.claim():
            return Stopped()
        try:
            return Returned(self._context.run(self._call, *self._args, **self._kwargs))
        except BaseException as error:
            return describe_exception(error)

    def __reduce__(self) -> tuple[Any, ...]:
        """Claim and pickle the call, when a process is about to get it."""
        if not self.claim():
            raise RuntimeError("this call went elsewhere")
        return _Sent, (pickle.dumps((self._call, self._args, self._kwargs)),)


class _Sent:
    """A `_Work` in another process. The outcome returns as bytes, so that no value can break the executor."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> bytes:
        try:
            call, args, kwargs = pickle.loads(self._data)
            return pickle.dumps((copy_context().run(call, *args, **kwargs),))
        except BaseException as error:
            described = describe_exception(error)
            return pickle.dumps((described.kind, described.message, described.traceback))


def _unpacked(data: bytes) -> Outcome:
    try:
        fields = pickle.loads(data)
    except BaseException as error:
        return describe_exception(error, skip_frames=1)
    return Returned(fields[0]) if len(fields) == 1 else Raised(*fields)


def _takes_no_more(executor: Executor, error: BaseException) -> bool:
    """Return whether `error` of `submit` means a broken or closed executor, and not the refusal of one call."""
    if issubclass(type(error), BrokenExecutor) or _is_a(error, _CLIENT_CLOSED):
        return True
    return _is_closed(executor, unknown=issubclass(type(error), RuntimeError))


def _is_closed(executor: Executor, *, unknown: bool) -> bool:
    """Return whether an executor shows that it takes no more calls; `unknown` if it shows nothing at all."""
    flags = [bool(getattr(executor, name)) for name in _SHUT if hasattr(executor, name)]
    client = getattr(executor, "_client", None)  # Dask's
    return any(flags) or getattr(client, "status", "") in _CLIENT_ENDS if flags else unknown


def _is_a(error: BaseException, name: str) -> bool:
    """Return whether `error` is of a class of that full name, whose package is perhaps not installed."""
    try:
        return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(error).__mro__)
    except BaseException:  # a user's class may raise anything
        return False


def _start_method(executor: ProcessPoolExecutor) -> str:
    context = getattr(executor, "_mp_context", None)
    return str(context.get_start_method()) if context is not None else ""


def not_importable(call: Callable[..., Any], *, forked: bool = False) -> str | None:
    """Return the reason why no process can import `call` by module and name; None if one perhaps can.

    A forked process has the module `__main__` of an interactive session; a spawned one has not.
    """
    if "<" in getattr(call, "__qualname__", ""):
        return "is defined within a function or is a lambda"
    main = sys.modules.get("__main__")
    if not forked and getattr(call, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        return "is defined at the prompt"
    return None


def _shut_down(executor: Executor) -> None:
    """Shut down an executor that nobody uses any more, without waiting for the bodies in it."""
    with suppress(Exception):
        try:
            # An executor of the node's own processes ends them at once, and the process must not end before them.
            executor.shutdown(wait=getattr(executor, "ends_at_once", False), cancel_futures=True)
        except TypeError:  # Dask's has no such parameter
            executor.shutdown(wait=False)
