"""Opening a link to an address: which transport, which fallback.

A `ws://` address names where a node is, and its port serves everything, so nodes first try raw frames there, which cost
a tenth of WebSocket's. What answers with anything but a hello within a second is behind a proxy or is something else,
and gets WebSocket from then on for an hour. Clients take the scheme as it is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mpreg_proto.client import ClientSession, Ready
from mpreg_proto.effects import Framing, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT
from mpreg_transports.config.addresses import Address as Parsed
from mpreg_transports.config.addresses import Scheme, parse_address
from mpreg_transports.links import tcp, websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime.listener import OnHttp, OnLink

_TRY_SECONDS = 1.0
_REMEMBER_SECONDS = 3600.0
_REMEMBERED = 1024
"""Addresses of which it is remembered what they speak; of more the oldest are asked again."""


class LinkListener(Protocol):
    """Where a node takes links: a `Listener`, or one of a network that is not the system's."""

    async def serve(self, on_link: OnLink, on_http: OnHttp, *, max_message: int, task_status: TaskStatus[None]) -> None:
        """Take links until `close`; cancel it to end them too."""
        ...

    async def close(self) -> None:
        """Take no more. Never raises; the second call does nothing."""
        ...


class NetworkBackend(Protocol):
    """What one node or client has in place of the system's network: `Server(network=)`, `Client(network=)`.

    Its addresses are its own; nothing here reads them. See `mpreg_transports.testing.memory.cluster`.
    """

    url: str
    """Where the node is to be found."""

    def listen(self) -> LinkListener:
        """Be found there from now on. Raises OSError (CannotListen) if it cannot be."""
        ...

    async def dial(self, address: str) -> Link:
        """A link to `address`. Raises LinkEnded."""
        ...


async def open_link(address: str) -> Link:
    """A link to `address` by the scheme that it names. Raises LinkEnded."""
    parsed = _parsed(address)
    if parsed.scheme is Scheme.TCP:
        return await tcp.connect(parsed.host, parsed.port)
    if parsed.scheme is Scheme.WS:
        longest = DEFAULT.node_message  # what is longer than the core's own limit it refuses itself
        return await websocket.connect(parsed.host, parsed.port, path=parsed.path, max_message=longest)
    raise LinkEnded(f"cannot connect to {address}: TLS is not configured here")


def _parsed(address: str) -> Parsed:
    """An address that somebody told us; nonsense is a link that cannot be had. Raises LinkEnded."""
    try:
        return parse_address(address)
    except ValueError as error:
        raise LinkEnded(str(error)) from None


class Dialler:
    """How a node opens links. `websocket_only` skips the try with raw frames."""

    def __init__(self, *, websocket_only: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._websocket_only = websocket_only
        self._clock = clock
        self._raw: dict[str, tuple[bool, float]] = {}
        """Whether raw frames are spoken there, and until when that holds."""

    async def __call__(self, address: Address) -> Link:
        """A link to a node at `address`. Raises LinkEnded."""
        parsed = _parsed(address)
        if parsed.scheme is not Scheme.WS or self._websocket_only:
            return await open_link(address)
        if await self._speaks_raw(address, parsed):
            return await tcp.connect(parsed.host, parsed.port)
        return await open_link(address)

    async def _speaks_raw(self, address: Address, parsed: Parsed) -> bool:
        """Whether raw frames are spoken there, as remembered or found out now. Raises LinkEnded."""
        now = self._clock()
        speaks, until = self._raw.pop(address, (False, 0.0))
        if now >= until:
            speaks = await _answers_raw(parsed.host, parsed.port)
            now = self._clock()
            until = now + _REMEMBER_SECONDS
        self._raw.pop(address, None)  # another dial may have come first
        self._raw[address] = (speaks, until)
        for known in [known for known, (_, until) in self._raw.items() if until <= now]:
            del self._raw[known]
        while len(self._raw) > _REMEMBERED:
            del self._raw[next(iter(self._raw))]
        return speaks


async def _answers_raw(host: str, port: int) -> bool:
    """Whether raw frames get a hello there: asked as a client would, over a connection of its own. Raises LinkEnded."""
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
                if effects:  # it was hung up on: no hello
                    return False
    except LinkEnded:
        return False
    finally:
        await link.close()
    return False
