"""The floor's link: an `asyncio.Protocol` with 4-byte big-endian lengths and MessagePack, and nothing else.

A request is `[id, function, args]`, its answer `[id, result]`; either end may send one. Answers go to callbacks. There
are no tasks, no timeouts, no errors and no flow control, so all that a real system adds is visible in its ratio to
this. The link includes only optimizations without a cost: it reads all messages of one receive before one write for
each link.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, cast

import msgpack

Answered = Callable[[Any], None]
Serve = Callable[["FloorLink", int, str, list[Any]], None]

_LENGTH = struct.Struct(">I")
_pack = cast(Callable[[object], bytes], msgpack.Packer().pack)
_unpack = cast(Callable[[object], list[Any]], msgpack.unpackb)


class FloorLink(asyncio.Protocol):
    """One connection. `unsent` is shared by all links of a process: the links with unsent messages."""

    def __init__(self, serve: Serve, unsent: "list[FloorLink]") -> None:
        self._serve = serve
        self._unsent = unsent
        self._out: list[bytes] = []
        self._rest = bytearray()
        self._lacking = 0
        self._asked = 0
        self._waiting: dict[int, Answered] = {}
        self._transport: asyncio.Transport
        self.on_loss: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio has already switched Nagle's algorithm off."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Call `on_loss`, because nothing else reports the end to the caller."""
        self.on_loss()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def call(self, function: str, args: list[Any], answered: Answered) -> None:
        """Call a function of the other end; the request leaves with the next `flush_all`."""
        self._asked += 1
        self._waiting[self._asked] = answered
        self._put([self._asked, function, args])

    def answer(self, number: int, result: object) -> None:
        """Answer request `number` of the other end; the answer leaves with the next `flush_all`."""
        self._put([number, result])

    def _put(self, message: list[Any]) -> None:
        body = _pack(message)
        if not self._out:
            self._unsent.append(self)
        self._out.append(_LENGTH.pack(len(body)))
        self._out.append(body)

    def flush_all(self) -> None:
        """Write the collected messages of the links of this process, once for each link."""
        for link in self._unsent:
            link._transport.write(b"".join(link._out))
            link._out.clear()
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Read every complete message of the received data, then write."""
        if not self._rest:
            end = self._read(data)
            if end < len(data):
                self._rest += data[end:]
        else:
            self._rest += data
            # A large message comes in many pieces: read nothing before it is complete.
            if len(self._rest) >= self._lacking:
                del self._rest[: self._read(self._rest)]
        self.flush_all()

    def _read(self, data: bytes | bytearray) -> int:
        """Handle the complete messages in `data`; return the start of the rest, and store its full length."""
        start, size = 0, len(data)
        with memoryview(data) as view:
            while start + 4 <= size:
                end = start + 4 + _LENGTH.unpack_from(data, start)[0]
                if end > size:
                    self._lacking = end - start
                    return start
                message = _unpack(view[start + 4 : end])
                start = end
                if len(message) == 2:
                    self._waiting.pop(message[0])(message[1])
                else:
                    self._serve(self, message[0], message[1], message[2])
        self._lacking = 4
        return start
