"""The clients of the edge matrix, with one interface: `call` returns an `End`, what its caller sees, and never raises.

Three are clients of this project (over WebSocket, raw TCP, and blocking). Two use no code of it: JSON over WebSocket,
and HTTP written by hand. `Proxy` stands between a client and its node, so that a caller can vanish without a goodbye.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup, TaskStatus
from websockets.protocol import State

from mpreg_proto.errors import RequestError
from mpreg_transports import Client, SyncClient
from tests.edges import bodies
from tests.edges.house import until
from tests.edges.table import HTTP_STATUS, NATIVE
from tests.helpers.foreign_clients import websocket
from tests.helpers.loopback import ForeignClient, read_all

T = TypeVar("T")

_BROKEN = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError)


class End(NamedTuple):
    """The end that a caller saw: "value", "error", "lost", or "odd" for an end that must never occur."""

    end: str
    value: Any = None
    code: int = 0
    message: str = ""
    details: Mapping[str, Any] = MappingProxyType({})


class Caller(Protocol):
    """One client with one connection, or with no connection between its calls."""

    async def call(self, function: str, *args: Any, timeout: float) -> End:
        """Call and wait for the end. Cancelling this cancels the call if the client supports it."""

    async def abandon(self, function: str, outcome: str, *, started: Callable[[], bool]) -> End:
        """Call, and stop waiting once `started` returns true."""

    async def close(self) -> None:
        """Close the connection, also while a call is pending."""


def parcel(client: str, text: str) -> Any:
    """Return an argument: a value of a user's type if the client can send one, else text."""
    return bodies.Parcel(text) if client in NATIVE else text


def _seen(error: Exception) -> End:
    if isinstance(error, RequestError):
        return End("error", None, error.code, error.message, error.details)
    return End("odd", message=f"{type(error).__name__}: {error}")


class _Native:
    """`Client`, open in a task of its own, so that any other task may close it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._leaving = anyio.Event()
        self._left = anyio.Event()

    async def hold(self, *, task_status: TaskStatus[None]) -> None:
        """Stay connected until `close`."""
        try:
            async with self._client:
                task_status.started()
                await self._leaving.wait()
        finally:
            self._left.set()

    async def call(self, function: str, *args: Any, timeout: float) -> End:
        try:
            return End("value", await self._client.call(function, *args, timeout=timeout))
        except Exception as error:
            return _seen(error)

    async def abandon(self, function: str, outcome: str, *, started: Callable[[], bool]) -> End:
        ends: list[End] = []
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                ends.append(await self.call(function, outcome, bodies.Parcel("given"), timeout=bodies.PATIENCE))

            tasks.start_soon(wait)
            await until(lambda: started() or bool(ends))
            tasks.cancel_scope.cancel()
        return ends[0] if ends else End("abandoned")

    async def close(self) -> None:
        self._leaving.set()
        await self._left.wait()


class _Sync:
    """`SyncClient`, from threads."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    async def call(self, function: str, *args: Any, timeout: float) -> End:
        def in_thread() -> End:
            try:
                return End("value", self._client.call(function, *args, timeout=timeout))
            except Exception as error:
                return _seen(error)

        return await in_a_thread(in_thread)

    async def abandon(self, function: str, outcome: str, *, started: Callable[[], bool]) -> End:
        """Leave a stream after its first leaf: a blocking caller can cancel this without a signal."""

        def first() -> Any:
            graph = self._client.graph()
            graph.call("echo", "first", name="first")
            graph.call(function, outcome, bodies.Parcel("given"), name="held")
            stream = self._client.stream(graph, timeout=bodies.PATIENCE)
            name, value = next(stream)  # type: ignore[call-overload]
            assert (name, value) == ("first", "first")
            return stream

        try:
            stream = await in_a_thread(first)
            await until(started)
            await in_a_thread(stream.close)
        except Exception as error:
            return _seen(error)
        return End("abandoned")

    async def close(self) -> None:
        await in_a_thread(self._client.close)


class _Json:
    """The JSON dialect over WebSocket, through the `websockets` library."""

    def __init__(self, foreign: ForeignClient) -> None:
        self._foreign = foreign
        self._last = 0

    async def call(self, function: str, *args: Any, timeout: float) -> End:
        self._last += 1
        name = str(self._last)
        try:
            await self._foreign.text(json.dumps(_request(function, args, timeout=timeout, name=name)))
            frame = await self._foreign.frame()
        except (AssertionError, *_BROKEN):
            return End("lost")
        if frame.opcode.name == "CLOSE":
            return End("lost")
        answer = json.loads(bytes(frame.data))
        if answer["u"] != name:
            return End("odd", message=f"an answer to {answer['u']!r} while {name!r} was open: {str(answer)[:500]}")
        return _answered(answer)

    async def abandon(self, function: str, outcome: str, *, started: Callable[[], bool]) -> End:
        raise NotImplementedError("the JSON dialect has no message to cancel with")

    async def close(self) -> None:
        with suppress(*_BROKEN):
            if self._foreign.protocol.state is State.OPEN:
                self._foreign.protocol.send_close(1000)
                await self._foreign.flush()
        await self._foreign.stream.aclose()


