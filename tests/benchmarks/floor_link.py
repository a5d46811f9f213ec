"""The floor's link: an `asyncio.Protocol` with 4-byte big-endian lengths and MessagePack, and nothing else.

A request is `[id, function, args]`, its answer `[id, result]`; either end may ask. Answers go to callbacks. There are
no tasks, no timeouts, no errors and no flow control: whatever a real system adds shows as its ratio to this. What is
done well here is done because it costs nothing: all messages of one receive are read before one write for each link.
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
    """One connection. `unsent` is shared by all links of a process: those with messages to write before it sleeps."""

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
        """Tell the one who waits, as nothing else would."""
        self.on_loss()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def call(self, function: str, args: list[Any], answered: Answered) -> None:
        """Ask the other end; the request leaves with the next `flush_all`."""
        self._asked += 1
        self._waiting[self._asked] = answered
        self._put([self._asked, function, args])

    def answer(self, number: int, result: object) -> None:
        """Answer request `number` of the other end; leaves with the next `flush_all`."""
        self._put([number, result])

    def _put(self, message: list[Any]) -> None:
        body = _pack(message)
        if not self._out:
            self._unsent.append(self)
        self._out.append(_LENGTH.pack(len(body)))
        self._out.append(body)

    def flush_all(self) -> None:
        """Write what the links of this process have gathered, once for each."""
        for link in self._unsent:
            link._transport.write(b"".join(link._out))
            link._out.clear()
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Read every whole message of what has come, then write."""
        if not self._rest:
            end = self._read(data)
            if end < len(data):
                self._rest += data[end:]
        else:
            self._rest += data
            # A large message comes in many pieces: nothing to look at before all of it is there.
            if len(self._rest) >= self._lacking:
                del self._rest[: self._read(self._rest)]
        self.flush_all()

    def _read(self, data: bytes | bytearray) -> int:
        """Handle the whole messages in `data`; returns where the rest begins, and notes its full length."""
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
