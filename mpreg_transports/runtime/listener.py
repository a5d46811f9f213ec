"""One listening port for raw frames, WebSocket and HTTP, distinguished by the first byte; the same within TLS.

Connections come from the system's socket. Each has a task of its own, which passes a `Link` to `on_link` or HTTP
requests to `on_http`. With TLS, nothing is served in plain text, and each link and request has the verdict on its peer.
This module does not interpret paths or the bytes of a link, and no single connection can end the listener.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskStatus

from mpreg_proto.errors import CloseCode, ErrorCode, Fault
from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.dialects import encode
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import Authentication
from mpreg_proto.wire.messages import Refused
from mpreg_transports.background import running_loop, single_errors
from mpreg_transports.config.addresses import host_and_port, is_loopback, is_wildcard, normal_host
from mpreg_transports.config.system_errors import lower_first
from mpreg_transports.functions.fork_safety import close_on_fork
from mpreg_transports.links import asyncio_stream, tcp, websocket
from mpreg_transports.links.base import MAX_MESSAGE, Link, LinkEnded
from mpreg_transports.links.http import HttpConnection, HttpRefused, HttpRequest, HttpResponse
from mpreg_transports.links.tls import HANDSHAKE_SECONDS, is_denial, secure
from mpreg_transports.runtime import logs

__all__ = ["CannotListen", "HttpRequest", "HttpResponse", "Listener", "admit_all"]

FIRST_BYTES_SECONDS = 5.0
"""The seconds within which a new connection must send its first bytes. Reasonable: 2 to 10."""
KEEP_ALIVE_SECONDS = 75.0
"""The seconds for which an HTTP connection may idle between requests. Reasonable: longer than a browser's poll."""
ACCEPT_PAUSE_SECONDS = 0.05
"""The pause after each accept that failed in a row, 20 of them at most: without free files a retry fails too."""

_RAW = (0x00, 0x01)
_TLS = 0x16
_TLS_ONLY = "this node serves TLS only"

log: logs.NodeLog = logs.get(__name__)

OnLink = Callable[[Link], Awaitable[None]]
"""Runs a link until it ends; the listener closes it afterwards."""
OnHttp = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers one request."""
Admit = Callable[[HttpRequest], HttpResponse | None]
"""Checks a request by its head, WebSocket or not: None admits it, a response refuses it."""


class ServerTls(Protocol):
    """The TLS of a node; `Credentials` is one."""

    @property
    def listening(self) -> ssl.SSLContext:
        """The context of accepted connections."""

    def verdict(self, certificate: dict[str, Any] | None) -> Authentication:
        """Return the verdict on a peer with this certificate, as `SSLObject.getpeercert` returns it."""


class CannotListen(OSError):
    """The port is not available. The text gives the reason and what to do."""


def admit_all(request: HttpRequest) -> HttpResponse | None:
    """Admit every request. A node uses its checks of Host and Origin instead (web/access.py)."""
    return None


class Listener:
    """A bound port: created by `bind`, run by `serve`, ended by `close`."""

    def __init__(
        self, listeners: list[SocketListener], host: str, admit: Admit = admit_all, tls: ServerTls | None = None
    ) -> None:
        self.host = host
        self._admit = admit
        self._tls = tls
        self.port: int = listeners[0].extra(SocketAttribute.local_port)
        self._listeners = listeners
        for listener in listeners:
            if (listening := listener.extra(SocketAttribute.raw_socket, None)) is not None:
                close_on_fork(listening)
        self._accepting: dict[anyio.CancelScope, anyio.Event] = {}

    @classmethod
    async def bind(cls, host: str, port: int, *, admit: Admit = admit_all, tls: ServerTls | None = None) -> Listener:
        """Listen on `host`. Port 0 takes any free port, which `.port` then holds. Raises CannotListen.

        `admit` checks the head of each HTTP request and WebSocket handshake. With `tls` nothing else is served.
        """
        if not 0 <= port <= 65_535:
            advice = "a port is a number from 0 to 65535; choose another with --port"
            raise CannotListen(f"cannot listen on {host_and_port(host, port)}: {advice}")
        try:
            # `::` takes IPv4 too, where the system can: a node learns its address from links of either kind.
            where = None if normal_host(host) in ("", "::") else normal_host(host)
            bound = await anyio.create_tcp_listener(local_host=where, local_port=port)
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"cannot listen on {host_and_port(host, port)}: {_bind_failure(error)}") from None
        return cls([one for one in bound.listeners if isinstance(one, SocketListener)], host, admit, tls)

    async def serve(
        self,
        on_link: OnLink,
        on_http: OnHttp,
        *,
        max_message: int = MAX_MESSAGE,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until `close`, then wait for the open ones. To end those too, cancel it.

        `max_message`: the longest WebSocket message that is accepted, in bytes.
        """
        async with anyio.create_task_group() as tasks:

            def start(stream: ByteStream) -> None:
                tasks.start_soon(_Connection(stream, on_link, on_http, self._admit, max_message, self._tls).run)

            for listener in self._listeners:
                tasks.start_soon(self._accept, listener, start)
            task_status.started()

    async def close(self) -> None:
        """Accept no more connections, and free the port. Open connections go on. Never raises."""
        # No task may wait for a closed socket: its number is free for the next connection at once.
        accepting, self._accepting = self._accepting, {}
        for scope, ended in accepting.items():
            scope.cancel()
            await ended.wait()
        for listener in self._listeners:
            await listener.aclose()

    async def _accept(self, listener: SocketListener, start: Callable[[ByteStream], None]) -> None:
        ended = anyio.Event()
        try:
            with anyio.CancelScope() as scope:
                self._accepting[scope] = ended
                await _accept(listener, start)
        finally:
            ended.set()


