"""Length-prefixed frames for byte streams: a 4-byte big-endian length, then the body.

Input: the bytes of a stream link, in pieces of any size. Output: bodies for the link's session
(docs/reference/messages.md). A frame is shorter than 32 MiB, so its first byte is 0x00 or 0x01, which distinguishes it
from HTTP and TLS. This module never reads a body. It allocates no memory for a length that the peer only announced: it
holds only bytes that have arrived.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

from mpreg_proto.errors import ErrorCode

_LENGTH: Final = Struct(">I")
_unpack_length = _LENGTH.unpack_from

LONGEST_FRAME: Final = (1 << 25) - 1
"""The longest body in bytes, so that the first byte of the prefix stays 0x00 or 0x01."""

# Below this a copy of the body costs less than a memoryview of it (measured: equal near 4 KiB).
_WORTH_SHARING: Final = 4096


class Framing(enum.Enum):
    """The form of messages on a link. The adapter chooses it when the link opens."""

    STREAM = "stream"
    """A byte stream: the core adds and removes length prefixes. The first body determines the dialect."""
    NATIVE_MESSAGES = "native"
    """WebSocket with subprotocol `mpreg.1`: one message in each binary frame."""
    CLASSIC_MESSAGES = "classic"
    """WebSocket without this subprotocol: JSON of the seed project, one object in each text frame."""
    OBJECTS = "objects"
    """Native messages that are never encoded: they enter by `handle` and leave in `Send.message` (the simulator)."""


class FrameError(Exception):
    """The stream is not a stream of frames, or a frame is too long. The reader that raised it cannot be used again.

    `code` is 1000 (not a frame) or 1014 (over the limit). `text` describes what came. `details` are those of error
    1014. `bodies` holds the bodies that the same data had completed before the fault.
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
        self.details: dict[str, object] = details if details is not None else {}
        self.bodies: list[bytes | memoryview] = bodies if bodies is not None else []


def prefix(length: int) -> bytes:
    """Return the 4 bytes that precede a body of `length` bytes. Raises FrameError for one that no frame can hold."""
    if length > LONGEST_FRAME:
        raise FrameError(ErrorCode.LIMIT_EXCEEDED, f"frame of {length} bytes is over the limit of {LONGEST_FRAME}")
    return _LENGTH.pack(length)


class FrameReader:
    """A reader that takes the pieces of a stream and returns the bodies of its frames.

    `limit` is the longest accepted body in bytes. It may change at any time, and applies to frames whose length has not
    been read yet.
    """

    __slots__ = ("_buffer", "_dead", "_need", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        # The incomplete frame, prefix included, and the length that `_buffer` must reach next: that of the prefix, or
        # of the frame. It grows only by bytes that arrive, so that an announced length alone costs nothing.
        self._buffer = bytearray()
        self._need = 4
        self._dead: FrameError | None = None

    @property
    def buffered(self) -> int:
        """The number of bytes held of an incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes | memoryview]:
        """Return the bodies that `data` completes, in order.

        A body is bytes, or a read-only memoryview if it is long; neither changes when the caller reuses its buffer.
        Raises FrameError at the first invalid length, before it keeps anything of that body. From then on the reader
        raises the same fault, without bodies, for all data.
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
        """Add to the held frame; return how many bytes of `data` it took. Each byte of a body is copied once, here."""
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
        """Take the whole frames out of `data` from `position` on, and hold the rest."""
        if type(data) is not bytes:  # its owner may reuse it
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
            if data[position] > 1:  # raised at the first byte, as three more may never come
                raise _no_frame(data[position])
            self._buffer += memoryview(data)[position:]
            self._need = need

    def _length(self, data: bytes | bytearray, position: int) -> int:
        """Return the length at `position`. Raises FrameError if it is invalid or over the limit."""
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
