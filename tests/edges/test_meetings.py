"""Simultaneous events of several calls, which the matrix with one call in a cell does not have."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mpreg_proto.errors import RequestError
from mpreg_transports import Client
from tests.edges import bodies
from tests.edges.bodies import Parcel
from tests.edges.callers import End, caller
from tests.edges.house import House, function_name, housed, until
from tests.edges.leftovers import around, leftovers, settled
from tests.edges.table import CLIENTS, NATIVE, RAISES

pytestmark = pytest.mark.anyio
SECONDS = 20.0


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Disable the log of failing bodies, which these tests do not check."""
    loggers = [logging.getLogger(name) for name in ("mpreg", "mpreg_transports")]
    for logger in loggers:
        logger.propagate = False
    yield
    for logger in loggers:
        logger.propagate = True


@asynccontextmanager
async def house_left_clean() -> AsyncIterator[House]:
    """Yield a house for one test, which may leave nothing at the end; a test that hangs fails."""
    bodies.LIVE.clear()
    bodies.new_stage()
    with anyio.fail_after(3 * SECONDS):
        async with anyio.create_task_group() as tasks, housed(tasks, None) as house:
            before = around()
            try:
                yield house
            finally:
                bodies.STAGE.go.set()
            assert await settled(lambda: leftovers(house, outside=before), seconds=5) == []


@asynccontextmanager
async def client_of(house: House) -> AsyncIterator[Client]:
    """Yield a client of the `asked` node."""
    async with Client(house.asked.url, codec=bodies.codec()) as client:
        yield client


async def end_of(client: Client, function: str, outcome: str, *, timeout: float = SECONDS) -> str:
    """Return a call's end as one word: "value" or the code."""
    try:
        await client.call(function, outcome, Parcel("given"), timeout=timeout, wait=SECONDS)
    except RequestError as error:
        return str(error.code)
    return "value"


@pytest.mark.parametrize("where", ["asked", "other"])
async def test_concurrent_cancels_of_two_clients(where: str) -> None:
    async with house_left_clean() as house, client_of(house) as one, client_of(house) as other:
        stage = bodies.STAGE
        async with anyio.create_task_group() as tasks:
            for client in (one, other):
                tasks.start_soon(end_of, client, function_name("async", where), "cancelled")
            await until(lambda: stage.started == 2)
            tasks.cancel_scope.cancel()
        await until(lambda: stage.ended == 2)
        assert stage.cancelled == 2


@pytest.mark.parametrize("way", ["async", "def", "executor"])
async def test_cancel_concurrent_with_result(way: str) -> None:
    async with house_left_clean() as house, client_of(house) as client:
        for number in range(20):
            stage = bodies.new_stage()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_of, client, function_name(way, ("asked", "other")[number % 2]), "cancelled")
                await until(lambda now=stage: now.started == 1)
                stage.go.set()
                tasks.cancel_scope.cancel()
            await until(lambda now=stage: now.ended == 1)
        assert await end_of(client, "inline-other", "returns") == "value"


@pytest.mark.parametrize("where", ["asked", "other"])
async def test_deadline_concurrent_with_result(where: str) -> None:
    async with house_left_clean() as house, client_of(house) as client:
        ends = []
        for number in range(20):
            stage = bodies.new_stage()
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    ends.append(await end_of(client, function_name("async", where), "deadline", timeout=0.05))

                tasks.start_soon(ask)
                await until(lambda now=stage: now.started == 1)
                await anyio.sleep(0.04 + number / 1000)  # around the deadline; this waits for no event
                stage.go.set()
        assert set(ends) <= {"value", "1020"} and len(ends) == 20


async def test_drain_during_a_stream() -> None:
    async with house_left_clean_after_drain() as house, client_of(house) as client:
        graph = client.graph()
        graph.call("echo", "first", name="first")
        graph.call(function_name("async", "other"), "drains", Parcel("given"), name="held")
        seen = []
        async for name, _ in client.stream(graph, timeout=SECONDS):
            seen.append(name)
            if name == "first":
                await until(lambda: bodies.STAGE.started == 1)
                house.other.leave()
                await until(lambda: house.other._driver is None or house.other.view().draining)
                bodies.STAGE.go.set()
        assert seen == ["first", "held"]
        assert await end_of(client, "inline-asked", "returns") == "value"


