"""Bodies of async functions: cancelled once, whoever asks again."""

from contextvars import copy_context

import anyio
import pytest

from mpreg_proto.effects import Outcome, Stopped
from mpreg_transports.background import running_loop
from mpreg_transports.functions.coroutines import CoroutineRun

pytestmark = pytest.mark.anyio


async def test_second_cancellation_leaves_the_cleanup_alone() -> None:
    """A caller cancels its call, then its node ends: the body cleans up in peace."""
    cleaned: list[str] = []
    outcomes: list[Outcome] = []
    cleaning, go, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def body() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaning.set()
            await go.wait()
            cleaned.append("up")

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        ended.set()

    async with anyio.create_task_group() as tasks:
        run = CoroutineRun(body, done, on_start=lambda: None)
        run.start(copy_context(), running_loop(), tasks.start_soon)
        await anyio.wait_all_tasks_blocked()
        run.cancel()
        await cleaning.wait()
        run.cancel()
        await anyio.wait_all_tasks_blocked()
        go.set()
        await ended.wait()
    assert cleaned == ["up"]
    assert type(outcomes[0]) is Stopped
