"""WebSocket links as servers, against the `websockets` library and frames written by hand."""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest
from websockets.frames import Frame, Opcode
from wsproto import ConnectionType
from wsproto.connection import Connection

from mpreg_transports.links import websocket
from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.links.message_parser import MAX_PONG_BYTES, SLICE, MessageParser
from mpreg_transports.links.websocket import WebSocketLink, valid_close_code
from tests.helpers.loopback import ForeignClient, foreign_client, listening, read_all, read_exactly

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    b"GET /any HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3 has both


def client_frame(first: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """Return a masked frame, made by hand. A mask of zeros leaves the payload unchanged."""
    if length is None:
        length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((first,)) + length + b"\0\0\0\0" + payload


class Recorder:
    """Records what a link receives, batch by batch, and how it ended."""

    def __init__(self, then: Callable[[WebSocketLink], Awaitable[None]] | None = None) -> None:
        self.batches: list[Sequence[object]] = []
        self.framing: Framing | None = None
        self.end: LinkEnded | None = None
        self.ended = anyio.Event()
        self._then = then

    async def __call__(self, link: Link) -> None:
        assert isinstance(link, WebSocketLink)
        self.framing = link.framing
        try:
            if self._then is not None:
                await self._then(link)
            while True:
                self.batches.append(await link.receive())
        except LinkEnded as end:
            self.end = end
        finally:
            self.ended.set()


async def upgraded(port: int) -> anyio.abc.SocketStream:
    """A socket that has upgraded by hand and read the answer."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    await stream.send(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive(1)
    assert ACCEPT in answer
    return stream


@pytest.mark.parametrize(
    ("opcode", "data"),
    [
        (Opcode.TEXT, b""),
        (Opcode.TEXT, "hé €".encode()),
        (Opcode.BINARY, b""),
        (Opcode.BINARY, bytes(range(256))),
        (Opcode.BINARY, b"x" * 125),
        (Opcode.BINARY, b"x" * 126),
        (Opcode.BINARY, b"x" * 65_535),
        (Opcode.BINARY, b"x" * 65_536),
        (Opcode.TEXT, b"y" * 200_000),
    ],
)
async def test_echo_keeps_kind_and_content(opcode: Opcode, data: bytes) -> None:
    async with listening() as listener, foreign_client(listener) as client:
        client.protocol.send_text(data) if opcode is Opcode.TEXT else client.protocol.send_binary(data)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.flush)
            frame = await client.frame()
        assert (frame.opcode, frame.fin, bytes(frame.data)) == (opcode, True, data)


async def test_echo_of_fragments() -> None:
    async with listening() as listener, foreign_client(listener) as client:
        text = "aé€😀".encode()
        for kind in (Opcode.TEXT, Opcode.BINARY):
            start = client.protocol.send_text if kind is Opcode.TEXT else client.protocol.send_binary
            start(text[:2], fin=False)
            for at in range(2, len(text)):
                client.protocol.send_continuation(text[at : at + 1], fin=False)
                client.protocol.send_ping(b"between")
            client.protocol.send_continuation(b"", fin=True)
            await client.flush()
            frames: list[Frame] = []
            while not frames or frames[-1].opcode is Opcode.PONG:
                frames.append(await client.frame())
            assert (frames[-1].opcode, bytes(frames[-1].data)) == (kind, text)


@pytest.mark.parametrize(
    ("offered", "chosen", "framing"),
    [
        ((), None, Framing.CLASSIC_MESSAGES),
        (("mpreg.1",), "mpreg.1", Framing.NATIVE_MESSAGES),
        (("other", "mpreg.1"), "mpreg.1", Framing.NATIVE_MESSAGES),
        (("other",), None, Framing.CLASSIC_MESSAGES),
    ],
)
async def test_subprotocol_selects_the_dialect(offered: tuple[str, ...], chosen: str | None, framing: Framing) -> None:
    async def greet(link: WebSocketLink) -> None:
        await link.send([b"{}"])

    recorder = Recorder(greet)
    async with listening(recorder) as listener, foreign_client(listener, subprotocols=offered) as client:
        frame = await client.frame()
        assert client.protocol.subprotocol == chosen
        assert client.protocol.extensions == []
        assert frame.opcode is (Opcode.BINARY if chosen else Opcode.TEXT)
    assert recorder.framing is framing


async def test_classic_link_accepts_text_and_binary() -> None:
    recorder = Recorder()
    async with listening(recorder) as listener, foreign_client(listener) as client:
        client.protocol.send_text(b'{"a":1}')
        client.protocol.send_binary(b'{"b":2}')
        client.protocol.send_close(1000)
        await client.flush()
        await client.until_closed()
        assert client.close_code == 1000
        await recorder.ended.wait()
    assert [item for batch in recorder.batches for item in batch] == ['{"a":1}', b'{"b":2}']
    assert recorder.end is not None
    assert recorder.end.clean


async def test_messages_of_one_segment_are_one_batch() -> None:
    recorder = Recorder()
    async with listening(recorder) as listener:
        stream = await upgraded(listener.port)
        await stream.send(client_frame(0x81, b"one") + client_frame(0x82, b"two") + client_frame(0x81, b""))
        await stream.send_eof()
        await recorder.ended.wait()
        await stream.aclose()
    assert recorder.batches == [["one", b"two", ""]]
    assert recorder.end is not None
    assert not recorder.end.clean  # without a close frame


async def test_frames_sent_with_the_handshake_are_not_lost() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(HANDSHAKE + client_frame(0x81, b"early"))
        answer = b""
        while not answer.endswith(b"\x81\x05early"):
            answer += await stream.receive()


async def test_handshake_and_frames_in_single_bytes() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        for byte in HANDSHAKE + client_frame(0x81, "é!".encode()) + client_frame(0x82, b"x" * 130):
            await stream.send(bytes((byte,)))
        answer = b""
        while not answer.endswith(b"\x82\x7e\x00\x82" + b"x" * 130):
            answer += await stream.receive()
        assert answer.count(b"\x81\x03\xc3\xa9!") == 1


VIOLATIONS = {
    "unmasked": (b"\x81\x02hi", 1002),
    "reserved bit 1": (client_frame(0xC1, b"hi"), 1002),
    "reserved bit 3": (client_frame(0x91, b"hi"), 1002),
    "reserved opcode": (client_frame(0x83, b"hi"), 1002),
    "reserved control opcode": (client_frame(0x8B, b""), 1002),
    "fragmented control": (client_frame(0x09, b"hi"), 1002),
    "long control": (client_frame(0x89, b"x" * 126), 1002),
    "continuation of nothing": (client_frame(0x80, b"hi"), 1002),
    "message inside a message": (client_frame(0x01, b"a") + client_frame(0x81, b"b"), 1002),
    "long form of a short length": (client_frame(0x82, b"hi", length=b"\xfe\x00\x02"), 1002),
    "length over 63 bits": (client_frame(0x82, b"", length=b"\xff" + b"\xff" * 8), 1002),
    "close of one byte": (client_frame(0x88, b"\x03"), 1002),
    "close with 1005": (client_frame(0x88, (1005).to_bytes(2, "big")), 1002),
    "close with 999": (client_frame(0x88, (999).to_bytes(2, "big")), 1002),
    "bad UTF-8": (client_frame(0x81, b"\xff\xfe"), 1007),
    "UTF-8 cut off": (client_frame(0x81, b"\xe2\x82"), 1007),
    "surrogate": (client_frame(0x81, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a fragment": (client_frame(0x01, b"ok") + client_frame(0x80, b"\xc0"), 1007),
    "bad UTF-8 in a close": (client_frame(0x88, (1000).to_bytes(2, "big") + b"\xff"), 1007),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_violations_close_with_their_code(name: str) -> None:
    data, code = VIOLATIONS[name]
    recorder = Recorder()
    async with listening(recorder) as listener:
        stream = await upgraded(listener.port)
        await stream.send(client_frame(0x81, b"before") + data + client_frame(0x81, b"after"))
        answer = await read_exactly(stream, 4)
        assert answer[0] == 0x88
        assert int.from_bytes(answer[2:4], "big") == code
        rest = await read_exactly(stream, answer[1] - 2)
        rest.decode()
        await stream.aclose()
        await recorder.ended.wait()
    assert recorder.batches == [["before"]]
    assert recorder.end is not None
    assert (recorder.end.clean, recorder.end.code) == (False, code)


def _fragments(client: ForeignClient, pieces: Sequence[bytes]) -> None:
    client.protocol.send_text(pieces[0], fin=False)
    for piece in pieces[1:]:
        client.protocol.send_continuation(piece, fin=False)


@pytest.mark.parametrize("pieces", [[b"x" * 1001], [b"x" * 500, b"x" * 501], ["é".encode() * 250] * 3])
async def test_too_large_message_closes_with_1009(pieces: list[bytes]) -> None:
    async with listening(max_message=1000) as listener, foreign_client(listener) as client:
        await client.binary(b"y" * 1000)
        assert (await client.frame()).data == b"y" * 1000
        _fragments(client, pieces)
        await client.flush()
        await client.until_closed()
        assert client.close_code == 1009


async def test_huge_message_is_refused_while_it_is_being_sent() -> None:
    """The peer is still writing megabytes: it must receive the close frame, not a reset."""
    async with listening(max_message=1000) as listener, foreign_client(listener) as client:
        client.protocol.send_binary(b"x" * 32_000_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.flush)
            await client.until_closed()
        assert client.close_code == 1009


async def test_pings_are_answered() -> None:
    async with listening() as listener, foreign_client(listener) as client:
        client.protocol.send_ping(b"are you there")
        await client.flush()
        frame = await client.frame()
        assert (frame.opcode, frame.data) == (Opcode.PONG, b"are you there")


async def test_pong_of_an_own_ping_is_a_sign_of_life() -> None:
    pong_came = anyio.Event()

    async def ping(link: WebSocketLink) -> None:
        link.on_partial = pong_came.set
        assert await link.keepalive()
        assert await link.receive() == ["after the pong"]

    recorder = Recorder(ping)
    async with listening(recorder) as listener, foreign_client(listener) as client:
        assert (await client.frame()).opcode is Opcode.PING
        await client.flush()
        await pong_came.wait()
        await client.text("after the pong")
        client.protocol.send_close(1000)
        await client.flush()
        await recorder.ended.wait()


async def test_pongs_between_the_frames_of_a_long_message() -> None:
    """The writer waits because the peer reads nothing. Pings that come then are answered before its message ends."""
    big = b"z" * 32_000_000

    async def write_and_read(link: WebSocketLink) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, [big])
            assert await link.receive() == ["go on"]

    recorder = Recorder(write_and_read)
    async with listening(recorder) as listener, foreign_client(listener) as client:
        await anyio.wait_all_tasks_blocked()
        for number in range(9):
            client.protocol.send_ping(b"%d" % number)
        client.protocol.send_text(b"go on")
        await client.flush()
        await anyio.wait_all_tasks_blocked()
        pongs, data = list[bytes](), 0
        while data < len(big):
            frame = await client.frame()
            if frame.opcode is Opcode.PONG:
                assert data < len(big)
                pongs.append(bytes(frame.data))
                continue
            assert frame.opcode is (Opcode.TEXT if data == 0 else Opcode.CONT)
            data += len(frame.data)
            assert frame.fin is (data == len(big))
        assert pongs == [b"%d" % number for number in range(9)]
        await client.stream.aclose()
        await recorder.ended.wait()


async def test_ten_pings_of_one_read_get_ten_pongs_in_order() -> None:
    """Autobahn 2.10; and 2.11, where the same bytes come one at a time."""
    pings = b"".join(client_frame(0x89, b"payload-%d" % number) for number in range(10))
    expected = b"".join(b"\x8a\x09payload-%d" % number for number in range(10))
    for step in (len(pings), 1):
        async with listening() as listener:
            stream = await upgraded(listener.port)
            for at in range(0, len(pings), step):
                await stream.send(pings[at : at + step])
            assert await read_exactly(stream, len(expected)) == expected
            await stream.aclose()


async def test_pending_pongs_are_bounded() -> None:
    connection = Connection(ConnectionType.SERVER)
    parser = MessageParser(connection, max_message=100)
    pings = [b"%05d" % number + bytes(120) for number in range(100)]
    parser.feed(b"".join(client_frame(0x89, ping) for ping in pings))
    parser.parse()
    owed = parser.pongs()
    assert sum(map(len, owed)) <= MAX_PONG_BYTES < sum(map(len, owed)) + len(owed[0])
    assert [pong[2:] for pong in owed] == pings[-len(owed) :], "the newest, in order"
    assert not parser.has_pongs


async def test_tiny_fragments_are_parsed_in_slices() -> None:
    connection = Connection(ConnectionType.SERVER)
    parser = MessageParser(connection, max_message=10_000)
    parser.feed(client_frame(0x01, b"{") + client_frame(0x00, b" ") * (3 * SLICE) + client_frame(0x80, b"}"))
    slices = [parser.parse()]
    while parser.more:
        slices.append(parser.parse())
    assert slices == [[], [], [], ["{" + " " * (3 * SLICE) + "}"]]


@pytest.mark.parametrize(("code", "clean"), [(1000, True), (1001, True), (None, True), (1011, False), (4000, False)])
async def test_close_by_the_peer(code: int | None, clean: bool) -> None:
    recorder = Recorder()
    async with listening(recorder) as listener, foreign_client(listener) as client:
        client.protocol.send_close(code, "why" if code else "")
        await client.flush()
        await client.until_closed()
        assert client.close_code == (code or 1005)
        await recorder.ended.wait()
    assert recorder.end is not None
    assert (recorder.end.clean, recorder.end.code) == (clean, code or 1005)


async def test_answers_before_the_peers_close_frame_are_sent() -> None:
    async with listening() as listener, foreign_client(listener) as client:
        client.protocol.send_text(b"last words")
        client.protocol.send_close(1000)
        await client.flush()
        frames = [await client.frame(), await client.frame()]
        assert [frame.opcode for frame in frames] == [Opcode.TEXT, Opcode.CLOSE]


@pytest.mark.parametrize(("code", "sent"), [(1000, 1000), (1001, 1001), (4321, 4321), (1005, 4005), (1040, 4040)])
async def test_close_by_the_server(code: int, sent: int) -> None:
    async def close(link: WebSocketLink) -> None:
        await link.close(code)
        await link.close(1011)
        with pytest.raises(LinkEnded):
            await link.send([b"too late"])
        with pytest.raises(LinkEnded):
            await link.keepalive()

    recorder = Recorder(close)
    async with listening(recorder) as listener, foreign_client(listener) as client:
        await client.until_closed()
        assert client.close_code == sent
        await recorder.ended.wait()
    assert recorder.end is not None


def test_valid_close_codes() -> None:
    codes = {1000: 1000, 1004: 4004, 1006: 4006, 1014: 1014, 1015: 4015, 1999: 4999, 3000: 3000, 4999: 4999, 5000: 1011}
    assert {code: valid_close_code(code) for code in codes} == codes
    assert all(
        3000 <= valid_close_code(code) < 5000 or valid_close_code(code) in range(1000, 1015)
        for code in range(-1, 70_000)
    )


async def test_close_while_another_task_receives() -> None:
    ended: list[LinkEnded] = []

    async def close(link: WebSocketLink) -> None:
        async def read() -> None:
            try:
                while True:
                    await link.receive()
            except LinkEnded as end:
                ended.append(end)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await link.close()

    recorder = Recorder(close)
    async with listening(recorder) as listener, foreign_client(listener) as client:
        await client.until_closed()
        assert client.close_code == 1000
        await recorder.ended.wait()
    assert [end.clean for end in ended] == [True]


async def test_close_does_not_wait_for_an_answer_when_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.02)

    async def close(link: WebSocketLink) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await link.close(1001)

    recorder = Recorder(close)
    async with listening(recorder) as listener:
        stream = await upgraded(listener.port)
        await recorder.ended.wait()  # although the peer does not answer
        assert await read_all(stream) == b"\x88\x02\x03\xe9"
        await stream.aclose()


async def test_cancelled_send_breaks_the_link() -> None:
    async def cut(link: WebSocketLink) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, [b"z" * 32_000_000])
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with pytest.raises(LinkEnded, match="cut off"):
            await link.send([b"more"])

    recorder = Recorder(cut)
    async with listening(recorder) as listener:
        stream = await upgraded(listener.port)
        await recorder.ended.wait()
        await stream.aclose()
    assert recorder.end is not None
    assert not recorder.end.clean


async def test_abrupt_end_is_not_clean() -> None:
    recorder = Recorder()
    async with listening(recorder) as listener:
        stream = await upgraded(listener.port)
        await stream.send(client_frame(0x81, b"half")[:-1])
        await stream.aclose()
        await recorder.ended.wait()
    assert recorder.batches == []
    assert recorder.end is not None
    assert not recorder.end.clean


BAD_UPGRADES = {
    "no key": (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key"), b"400"),
    "short key": (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), b"400"),
    "no base64": (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"???"), b"400"),
    "old version": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), b"426"),
    "no version": (HANDSHAKE.replace(b"Sec-WebSocket-Version: 13\r\n", b""), b"400"),
    "no connection": (HANDSHAKE.replace(b"Connection: keep-alive, Upgrade\r\n", b""), b"400"),
    "post": (HANDSHAKE.replace(b"GET", b"POST"), b"400"),
    "odd host": (HANDSHAKE.replace(b"Host: a", b"Host: xn--\xff"), b"400"),
    "odd subprotocol": (HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"), b"400"),
}


@pytest.mark.parametrize("name", BAD_UPGRADES)
async def test_bad_upgrades_are_refused(name: str) -> None:
    data, status = BAD_UPGRADES[name]
    recorder = Recorder()
    async with listening(recorder) as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(data)
        await stream.send_eof()
        answer = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert status != b"426" or b"sec-websocket-version: 13" in answer.lower()
    assert recorder.framing is None


async def test_messages_of_tasks_that_wait_for_a_writer() -> None:
    """The writer waits because the peer reads nothing, and each of the others waits for the one before it."""
    big = b"z" * 32_000_000

    async def write(link: WebSocketLink) -> None:
        async with anyio.create_task_group() as tasks:
            for message in (big, b"one", b"two", b"three"):
                tasks.start_soon(link.send, [message])
                await anyio.wait_all_tasks_blocked()

    recorder = Recorder(write)
    async with listening(recorder) as listener, foreign_client(listener) as client:
        await anyio.wait_all_tasks_blocked()
        whole, messages = b"", list[bytes]()
        while len(messages) < 4:
            frame = await client.frame()
            whole += bytes(frame.data)
            if frame.fin:
                messages.append(whole)
                whole = b""
        assert messages[0] == big and sorted(messages[1:]) == [b"one", b"three", b"two"]
        await client.stream.aclose()
        await recorder.ended.wait()
