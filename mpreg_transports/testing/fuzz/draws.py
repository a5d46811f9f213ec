"""Bytes as a source of choices, for targets whose input is not bytes: operations, graphs, claims.

A reader like libFuzzer's FuzzedDataProvider: it reads the input from the front, so that a mutated byte changes one
choice, and returns zeros after the end. It never raises for an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """One reading of an input."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """True while the input is not used up."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """Return 0 to 255."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def below(self, bound: int) -> int:
        """Return 0 <= n < bound, from one byte, or from two for bounds beyond 256."""
        drawn = self.byte() if bound <= 256 else self.byte() << 8 | self.byte()
        return drawn % bound

    def chance(self, one_in: int) -> bool:
        """Return True once in so many draws; False after the end of the input."""
        return self.below(one_in) == one_in - 1

    def integer(self) -> int:
        """Return mostly a small integer, sometimes one at the limits of wire integers, sometimes any of 64 bits."""
        kind = self.byte()
        if kind < 200:
            return kind % 8
        if kind < 230:
            return _BORDERS[kind % len(_BORDERS)]
        return int.from_bytes(self.take(8), "big", signed=True)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of `items`, which is not empty."""
        return items[self.below(len(items))]

    def take(self, most: int) -> bytes:
        """Return the next bytes of the input, at most `most`."""
        found = self._data[self._at : self._at + most]
        self._at += most
        return found

    def piece(self, longest: int = 255) -> bytes:
        """Return bytes of a drawn length."""
        return self.take(self.below(longest + 1))

    def text(self, longest: int = 12) -> str:
        """Return text of any characters except surrogates."""
        return self.piece(longest).decode("utf-8", "replace")

    def rest(self) -> bytes:
        """Return all unused bytes."""
        return self.take(max(0, len(self._data) - self._at))

    def order(self, items: Sequence[T]) -> list[T]:
        """Return `items` in a drawn order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]


_BORDERS = (-1, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