async def _next(listener: SocketListener) -> ByteStream:
    listening: socket.socket | None = listener.extra(SocketAttribute.raw_socket, None)
    if running_loop() is None or listening is None:
        stream = await listener.accept()
        if (connected := stream.extra(SocketAttribute.raw_socket, None)) is not None:
            close_on_fork(connected)
        return stream
    if listening.fileno() < 0:
        raise anyio.ClosedResourceError
    return await asyncio_stream.accept(listening)


async def _accept(listener: SocketListener, start: Callable[[ByteStream], None]) -> None:
    """Accept until cancelled or the listener is closed. Failed connections or a lack of files do not end it."""
    failures = 0
    while True:
        try:
            stream = await _next(listener)
            tcp.tune(stream)
        except anyio.ClosedResourceError:
            return
        except (OSError, anyio.BrokenResourceError) as error:
            failures += 1
            if failures == 1:
                log.warning("cannot accept connections, going on trying: %s", tcp.describe_error(error))
            await anyio.sleep(ACCEPT_PAUSE_SECONDS * min(failures, 20))
            continue
        if failures:
            log.warning("accepting connections again after %d failures", failures)
            failures = 0
        start(stream)


class _Connection:
    """One accepted connection, from its first byte to its end."""

    def __init__(
        self,
        stream: ByteStream,
        on_link: OnLink,
        on_http: OnHttp,
        admit: Admit,
        max_message: int,
        tls: ServerTls | None = None,
    ) -> None:
        self._stream = stream
        self._tls = tls
        self._verdict = Authentication.NODE
        self._on_link = on_link
        self._on_http = on_http
        self._admit = admit
        self._max_message = max_message
        self._peer = tcp.peer_name(stream)

    async def run(self) -> None:
        """Serve the connection. Raises nothing but cancellation."""
        try:
            await self._dispatch()
        except LinkEnded as end:
            log.debug("%s: %s", self._peer, end.reason)
        except Exception:
            log.exception("%s: a defect ended this connection", self._peer)
        finally:
            await tcp.hang_up(self._stream)

    async def _dispatch(self) -> None:
        """Detect the protocol and serve it. While a link runs, nothing of its opening handshake is kept in memory."""
        link = await self._link_or_http()
        if link is not None:
            await self._run_link(link)

    async def _link_or_http(self) -> Link | None:
        """Return the link; None if the connection was served as HTTP or cannot be served."""
        first = await self._first_bytes()
        if self._tls is not None and first:
            if first[0] != _TLS:
                await self._refuse_plain_text(first)
                return None
            await self._secure(self._tls, first)
            first = await self._first_bytes()
        if not first:
            log.debug("%s: sent nothing for %g s, hung up", self._peer, FIRST_BYTES_SECONDS)
        elif first[0] in _RAW:
            return self._with_verdict(tcp.TcpLink(self._stream, received=first))
        elif first[:1].isalpha():
            return await self._http(first)
        elif first[0] == _TLS:
            log.warning("%s: speaks TLS, which is not configured here; hung up", self._peer)
        else:
            log.warning("%s: neither raw frames nor HTTP (first byte 0x%02x); hung up", self._peer, first[0])
        return None

    async def _first_bytes(self) -> bytes:
        """Return the first bytes; none if the peer sends none in time. Raises LinkEnded."""
        with anyio.move_on_after(FIRST_BYTES_SECONDS):
            try:
                return await self._stream.receive(tcp.READ_SIZE)
            except tcp.BROKEN as error:
                raise tcp.to_link_ended(error) from None
        return b""

    def _with_verdict(self, link: Link) -> Link:
        link.verdict = self._verdict
        return link

    async def _secure(self, tls: ServerTls, first: bytes) -> None:
        """Do the TLS handshake, and go on inside it. Raises LinkEnded."""
        try:
            self._stream = stream = await secure(self._stream, tls.listening, server_side=True, received=first)
        except TimeoutError:
            raise LinkEnded(f"no TLS handshake within {HANDSHAKE_SECONDS:g} s") from None
        except tcp.BROKEN as error:
            await tcp.linger(self._stream)  # so that the peer reads the alert
            reason = tcp.describe_error(error)
            if is_denial(error):
                log.warning("refused %s: %s", self._peer, reason)
            raise LinkEnded(f"TLS handshake: {reason}") from None
        self._verdict = tls.verdict(stream.peer_certificate)
        if self._verdict is Authentication.NONE:
            self._max_message = min(self._max_message, DEFAULT.unauthenticated)

    async def _refuse_plain_text(self, first: bytes) -> None:
        """Say in the peer's protocol, as far as there is one for it, that only TLS is served here."""
        log.warning("refused %s: it speaks plain text, and this node serves TLS only", self._peer)
        if first[:1].isalpha():
            http = HttpConnection(self._stream, peer=self._peer, received=first)
            await http.refuse(HttpResponse.text(400, f"{_TLS_ONLY}: use https:// or wss://"))
        elif first[0] in _RAW:
            fault = Fault(ErrorCode.UNAUTHENTICATED, f"{_TLS_ONLY}: use wss:// or tls://")
            body = encode(Refused(fault))
            await tcp.write_all(self._stream, prefix(len(body)) + body)
            await tcp.linger(self._stream)

    async def _run_link(self, link: Link) -> None:
        try:
            await self._on_link(link)
        except anyio.get_cancelled_exc_class():
            await link.close(CloseCode.GOING_AWAY)
            raise
        finally:
            await link.close()

    async def _http(self, first: bytes) -> Link | None:
        """Answer requests until the connection ends or becomes a WebSocket."""
        http = HttpConnection(self._stream, peer=self._peer, received=first, verdict=self._verdict)
        seconds = FIRST_BYTES_SECONDS
        try:
            while True:
                head = await http.head(seconds=seconds)
                if head is None:
                    return None
                refusal = self._admit(head)
                if refusal is not None:
                    raise HttpRefused(refusal)
                request = await http.body(head)
                if request.asks_for_websocket():
                    link = await websocket.accept(
                        self._stream, request, received=http.trailing, max_message=self._max_message
                    )
                    return self._with_verdict(link)
                await self._answer(http, request)
                if not http.start_next_cycle():
                    return None
                seconds = KEEP_ALIVE_SECONDS
        except HttpRefused as refused:
            await http.refuse(refused.response)
            return None

    async def _answer(self, http: HttpConnection, request: HttpRequest) -> None:
        try:
            response = await self._respond_while_connected(http, request)
            if response is None:
                raise LinkEnded("the peer hung up before its answer", clean=True)
            await http.respond(response)
        except LinkEnded:
            raise
        except Exception:
            log.exception("%s: a defect while answering %s %s", self._peer, request.method, request.path)
            raise HttpRefused(HttpResponse.text(500, "internal error")) from None

    async def _respond_while_connected(self, http: HttpConnection, request: HttpRequest) -> HttpResponse | None:
        """Return the response. If the peer hangs up before it is ready, cancel the work and return None."""
        response: HttpResponse | None = None
        with single_errors():
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    await http.wait_closed()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                response = await self._on_http(request)
                tasks.cancel_scope.cancel()
        return response


def own_address(host: str) -> str | None:
    """Return an address by which other machines reach this one, according to the system's routes; sends nothing.

    `host` is the listening address: all addresses, or all of IPv4.
    """
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, RFC 3849
        if family == socket.AF_INET6 and normal_host(host) == "0.0.0.0":
            break
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 9))
            found = str(probe.getsockname()[0])
            if not is_loopback(found) and not is_wildcard(found):
                return found
    return None


def _bind_failure(error: BaseException) -> str:
    """Return why binding failed, and what to do."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return f"{tcp.describe_error(error)}; choose another with --host"
    advice = {
        errno.EADDRINUSE: "; choose another with --port, or 0 for any free one",
        errno.EACCES: "; choose a port from 1024 on with --port",
        errno.EADDRNOTAVAIL: "; this machine has no such address, choose another with --host",
    }.get(number or 0, "")
    return (lower_first(os.strerror(number)) if number else tcp.describe_error(error)) + advice