class _Rpc:
    """`POST /rpc`, written by hand; a connection for each call."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: list[ByteStream] = []

    async def call(self, function: str, *args: Any, timeout: float) -> End:
        body = json.dumps(_request(function, args, timeout=timeout, name="rpc")).encode()
        head = (
            f"POST /rpc HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        try:
            async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
                self._streams.append(stream)
                try:
                    await stream.send(head.encode() + body)
                    answer = await read_all(stream)
                finally:
                    self._streams.remove(stream)
        except (OSError, *_BROKEN):
            return End("lost")
        return _http_answer(answer)

    async def abandon(self, function: str, outcome: str, *, started: Callable[[], bool]) -> End:
        raise NotImplementedError("the JSON dialect has no message to cancel with")

    async def close(self) -> None:
        for stream in list(self._streams):
            await stream.aclose()


def _request(function: str, args: tuple[Any, ...], *, timeout: float, name: str) -> dict[str, Any]:
    command = {"name": "only", "fun": function, "args": args}
    return {"role": "rpc", "cmds": [command], "u": name, "timeout": timeout, "refs": "explicit"}


def _answered(answer: dict[str, Any]) -> End:
    error = answer["error"]
    if error is not None:
        return End("error", answer["r"], error["code"], error["message"], error.get("details") or {})
    return End("value", answer["r"]["only"])


def _http_answer(answer: bytes) -> End:
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return End("lost")
    status = int(head.split()[1])
    try:
        end = _answered(json.loads(body))
    except (ValueError, KeyError):
        return End("odd", message=f"HTTP {status}: {body[:200]!r}")
    if status != HTTP_STATUS.get(end.code):
        return End("odd", message=f"HTTP status {status} with code {end.code}")
    return end


async def in_a_thread(call: Callable[[], T]) -> T:
    """Return the result of a blocking call; the thread is not joined when the cell ends."""
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)


@asynccontextmanager
async def caller(client: str, port: int, *, loop: str) -> AsyncIterator[Caller]:
    """Yield a connected client of that kind."""
    made: Caller
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        if client in ("native-websocket", "native-tcp"):
            scheme = "ws" if client == "native-websocket" else "tcp"
            made = _Native(Client(f"{scheme}://127.0.0.1:{port}", codec=bodies.codec()))
            await tasks.start(made.hold)
        elif client == "sync":
            backend = "trio" if loop == "trio" else "asyncio"
            sync = SyncClient(f"ws://127.0.0.1:{port}", codec=bodies.codec(), backend=backend)
            await in_a_thread(sync.__enter__)
            made = _Sync(sync)
        elif client == "json-websocket":
            made = _Json(await stack.enter_async_context(websocket(port)))
        else:
            made = _Rpc(port)
        try:
            yield made
        finally:
            with anyio.move_on_after(bodies.PATIENCE, shield=True):
                await made.close()


class Proxy:
    """Carries bytes between callers and one port, until `cut`. `proxied` makes it."""

    def __init__(self, port: int, tasks: TaskGroup) -> None:
        self._target = port
        self._tasks = tasks
        self._streams: list[SocketStream] = []
        self.port = 0

    async def serve(self, near: SocketStream) -> None:
        """Serve one connection."""
        async with near, await anyio.connect_tcp("127.0.0.1", self._target) as far:
            self._streams += [near, far]
            async with anyio.create_task_group() as tasks:
                for source, target in ((near, far), (far, near)):
                    tasks.start_soon(self._carry, source, target, tasks.cancel_scope)

    async def cut(self) -> None:
        """End all open connections; accept new ones."""
        streams, self._streams = self._streams, []
        for stream in streams:
            await anyio.aclose_forcefully(stream)

    async def _carry(self, source: SocketStream, target: SocketStream, scope: anyio.CancelScope) -> None:
        with suppress(*_BROKEN):
            while True:
                await target.send(await source.receive())
        scope.cancel()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """Yield a proxy for `port`, which runs in this block."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        proxy = Proxy(port, tasks)
        proxy.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, proxy.serve)
        try:
            yield proxy
        finally:
            tasks.cancel_scope.cancel()
