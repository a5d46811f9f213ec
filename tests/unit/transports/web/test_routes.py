"""The HTTP routes: methods, the status of each error code, when to try again, and readiness."""

import json
from typing import Any

import msgspec
import pytest

from mpreg_proto.config import NodeConfig
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import MemberId
from mpreg_proto.node import Node
from mpreg_proto.rng import Rng
from mpreg_proto.view import NodeView
from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.links.http import HttpRequest, HttpResponse
from mpreg_transports.web import routes
from mpreg_transports.web.routes import HttpRoutes

pytestmark = pytest.mark.anyio

STATUS = {1001: 404, 1020: 504, 1022: 503, 1024: 503, 1030: 401, 1031: 403}
"""Statuses of single codes (docs/howto/call-from-json.md); nothing gives the last one yet."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def node(*seeds: str) -> Node:
    return Node(NodeConfig(seeds=seeds), me=MemberId(b"m" * 16), rng=Rng(0), entropy=bytes, now=0)


def serving(answer: Any = None, *seeds: str, draining: bool = False) -> HttpRoutes:
    """Return the routes of a node that answers each classic message with `answer`."""
    one = node(*seeds)
    one._machines.draining = draining

    async def exchange(body: bytes, host: str, verdict: Authentication) -> bytes:
        return json.dumps(answer).encode()

    return HttpRoutes(lambda: one.view(now=0), exchange)


@pytest.mark.parametrize(
    ("peer", "host"), [("10.0.0.1:5000", "10.0.0.1"), ("[::1]:5000", "[::1]"), ("unknown", ""), ("", "")]
)
async def test_host_of_a_request(peer: str, host: str) -> None:
    hosts: list[str] = []

    async def exchange(body: bytes, host: str, verdict: Authentication) -> bytes:
        hosts.append(host)
        return b'{"r":{},"error":null,"u":""}'

    routes = HttpRoutes(lambda: node().view(now=0), exchange)
    await routes(HttpRequest("POST", "/rpc", "", (), b"{}", peer))
    assert hosts == [host]


async def rpc(answer: Any) -> HttpResponse:
    return await serving(answer)(HttpRequest("POST", "/rpc", "", (), b"{}"))


async def get(path: str, of: HttpRoutes, method: str = "GET") -> HttpResponse:
    return await of(HttpRequest(method, path, "", (), b""))


def failed(code: int, **details: object) -> dict[str, object]:
    return {"r": None, "error": {"code": code, "message": "no", "details": details}, "u": ""}


def retry_after(response: HttpResponse) -> str | None:
    return dict(response.headers).get("retry-after")


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
async def test_status_of_an_error_without_results(code: ErrorCode) -> None:
    expected = STATUS.get(code, 400 if 1010 <= code <= 1014 or code in (1000, 1004, 1005) else 500)
    response = await rpc(failed(code))
    assert response.status == expected
    assert json.loads(bytes(response.body))["error"]["code"] == code
    assert dict(response.headers)["content-type"] == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        {"r": {"x": 1}, "error": None, "u": ""},
        {"r": None, "error": None, "u": ""},
        {**failed(1003), "r": {}},
        {**failed(1003), "r": {"x": 1}},
    ],
)
async def test_status_of_an_answer_with_results(answer: dict[str, object]) -> None:
    response = await rpc(answer)
    assert (response.status, json.loads(bytes(response.body)), retry_after(response)) == (200, answer, None)


@pytest.mark.parametrize("code", [ErrorCode.OVERLOADED, ErrorCode.DRAINING])
@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ({}, "1"),
        ({"retry_after": 0.2}, "1"),
        ({"retry_after": 0}, "1"),
        ({"retry_after": 2.6}, "3"),
        ({"retry_after": 30}, "30"),
        ({"retry_after": "soon"}, "1"),
        ({"retry_after": None}, "1"),
    ],
)
async def test_whole_seconds_until_a_refused_request_may_be_repeated(
    code: ErrorCode, details: dict[str, object], seconds: str
) -> None:
    assert retry_after(await rpc(failed(code, **details))) == seconds


async def test_no_time_to_repeat_what_would_fail_again() -> None:
    assert retry_after(await rpc(failed(1001, retry_after=5))) is None


async def test_unknown_path_and_method() -> None:
    of = serving()
    missing = await get("/nothing", of)
    assert missing.status == 404 and b"/rpc" in bytes(missing.body)
    for path, method, allowed in (("/rpc", "GET", "POST"), ("/healthz", "POST", "GET"), ("/", "DELETE", "GET")):
        refused = await get(path, of, method)
        assert (refused.status, dict(refused.headers)["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/api/status"])
async def test_head_is_answered_like_get(path: str) -> None:
    of = serving()
    assert (await get(path, of, "HEAD")).status == (await get(path, of)).status == 200


async def test_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await get("/readyz", serving(None, "ws://seed:1", draining=True))).status == 503
    assert (await get("/readyz", serving(draining=True))).status == 503
    joining = serving(None, "ws://seed:1")
    assert ((await get("/readyz", joining)).status, (await get("/healthz", joining)).status) == (503, 200)
    monkeypatch.setattr(routes, "_READY_AFTER", 0.0)
    assert (await get("/readyz", joining)).status == 200, "no seed has answered for long"


async def test_status_is_the_view() -> None:
    status = await get("/api/status", serving())
    assert msgspec.json.decode(bytes(status.body), type=NodeView) == node().view(now=0)


async def test_paths_for_a_sender_that_has_proved_nothing() -> None:
    one, verdicts = node(), []

    async def exchange(body: bytes, host: str, verdict: Authentication) -> bytes:
        verdicts.append(verdict)
        return json.dumps(failed(1030)).encode()

    of = HttpRoutes(lambda: one.view(now=0), exchange)
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/", 401), ("/api/status", 401)):
        response = await of(HttpRequest("GET", path, verdict=Authentication.NONE))
        assert response.status == status
        assert status == 200 or bytes(response.body).startswith(b"this node serves only those who prove the secret")
        assert (await of(HttpRequest("GET", path, verdict=Authentication.CLIENT))).status == 200
    response = await of(HttpRequest("POST", "/rpc", body=b"{}", verdict=Authentication.NONE))
    assert (response.status, verdicts) == (401, [Authentication.NONE])
    assert json.loads(bytes(response.body))["error"]["code"] == 1030
