"""Randomness that is given in: seeded, with named child streams, the same on every Python.

Only `random.Random(seed).random()` is promised to stay the same across versions, so every draw is derived from it, and
this is the only module that imports `random`. What must not be guessed (ids, nonces) never comes from here but from
`entropy`, a function that the adapter gives in.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Entropy = Callable[[int], bytes]
"""`entropy(n)` gives n bytes that nobody can guess: `os.urandom` in production, a seeded stream in the simulator."""


class Rng:
    """One stream of draws. `child(name)` is another stream that depends on the seed and the name alone.

    So one more draw for one purpose does not shift the draws of any other.
    """

    __slots__ = ("_random", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed).random

    def child(self, name: str) -> Rng:
        """The stream for one purpose, such as `"placement"`."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=16).digest()
        return Rng(int.from_bytes(digest, "big"))

    def fraction(self) -> float:
        """0 <= x < 1."""
        return self._random()

    def below(self, bound: int) -> int:
        """An integer, 0 <= n < bound; `bound` at most 2**53."""
        return int(self._random() * bound)

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, which is not empty."""
        return items[int(self._random() * len(items))]
