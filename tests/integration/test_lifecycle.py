"""Clients and servers opened and closed in any task, in any order, in threads, in other event loops and after forks."""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from mpreg_proto.ids import Address
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_transports import Client, DeadlineExceeded, NotConnected, RequestError, Server, SyncClient
from mpreg_transports.graph import Graph
from mpreg_transports.runtime.dialing import open_link
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine

pytestmark = pytest.mark.anyio


async def elsewhere(act: Callable[[], Awaitable[object]]) -> None:
    """Await `act` in a task that ends afterwards."""

    async def run() -> None:
        await act()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)


@contextmanager
def silent_port() -> Iterator[int]:
    """A port where the system accepts connections and no program does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


async def test_client_connected_and_closed_by_other_tasks() -> None:
    async with Server(port=0) as server:
        client = Client(server.url)
        await elsewhere(client.connect)
        assert client.is_open and client.node == "node" and client.version
        await client.connect()
        assert await client.call("echo", 1) == 1
        await elsewhere(client.close)
        await client.close()
        assert not client.is_open and client.node == "" and client.version == 0


async def test_server_entered_and_left_by_other_tasks() -> None:
    server = Server(port=0)
    await elsewhere(server.__aenter__)
    async with Client(server.url) as client:
        assert await client.call("echo", 1) == 1
    await elsewhere(lambda: server.__aexit__(None, None, None))
    with pytest.raises(RuntimeError, match="not running"):
        server.view()


async def test_exit_stacks_left_in_the_order_they_were_entered() -> None:
    stacks = [AsyncExitStack() for _ in range(3)]
    server = await stacks[0].enter_async_context(Server(port=0))
    clients = [await stack.enter_async_context(Client(server.url)) for stack in stacks[1:]]
    for client in clients:
        assert await client.call("echo", 1) == 1
    for stack in stacks:
        await stack.aclose()


async def test_async_generator_closed_by_another_task() -> None:
    async def fixture() -> AsyncIterator[Client]:
        async with Server(port=0) as server, Client(server.url) as client:
            yield client

    one = fixture()
    client = await anext(one)
    assert await client.call("echo", 1) == 1
    await elsewhere(one.aclose)  # type: ignore[attr-defined]


async def test_cancel_scope_of_the_caller_does_not_end_the_client() -> None:
    async with Server(port=0) as server:
        client = Client(server.url)
        with anyio.move_on_after(PATIENCE) as scope:
            await client.connect()
            scope.cancel()
        assert await client.call("echo", 1) == 1
        await client.close()


async def test_cancelled_connect_can_be_repeated() -> None:
    with silent_port() as port:
        client = Client(f"tcp://127.0.0.1:{port}")
        with anyio.move_on_after(0.05):
            await client.connect()
        assert not client.is_open
        with pytest.raises(RuntimeError, match="not connected"):
            await client.call("echo", 1)
    async with Server(port=int(port)) as server:
        assert server.port == port
        await client.connect()
        assert await client.call("echo", 1) == 1
        await client.close()


async def test_client_closed_while_it_connects() -> None:
    with silent_port() as port:
        client = Client(f"tcp://127.0.0.1:{port}")

        async def connecting() -> None:
            with pytest.raises(NotConnected, match="closed while it was connecting"):
                await client.connect()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connecting)
            await anyio.wait_all_tasks_blocked()
            await client.close()


async def test_close_by_another_task_ends_pending_calls() -> None:
    held, codes = BlockingCoroutine(), []
    server = Server(port=0)
    server.register("held", held.body)

    async def waiting() -> None:
        with pytest.raises(RequestError) as caught:
            await client.call("held")
        codes.append(caught.value.code)

    async with server:
        client = await Client(server.url).connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            tasks.start_soon(waiting)
            await held.until(started=2)
            async with anyio.create_task_group() as closing:
                closing.start_soon(client.close)
                closing.start_soon(client.close)
        assert codes == [1023, 1023]
        await held.until(cancelled=2)


async def test_reentered_client_has_no_old_state() -> None:
    async with Server(port=0, name="first") as first, Server(port=0, name="second") as second:
        client = Client(first.url)
        async with client:
            graph = client.graph()
            graph.call("echo", 1)
            stream = client.stream(graph)
            assert await anext(stream) == ("echo", 1)
            old = client._session
        client.urls = (second.url,)
        async with Client(second.url) as other, client:
            assert client._session is not old and len(client._session) == 0
            assert await client.call("echo", 2) == 2
            await stream.aclose()
            assert await client.call("echo", 3) == 3
            assert other.node == "second"


async def test_unclosed_client_warns_and_disconnects() -> None:
    async with Server(port=0) as server:
        client = await Client(server.url).connect()
        connection = client._connection
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del client
            gc.collect()
        assert [one.category for one in caught] == [ResourceWarning]
        with anyio.fail_after(PATIENCE):
            while not connection.is_ended:
                await anyio.lowlevel.checkpoint()


# -- errors -----------------------------------------------------------------------------------------------------------


async def test_single_error_reaches_the_caller_unchanged(anyio_backend: str) -> None:
    async with Server(port=0) as running:
        taken = Server(port=running.port)
        for serve in (taken.serve, taken.serve_until_signal, taken.__aenter__):
            with pytest.raises(OSError, match="already in use"):
                await serve()
        with pytest.raises(OSError, match="already in use"):
            await anyio.to_thread.run_sync(lambda: taken.run(backend=anyio_backend))
        with pytest.raises(RuntimeError, match="runs already"):
            await running.serve()
        with pytest.raises(NotConnected):
            await Client("ws://127.0.0.1:1").connect()
        with pytest.raises(KeyError, match="own"):
            async with Client(running.url), Client(running.url):
                raise KeyError("own")
    with pytest.raises(KeyError, match="own"):
        async with Server(port=0) as server, Client(server.url) as client:
            graph = client.graph()
            graph.call("echo", 1)
            async for _ in client.stream(graph):
                raise KeyError("own")


async def test_cancelled_server_ends_at_once() -> None:
    held = BlockingCoroutine()
    server = Server(port=0)
    server.register("held", held.body)

    async def calling(client: Client) -> None:
        with pytest.raises(RequestError):
            await client.call("held")

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks, server:
            client = await Client(server.url).connect()
            tasks.start_soon(calling, client)
            await held.until(started=1)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught and held.ended == 1
    await client.close()


# -- other loops and threads ------------------------------------------------------------------------------------------


async def test_use_in_another_event_loop_is_refused_at_once(anyio_backend: str) -> None:
    seen: list[str] = []

    async def use(act: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(RuntimeError, match="event loop") as caught:
            await act()
        seen.append(str(caught.value))

    async def following() -> None:
        await anext(stream)

    async with Server(port=0) as server, Client(server.url) as client:
        graph = client.graph()
        graph.call("echo", 1)
        graph.call("echo", 2)
        stream = client.stream(graph)
        await anext(stream)
        ways: list[Callable[[], Awaitable[object]]] = [
            lambda: client.call("echo", 1),
            lambda: client.run(graph),
            lambda: client.explain(graph),
            client.view,
            client.connect,
            client.close,
            following,
            lambda: server.__aexit__(None, None, None),
        ]
        for act in ways:
            await anyio.to_thread.run_sync(lambda act=act: anyio.run(use, act, backend=anyio_backend))
        assert len(seen) == len(ways)
        assert await client.call("echo", 3) == 3


def test_client_outlives_its_event_loop(anyio_backend: str) -> None:
    """`asyncio.run` runs twice, and the client is never closed between."""
    with SyncServer() as server:
        client = Client(server.url)

        async def first() -> None:
            await client.connect()
            assert await client.call("echo", 1) == 1

        async def second() -> None:
            with pytest.raises(RuntimeError):
                await client.call("echo", 2)
            async with client:
                assert await client.call("echo", 3) == 3

        anyio.run(first, backend=anyio_backend)
        anyio.run(second, backend=anyio_backend)


def test_client_of_a_closed_event_loop() -> None:
    with SyncServer() as server:
        client = Client(server.url)
        loop = asyncio.SelectorEventLoop()  # uvloop continues to read for a transport whose loop is closed
        loop.run_until_complete(client.connect())
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.run(use_again(client))
            del loop
            gc.collect()


async def use_again(client: Client) -> None:
    with pytest.raises(RuntimeError):
        await client.call("echo", 1)
    await client.close()
    async with client:
        assert await client.call("echo", 2) == 2


class SyncServer:
    """A server in a thread of its own."""

    def __enter__(self) -> Server:
        self._portal = anyio.from_thread.start_blocking_portal()
        portal = self._portal.__enter__()
        self._server = portal.wrap_async_context_manager(Server(port=0))
        return self._server.__enter__()

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(None, None, None)
        self._portal.__exit__(None, None, None)


def test_run_in_a_thread_serves_without_signals(anyio_backend: str) -> None:
    server = Server(port=0)
    thread = threading.Thread(target=server.run, kwargs={"backend": anyio_backend})
    thread.start()
    while not server.url:
        time.sleep(0)
    with SyncClient(server.url) as client:
        assert client.call("echo", 1) == 1
    server.leave(grace=False)
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def test_view_from_a_thread_is_built_in_the_event_loop() -> None:
    threads: list[int] = []
    async with Server(port=0) as server:
        assert server._driver is not None
        node = server._driver.node
        view = node.view
        node.view = lambda **now: (threads.append(threading.get_ident()), view(**now))[1]  # type: ignore[method-assign]
        seen = await anyio.to_thread.run_sync(server.view)
        assert seen.id == server.view().id
    assert set(threads) == {threading.get_ident()}


async def test_leave_before_serve() -> None:
    server = Server(port=0)
    server.leave()
    with anyio.fail_after(PATIENCE):
        await server.serve()
    server.leave()  # it has ended: leave() has no effect and is not remembered
    async with server, Client(server.url) as client:
        assert await client.call("echo", 1) == 1


async def test_leave_takes_effect_in_a_later_event_loop_callback() -> None:
    async with Server(port=0) as server:
        assert server._driver is not None
        node = server._driver.node
        server.leave()
        assert not node.draining  # leave() may be called by a signal handler that interrupts the node
        with anyio.fail_after(PATIENCE):
            while not node.draining:
                await anyio.lowlevel.checkpoint()


async def test_view_in_a_signal_handler_that_interrupts_the_node() -> None:
    async with Server(port=0) as server, Client(server.url) as client:
        assert server._driver is not None
        node, refused = server._driver.node, []
        advertise = node.cluster.advertise

        def interrupted(*args: object, **options: object) -> object:
            with pytest.raises(RuntimeError, match="interrupted the node") as caught:
                server.view()
            refused.append(caught.value)
            return advertise(*args, **options)

        node.cluster.advertise = interrupted  # type: ignore[method-assign]
        node.advertise((), now=0)
        assert refused
        assert await client.call("echo", 1) == 1


# -- two addresses ----------------------------------------------------------------------------------------------------

QUICK = Limits(dial_first=MILLISECOND, dial_longest=5 * MILLISECOND)


@asynccontextmanager
async def two(held: BlockingCoroutine) -> AsyncIterator[tuple[Server, Server, Client]]:
    first, second = Server(name="first", port=0), Server(name="second", port=0)
    for server in (first, second):
        server.register("held", held.body)
    async with first, second, Client(first.url, second.url, limits=QUICK) as client:
        assert client.node == "first"
        yield first, second, client


async def test_draining_node_finishes_calls_and_client_moves_on() -> None:
    held, answers = BlockingCoroutine(), []

    async def waiting() -> None:
        answers.append(await client.call("held", "from the first"))

    with anyio.fail_after(PATIENCE):
        async with two(held) as (first, _, client), anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            await held.until(started=1)
            first.leave()
            for number in range(5):
                assert await client.call("echo", number) == number
            assert client.node == "second"
            graph = client.graph()
            graph.call("echo", 1)
            assert [row async for row in client.stream(graph)] == [("echo", 1)]
            held.release()
        assert answers == ["from the first"]


async def test_orderly_restart_of_one_of_two_nodes_fails_no_call() -> None:
    failed: list[BaseException] = []

    async def calling(client: Client, over: anyio.Event) -> None:
        while not over.is_set():
            try:
                assert await client.call("echo", 1) == 1
            except RequestError as error:
                failed.append(error)

    over = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with two(BlockingCoroutine()) as (first, _, client), anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(calling, client, over)
            await client.call("echo", 1)
            first.leave()
            while client.node != "second":
                await anyio.lowlevel.checkpoint()
            assert await client.call("echo", 2) == 2
            over.set()
    assert not failed


async def test_all_nodes_drain() -> None:
    held = BlockingCoroutine()

    async def waiting() -> None:
        await client.call("held")

    with anyio.fail_after(PATIENCE):
        async with two(held) as (first, second, client), anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            await held.until(started=1)
            first.leave()
            assert await client.call("echo", 1) == 1
            tasks.start_soon(waiting)
            await held.until(started=2)
            second.leave()
            with pytest.raises(RequestError) as caught:
                await client.call("echo", 1, timeout=5)
            assert caught.value.code in (1024, 1020) and caught.value.details["maybe_executed"] is False
            held.release()


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1e-12, 1e-9, 86_400, 86_400.0])
async def test_legal_timeout_is_a_deadline(timeout: float) -> None:
    server = Server(port=0)
    server.register("held", BlockingCoroutine().body)
    async with server, Client(server.url) as client:
        if timeout > 1:
            assert await client.call("echo", 1, timeout=timeout) == 1
        else:
            with pytest.raises(DeadlineExceeded):
                await client.call("held", timeout=timeout)
        assert await client.call("echo", 2) == 2


async def test_slow_name_lookup_runs_in_a_daemon_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = threading.Event(), threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: str | bytes | None, *rest: Any, **options: Any) -> object:
        numeric = len(rest) > 4 and int(rest[4]) & socket.AI_NUMERICHOST  # trio first tries to read it as an address
        if numeric or host not in ("slow.invalid", b"slow.invalid"):
            return look_up(host, *rest, **options)
        asked.set()
        answer.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    before = threading.enumerate()
    with anyio.move_on_after(0.05):
        await open_link(Address("tcp://slow.invalid:1"))
    assert asked.is_set()
    assert all(one.daemon for one in threading.enumerate() if one not in before)
    answer.set()


# -- forks ------------------------------------------------------------------------------------------------------------


def in_child(act: Callable[[], object]) -> str:
    """Return what `act` returned or raised in a forked child; "hangs" if the child did not end."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks of a process with threads
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(PATIENCE))
        try:
            os.write(writing, repr(act()).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as came:
        text = came.read().decode()
    return text if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]) else "hangs"


