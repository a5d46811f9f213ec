"""Host and Origin on real sockets.

The node refuses what a browser sends for a foreign page, on each path, and accepts what programs send.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mpreg_transports import Client, Server
from mpreg_transports.links.base import LinkEnded
from mpreg_transports.runtime.dialing import Dialler

PATIENCE = 30.0
BODY = json.dumps({"role": "rpc", "cmds": [{"name": "a", "fun": "echo", "args": [1]}]})
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
EVIL = "http://evil.example"

pytestmark = [pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(server: Server, request: str, *, host: str = "127.0.0.1") -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of an answer. `\n` ends the lines of the request; the connection then closes."""
    async with await anyio.connect_tcp(host, server.port) as stream:
        await stream.send(request.replace("\r\n", "\n").replace("\n", "\r\n").encode())
        data = b""
        with anyio.fail_after(PATIENCE):
            try:
                while b" 101 " not in data:
                    data += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
    head, _, body = data.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def get(path: str, *headers: str, method: str = "GET") -> str:
    return "".join(f"{line}\n" for line in (f"{method} {path} HTTP/1.1", *headers, "Connection: close", ""))


def post(*headers: str) -> str:
    return get("/rpc", *headers, f"Content-Length: {len(BODY)}", method="POST") + BODY


def upgrade(*headers: str, path: str = "/") -> str:
    lines = (f"GET {path} HTTP/1.1", *headers, "Connection: Upgrade", "Upgrade: websocket")
    return "".join(f"{line}\n" for line in lines) + KEY + "\n"


REQUESTS = {"rpc": post, "status": lambda *more: get("/api/status", *more), "websocket": upgrade}


@pytest.mark.parametrize("kind", [*REQUESTS, "index", "unknown path", "websocket on a health path"])
@pytest.mark.parametrize(
    "headers",
    [
        ("Host: evil.example",),
        ("Host: evil.example:9001", "Origin: http://evil.example:9001"),
        ("Host: 127.0.0.1.evil.example",),
        ("Host: localhost.evil.example",),
        ("Host: 10.1.2.3",),
        ("Host: localhost@evil.example",),
        ("Host: ",),
        ("Host: localhost", f"Origin: {EVIL}"),
        ("Host: localhost", "Origin: null"),
        ("Host: localhost", "Origin: "),
        ("Host: localhost:1", "Origin: http://localhost.evil.example:1"),
        ("Host: localhost:1", "Origin: http://localhost:2"),
        ("Host: localhost:1", "Origin: http://localhost:1@evil.example"),
        ("Host: localhost:1", "Origin: http://localhost:1", f"Origin: {EVIL}"),
        ("Host: localhost:1", "Origin: file://localhost:1"),
    ],
    ids=" | ".join,
)
async def test_foreign_pages_are_refused(kind: str, headers: tuple[str, ...]) -> None:
    more = {
        "index": lambda *given: get("/", *given),
        "unknown path": lambda *given: get("/nothing", *given),
        "websocket on a health path": lambda *given: upgrade(*given, path="/healthz"),
    }
    async with Server(port=0) as server:
        status, _, body = await ask(server, {**REQUESTS, **more}[kind](*headers))
    assert status == 403, body
    assert "--allow-" in body or "Host" in body or "Origin" in body


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    "headers",
    [
        ("Host: localhost",),
        ("Host: LOCALHOST:9001",),
        ("Host: localhost.",),
        ("Host: 127.0.0.1:1",),
        ("Host: [::1]",),
        ("Host: [::1]:8080", "Origin: http://[::1]:8080"),
        ("Host: 127.0.0.1:8080", "Origin: http://localhost:8080"),
        ("Host: localhost", "Origin: https://localhost"),
        ("Host: localhost:80", "Origin: http://localhost"),
    ],
    ids=" | ".join,
)
async def test_programs_and_own_pages_are_accepted(kind: str, headers: tuple[str, ...]) -> None:
    async with Server(port=0) as server:
        status, _, body = await ask(server, REQUESTS[kind](*headers))
    assert status == (101 if kind == "websocket" else 200), body


async def test_health_needs_no_host_or_origin_check() -> None:
    async with Server(port=0) as server:
        for path in ("/healthz", "/readyz"):
            assert (await ask(server, get(path, "Host: evil.example", f"Origin: {EVIL}")))[0] == 200


async def test_refusal_names_the_flag(caplog: pytest.LogCaptureFixture) -> None:
    async with Server(port=0) as server:
        _, _, by_host = await ask(server, get("/", "Host: mpreg.example:9001"))
        _, _, by_origin = await ask(server, post("Host: localhost", "Origin: https://App.example:443"))
        await ask(server, post("Host: localhost", "Origin: https://App.example:443"))
    assert "--allow-host mpreg.example" in by_host and "allow_hosts" in by_host
    assert "--allow-origin https://app.example " in by_origin and "allow_origins" in by_origin
    assert len([one for one in caplog.messages if "app.example" in one]) == 1


