"""Open a link to an address: the choice of the transport and its fallback.

A `ws://` address states where a node is, and the node's port serves every protocol. So nodes first try raw frames
there, which cost a tenth of WebSocket. If no hello comes within one second, the peer is behind a proxy or is another
program, and for the next hour nodes use WebSocket there. Clients use the scheme of the address.

With the secret of a cluster only TLS is dialled, and the peer's certificate proves that it is a node: so nodes use raw
frames in TLS at once. Without a secret `wss://` and `tls://` verify the peer by the authorities of the system.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mpreg_proto.client import ClientSession, Ready, Rejected
from mpreg_proto.effects import Framing, Send
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address as NodeAddress
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import DEFAULT
from mpreg_transports.config.addresses import Address, Scheme, host_and_port, parse_address
from mpreg_transports.links import tcp, websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime import logs
from mpreg_transports.runtime.listener import OnHttp, OnLink

log: logs.NodeLog = logs.get(__name__)

_TRY_SECONDS = 1.0
_REMEMBER_SECONDS = 3600.0
_REMEMBERED = 1024
"""Addresses whose protocol is remembered; beyond that the oldest ones are tried again."""


class LinkListener(Protocol):
    """The source of a node's incoming links: a `Listener`, or the listener of a network that is not the system's."""

    async def serve(self, on_link: OnLink, on_http: OnHttp, *, max_message: int, task_status: TaskStatus[None]) -> None:
        """Accept links until `close`. To end the open links too, cancel it."""
        ...

    async def close(self) -> None:
        """Accept no more links. Never raises; a second call does nothing."""
        ...


class NetworkBackend(Protocol):
    """The replacement of the system's network, clock and randomness for one node or client.

    It is an argument of both: `Server(network=)`, `Client(network=)`.

    Its addresses are its own; nothing here reads them. See `mpreg_transports.testing.memory.cluster`.
    """

    url: str
    """The address of the node."""

    def listen(self) -> LinkListener:
        """Start to accept links at `url`. Raises OSError (CannotListen) if that is not possible."""
        ...

    async def dial(self, address: str) -> Link:
        """Open a link to `address`. Raises LinkEnded."""
        ...

    def clock(self) -> int:
        """Return the time in nanoseconds; the timers of the event loop must agree with it."""
        ...

    def entropy(self, size: int) -> bytes:
        """Return random bytes for ids and jitter."""
        ...


class ClientTls(Protocol):
    """The TLS of a node or client with a secret; `Credentials` is one."""

    @property
    def dialling(self) -> ssl.SSLContext:
        """The context of dialled connections."""


async def open_link(address: str, tls: ClientTls | None = None) -> Link:
    """Open a link to `address` with the transport of its scheme. Raises LinkEnded."""
    parsed = _parsed(address)
    context = _context(parsed, tls)
    try:
        if not parsed.scheme.is_websocket:
            return await tcp.connect(parsed.host, parsed.port, tls=context)
        longest = DEFAULT.node_message  # the core itself refuses messages above its own limit
        link = await websocket.connect(parsed.host, parsed.port, tls=context, path=parsed.path, max_message=longest)
    except LinkEnded as end:
        raise _explained(end, tls) from None
    if link.framing is Framing.NATIVE_MESSAGES:
        return link
    await link.close(CloseCode.PROTOCOL_ERROR)
    raise LinkEnded(
        f"{host_and_port(parsed.host, parsed.port)} accepts WebSocket without the subprotocol "
        f"{websocket.SUBPROTOCOL}: it is no mpreg node, or a proxy removes Sec-WebSocket-Protocol"
    )


def _context(parsed: Address, tls: ClientTls | None) -> ssl.SSLContext | None:
    """Return the TLS context for an address, None for plain text. Raises LinkEnded for plain text with a secret."""
    if tls is not None and not parsed.scheme.is_tls:
        where = host_and_port(parsed.host, parsed.port)
        advice = f"write {parsed.scheme.with_tls.value}://{where}"
        raise LinkEnded(f"cannot connect to {where}: {parsed.scheme.value}:// is plain text; with a secret {advice}")
    if not parsed.scheme.is_tls:
        return None
    return _system_context() if tls is None else tls.dialling


@cache
def _system_context() -> ssl.SSLContext:
    """Return a context that verifies hosts by the authorities of the system (or of SSL_CERT_FILE)."""
    return ssl.create_default_context()


def _explained(end: LinkEnded, tls: ClientTls | None) -> LinkEnded:
    """Add the likely cause to the end of a link whose certificate was not accepted."""
    if not end.denied:
        return end
    cause = "if it has a secret, give that" if tls is None else "it has another secret or cluster id"
    return LinkEnded(f"{end.reason}; {cause}", denied=True)


def _parsed(address: str) -> Address:
    """Parse an address that another node or a user gave. Raises LinkEnded for an invalid one."""
    try:
        return parse_address(address)
    except ValueError as error:
        raise LinkEnded(str(error)) from None


class Dialler:
    """The function by which a node opens links. `websocket_only` skips the attempt with raw frames.

    `tls` is that of a node with a secret.
    """

    def __init__(
        self, *, websocket_only: bool, tls: ClientTls | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._websocket_only = websocket_only
        self._tls = tls
        self._denied: dict[str, None] = {}
        """Addresses whose last dial ended because a certificate was not accepted: logged once."""
        self._clock = clock
        self._raw: dict[str, tuple[bool, float]] = {}
        """For each address: True if it accepts raw frames, and the time until which that is valid."""

    async def __call__(self, address: NodeAddress) -> Link:
        """Open a link to a node at `address`. Raises LinkEnded."""
        parsed = _parsed(address)
        if self._tls is not None:
            return await self._open_secured(address, parsed, self._tls)
        if parsed.scheme is not Scheme.WS or self._websocket_only:
            return await open_link(address)
        if await self._speaks_raw(address, parsed):
            return await tcp.connect(parsed.host, parsed.port)
        return await open_link(address)

    async def _open_secured(self, address: str, parsed: Address, tls: ClientTls) -> Link:
        """Open a link in TLS, with raw frames unless only WebSocket is wanted. Raises LinkEnded."""
        if parsed.scheme is Scheme.WSS and not self._websocket_only:
            address = str(Address(Scheme.TLS, parsed.host, parsed.port))
        try:
            link = await open_link(address, tls)
        except LinkEnded as end:
            if end.denied and address not in self._denied:
                log.warning("%s: %s", address, end.reason)
                self._denied[address] = None
                while len(self._denied) > _REMEMBERED:
                    del self._denied[next(iter(self._denied))]
            raise
        self._denied.pop(address, None)
        return link

    async def _speaks_raw(self, address: NodeAddress, parsed: Address) -> bool:
        """Return whether the peer accepts raw frames, from memory or by a new attempt. Raises LinkEnded."""
        now = self._clock()
        speaks, until = self._raw.pop(address, (False, 0.0))
        if now >= until:
            speaks = await _answers_raw(parsed.host, parsed.port)
            now = self._clock()
            until = now + _REMEMBER_SECONDS
        self._raw.pop(address, None)  # another dial may have been faster
        self._raw[address] = (speaks, until)
        for known in [known for known, (_, until) in self._raw.items() if until <= now]:
            del self._raw[known]
        while len(self._raw) > _REMEMBERED:
            del self._raw[next(iter(self._raw))]
        return speaks


async def _answers_raw(host: str, port: int) -> bool:
    """Return whether raw frames get a hello, by a client's handshake over a separate connection. Raises LinkEnded."""
    session = ClientSession(cluster_id="")
    refusal: LinkEnded | None = None
    link = await tcp.connect(host, port)
    try:
        session.link_opened(LinkId(1), framing=Framing.STREAM, address=NodeAddress(""), now=0)
        await link.send([chunk for effect in session.drain() if isinstance(effect, Send) for chunk in effect.chunks])
        with anyio.move_on_after(_TRY_SECONDS):
            while True:
                for data in await link.receive():
                    session.receive(LinkId(1), data, now=0)
                effects = session.drain()
                for effect in effects:
                    if isinstance(effect, Rejected):  # so it does speak raw frames, and the link would end as this one
                        refusal = LinkEnded(effect.fault.message)
                if refusal is not None:
                    break
                if any(isinstance(effect, Ready) for effect in effects):
                    return True
                if effects:  # the session closed the link: no hello
                    return False
    except LinkEnded:
        return False
    finally:
        await link.close()
    if refusal is not None:
        raise refusal
    return False
