"""Deterministic randomness: seeded, with named child streams, the same on every Python.

Python promises only that `random.Random(seed).random()` stays the same across versions. So every draw derives from it,
and only this module imports `random`. Values that must not be guessed (ids, nonces) never come from here, but from
`entropy`, a function that the adapter passes in.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Entropy = Callable[[int], bytes]
"""`entropy(n)` returns n bytes that nobody can guess: `os.urandom` in production, a seeded stream in the simulator."""


class Rng:
    """One stream of draws. `child(name)` is another stream, which depends only on the seed and the name.

    So one more draw for one purpose does not shift the draws for another.
    """

    __slots__ = ("_random", "seed")

    def __init__(self, seed: int) -> None:
        self.seed: int = seed
        self._random = random.Random(seed).random

    def child(self, name: str) -> Rng:
        """Return the stream for one purpose, such as `"placement"`."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=16).digest()
        return Rng(int.from_bytes(digest, "big"))

    def fraction(self) -> float:
        """Return a number, 0 <= x < 1."""
        return self._random()

    def below(self, bound: int) -> int:
        """Return an integer, 0 <= n < bound; `bound` at most 2**53."""
        return int(self._random() * bound)

    def choice(self, items: Sequence[T]) -> T:
        """Return one of `items`, which must not be empty."""
        return items[int(self._random() * len(items))]
