"""The signals on which a node leaves: SIGTERM, SIGINT, and SIGHUP unless it is ignored (`nohup`).

They reach the event loop of the main thread as calls between two callbacks, never within one. Where an event loop
supports no signals (Windows), Python's own handlers pass them on. In a forked child signals have the handlers from
before the node ran. A process that does not end after the signals is ended by force.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
from anyio.abc import TaskStatus

from mpreg_transports.functions import fork_safety
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.runtime import logs

log: logs.NodeLog = logs.get("mpreg")

_GRACEFUL_EXIT_SECONDS = 6.0
_FORCED_EXIT_SECONDS = 3.0
"""The seconds for a process to end after the grace, and after a second signal. Links may take 3 s to close."""

Handler = Any
"""The return type of `signal.getsignal`."""


def leaving_signals() -> tuple[signal.Signals, ...]:
    """Return the leaving signals that this platform has and that are not ignored."""
    found = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        found.append(hangup)
    if (ctrl_break := getattr(signal, "SIGBREAK", None)) is not None:
        found.append(ctrl_break)
    return tuple(found)


async def deliver_signals(
    deliver: Callable[[signal.Signals], None],
    blocked: Callable[[signal.Signals], None] = lambda number: None,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call `deliver` in this event loop for each signal, until cancelled.

    `blocked` is called at once, even while other code blocks the event loop, for a signal that arrives while an earlier
    one is not delivered yet. Outside the main thread there are no signals, and this returns at once.
    """
    if threading.current_thread() is not threading.main_thread():
        task_status.started()
        return
    numbers = leaving_signals()
    with ExitStack() as stack:
        before = stack.enter_context(_handlers_restored(numbers))
        try:
            signals = stack.enter_context(anyio.open_signal_receiver(*numbers))
        except NotImplementedError:
            _install_python_handlers(numbers, deliver)
            task_status.started()
            await anyio.sleep_forever()
            return
        undelivered = _UndeliveredSignals(numbers, blocked)
        own = {number: (handler, signal.getsignal(number)) for number, handler in before.items()}
        stack.enter_context(fork_safety.restore_signals_on_fork(own))
        task_status.started()
        async for number in signals:
            undelivered.count = 0
            deliver(number)


class _UndeliveredSignals:
    """A counter of undelivered signals: Python runs handlers also while a function blocks the event loop."""

    def __init__(self, numbers: tuple[signal.Signals, ...], blocked: Callable[[signal.Signals], None]) -> None:
        self.count = 0
        self._blocked = blocked
        for number in numbers:
            self._wrap(number, signal.getsignal(number))

    def _wrap(self, number: signal.Signals, handler: Handler) -> None:
        def taken(what: int, frame: object) -> None:
            self.count += 1
            if self.count > 1:
                self._blocked(number)
            if callable(handler):
                handler(what, frame)

        signal.signal(number, taken)


@contextmanager
def _handlers_restored(numbers: tuple[signal.Signals, ...]) -> Iterator[dict[signal.Signals, Handler]]:
    """Restore a program's own signal handlers at the end; event loops put the system's defaults in their place."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield before
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not installed by Python
                signal.signal(number, handler)


def _install_python_handlers(numbers: tuple[signal.Signals, ...], deliver: Callable[[signal.Signals], None]) -> None:
    """Install Python handlers, which interrupt any code: all that they do is to pass the signal to the event loop."""
    call_soon_threadsafe = get_call_soon_threadsafe()
    for number in numbers:
        signal.signal(number, lambda taken, frame: call_soon_threadsafe(deliver, signal.Signals(taken)))


class SignalExit:
    """Makes a node leave at a signal, and at once at a second one; ends a process that does not end after that.

    `leave` begins to leave; its second call ends the grace of `grace` nanoseconds. `draining` returns whether the node
    has begun to leave. Both are called in the event loop's thread.
    """

    def __init__(self, leave: Callable[[], None], draining: Callable[[], bool], *, grace: int) -> None:
        self._leave = leave
        self._draining = draining
        self._grace = grace
        self._forced_end: ForcedEnd | None = None

    @contextmanager
    def forced(self) -> Iterator[None]:
        """Within this block the process is ended by force some seconds after the grace or after a second signal."""
        forced = self._forced_end = ForcedEnd()
        try:
            yield
        finally:
            forced.disarm()
            self._forced_end = None

    async def deliver(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Handle each signal, until cancelled."""
        await deliver_signals(self._on_signal, self._on_signal_while_blocked, task_status=task_status)

    def _on_signal(self, number: signal.Signals) -> None:
        again = self._draining()
        grace = 0.0 if again else self._grace / 1e9
        kept = f"running calls have {grace:g} s to finish, a second signal ends them at once"
        log.info("%s: leaving the cluster, %s", number.name, "at once" if again else kept)
        if self._forced_end is not None:
            self._forced_end.arm(number, seconds=grace + (_FORCED_EXIT_SECONDS if again else _GRACEFUL_EXIT_SECONDS))
        self._leave()

    def _on_signal_while_blocked(self, number: signal.Signals) -> None:
        """Arm the forced end: a second signal has arrived while a function blocks the event loop, perhaps for ever."""
        if self._forced_end is not None:
            self._forced_end.arm_within_a_handler(number, seconds=_FORCED_EXIT_SECONDS)


class ForcedEnd:
    """Ends the process if it does not end by itself some time after a signal: a body may suppress its cancellation."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._at_once: object = None

    def arm(self, number: signal.Signals, *, seconds: float) -> None:
        """End the process after that many seconds; a later call replaces an earlier one."""
        self.disarm()
        timer = self._timer = threading.Timer(seconds, _end, (number,))
        timer.name, timer.daemon = "mpreg forced end", True
        timer.start()

    def arm_within_a_handler(self, number: signal.Signals, *, seconds: float) -> None:
        """Do the same in a signal handler, which may have interrupted the start of a thread: it takes no lock."""
        if self._at_once is None:
            self._at_once = object()
            _thread.start_new_thread(self._later, (number, seconds, self._at_once))

    def _later(self, number: signal.Signals, seconds: float, mark: object) -> None:
        time.sleep(seconds)
        if self._at_once is mark:
            _end(number)

    def disarm(self) -> None:
        """Cancel the forced end: the process ends by itself."""
        self._at_once = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _end(number: signal.Signals) -> None:
    text = "%s: something that runs here does not let the process end; ended by force"
    last_line = threading.Thread(target=log.error, args=(text, number.name), daemon=True)
    last_line.start()
    last_line.join(0.2)  # a log without a reader does not delay the end
    os._exit(128 + number)
