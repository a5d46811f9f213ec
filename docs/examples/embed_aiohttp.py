"""A node inside an aiohttp application: it runs as long as the application does, on the application's port.

    python docs/examples/embed_aiohttp.py

`/mpreg` is a WebSocket route for clients and other nodes, in both dialects. `/add` is an ordinary HTTP route that calls
a function of the cluster. The node dials others with aiohttp's client. tests/drivers runs `check_driver` against it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, assert_never

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web

from mpreg_proto import (
    Address,
    Call,
    Cancel,
    Demand,
    Dial,
    Effect,
    Feed,
    Framing,
    FunctionSpec,
    HangUp,
    KeepAlive,
    LinkId,
    MemberId,
    Node,
    NodeConfig,
    Notify,
    Outcome,
    Pause,
    Raised,
    Request,
    RequestFinished,
    RequestId,
    Result,
    Resume,
    Returned,
    Rng,
    Run,
    RunId,
    Send,
    Stopped,
    ValueCodec,
    exception_for,
)

PROTOCOL = "mpreg.1"
CLOSE_SECONDS = 1.0
"""The time for the peer to answer a close frame."""
REPORT_SECONDS = 0.5
"""The interval at which the backlog is reported while a message is being sent."""
WebSocket = web.WebSocketResponse | ClientWebSocketResponse


class Connection:
    """One WebSocket: its messages that wait to be sent, and its place in the node."""

    def __init__(
        self,
        owner: AiohttpNode,
        link: LinkId,
        websocket: WebSocket,
        framing: Framing,
        transport: asyncio.Transport | None,
    ) -> None:
        self.owner = owner
        self.link = link
        self.websocket = websocket
        self.framing = framing
        self.transport = transport
        self.unsent: deque[bytes | None] = deque()  # None is a ping
        self.size = 0
        self.sending = 0
        self.reported = 0  # the backlog that the node knows
        self.changed = asyncio.Event()
        self.readable = asyncio.Event()
        self.readable.set()
        self.hang_up: HangUp | None = None
        self.writer = owner.loop.create_task(self.write())

    async def read(self) -> None:
        """Pass messages to the node until the connection ends."""
        node = self.owner.node
        while True:
            await self.readable.wait()
            message = await self.websocket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                node.receive(self.link, message.data, now=self.owner.now())
            elif message.type is WSMsgType.PING:
                await self.websocket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                node.progress(self.link, now=self.owner.now())
            else:
                return
            self.owner.flush()

    async def write(self) -> None:
        """Send what waits, one message after another; close the connection once nothing is left of a hang-up."""
        with suppress(ConnectionError, RuntimeError):  # the reader sees the end too
            while self.unsent or self.hang_up is None:
                while self.unsent:
                    await self.send(self.unsent.popleft())
                if self.hang_up is None:
                    self.changed.clear()
                    await self.changed.wait()
            await close(self.websocket, self.hang_up.code)

    async def send(self, message: bytes | None) -> None:
        if message is None:
            await self.websocket.ping()
            return
        native = self.framing is Framing.NATIVE_MESSAGES
        sent = self.websocket.send_bytes(message) if native else self.websocket.send_str(message.decode())
        sending = self.owner.loop.create_task(sent)
        self.sending = len(message)
        try:
            while not (await asyncio.wait({sending}, timeout=REPORT_SECONDS))[0]:
                self.report()  # a slow peer takes some bytes of a long message
            sending.result()
        finally:
            sending.cancel()
            self.size -= len(message)
            self.sending = 0
            self.report()

    @property
    def left(self) -> int:
        """The bytes that the system has not taken. Only an accepted connection shows that within a message."""
        if self.transport is None:
            return self.size
        return self.size - self.sending + self.transport.get_write_buffer_size()

    def put(self, chunks: tuple[bytes, ...]) -> None:
        self.unsent.extend(chunks)
        self.size += sum(map(len, chunks))
        self.changed.set()

    def report(self) -> None:
        """Report the backlog, if it has changed."""
        if self.left != self.reported and self.link in self.owner.connections:
            self.reported = self.left
            self.owner.node.backlog(self.link, self.left, now=self.owner.now())
            self.owner.flush()

    def end(self, hang_up: HangUp) -> None:
        self.hang_up = hang_up
        self.changed.set()
        self.owner.loop.call_later(hang_up.within / 1e9, self.give_up, hang_up.within, self.left)

    def give_up(self, within: int, before: int) -> None:
        """Drop the last bytes of a link whose peer takes none of them."""
        if self.link not in self.owner.connections or not self.left:
            return
        if self.left < before:
            self.owner.loop.call_later(within / 1e9, self.give_up, within, self.left)
            return
        with suppress(OSError):
            self.websocket.get_extra_info("socket").shutdown(SHUT_RDWR)


async def close(websocket: WebSocket, code: int = 1000) -> None:
    """Close a connection, at the latest when its peer has not answered the close frame for some time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code=code)


