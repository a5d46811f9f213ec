"""TLS over a byte stream: the same bytes at both ends, none of them readable between, and every end in words."""

import random
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream, SocketAttribute

from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.links import tcp, tls, websocket
from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.links.buffering import BufferingStream
from mpreg_transports.links.tls import BufferingTlsStream, TlsStream, secure
from mpreg_transports.security.authority import Role
from mpreg_transports.security.contexts import Credentials
from mpreg_transports.security.secret import Secret
from tests.helpers.loopback import PATIENCE, Scripted, echo, listening, read_all, read_exactly, receive_exactly

pytestmark = pytest.mark.anyio

SECRET = Secret(bytes(range(32)))
NODE = Credentials(SECRET, "shop")
OTHER = Credentials(Secret(b"x" * 32), "shop")


class Recorded(ByteStream):
    """A stream that keeps a copy of all that passes."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.passed = bytearray()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self.stream.receive(max_bytes)
        self.passed += data
        return data

    async def send(self, item: bytes) -> None:
        self.passed += item
        await self.stream.send(item)

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Any]:
        return self.stream.extra_attributes


@asynccontextmanager
async def ends(backlog: int = 0) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    """Yield the dialling and the listening end of a connection."""
    accepted: list[TlsStream] = []
    done = anyio.Event()

    async def keep(link: Link) -> None:
        assert isinstance(link, tcp.TcpLink) and isinstance(link._stream, TlsStream)
        accepted.append(link._stream)
        await link.receive()
        arrived.set()
        await done.wait()

    arrived = anyio.Event()
    async with listening(keep, tls=NODE) as listener:
        stream = await tcp.open_stream("127.0.0.1", listener.port, tls=NODE.dialling)
        assert isinstance(stream, TlsStream)
        await stream.send(b"\0")
        await arrived.wait()
        yield stream, accepted[0]
        done.set()
        await tcp.hang_up(stream)


# -- data -------------------------------------------------------------------------------------------------------------


async def test_raw_echo_of_small_and_large() -> None:
    async with listening(tls=NODE) as listener:
        link = await tcp.connect("127.0.0.1", listener.port, tls=NODE.dialling)
        assert (link.framing, link.peer, link.local_host) == (
            Framing.STREAM,
            f"127.0.0.1:{listener.port}",
            "127.0.0.1",
        )
        sent = [b"\x00head", memoryview(b"y" * 3_000_000), b"tail"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, sent)
            assert await receive_exactly(link, 3_000_009) == b"".join(sent)
        await link.close()
        await link.close()


async def test_websocket_echo_of_small_and_large() -> None:
    async with listening(tls=NODE) as listener:
        link = await websocket.connect("127.0.0.1", listener.port, tls=NODE.dialling)
        for message in (b"x", b"y" * 3_000_000):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.send, [message])
                received = await link.receive()
                while not received:
                    received = await link.receive()
                assert received == [message]
        await link.close()


async def test_no_plain_text_on_the_connection() -> None:
    async with listening(tls=NODE) as listener:
        recorded = Recorded(await tcp.open_stream("127.0.0.1", listener.port))
        stream = await secure(recorded, NODE.dialling)
        text = b"\0a secret order of 12 pairs of shoes" * 10
        await stream.send(text)
        assert await read_exactly(stream, len(text)) == text
        assert len(recorded.passed) > 2 * len(text)
        assert b"secret order" not in recorded.passed and b"mpreg:shop/node" not in recorded.passed
        await tcp.hang_up(stream)


async def test_bytes_that_come_with_the_end_of_the_handshake() -> None:
    """A peer that sends at once: what was read with its last flight is not lost, also cut into single bytes."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = NODE.dialling.wrap_bio(to_client, to_server)

    class Dialler(Scripted):
        """The client's end, a byte a read."""

        async def receive(self, max_bytes: int = 65536) -> bytes:
            await anyio.lowlevel.checkpoint()
            if not to_server.pending:
                try:
                    client.do_handshake()
                    client.write(b"first words")
                except ssl.SSLWantReadError:
                    pass
            return to_server.read(1)

        async def send(self, item: bytes) -> None:
            await anyio.lowlevel.checkpoint()
            to_client.write(item)

    stream = await secure(Dialler(), NODE.listening, server_side=True)
    assert await read_exactly(stream, 11) == b"first words"


async def test_receive_of_few_bytes_loses_none() -> None:
    async with ends() as (one, other):
        await one.send(b"z" * 40_000)
        assert [len(await other.receive(7)) for _ in range(3)] == [7, 7, 7]
        assert await read_exactly(other, 40_000 - 21) == b"z" * (40_000 - 21)


async def test_cancelled_receive_loses_nothing() -> None:
    async with ends() as (one, other):
        for _ in range(20):
            with anyio.move_on_after(0):
                await other.receive()
        await one.send(b"still here")
        assert await read_exactly(other, 10) == b"still here"


