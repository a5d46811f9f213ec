"""The responses of each HTTP path.

No GET changes state; `POST /rpc` takes the classic dialect, so `curl` is a client.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from mpreg_proto.errors import ErrorCode
from mpreg_proto.view import NodeView
from mpreg_proto.wire.handshake import NOT_AUTHENTICATED, Authentication
from mpreg_transports.links.http import HttpRequest, HttpResponse
from mpreg_transports.web.access import OPEN_PATHS, Access

_READY_AFTER = 10.0
"""The seconds after which a node is ready even if no seed has answered."""

_STATUS: dict[int, int] = {
    ErrorCode.UNKNOWN_MESSAGE: 400,
    ErrorCode.COMMAND_NOT_FOUND: 404,
    ErrorCode.INVALID_ROLE: 400,
    ErrorCode.CLUSTER_MISMATCH: 400,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.DRAINING: 503,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
}


class _Error(msgspec.Struct):
    code: int
    details: dict[str, object] = {}


class _ClassicReply(msgspec.Struct):
    r: msgspec.Raw
    error: _Error | None = None


class HttpRoutes:
    """The HTTP responses of one node. `exchange` sends one classic message to the core and returns its reply.

    `access` decides which pages of other origins may read the responses; requests that it refuses do not arrive here.
    """

    def __init__(
        self,
        view: Callable[[], NodeView],
        exchange: Callable[[bytes, str, Authentication], Awaitable[bytes]],
        access: Access | None = None,
    ) -> None:
        self._access = access or Access()
        self._view = view
        self._exchange = exchange
        self._started = time.monotonic()

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Return the response to any request."""
        response = await self._respond(request)
        cors = self._access.cors(request)
        return replace(response, headers=(*response.headers, *cors)) if cors else response

    async def _respond(self, request: HttpRequest) -> HttpResponse:
        methods = _ROUTES.get(request.path)
        if methods is None:
            paths = ", ".join(_ROUTES)
            return HttpResponse.text(404, f"nothing here; there are {paths}")
        method = "GET" if request.method == "HEAD" else request.method
        handler = methods.get(method)
        if handler is None:
            return HttpResponse.text(405, f"{request.path} takes {', '.join(methods)}", ("allow", ", ".join(methods)))
        if request.verdict is Authentication.NONE and request.path not in (*OPEN_PATHS, "/rpc"):
            return HttpResponse.text(401, NOT_AUTHENTICATED.message)  # /rpc has an answer of its own, in JSON
        return await handler(self, request)

    async def _index(self, request: HttpRequest) -> HttpResponse:
        view = self._view()
        return HttpResponse.text(
            200,
            f"mpreg node {view.shown}, cluster {view.cluster}\n"
            "GET /healthz, GET /readyz, GET /api/status, POST /rpc; WebSocket on any path",
        )

    async def _health(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.text(200, "ok")

    async def _ready(self, request: HttpRequest) -> HttpResponse:
        view = self._view()
        if view.draining:
            return HttpResponse.text(503, "draining")
        if not view.synced and time.monotonic() - self._started < _READY_AFTER:
            return HttpResponse.text(503, "no seed has answered yet")
        return HttpResponse.text(200, "ready")

    async def _api_status(self, request: HttpRequest) -> HttpResponse:
        return _json(200, msgspec.json.encode(self._view()))

    async def _rpc(self, request: HttpRequest) -> HttpResponse:
        host = request.peer.rpartition(":")[0]  # without the port, which differs for each connection
        body = await self._exchange(request.body, host, request.verdict)
        answer = msgspec.json.decode(body, type=_ClassicReply)
        error = answer.error
        if error is None or bytes(answer.r) != b"null":
            return _json(200, body)
        status = (
            400 if ErrorCode.INVALID_REQUEST <= error.code <= ErrorCode.LIMIT_EXCEEDED else _STATUS.get(error.code, 500)
        )
        if status != 503:
            return _json(status, body)
        after = error.details.get("retry_after")
        seconds = max(1, round(after)) if isinstance(after, (int, float)) else 1
        return _json(status, body, ("retry-after", str(seconds)))


def _json(status: int, body: bytes, *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, (("content-type", "application/json"), *headers), body)


Handler = Callable[[HttpRoutes, HttpRequest], Awaitable[HttpResponse]]
_ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": HttpRoutes._index},
    "/healthz": {"GET": HttpRoutes._health},
    "/readyz": {"GET": HttpRoutes._ready},
    "/api/status": {"GET": HttpRoutes._api_status},
    "/rpc": {"POST": HttpRoutes._rpc},
}