async def test_client_in_a_forked_child() -> None:
    async with Server(port=0) as server, Client(server.url) as client:

        def use() -> object:
            try:
                client.call("echo", 1).send(None)
            except RuntimeError as error:
                return str(error)
            return "asked"

        def close() -> object:
            with pytest.raises(StopIteration):
                client.close().send(None)
            return client.is_open

        assert "forked from it" in in_child(use)
        assert in_child(close) == "False"
        for act in (server.view, server.leave, lambda: server.unregister("echo")):
            assert "forked from it" in in_child(act)
        assert await client.call("echo", 2) == 2


def test_sync_client_in_a_forked_child(anyio_backend: str) -> None:
    with SyncServer() as server, SyncClient(server.url, backend=anyio_backend) as client:
        assert client.call("echo", 1) == 1
        with client._lock:  # as another thread may hold it at the moment of a fork
            assert in_child(lambda: client.call("echo", 2, timeout=PATIENCE)) == "2"
        assert in_child(client.close) == "None"
        stream = client.stream(graph_of(client))
        next(stream)
        assert in_child(stream.close) == "None"
        assert in_child(lambda: in_child(lambda: client.call("echo", 3, timeout=PATIENCE))) == repr("3")
        assert client.call("echo", 4) == 4


def graph_of(client: SyncClient) -> Graph:
    graph = client.graph()
    graph.call("echo", 1)
    graph.call("echo", 2)
    return graph