async def test_attributes_of_the_connection_and_certificate_of_the_peer() -> None:
    async with ends() as (one, other):
        assert one.extra(SocketAttribute.raw_socket).getpeername() == other.extra(SocketAttribute.local_address)
        for end in (one, other):
            assert NODE.verdict(end.peer_certificate) is Authentication.NODE


# -- back-pressure and measurements -----------------------------------------------------------------------------------


async def test_sender_waits_for_a_peer_that_reads_nothing() -> None:
    async with ends() as (one, other):
        for end in (one, other):
            raw: socket.socket = end.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        output = tcp.Output(one)
        before = output.written_bytes
        size = 20_000_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(output.write, [b"w" * size])
            while output.written_bytes == before or output.written_bytes == output.acked_bytes:
                await anyio.lowlevel.checkpoint()
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
            written = output.written_bytes - before
            assert 0 < written < size and output.acked_bytes < output.written_bytes
            if isinstance(one, BufferingStream):
                assert not one.send_now(b"no") and not one.writable and one.unwritten == output.unsent > 0
            assert await read_exactly(other, size) == b"w" * size
        while output.unsent or output.acked_bytes != output.written_bytes:
            await anyio.lowlevel.checkpoint()
        # 22 bytes for each record of 16 KiB: the count is that of the connection, so it meets the system's own.
        assert size < output.written_bytes - before < size * 1.01


async def test_writes_without_waiting_where_the_stream_can() -> None:
    async with ends() as (one, other):
        output = tcp.Output(one)
        before = output.written_bytes
        assert output.write_now(b"now") is isinstance(one, BufferingTlsStream)
        if isinstance(one, BufferingTlsStream):
            assert await other.receive() == b"now"
            assert output.written_bytes - before == 3 + 22
            output.pace(16 * 1024)
            await output.write([b"v" * 100_000])
            assert await read_exactly(other, 100_000) == b"v" * 100_000
            await one.drain()
            assert one.unwritten == 0


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_close_notify_is_a_clean_end() -> None:
    async with ends() as (one, other):
        await one.send(b"last words")
        await tcp.hang_up(one)
        assert await read_exactly(other, 10) == b"last words"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await other.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await one.send(b"x")


async def test_end_without_close_notify_is_a_break() -> None:
    async with ends() as (one, other):
        await one.aclose()
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await other.receive()
            end = tcp.to_link_ended(caught.value)
            assert (end.clean, end.reason) == (False, "connection lost: it ended without TLS's close_notify")


async def test_data_of_the_peer_after_the_own_close_notify() -> None:
    """An end may go on reading, as `linger` does: else what it sent last could be lost to a reset."""
    async with ends() as (one, other):
        await one.send_eof()
        await one.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await other.receive()
        await other.send(b"answer")
        assert await one.receive() == b"answer"
        await tcp.hang_up(other)
        with pytest.raises(anyio.EndOfStream):
            await one.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await one.send(b"x")


async def test_changed_record_ends_the_stream() -> None:
    async with ends() as (one, other):
        one._encrypt(b"an order")
        record = bytearray(one._take())
        record[-1] ^= 1
        await one._stream.send(bytes(record))
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await other.receive()
        assert "TLS failed" in tcp.to_link_ended(caught.value).reason


async def test_cancelled_send_breaks_the_stream_and_its_close_does_not_wait() -> None:
    async with ends() as (one, other):
        with anyio.move_on_after(0.05):
            await one.send(b"w" * 50_000_000)
        with anyio.fail_after(5):
            if not isinstance(one, BufferingTlsStream):  # asyncio has taken all of it
                with pytest.raises(anyio.BrokenResourceError):
                    await one.send(b"x")
            await tcp.hang_up(one)
        del other


async def test_many_replies_to_a_peer_that_reads_nothing() -> None:
    """Key updates ask for replies, which wait behind a sender that waits: their number is bounded."""
    async with ends() as (one, _):
        async with one._sending:
            one._outgoing.write(b"r" * (tls.MAX_REPLIES + 1))
            TlsStream._reply(one)
        one._outgoing.read()
        with pytest.raises(anyio.BrokenResourceError):
            await one.receive()


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_half_handshake_is_hung_up(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.05)
    monkeypatch.setattr("mpreg_transports.runtime.listener.FIRST_BYTES_SECONDS", 0.05)
    async with listening(tls=NODE) as listener:
        stream = await tcp.open_stream("127.0.0.1", listener.port)
        if sent:
            await stream.send(sent)
        assert await read_all(stream) == b""
        await stream.aclose()


async def test_silence_after_the_handshake_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpreg_transports.runtime.listener.FIRST_BYTES_SECONDS", 0.05)
    async with listening(tls=NODE) as listener:
        stream = await tcp.open_stream("127.0.0.1", listener.port, tls=NODE.dialling)
        assert await read_all(stream) == b""
        await stream.aclose()


