"""Checks that users' functions are deterministic: what could differ in the next run raises while a body runs.

There are two mechanisms: names that are replaced during a simulation (clocks, random numbers, entropy), and the
interpreter's audit events (threads, sockets, processes). A second run of a failing seed finds what escapes both.
"""

from __future__ import annotations

import _thread
import os
import random
import secrets
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NAMES: tuple[tuple[Any, str], ...] = (
    *(
        (time, name)
        for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
    ),
    *(
        (random, name)
        for name in ("random", "randint", "randrange", "choice", "choices", "shuffle", "uniform", "sample")
    ),
    *((random, name) for name in ("getrandbits", "gauss", "expovariate")),
    *((uuid, name) for name in ("uuid1", "uuid4")),
    *((secrets, name) for name in ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice")),
    (os, "urandom"),
    (threading.Thread, "start"),
    (_thread, "start_new_thread"),
)
"""The names that are replaced while a simulation runs. A body that calls one gets a DeterminismError."""

EVENTS = (
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.posix_spawn",
    "_thread.start_new_thread",
    "_thread.start_joinable_thread",
    "time.sleep",
)
"""The audit events (sys.audit) that a body must not raise. The events of threads and of sleep are newer than Python
3.11; on 3.11 the replaced names detect them."""


class DeterminismError(Exception):
    """A simulated function was not deterministic. The text contains the operation and its place in the code."""


class _State(threading.local):
    def __init__(self) -> None:
        self.inside = False


_state = _State()
_hooked: list[bool] = []


class guarded:  # a class, because a generator-based context manager takes three times as long
    """A context manager around each run of a body."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before, _state.inside = _state.inside, True

    def __exit__(self, *_: object) -> None:
        _state.inside = self._before


@contextmanager
def forbid_nondeterminism() -> Iterator[None]:
    """Run a simulation inside this context manager. Outside of bodies all names work as usual."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)
    originals = [(owner, name, getattr(owner, name)) for owner, name in NAMES]
    for owner, name, original in originals:
        setattr(owner, name, _refusing(f"{owner.__name__}.{name}", original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _refusing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if _state.inside:
            raise _error(name)
        return original(*args, **kwargs)

    return refuse


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _state.inside and event in EVENTS:
        raise _error(event)


def _error(what: str) -> DeterminismError:
    _state.inside = False  # so that building the message may call anything
    try:
        here = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
        place = f"{here[-1].filename}:{here[-1].lineno}" if here else "an unknown place"
    finally:
        _state.inside = True
    advice = "a simulated function takes its time from mpreg_transports.sleep and its chance from its arguments"
    return DeterminismError(f"{what} at {place}: {advice}")
