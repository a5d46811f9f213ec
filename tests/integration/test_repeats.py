"""Calls that are sent again, with real functions: after the loss of the client's own node, and after a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import Client, MpregError, OutcomeUnknown, Overloaded, Server, SyncClient
from mpreg_transports.testing import memory_cluster
from mpreg_transports.testing.memory.cluster import MemoryCluster
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine

pytestmark = pytest.mark.anyio

QUICK = Limits(dial_first=MILLISECOND, dial_longest=10 * MILLISECOND)


def two_nodes(held: BlockingCoroutine, *, idempotent: bool) -> MemoryCluster:
    """Two nodes that offer `held`."""
    functions = {"held": Fn(held.body, idempotent=idempotent)}
    return memory_cluster({name: Spec(functions=functions) for name in ("one", "two")})


async def called(client: Client, outcomes: list[object], function: str, *args: object, **options: bool) -> None:
    """Add the result or the error of a call to `outcomes`."""
    try:
        outcomes.append(await client.call(function, *args, **options))
    except MpregError as error:
        outcomes.append(error)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_call_at_a_node_that_dies_goes_to_the_next_if_it_is_idempotent(idempotent: bool) -> None:
    held, outcomes = BlockingCoroutine(), []
    with anyio.fail_after(PATIENCE):
        async with two_nodes(held, idempotent=idempotent) as cluster, cluster.client("one", "two") as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(called, client, outcomes, "held", 7)
                await held.until(started=1)
                await cluster.kill("one")
                if idempotent:
                    await held.until(started=2)
                    held.release()
            assert client.node == "two"
    if idempotent:
        assert outcomes == [7]
    else:
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] and held.started == 1


@pytest.mark.parametrize("idempotent", [True, False])
async def test_call_on_a_link_that_breaks_goes_to_the_same_node_again(idempotent: bool) -> None:
    held, outcomes = BlockingCoroutine(), []
    with anyio.fail_after(PATIENCE):
        async with (
            two_nodes(held, idempotent=idempotent) as cluster,
            cluster.client("one", limits=QUICK) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(called, client, outcomes, "held", 7)
            await held.until(started=1)
            cluster.cut("client", "one")
            cluster.heal()
            if idempotent:
                await held.until(started=2, cancelled=1)
                held.release()
    assert [outcome if idempotent else type(outcome) for outcome in outcomes] == [7 if idempotent else OutcomeUnknown]
    assert held.started == (2 if idempotent else 1)


async def test_call_without_another_node_ends_within_a_second() -> None:
    held, outcomes = BlockingCoroutine(), []
    with anyio.fail_after(PATIENCE):
        async with two_nodes(held, idempotent=True) as cluster, cluster.client("one", limits=QUICK) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(called, client, outcomes, "held")
                await held.until(started=1)
                cluster.cut("client", "one")
            cluster.heal()
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown]


@asynccontextmanager
async def busy_node(held: BlockingCoroutine) -> AsyncIterator[Client]:
    """Yield a client of a node that takes one request at a time, and has one: a call of `held` by another client."""
    server = Server(port=0, limits=Limits(requests=1))
    server.register("held", held.body)
    async with (
        server,
        Client(server.url) as first,
        Client(server.url) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(called, first, [], "held")
        await held.until(started=1)
        yield client


@pytest.mark.parametrize("retry", [True, False])
async def test_call_that_a_busy_node_refuses_is_repeated(retry: bool) -> None:
    held, outcomes = BlockingCoroutine(), []
    with anyio.fail_after(PATIENCE):
        async with busy_node(held) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(called, retry=retry), client, outcomes, "echo", 5)
            if not retry:
                while not outcomes:
                    await anyio.lowlevel.checkpoint()
            held.release()
    assert [outcome if retry else type(outcome) for outcome in outcomes] == [5 if retry else Overloaded]


async def test_graph_that_a_busy_node_refuses_is_repeated() -> None:
    held, values = BlockingCoroutine(), []
    with anyio.fail_after(PATIENCE):
        async with busy_node(held) as client, anyio.create_task_group() as tasks:

            async def run() -> None:
                graph = client.graph()
                graph.call("echo", 5)
                values.append(await graph.run(retry=True))

            tasks.start_soon(run)
            while not len(client._session):
                await anyio.lowlevel.checkpoint()
            held.release()
    assert values == [{"echo": 5}]


async def test_repeats_end_with_the_deadline() -> None:
    held = BlockingCoroutine()
    with anyio.fail_after(PATIENCE):
        async with busy_node(held) as client:
            with pytest.raises(Overloaded):
                await client.call("echo", 5, retry=True, timeout=0.5)  # the node asks for a pause of a second
            held.release()


def test_blocking_client_repeats() -> None:
    server = Server(port=0)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(server),
        SyncClient(server.url) as client,
    ):
        assert client.call("echo", 5, retry=True) == 5
        graph = client.graph()
        graph.call("echo", 6)
        assert graph.run(retry=True) == {"echo": 6}
        with pytest.raises(TypeError, match="retry=3: expected True or False"):
            client.call("echo", 5, retry=3)  # type: ignore[arg-type]


async def test_function_keyword_of_that_name_goes_into_kwargs() -> None:
    server = Server(port=0)
    server.register("given", lambda **kwargs: kwargs, inline=True)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            assert await client.call("given", retry=True, kwargs={"retry": 3}) == {"retry": 3}