class AiohttpNode:
    """One node in the running event loop. Each function is an ordinary one, and runs in a thread of a pool."""

    def __init__(self, config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.functions = {"echo": lambda value: value, "echos": lambda *values: list(values), **functions}
        self.connections: dict[LinkId, Connection] = {}
        self.last_link = 0
        self.dials: set[asyncio.Task[None]] = set()
        self.client = ClientSession()
        self.pool = ThreadPoolExecutor(16)
        self.runs: dict[RunId, Future[Any]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.answers: dict[RequestId, asyncio.Future[Result]] = {}
        self.ended = asyncio.Event()
        self.longest = config.limits.node_message
        me, rng = MemberId(os.urandom(16)), Rng(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(config, me=me, rng=rng, entropy=os.urandom, now=self.now())
        for name in self.functions:
            spec = FunctionSpec(name=name, idempotent=name in ("echo", "echos"), concurrency=16)
            self.node.offer(spec, now=self.now())

    def now(self) -> int:
        """Return the time of the event loop, in nanoseconds."""
        return int(self.loop.time() * 1e9)

    # [links]
    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one WebSocket of a client or another node."""
        websocket = web.WebSocketResponse(
            protocols=(PROTOCOL,), autoping=False, max_msg_size=self.longest, compress=False
        )
        await websocket.prepare(request)
        native = websocket.ws_protocol == PROTOCOL
        framing = Framing.NATIVE_MESSAGES if native else Framing.CLASSIC_MESSAGES
        await self.serve(websocket, framing, transport=request.transport)
        return websocket

    async def dial(self, address: Address) -> None:
        """Open a link. Every `Dial` ends in one `link_opened` or one `dial_failed`."""
        try:  # another member has sent this address
            if not address.startswith("ws://"):
                raise ValueError("not an address of WebSocket")
            websocket = await self.client.ws_connect(
                address,
                protocols=(PROTOCOL,),
                autoping=False,
                max_msg_size=self.longest,
            )
        except (ClientError, OSError, ValueError):
            self.node.dial_failed(address, now=self.now())
            self.flush()
            return
        if websocket.protocol != PROTOCOL:  # no node, or a proxy removes the protocol
            self.node.dial_failed(address, now=self.now())
            self.flush()
            await close(websocket)
            return
        await self.serve(websocket, Framing.NATIVE_MESSAGES, dialled=address)

    async def serve(
        self,
        websocket: WebSocket,
        framing: Framing,
        *,
        dialled: Address | None = None,
        transport: asyncio.Transport | None = None,
    ) -> None:
        """Run one link until it ends. Every `link_opened` is followed by one `link_closed`."""
        self.last_link += 1
        link = LinkId(self.last_link)
        connection = self.connections[link] = Connection(self, link, websocket, framing, transport)
        self.node.link_opened(link, framing=framing, dialled=dialled, now=self.now())
        self.flush()
        try:
            with suppress(ConnectionError, RuntimeError):
                await connection.read()
        finally:
            connection.writer.cancel()
            del self.connections[link]
            self.node.link_closed(link, now=self.now())
            self.flush()
            await close(websocket)

    # [/links]

    # [loop]
    async def leave(self) -> None:
        """Leave the cluster, and wait until all links are closed. A second call ends the wait for running calls."""
        self.node.leave(now=self.now())
        self.flush()
        await self.ended.wait()

    async def close(self) -> None:
        """Release everything, after `leave`."""
        for dial in self.dials:
            dial.cancel()
        if self.timer is not None:
            self.timer.cancel()
        await self.client.close()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        self.node.wake(now=self.now())
        self.flush()

    def flush(self) -> None:
        """Carry out all effects of the node, and set the timer again. Called after each input."""
        while effects := self.node.drain():
            for effect in effects:
                self.carry_out(effect)
        if self.timer is not None:
            self.timer.cancel()
        due = self.node.next_timeout()
        self.timer = None if due is None else self.loop.call_at(due / 1e9, self.wake)
        if self.node.left and not self.connections:
            self.ended.set()

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link, chunks):
                if link in self.connections:
                    self.connections[link].put(chunks)
                    self.loop.call_soon(self.connections[link].report)
            case Dial(address):
                task = self.loop.create_task(self.dial(address))
                self.dials.add(task)
                task.add_done_callback(self.dials.discard)
            case HangUp(link):
                if link in self.connections:
                    self.connections[link].end(effect)
            case Run():
                self.start_run(effect)
            case Cancel(run):
                if run in self.runs:
                    self.runs[run].cancel()  # it has no effect on a call that a thread has begun
            case Notify(RequestFinished(request, result)):
                self.answers[request].set_result(result)
            case Notify():
                pass
            case KeepAlive(link):
                if link in self.connections:
                    self.connections[link].unsent.append(None)
                    self.connections[link].changed.set()
            case Pause(link):
                if link in self.connections:
                    self.connections[link].readable.clear()
            case Resume(link):
                if link in self.connections:
                    self.connections[link].readable.set()
            case Demand() | Feed():
                pass  # this driver offers no generators, and no functions with iterators
            case _:
                assert_never(effect)

    # [/loop]

    def start_run(self, run: Run) -> None:
        """Run a function in a thread. Every `Run` ends in one `finished`."""

        def report(future: Future[Any]) -> None:
            with suppress(RuntimeError):  # the event loop is closed, and this function has not ended before
                self.loop.call_soon_threadsafe(self.finish, run.run, future)

        future = self.runs[run.run] = self.pool.submit(self.functions[run.function], *run.args, **run.kwargs)
        future.add_done_callback(report)

    def finish(self, run: RunId, future: Future[Any]) -> None:
        del self.runs[run]
        outcome: Outcome
        try:
            outcome = Returned(future.result())
        except CancelledError:
            outcome = Stopped()
        except Exception as error:
            outcome = Raised(type(error).__name__, str(error))
        self.node.finished(run, outcome, now=self.now())
        self.flush()

    async def request(self, request: Request) -> Result:
        """Run a request in the cluster, from within this process."""
        number = self.node.submit(request, now=self.now())
        answer: asyncio.Future[Result] = self.loop.create_future()
        self.answers[number] = answer
        self.flush()
        try:
            return await answer
        finally:
            del self.answers[number]


def shout(text: str) -> str:
    """Return the text in capitals; the application offers this function to the cluster."""
    return text.upper() + "!"


NODE = web.AppKey("NODE", AiohttpNode)


# [app]
async def create_app(config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> web.Application:
    """Return the application, with a node that leaves the cluster when the application ends."""
    embedded = AiohttpNode(config, functions)
    codec = ValueCodec()

    async def add(request: web.Request) -> web.Response:
        numbers = [int(request.query["x"]), int(request.query["y"])]
        result = await embedded.request(Request(0, (Call("sum", "add", codec.encode([numbers, {}])),)))
        if result.fault is not None:
            return web.json_response({"error": str(exception_for(result.fault))}, status=502)
        return web.json_response({"sum": codec.decode(result.done[0].value)})

    async def start(app: web.Application) -> None:
        embedded.flush()

    async def leave(app: web.Application) -> None:
        await embedded.leave()

    async def close(app: web.Application) -> None:
        await embedded.close()

    app = web.Application()
    app[NODE] = embedded
    app.add_routes([web.get("/mpreg", embedded.accept), web.get("/add", add)])
    app.on_startup.append(start)
    app.on_shutdown.append(leave)
    app.on_cleanup.append(close)
    return app


# [/app]

if __name__ == "__main__":
    peers = tuple(map(Address, os.environ.get("MPREG_PEERS", "").split()))
    web.run_app(create_app(NodeConfig(name="aiohttp", seeds=peers), {"shout": shout}), port=8080)