@asynccontextmanager
async def house_left_clean_after_drain() -> AsyncIterator[House]:
    """Yield a house in which one node leaves; only a test that hangs fails."""
    bodies.new_stage()
    with anyio.fail_after(3 * SECONDS):
        async with anyio.create_task_group() as tasks, housed(tasks, None) as house:
            yield house


async def test_client_closed_during_a_stream() -> None:
    async with house_left_clean() as house:
        async with client_of(house) as client:
            graph = client.graph()
            graph.call("echo", "first", name="first")
            graph.call(function_name("async", "other"), "closes", Parcel("given"), name="held")
            stream = client.stream(graph, timeout=SECONDS)
            assert (await anext(stream))[0] == "first"
            await until(lambda: bodies.STAGE.started == 1)
        del graph, stream
        await until(lambda: bodies.STAGE.ended == 1)
        assert bodies.STAGE.cancelled == 1


@pytest.mark.parametrize("where", ["asked", "other"])
async def test_slots_reduced_while_all_are_in_use(where: str) -> None:
    async with house_left_clean() as house, client_of(house) as client:
        stage, server, ends = bodies.STAGE, house.node(where), []

        async def ask(outcome: str) -> None:
            ends.append(await end_of(client, "slots", outcome))

        server.register("slots", bodies.coroutine, concurrency=2)
        await until(lambda: any(row.function == "slots" for row in house.asked.view().functions))
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(ask, "blocks")
            await until(lambda: stage.started == 2)
            tasks.start_soon(ask, "returns")
            await until(lambda: server.view().queued == 1)
            server.register("slots", bodies.coroutine, concurrency=1, replace=True)
            assert stage.started == 2
            stage.go.set()
        assert ends == ["value"] * 3 and stage.started == 3
        assert await end_of(client, "slots", "returns") == "value"


@pytest.mark.parametrize("where", ["asked", "other"])
async def test_function_withdrawn_and_offered_again_while_it_runs(where: str) -> None:
    async with house_left_clean() as house, client_of(house) as client:
        stage, server, ends = bodies.STAGE, house.node(where), []
        name = function_name("async", where, slots=1)

        async def ask(outcome: str) -> None:
            ends.append(await end_of(client, name, outcome))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "blocks")
            await until(lambda: stage.started == 1)
            server.unregister(name)
            house.offer("async", where, slots=1)
            tasks.start_soon(ask, "returns")  # waits for the slot of the old body, or for none
            stage.go.set()
        assert ends == ["value", "value"]


async def test_executor_shut_down_before_a_call() -> None:
    """Its node refuses, and the call runs on the other node that offers the function."""
    async with house_left_clean() as house, client_of(house) as client:
        executors = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        await offer_everywhere(house, executors)
        executors[0].shutdown()
        assert [await end_of(client, "pooled", "returns") for _ in range(10)] == ["value"] * 10
        executors[1].shutdown()


async def test_executor_shut_down_with_queued_calls() -> None:
    """Calls that have not begun run on the other node; calls that have begun end by themselves."""
    async with house_left_clean() as house, client_of(house) as client:
        stage, ends = bodies.STAGE, []
        executors = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]

        async def ask() -> None:
            ends.append(await end_of(client, "pooled", "blocks"))

        house.asked.register("pooled", bodies.plain, executor=executors[0], concurrency=2)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(ask)
            await until(lambda: stage.started == 1 and house.asked.view().running == 2)
            house.other.register("pooled", bodies.plain, executor=executors[1], concurrency=2)
            await until(lambda: sum(row.function == "pooled" for row in house.asked.view().functions) == 2)
            executors[0].shutdown(wait=False, cancel_futures=True)
            await until(lambda: stage.started == 2)
            stage.go.set()
        assert ends == ["value", "value"]
        executors[1].shutdown()


