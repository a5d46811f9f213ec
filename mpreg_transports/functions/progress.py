"""Progress: the reporter that a function gets for a parameter annotated `Progress`, and what a client gets of it.

A reporter keeps only the newest report, and wakes the driver once for all that come before the driver takes it. So a
function may report as often as it likes, from any thread. The core sends at most ten messages in a second.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Final

import msgspec

from mpreg_proto.describe import short_name
from mpreg_proto.effects import Report

_LARGEST: Final = 1 << 63
"""Whole numbers from here on are sent as floats."""


class Progress:
    """Reports how far a call is: `progress(done, total=None, text="")`.

    A function that has a parameter with this annotation gets a reporter from its node; its callers do not pass it. The
    caller sees the reports with `on_progress=`. It may be called from any thread, and never waits. `Progress()` itself
    reports nothing, for tests that call a function directly.
    """

    __slots__ = ()

    def __call__(self, done: float, total: float | None = None, text: str = "") -> None:
        """Report `done` of `total` (None: not known), in any unit, and what the function does now.

        Raises TypeError or ValueError for a value that is no finite number or text.
        """
        make_report(done, total, text)


class ProgressReport(msgspec.Struct, frozen=True):
    """The progress of one call: the argument of an `on_progress` callback."""

    done: int | float
    total: int | float | None
    text: str
    call: str
    """The name of the call in its request; of `client.call` the function's name."""
    function: str
    node: str
    """The node that runs it."""


class RunReporter(Progress):
    """The reporter of one run. `notify` is called in the thread of the function, once before each `take`."""

    __slots__ = ("_notified", "_notify", "_slot")

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self._notified = False
        self._slot: deque[Report] = deque(maxlen=1)

    def __call__(self, done: float, total: float | None = None, text: str = "") -> None:
        self._slot.append(make_report(done, total, text))
        if not self._notified:  # after the append, so that a `take` at this moment returns the report
            self._notified = True
            self._notify()

    def take(self) -> Report | None:
        """Return the newest report, if there is one since the last `take`."""
        self._notified = False
        try:
            return self._slot.pop()
        except IndexError:
            return None


SILENT: Final = Progress()
"""The reporter for a caller that does not want the progress."""


def make_report(done: object, total: object, text: object) -> Report:
    """Check the arguments of a reporter. Raises TypeError or ValueError."""
    if not isinstance(text, str):
        raise TypeError(f"progress: text={text!r:.60}: expected a text, got {short_name(type(text))}")
    return Report(_number("done", done), None if total is None else _number("total", total), text)


def _number(what: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"progress: {what}={value!r:.60}: expected a number, got {short_name(type(value))}")
    whole = int(value) if isinstance(value, Integral) else None
    if whole is not None and -_LARGEST < whole < _LARGEST:
        return whole
    number = float(value)
    if not -_LARGEST < number < _LARGEST:
        raise ValueError(f"progress: {what}={value!r:.60}: expected a finite number below 2**63")
    return number


class Injected(msgspec.Struct, frozen=True):
    """The parameter that gets the reporter: its name, and its place if it may be passed by position."""

    name: str
    place: int | None

    def add(self, reporter: Progress, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call with the reporter among them.

        Raises TypeError if the caller has passed an argument of that name.
        """
        if self.name in kwargs:
            raise TypeError(f"{self.name!r} is no argument: the node itself passes the progress reporter")
        if self.place is None or self.place > len(args):
            return args, {**kwargs, self.name: reporter}
        return [*args[: self.place], reporter, *args[self.place :]], kwargs


def injected_parameter(name: str, call: Callable[..., Any]) -> Injected | None:
    """Return the parameter of `call` that is annotated `Progress`, or None.

    Raises ValueError if there are two, or if it takes many arguments.
    """
    found = [one for one in parameters_of(call) if _is_progress(one[1].annotation)]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{name}: two parameters are annotated Progress; a function gets one reporter")
    place, parameter = found[0]
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise ValueError(f"{name}: *{parameter.name} is annotated Progress; annotate one plain parameter")
    return Injected(parameter.name, None if parameter.kind is inspect.Parameter.KEYWORD_ONLY else place)


def _is_progress(annotation: object) -> bool:
    """Return whether an annotation is `Progress`, or its name as text."""
    if isinstance(annotation, str):
        return annotation.strip("'\" ").rpartition(".")[2] == Progress.__name__
    return annotation is Progress


def parameters_of(call: Callable[..., Any]) -> list[tuple[int, inspect.Parameter]]:
    """Return the parameters of `call`, each with its place, with annotations evaluated where that is possible."""
    try:
        try:
            signature = inspect.signature(call, eval_str=True)
        except Exception:  # a name that exists only for type checkers
            signature = inspect.signature(call)
        return list(enumerate(signature.parameters.values()))
    except Exception:  # whatever a user's callable raises when it is inspected
        return []
