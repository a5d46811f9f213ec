"""Raw TCP links: unchanged bytes, few writes, a plain error when a connection fails."""

import socket
import ssl
import struct
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

from mpreg_transports.links import tcp
from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.links.buffering import BufferingStream
from tests.helpers.loopback import Scripted, listening, receive_exactly

pytestmark = pytest.mark.anyio


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


async def test_echo_of_small_and_large() -> None:
    async with listening() as listener:
        link = await tcp.connect("127.0.0.1", listener.port)
        assert link.framing is Framing.STREAM
        assert link.peer == f"127.0.0.1:{listener.port}"
        assert link.local_host == "127.0.0.1"
        sent = [b"\x00head", memoryview(b"y" * 3_000_000), b"tail"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, sent)
            assert await receive_exactly(link, 3_000_009) == b"".join(sent)
        await link.close()
        await link.close()
        for use in (link.receive(), link.send([b"x"])):
            with pytest.raises(LinkEnded) as caught:
                await use
            assert caught.value.clean


async def test_nagle_is_off() -> None:
    async with listening() as listener:
        stream = await tcp.open_stream("127.0.0.1", listener.port)
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.aclose()


async def test_short_chunks_share_a_write_and_long_ones_are_not_copied() -> None:
    long = b"x" * tcp.LARGE
    assert list(tcp.gather([b"a", b"b", long, b"c", b"d"])) == [b"ab", long, b"cd"]
    assert list(tcp.gather([b"a", long]))[1] is long
    assert list(tcp.gather([])) == []
    stream = Scripted()
    await tcp.TcpLink(stream).send([b"1", b"2", memoryview(b"3")])
    assert stream.sent == [b"123"]


async def test_bytes_received_before_the_link_come_first() -> None:
    link = tcp.TcpLink(Scripted([b"more"]), received=b"first")
    assert [await link.receive(), await link.receive()] == [(b"first",), (b"more",)]
    with pytest.raises(LinkEnded, match="hung up") as caught:
        await link.receive()
    assert caught.value.clean


async def test_reset_is_not_clean() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = await tcp.connect("127.0.0.1", server.getsockname()[1])
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close now sends a reset
        accepted.close()
        with pytest.raises(LinkEnded) as first:
            await link.receive()
        with pytest.raises(LinkEnded) as again:
            await link.receive()
    assert first.value.reason == again.value.reason
    assert first.value.reason.startswith("connection lost")
    assert not first.value.clean
    assert again.value is not first.value
    with pytest.raises(LinkEnded):
        await link.send([b"x"])
    await link.close()


async def test_close_ends_a_waiting_receive() -> None:
    async with listening() as listener:
        link = await tcp.connect("127.0.0.1", listener.port)
        ended: list[LinkEnded] = []

        async def wait() -> None:
            try:
                await link.receive()
            except LinkEnded as end:
                ended.append(end)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await link.close()
        assert [end.clean for end in ended] == [True]


async def test_bytes_sent_before_close_arrive() -> None:
    got = bytearray()
    ended = anyio.Event()

    async def collect(link: Link) -> None:
        try:
            while True:
                for chunk in await link.receive():
                    assert not isinstance(chunk, str)
                    got.extend(chunk)
        except LinkEnded:
            ended.set()

    async with listening(collect) as listener:
        link = await tcp.connect("127.0.0.1", listener.port)
        await link.send([b"\x00" + b"z" * 1_000_000])
        await link.close()
        await ended.wait()
    assert len(got) == 1_000_001


async def test_connection_refused() -> None:
    port = closed_port()
    with pytest.raises(LinkEnded) as caught:
        await tcp.connect("127.0.0.1", port)
    assert caught.value.reason == f"cannot connect to 127.0.0.1:{port}: connection refused"
    assert not caught.value.clean


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_invalid_host_name(host: str) -> None:
    with pytest.raises(LinkEnded, match="cannot connect to"):
        await tcp.connect(host, 9001)


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(tcp.anyio, "connect_tcp", never)
    monkeypatch.setattr(tcp.asyncio_stream, "connect", never)
    monkeypatch.setattr(tcp, "CONNECT_SECONDS", 0.01)
    with pytest.raises(LinkEnded, match=r"no answer within 0\.01 s"):
        await tcp.connect("127.0.0.1", 1)


