"""Users' functions in virtual time: plain functions with a duration, and coroutines.

A coroutine may await only `mpreg_transports.sleep` and other coroutines.

A plain function is called when its run starts, and its result is returned when its duration is over; like a thread, it
cannot be interrupted. A coroutine is stepped from sleep to sleep, and a cancellation is thrown into it. Anything that
could make two runs differ (clocks, threads, sockets, entropy) raises `DeterminismError` while a body runs
(determinism.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import msgspec

from mpreg_proto.effects import Outcome, Raised, Report, Returned, Run, Stopped
from mpreg_transports.functions.exceptions import describe_exception
from mpreg_transports.functions.execution import ExecutionMode, Function, built_in, function, tags
from mpreg_transports.functions.iterators import ItemIterator
from mpreg_transports.functions.progress import SILENT, RunReporter
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


class _NextItem:
    """The object that a coroutine yields to the simulator when it waits for an item."""

    __slots__ = ()

    def __await__(self) -> Generator[_NextItem, None, None]:
        yield self


class SimulatedItems(ItemIterator):
    """The iterator of a body in virtual time. `taken` holds the items that the body has taken from it."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        super().__init__(last=False)
        self.taken: list[Any] = []

    async def __anext__(self) -> Any:
        """Return the next item. Waits for it; raises StopAsyncIteration after the last one."""
        item = await super().__anext__()
        self.taken.append(item)
        return item

    async def _wait(self) -> None:
        await _NextItem()


class SimulatedRun:
    """One run of one function. `begin` and `resume` return nanoseconds to wait, or the outcome; or None for a generator
    that waits until its consumer wants more, and for a consumer that waits for an item.

    Then `take_items` returns what it has produced, `take_taken` what it has taken, and `take_report` its progress.
    """

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
        self.demand: int = run.demand
        """The items that it may still produce."""
        self.idle: bool = False
        """True while it waits for its consumer."""
        self.produced: list[Any] = []
        """All items so far."""
        self._reporter = RunReporter(lambda: None) if run.reports and function.progress is not None else None
        self._iterator = SimulatedItems() if run.fed else None
        self._starved = False
        """True while it waits for an item."""
        self._generator: Any = None
        self._computing = False
        """True while a plain generator works on its next item."""
        self._awaiting: Any = None
        """The step of an async generator that has not ended."""
        self._cancellation_raised = self._closing = False
        self._fraction: Callable[[str], float] = lambda purpose: 0.0
        self._taken = 0

    def begin(self, fraction: Callable[[str], float]) -> int | Outcome | None:
        """Start the run. An inline function ends at once."""
        try:
            args, kwargs = self.function.arguments(self.run, self._reporter or SILENT, self._iterator)
        except TypeError as error:
            self._outcome = failed(error)
            return self._outcome
        if self.run.demand:
            self._fraction, self._generator = fraction, self.function.call(*args, **kwargs)
            return self.resume()
        if self.function.mode is ExecutionMode.EVENT_LOOP:
            self._coroutine = self.function.call(*args, **kwargs)
            return self.resume()
        self._outcome = self._call(args, kwargs)
        if self.function.mode is ExecutionMode.INLINE:
            return self._outcome
        return self._duration.draw(fraction, f"~duration {self.run.function}")

    def take_items(self) -> list[Any]:
        """Return the items since the last call."""
        items, self._taken = self.produced[self._taken :], len(self.produced)
        return items

    def take_taken(self) -> list[Any]:
        """Return the items that it has taken since the last call."""
        if self._iterator is None:
            return []
        taken, self._iterator.taken = self._iterator.taken, []
        return taken

    def feed(self, items: list[Any], last: bool) -> bool:
        """Give its iterator the next items. Return whether to resume it at once."""
        if self._iterator is not None:
            self._iterator.feed(items, last)
        return self._starved

    def take_report(self) -> Report | None:
        """Return the newest report since the last call, if its caller wants it."""
        return None if self._reporter is None else self._reporter.take()

    def resume(self) -> int | Outcome | None:
        """Continue the run after its wait."""
        self._starved = False
        if self._generator is not None:
            self.idle = False
            try:
                return self._async_step() if hasattr(self._generator, "asend") else self._plain_step()
            except DeterminismError:
                raise
            except asyncio.CancelledError:
                return Stopped()
            except Exception as error:
                return self._failed(error)
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
        return self._waits(awaited, coroutine)

    def _waits(self, awaited: object, body: Any) -> int | None:
        """Return how long a body waits, or None if it waits for an item. Raises DeterminismError for other awaits."""
        if isinstance(awaited, _NextItem):
            self._starved = True
            return None
        if not isinstance(awaited, Sleep):
            body.close()
            raise DeterminismError(f"{self.run.function} awaits {type(awaited).__name__}: {AWAITS}")
        return max(0, round(awaited.seconds * 1e9))

    def _plain_step(self) -> int | Outcome | None:
        """Step a plain generator: like a thread, it sees a cancellation only at a `yield`."""
        with guarded(self._names):
            if self._computing:
                self._computing = False
                try:
                    self.produced.append(next(self._generator))
                except StopIteration:
                    return Returned(None)
                self.demand -= 1
            if self.cancelled:
                self._generator.close()
                return Stopped()
        if not self.demand:
            self.idle = True
            return None
        self._computing = True
        return self._duration.draw(self._fraction, f"~duration {self.run.function}")

    def _async_step(self) -> int | Outcome | None:
        """Step an async generator, up to its next sleep. A cancellation is raised in it once, then it is closed."""
        cancelling, self._cancellation_raised = self.cancelled and not self._cancellation_raised, self.cancelled
        while True:
            if self._awaiting is None:
                if not self.cancelled and not self.demand:
                    self.idle = True
                    return None
                self._closing = self.cancelled
                self._awaiting = self._generator.aclose() if self.cancelled else self._generator.asend(None)
                cancelling = False
            step = self._awaiting
            try:
                with guarded(self._names), in_virtual_time():
                    awaited = step.throw(asyncio.CancelledError()) if cancelling else step.send(None)
            except StopAsyncIteration:
                return Returned(None)
            except StopIteration as end:
                self._awaiting, cancelling = None, False
                if self._closing:
                    return Stopped()
                self.produced.append(end.value)
                self.demand -= 1
                continue
            return self._waits(awaited, step)

    def allow(self, items: int) -> bool:
        """Let a generator produce so many more items. Return whether to resume it at once."""
        self.demand += items
        return self.idle

    def cancel(self) -> bool:
        """Cancel the run. Return whether to resume it at once; a plain function continues to its end."""
        if self._generator is not None and not self.cancelled:
            self.cancelled = True
            return self.idle or hasattr(self._generator, "asend")
        if self._coroutine is None or self.cancelled:
            return False
        self.cancelled = True
        return True

    def abandon(self) -> None:
        """Close the coroutine, because the process has ended."""
        if self._coroutine is not None:
            self._coroutine.close()
        if self._awaiting is not None:
            self._awaiting.close()
        if hasattr(self._generator, "close"):
            self._generator.close()

    def _call(self, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        try:
            with guarded(self._names):
                return Returned(self.function.call(*args, **kwargs))
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
        made[name] = Offered(fn.build(name), fn.duration, names_in_module_of(fn.call))
    return made
