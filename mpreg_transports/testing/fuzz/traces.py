"""Conversations as one input: the output of one side, piece by piece, so that a mutation can change any of it.

A trace is a sequence of steps, each a kind, a two-byte length and so many bytes. The corpus holds the output of real
nodes and clients (make_corpus.py); a mutated trace is still a trace, whatever its bytes are.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

LONGEST = 65_535


class TraceStep(enum.IntEnum):
    """The next step of a trace."""

    SAY = 0
    """The bytes arrive."""
    WAIT = 1
    """Time passes; the first byte is the number of tenths of a second."""
    CLOSE = 2
    """The link closes, and a new one opens."""
    ACT = 3
    """An action of the target; the bytes select it."""


def packed(steps: Iterable[tuple[TraceStep, bytes]]) -> bytes:
    """Return a trace as bytes. A step longer than LONGEST becomes several."""
    rows = bytearray()
    for step, data in steps:
        for start in range(0, max(1, len(data)), LONGEST):
            part = data[start : start + LONGEST]
            rows += bytes([step]) + len(part).to_bytes(2, "big") + part
    return bytes(rows)


def unpacked(data: bytes) -> Iterator[tuple[TraceStep, bytes]]:
    """Yield the steps of any bytes; the last one may be cut short."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield TraceStep(data[at] % len(TraceStep)), data[at + 3 : at + 3 + length]
        at += 3 + length
