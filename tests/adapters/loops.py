"""Event loops whose time jumps and whose order a seed decides; the one place with private parts of trio and anyio.

On trio, tasks that can run in the same step run in a drawn order. asyncio promises an order, which stays as it is. Only
the sets in which anyio keeps tasks and scopes get an order there, as sets are ordered by memory addresses.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import anyio
import anyio.lowlevel
import trio
import trio.testing
from anyio._backends import _asyncio as anyio_asyncio
from trio._core import _run as trio_run

from tests.helpers.virtual import JumpingLoop

LOOPS = ("asyncio", "trio")
SPINS = 5_000
"""The steps of the event loop at one moment from which on it is taken for a loop that never ends."""


class Livelock(BaseException):
    """The tasks run without an end, and the time does not advance."""


def run(main: Callable[[], Coroutine[Any, Any, None]], *, loop: str, seed: int) -> None:
    """Run `main` on the event loop `loop`; the same seed gives the same order."""
    collects = gc.isenabled()
    gc.disable()  # destructors run where the last reference goes, not where memory happens to be collected
    try:
        if loop == "trio":
            with _seeded_trio(seed) as scope:
                anyio.run(
                    _within(scope, main),
                    backend="trio",
                    backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)},
                )
        else:
            with _ordered_scopes():
                anyio.run(main, backend="asyncio", backend_options={"loop_factory": _Loop})
    finally:
        if collects:
            gc.enable()


def _within(scope: _Ended, main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def limited() -> None:
        with scope.scope:
            await main()
        if scope.reason:
            raise Livelock(scope.reason)

    return limited


class _Ended:
    """The scope of a whole run, and the reason why it was cancelled."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.reason = ""


def now() -> float:
    """Return the virtual time in seconds since the start of the run."""
    return anyio.current_time()


# -- asyncio ----------------------------------------------------------------------------------------------------------


class _Loop(JumpingLoop):
    def __init__(self) -> None:
        super().__init__()
        self._last = -1.0
        self._steps = 0

    def _run_once(self) -> None:
        self._steps = self._steps + 1 if self._last == self.time() else 0
        self._last = self.time()
        if self._steps > SPINS:
            self._steps = 0
            stacks = sorted((one.get_name(), _stack(one.get_coro())) for one in asyncio.all_tasks(self))
            raise Livelock(f"{SPINS} steps at {self._last} s: {stacks}")
        super()._run_once()  # type: ignore[misc]


class _Ordered(dict[Any, None]):
    """A set in the order of insertion, with the methods that anyio uses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]

    def discard(self, item: Any) -> None:
        self.pop(item, None)


@contextmanager
def _ordered_scopes() -> Iterator[None]:
    """Let anyio's scopes on asyncio cancel their tasks in the order in which they came."""
    scope = anyio_asyncio.CancelScope
    plain = scope.__init__

    def ordered(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if type(self._tasks) is not set or type(self._child_scopes) is not set:
            raise RuntimeError(f"anyio's CancelScope has no sets _tasks and _child_scopes any more; see {__file__}")
        self._tasks, self._child_scopes = _Ordered(), _Ordered()

    scope.__init__ = ordered  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        scope.__init__ = plain  # type: ignore[method-assign]


# -- trio -------------------------------------------------------------------------------------------------------------


@contextmanager
def _seeded_trio(seed: int) -> Iterator[_Ended]:
    """Let trio draw the order of tasks from `seed`. Raises RuntimeError if this trio has not the private switch."""
    for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "TheIOManager"):
        if not hasattr(trio_run, name):
            raise RuntimeError(
                f"trio {trio.__version__} has no trio._core._run.{name}: find its new way to seed the order of tasks, "
                f"and change {__file__}"
            )
    allowed, state = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    ended = _Ended()
    manager: Any = trio_run.TheIOManager
    plain, last, steps = manager.get_events, -1.0, 0

    def counting(self: Any, timeout: float) -> Any:
        nonlocal last, steps
        at = trio.current_time()
        steps = steps + 1 if at == last else 0
        last = at
        if steps == SPINS:
            ended.reason = f"{SPINS} steps at {at} s: {_trio_tasks()}"
            ended.scope.cancel()
        elif steps > 2 * SPINS:
            raise Livelock(ended.reason)  # trio leaves its tasks as they are
        return plain(self, timeout)

    manager.get_events = counting  # called once in each step
    try:
        yield ended
    finally:
        manager.get_events = plain
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        trio_run._r.setstate(state)


# -- what is left -----------------------------------------------------------------------------------------------------


def tasks() -> list[tuple[str, str]]:
    """Return name and stack of each task of the running event loop except the calling one."""
    try:
        own = asyncio.current_task()
    except RuntimeError:
        return _trio_tasks()
    found = [one for one in asyncio.all_tasks() if one is not own]
    return sorted((one.get_name(), _stack(one.get_coro())) for one in found)


def _trio_tasks() -> list[tuple[str, str]]:
    found = []
    root: Any = trio.lowlevel.current_root_task()
    waiting, own = [root], getattr(trio_run.GLOBAL_RUN_CONTEXT, "task", None)
    while waiting:
        task = waiting.pop()
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
        if task not in (own, root) and not task.name.startswith(("<TrioToken", "trio.")) and "_core" not in task.name:
            found.append((task.name, _stack(task.coro)))
    return sorted(found)


def timers() -> int:
    """Return the number of timers of the running event loop."""
    try:
        scheduled: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    except RuntimeError:
        runner: Any = trio_run.GLOBAL_RUN_CONTEXT.runner
        return int(runner.deadlines._active)
    return sum(not handle._cancelled for handle in scheduled)


def _stack(coroutine: Any) -> str:
    """Return the places at which a suspended coroutine waits, the outermost first."""
    places = []
    while coroutine is not None:
        code: CodeType | None = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if code is not None and frame is not None:
            places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno} {code.co_name}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return " > ".join(places)