# -- SyncClient -------------------------------------------------------------------------------------------------------


def test_sync_client_timeout_covers_connecting(anyio_backend: str) -> None:
    with silent_port() as port, closing(SyncClient(f"tcp://127.0.0.1:{port}", backend=anyio_backend)) as client:
        began = time.monotonic()
        errors: list[BaseException] = []

        def call() -> None:
            try:
                client.call("echo", 1, timeout=0.1)
            except DeadlineExceeded as error:
                errors.append(error)

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(errors) == 3 and time.monotonic() - began < 3
        assert all(error.details == {"maybe_executed": False} for error in errors)  # type: ignore[attr-defined]


def test_sync_client_timeout_covers_the_start_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0, 3 * SECOND])  # the event loop was running only after the deadline
    monkeypatch.setattr("mpreg_transports.sync.clock", lambda: next(readings, 3 * SECOND))
    with silent_port() as port, closing(SyncClient(f"tcp://127.0.0.1:{port}")) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="within 2 s"):
            client.call("echo", 1, timeout=2)
        assert time.monotonic() - began < 2


def test_stream_collected_in_the_client_thread_while_it_closes() -> None:
    with SyncServer() as server:
        client = SyncClient(server.url)
        stream = client.stream(graph_of(client))
        next(stream)
        kept = [stream]
        del stream

        async def collect() -> None:
            kept.clear()
            gc.collect()

        assert client._portal is not None
        with client._lock:
            client._portal.start_task_soon(collect).result(PATIENCE)
        client.close()


def test_unclosed_sync_client_ends_its_thread(anyio_backend: str) -> None:
    with SyncServer() as server:
        client = SyncClient(server.url, backend=anyio_backend)
        assert client.call("echo", 1) == 1
        assert client._loop is not None
        thread = client._loop._thread
        del client
        gc.collect()
        thread.join(PATIENCE)
        assert not thread.is_alive()


async def test_leave_ends_a_server_that_waits_for_signals() -> None:
    server, before = Server(port=0), signal.getsignal(signal.SIGTERM)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve_until_signal)
            async with Client(server.url) as client:
                assert await client.call("echo", 1) == 1
            server.leave(grace=False)
    assert signal.getsignal(signal.SIGTERM) is before
