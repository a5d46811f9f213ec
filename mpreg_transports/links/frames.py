"""WebSocket data frames, written: RFC 6455 section 5.2 for whole messages.

wsproto parses what comes in and writes control frames; it copies a payload four times on its way out, which a large
message notices, so whole data frames are written here. Messages go in, pieces for the socket come out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from mpreg_transports.links.base import Buffer

TEXT = 0x1
BINARY = 0x2
"""Opcodes (section 5.2)."""

_FINAL = 0x80
_MASKED = 0x80
# One table a byte value: a stride of the payload is masked by one translate, some ten times faster than a loop.
_XOR = tuple(bytes(value ^ key for value in range(256)) for key in range(256))


def plain_frames(messages: Iterable[tuple[int, Buffer]]) -> list[Buffer]:
    """A server's frames for (opcode, payload) pairs: heads and payloads in turn, the payloads not copied."""
    pieces: list[Buffer] = []
    for opcode, payload in messages:
        pieces.append(_head(opcode, len(payload), mask_bit=0))
        pieces.append(payload)
    return pieces


def masked_frames(messages: Iterable[tuple[int, Buffer]]) -> list[Buffer]:
    """A client's frames, each masked with a key of its own from the system (section 5.3)."""
    pieces: list[Buffer] = []
    for opcode, payload in messages:
        key = os.urandom(4)
        pieces.append(_head(opcode, len(payload), mask_bit=_MASKED) + key)
        pieces.append(_masked(payload, key))
    return pieces


def _head(opcode: int, length: int, *, mask_bit: int) -> bytes:
    if length < 126:
        return bytes((_FINAL | opcode, mask_bit | length))
    if length < 0x10000:
        return struct.pack("!BBH", _FINAL | opcode, mask_bit | 126, length)
    return struct.pack("!BBQ", _FINAL | opcode, mask_bit | 127, length)


def _masked(payload: Buffer, key: bytes) -> bytearray:
    """The payload with byte i xored with byte i mod 4 of the key."""
    masked = bytearray(payload)
    for offset in range(4):
        masked[offset::4] = masked[offset::4].translate(_XOR[key[offset]])
    return masked
