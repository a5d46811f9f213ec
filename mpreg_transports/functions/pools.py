"""Executors that run bodies: handing a body over, what became of it, and what follows when an executor takes no more.

`submit` that raises is a refusal: the body has not begun, the call goes elsewhere. A body that was in an executor when
that broke may have begun. An executor that was given and takes no more is closed, and the driver withdraws its
functions; one that a function has made is made anew, a few times in a row. The standard library's executors get a
`_Work`, which describes exceptions where they are raised and keeps calls' contexts apart; others get the function as it
is, as nobody knows what they do with it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final

from mpreg_proto.describe import exception_text, type_name
from mpreg_proto.effects import Lost, NotStarted, Outcome, Raised, Returned, Stopped
from mpreg_transports.functions.exceptions import describe_exception

ExecutorSource = Executor | Callable[[], Executor]
"""What `executor=` takes."""

_TRIES: Final = 3
"""Executors made in a row of which none has finished a body; then the functions are withdrawn."""
_SHUT: Final = ("_shutdown", "_shutdown_thread", "_broken")
"""Where the standard library's executors and their like say that they take no more."""


class Pool:
    """One executor, or a function that makes one, and all functions that run in it."""

    def __init__(self, source: ExecutorSource) -> None:
        self.closed_reason = ""
        """Why it takes no more calls, ever; empty while it may."""
        self._make = None if isinstance(source, Executor) else source
        self._executor = source if isinstance(source, Executor) else None
        self._tries = 0

    @property
    def of_processes(self) -> bool:
        """Whether it is known to import what it runs in other processes."""
        return isinstance(self._executor, ProcessPoolExecutor)

    def start(
        self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], context: Context
    ) -> PoolRun | NotStarted | Lost:
        """Hand a body over. NotStarted: it has not begun and never will. Lost: it may have, and nobody can tell."""
        refused = NotStarted(self.closed_reason)
        while not self.closed_reason:
            executor = self._executor
            if executor is None and (executor := self._create_executor()) is None:
                continue
            is_stdlib = isinstance(executor, (ThreadPoolExecutor, ProcessPoolExecutor))
            work = _Work(call, args, kwargs, context) if is_stdlib else None
            try:
                future = executor.submit(work) if work is not None else executor.submit(call, *args, **kwargs)
                return PoolRun(self, executor, future)
            except BaseException as error:
                cause = f"its executor takes no calls: {type_name(type(error))}: {exception_text(error)}"
                if work is not None and not work.claim():  # it was queued, and begun, before there was an error
                    return Lost(cause)
                refused = NotStarted(cause)
                if not _takes_no_more(executor, error):
                    return refused
                self.mark_broken(executor, refused.reason)
        return refused if refused.reason else NotStarted(self.closed_reason)

    def mark_broken(self, executor: Executor, cause: str) -> None:
        """`executor` takes no more: make another for the next call, or give up."""
        if executor is not self._executor:
            return  # this is known, and there is another
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
        """A body has come to its end in it."""
        self._tries = 0

    def close(self) -> None:
        """The node has ended: so does an executor that was made for it. The next call makes another."""
        if self._make is not None:
            executor, self._executor = self._executor, None
            self._tries = 0
            if executor is not None:
                with suppress(Exception):
                    executor.shutdown(wait=False, cancel_futures=True)

    def _create_executor(self) -> Executor | None:
        assert self._make is not None
        self._tries += 1
        try:
            made: object = self._make()
            if isinstance(made, Executor):
                self._executor = made
                return made
            cause = f"the function given as executor= made {type_name(type(made))}, expected an Executor"
        except BaseException as error:
            cause = f"the function given as executor= raised {type_name(type(error))}: {exception_text(error)}"
        if self._tries >= _TRIES:
            self.closed_reason = cause
        return None


class Pools:
    """The pools of one server: one for each executor or function that makes one, however many functions run in it."""

    def __init__(self) -> None:
        self._pools: list[tuple[ExecutorSource, Pool]] = []

    def pool_for(self, source: ExecutorSource) -> Pool:
        """The pool for what was given as `executor=`."""
        self._pools = [(one, pool) for one, pool in self._pools if not pool.closed_reason]
        for one, pool in self._pools:
            if one is source:
                return pool
        self._pools.append((source, Pool(source)))
        return self._pools[-1][1]


class PoolRun:
    """One body in an executor."""

    def __init__(self, pool: Pool, executor: Executor, future: Future[Any]) -> None:
        self._pool = pool
        self._executor = executor
        self._future = future
        self._cancelled = False

    def add_done_callback(self, done: Callable[[PoolRun, Outcome], None]) -> None:
        """Have `done` told its outcome, in any thread; in this very one if there is one already."""
        self._future.add_done_callback(lambda future: done(self, self._outcome(future)))

    def cancel(self) -> None:
        """Take it out of the executor's queue; if it has begun it goes on."""
        self._cancelled = True
        self._future.cancel()

    def record_outcome(self, outcome: Outcome) -> None:
        """Draw conclusions about the executor; in the loop's thread."""
        if isinstance(outcome, Lost):
            self._pool.mark_broken(self._executor, outcome.reason)
        elif isinstance(outcome, (Returned, Raised)):
            self._pool.finished()

    def _outcome(self, future: Future[Any]) -> Outcome:
        is_stdlib = isinstance(self._executor, (ThreadPoolExecutor, ProcessPoolExecutor))
        if future.cancelled():
            if self._cancelled:
                return Stopped()
            cause = "its executor was shut down before it came to this call"
            return NotStarted(cause) if is_stdlib else Lost("its executor has cancelled it")
        error = future.exception()
        if error is not None:
            if issubclass(type(error), BrokenExecutor):
                return Lost(f"{type_name(type(error))}: {exception_text(error)}")
            return describe_exception(error, skip_frames=1)
        result = future.result()
        if not is_stdlib:
            return Returned(result)
        return _unpacked(result) if type(result) is bytes else result


class _Work:
    """One call for an executor of the standard library; called here, or pickled and called in another process."""

    def __init__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], context: Context) -> None:
        self._call = call
        self._args = args
        self._kwargs = kwargs
        self._context = context
        self._unclaimed = [True]

    def claim(self) -> bool:
        """Whether it is the asker's to begin, or to call off: the first who asks has it."""
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
        """Pickled when a process is about to get it."""
        if not self.claim():
            raise RuntimeError("this call went elsewhere")
        return _Sent, (pickle.dumps((self._call, self._args, self._kwargs)),)


class _Sent:
    """A `_Work` in another process. What comes of it goes back as bytes, so that no value ends a pool."""

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
    """Whether `error` of `submit` means that the executor is broken or shut down, and not that one call was refused."""
    if issubclass(type(error), BrokenExecutor):
        return True
    closed_flags = [bool(getattr(executor, name)) for name in _SHUT if hasattr(executor, name)]
    return any(closed_flags) if closed_flags else issubclass(type(error), RuntimeError)
