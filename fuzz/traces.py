"""Conversations as one input: what one side said, piece by piece, so that a mutation can hit any of it.

A trace is a row of steps, each a kind, a two-byte length and so many bytes. The corpus holds what real nodes and
clients said to each other (make_corpus.py); a mutated trace is still a trace, whatever its bytes are.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

LONGEST = 65_535


class Step(enum.IntEnum):
    """What happens next."""

    SAY = 0
    """These bytes arrive."""
    WAIT = 1
    """So many tenths of a second pass as the first byte says."""
    CLOSE = 2
    """The link breaks, and a new one is opened."""
    ACT = 3
    """Something of the target's own; the bytes say what."""


def packed(steps: Iterable[tuple[Step, bytes]]) -> bytes:
    """A trace as bytes. A step longer than LONGEST goes as several."""
    rows = bytearray()
    for step, data in steps:
        for start in range(0, max(1, len(data)), LONGEST):
            part = data[start : start + LONGEST]
            rows += bytes([step]) + len(part).to_bytes(2, "big") + part
    return bytes(rows)


def unpacked(data: bytes) -> Iterator[tuple[Step, bytes]]:
    """The steps of any bytes at all; the last one may be cut short."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield Step(data[at] % len(Step)), data[at + 3 : at + 3 + length]
        at += 3 + length
