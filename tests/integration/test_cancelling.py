"""Cancelled requests at real nodes: coroutines that clean up, threads, queues, executors, and other nodes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest

from mpreg_transports import Cancelled, Client, Server
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine, BlockingThread
from tests.helpers.servers import joined_servers

pytestmark = pytest.mark.anyio


class Careful:
    """A coroutine function that awaits in its `finally`, several times."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.steps: list[str] = []
        self.ended = anyio.Event()

    async def body(self) -> None:
        """Wait for ever, and clean up after the cancellation."""
        self.started.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.steps.append("cancelled")
            raise
        finally:
            for step in ("first", "second"):
                await anyio.sleep(0.01)
                self.steps.append(step)
            self.ended.set()


@pytest.mark.parametrize("place", ["here", "there"])
@pytest.mark.parametrize("end", ["cancelled", "deadline", "client"])
async def test_cleanup_of_a_coroutine_may_wait(place: str, end: str) -> None:
    careful = Careful()
    door, worker = Server(name="door", port=0), Server(name="worker", port=0)
    (door if place == "here" else worker).register("careful", careful.body)
    async with joined_servers(door, worker) as client:
        async with anyio.create_task_group() as tasks:
            if end == "client":
                other = await Client(door.url).connect()
                tasks.start_soon(swallow, other, None)
                await careful.started.wait()
                await other.close()
            else:
                tasks.start_soon(swallow, client, 0.3 if end == "deadline" else None)
                await careful.started.wait()
                if end == "cancelled":
                    tasks.cancel_scope.cancel()
        await careful.ended.wait()
        assert careful.steps == ["cancelled", "first", "second"]
        assert await client.call("echo", 1) == 1


async def swallow(client: Client, timeout: float | None) -> None:
    """Call `careful`, whatever comes of it."""
    try:
        await client.call("careful", timeout=timeout)
    except Exception as error:
        assert "careful" in str(error) or error.args


@pytest.mark.parametrize("place", ["here", "there"])
async def test_thread_keeps_its_slot_until_it_returns(place: str) -> None:
    held = BlockingThread()
    door, worker = Server(name="door", port=0), Server(name="worker", port=0)
    (door if place == "here" else worker).register("held", held.body, concurrency=1)
    async with joined_servers(door, worker) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "held", "first")
            assert await held.next_start() == "first"
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "held", "second")
            for _ in range(20):
                await client.view()
            assert not held.more_started, "its slot is taken"
            held.release()
            assert await held.next_start() == "second"


async def test_call_in_the_queue_of_another_node_never_starts() -> None:
    held = BlockingCoroutine()
    door, worker = Server(name="door", port=0), Server(name="worker", port=0)
    worker.register("held", held.body, concurrency=1)
    async with joined_servers(door, worker) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "held", "first")
        await held.until(started=1)
        async with anyio.create_task_group() as others:
            others.start_soon(client.call, "held", "second")
            while worker.view().queued != 1:
                await anyio.lowlevel.checkpoint()
            others.cancel_scope.cancel()
        while worker.view().queued:
            await anyio.lowlevel.checkpoint()
        held.release()
        await held.until(ended=1)
        assert held.started == 1


async def test_call_in_the_queue_of_an_executor_never_starts() -> None:
    started: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def body(value: str) -> None:
        started.append(value)
        begun.set()
        assert go.wait(PATIENCE)

    with ThreadPoolExecutor(1) as executor:
        server = Server(port=0)
        server.register("body", body, executor=executor)
        with anyio.fail_after(PATIENCE):
            async with server, Client(server.url) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "body", "first")
                await anyio.to_thread.run_sync(begun.wait, PATIENCE)
                async with anyio.create_task_group() as others:
                    others.start_soon(client.call, "body", "second")
                    while server.view().running != 2:
                        await anyio.lowlevel.checkpoint()
                    others.cancel_scope.cancel()
                while server.view().running != 1:
                    await anyio.lowlevel.checkpoint()
                go.set()
        assert started == ["first"]


async def test_answer_to_a_cancelled_request_lists_what_had_started() -> None:
    held, errors = BlockingCoroutine(), []
    door, worker = Server(name="door", port=0), Server(name="worker", port=0)
    worker.register("held", held.body)
    async with joined_servers(door, worker) as client, anyio.create_task_group() as tasks:

        async def run() -> None:
            graph = client.graph()
            first = graph.call("echo", 1)
            graph.call("echos", first, graph.call("held", first, name="x"))
            with pytest.raises(Cancelled) as caught:
                await graph.run()
            errors.append(caught.value)

        tasks.start_soon(run)
        await held.until(started=1)
        client._stop_requests()
        await held.until(cancelled=1)
        while not errors:
            await anyio.lowlevel.checkpoint()
    rows = {row["call"]: row for row in errors[0].details["started"]}
    assert set(rows) == {"echo", "x"} and errors[0].details["maybe_executed"]
    assert (rows["echo"]["ended"], rows["x"]["ended"], rows["x"]["function"]) == (True, False, "held")
    assert rows["x"]["node"].startswith("worker#")


async def test_request_that_no_node_has_is_cancelled_at_once() -> None:
    errors = []
    server = Server(port=0)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client, anyio.create_task_group() as tasks:

            async def run() -> None:
                with pytest.raises(Cancelled) as caught:
                    await client.call("later", wait=PATIENCE)
                errors.append(caught.value)

            tasks.start_soon(run)
            while (await client.view()).requests != 1:
                pass
            client._stop_requests()
    assert [(error.details["started"], error.details["maybe_executed"]) for error in errors] == [([], False)]
