"""Checks that users' functions are deterministic: what could differ in the next run raises while a body runs.

There are four mechanisms: names that are replaced during a simulation (clocks, random numbers, entropy); the same names
in the module of a body, which `from time import time` put there, and the classes of datetime, all replaced while the
body runs; errors of asyncio, anyio and trio, which have no event loop there; and the interpreter's audit events
(threads, sockets, processes).

Not caught are names that another module than that of the body imported with `from`, methods that were bound before
(`now = datetime.now`), other C code that reads a clock, files, the order of a set of texts, `id` and `hash`. A second
run of a failing seed finds what escapes.
"""

from __future__ import annotations

import _thread
import datetime
import functools
import inspect
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
from typing import Any, ClassVar


def _there(owner: Any, names: str) -> tuple[tuple[Any, str], ...]:
    """Return the names of a module that this Python has."""
    return tuple((owner, name) for name in names.split() if hasattr(owner, name))


NAMES: tuple[tuple[Any, str], ...] = (
    *_there(time, "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns sleep"),
    *_there(time, "process_time process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns"),
    *_there(random, "random randint randrange choice choices shuffle uniform sample getrandbits gauss expovariate"),
    *_there(random, "betavariate binomialvariate gammavariate lognormvariate normalvariate paretovariate randbytes"),
    *_there(random, "seed triangular vonmisesvariate weibullvariate"),
    *_there(random, "_urandom"),  # of random.SystemRandom, and so of all of secrets
    *_there(uuid, "uuid1 uuid4 uuid6 uuid7"),
    *_there(secrets, "token_bytes token_hex token_urlsafe randbelow randbits choice"),
    *_there(os, "urandom getrandom"),
    (threading.Thread, "start"),
    (_thread, "start_new_thread"),
)
"""The names that are replaced while a simulation runs. A body that calls one gets a DeterminismError."""

NOW_WITHOUT: tuple[tuple[Any, str, int], ...] = (
    *((time, name, 0) for name in ("localtime", "gmtime", "ctime", "asctime")),
    (time, "strftime", 1),
    (random.Random, "seed", 1),
)
"""The names that read the clock or the system's entropy unless the argument at this place is given and not None."""

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

_ADVICE = "a simulated function takes its time from mpreg_transports.sleep and its chance from its arguments"
_PLUMBING = (__file__, random.__file__, secrets.__file__, uuid.__file__)
"""The files that are never the place at which a body used a forbidden name."""
_NO_LOOP = ("no running event loop", "must be called from async context", "no current event loop")
_NO_LOOP_KINDS = ("AsyncLibraryNotFoundError", "NoEventLoopError")


class DeterminismError(Exception):
    """A simulated function was not deterministic. The text contains the operation and its place in the code."""


class _State(threading.local):
    def __init__(self) -> None:
        self.inside = False


_state = _State()
_hooked: list[bool] = []
Replaced = tuple[tuple[dict[str, Any], str, Any, Any], ...]
"""Names in the module of a body: the module's names, the name, what it stands for, and what replaces it."""


class guarded:  # a class, because a generator-based context manager takes three times as long
    """A context manager around each run of a body; `names` are those of `names_in_module_of`."""

    __slots__ = ("_before", "_names")

    def __init__(self, names: Replaced = ()) -> None:
        self._names = names

    def __enter__(self) -> None:
        self._before, _state.inside = _state.inside, True
        datetime.datetime, datetime.date = _Datetime, _Date  # type: ignore[assignment, misc]
        for module, name, _, replacement in self._names:
            module[name] = replacement

    def __exit__(self, *_: object) -> None:
        for module, name, original, _replacement in self._names:
            module[name] = original
        if not self._before:
            datetime.datetime, datetime.date = _DATETIME, _DATE  # type: ignore[misc]
        _state.inside = self._before


