"""Executors that break or are shut down during calls: the calls run on another node, or their outcome is unknown."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mpreg_transports import Client, CommandNotFound, OutcomeUnknown, Overloaded, Server
from mpreg_transports.errors import CannotImport
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio

var: ContextVar[str] = ContextVar("var", default="unset")


class Queueing(ThreadPoolExecutor):
    """An executor that sets an event when it receives a body."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given = anyio.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.given.set()
        return future


async def test_shut_down_executor_moves_its_calls_to_another_node(caplog: pytest.LogCaptureFixture) -> None:
    release, ran = threading.Event(), list[str]()
    executor = Queueing()
    executor.submit(release.wait, PATIENCE)
    executor.given = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with Server(name="a", port=0) as a, Server(name="b", port=0, peers=[a.url]) as b, Client(a.url) as client:
            a.register("job", lambda: ran.append("a"), executor=executor)
            a.register("also", lambda: ran.append("a"), executor=executor)
            b.register("job", lambda: ran.append("b"), inline=True)
            b.register("there", lambda: None, inline=True)
            await client.call("there", wait=PATIENCE)
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(client.call, "job")
                await executor.given.wait()
                executor.shutdown(wait=False, cancel_futures=True)
            await client.call("job")
            assert ran == ["b"] * 21
            with pytest.raises((CommandNotFound, Overloaded)):
                await client.call("also")
            with pytest.raises(CommandNotFound):
                await client.call("also")
            assert a.functions == ("echo", "echos")
    release.set()
    assert len([record for record in caplog.records if "withdrawn" in record.getMessage()]) == 1


def dies(flag: str) -> str:
    """End this process unless the file exists."""
    if not Path(flag).exists():
        Path(flag).touch()
        os._exit(1)
    return "done"


async def test_dead_pool_process_loses_its_calls_and_pool_is_replaced(tmp_path: Path) -> None:
    made: list[Executor] = []

    def make() -> Executor:
        made.append(ProcessPoolExecutor(1))
        return made[-1]

    server = Server(port=0)
    server.register("once", dies, executor=make)
    server.register("safe", dies, executor=make, idempotent=True)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            with pytest.raises(OutcomeUnknown, match="BrokenProcessPool"):
                await client.call("once", str(tmp_path / "once"))
            assert await client.call("once", str(tmp_path / "once")) == "done"
            assert await client.call("safe", str(tmp_path / "safe")) == "done"
    assert len(made) == 3
    with pytest.raises(RuntimeError):
        made[-1].submit(abs, 1)


async def test_made_pool_refuses_functions_it_cannot_import_before_the_server_listens() -> None:
    server = Server(port=0)
    server.register("here", lambda: 1, executor=lambda: ThreadPoolExecutor(1))
    with anyio.fail_after(PATIENCE):
        async with server:
            with pytest.raises(CannotImport, match="late is defined within a function or is a lambda"):
                server.register("late", lambda: 1, executor=lambda: ProcessPoolExecutor(1))
            assert "late" not in server.functions
        server.register("late", lambda: 1, executor=lambda: ProcessPoolExecutor(1))
        with pytest.raises(CannotImport, match="late is defined within a function or is a lambda"):
            await server.__aenter__()


@pytest.mark.parametrize("way", ["thread", "executor", "inline", "loop"])
async def test_functions_run_in_the_context_of_the_server_start(way: str) -> None:
    def body(value: str) -> str:
        before = var.get()
        var.set(value)
        return before

    async def in_loop(value: str) -> str:
        await anyio.lowlevel.checkpoint()
        return body(value)

    var.set("start")
    with ThreadPoolExecutor(1) as pool:
        options: dict[str, object] = {"executor": {"executor": pool}, "inline": {"inline": True}}.get(way, {})
        call: Callable[..., object] = in_loop if way == "loop" else body
        server = Server(port=0)
        server.register("f", call, **options)  # type: ignore[arg-type]
        with anyio.fail_after(PATIENCE):
            async with server, Client(server.url) as client:
                assert [await client.call("f", str(number)) for number in range(3)] == ["start"] * 3
