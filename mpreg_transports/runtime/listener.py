"""One listening port for everything: raw frames, WebSocket and HTTP, told apart by the first byte.

Connections come from the system's socket; each becomes, in a task of its own, a `Link` given to `on_link` or HTTP
requests given to `on_http`. Nothing here knows what a link carries or what a path means, and nothing that one
connection does ends the listener.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskStatus

from mpreg_proto.errors import CloseCode
from mpreg_transports.background import running_loop, single_errors
from mpreg_transports.config.addresses import host_and_port, is_loopback, is_wildcard, normal_host
from mpreg_transports.functions.fork_safety import close_on_fork
from mpreg_transports.links import asyncio_stream, tcp, websocket
from mpreg_transports.links.base import MAX_MESSAGE, Link, LinkEnded
from mpreg_transports.links.http import HttpConnection, HttpRefused, HttpRequest, HttpResponse
from mpreg_transports.runtime import logs

__all__ = ["CannotListen", "HttpRequest", "HttpResponse", "Listener", "admit_all"]

FIRST_BYTES_SECONDS = 5.0
"""How long a new connection may take to say what it is. Reasonable: 2 to 10."""
KEEP_ALIVE_SECONDS = 75.0
"""How long an HTTP connection may idle between requests. Reasonable: longer than a browser's poll."""
ACCEPT_PAUSE_SECONDS = 0.05
"""The pause after each accept that failed in a row, 20 of them at most: out of files, trying at once helps nobody."""

_RAW = (0x00, 0x01)
_TLS = 0x16

log = logs.get(__name__)

OnLink = Callable[[Link], Awaitable[None]]
"""Runs a link until it ends; the listener closes it afterwards."""
OnHttp = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers one request."""
Admit = Callable[[HttpRequest], HttpResponse | None]
"""Judges a request by its head, WebSocket or not: None lets it in, a response refuses it."""


class CannotListen(OSError):
    """The port cannot be had; the text says why and what to do."""


def admit_all(request: HttpRequest) -> HttpResponse | None:
    """Let every request in. A node's checks of Host and Origin take this place (web/access.py)."""
    return None


class Listener:
    """A bound port; made by `bind`, run by `serve`, ended by `close`."""

    def __init__(self, listeners: list[SocketListener], host: str, admit: Admit = admit_all) -> None:
        self.host = host
        self._admit = admit
        self.port: int = listeners[0].extra(SocketAttribute.local_port)
        self._listeners = listeners
        for listener in listeners:
            if (listening := listener.extra(SocketAttribute.raw_socket, None)) is not None:
                close_on_fork(listening)
        self._accepting: dict[anyio.CancelScope, anyio.Event] = {}

    @classmethod
    async def bind(cls, host: str, port: int, *, admit: Admit = admit_all) -> Listener:
        """Listen on `host`; port 0 takes any free one, then `.port` tells which. Raises CannotListen.

        `admit` judges the head of each HTTP request and WebSocket handshake.
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
        return cls([one for one in bound.listeners if isinstance(one, SocketListener)], host, admit)

    async def serve(
        self,
        on_link: OnLink,
        on_http: OnHttp,
        *,
        max_message: int = MAX_MESSAGE,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take connections until `close`, then wait for those that are open; cancel it to end them too.

        `max_message`: bytes of the longest WebSocket message taken.
        """
        async with anyio.create_task_group() as tasks:

            def start(stream: ByteStream) -> None:
                tasks.start_soon(_Connection(stream, on_link, on_http, self._admit, max_message).run)

            for listener in self._listeners:
                tasks.start_soon(self._accept, listener, start)
            task_status.started()

    async def close(self) -> None:
        """Take no more connections, and free the port. Those that are open go on. Never raises."""
        # Nobody may wait for a socket that is closed: its number is free for the next connection at once.
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
    """Accept until cancelled or the listener is closed, whatever single connections or a lack of files do."""
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

    def __init__(self, stream: ByteStream, on_link: OnLink, on_http: OnHttp, admit: Admit, max_message: int) -> None:
        self._stream = stream
        self._on_link = on_link
        self._on_http = on_http
        self._admit = admit
        self._max_message = max_message
        self._peer = tcp.peer_name(stream)

    async def run(self) -> None:
        """Serve it. Raises nothing but cancellation."""
        try:
            await self._dispatch()
        except LinkEnded as end:
            log.debug("%s: %s", self._peer, end.reason)
        except Exception:
            log.exception("%s: a defect ended this connection", self._peer)
        finally:
            await tcp.hang_up(self._stream)

    async def _dispatch(self) -> None:
        """Find out what it is, and serve it; of an opening handshake nothing is kept while its link runs."""
        link = await self._link_or_http()
        if link is not None:
            await self._run_link(link)

    async def _link_or_http(self) -> Link | None:
        """The link that it is; None once it has been served as HTTP, or is nothing that can be served."""
        first = b""
        with anyio.move_on_after(FIRST_BYTES_SECONDS):
            try:
                first = await self._stream.receive(tcp.READ_SIZE)
            except tcp.BROKEN as error:
                raise tcp.to_link_ended(error) from None
        if not first:
            log.debug("%s: sent nothing for %g s, hung up", self._peer, FIRST_BYTES_SECONDS)
        elif first[0] in _RAW:
            return tcp.TcpLink(self._stream, received=first)
        elif first[:1].isalpha():
            return await self._http(first)
        elif first[0] == _TLS:
            log.warning("%s: speaks TLS, which is not configured here; hung up", self._peer)
        else:
            log.warning("%s: neither raw frames nor HTTP (first byte 0x%02x); hung up", self._peer, first[0])
        return None

    async def _run_link(self, link: Link) -> None:
        try:
            await self._on_link(link)
        except anyio.get_cancelled_exc_class():
            await link.close(CloseCode.GOING_AWAY)
            raise
        finally:
            await link.close()

    async def _http(self, first: bytes) -> Link | None:
        """Answer requests until the connection ends, or goes on as WebSocket."""
        http = HttpConnection(self._stream, peer=self._peer, received=first)
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
                    return await websocket.accept(
                        self._stream, request, received=http.trailing, max_message=self._max_message
                    )
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
        """The answer; None, and what was on its way is cancelled, if the peer hangs up before it is there."""
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
    """An address by which other machines reach this one, as the system's routes have it; sends nothing.

    `host` is where it listens: all addresses, or all of IPv4.
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
    """Why binding failed, and what to do about it."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return f"{tcp.describe_error(error)}; choose another with --host"
    advice = {
        errno.EADDRINUSE: "; choose another with --port, or 0 for any free one",
        errno.EACCES: "; choose a port from 1024 on with --port",
        errno.EADDRNOTAVAIL: "; this machine has no such address, choose another with --host",
    }.get(number or 0, "")
    return (os.strerror(number).lower() if number else tcp.describe_error(error)) + advice