@contextmanager
def forbid_nondeterminism() -> Iterator[None]:
    """Run a simulation inside this context manager. Outside of bodies all names work as usual."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)
    originals = [(owner, name, getattr(owner, name), _refusing(owner, name)) for owner, name in NAMES]
    originals += [
        (owner, name, getattr(owner, name), _refusing_now(owner, name, at)) for owner, name, at in NOW_WITHOUT
    ]
    for owner, name, _, replacement in originals:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original, _ in originals:
            setattr(owner, name, original)


def names_in_module_of(call: Callable[..., Any]) -> Replaced:
    """Return the names in the module of `call` that stand for a clock, for chance or for entropy."""
    names = _globals_of(call)
    return tuple(
        (names, name, value, _BY_ORIGINAL[id(value)][1]) for name, value in names.items() if id(value) in _BY_ORIGINAL
    )


def _globals_of(call: Any) -> dict[str, Any]:
    """Return the names of the module in which a function, a method, a partial or a callable object is defined."""
    while isinstance(call, functools.partial):
        call = call.func
    call = inspect.unwrap(call)
    found = getattr(call, "__globals__", None) or getattr(type(call).__call__, "__globals__", None)
    return found if isinstance(found, dict) else {}


def without_event_loop(function: str, error: BaseException | None) -> DeterminismError | None:
    """Return the error to raise if `error` comes from a body that needs an event loop, else None."""
    while error is not None:
        if type(error).__name__ in _NO_LOOP_KINDS or any(text in str(error) for text in _NO_LOOP):
            return DeterminismError(f"{function} needs an event loop ({error}): {AWAITS}")
        error = error.__cause__ or error.__context__
    return None


AWAITS = (
    "in a simulation a coroutine awaits mpreg_transports.sleep(seconds), in place of asyncio.sleep, anyio.sleep and "
    "trio.sleep, and other coroutines, nothing else"
)


def _label(owner: Any, name: str) -> str:
    """Return how users write a name."""
    return f"{owner.__module__}.{owner.__name__}.{name}" if isinstance(owner, type) else f"{owner.__name__}.{name}"


def _refusing(owner: Any, name: str) -> Callable[..., Any]:
    label, original = _label(owner, name), getattr(owner, name)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if _state.inside:
            raise _error(_OTHER_NAMES.get(label, label))
        return original(*args, **kwargs)

    return refuse


def _refusing_now(owner: Any, name: str, place: int) -> Callable[..., Any]:
    label, original = _label(owner, name), getattr(owner, name)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if _state.inside and all(value is None for value in (*args[place : place + 1], *kwargs.values())):
            raise _error(f"{label} without an argument")
        return original(*args, **kwargs)

    return refuse


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _state.inside and event in EVENTS:
        raise _error(event)


def _error(what: str) -> DeterminismError:
    _state.inside = False  # so that building the message may call anything
    try:
        here = [frame for frame in traceback.extract_stack() if frame.filename not in _PLUMBING]
        place = f"{here[-1].filename}:{here[-1].lineno}" if here else "an unknown place"
    finally:
        _state.inside = True
    return DeterminismError(f"{what} at {place}: {_ADVICE}")


# -- datetime, whose classes cannot be changed: others take their place while a body runs ------------------------------

_DATETIME, _DATE = datetime.datetime, datetime.date


class _StandsFor(type):
    """The type of a class that acts for another one; objects that it makes are of the other one."""

    real: ClassVar[type]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.real(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.real, name)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass.real if isinstance(subclass, _StandsFor) else subclass, cls.real)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.real

    def __hash__(cls) -> int:
        return hash(cls.real)


class _Datetime(metaclass=_StandsFor):
    real = _DATETIME

    @staticmethod
    def now(*args: Any, **kwargs: Any) -> Any:
        return _unless_inside("datetime.datetime.now", _DATETIME.now, *args, **kwargs)

    @staticmethod
    def utcnow() -> Any:
        return _unless_inside("datetime.datetime.utcnow", _DATETIME.utcnow)

    @staticmethod
    def today() -> Any:
        return _unless_inside("datetime.datetime.today", _DATETIME.today)


class _Date(metaclass=_StandsFor):
    real = _DATE

    @staticmethod
    def today() -> Any:
        return _unless_inside("datetime.date.today", _DATE.today)


def _unless_inside(label: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `original`, unless this thread runs a body."""
    if _state.inside:
        raise _error(label)
    return original(*args, **kwargs)


_OTHER_NAMES = {"random._urandom": "random._urandom, of random.SystemRandom and secrets,"}
_BY_ORIGINAL: dict[int, tuple[Any, Any]] = {
    id(original): (original, replacement)
    for original, replacement in (
        *((getattr(owner, name), _refusing(owner, name)) for owner, name in NAMES),
        *((getattr(owner, name), _refusing_now(owner, name, place)) for owner, name, place in NOW_WITHOUT),
        (_DATETIME, _Datetime),
        (_DATE, _Date),
    )
}
"""Each clock and source of chance with what replaces it, by its id."""
