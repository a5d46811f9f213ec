"""Write WebSocket data frames: RFC 6455 sections 5.2 and 5.4.

wsproto parses received frames and writes control frames. It copies a sent payload four times, which is slow for large
messages, so data frames are written here. The input is messages, the output is frames for the socket. A long message is
cut into several frames, so that pings and pongs need not wait for its end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from mpreg_transports.links.base import Buffer

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
"""The opcodes (section 5.2)."""
WHOLE = 1024 * 1024
"""The payload bytes of the longest message that is one frame."""
FRAGMENT = 128 * 1024
"""The payload bytes of one frame of a longer message: the most that a pong waits for.

Reasonable: what a socket takes.
"""

_FINAL = 0x80
_MASKED = 0x80
# One table for each byte value: one translate masks every fourth byte of the payload, about ten times faster than a
# loop.
_XOR = tuple(bytes(value ^ key for value in range(256)) for key in range(256))


def plain_frames(messages: Iterable[tuple[int, Buffer]]) -> Iterator[tuple[Buffer, Buffer]]:
    """Yield a server's frames for (opcode, payload) pairs: head and payload of each, the payloads not copied."""
    for opcode, final, payload in _fragments(messages):
        yield _head(opcode | final, len(payload), mask_bit=0), payload


def masked_frames(messages: Iterable[tuple[int, Buffer]]) -> Iterator[tuple[Buffer, Buffer]]:
    """Yield a client's frames, each masked with a key of its own from the system (section 5.3)."""
    for opcode, final, payload in _fragments(messages):
        key = os.urandom(4)
        yield _head(opcode | final, len(payload), mask_bit=_MASKED) + key, _masked(payload, key)


def _fragments(messages: Iterable[tuple[int, Buffer]]) -> Iterator[tuple[int, int, Buffer]]:
    """Yield (opcode, FIN bit, payload) of each frame."""
    for opcode, payload in messages:
        if len(payload) <= WHOLE:
            yield opcode, _FINAL, payload
            continue
        view = memoryview(payload)
        for start in range(0, len(view), FRAGMENT):
            final = _FINAL if start + FRAGMENT >= len(view) else 0
            yield opcode if start == 0 else CONTINUATION, final, view[start : start + FRAGMENT]


def _head(first: int, length: int, *, mask_bit: int) -> bytes:
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 0x10000:
        return struct.pack("!BBH", first, mask_bit | 126, length)
    return struct.pack("!BBQ", first, mask_bit | 127, length)


def _masked(payload: Buffer, key: bytes) -> bytearray:
    """Return the payload with byte i xored with byte i mod 4 of the key."""
    masked = bytearray(payload)
    for offset in range(4):
        masked[offset::4] = masked[offset::4].translate(_XOR[key[offset]])
    return masked
