"""Addresses come from untrusted gossip: for any address, a link that cannot be opened raises LinkEnded."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream

from mpreg_proto.effects import Effect, Framing, Send
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_transports import Server
from mpreg_transports.links import websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.links.http import HttpConnection
from mpreg_transports.runtime import dialing
from mpreg_transports.runtime.dialing import Dialler, open_link
from tests.helpers.loopback import PATIENCE, listening
from tests.helpers.servers import reserved_port

pytestmark = pytest.mark.anyio

WRONG = [
    "",
    "nonsense",
    "quic://10.0.0.1:9",
    "tcp://127.0.0.1:9/path",
    "ws://127.0.0.1:0",
    "ws://127.0.0.1:65536",
    "ws://127.0.0.1:x",
    "ws://::1:9001",
    "ws://[::1:9001",
    "ws://user@127.0.0.1:9",
    "ws://",
    "ws://a b:1",
    "ws://127.0.0.1:9\nforged",
    "ws://\x00:1",
    "ws://\ud800:1",
    "ws://" + "x" * 5_000,
    "ws://..:1",
    "ws://" + "x" * 64 + ":1",
    "wss://127.0.0.1:9",
    "tls://127.0.0.1:9",
]
"""Addresses that do not parse, that have an impossible host, or an unknown scheme."""


@pytest.mark.parametrize("address", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize(
    "dial",
    [open_link, Dialler(websocket_only=False), Dialler(websocket_only=True)],
    ids=["client", "node", "node by WebSocket"],
)
async def test_wrong_address_raises_link_ended(dial: Callable[[Address], Awaitable[Link]], address: str) -> None:
    with anyio.fail_after(PATIENCE), pytest.raises(LinkEnded):
        await dial(Address(address))


@pytest.mark.parametrize(
    ("websocket_only", "framing"), [(False, Framing.STREAM), (True, Framing.NATIVE_MESSAGES)], ids=["auto", "websocket"]
)
async def test_framing_of_a_node_at_a_websocket_address(websocket_only: bool, framing: Framing) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            link = await Dialler(websocket_only=websocket_only)(Address(server.url))
            assert link.framing is framing
            await link.close()


async def test_address_without_raw_hello_uses_websocket_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_TRY_SECONDS", 0.05)
    raw = 0
    times = {"now": 0.0}

    async def on_link(link: Link) -> None:
        nonlocal raw
        raw += link.framing is Framing.STREAM
        try:
            while True:
                await link.receive()
        except LinkEnded:
            await link.close()

    dial = Dialler(websocket_only=False, clock=lambda: times["now"])
    async with listening(on_link) as listener:
        address = Address(f"ws://127.0.0.1:{listener.port}")
        for seconds, tries in ((0.0, 1), (3_599.0, 1), (3_601.0, 2)):
            times["now"] = seconds
            link = await dial(address)
            assert link.framing is Framing.NATIVE_MESSAGES
            assert raw == tries
            await link.close()


async def test_unreachable_address_is_tried_raw_again() -> None:
    dial = Dialler(websocket_only=False)
    with anyio.fail_after(PATIENCE), reserved_port() as port:
        address = Address(f"ws://127.0.0.1:{port}")
        with pytest.raises(LinkEnded):
            await dial(address)
        async with Server(port=port):
            link = await dial(address)
            assert link.framing is Framing.STREAM
            await link.close()


async def test_remembered_framings_are_bounded_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    times, asked = {"now": 0.0}, [0]

    async def silent(host: str, port: int) -> bool:
        asked[0] += 1
        return False

    async def refused(address: str) -> Link:
        raise LinkEnded("nobody is there")

    monkeypatch.setattr(dialing, "_answers_raw", silent)
    monkeypatch.setattr(dialing, "open_link", refused)
    dial = Dialler(websocket_only=False, clock=lambda: times["now"])
    for number in range(dialing._REMEMBERED + 10):
        with pytest.raises(LinkEnded):
            await dial(Address(f"ws://10.0.{number >> 8}.{number & 255}:1"))
    assert len(dial._raw) == dialing._REMEMBERED
    before = asked[0]
    with pytest.raises(LinkEnded):
        await dial(Address("ws://10.0.3.3:1"))
    assert asked[0] == before, "it is remembered"
    times["now"] = 2 * dialing._REMEMBER_SECONDS
    with pytest.raises(LinkEnded):
        await dial(Address("ws://10.0.0.1:1"))
    assert len(dial._raw) == 1


async def test_websocket_server_that_is_no_mpreg_node() -> None:
    async def without_subprotocol(stream: SocketStream) -> None:
        async with stream:
            http = HttpConnection(stream, peer="client")
            head = await http.head(seconds=PATIENCE)
            assert head is not None
            link = await websocket.accept(stream, await http.body(head), received=http.trailing, subprotocols=())
            with pytest.raises(LinkEnded):
                await link.receive()
            await link.close()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, without_subprotocol)
            with pytest.raises(
                LinkEnded, match=rf"127.0.0.1:{port} accepts WebSocket without .* mpreg.1: it is no mpreg"
            ):
                await open_link(f"ws://127.0.0.1:{port}")
            tasks.cancel_scope.cancel()
    await listener.aclose()


async def answered_raw(monkeypatch: pytest.MonkeyPatch, answer: Callable[[SocketStream], Awaitable[None]]) -> bool:
    """Return whether a peer that answers so accepts raw frames. Only what the peer does ends the attempt."""
    monkeypatch.setattr(dialing, "_TRY_SECONDS", 3600.0)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await answer(stream)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            found = await dialing._answers_raw("127.0.0.1", port)
            tasks.cancel_scope.cancel()
        await listener.aclose()
    return found


async def test_raw_hello_in_single_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def greet(stream: SocketStream) -> None:
        node = Node(NodeConfig(), me=MemberId(b"n" * 16), rng=Rng(0), entropy=bytes, now=0)
        node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=0)
        effects: list[Effect] = []
        while not any(isinstance(effect, Send) for effect in effects):
            node.receive(LinkId(1), await stream.receive(), now=0)
            effects = node.drain()
        for chunk in (chunk for effect in effects if isinstance(effect, Send) for chunk in effect.chunks):
            for place in range(len(chunk)):
                await stream.send(bytes(chunk[place : place + 1]))
                await anyio.wait_all_tasks_blocked()
        await stream.receive()

    assert await answered_raw(monkeypatch, greet)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x01\xc1"])
async def test_peer_without_a_raw_hello(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """Its end, or an answer that is no hello, ends the attempt at once."""

    async def reply(stream: SocketStream) -> None:
        await stream.receive()
        if answer:
            await stream.send(answer)
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.receive()

    assert not await answered_raw(monkeypatch, reply)
