"""What a forked child must not keep of its parent: the node's sockets, and the wire on which its signals arrive.

`executor=ProcessPoolExecutor()` forks workers out of a process that listens. A child that kept the listening socket
would block the port after the node's end, one that kept a link would hide that end from its peer, and a signal to a
child would reach the parent's event loop over the pair that both have. So a child lets go of what is ours, and takes
signals as the process did before its node ran. What others have opened or installed is not touched.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int: ...


class ForkListener(Protocol):
    """An object that is told when it has come into a forked child."""

    def on_fork(self) -> None: ...


_sockets: WeakKeyDictionary[HasFileno, tuple[int, int]] = WeakKeyDictionary()
"""Sockets, each with what `fstat` says of it: its number may be another file's by the time of a fork."""
_listeners: WeakSet[ForkListener] = WeakSet()
_replaced_handlers: dict[signal.Signals, tuple[Any, Any]] = {}
"""The handlers that a node of this process has replaced, and those that it has installed."""


def close_on_fork(sock: HasFileno) -> None:
    """From now on a forked child lets go of its copy of `sock`; the parent's is not touched."""
    with suppress(OSError, ValueError):
        _sockets[sock] = _identity(sock.fileno())


def notify_on_fork(listener: ForkListener) -> None:
    """Have `listener.on_fork()` called in each forked child, before anything else runs there."""
    _listeners.add(listener)


@contextmanager
def restore_signals_on_fork(handlers: dict[signal.Signals, tuple[Any, Any]]) -> Iterator[None]:
    """Children that are forked meanwhile go back to the handlers of before: `{signal: (before, the node's own)}`."""
    _replaced_handlers.update(handlers)
    try:
        yield
    finally:
        for number in handlers:
            _replaced_handlers.pop(number, None)


def _identity(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


def _after_fork_in_child() -> None:
    _close_sockets()
    _restore_signals()
    listeners = list(_listeners)
    _listeners.clear()
    for listener in listeners:
        listener.on_fork()


def _close_sockets() -> None:
    """Put nothing in the place of each socket. Its number stays taken: the object that has it may yet close it."""
    sockets = list(_sockets.items())
    _sockets.clear()  # a grandchild has nothing of these
    if not sockets:
        return
    numbers: list[int] = []
    for sock, identity in sockets:
        with suppress(OSError, ValueError):
            number = sock.fileno()
            if number >= 0 and _identity(number) == identity:
                numbers.append(number)
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # out of files; better a free number than a held port
        for number in numbers:
            os.close(number)
        return
    for number in numbers:
        os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _restore_signals() -> None:
    handlers = list(_replaced_handlers.items())
    _replaced_handlers.clear()
    if not handlers:
        return
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number, (before, own) in handlers:
            if before is not None and signal.getsignal(number) is own:
                signal.signal(number, before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
