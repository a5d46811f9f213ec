"""One client and its nodes: links, errors, deadlines, and what a node reports over HTTP."""

import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import (
    Client,
    ClusterMismatch,
    CommandNotFound,
    DeadlineExceeded,
    ExecutionFailed,
    LimitExceeded,
    MpregError,
    NotConnected,
    OutcomeUnknown,
    RequestError,
    Server,
)
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine
from tests.helpers.servers import reserved_port

pytestmark = pytest.mark.anyio

QUICK = Limits(dial_first=MILLISECOND, dial_longest=10 * MILLISECOND)


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Client]:
    """A client of the running server; a test that hangs fails."""
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            yield client


def node(name: str = "node", port: int = 0, **settings: object) -> Server:
    server = Server(name=name, port=port, **settings)  # type: ignore[arg-type]
    server.register("where", lambda: name, inline=True)
    return server


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
async def test_both_address_schemes(scheme: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with node() as server, Client(server.url.replace("ws", scheme)) as client:
            assert client.node == "node"
            assert await client.call("echo", {"deep": [1, b"bytes", (1, 2), {3}]}) == {
                "deep": [1, b"bytes", (1, 2), {3}]
            }


async def test_not_connected_lists_the_addresses_and_reasons() -> None:
    with reserved_port() as one, reserved_port() as two, anyio.fail_after(PATIENCE):
        urls = f"ws://127.0.0.1:{one}", f"tcp://127.0.0.1:{two}"
        with pytest.raises(NotConnected) as caught:
            async with Client(*urls):
                raise AssertionError("it cannot be connected")
    error = caught.value
    assert isinstance(error, ConnectionError)
    assert isinstance(error, MpregError)
    assert error.safe_to_repeat is True
    assert error.message == str(error)
    assert error.message == (
        f"no node could be reached ({urls[0]}: cannot connect to 127.0.0.1:{one}: connection refused; "
        f"{urls[1]}: cannot connect to 127.0.0.1:{two}: connection refused)"
    )
    assert list(error.details["tried"]) == list(urls)


async def test_client_waits_for_its_first_node() -> None:
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        client, connected = Client(f"ws://127.0.0.1:{port}", wait=PATIENCE), anyio.Event()

        async def connect() -> None:
            async with client:
                assert await client.call("echo", 1) == 1
                connected.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            with anyio.move_on_after(0.5):
                await connected.wait()
            assert not connected.is_set() and not client.is_open
            async with Server(port=port):
                await connected.wait()


async def test_client_gives_up_after_its_wait() -> None:
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        began = anyio.current_time()
        with pytest.raises(NotConnected) as caught:
            await Client(f"ws://127.0.0.1:{port}", wait=0.3).connect()
        assert anyio.current_time() - began >= 0.3
        assert list(caught.value.details["tried"]) == [f"ws://127.0.0.1:{port}"]


async def test_client_that_waits_can_be_closed() -> None:
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        client = Client(f"ws://127.0.0.1:{port}", wait=PATIENCE)

        async def connect() -> None:
            with pytest.raises(NotConnected, match="closed while it was connecting"):
                await client.connect()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.wait_all_tasks_blocked()
            await client.close()


async def test_node_that_refuses_a_client_is_not_waited_for() -> None:
    async with Server(port=0, cluster_id="other") as server:
        with anyio.fail_after(PATIENCE), pytest.raises(ClusterMismatch):
            await Client(server.url, cluster_id="shop", wait=2 * PATIENCE).connect()


async def test_invalid_address_is_refused_before_sending() -> None:
    with pytest.raises(ValueError, match="gopher"):
        Client("gopher://127.0.0.1:1")


async def test_client_of_other_cluster_gets_the_reason() -> None:
    with anyio.fail_after(PATIENCE):
        async with node(cluster_id="blue") as server:
            with pytest.raises(ClusterMismatch, match="blue"):
                async with Client(server.url, cluster_id="red"):
                    raise AssertionError("it cannot be connected")
            async with Client(server.url, cluster_id="blue") as client:
                assert await client.call("where") == "node"


async def test_exception_of_the_async_with_block_is_unchanged() -> None:
    async with node() as server:
        with pytest.raises(CommandNotFound):
            async with Client(server.url) as client:
                await client.call("nowhere")
        with pytest.raises(KeyError):
            async with Client(server.url):
                raise KeyError


async def test_reconnect_to_the_next_address() -> None:
    """A pending call raises OutcomeUnknown; a call that starts while no link is open waits for the next link."""
    first, second, held = node("first"), node("second"), BlockingCoroutine()
    first.register("held", held.body)
    errors: list[RequestError] = []
    with anyio.fail_after(PATIENCE):
        async with second, anyio.create_task_group() as tasks:
            serving = anyio.CancelScope()

            async def serve(*, task_status: TaskStatus[None]) -> None:
                with serving:
                    await first.serve(task_status=task_status)

            await tasks.start(serve)
            async with Client(first.url, second.url, limits=QUICK) as client:
                assert await client.call("where") == "first"

                async def pending() -> None:
                    with pytest.raises(OutcomeUnknown, match="the link to the node was lost") as caught:
                        await client.call("held")
                    errors.append(caught.value)

                tasks.start_soon(pending)
                await held.until(started=1)
                serving.cancel()
                while not errors or client.node != "second":
                    await anyio.lowlevel.checkpoint()
                assert await client.call("where") == "second"
    (error,) = errors
    assert (error.code, error.details, error.safe_to_repeat) == (1023, {"maybe_executed": True}, False)


async def test_reconnect_to_the_only_address() -> None:
    with reserved_port() as port, anyio.fail_after(PATIENCE):
        one, two = node("one", port), node("two", port)
        async with anyio.create_task_group() as tasks:
            await tasks.start(one.serve)
            async with Client(f"ws://127.0.0.1:{port}", limits=QUICK) as client:
                assert await client.call("where") == "one"
                one.leave()
                while client.node:
                    await anyio.lowlevel.checkpoint()
                with pytest.raises(DeadlineExceeded, match="no node could be reached by the deadline") as caught:
                    await client.call("where", timeout=0.02)
                assert caught.value.details == {"maybe_executed": False}
                async with anyio.create_task_group() as others:
                    others.start_soon(two.serve)
                    assert await client.call("where") == "two"
                    two.leave()


async def test_client_can_be_reused() -> None:
    async with node() as server:
        client = Client(server.url)
        for _ in range(2):
            async with client:
                assert await client.call("where") == "node"


# -- errors -----------------------------------------------------------------------------------------------------------


async def test_function_that_raises() -> None:
    server = node()

    @server.function
    def divide(dividend: int, *, divisor: int) -> float:
        return dividend / divisor

    async with running(server) as client:
        assert await client.call("divide", 6, divisor=3) == 2
        with pytest.raises(ExecutionFailed) as caught:
            await client.call("divide", 6, divisor=0)
        error = caught.value
        shown = (await client.view()).shown
        assert error.code == 1003
        assert error.message == f"divide failed on {shown}: ZeroDivisionError: division by zero"
        assert {key: error.details[key] for key in ("call", "function", "node", "type", "message")} == {
            "call": "divide",
            "function": "divide",
            "node": shown,
            "type": "ZeroDivisionError",
            "message": "division by zero",
        }
        assert "return dividend / divisor" in error.details["traceback"]
        assert "mpreg_transports" not in error.details["traceback"]
        assert error.details["maybe_executed"] is True
        assert error.safe_to_repeat is False
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        with pytest.raises(ExecutionFailed, match=r"TypeError: .*unexpected keyword argument 'by'"):
            await client.call("divide", 6, by=2)


async def test_unsendable_result() -> None:
    server = node()
    server.register("lock", lambda: {"a": [object()]})
    async with running(server) as client:
        with pytest.raises(ExecutionFailed, match=r"the result cannot be sent: .*object"):
            await client.call("lock")


async def test_unsendable_argument_is_a_type_error() -> None:
    async with running(node()) as client:
        with pytest.raises(TypeError, match=r"call 'echo': .*object"):
            await client.call("echo", [1, object()])
        with pytest.raises(TypeError, match=r'resources="gpu" is a bare string; write resources=\{"gpu"\}'):
            await client.call("echo", 1, resources="gpu")
        assert (await client.view()).requests == 0


async def test_unknown_functions_and_resources() -> None:
    server = node(resources={"here"})
    server.register("train", lambda: 1, resources={"data"})
    async with running(server) as client:
        with pytest.raises(CommandNotFound) as unknown:
            await client.call("trian")
        assert unknown.value.message == "no node offers 'trian'; did you mean 'train'?"
        assert unknown.value.details["close"] == ["train"]
        assert (unknown.value.code, unknown.value.safe_to_repeat) == (1001, True)
        with pytest.raises(CommandNotFound) as lacking:
            await client.call("train", resources={"data", "gpu", "here"})
        assert "no node that offers 'train' holds 'data', 'gpu', 'here'; the nearest" in lacking.value.message
        assert lacking.value.details["lacks"] == ["gpu"]
        assert await client.call("train", resources={"data", "here"}) == 1


async def test_deadline() -> None:
    held, server = BlockingCoroutine(), node()
    server.register("held", held.body)
    async with running(server) as client:
        with pytest.raises(TimeoutError) as caught:
            await client.call("held", timeout=0.02)
        assert isinstance(caught.value, DeadlineExceeded)
        assert isinstance(caught.value, RequestError)
        assert caught.value.code == 1020
        assert caught.value.message == "not done within 0.02 s; still open: held"
        assert caught.value.details["maybe_executed"] is True
        for wrong in (0, -1, 86_401):
            with pytest.raises(ValueError, match="at most 86400 seconds"):
                await client.call("held", timeout=wrong)


async def test_default_deadline_is_named() -> None:
    held, server = BlockingCoroutine(), node(limits=Limits(default_timeout=20 * MILLISECOND))
    server.register("held", held.body)
    async with running(server) as client:
        with pytest.raises(
            DeadlineExceeded, match=r"not done within 0\.02 s \(the default; set another with timeout\)"
        ):
            await client.call("held")


async def test_message_over_the_size_limit() -> None:
    async with running(node()) as client:
        with pytest.raises(LimitExceeded, match=r"over the limit message: .*, at most 16777216") as caught:
            await client.call("echo", b"x" * (16 * 1024 * 1024))
        assert caught.value.details["maybe_executed"] is False
        assert len(await client.call("echo", b"x" * (8 * 1024 * 1024))) == 8 * 1024 * 1024


# -- options of a call ------------------------------------------------------------------------------------------------


async def test_call_waits_for_a_later_registration() -> None:
    server = node()
    async with running(server) as client:
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                assert await client.call("late", wait=PATIENCE) == 1

            tasks.start_soon(wait)
            while (await client.view()).requests != 1:
                pass
            server.register("late", lambda: 1)
        with pytest.raises(CommandNotFound, match="no node offers 'never'"):
            await client.call("never", wait=0.01)


async def test_pinned_version() -> None:
    server = node()
    server.register("f", lambda: 1, version="1.0")
    async with running(server) as client:
        assert await client.call("f") == 1
        assert await client.call("f", version="1.0") == 1
        with pytest.raises(CommandNotFound, match=r"no node offers 'f' in version '2\.0'"):
            await client.call("f", version="2.0")
        server.register("f", lambda: 2, version="2.0", replace=True)
        assert await client.call("f", version="2.0") == 2
        with pytest.raises(CommandNotFound):
            await client.call("f", version="1.0")


async def test_keyword_arguments_that_call_uses_itself() -> None:
    server = node()
    server.register("keywords", lambda **keywords: keywords)
    async with running(server) as client:
        own = {"timeout": 5, "wait": 1, "resources": ["r"], "function": "f", "self": 1}
        assert await client.call("keywords", kwargs=own, timeout=5, other=2) == {**own, "other": 2}
        assert await client.call("keywords", function="f", self=1) == {"function": "f", "self": 1}


async def test_concurrent_calls_get_their_own_answers() -> None:
    async with running(node()) as client, anyio.create_task_group() as tasks:

        async def one(number: int) -> None:
            assert await client.call("echo", number) == number

        for number in range(500):
            tasks.start_soon(one, number)


# -- over HTTP --------------------------------------------------------------------------------------------------------


async def http(server: Server, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Return status and body of the answer to one HTTP/1.1 request."""
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        lines = f"{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send(lines.encode() + body)
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            head_lines, _, rest = answer.partition(b"\r\n\r\n")
            return int(head_lines.split()[1]), rest


async def test_health_readiness_and_status() -> None:
    with reserved_port() as silent, anyio.fail_after(PATIENCE):
        async with node("lonely", peers=[f"ws://127.0.0.1:{silent}"]) as lonely, node("joined") as server:
            assert await http(lonely, "GET /healthz") == (200, b"ok\n")
            assert await http(lonely, "GET /readyz") == (503, b"no seed has answered yet\n")
            assert await http(server, "GET /readyz") == (200, b"ready\n")
            status, body = await http(server, "GET /api/status")
            status_page = json.loads(body)
            assert (status, status_page["draining"], status_page["synced"]) == (200, False, True)
            assert [member["name"] for member in status_page["members"]] == ["joined"]
            assert [row["function"] for row in status_page["functions"]] == ["echo", "echos", "where"]
            request = json.dumps({"role": "rpc", "u": "1", "cmds": [{"name": "it", "fun": "where"}]}).encode()
            assert await http(server, "POST /rpc", request) == (200, b'{"r":{"it":"joined"},"error":null,"u":"1"}')


async def test_draining_node_is_not_ready_and_refuses_with_503() -> None:
    server, held = node(), BlockingCoroutine()
    server.register("held", held.body)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            async with Client(server.url) as client, anyio.create_task_group() as calls:
                calls.start_soon(client.call, "held")
                await held.until(started=1)
                server.leave()
                assert await http(server, "GET /readyz") == (503, b"draining\n")
                assert await http(server, "GET /healthz") == (200, b"ok\n")
                request = json.dumps({"role": "rpc", "u": "1", "cmds": [{"name": "it", "fun": "where"}]}).encode()
                status, body = await http(server, "POST /rpc", request)
                assert (status, json.loads(body)["error"]["code"]) == (503, 1024)
                held.release()
