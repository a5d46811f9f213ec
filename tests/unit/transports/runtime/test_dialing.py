"""Addresses come from untrusted gossip: for any address, a link that cannot be opened raises LinkEnded."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

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
from mpreg_transports.security.contexts import Credentials, authority_pem
from mpreg_transports.security.secret import Secret
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


# -- TLS --------------------------------------------------------------------------------------------------------------

NODE = Credentials(Secret(b"x" * 32), "shop")
OTHER = Credentials(Secret(b"y" * 32), "shop")


@pytest.mark.parametrize(
    ("scheme", "websocket_only", "framing"),
    [
        ("wss", False, Framing.STREAM),
        ("wss", True, Framing.NATIVE_MESSAGES),
        ("tls", False, Framing.STREAM),
        ("tls", True, Framing.STREAM),
    ],
)
async def test_framing_of_a_node_with_the_secret(scheme: str, websocket_only: bool, framing: Framing) -> None:
    async with listening(tls=NODE) as listener:
        dial = Dialler(websocket_only=websocket_only, tls=NODE)
        link = await dial(Address(f"{scheme}://127.0.0.1:{listener.port}"))
        assert link.framing is framing and dial._raw == {}
        await link.close()


@pytest.mark.parametrize(("scheme", "framing"), [("wss", Framing.NATIVE_MESSAGES), ("tls", Framing.STREAM)])
async def test_framing_of_a_client_with_the_secret(scheme: str, framing: Framing) -> None:
    async with listening(tls=NODE) as listener:
        link = await open_link(f"{scheme}://127.0.0.1:{listener.port}", NODE)
        assert link.framing is framing
        await link.close()


@pytest.mark.parametrize(("plain", "secured"), [("ws", "wss"), ("tcp", "tls")])
async def test_plain_text_is_never_dialled_with_a_secret(plain: str, secured: str) -> None:
    async with listening() as listener:
        where = f"127.0.0.1:{listener.port}"
        for dial in (Dialler(websocket_only=False, tls=NODE), Dialler(websocket_only=True, tls=NODE)):
            with pytest.raises(LinkEnded, match=f"{plain}:// is plain text; with a secret write {secured}://{where}"):
                await dial(Address(f"{plain}://{where}"))


async def test_other_secret_is_explained_logged_once_and_never_remembered(caplog: pytest.LogCaptureFixture) -> None:
    dial = Dialler(websocket_only=False, tls=NODE)
    async with listening(tls=OTHER) as listener:
        for _ in range(3):
            with pytest.raises(LinkEnded, match="it has another secret or cluster id") as caught:
                await dial(Address(f"wss://127.0.0.1:{listener.port}"))
            assert caught.value.denied
        assert dial._raw == {}
    said = [record.getMessage() for record in caplog.records if record.name == dialing.log.logger.name]
    assert len(said) == 1 and "another secret or cluster id" in said[0]


async def test_certificate_that_the_system_does_not_know() -> None:
    async with listening(tls=NODE) as listener:
        for dial in (open_link, Dialler(websocket_only=False)):
            with pytest.raises(LinkEnded, match="if it has a secret, give that"):
                await dial(Address(f"wss://127.0.0.1:{listener.port}"))


async def test_authority_of_a_file_as_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = Secret(b"x" * 32)
    (tmp_path / "ca.pem").write_text(authority_pem(secret, "shop"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    dialing._system_context.cache_clear()
    try:
        async with listening(tls=Credentials(secret, "shop", hosts=["127.0.0.1"])) as listener:
            link = await open_link(f"wss://127.0.0.1:{listener.port}")
            await link.close()
            with pytest.raises(LinkEnded, match="Hostname mismatch"):
                await open_link(f"wss://localhost:{listener.port}")
    finally:
        dialing._system_context.cache_clear()


async def test_plain_dial_of_a_node_with_tls_is_explained_and_not_remembered() -> None:
    async with listening(tls=NODE) as listener:
        dial = Dialler(websocket_only=False)
        for _ in range(2):
            with pytest.raises(LinkEnded, match="this node serves TLS only: use wss:// or tls://"):
                await dial(Address(f"ws://127.0.0.1:{listener.port}"))
        assert dial._raw == {}
        with pytest.raises(LinkEnded, match="this node serves TLS only: use https:// or wss://"):
            await open_link(f"ws://127.0.0.1:{listener.port}")
