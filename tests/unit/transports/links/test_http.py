"""HTTP on the shared port: heads, bodies, keep-alive, and every kind of wrong request."""

import anyio
import pytest
from anyio.abc import SocketStream

from mpreg_transports.links import http
from mpreg_transports.links.http import HttpRequest, HttpResponse
from mpreg_transports.runtime import listener as listener_module
from mpreg_transports.runtime.listener import Listener
from tests.helpers.loopback import echo, listening, read_all, read_exactly, say_request

pytestmark = pytest.mark.anyio


async def answer_head(stream: SocketStream) -> bytes:
    """Return the head of one answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive(1)
    return head


async def answer(stream: SocketStream) -> tuple[int, bytes]:
    """Return the status and the body of one answer that has a length."""
    head = await answer_head(stream)
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split(b" ")[1]), await read_exactly(stream, int(length.partition(b":")[2]))


async def exchange(listener: Listener, data: bytes) -> bytes:
    """Return all that the server sends for `data` until it hangs up."""
    async with await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(data)
        return await read_all(stream)


async def test_two_requests_on_one_connection() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"GET /healthz?a=1&b HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await answer(stream) == (200, b"GET /healthz a=1&b 0\n")
        await stream.send(b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        await stream.send(b"hello")
        assert await answer(stream) == (200, b"POST /rpc  5\n")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with listening() as listener:
        both = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        data = await exchange(listener, both)
    assert data.index(b"GET /1") < data.index(b"GET /2")
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 2


async def test_request_in_single_bytes() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        for byte in b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            await stream.send(bytes((byte,)))
        assert await answer(stream) == (200, b"PUT /x  3\n")


async def test_fields_of_a_request() -> None:
    seen: list[HttpRequest] = []

    async def note(request: HttpRequest) -> HttpResponse:
        seen.append(request)
        return HttpResponse(200, [("X-Mine", "1"), ("Content-Length", "999")], b"ok")

    async with listening(echo, note) as listener:
        data = await exchange(
            listener,
            b"POST /a%20b?c=%C3 HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two: 2\r\nX-Odd: \xe9\r\n"
            b"Connection: close\r\nContent-Length: 3\r\n\r\n\x00\x01\x02",
        )
    (request,) = seen
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a%20b", "c=%C3", b"\0\1\2")
    assert (request.target, request.header("X-TWO"), request.header("x-odd")) == ("/a%20b?c=%C3", "1, 2", "é")
    assert request.header("absent") is None
    assert request.peer.startswith("127.0.0.1:")
    assert not request.asks_for_websocket()
    assert b"\r\nx-mine: 1\r\n" in data.lower()
    assert data.lower().count(b"content-length: 2\r\n") == data.lower().count(b"content-length") == 1
    assert data.endswith(b"\r\n\r\nok")


async def test_response_to_head_has_a_length_and_no_body() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"\r\ncontent-length: 10\r\n" in (await answer_head(stream)).lower()
        assert await answer(stream) == (200, b"GET /2  0\n")


async def test_no_content_has_no_body() -> None:
    async def nothing(request: HttpRequest) -> HttpResponse:
        return HttpResponse(204, body=b"ignored")

    async with listening(echo, nothing) as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            head = await answer_head(stream)
            assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
            assert b"content-length" not in head.lower()


async def test_http_1_0_connection_closes_after_the_answer() -> None:
    async with listening() as listener:
        data = await exchange(listener, b"GET /old HTTP/1.0\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"GET /old  0\n")


async def test_100_continue() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await answer_head(stream)).startswith(b"HTTP/1.1 100 ")
        await stream.send(b"hi")
        assert await answer(stream) == (200, b"POST /  2\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET /" + b"x" * http.MAX_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * http.MAX_HEADERS + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16777217\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n", b"413"),
    ],
)
async def test_wrong_requests_are_refused(data: bytes, status: bytes) -> None:
    async with listening() as listener:
        refusal = await exchange(listener, data)
        assert refusal.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nconnection: close\r\n" in refusal.lower()
        assert (await exchange(listener, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_most_headers_that_are_allowed() -> None:
    async with listening() as listener:
        many = b"X: 1\r\n" * (http.MAX_HEADERS - 2)
        data = await exchange(listener, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + many + b"\r\n")
    assert data.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("excess", "status"), [(0, b"200"), (1, b"431")])
async def test_size_of_a_head_counts_four_bytes_for_each_header(
    monkeypatch: pytest.MonkeyPatch, excess: int, status: bytes
) -> None:
    monkeypatch.setattr(http, "MAX_HEAD", 1000)
    headers = ((b"Host", b"a"), (b"Connection", b"close"))
    target = b"/" + b"x" * (1000 + excess - 1 - sum(len(name) + len(value) + 4 for name, value in headers))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    async with listening() as listener:
        answer = await exchange(listener, b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_chunked_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1000)
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    start = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with listening() as listener:
        assert (await exchange(listener, start + 2 * chunk + b"0\r\n\r\n")).endswith(b"POST /  1000\n")
        assert (await exchange(listener, start + 3 * chunk)).startswith(b"HTTP/1.1 413")


async def test_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        received = b""

        async def send() -> None:
            await stream.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 17000000\r\n\r\n" + b"x" * 17_000_000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            received = await read_all(stream)
        assert received.startswith(b"HTTP/1.1 413")


async def test_body_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.02)
    async with listening() as listener:
        data = await exchange(listener, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    assert data.startswith(b"HTTP/1.1 408")


async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "KEEP_ALIVE_SECONDS", 0.02)
    async with listening() as listener:
        data = await exchange(listener, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.endswith(b"GET /  0\n")


async def test_client_that_leaves_during_a_request() -> None:
    async with listening() as listener:
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
            await stream.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
        assert (await exchange(listener, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_upgrade_to_another_protocol_is_ignored() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        upgrade = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        await stream.send(upgrade)
        assert await answer(stream) == (200, b"GET /1  0\n")
        await stream.send(upgrade)
        assert await answer(stream) == (200, b"GET /1  0\n")


async def test_websocket_after_a_request_on_the_same_connection() -> None:
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await answer(stream) == (200, b"GET /1  0\n")
        await stream.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert (await answer_head(stream)).startswith(b"HTTP/1.1 101 ")
        await stream.send(b"\x81\x82\0\0\0\0hi")
        assert await read_exactly(stream, 4) == b"\x81\x02hi"


@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
async def test_admit_refuses_a_request_by_its_head(upgrade: bytes) -> None:
    def only_a(request: HttpRequest) -> HttpResponse | None:
        return None if request.header("host") == "a" else HttpResponse.text(403, "another host")

    async with listening(admit=only_a) as listener:
        data = await exchange(listener, b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\n" + upgrade + b"\r\n")
        assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert data.endswith(b"another host\n")
        ordinary = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await exchange(listener, ordinary)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("fault", ["raises", "bad header"])
async def test_defect_is_500_and_the_server_continues(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest) -> HttpResponse:
        if request.path != "/fail":
            return await say_request(request)
        if fault == "raises":
            raise RuntimeError("secret words")
        return HttpResponse(200, [("x", "split\r\nset-cookie: y")])

    async with listening(echo, fail) as listener:
        data = await exchange(listener, b"GET /fail HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await exchange(listener, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert data.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"secret" not in data
    assert b"cookie" not in data
    assert "defect while answering GET /fail" in caplog.text


async def test_long_last_response_arrives_whole_at_a_slow_reader() -> None:
    """The connection is closed only when the system has taken the whole response."""
    size = 16 * 1024 * 1024

    async def long_response(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text(200, "x" * size)

    async with (
        listening(on_http=long_response) as listener,
        await anyio.connect_tcp("127.0.0.1", listener.port) as stream,
    ):
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await answer_head(stream)
        await anyio.wait_all_tasks_blocked()  # the server waits for this reader
        assert len(await read_all(stream)) >= size