async def test_tls_to_a_port_without_it() -> None:
    async with listening() as listener:
        with pytest.raises(LinkEnded, match="cannot connect to"):
            await tcp.connect("127.0.0.1", listener.port, tls=ssl.create_default_context())


class Stuck(Scripted):
    """A stream whose peer takes a number of writes and nothing more."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes

    async def send(self, item: bytes) -> None:
        if len(self.sent) == self.takes:
            await anyio.sleep_forever()
        await super().send(item)


async def test_write_ends_when_the_peer_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STALLED_SECONDS", 0.1)
    stream = Stuck(takes=3)
    with pytest.raises(LinkEnded, match=r"the peer took nothing for 0\.1 s"):
        await tcp.write_all(stream, bytes(5 * tcp.SLICE))
    assert [len(piece) for piece in stream.sent] == [tcp.SLICE] * 3


async def test_long_chunks_are_written_in_slices_and_counted() -> None:
    stream = Scripted()
    output = tcp.Output(stream)
    await output.write([b"head", bytes(5 * tcp.SHORT_SLICE + 1)])
    assert [len(piece) for piece in stream.sent] == [4, *[tcp.SHORT_SLICE] * 5, 1]
    assert output.written_bytes == output.acked_bytes == 5 * tcp.SHORT_SLICE + 5
    assert output.unsent == 0


async def test_progress_within_one_write() -> None:
    """A stream that buffers a long write takes its time; each byte that the peer takes must show."""

    class Buffering(Scripted, BufferingStream):
        unwritten = 0
        writable = False

        def send_now(self, item: bytes) -> bool:
            return False

        async def drain(self) -> None: ...
        def limit_unwritten(self, size: int) -> None: ...

        async def send(self, item: bytes) -> None:
            self.unwritten = len(item)
            while self.unwritten:
                self.unwritten -= min(self.unwritten, 10_000)
                seen.append(output.acked_bytes)

    seen: list[int] = []
    output = tcp.Output(Buffering())
    await output.write([bytes(30_000)])
    await output.write([bytes(20_000)])
    assert seen == [10_000, 20_000, 30_000, 40_000, 50_000]


async def test_acked_bytes_are_those_the_peers_system_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await tcp.open_stream("127.0.0.1", server.getsockname()[1])
        accepted, _ = server.accept()
        output = tcp.Output(stream)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(output.write, [bytes(16_000_000)])
            await anyio.wait_all_tasks_blocked()
            stuck = output.acked_bytes
            assert stuck < 16_000_000
            read = 0
            while read < 16_000_000:
                read += len(await anyio.to_thread.run_sync(accepted.recv, 1_000_000))
        while output.acked_bytes < 16_000_000:
            await anyio.lowlevel.checkpoint()
        accepted.close()
        await stream.aclose()


async def test_hang_up_of_a_cancelled_task_closes_the_stream() -> None:
    class Slow:
        closed = False

        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            self.closed = True

    stream = Slow()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await tcp.hang_up(cast("ByteStream", stream))
    assert stream.closed


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] a long text")
    error.reason = reason  # as OpenSSL sets it
    return error


def caused(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "clean"),
    [
        (anyio.EndOfStream(), "the peer hung up", True),
        (anyio.ClosedResourceError(), "closed here", True),
        (anyio.BrokenResourceError(), "connection lost", False),
        (caused(anyio.BrokenResourceError(), OSError(104, "x")), "connection lost: connection reset by peer", False),
        (ConnectionResetError(104, "x"), "connection lost: connection reset by peer", False),
        (tls_error("BAD_RECORD"), "connection lost: TLS failed (bad record)", False),
    ],
)
async def test_end_of_a_link_by_its_exception(error: BaseException, reason: str, clean: bool) -> None:
    end = tcp.to_link_ended(error)
    assert (end.reason, end.clean) == (reason, clean)


async def test_text_of_a_network_error() -> None:
    refused = OSError(111, "x")
    several = ExceptionGroup("all", [refused, OSError(111, "y"), caused(OSError("no"), OSError(110, "z"))])
    assert tcp.describe_error(several) == "connection refused; connection timed out"
    assert tcp.describe_error(socket.gaierror(-2, "Name unknown")) == "name unknown"
    assert tcp.describe_error(OSError("as it is")) == "as it is"
    assert tcp.describe_error(OSError()) == "OSError"
