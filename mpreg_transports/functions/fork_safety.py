"""Cleanup in a forked child: the node's sockets, and the socket pair on which its signals arrive.

`executor=ProcessPoolExecutor()` forks workers from a process that listens. A child that kept the listening socket would
block the port after the node's end. A child that kept a link would hide that end from its peer. A signal to a child
would reach the parent's event loop over the socket pair that both have. So a child closes the sockets of this package
and restores the signal handlers from before its node ran. Sockets and handlers of others are not touched.
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
    """An object that is notified in a forked child."""

    def on_fork(self) -> None: ...


_sockets: WeakKeyDictionary[HasFileno, tuple[int, int]] = WeakKeyDictionary()
"""The sockets, each with its identity by `fstat`: by the time of a fork its number may belong to another file."""
_listeners: WeakSet[ForkListener] = WeakSet()
_replaced_handlers: dict[signal.Signals, tuple[Any, Any]] = {}
"""The handlers that a node of this process has replaced, and those that it has installed."""


def close_on_fork(sock: HasFileno) -> None:
    """Close the copy of `sock` in every child that is forked from now on; the parent's socket is not touched."""
    with suppress(OSError, ValueError):
        _sockets[sock] = _identity(sock.fileno())


def notify_on_fork(listener: ForkListener) -> None:
    """Call `listener.on_fork()` in each forked child, before anything else runs there."""
    _listeners.add(listener)


@contextmanager
def restore_signals_on_fork(handlers: dict[signal.Signals, tuple[Any, Any]]) -> Iterator[None]:
    """Restore the earlier handlers in children that are forked in this block: `{signal: (before, the node's own)}`."""
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
    """Replace each socket by the null device.

    Its number stays taken, because the object that has it may still close it.
    """
    sockets = list(_sockets.items())
    _sockets.clear()  # a grandchild inherits none of these
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
    except OSError:  # no file descriptor is free; a free number is better than a blocked port
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
