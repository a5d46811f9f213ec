"""Objects with their own task: start and stop in different tasks, and their event loop and process."""

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from mpreg_transports.background import Background, LoopAffinity, single, single_errors

pytestmark = pytest.mark.anyio


class Recorder:
    """Records its start and its end."""

    def __init__(self, *, before: Exception | None = None) -> None:
        self.events: list[str] = []
        self.go = anyio.Event()
        self.after: Exception | None = None
        self._before = before

    async def main(self, *, task_status: TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                if self._before is not None:
                    raise self._before
                self.events.append("up")
                task_status.started()
                await self.go.wait()
                if self.after is not None:
                    raise self.after
                tasks.cancel_scope.cancel()
        finally:
            self.events.append("over")


async def in_a_task(act: Callable[[], object]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(act)


async def test_background_starts_and_stops_in_different_tasks() -> None:
    recorder = Recorder()
    background = Background(recorder.main, name="one")
    await in_a_task(background.start)
    assert recorder.events == ["up"] and not background.ended
    await in_a_task(background.stop)
    await background.stop()
    assert recorder.events == ["up", "over"] and background.ended


async def test_error_before_the_start_is_raised_once() -> None:
    background = Background(Recorder(before=ValueError("no")).main, name="one")
    with pytest.raises(ValueError, match="no"):
        await background.start()
    await background.stop()


async def test_error_after_the_start_is_raised_at_the_end() -> None:
    recorder = Recorder()
    background = Background(recorder.main, name="one")
    await background.start()
    recorder.after = KeyError("later")
    recorder.go.set()
    with pytest.raises(KeyError):
        await background.wait()
    await background.wait()


async def test_cancelled_start_stops_the_task() -> None:
    events: list[str] = []

    async def main(*, task_status: TaskStatus[None]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            events.append("over")

    background = Background(main, name="one")
    with anyio.move_on_after(0.01):
        await background.start()
    assert events == ["over"] and background.ended


async def test_cancelled_start_keeps_the_task_for_another_waiter() -> None:
    up = anyio.Event()

    async def main(*, task_status: TaskStatus[None]) -> None:
        await up.wait()
        task_status.started()
        await anyio.sleep_forever()

    background = Background(main, name="one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(background.start)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.01):
            await background.start()
        up.set()
    assert not background.ended
    await background.stop()


async def test_cancellation_of_the_starter_does_not_stop_the_task() -> None:
    recorder = Recorder()
    background = Background(recorder.main, name="one")
    with anyio.CancelScope() as scope:
        await background.start()
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert recorder.events == ["up"]
    await background.stop()


async def test_background_has_the_context_of_its_start() -> None:
    word: ContextVar[str] = ContextVar("word")
    word.set("said")
    words: list[str] = []

    async def main(*, task_status: TaskStatus[None]) -> None:
        words.append(word.get())
        task_status.started()

    background = Background(main, name="one")
    await background.start()
    await background.wait()
    assert words == ["said"]


def test_background_ends_with_its_loop(anyio_backend: str) -> None:
    recorder = Recorder.__new__(Recorder)

    async def forget() -> Background:
        Recorder.__init__(recorder)
        background = Background(recorder.main, name="one")
        await background.start()
        return background

    background = anyio.run(forget, backend=anyio_backend)
    assert recorder.events == ["up", "over"] and background.ended


def test_loop_affinity_is_to_one_loop(anyio_backend: str) -> None:
    async def make() -> LoopAffinity:
        affinity = LoopAffinity()
        affinity.check("it")
        assert affinity.is_current and not affinity.is_closed
        return affinity

    async def elsewhere(affinity: LoopAffinity) -> None:
        assert not affinity.is_current
        with pytest.raises(RuntimeError, match="it belongs to the event loop in which it was opened"):
            affinity.check("it")

    affinity = anyio.run(make, backend=anyio_backend)
    anyio.run(elsewhere, affinity, backend=anyio_backend)
    assert affinity.is_closed or anyio_backend == "trio"


async def test_loop_affinity_is_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = LoopAffinity()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert affinity.is_closed and not affinity.is_current
    with pytest.raises(RuntimeError, match="forked from it"):
        affinity.check("it")


async def test_single_error_of_exception_groups() -> None:
    with pytest.raises(ValueError, match="inner") as caught, single_errors():
        async with anyio.create_task_group(), anyio.create_task_group():
            raise ValueError("inner")
    assert not isinstance(caught.value.__cause__, BaseExceptionGroup)
    several = ExceptionGroup("two", [ValueError(), KeyError()])
    assert single(ExceptionGroup("outer", [several])) is not None
    with pytest.raises(ExceptionGroup), single_errors():
        raise several


def test_only_its_owner_keeps_a_background_task() -> None:
    async def main() -> None:
        recorder = Recorder()
        background = Background(recorder.main, name="one")
        await background.start()
        gc.collect()
        assert recorder.events == ["up"]
        reference = weakref.ref(background)
        await background.stop()
        del background
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None

    asyncio.run(main())
