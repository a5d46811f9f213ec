"""Users' functions in virtual time: plain functions with a duration, and coroutines.

A coroutine may await only `mpreg_transports.sleep` and other coroutines.

A plain function is called when its run starts, and its result is returned when its duration is over; like a thread, it
cannot be interrupted. A coroutine is stepped from sleep to sleep, and a cancellation is thrown into it. Anything that
could make two runs differ (clocks, threads, sockets, entropy) raises `DeterminismError` while a body runs
(determinism.py).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import msgspec

from mpreg_proto.effects import Outcome, Raised, Returned, Run, Stopped
from mpreg_transports.functions.exceptions import describe_exception
from mpreg_transports.functions.execution import ExecutionMode, Function, built_in, function, tags
from mpreg_transports.functions.sleep import Sleep, in_virtual_time
from mpreg_transports.testing.simulation.checks import check_callable, check_number, check_text, check_whole, describe
from mpreg_transports.testing.simulation.determinism import (
    AWAITS,
    DeterminismError,
    Replaced,
    guarded,
    names_in_module_of,
    without_event_loop,
)
from mpreg_transports.testing.simulation.durations import Duration, as_duration, constant

Functions = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""The functions of a node by name, or a factory that makes them for each life."""


class Fn:
    """A function of a simulated node: the arguments of `Server.register`, and the duration of a plain function."""

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        duration: float | Duration = 0.001,
        version: str = "",
        resources: Iterable[str] = (),
        idempotent: bool = False,
        concurrency: int | None = None,
        queue: int | None = None,
        inline: bool = False,
        executor: Executor | None = None,
        refuses: float = 0.0,
        loses: float = 0.0,
    ) -> None:
        """Create the function.

        `refuses` and `loses` are shares of its calls: those that a full executor refuses, and those that a broken
        executor loses.
        """
        if executor is not None:
            raise TypeError("a simulated node runs functions in virtual time, not in an executor")
        check_callable("Fn(...)", call, "Fn(price)")
        if version != "":
            check_text("version", version)
        if concurrency is not None:
            check_whole("concurrency", concurrency, least=1)
        if queue is not None:
            check_whole("queue", queue, least=1)
        check_number("refuses", refuses, most=1)
        check_number("loses", loses, most=1)
        self.call = call
        self.duration: Duration = as_duration(duration)
        self.version = version
        self.resources: tuple[str, ...] = resources if isinstance(resources, tuple) else tuple(sorted(tags(resources)))
        tags(self.resources)
        self.idempotent = idempotent
        self.concurrency = concurrency
        self.queue = queue
        self.inline = inline
        self.refuses = refuses
        self.loses = loses

    def __repr__(self) -> str:
        """Return the function by its name, with the options that differ from the default."""
        options = {"duration": None if self.duration == constant(0.001) else self.duration, "version": self.version}
        for name in ("resources", "idempotent", "concurrency", "queue", "inline", "refuses", "loses"):
            options[name] = getattr(self, name)
        given = "".join(f", {name}={value!r}" for name, value in options.items() if value)
        return f"Fn({name_of(self.call)}{given})"

    def build(self, name: str) -> Function:
        """Return the function as a server would register it."""
        return function(
            self.call,
            name=name,
            version=self.version,
            resources=self.resources,
            idempotent=self.idempotent,
            concurrency=self.concurrency,
            queue=self.queue,
            inline=self.inline,
        )


