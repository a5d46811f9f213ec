"""`SyncClient` against a real node in another thread: every method, several threads, Ctrl-C, close."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal

from mpreg_transports import (
    Cancelled,
    Client,
    CommandNotFound,
    DeadlineExceeded,
    ExecutionFailed,
    Graph,
    NotConnected,
    OutcomeUnknown,
    RequestError,
    Server,
    SyncClient,
)
from tests.helpers.servers import reserved_port

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits that long."""


class Held:
    """A function that waits until `let_go`, and counts its starts and stops for other threads."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.stopped = threading.Semaphore(0)
        self.interrupt = False
        self._go_on: list[tuple[anyio.Event, anyio.lowlevel.EventLoopToken]] = []

    async def __call__(self, value: object = None) -> object:
        event = anyio.Event()
        self._go_on.append((event, anyio.lowlevel.current_token()))
        self.begun.release()
        if self.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await event.wait()
        except BaseException:
            self.stopped.release()
            raise
        return value

    def let_go(self) -> None:
        """Let it return, once it has started."""
        assert self.begun.acquire(timeout=PATIENCE)
        event, token = self._go_on.pop(0)
        anyio.from_thread.run_sync(event.set, token=token)


@contextmanager
def node() -> Iterator[Server]:
    """A node that runs in its own thread."""
    server = Server(port=0, name="front", resources={"here"})
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with node() as running:
        yield running


@pytest.fixture
def held(server: Server) -> Held:
    made = Held()
    server.register("held", made)
    return made


@pytest.fixture
def client(server: Server, anyio_backend: str) -> Iterator[SyncClient]:
    with SyncClient(server.url, backend=anyio_backend) as connected:
        yield connected


def test_call_with_options(client: SyncClient, server: Server) -> None:
    server.register("keywords", lambda **more: more)
    assert client.call("echo", "hi there!", resources={"here"}, timeout=PATIENCE) == "hi there!"
    assert client.call("echo", (1, {2})) == (1, {2})
    assert client.call("keywords", a=1, kwargs={"timeout": 5, "wait": 6}) == {"a": 1, "timeout": 5, "wait": 6}
    assert (client.node, client.urls) == ("front", (server.url,))


def test_errors_are_those_of_the_client(client: SyncClient, server: Server, held: Held) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    server.register("fail", fail)
    with pytest.raises(CommandNotFound):
        client.call("nowhere")
    with pytest.raises(ExecutionFailed) as caught:
        client.call("fail")
    assert caught.value.details["message"] == "on purpose"
    with pytest.raises(TypeError, match="bare string"):
        client.call("echo", 1, resources="here")
    with pytest.raises(DeadlineExceeded):
        client.call("held", timeout=0.05)
    assert held.stopped.acquire(timeout=PATIENCE)
    assert client.call("echo", 1) == 1


def test_runs_of_a_graph(client: SyncClient) -> None:
    graph = client.graph()
    first = graph.call("echo", {"key": "hi there!"})
    both = graph.call("echos", first, first["key"])
    alone = graph.call("echo", 1, name="alone")
    expected = [{"key": "hi there!"}, "hi there!"]
    assert graph.run() == {"echos": expected, "alone": 1}
    assert graph.run(both) == expected
    assert graph.run(both, alone, first["key"]) == (expected, 1, "hi there!")
    (front,) = client.view().members
    assert [(row.name, row.nodes) for row in graph.explain()] == [
        (name, (front.shown,)) for name in ("echo", "echos", "alone")
    ]
    assert client.explain(graph) == graph.explain()
    assert client.run(graph, alone) == 1
    answer = client.answer(graph, trace=True)
    assert answer.values == {"echos": expected, "alone": 1}
    assert {row.name for row in answer.trace} == {"echo", "echos", "alone"}

    plain = Graph()
    plain.call("nowhere", name="lost")
    plain.call("echo", 2)
    values = client.run(plain, on_error="partial")
    assert values["echo"] == 2
    assert isinstance(values["lost"], CommandNotFound)
    assert isinstance(client.answer(plain, on_error="partial").errors["lost"], CommandNotFound)


def test_stream_yields_the_first_leaf_while_another_runs(client: SyncClient, held: Held) -> None:
    graph = client.graph()
    graph.call("held", "late")
    graph.call("echo", "soon")
    items = graph.stream(timeout=PATIENCE)
    assert next(items) == ("echo", "soon")
    held.let_go()
    assert list(items) == [("held", "late")]


def test_break_of_a_stream_cancels_the_rest(client: SyncClient, held: Held) -> None:
    graph = client.graph()
    graph.call("held")
    graph.call("echo", 1)
    for name, value in client.stream(graph):
        assert (name, value) == ("echo", 1)
        break
    assert held.stopped.acquire(timeout=PATIENCE)


def test_stream_that_fails(client: SyncClient) -> None:
    graph = client.graph()
    graph.call("nowhere")
    with pytest.raises(CommandNotFound):
        list(graph.stream())


def test_view(client: SyncClient) -> None:
    assert [(member.name, member.me) for member in client.view().members] == [("front", True)]


def test_calls_of_several_threads(client: SyncClient, held: Held) -> None:
    with ThreadPoolExecutor(16) as threads:
        waiting = threads.submit(client.call, "held", "late")
        assert list(threads.map(lambda number: client.call("echo", number), range(200))) == list(range(200))
        assert not waiting.done()
        held.let_go()
        assert waiting.result(PATIENCE) == "late"


def test_first_call_of_any_thread_connects(server: Server, anyio_backend: str) -> None:
    client = SyncClient(server.url, backend=anyio_backend)
    assert client.node == ""
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda number: client.call("echo", number), range(8))) == list(range(8))
    client.close()


def test_closed_client_is_refused(server: Server, anyio_backend: str) -> None:
    with SyncClient(server.url, backend=anyio_backend) as client:
        graph = client.graph()
        graph.call("echo", 1)
        stream = graph.stream()
        assert next(stream) == ("echo", 1)
    client.close()
    stream.close()
    for act in (lambda: client.call("echo", 1), graph.run, graph.explain, client.view, lambda: list(graph.stream())):
        with pytest.raises(RuntimeError, match="this client is closed"):
            act()
    with pytest.raises(RuntimeError, match="this client is closed"), client:
        pass
    SyncClient(server.url).close()


def test_close_ends_calls_of_other_threads(server: Server, held: Held, anyio_backend: str) -> None:
    client = SyncClient(server.url, backend=anyio_backend)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(client.call, "held") for _ in range(3)]
        for _ in waiting:
            assert held.begun.acquire(timeout=PATIENCE)
        client.close()
        for one in waiting:
            with pytest.raises(OutcomeUnknown):
                one.result(PATIENCE)
    for _ in waiting:
        assert held.stopped.acquire(timeout=PATIENCE)


def test_close_ends_calls_that_wait_for_a_link(anyio_backend: str) -> None:
    with node() as server:
        client = SyncClient(server.url, backend=anyio_backend)
        client.call("echo", 1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.call, "echo", 2)
        while not len(client._client._session) and not waiting.done():
            time.sleep(0)  # until it waits
        client.close()
        with pytest.raises(RequestError) as caught:
            waiting.result(PATIENCE)
        # The client may or may not have noticed by then that its node has ended.
        assert isinstance(caught.value, (Cancelled, OutcomeUnknown))


def test_connection_refused_then_a_node_that_listens(server: Server, anyio_backend: str) -> None:
    client = SyncClient("ws://127.0.0.1:1", backend=anyio_backend)
    threads = threading.active_count()
    for _ in range(2):
        with pytest.raises(NotConnected):
            client.call("echo", 1)
    client.close()
    assert threading.active_count() == threads
    with pytest.raises(ValueError, match="is not an address"):
        SyncClient("nonsense")
    with SyncClient("ws://127.0.0.1:1", server.url, backend=anyio_backend) as other:
        assert other.call("echo", 1) == 1


def test_ctrl_c_cancels_a_running_call(client: SyncClient, held: Held) -> None:
    held.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        client.call("held")
    assert held.stopped.acquire(timeout=PATIENCE)
    assert client.call("echo", "still there") == "still there"


def test_ctrl_c_cancels_a_call_that_is_being_submitted(
    client: SyncClient, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = client._portal
    assert portal is not None
    hand_over = portal.start_task_soon

    def interrupted(function: Callable[..., Any]) -> None:
        hand_over(function)
        monkeypatch.setattr(portal, "start_task_soon", hand_over)
        assert held.begun.acquire(timeout=PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "start_task_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.call("held")
    assert held.stopped.acquire(timeout=PATIENCE)
    assert client.call("echo", "still there") == "still there"


def test_client_thread_ends_with_the_client(server: Server) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with SyncClient(server.url) as client:
        assert client.call("echo", 1) == 1
        assert "mpreg client" in {thread.name for thread in threading.enumerate()} - before
    assert {thread.name for thread in threading.enumerate()} <= before


def test_program_ends_without_close(server: Server) -> None:
    program = f"from mpreg_transports import SyncClient; print(SyncClient({server.url!r}).call('echo', 'done'))"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_sync_client_has_every_public_method_of_the_client() -> None:
    names = {name for name in vars(Client) if not name.startswith("_")}
    assert {"call", "run", "stream", "explain", "view"} <= names <= set(dir(SyncClient))


def test_sync_client_waits_for_its_first_node(anyio_backend: str) -> None:
    with reserved_port() as port, ThreadPoolExecutor(1) as threads:
        client = SyncClient(f"ws://127.0.0.1:{port}", wait=PATIENCE, backend=anyio_backend)
        result = threads.submit(client.call, "echo", 1)
        with start_blocking_portal(anyio_backend) as portal, portal.wrap_async_context_manager(Server(port=port)):
            assert result.result(PATIENCE) == 1
            client.close()
