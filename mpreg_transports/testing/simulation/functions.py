"""Users' functions in virtual time: plain ones with a declared duration, coroutines that await
`mpreg_transports.sleep`.

A plain function is called when its run starts and its result is handed over when its duration is over; it cannot be
interrupted, like a thread. A coroutine is stepped from sleep to sleep, and cancelling is thrown into it. Anything that
would make a run differ from the next (clocks, threads, sockets, entropy) raises `DeterminismError` while a body runs
(determinism.py).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any

import msgspec

from mpreg_proto.effects import Outcome, Raised, Returned, Run, Stopped
from mpreg_transports.functions.exceptions import describe_exception
from mpreg_transports.functions.execution import ExecutionMode, Function, built_in, function
from mpreg_transports.functions.sleep import Sleep, in_virtual_time
from mpreg_transports.testing.simulation.determinism import DeterminismError, guarded
from mpreg_transports.testing.simulation.durations import Duration, as_duration, constant


class Fn:
    """A function of a simulated node: what `Server.register` takes, and how long a plain one lasts."""

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        duration: float | Duration = 0.001,
        version: str = "",
        resources: Iterable[str] = (),
        idempotent: bool = False,
        concurrency: int | None = None,
        inline: bool = False,
        executor: Executor | None = None,
        refuses: float = 0.0,
        loses: float = 0.0,
    ) -> None:
        """`refuses` and `loses` are shares of its calls: as in an executor that is full, or that breaks."""
        if executor is not None:
            raise TypeError("a simulated node runs functions in virtual time, not in an executor")
        self.call = call
        self.duration = as_duration(duration)
        self.version = version
        self.resources = tuple(resources)
        self.idempotent = idempotent
        self.concurrency = concurrency
        self.inline = inline
        self.refuses = refuses
        self.loses = loses

    def build(self, name: str) -> Function:
        """As a server would register it."""
        return function(
            self.call,
            name=name,
            version=self.version,
            resources=self.resources,
            idempotent=self.idempotent,
            concurrency=self.concurrency,
            inline=self.inline,
        )


class SimulatedRun:
    """One run of one function. `begin` and `resume` give nanoseconds to wait, or the outcome."""

    def __init__(self, function: Function, duration: Duration, run: Run) -> None:
        self.run = run
        self.function = function
        self._duration = duration
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._outcome: Outcome | None = None
        self.cancelled = False
        self.lost = False
        """Whether what runs it breaks before it can tell its outcome."""
        self.step = 0
        """Which of the times it was put off to is the right one."""

    def begin(self, fraction: Callable[[str], float]) -> int | Outcome:
        """Start it. An inline function is over at once."""
        if self.function.mode is ExecutionMode.EVENT_LOOP:
            self._coroutine = self.function.call(*self.run.args, **self.run.kwargs)
            return self.resume()
        self._outcome = self._call()
        if self.function.mode is ExecutionMode.INLINE:
            return self._outcome
        return self._duration.draw(fraction, f"~duration {self.run.function}")

    def resume(self) -> int | Outcome:
        """The time has come: go on."""
        if self._coroutine is None:
            assert self._outcome is not None, "a plain function has been called when it began"
            return self._outcome
        try:
            with guarded(), in_virtual_time():
                coroutine = self._coroutine
                awaited = coroutine.throw(asyncio.CancelledError()) if self.cancelled else coroutine.send(None)
        except StopIteration as end:
            return Returned(end.value)
        except asyncio.CancelledError:
            return Stopped()
        except DeterminismError:
            raise
        except Exception as error:
            return failed(error)
        if not isinstance(awaited, Sleep):
            self._coroutine.close()
            raise DeterminismError(
                f"{self.run.function} awaits {type(awaited).__name__}: in a simulation a coroutine awaits "
                "mpreg_transports.sleep and other coroutines, nothing else"
            )
        return max(0, round(awaited.seconds * 1e9))

    def cancel(self) -> bool:
        """Ask it to stop; whether it should be resumed at once for that (a plain function goes on)."""
        if self._coroutine is None or self.cancelled:
            return False
        self.cancelled = True
        return True

    def abandon(self) -> None:
        """The process is gone."""
        if self._coroutine is not None:
            self._coroutine.close()

    def _call(self) -> Outcome:
        try:
            with guarded():
                return Returned(self.function.call(*self.run.args, **self.run.kwargs))
        except DeterminismError:
            raise
        except Exception as error:
            return failed(error)


def failed(error: Exception) -> Raised:
    """What a server would tell of an exception, but for the traceback: it names files and lines of this machine, and a
    run must be the same on every one.
    """
    return msgspec.structs.replace(describe_exception(error), traceback="")


def function_table(functions: dict[str, Any]) -> dict[str, tuple[Function, Duration]]:
    """What a node offers, with echo and echos, each with how long it lasts."""
    made = {one.spec.name: (one, constant(0)) for one in built_in()}
    for name, given in functions.items():
        fn = given if isinstance(given, Fn) else Fn(given)
        if inspect.isasyncgenfunction(fn.call):
            raise TypeError(f"{name} is an async generator: these do not run yet")
        made[name] = (fn.build(name), fn.duration)
    return made
