"""Open a link to an address: the choice of the transport and its fallback.

A `ws://` address states where a node is, and the node's port serves every protocol. So nodes first try raw frames
there, which cost a tenth of WebSocket. If no hello comes within one second, the peer is behind a proxy or is another
program, and for the next hour nodes use WebSocket there. Clients use the scheme of the address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mpreg_proto.client import ClientSession, Ready
from mpreg_proto.effects import Framing, Send
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT
from mpreg_transports.config.addresses import Address as Parsed
from mpreg_transports.config.addresses import Scheme, host_and_port, parse_address
from mpreg_transports.links import tcp, websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime.listener import OnHttp, OnLink

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


async def open_link(address: str) -> Link:
    """Open a link to `address` with the transport of its scheme. Raises LinkEnded."""
    parsed = _parsed(address)
    if parsed.scheme is Scheme.TCP:
        return await tcp.connect(parsed.host, parsed.port)
    if parsed.scheme is Scheme.WS:
        longest = DEFAULT.node_message  # the core itself refuses messages above its own limit
        link = await websocket.connect(parsed.host, parsed.port, path=parsed.path, max_message=longest)
        if link.framing is Framing.NATIVE_MESSAGES:
            return link
        await link.close(CloseCode.PROTOCOL_ERROR)
        raise LinkEnded(
            f"{host_and_port(parsed.host, parsed.port)} accepts WebSocket without the subprotocol "
            f"{websocket.SUBPROTOCOL}: it is no mpreg node, or a proxy removes Sec-WebSocket-Protocol"
        )
    raise LinkEnded(f"cannot connect to {address}: TLS is not configured here")


def _parsed(address: str) -> Parsed:
    """Parse an address that another node or a user gave. Raises LinkEnded for an invalid one."""
    try:
        return parse_address(address)
    except ValueError as error:
        raise LinkEnded(str(error)) from None


class Dialler:
    """The function by which a node opens links. `websocket_only` skips the attempt with raw frames."""

    def __init__(self, *, websocket_only: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._websocket_only = websocket_only
        self._clock = clock
        self._raw: dict[str, tuple[bool, float]] = {}
        """For each address: True if it accepts raw frames, and the time until which that is valid."""

    async def __call__(self, address: Address) -> Link:
        """Open a link to a node at `address`. Raises LinkEnded."""
        parsed = _parsed(address)
        if parsed.scheme is not Scheme.WS or self._websocket_only:
            return await open_link(address)
        if await self._speaks_raw(address, parsed):
            return await tcp.connect(parsed.host, parsed.port)
        return await open_link(address)

    async def _speaks_raw(self, address: Address, parsed: Parsed) -> bool:
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
    link = await tcp.connect(host, port)
    try:
        session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address(""), now=0)
        await link.send([chunk for effect in session.drain() if isinstance(effect, Send) for chunk in effect.chunks])
        with anyio.move_on_after(_TRY_SECONDS):
            while True:
                for data in await link.receive():
                    session.receive(LinkId(1), data, now=0)
                effects = session.drain()
                if any(isinstance(effect, Ready) for effect in effects):
                    return True
                if effects:  # the session closed the link: no hello
                    return False
    except LinkEnded:
        return False
    finally:
        await link.close()
    return False