@pytest.mark.parametrize("outcome", ["returns", "raises", "raises-keyboard-interrupt", "returns-object"])
async def test_executor_that_runs_in_place(outcome: str) -> None:
    """Its futures are done when `submit` returns, so that callbacks run within it."""
    async with house_left_clean() as house, client_of(house) as client:
        await offer_everywhere(house, [InPlace(), InPlace()])
        wanted = "value" if outcome == "returns" else "1003"
        assert [await end_of(client, "pooled", outcome) for _ in range(3)] == [wanted] * 3


@pytest.mark.parametrize("way", ["inline", "async", "def", "executor"])
@pytest.mark.parametrize("error", [ValueError, OSError, RecursionError])
async def test_log_handler_that_raises(way: str, error: type[Exception]) -> None:
    async with house_left_clean() as house, client_of(house) as client:
        handler = RaisingHandler(error)
        loggers = [logging.getLogger(name) for name in ("mpreg", "mpreg_transports")]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            for where in _WHERES:
                assert await end_of(client, function_name(way, where), "raises") == "1003"
                assert await end_of(client, function_name(way, where), "returns") == "value"
        finally:
            for logger in loggers:
                logger.removeHandler(handler)


async def offer_everywhere(house: House, executors: Sequence[Executor]) -> None:
    """Offer `pooled` on both nodes, and wait until the `asked` node lists both offers."""
    for server, executor in zip(house.nodes, executors, strict=True):
        server.register("pooled", bodies.plain, executor=executor)
    await until(lambda: sum(row.function == "pooled" for row in house.asked.view().functions) == 2)


class InPlace(Executor):
    """An executor that runs each call in `submit`."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class RaisingHandler(logging.Handler):
    """As a handler of a program whose log file was closed."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self._error("the log has gone")


async def test_storm_of_calls_that_cancel_each_other(anyio_backend: str) -> None:
    """Three hundred calls by five clients, with every exception, deadlines and cancels in between: each ends once."""
    draw = random.Random(8)
    outcomes = [*RAISES, "returns", "returns-object", "returns-too-long", "deadline", "cancelled"]
    quick = [one for one in outcomes if not one.endswith(("-long", "-many", "-wide", "-deep"))]
    async with house_left_clean() as house:
        ends: list[End] = []

        async def ask(client: str, count: int) -> None:
            async with caller(client, house.asked.port, loop=anyio_backend) as one:
                for _ in range(count):
                    function = function_name(draw.choice(("inline", "async", "def", "executor")), draw.choice(_WHERES))
                    outcome = draw.choice(quick)
                    if outcome in ("deadline", "cancelled"):
                        function = function_name("async", draw.choice(_WHERES))
                    with anyio.move_on_after(0.02 if outcome == "cancelled" and client in NATIVE[:2] else SECONDS):
                        ends.append(await one.call(function, outcome, timeout=0.05 if outcome in _HELD else SECONDS))

        async with anyio.create_task_group() as tasks:
            for client in CLIENTS * 2:
                tasks.start_soon(ask, client, 30)
        assert {end.end for end in ends} <= {"value", "error"}, [
            end for end in ends if end.end not in ("value", "error")
        ]
        assert {end.code for end in ends} <= {0, 1003, 1014, 1020}
        assert len(ends) > 250
        ends.clear()


async def test_every_exception_in_one_request() -> None:
    async with house_left_clean() as house, client_of(house) as client:
        graph = client.graph()
        for name in RAISES:
            graph.call(function_name("def", "other"), name, Parcel("given"), name=name)
        answer = await client.answer(graph, on_error="partial", timeout=SECONDS)
        assert not answer.values
        assert set(answer.errors) == set(RAISES)
        assert {error.code for error in answer.errors.values()} <= {1003, 1014}
        del answer, graph


_WHERES = ("asked", "other")
_HELD = ("deadline", "cancelled")
