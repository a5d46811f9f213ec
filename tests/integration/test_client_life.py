"""A client before, at the end of, and after its life; and a client whose only node becomes a node of another cluster.

Every waiting question gets an answer: a call outside `async with` never waits without a limit.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.limits import HOUR, MILLISECOND, Limits
from mpreg_transports import Cancelled, Client, ClusterMismatch, OutcomeUnknown, RequestError, Server
from mpreg_transports.graph import Graph
from mpreg_transports.testing.memory.network import InterruptibleLink, MemoryHost, MemoryNetwork
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine
from tests.helpers.servers import reserved_port

pytestmark = pytest.mark.anyio

QUICK = Limits(dial_first=MILLISECOND, dial_longest=5 * MILLISECOND)


def echo_graph(client: Client) -> Graph:
    graph = client.graph()
    graph.call("echo", 1)
    return graph


async def streamed(client: Client) -> None:
    async for _ in client.stream(echo_graph(client)):
        pass


QUESTIONS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "call": lambda client: client.call("echo", 1),
    "call with a timeout": lambda client: client.call("echo", 1, timeout=60),
    "run": lambda client: client.run(echo_graph(client)),
    "answer": lambda client: client.answer(echo_graph(client), on_error="partial"),
    "stream": streamed,
    "explain": lambda client: client.explain(echo_graph(client)),
    "view": lambda client: client.view(),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_client_that_is_not_entered_raises(question: str) -> None:
    client = Client("ws://127.0.0.1:1")
    with anyio.fail_after(PATIENCE), pytest.raises(RuntimeError, match="use it as `async with Client"):
        await QUESTIONS[question](client)
    assert len(client._session) == 0


@pytest.mark.parametrize("question", QUESTIONS)
async def test_client_that_was_left_raises(question: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            async with Client(server.url) as client:
                await QUESTIONS[question](client)
            with pytest.raises(RuntimeError, match="use it as `async with Client"):
                await QUESTIONS[question](client)
            async with client:  # it can be entered again
                await QUESTIONS[question](client)


async def failing(client: Client, function: str, errors: list[RequestError]) -> None:
    with pytest.raises(RequestError) as caught:
        await client.call(function)
    errors.append(caught.value)


async def started(client: Client, count: int) -> None:
    """Wait until `count` questions are pending."""
    while len(client._session) < count:
        await anyio.lowlevel.checkpoint()


async def test_running_calls_end_with_the_client_and_are_cancelled() -> None:
    held, errors = BlockingCoroutine(), []
    server = Server(port=0)
    server.register("held", held.body)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            async with Client(server.url) as client:
                tasks.start_soon(failing, client, "held", errors)
                await held.until(started=1)
            await held.until(cancelled=1)
    assert isinstance(errors[0], OutcomeUnknown)
    assert errors[0].details["maybe_executed"] is True


async def left(server: Server) -> None:
    """Make the node leave, and wait until it has left."""
    server.leave(grace=False)
    with suppress(RuntimeError):  # it is not running
        while True:
            server.view()
            await anyio.lowlevel.checkpoint()


async def test_unsent_calls_end_with_the_client_and_never_run() -> None:
    errors: list[RequestError] = []
    server = Server(port=0)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            async with Client(server.url, limits=QUICK) as client:
                await left(server)
                while client._session.ready:
                    await anyio.lowlevel.checkpoint()
                for _ in range(2):
                    tasks.start_soon(failing, client, "echo", errors)
                await started(client, 2)
    assert [type(error) for error in errors] == [Cancelled, Cancelled]
    assert [error.details["maybe_executed"] for error in errors] == [False, False]


async def test_cancelled_client_ends_the_calls_of_other_tasks() -> None:
    errors: list[RequestError] = []
    server = Server(port=0)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            with anyio.CancelScope() as scope:
                async with Client(server.url, limits=QUICK) as client:
                    await left(server)
                    while client._session.ready:
                        await anyio.lowlevel.checkpoint()
                    tasks.start_soon(failing, client, "echo", errors)
                    await started(client, 1)
                    scope.cancel()
                    await anyio.sleep_forever()
    assert isinstance(errors[0], Cancelled)


async def test_node_that_returns_in_another_cluster_fails_calls() -> None:
    with anyio.fail_after(PATIENCE), reserved_port() as port:
        ours, theirs, again = (Server(port=port, cluster_id=name) for name in ("ours", "theirs", "ours"))
        async with anyio.create_task_group() as tasks:
            await tasks.start(ours.serve)
            async with Client(f"ws://127.0.0.1:{port}", cluster_id="ours", limits=QUICK) as client:
                assert await client.call("echo", 1) == 1
                await left(ours)
                await tasks.start(theirs.serve)
                for _ in range(3):
                    with pytest.raises(ClusterMismatch):
                        await client.call("echo", 2)
                await left(theirs)
                await tasks.start(again.serve)
                assert await client.call("echo", 3) == 3
            await left(again)


@pytest.mark.parametrize("keyword", ["on_progress", "retry"])
async def test_keywords_of_call_are_not_arguments_of_the_function(keyword: str) -> None:
    server = Server(port=0)
    server.register("given", lambda **kwargs: kwargs, inline=True)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            with pytest.raises(TypeError, match=f"{keyword}=5"):
                await client.call("given", **{keyword: 5})
            assert await client.call("given", kwargs={keyword: 5}, other=1) == {keyword: 5, "other": 1}


class SlowToClose(MemoryHost):
    """A host whose links take a second to close."""

    async def dial(self, address: str) -> InterruptibleLink:
        link = await super().dial(address)
        close = link.close

        async def slow(code: int = 1000) -> None:
            await anyio.sleep(1.0)
            await close(code)

        link.close = slow  # type: ignore[method-assign]
        return link


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "waits for a link"])
async def test_calls_end_at_once_when_the_client_closes(sent: bool) -> None:
    """Callers do not wait until the links have closed: meanwhile nothing would end a call at its deadline."""
    network, body = MemoryNetwork(), BlockingCoroutine()
    server = Server(network=network.host("node"))
    server.register("held", body.body)
    client = Client("memory://node", network=SlowToClose(network, "client"))
    errors: list[RequestError] = []
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            await client.connect()
            if not sent:
                network.cut("client", "node")
                while client.node:  # noqa: ASYNC110 - nothing reports it
                    await anyio.sleep(0.001)
            tasks.start_soon(failing, client, "held", errors)
            await started(client, 1)
            if sent:
                await body.until(started=1)
            tasks.start_soon(client.close)
            with anyio.fail_after(0.5):
                while not errors:  # noqa: ASYNC110 - nothing reports it
                    await anyio.sleep(0.001)
    assert [type(error) for error in errors] == [OutcomeUnknown if sent else Cancelled]


async def test_rejection_ends_a_waiting_call_before_the_next_dial() -> None:
    """The pauses of the client have no length until it is rejected, and are an hour long from then on."""
    far = b"\0"
    quick = Limits(dial_first=HOUR, dial_longest=HOUR)
    with anyio.fail_after(PATIENCE), reserved_port() as port:
        ours, theirs = (Server(port=port, cluster_id=name) for name in ("ours", "theirs"))
        async with anyio.create_task_group() as tasks:
            await tasks.start(ours.serve)
            client = Client(f"ws://127.0.0.1:{port}", cluster_id="ours", limits=quick)
            connection = client._connection
            connection._entropy = lambda size: far * size
            fail_all = connection.session.fail_all

            def rejected(fault: Fault) -> None:
                nonlocal far
                far = b"\xff"
                fail_all(fault)

            connection.session.fail_all = rejected  # type: ignore[method-assign]
            async with client:
                await left(ours)
                while connection.session.ready:
                    await anyio.lowlevel.checkpoint()
                errors: list[RequestError] = []
                tasks.start_soon(failing, client, "echo", errors)
                await started(client, 1)
                await tasks.start(theirs.serve)
                while not errors:
                    await anyio.lowlevel.checkpoint()
            assert isinstance(errors[0], ClusterMismatch)
            await left(theirs)