async def test_allowed_hosts_and_advertised_name_are_accepted() -> None:
    async with Server(port=0, allow_hosts=["Mpreg.Example:80"], advertise="ws://node.example:9001") as server:
        for host in ("mpreg.example", "mpreg.example:9001", "node.example"):
            assert (await ask(server, post(f"Host: {host}")))[0] == 200
            assert (await ask(server, post(f"Host: {host}", f"Origin: http://{host}")))[0] == 200
            assert (await ask(server, post(f"Host: {host}", f"Origin: {EVIL}")))[0] == 403
        assert (await ask(server, post("Host: other.example")))[0] == 403


async def test_allowed_origin_gets_its_preflight_and_the_answer() -> None:
    page = "http://localhost:3000"
    async with Server(port=0, allow_origins=["http://LOCALHOST:3000/", "https://app.example"]) as server:
        question = ("Host: localhost", f"Origin: {page}", "Access-Control-Request-Method: POST")
        wanted = ("Access-Control-Request-Headers: content-type",)
        status, headers, body = await ask(server, get("/rpc", *question, *wanted, method="OPTIONS"))
        assert (status, body) == (204, "")
        assert headers["access-control-allow-origin"] == page
        assert "post" in headers["access-control-allow-methods"]
        assert "content-type" in headers["access-control-allow-headers"]
        status, headers, _ = await ask(server, post("Host: localhost", f"Origin: {page}"))
        assert (status, headers["access-control-allow-origin"], headers["vary"]) == (200, page, "origin")
        foreign = ("Host: localhost", f"Origin: {EVIL}", "Access-Control-Request-Method: POST")
        status, headers, _ = await ask(server, get("/rpc", *foreign, method="OPTIONS"))
        assert status == 403 and "access-control-allow-origin" not in headers
        assert (await ask(server, post("Host: evil.example", f"Origin: {page}")))[0] == 403
        async with connect(server.url, origin=page) as socket:  # type: ignore[arg-type]
            await socket.send(BODY)
            assert json.loads(await socket.recv())["r"] == {"a": 1}


async def test_answers_carry_security_headers() -> None:
    async with Server(port=0) as server:
        for request in (get("/", "Host: localhost"), get("/", "Host: evil.example"), "NONSENSE\n\n"):
            _, headers, _ = await ask(server, request)
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-frame-options"] == "deny"
            assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_get_changes_nothing() -> None:
    async with Server(port=0) as server:
        assert (await ask(server, get("/rpc?role=rpc", "Host: localhost")))[0] == 405


async def test_websockets_clients_send_no_origin_and_are_served() -> None:
    async with Server(port=0) as server:
        async with connect(server.url) as socket:
            await socket.send(BODY)
            assert json.loads(await socket.recv())["r"] == {"a": 1}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(server.url, origin=EVIL):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 403
        assert b"--allow-origin http://evil.example" in (refused.value.response.body or b"")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make `node.example` and `balancer.example` resolve to this machine."""
    real = socket.getaddrinfo

    def resolve(host: object, *args: object, **more: object) -> object:
        known = host in ("node.example", "balancer.example", b"node.example", b"balancer.example")
        return real("127.0.0.1" if known else host, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield


async def test_native_clients_and_nodes_may_use_any_name(names: None) -> None:
    async with Server(port=0) as server:
        for name in ("node.example", "balancer.example"):
            url = f"ws://{name}:{server.port}"
            async with Client(url) as client:
                assert await client.call("echo", 1) == 1
            link = await Dialler(websocket_only=True)(url)  # type: ignore[arg-type]
            await link.close()
            with pytest.raises(InvalidStatus):
                async with connect(url, host="127.0.0.1"):  # uvloop uses a resolver of its own
                    pass


async def test_refused_client_gets_the_reason() -> None:
    async def refuse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            body = b"Host is not a name of this node"
            await stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body))
            await stream.send(body)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(LinkEnded, match="HTTP status 403: Host is not a name of this node"):
            await Dialler(websocket_only=True)(f"ws://127.0.0.1:{port}")  # type: ignore[arg-type]
        tasks.cancel_scope.cancel()


def own_address() -> str:
    """Return an address of this machine that is not loopback; the second loopback address where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


async def test_address_of_the_connection_is_accepted_as_host() -> None:
    host = own_address()
    async with Server(host="0.0.0.0", insecure=True, port=0) as server:
        assert (await ask(server, post(f"Host: {host}:{server.port}"), host=host))[0] == 200
        assert (await ask(server, post(f"Host: {host}", f"Origin: http://{host}"), host=host))[0] == 200
        assert (await ask(server, post("Host: 10.9.8.7"), host=host))[0] == 403
        assert (await ask(server, post("Host: evil.example"), host=host))[0] == 403


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"allow_hosts": "a"}, TypeError, 'allow_hosts=\\["a"\\]'),
        ({"allow_origins": "http://a"}, TypeError, "allow_origins"),
        ({"allow_hosts": ["http://a"]}, ValueError, "expected a name or a number"),
        ({"allow_origins": ["a"]}, ValueError, "expected http:// or https://"),
        ({"allow_origins": ["http://a/path"]}, ValueError, "is not an origin"),
    ],
)
def test_invalid_names_are_refused(arguments: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Server(**arguments)  # type: ignore[arg-type]
