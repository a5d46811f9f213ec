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

from mpreg_transports import (
    Cancelled,
    Client,
    CommandNotFound,
    DeadlineExceeded,
    Draining,
    OutcomeUnknown,
    Overloaded,
    Server,
)
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


class ClosingExecutor(ThreadPoolExecutor):
    """An executor that sets an event when it is shut down."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.closed = threading.Event()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.closed.set()


class BlockingFactory:
    """A function that makes executors, and waits before that until it is released."""

    def __init__(self, *results: Executor | BaseException) -> None:
        self.results = list(results)
        self.called = threading.Event()
        self.release = threading.Event()
        self.ready = threading.Event()
        self.made: list[ClosingExecutor] = []

    def __call__(self) -> Executor:
        self.called.set()
        assert self.release.wait(PATIENCE)
        if self.results and isinstance(error := self.results.pop(0), BaseException):
            raise error
        self.made.append(ClosingExecutor(1))
        self.ready.set()
        return self.made[-1]


async def test_factory_that_blocks_delays_only_calls_of_its_functions() -> None:
    make, results = BlockingFactory(), dict[str, object]()

    async def call(name: str, *args: object) -> None:
        results[name] = await client.call(name, *args)

    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            server.register("pow", pow, executor=make)
            server.register("abs", abs, executor=make)
            server.register("len", len)
            async with Client(server.url) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(call, "pow", 2, 3)
                await anyio.to_thread.run_sync(make.called.wait, PATIENCE)
                tasks.start_soon(call, "abs", -4)
                assert await client.call("len", "four") == 4 and await client.call("echo", 1) == 1
                with pytest.raises(DeadlineExceeded):
                    await client.call("abs", -1, timeout=0.05)
                assert results == {}
                make.release.set()
            assert results == {"pow": 8, "abs": 4} and len(make.made) == 1, "one executor for all that waited"


async def test_node_ends_while_a_factory_blocks() -> None:
    """The end does not wait for it, and the executor that it makes later is shut down."""
    make = BlockingFactory()
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            server.register("pow", pow, executor=make)
            async with Client(server.url) as client, anyio.create_task_group() as tasks:

                async def call() -> None:
                    with pytest.raises((OutcomeUnknown, Cancelled, Draining)):
                        await client.call("pow", 2, 3)

                tasks.start_soon(call)
                await anyio.to_thread.run_sync(make.called.wait, PATIENCE)
                server.leave(grace=False)
                server.leave(grace=False)
        assert make.made == []
        make.release.set()
        await anyio.to_thread.run_sync(make.ready.wait, PATIENCE)
        assert await anyio.to_thread.run_sync(make.made[0].closed.wait, PATIENCE)


async def test_factory_that_fails_is_called_again_a_few_times() -> None:
    failing = BlockingFactory(OSError("no cluster"))
    hopeless = BlockingFactory(*(OSError("no cluster"),) * 3)
    for factory in (failing, hopeless):
        factory.release.set()
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            server.register("pow", pow, executor=failing)
            server.register("abs", abs, executor=hopeless)
            async with Client(server.url) as client:
                assert await client.call("pow", 2, 3) == 8
                with pytest.raises((CommandNotFound, Overloaded)):
                    await client.call("abs", -1)
                assert "abs" not in server.functions and "pow" in server.functions