async def test_listener_that_never_answers_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.05)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
        port = silent.extra(SocketAttribute.local_port)
        with pytest.raises(LinkEnded, match="no TLS handshake within"), anyio.fail_after(PATIENCE):
            await tcp.connect("127.0.0.1", port, tls=NODE.dialling)


async def test_dialling_end_does_not_accept_the_certificate() -> None:
    async with listening(tls=OTHER) as listener:
        with pytest.raises(LinkEnded, match="its certificate is of no authority that this end trusts") as caught:
            await tcp.connect("127.0.0.1", listener.port, tls=NODE.dialling)
        assert caught.value.denied and caught.value.reason.startswith("cannot connect to 127.0.0.1")


async def test_listening_end_does_not_accept_the_certificate() -> None:
    """The dialling end's handshake ends before that: its first read raises."""
    careless = Credentials(Secret(b"x" * 32), "shop").dialling
    careless.verify_mode = ssl.CERT_NONE
    async with listening(tls=NODE) as listener:
        link = await tcp.connect("127.0.0.1", listener.port, tls=careless)
        await link.send([b"\0hello"])
        for _ in range(2):
            with pytest.raises(LinkEnded, match="it does not trust the certificate of this end") as caught:
                await link.receive()
            assert caught.value.denied
        await link.close()


async def test_plain_text_against_tls() -> None:
    async with listening(tls=NODE) as listener:
        for first in (b"\x05\0\0", b"\xff"):
            stream = await tcp.open_stream("127.0.0.1", listener.port)
            await stream.send(first)
            assert await read_all(stream) == b""
            await stream.aclose()
        stream = await tcp.open_stream("127.0.0.1", listener.port)
        await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(
            b"\r\n\r\nthis node serves TLS only: use https:// or wss://\n"
        )
        await stream.aclose()
        with pytest.raises(LinkEnded, match="status 400: this node serves TLS only: use https:// or wss://"):
            await websocket.connect("127.0.0.1", listener.port)


async def test_tls_against_plain_text() -> None:
    async with listening() as listener:
        with pytest.raises(LinkEnded, match="it hung up in the TLS handshake; does it speak plain text"):
            await tcp.connect("127.0.0.1", listener.port, tls=NODE.dialling)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain:

        async def greet(stream: ByteStream) -> None:
            try:
                await stream.send(b"220 mail.example.com ESMTP\r\n")
                await tcp.linger(stream)
            finally:
                await tcp.hang_up(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plain.serve, greet)
            with pytest.raises(LinkEnded, match="it does not speak TLS"):
                await tcp.connect("127.0.0.1", plain.extra(SocketAttribute.local_port), tls=NODE.dialling)
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("credentials", "verdict"),
    [
        (NODE, Authentication.NODE),
        (Credentials(SECRET, "shop", role=Role.CLIENT), Authentication.CLIENT),
        (None, Authentication.NONE),
    ],
)
async def test_verdict_of_the_listener(credentials: Credentials | None, verdict: Authentication) -> None:
    verdicts: list[Authentication] = []

    async def note(link: Link) -> None:
        verdicts.append(link.verdict)
        await echo(link)

    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    context = anybody if credentials is None else credentials.dialling
    async with listening(note, tls=NODE) as listener:
        raw = await tcp.connect("127.0.0.1", listener.port, tls=context)
        await raw.send([b"\0x"])
        await receive_exactly(raw, 2)
        await raw.close()
        link = await websocket.connect("127.0.0.1", listener.port, tls=context)
        await link.close()
    assert verdicts == [verdict, verdict]


def mutated_handshake(draw: random.Random) -> ssl.SSLObject | None:
    """Change, drop, repeat or cut one flight of a handshake; return the listening end if it accepts the peer."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    from_client, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = NODE.dialling.wrap_bio(to_client, from_client)
    server = NODE.listening.wrap_bio(to_server, from_server, server_side=True)
    target = draw.randrange(3)
    passed = 0
    accepted = False
    for _ in range(6):
        for end, sent, peer in ((client, from_client, to_server), (server, from_server, to_client)):
            try:
                end.do_handshake()
                accepted = accepted or end is server
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return None
            if sent.pending:
                flight = bytearray(sent.read())
                if passed == target:
                    at = draw.randrange(len(flight))
                    match draw.randrange(4):
                        case 0:
                            flight[at] ^= draw.randrange(1, 256)
                        case 1:
                            del flight[at : at + draw.randrange(1, 20)]
                        case 2:
                            flight[at:at] = draw.randbytes(draw.randrange(1, 20))
                        case _:
                            del flight[at:]
                passed += 1
                peer.write(bytes(flight))
    return server if accepted and passed > target else None


def test_mutated_handshakes_get_nobody_in() -> None:
    seed = 14
    for number in range(600):
        draw = random.Random(f"{seed}-{number}")
        assert mutated_handshake(draw) is None, f"seed {seed}, handshake {number}"
