"""The listener: the first byte shows the protocol of a connection, and no connection can end the others."""

import errno
import logging
import socket

import anyio
import pytest
from anyio.abc import SocketListener, SocketStream

from mpreg_transports.links import tcp, websocket
from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.runtime import listener as listener_module
from mpreg_transports.runtime.listener import CannotListen, Listener
from tests.helpers.loopback import Scripted, echo, listening, read_all, read_exactly, say_request

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("first", [b"\x00\x00\x00\x02hi", b"\x01"])
async def test_raw_frames_keep_their_first_bytes(first: bytes) -> None:
    framings: list[Framing] = []

    async def note(link: Link) -> None:
        framings.append(link.framing)
        await echo(link)

    async with listening(note) as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(first)
        assert await read_exactly(stream, len(first)) == first
        await stream.send(b"GET more")
        assert await read_exactly(stream, 8) == b"GET more"
    assert framings == [Framing.STREAM]


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"\x02", b"\xff", b" GET / HTTP/1.1\r\n", b"{}"])
async def test_unknown_first_byte_is_closed_and_logged(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(first)
        assert await read_all(stream) == b""
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    words = "speaks TLS" if first[0] == 0x16 else f"first byte 0x{first[0]:02x}"
    assert words in record.getMessage()
    assert record.getMessage().startswith("127.0.0.1:")


async def test_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "FIRST_BYTES_SECONDS", 0.02)
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        assert await read_all(stream) == b""


async def test_unfinished_http_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "FIRST_BYTES_SECONDS", 0.02)
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\n")
        assert await read_all(stream) == b""


async def test_connection_that_closes_at_once_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as listener:
        async with await anyio.connect_tcp("127.0.0.1", listener.port):
            pass
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
            await stream.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_defect_in_one_connection_ends_only_that_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_first(link: Link) -> None:
        if list(await link.receive()) == [b"\x00fail"]:
            raise RuntimeError("a defect")
        await echo(link)

    async with listening(fail_first) as listener:
        kept = await tcp.connect("127.0.0.1", listener.port)
        await kept.send([b"\x00start"])
        failing = await tcp.connect("127.0.0.1", listener.port)
        await failing.send([b"\x00fail"])
        with pytest.raises(LinkEnded):
            await failing.receive()
        await failing.close()
        await kept.send([b"ping"])
        assert await kept.receive() == (b"ping",)
        await kept.close()
    assert "a defect ended this connection" in caplog.text


async def test_link_is_closed_when_its_function_returns() -> None:
    async def leave(link: Link) -> None:
        await link.receive()

    async with listening(leave) as listener:
        native = await websocket.connect("127.0.0.1", listener.port)
        await native.send([b"x"])
        with pytest.raises(LinkEnded) as caught:
            await native.receive()
        assert (caught.value.clean, caught.value.code) == (True, 1000)
        await native.close()


async def test_port_0_binds_a_free_port() -> None:
    listener = await Listener.bind("127.0.0.1", 0)
    assert listener.host == "127.0.0.1"
    assert 1024 <= listener.port <= 65535
    await listener.close()
    await listener.close()


async def test_error_of_a_port_in_use() -> None:
    async with listening() as listener:
        with pytest.raises(CannotListen) as caught:
            await Listener.bind("127.0.0.1", listener.port)
    assert isinstance(caught.value, OSError)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{listener.port}: address already in use; "
        "choose another with --port, or 0 for any free one"
    )


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("192.0.2.1", 0, "this machine has no such address, choose another with --host"),
        ("a..b", 0, "cannot listen on a..b:0: "),
        ("127.0.0.1", 70_000, "a port is a number from 0 to 65535"),
        ("127.0.0.1", -1, "a port is a number from 0 to 65535"),
    ],
)
async def test_other_errors_of_listening(host: str, port: int, words: str) -> None:
    with pytest.raises(CannotListen, match="cannot listen on") as caught:
        await Listener.bind(host, port)
    assert words in str(caught.value)


async def test_close_frees_the_port_and_keeps_open_links() -> None:
    with anyio.fail_after(30):
        listener = await Listener.bind("127.0.0.1", 0)
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                await listener.serve(echo, say_request, task_status=task_status)

            await tasks.start(serve)
            link = await tcp.connect("127.0.0.1", listener.port)
            await link.send([b"\x00one"])
            assert await link.receive() == (b"\x00one",)
            await listener.close()
            with pytest.raises(LinkEnded, match="connection refused"):
                await tcp.connect("127.0.0.1", listener.port)
            await link.send([b"two"])
            assert await link.receive() == (b"two",)
            await link.close()  # the last link: serve returns, and with it the task group


class Scarce(SocketListener):
    """A listener that is out of files at first, then returns one connection, then is closed."""

    def __init__(self, faults: list[Exception], stream: SocketStream | Scripted) -> None:
        self.faults = faults
        self.streams = [stream]

    async def accept(self) -> SocketStream:
        await anyio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.pop(0)
        if self.streams:
            return self.streams.pop()  # type: ignore[return-value]
        raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()

    @property
    def _raw_socket(self) -> socket.socket:
        raise NotImplementedError

    @property
    def extra_attributes(self) -> dict[object, object]:  # type: ignore[override]
        return {anyio.abc.SocketAttribute.local_port: lambda: 9}


async def test_accept_backs_off_when_out_of_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(listener_module.anyio, "sleep", pause)
    broken = anyio.BrokenResourceError()
    broken.__cause__ = OSError(errno.EMFILE, "Too many open files")
    stream = Scripted([b"GET / HTTP/1.0\r\n\r\n"])
    listener = Listener([Scarce([OSError(errno.EMFILE, "Too many open files"), broken], stream)], "127.0.0.1")
    await listener.serve(echo, say_request)
    assert b"".join(stream.sent).startswith(b"HTTP/1.1 200")
    assert pauses == [listener_module.ACCEPT_PAUSE_SECONDS, 2 * listener_module.ACCEPT_PAUSE_SECONDS]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        "cannot accept connections, going on trying: too many open files",
        "accepting connections again after 2 failures",
    ]
