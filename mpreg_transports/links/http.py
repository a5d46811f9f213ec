"""HTTP/1.1 requests from a byte stream and their responses: by h11, with keep-alive.

The listener receives an `HttpRequest` (or an `HttpRefused` that contains the response) and returns an `HttpResponse`.
This module does not interpret paths. Heads, bodies and waiting times are all bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus

import anyio
import h11
from anyio.abc import ByteStream

from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.links import tcp
from mpreg_transports.links.base import LinkEnded

MAX_HEAD = 16 * 1024
"""The bytes of the longest request head."""
MAX_HEADERS = 64
MAX_BODY = 16 * 1024 * 1024
"""The bytes of the longest request body; above that the response is 413."""
BODY_SECONDS = 60.0
"""The seconds within which the body of a request must arrive. Reasonable: 16 MiB over a slow line."""

_READ_SIZE = 64 * 1024
_WITHOUT_BODY = (204, 304)
_SECURITY = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("content-security-policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
"""The headers of every response without its own.

A browser runs no scripts of it, shows it in no frame, guesses no type and stores nothing.
"""
# The connection itself sets these headers; one of a response could contradict its body.
_OURS = ("connection", "content-length", "transfer-encoding", "date")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    `headers` are in order, names in lower case; `path` and `query` are as sent, still percent-encoded.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    peer: str = ""
    version: str = "1.1"
    local: str = ""
    """The address of this machine at which the connection arrived, empty where that is not known."""
    verdict: Authentication = Authentication.NODE
    """The verdict on the peer, by what it has proved."""

    @property
    def target(self) -> str:
        """The path and query as they were in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        """Return the value of a header, several of one name joined by commas; None if there is none."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None

    def asks_for_websocket(self) -> bool:
        """Return whether it requests an upgrade to WebSocket (RFC 6455 section 4.1).

        `websocket.accept` validates it.
        """
        upgrades = (self.header("upgrade") or "").lower().split(",")
        return self.version != "1.0" and any(one.strip() == "websocket" for one in upgrades)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response. Length, date and connection headers are added when it is written."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""

    @classmethod
    def text(cls, status: int, text: str, *headers: tuple[str, str]) -> HttpResponse:
        """Return a response of one line of plain text."""
        return cls(status, (("content-type", "text/plain; charset=utf-8"), *headers), text.encode() + b"\n")


class HttpRefused(Exception):
    """A request that is refused; `response` gives the reason. The connection ends after it."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f"HTTP {response.status}")
        self.response = response


class HttpConnection:
    """The server's end of one connection: head, body, response, then the next request."""

    def __init__(
        self,
        stream: ByteStream,
        *,
        peer: str,
        received: bytes = b"",
        verdict: Authentication = Authentication.NODE,
    ) -> None:
        self._stream = stream
        self._verdict = verdict
        self._max_body = MAX_BODY if verdict is not Authentication.NONE else DEFAULT.unauthenticated
        self._local = tcp.local_host(stream) or ""
        self._peer = peer
        self._method = b""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        if received:
            self._h11.receive_data(received)

    @property
    def trailing(self) -> bytes:
        """The bytes that were read after the request, for a connection that changes its protocol."""
        return bytes(self._h11.trailing_data[0])

    async def head(self, *, seconds: float) -> HttpRequest | None:
        """Return the next request without its body; None if the peer sends none within `seconds` or hangs up.

        Raises HttpRefused and LinkEnded.
        """
        event: object = None
        with anyio.move_on_after(seconds):
            event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
        if size > MAX_HEAD or len(event.headers) > MAX_HEADERS:
            raise HttpRefused(
                HttpResponse.text(431, f"a request may have {MAX_HEADERS} headers and {MAX_HEAD} bytes of them")
            )
        path, _, query = event.target.decode("latin-1").partition("?")
        return HttpRequest(
            method=event.method.decode("latin-1"),
            path=path,
            query=query,
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers),
            peer=self._peer,
            version=event.http_version.decode("latin-1"),
            local=self._local,
            verdict=self._verdict,
        )

    async def body(self, head: HttpRequest) -> HttpRequest:
        """Return the request with its body. Raises HttpRefused (413, 408, 400) and LinkEnded."""
        declared = head.header("content-length")
        if declared is not None and int(declared) > self._max_body:  # h11 has checked that it is a number
            raise _too_large(self._max_body)
        body = bytearray()
        with anyio.move_on_after(BODY_SECONDS):
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    raise LinkEnded("the peer hung up in the middle of a request")
                body += event.data
                if len(body) > self._max_body:
                    raise _too_large(self._max_body)
            return replace(head, body=bytes(body)) if body else head
        raise HttpRefused(HttpResponse.text(408, f"the body did not come within {BODY_SECONDS:g} s"))

    async def wait_closed(self) -> None:
        """Wait until the peer hangs up. Bytes that it sends before are kept for the next request. May be cancelled."""
        kept = 0
        while kept < MAX_HEAD:  # beyond that its next requests wait in the socket
            try:
                data = await self._stream.receive(_READ_SIZE)
            except tcp.BROKEN:
                return
            kept += len(data)
            self._h11.receive_data(data)
        await anyio.sleep_forever()

    async def respond(self, response: HttpResponse) -> None:
        """Write a response in one write; to HEAD without its body.

        Raises LinkEnded, and ValueError for an invalid header.
        """
        try:
            data = self._response(response)
        except h11.LocalProtocolError as error:
            raise ValueError(f"not a response that HTTP allows: {error}") from None
        await self._write(data)

    async def refuse(self, response: HttpResponse) -> None:
        """Write a response after which the connection ends, and let the peer read it. Never raises."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        try:
            await self._write(self._response(response, ("connection", "close")))
        except LinkEnded:
            return
        await tcp.linger(self._stream)

    def start_next_cycle(self) -> bool:
        """Return whether another request may follow, and prepare for it."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _response(self, response: HttpResponse, *more: tuple[str, str]) -> bytes:
        headers = [(name, value) for name, value in response.headers if name.lower() not in _OURS]
        given = [name.lower() for name, _ in headers]
        headers += [(name, value) for name, value in _SECURITY if name not in given]
        headers += [("date", formatdate(usegmt=True)), *more]
        body = b"" if response.status in _WITHOUT_BODY else response.body
        if response.status not in _WITHOUT_BODY:
            headers.append(("content-length", str(len(body))))
        start = h11.Response(status_code=response.status, headers=headers, reason=_phrase(response.status))
        parts = [self._h11.send(start)]
        if body and self._method != b"HEAD":
            parts.append(self._h11.send(h11.Data(data=body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    async def _write(self, data: bytes) -> None:
        await tcp.write_all(self._stream, data)

    async def _event(self) -> object:
        """Return the next event of h11; read as long as it needs more data."""
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    go_on = self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
                    await self._write(go_on or b"")
                try:
                    data = await self._stream.receive(_READ_SIZE)
                except anyio.EndOfStream:
                    data = b""  # the end of the stream for h11
                except tcp.BROKEN as error:
                    raise tcp.to_link_ended(error) from None
                self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise HttpRefused(HttpResponse.text(error.error_status_hint, f"bad request: {error}")) from None
        return event


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _too_large(most: int) -> HttpRefused:
    return HttpRefused(HttpResponse.text(413, f"a body may have {most} bytes"))
