"""One server with a client: how functions run, how many at once, how they are cancelled, and which are refused."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import (
    Client,
    CommandNotFound,
    DeadlineExceeded,
    ExecutionFailed,
    OutcomeUnknown,
    Overloaded,
    Server,
)
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine, BlockingThread

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Client]:
    """A client of the running server; a test that hangs fails."""
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            yield client


def node(**settings: Any) -> Server:
    return Server(port=0, **settings)


# -- how functions run ------------------------------------------------------------------------------------------------


async def test_coroutine_function_runs_in_the_event_loop() -> None:
    server = node()

    @server.function
    async def thread() -> int:
        await anyio.lowlevel.checkpoint()
        return threading.get_ident()

    async with running(server) as client:
        assert await client.call("thread") == threading.get_ident()


async def test_plain_function_runs_in_a_reused_worker_thread() -> None:
    server, held = node(), BlockingThread()

    @server.function(name="named")
    def thread() -> int:
        assert threading.current_thread().daemon  # otherwise it could keep the process alive
        return threading.get_ident()

    server.register("held", held.body)
    async with running(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "held")
        await held.next_start()
        threads = {await client.call("named") for _ in range(20)}
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        held.release()


async def test_inline_function_runs_in_the_event_loop_without_a_thread() -> None:
    server = node()
    server.register("thread", threading.get_ident, inline=True)
    async with running(server) as client:
        assert await client.call("thread") == threading.get_ident()


async def test_inline_function_that_blocks_the_loop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = node()
    server.register("slow", lambda: threading.Event().wait(0.11), inline=True)
    async with running(server) as client:
        assert await client.call("slow") is False
    assert "slow blocked the event loop for 1" in caplog.text


async def test_function_in_a_thread_pool() -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="theirs") as pool:
        server = node()
        server.register("thread", lambda: threading.current_thread().name, executor=pool)
        async with running(server) as client:
            assert await client.call("thread") == "theirs_0"


async def test_function_in_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        server = node()
        server.register("process", os.getpid, executor=pool)
        server.register("divide", divmod, executor=pool)
        async with running(server) as client:
            assert await client.call("process") != os.getpid()
            assert await client.call("divide", 7, 2) == (3, 1)
            with pytest.raises(ExecutionFailed, match="ZeroDivisionError"):
                await client.call("divide", 7, 0)


class AtOnce(Executor):
    """An executor that runs the body before it returns the future, which the interface allows."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Closed(Executor):
    """An executor that refuses every body."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after shutdown")


async def test_executor_that_runs_in_place_or_refuses() -> None:
    server = node()
    server.register("at-once", lambda: 1, executor=AtOnce())
    server.register("closed", lambda: 1, executor=Closed())
    async with running(server) as client:
        assert await client.call("at-once") == 1
        with pytest.raises(Overloaded, match="RuntimeError: cannot schedule new futures after shutdown") as refused:
            await client.call("closed")
        assert refused.value.safe_to_repeat
        assert "closed" not in server.functions


async def test_node_survives_any_exception_of_a_body(anyio_backend: str) -> None:
    """SystemExit and a CancelledError without a cancellation are errors of the body like any other."""
    raised: list[type[BaseException]] = [ValueError, SystemExit, StopIteration, asyncio.CancelledError]

    def plain(number: int) -> None:
        raise raised[number]("why")

    async def coroutine(number: int) -> None:
        raise raised[number]("why")

    server = node()
    server.register("thread", plain)
    server.register("inline", lambda number: plain(min(number, 2)), inline=True)
    server.register("loop", coroutine)
    async with running(server) as client:
        # asyncio's cancellation in a trio task, or StopIteration in a coroutine, is no mistake that a user can make.
        for name in ("thread", "inline", "loop"):
            for number, kind in enumerate(raised):
                if name == "loop" and kind is asyncio.CancelledError and anyio_backend == "trio":
                    continue
                with pytest.raises(ExecutionFailed, match=r"why|StopIteration") as caught:
                    await client.call(name, number)
                assert caught.value.details["function"] == name
        assert client.node == "node"
        assert (await client.view()).running == 0


# -- concurrency, and early ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
async def test_slots_limit_concurrent_bodies(slots: int) -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body, concurrency=slots)
    async with running(server) as client, anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(client.call, "held", number)
        await held.until(started=slots)
        view = await client.view()
        assert (held.started, view.running, view.queued) == (slots, slots, min(slots, 5 - slots))
        held.release()
    assert held.ended == 5


async def test_thread_keeps_its_slot_until_it_returns() -> None:
    server, held = node(), BlockingThread()
    server.register("held", held.body, concurrency=1)
    async with running(server) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "held", "first")
            assert await held.next_start() == "first"
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "held", "second")
            while (await client.view()).queued != 1:
                pass
            assert not held.more_started
            assert (await client.view()).running == 1
            held.release()
            assert await held.next_start() == "second"


async def test_coroutine_is_cancelled_with_its_caller() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body, concurrency=1)
    async with running(server) as client:
        for number in (1, 2):  # the slot is free again
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "held")
                await held.until(started=number)
                tasks.cancel_scope.cancel()
            await held.until(cancelled=number)


async def test_coroutine_is_cancelled_at_its_deadline() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body)
    async with running(server) as client:
        with pytest.raises(DeadlineExceeded, match=r"not done within 0\.05 s"):
            await client.call("held", timeout=0.05)
        await held.until(cancelled=1)


async def test_coroutine_is_cancelled_when_its_client_is_lost() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body)
    with anyio.fail_after(PATIENCE):
        async with server:
            async with Client(server.url) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "held")
                await held.until(started=1)
                tasks.cancel_scope.cancel()
            await held.until(cancelled=1)


async def test_cancelled_queued_call_never_starts() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body, concurrency=1)
    async with running(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "held", "first")
        await held.until(started=1)
        async with anyio.create_task_group() as others:
            others.start_soon(client.call, "held", "second")
            while (await client.view()).queued != 1:
                pass
            others.cancel_scope.cancel()
        while (await client.view()).queued:
            pass
        held.release()
        await held.until(ended=1)
        assert held.started == 1


# -- registering ------------------------------------------------------------------------------------------------------


async def test_register_and_unregister_at_runtime_from_two_threads() -> None:
    server = node()
    async with running(server) as client:
        for call in (None, anyio.to_thread.run_sync):
            with pytest.raises(CommandNotFound):
                await client.call("fresh")
            if call is None:
                server.register("fresh", lambda: 1)
            else:
                await call(lambda: server.register("fresh", lambda: 1))
            assert await client.call("fresh") == 1
            assert server.functions == ("echo", "echos", "fresh")
            if call is None:
                server.unregister("fresh")
            else:
                await call(server.unregister, "fresh")
        with pytest.raises(KeyError, match="no function 'fresh' is registered; there are echo, echos"):
            server.unregister("fresh")


async def test_running_call_outlives_its_function_and_queued_does_not() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body, concurrency=1)
    async with running(server) as client, anyio.create_task_group() as tasks:
        results: list[object] = []

        async def first() -> None:
            results.append(await client.call("held", "first"))

        async def second() -> None:
            with pytest.raises(CommandNotFound):
                await client.call("held", "second")

        tasks.start_soon(first)
        await held.until(started=1)
        tasks.start_soon(second)
        while (await client.view()).queued != 1:
            pass
        server.unregister("held")
        held.release()
    assert results == ["first"]


async def test_used_name_is_refused_unless_replaced() -> None:
    server = node()
    server.register("f", lambda: 1)
    async with running(server) as client:
        with pytest.raises(ValueError, match="a function 'f' is registered already; replace=True puts this one"):
            server.register("f", lambda: 2)
        assert await client.call("f") == 1
        server.register("f", lambda: 3, replace=True)
        assert await client.call("f") == 3
        server.register("echo", lambda value: [value], replace=True)
        assert await client.call("echo", 1) == [1]
        with pytest.raises(ValueError, match="'echos' is registered already"):
            server.function(name="echos")(lambda: 1)


async def test_invalid_arguments_raise_errors_that_name_the_fix() -> None:
    server = node()
    with pytest.raises(TypeError, match=r'resources="gpu" is a bare string; write resources=\{"gpu"\}'):
        Server(resources="gpu")
    with pytest.raises(TypeError, match=r'resources="gpu" is a bare string; write resources=\{"gpu"\}'):
        server.register("f", lambda: 1, resources="gpu")
    with pytest.raises(TypeError, match=r'peers="ws://x:1" is a bare string; write peers=\["ws://x:1"\]'):
        Server(peers="ws://x:1")
    with pytest.raises(ValueError, match="give it one with name="):
        server.function(lambda: 1)
    with pytest.raises(ValueError, match="at least 1 body"):
        server.register("f", lambda: 1, concurrency=0)
    with pytest.raises(ValueError, match="it runs in the event loop, not inline or in an executor"):
        server.register("f", BlockingCoroutine().body, inline=True)
    with pytest.raises(TypeError, match="expected a callable, got int"):
        server.register("f", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"refusing to listen on 0\.0\.0\.0"):
        await Server(host="0.0.0.0", port=0).serve()
    with pytest.raises(RuntimeError, match="the server is not running"):
        server.view()
    assert server.functions == ("echo", "echos")


async def test_port_in_use() -> None:
    async with node() as server:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}: address already in use; choose"):
            await Server(port=server.port).serve()


# -- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", [True, False], ids=["in time", "too slow"])
async def test_leave_waits_for_running_calls_up_to_the_grace(patient: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    server, held = node(limits=Limits(drain_grace=(10_000 if patient else 50) * MILLISECOND)), BlockingCoroutine()
    server.register("held", held.body)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            async with Client(server.url) as client, anyio.create_task_group() as calls:

                async def one() -> None:
                    if patient:
                        assert await client.call("held", "value") == "value"
                    else:
                        with pytest.raises(OutcomeUnknown, match="this node left the cluster"):
                            await client.call("held", "value")

                calls.start_soon(one)
                await held.until(started=1)
                await anyio.to_thread.run_sync(server.leave)
                assert server.view().draining
                if patient:
                    held.release()
    assert held.cancelled == (0 if patient else 1)
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if patient else ["0.05 s are over, calls that still ran were given up"])
