"""Length-prefixed frames for byte streams: a 4-byte big-endian length, then the body.

Bytes come from a stream link in whatever pieces it received them; bodies go to the link's session
(docs/reference/messages.md). A frame is under 32 MiB, so its first byte is 0x00 or 0x01, which tells it from HTTP and
TLS. Never looks into a body, and never keeps memory that the peer has only announced: what is held is what has come.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

from mpreg_proto.errors import ErrorCode

_LENGTH: Final = Struct(">I")
_unpack_length = _LENGTH.unpack_from

LONGEST_FRAME: Final = (1 << 25) - 1
"""Longest body in bytes: the first byte of the prefix stays 0x00 or 0x01."""

# Below this a copy of the body costs less than a memoryview of it (measured: equal near 4 KiB).
_WORTH_SHARING: Final = 4096


class Framing(enum.Enum):
    """How bytes of a link become messages; the adapter says which when the link opens."""

    STREAM = "stream"
    """A byte stream: the core adds and removes length prefixes. The first body tells the dialect."""
    NATIVE_MESSAGES = "native"
    """WebSocket with subprotocol `mpreg.1`: one message a binary frame."""
    CLASSIC_MESSAGES = "classic"
    """WebSocket without it: the seed's JSON, one object a text frame."""
    OBJECTS = "objects"
    """Native messages that are never encoded: they come in by `handle` and go out in `Send.message` (the simulator)."""


class FrameError(Exception):
    """The stream is not a stream of frames, or a frame is too long. The reader that raised it is of no further use.

    `code` is 1000 (not a frame) or 1014 (over the limit), `text` says what came, `details` are those of an error 1014,
    `bodies` holds the bodies that the same data had completed before the fault.
    """

    def __init__(
        self,
        code: int,
        text: str,
        bodies: list[bytes | memoryview] | None = None,
        *,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details if details is not None else {}
        self.bodies: list[bytes | memoryview] = bodies if bodies is not None else []


def prefix(length: int) -> bytes:
    """The 4 bytes that go before a body of `length` bytes. Raises FrameError for one that no frame can hold."""
    if length > LONGEST_FRAME:
        raise FrameError(ErrorCode.LIMIT_EXCEEDED, f"frame of {length} bytes is over the limit of {LONGEST_FRAME}")
    return _LENGTH.pack(length)


class FrameReader:
    """Takes a stream's pieces, gives the bodies of its frames.

    `limit` is the longest body in bytes that is accepted; it may be changed at any time and counts for the frames whose
    length has not been read yet.
    """

    __slots__ = ("_buffer", "_dead", "_need", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # The frame that is not whole yet, prefix included, and how long `_buffer` must become to go on: the prefix, or
        # the frame. Grown by what comes, so that an announced length alone costs nothing.
        self._buffer = bytearray()
        self._need = 4
        self._dead: FrameError | None = None

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes | memoryview]:
        """The bodies that `data` completes, in order.

        A body is bytes, or for long ones a read-only memoryview; neither changes when the caller uses its buffer again.
        Raises FrameError at the first length that cannot be, before anything of that body is kept; the reader is then
        dead and raises the same fault, without bodies, for whatever comes.
        """
        if self._dead is not None:
            raise FrameError(self._dead.code, self._dead.text, details=self._dead.details)
        bodies: list[bytes | memoryview] = []
        try:
            position = self._complete(data, bodies) if self._buffer else 0
            if position < len(data):
                self._split(data, position, bodies)
        except FrameError as error:
            error.bodies = bodies
            self._dead = FrameError(error.code, error.text, details=error.details)
            self._buffer = bytearray()
            raise
        return bodies

    def _complete(self, data: bytes | bytearray | memoryview, bodies: list[bytes | memoryview]) -> int:
        """Add to the held frame; how many bytes of `data` were used. Each byte of a body is copied once, here."""
        view = memoryview(data)
        size, position, buffer = len(view), 0, self._buffer
        while True:
            taken = min(self._need - len(buffer), size - position)
            buffer += view[position : position + taken]
            position += taken
            if len(buffer) < self._need:
                return position
            if self._need > 4:
                break
            self._need = 4 + self._length(buffer, 0)
            if self._need == 4:
                break
        self._buffer = bytearray()
        self._need = 4
        body = memoryview(buffer)[4:]
        bodies.append(bytes(body) if len(body) < _WORTH_SHARING else body.toreadonly())
        return position

    def _split(self, data: bytes | bytearray | memoryview, position: int, bodies: list[bytes | memoryview]) -> None:
        """Take the whole frames out of `data` from `position` on, and hold what is left."""
        if type(data) is not bytes:  # its owner may fill it again
            data, position = bytes(data[position:]), 0
        size, limit = len(data), self.limit
        need = 4
        while size - position >= 4:
            (length,) = _unpack_length(data, position)
            if length > limit or length > LONGEST_FRAME:
                self._length(data, position)
            end = position + 4 + length
            if end > size:
                need = 4 + length
                break
            start = position + 4
            bodies.append(data[start:end] if length < _WORTH_SHARING else memoryview(data)[start:end])
            position = end
        if position < size:
            if data[position] > 1:  # said at the first byte, as three more may never come
                raise _no_frame(data[position])
            self._buffer += memoryview(data)[position:]
            self._need = need

    def _length(self, data: bytes | bytearray, position: int) -> int:
        """The length at `position`, or the FrameError that it deserves."""
        (length,) = _unpack_length(data, position)
        if length > LONGEST_FRAME:
            raise _no_frame(data[position])
        if length > self.limit:
            details: dict[str, object] = {"limit": "message", "value": self.limit, "came": length}
            raise FrameError(
                ErrorCode.LIMIT_EXCEEDED, f"frame of {length} bytes is over the limit of {self.limit}", details=details
            )
        return int(length)


def _no_frame(first: int) -> FrameError:
    return FrameError(ErrorCode.UNKNOWN_MESSAGE, f"first byte 0x{first:02x} is not a frame")
