"""WebSocket links as clients: against a server of the `websockets` library in a thread, and against the own server."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol
from wsproto.connection import Connection, ConnectionType

from mpreg_transports.links import websocket
from mpreg_transports.links.base import Framing, LinkEnded
from mpreg_transports.links.websocket import WebSocketLink
from tests.helpers.loopback import PATIENCE, Scripted, listening

pytestmark = pytest.mark.anyio

MEBI = 1024 * 1024


@contextmanager
def foreign_server(
    handler: Callable[[ServerConnection], None], *, subprotocols: tuple[str, ...] = ("mpreg.1",)
) -> Iterator[int]:
    """The port of a `websockets` server that runs in a thread."""
    names = [Subprotocol(name) for name in subprotocols] or None
    server: Server = serve(handler, "127.0.0.1", 0, subprotocols=names, max_size=None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def echo_back(connection: ServerConnection) -> None:
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


async def receive_messages(link: WebSocketLink, count: int) -> list[object]:
    messages: list[object] = []
    while len(messages) < count:
        messages += await link.receive()
    return messages


@pytest.mark.parametrize("size", [0, 1, 3, 100, 125, 126, 65_535, 65_536, 1_000_003])
async def test_echo_by_a_foreign_server(size: int) -> None:
    seed = 7
    data = random.Random(seed).randbytes(size)
    with foreign_server(echo_back) as port:
        link = await websocket.connect("127.0.0.1", port)
        assert link.framing is Framing.NATIVE_MESSAGES
        assert (link.peer, link.local_host) == (f"127.0.0.1:{port}", "127.0.0.1")
        with anyio.fail_after(PATIENCE):
            await link.send([data, memoryview(data)])
            assert await receive_messages(link, 2) == [data, data], f"seed {seed}"
            await link.send_typed(["é" * size])
            assert await receive_messages(link, 1) == ["é" * size]
        await link.close()


async def test_classic_against_a_foreign_server() -> None:
    with foreign_server(echo_back, subprotocols=()) as port:
        link = await websocket.connect("127.0.0.1", port, subprotocols=(), path="/any?way=1")
        assert link.framing is Framing.CLASSIC_MESSAGES
        with anyio.fail_after(PATIENCE):
            await link.send([b'{"u":"\xc3\xa9"}'])
            assert await receive_messages(link, 1) == ['{"u":"é"}']
        await link.close()


async def test_server_without_the_subprotocol_makes_a_classic_link() -> None:
    with foreign_server(echo_back, subprotocols=()) as port:
        link = await websocket.connect("127.0.0.1", port)
        assert link.framing is Framing.CLASSIC_MESSAGES
        await link.close()


async def test_messages_sent_with_the_handshake_answer_are_not_lost() -> None:
    def greet(connection: ServerConnection) -> None:
        connection.send(b"welcome")
        connection.send(iter(["frag", "", "ments"]))
        echo_back(connection)

    with foreign_server(greet) as port:
        link = await websocket.connect("127.0.0.1", port)
        with anyio.fail_after(PATIENCE):
            assert await receive_messages(link, 2) == [b"welcome", "fragments"]
        await link.close()


@pytest.mark.parametrize(("code", "clean"), [(1000, True), (1001, True), (1008, False), (3000, False)])
async def test_close_by_the_server(code: int, clean: bool) -> None:
    with foreign_server(lambda connection: connection.close(code, "because")) as port:
        link = await websocket.connect("127.0.0.1", port)
        with anyio.fail_after(PATIENCE), pytest.raises(LinkEnded) as caught:
            await link.receive()
        assert (caught.value.clean, caught.value.code) == (clean, code)
        assert caught.value.reason == f"closed by the peer with {code}: because"
        await link.close()


async def test_close_by_the_client_sends_its_code() -> None:
    codes_received: list[int] = []
    done = threading.Event()

    def watch(connection: ServerConnection) -> None:
        try:
            connection.recv()
        except ConnectionClosed as error:
            assert error.rcvd is not None
            codes_received.append(error.rcvd.code)
        done.set()

    with foreign_server(watch) as port:
        link = await websocket.connect("127.0.0.1", port)
        await link.close(1001)
        await link.close()
        assert await anyio.to_thread.run_sync(done.wait, PATIENCE)
    assert codes_received == [1001]


async def test_too_large_message_closes_with_1009() -> None:
    codes: list[int] = []
    done = threading.Event()

    def send_much(connection: ServerConnection) -> None:
        try:
            connection.send(b"x" * 2000)
            connection.recv()
        except ConnectionClosed as error:
            assert error.rcvd is not None
            codes.append(error.rcvd.code)
        done.set()

    with foreign_server(send_much) as port:
        link = await websocket.connect("127.0.0.1", port, max_message=1999)
        with anyio.fail_after(PATIENCE), pytest.raises(LinkEnded, match="over 1999 bytes") as caught:
            await link.receive()
        assert (caught.value.clean, caught.value.code) == (False, 1009)
        await link.close()
        assert await anyio.to_thread.run_sync(done.wait, PATIENCE)
    assert codes == [1009]


async def test_echo_of_16_mib_between_own_client_and_server() -> None:
    seed = 16
    data = random.Random(seed).randbytes(16 * MEBI)
    async with listening() as listener:
        link = await websocket.connect("127.0.0.1", listener.port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, [data])
            assert await receive_messages(link, 1) == [data], f"seed {seed}"
        await link.close()


UPGRADE = b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "refused WebSocket: HTTP status 404"),
        (b"HTTP/1.1 200 Ok\r\n\r\n<html>", "refused WebSocket: HTTP status 200"),
        (b"220 mail.example ESMTP\r\n", "does not speak WebSocket: the peer hung up"),
        (b"\x00\x00\x00\x05hello", "does not speak WebSocket: Bad HTTP message"),
        (b"", "does not speak WebSocket: the peer hung up"),
        (UPGRADE + b"\r\n", "does not speak WebSocket: Bad accept token"),
        (UPGRADE + b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: \xff\r\n\r\n", "does not speak WebSocket"),
        (b"HTTP/1.1 101 Ok\r\n" + b"X: y\r\n" * 20_000, "does not speak WebSocket: Bad HTTP message"),
    ],
)
async def test_server_without_websocket(answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # a client that hangs up with unread data sends a reset
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, answer_one)
            with anyio.fail_after(PATIENCE), pytest.raises(LinkEnded) as caught:
                await websocket.connect("127.0.0.1", port)
    assert caught.value.reason.startswith(f"127.0.0.1:{port} {words}")
    assert not caught.value.clean


async def test_no_answer_to_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HANDSHAKE_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LinkEnded, match=r"did not answer as WebSocket within 0\.02 s"):
            await websocket.connect("127.0.0.1", port)


async def test_connection_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(LinkEnded, match=f"cannot connect to 127.0.0.1:{port}: connection refused"):
            await websocket.connect("127.0.0.1", port)


def scripted_link(stream: Scripted, *, side: ConnectionType, max_message: int = MEBI) -> WebSocketLink:
    """A link without a socket, after its handshake."""
    framing = Framing.NATIVE_MESSAGES
    return WebSocketLink(stream, Connection(side), framing=framing, received=b"", max_message=max_message)


@pytest.mark.parametrize("side", ConnectionType)
async def test_messages_of_one_send_share_a_write(side: ConnectionType) -> None:
    stream = Scripted()
    await scripted_link(stream, side=side).send([b"one", b"", b"three"])
    mask = 4 if side is ConnectionType.CLIENT else 0
    assert [len(write) for write in stream.sent] == [3 * (2 + mask) + 8]


async def test_every_client_frame_has_its_own_mask() -> None:
    stream = Scripted()
    await scripted_link(stream, side=ConnectionType.CLIENT).send([b"\0" * 8] * 20)
    frames = [stream.sent[0][at : at + 14] for at in range(0, 20 * 14, 14)]
    assert all(frame[:2] == b"\x82\x88" and frame[6:] == frame[2:6] * 2 for frame in frames)
    assert len({frame[2:6] for frame in frames}) > 10


async def test_message_of_thousands_of_fragments() -> None:
    """Many more fragments than are kept apart, each of some bytes."""
    text, data = "añ€😀" * 3000, b"0123456789" * 5000
    wire = b"".join(
        frame.serialize(mask=True)
        for opcode, whole in ((Opcode.TEXT, text.encode()), (Opcode.BINARY, data))
        for frame in fragments(opcode, [whole[at : at + 7] for at in range(0, len(whole), 7)])
    )
    stream = Scripted(wire[at : at + 1000] for at in range(0, len(wire), 1000))
    link = scripted_link(stream, side=ConnectionType.SERVER)
    assert await receive_messages(link, 2) == [text, data]


def fragments(opcode: Opcode, pieces: list[bytes]) -> list[Frame]:
    last = len(pieces) - 1
    return [Frame(opcode if at == 0 else Opcode.CONT, piece, fin=at == last) for at, piece in enumerate(pieces)]


def cut(data: bytes, lengths: list[int]) -> list[bytes]:
    """Return `data` in pieces of `lengths` and the rest: at least one piece, an empty last one only for b""."""
    pieces, at = [], 0
    for length in lengths:
        if at < len(data):
            pieces.append(data[at : at + length])
            at += length
    return [*pieces, data[at:]] if at < len(data) or not pieces else pieces


MESSAGES = st.lists(st.tuples(st.text(max_size=40) | st.binary(max_size=40), st.lists(st.integers(0, 20), max_size=6)))


@given(MESSAGES, st.lists(st.integers(1, 30)), st.sampled_from(ConnectionType))
def test_any_fragments_in_any_reads_make_the_same_messages(
    messages: list[tuple[str | bytes, list[int]]], reads: list[int], side: ConnectionType
) -> None:
    wire = b""
    for message, lengths in messages:
        opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
        for frame in fragments(opcode, cut(data, lengths)):
            wire += frame.serialize(mask=side is ConnectionType.SERVER)
            wire += Frame(Opcode.PONG, b"").serialize(mask=side is ConnectionType.SERVER)

    async def run() -> list[object]:
        link = scripted_link(Scripted(cut(wire, reads) if wire else []), side=side)
        received: list[object] = []
        try:
            while True:
                batch = await link.receive()
                assert batch
                received += batch
        except LinkEnded as end:
            assert not end.clean
        return received

    assert anyio.run(run) == [message for message, _ in messages]


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)), st.sampled_from(ConnectionType))
def test_any_bytes_raise_only_link_ended(data: bytes, reads: list[int], side: ConnectionType) -> None:
    async def run() -> None:
        link = scripted_link(Scripted(cut(data, reads) if data else []), side=side, max_message=100)
        with pytest.raises(LinkEnded):
            while True:
                for message in await link.receive():
                    await link.send_typed([message])
        await link.close()

    anyio.run(run)
