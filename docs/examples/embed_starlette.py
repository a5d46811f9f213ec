"""A node inside a Starlette application: it runs as long as the application does, on the application's port.

    uvicorn --app-dir docs/examples --ws wsproto embed_starlette:app

`/mpreg` is a WebSocket route for clients and other nodes, in both dialects. `/add` is an ordinary HTTP route that calls
a function of the cluster. `/rpc` takes the same JSON as `POST /rpc` of a node. The environment variable `MPREG_PEERS`
holds the addresses of the cluster to join, separated by spaces. docs/howto/embed.md explains the file, and tests/docs
runs it under uvicorn.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mpreg_proto import (
    Address,
    Framing,
    MemberId,
    Node,
    NodeConfig,
    Notice,
    RequestFinished,
    RequestId,
    Result,
    Rng,
    exception_for,
)
from mpreg_transports import Graph, RequestError
from mpreg_transports.embed import (
    Buffer,
    Dialler,
    Driver,
    Function,
    Link,
    LinkEnded,
    built_in,
    clock,
    default_codec,
    function,
)


# [link]
class StarletteLink(Link):
    """One WebSocket of the application as a link of the node (`mpreg_transports.embed.Link` has the contract)."""

    def __init__(self, websocket: WebSocket) -> None:
        native = "mpreg.1" in websocket.scope["subprotocols"]
        self.websocket = websocket
        self.framing = Framing.NATIVE_MESSAGES if native else Framing.CLASSIC_MESSAGES
        self.peer = str(websocket.client)
        self.reading = anyio.CancelScope()
        self.closed = False

    async def accept(self) -> None:
        await self.websocket.accept("mpreg.1" if self.framing is Framing.NATIVE_MESSAGES else None)

    async def receive(self) -> Sequence[bytes | str]:
        with anyio.CancelScope() as self.reading:
            if self.closed:
                raise LinkEnded("closed here", clean=True)
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise LinkEnded("the peer is gone", clean=True, code=message.get("code"))
            return [message["text"] if message.get("text") is not None else message["bytes"]]
        raise LinkEnded("closed here", clean=True)

    async def send(self, chunks: Sequence[Buffer]) -> None:
        try:
            for chunk in chunks:
                if self.framing is Framing.NATIVE_MESSAGES:
                    await self.websocket.send_bytes(bytes(chunk))
                else:
                    await self.websocket.send_text(bytes(chunk).decode())
        except (WebSocketDisconnect, RuntimeError) as error:
            raise LinkEnded(f"the peer is gone: {error}") from None

    async def close(self, code: int = 1000) -> None:
        self.closed = True
        self.reading.cancel()
        if WebSocketState.DISCONNECTED in (self.websocket.client_state, self.websocket.application_state):
            return
        with suppress(WebSocketDisconnect, RuntimeError):  # the connection may have just ended
            with anyio.move_on_after(1, shield=True):  # the peer may take nothing, not even the close frame
                await self.websocket.close(code)


# [/link]


# [node]
class EmbeddedNode:
    """A node without a listener: its links are WebSockets of the application, and links that it dials."""

    def __init__(self, config: NodeConfig, functions: Sequence[Function]) -> None:
        self.functions = {one.spec.name: one for one in [*built_in(), *functions]}
        me, rng = MemberId(os.urandom(16)), Rng(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(config, me=me, rng=rng, entropy=os.urandom, now=clock(), codec=default_codec())
        for one in self.functions.values():
            self.node.offer(one.spec, now=clock())
        dial = Dialler(websocket_only=False)
        self.driver = Driver(self.node, functions=self.functions, dial=dial, observe=self.observe)
        self.answers: dict[RequestId, Result] = {}
        self.waiting: dict[RequestId, anyio.Event] = {}

    def observe(self, notice: Notice) -> None:
        if isinstance(notice, RequestFinished):
            self.answers[notice.request] = notice.result
            if notice.request in self.waiting:
                self.waiting[notice.request].set()

    async def run(self, graph: Graph) -> dict[str, Any]:
        """Return the same as `client.run(graph)`, without a client: the request starts at this node."""
        number = self.node.submit(graph.request(), now=clock())
        answered = self.waiting[number] = anyio.Event()
        try:
            self.driver.flush()
            await answered.wait()
        finally:
            del self.waiting[number]
            self.node.cancel(number, now=clock())  # no effect on a request that is answered
            self.driver.flush()
            result = self.answers.pop(number, None)
        assert result is not None
        if result.fault is not None:
            raise exception_for(result.fault)
        return {row.name: default_codec().decode(row.value) for row in result.done}

    async def leave(self) -> None:
        self.node.leave(now=clock())
        self.driver.flush()
        await self.driver.ended.wait()


# [/node]


async def shout(text: str) -> str:
    """Return the text in capitals; the application offers this function to the cluster."""
    return text.upper() + "!"


def create_app(embedded: EmbeddedNode) -> Starlette:
    """Return the application of a node, which leaves the cluster when the application ends."""

    # [app]
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(embedded.driver.run)
            yield
            await embedded.leave()

    async def mpreg(websocket: WebSocket) -> None:
        link = StarletteLink(websocket)
        await link.accept()
        await embedded.driver.pump(link)

    async def add(request: Request) -> Response:
        graph = Graph()
        graph.call("add", int(request.query_params["x"]), int(request.query_params["y"]), name="sum")
        try:
            return JSONResponse(await embedded.run(graph))
        except RequestError as error:
            return JSONResponse({"code": error.code, "message": error.message}, status_code=502)

    async def rpc(request: Request) -> Response:
        return Response(await embedded.driver.exchange(await request.body()), media_type="application/json")

    routes = [WebSocketRoute("/mpreg", mpreg), Route("/add", add), Route("/rpc", rpc, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)
    # [/app]


PEERS = tuple(map(Address, os.environ.get("MPREG_PEERS", "").split()))
app = create_app(EmbeddedNode(NodeConfig(name="starlette", seeds=PEERS), [function(shout, idempotent=True)]))
