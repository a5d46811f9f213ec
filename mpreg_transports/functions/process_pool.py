"""The processes of a node that run its `def` functions: `Server(processes=N)`, `mpreg serve --processes N`.

The processes are spawned, never forked: a fork of a process with threads copies locks that nobody releases. They import
the functions by module and name. `check_importable` finds out at once whether they can: it starts the processes and
imports every function in one of them. A signal to a whole process group, such as that of Ctrl-C, does not end them:
the node lets running calls finish, and then ends its processes itself. They do not outlive it, also if it was killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

from mpreg_proto.describe import exception_text, type_name
from mpreg_proto.effects import Outcome, Raised, Returned, Stopped
from mpreg_transports.errors import CannotImport
from mpreg_transports.functions.contexts import Contexts
from mpreg_transports.functions.pools import Pool, PoolRun, not_importable

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS: Final = 60.0
"""The time for the processes to start and to import all functions."""
_END_SECONDS: Final = 2.0
_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""The signals that a terminal or a service manager sends to all processes of a group."""


class ProcessPool(ProcessPoolExecutor):
    """A `ProcessPoolExecutor` whose processes ignore the signals to a group and end with their parent."""

    ends_at_once: Final = True

    def __init__(self, count: int) -> None:
        super().__init__(count, mp_context=get_context("spawn"), initializer=_begin)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call. The first one starts the processes, which inherit the mask of signals from this thread."""
        with _signals_blocked():
            return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes at once, whatever they run; with `wait` they have ended, at most 2 s later."""
        for process in list((self._processes or {}).values()):
            with suppress(Exception):
                process.kill()
        end = partial(super().shutdown, wait=True, cancel_futures=cancel_futures)
        ending = threading.Thread(target=end, name="mpreg end of processes", daemon=True)
        ending.start()
        if wait:
            ending.join(_END_SECONDS)


def process_pool(count: int) -> Pool:
    """Return a pool of `count` processes, which start with the first call; a broken one is replaced."""
    return Pool(partial(ProcessPool, count))


def check_importable(pool: Pool, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Start the processes, and raise CannotImport if they cannot import these functions. It blocks for a while."""
    pickled: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    for name, call in functions.items():
        if (reason := not_importable(call)) is not None:
            failed[name] = reason
            continue
        try:
            pickled[name] = pickle.dumps(call)
        except Exception as error:
            failed[name] = f"cannot be pickled: {exception_text(error)}"
    if not failed:
        failed = _import_errors(pool, pickled)
    if failed:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in failed.items())
        raise CannotImport(
            f"the processes of the node cannot import its functions: {reasons}. Define such functions at the top level "
            "of a module, or keep them in this process: async def, inline=True, or executor=ThreadPoolExecutor()"
        )


def _import_errors(pool: Pool, pickled: Mapping[str, bytes]) -> dict[str, str]:
    """Return the error of each function that a process cannot import. Raises CannotImport if none starts."""
    outcome = _outcome(pool.start(_import_all, [pickled], {}, Contexts().for_thread()))
    if isinstance(outcome, Returned):
        return dict(outcome.value)
    if isinstance(outcome, Stopped):
        raise CannotImport(f"the processes of the node have not imported its functions within {_START_SECONDS:g} s")
    reason = outcome.message if isinstance(outcome, Raised) else outcome.reason
    raise CannotImport(
        f"the processes of the node do not start: {reason}. A program that runs its own server does so below "
        '`if __name__ == "__main__":`, because they import it'
    )


def _outcome(body: Any) -> Outcome:
    if not isinstance(body, PoolRun):
        return body  # type: ignore[no-any-return]
    outcomes: list[Outcome] = []
    done = threading.Event()

    def settle(run: PoolRun, outcome: Outcome) -> None:
        final = run.record_outcome(outcome)
        if final is not None:
            outcomes.append(final)
            done.set()

    body.add_done_callback(settle)
    if not done.wait(_START_SECONDS):
        body.cancel()
        return Stopped()
    return outcomes[0]


def _import_all(pickled: Mapping[str, bytes]) -> dict[str, str]:
    """Import these functions, in one of the processes; return the errors by name."""
    failed: dict[str, str] = {}
    for name, data in pickled.items():
        try:
            pickle.loads(data)
        except BaseException as error:
            failed[name] = f"does not import there: {type_name(type(error))}: {exception_text(error)}"
    return failed


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals to a group in this thread, and in the processes and threads that it starts meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Prepare a process of the pool, before its first call."""
    for number in _SIGNALS:
        signal.signal(number, _ignore)  # not SIG_IGN, which the programs that a function runs would inherit
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, name="mpreg end with the node", daemon=True).start()


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a process of a pool has a parent"
    parent.join()
    os._exit(1)