class SimulatedRun:
    """One run of one function. `begin` and `resume` return nanoseconds to wait, or the outcome."""

    def __init__(self, function: Function, duration: Duration, run: Run, *, names: Replaced = ()) -> None:
        """`names` are replaced in the module of the function while it runs."""
        self.run = run
        self.function = function
        self._names = names
        self._duration = duration
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._outcome: Outcome | None = None
        self.cancelled: bool = False
        self.lost = False
        """True if the executor breaks before it returns the outcome."""
        self.step = 0
        """The number of the valid wake-up; earlier ones are ignored."""

    def begin(self, fraction: Callable[[str], float]) -> int | Outcome:
        """Start the run. An inline function ends at once."""
        if self.function.mode is ExecutionMode.EVENT_LOOP:
            self._coroutine = self.function.call(*self.run.args, **self.run.kwargs)
            return self.resume()
        self._outcome = self._call()
        if self.function.mode is ExecutionMode.INLINE:
            return self._outcome
        return self._duration.draw(fraction, f"~duration {self.run.function}")

    def resume(self) -> int | Outcome:
        """Continue the run after its wait."""
        if self._coroutine is None:
            assert self._outcome is not None, "a plain function has been called when it began"
            return self._outcome
        try:
            with guarded(self._names), in_virtual_time():
                coroutine = self._coroutine
                awaited = coroutine.throw(asyncio.CancelledError()) if self.cancelled else coroutine.send(None)
        except StopIteration as end:
            return Returned(end.value)
        except asyncio.CancelledError:
            return Stopped()
        except DeterminismError:
            raise
        except Exception as error:
            return self._failed(error)
        if not isinstance(awaited, Sleep):
            self._coroutine.close()
            raise DeterminismError(f"{self.run.function} awaits {type(awaited).__name__}: {AWAITS}")
        return max(0, round(awaited.seconds * 1e9))

    def cancel(self) -> bool:
        """Cancel the run. Return whether to resume it at once; a plain function continues to its end."""
        if self._coroutine is None or self.cancelled:
            return False
        self.cancelled = True
        return True

    def abandon(self) -> None:
        """Close the coroutine, because the process has ended."""
        if self._coroutine is not None:
            self._coroutine.close()

    def _call(self) -> Outcome:
        try:
            with guarded(self._names):
                return Returned(self.function.call(*self.run.args, **self.run.kwargs))
        except DeterminismError:
            raise
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> Raised:
        """Return the outcome of a body that raised. Raises DeterminismError if it needs an event loop."""
        needed = without_event_loop(self.run.function, error)
        if needed is not None:
            raise needed from error
        return failed(error)


def failed(error: Exception) -> Raised:
    """Return the outcome that a server reports for an exception, without the traceback.

    A traceback names files and lines of this machine, and a run must be the same on every machine.
    """
    return msgspec.structs.replace(describe_exception(error), traceback="")


class Offered(msgspec.Struct, frozen=True):
    """A function that a node offers: as a server would register it, its duration, and what replaces its clocks."""

    function: Function
    duration: Duration
    names: Replaced = ()


def functions_of(given: Functions, *, node: str = "") -> dict[str, Fn]:
    """Return the functions of one life of `node`; a factory is called for them. Raises TypeError or ValueError."""
    what = "functions"
    if not isinstance(given, Mapping):
        check_callable(what, given, "make_functions")
        what = (f"node {node!r}: " if node else "") + f"the functions that {name_of(given)} returns"
        with guarded():
            given = given()
    if not isinstance(given, Mapping):
        raise TypeError(f'{what}: expected a mapping such as {{"price": price}}, got {describe(given)}')
    for name, call in given.items():
        check_text("the name of a function", name)
        if not isinstance(call, Fn):
            check_callable(f"functions[{name!r}]", call, "price")
    return {name: call if isinstance(call, Fn) else Fn(call) for name, call in given.items()}


def offered_functions(given: Functions) -> dict[str, Fn]:
    """Return what a node with these functions offers: they, and echo and echos unless they replace these."""
    return {**_BUILT_IN, **functions_of(given)}


_BUILT_IN = {one.spec.name: Fn(one.call, idempotent=one.spec.idempotent) for one in built_in()}


def name_of(call: Callable[..., Any]) -> str:
    """Return the name of a function or class as in an error, else the type of the object."""
    return getattr(call, "__qualname__", "").rpartition(".")[2] or type(call).__name__


def function_table(functions: Mapping[str, Fn]) -> dict[str, Offered]:
    """Return the functions that a node offers, with echo and echos."""
    made = {one.spec.name: Offered(one, constant(0)) for one in built_in()}
    for name, fn in functions.items():
        if inspect.isasyncgenfunction(fn.call):
            raise TypeError(f"{name} is an async generator: these do not run yet")
        made[name] = Offered(fn.build(name), fn.duration, names_in_module_of(fn.call))
    return made
