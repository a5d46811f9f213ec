"""The random choices of a simulation. All go through one chooser, so that a run can be repeated, recorded and shrunk.

A draw has a purpose, and each purpose has a random stream of its own: one more draw for one purpose does not shift the
draws of others. Purposes that begin with `~` belong to the simulation itself. Tests and generators draw under other
names, so that a replay, which repeats their actions without their draws, gets the same draws for the simulation. There
are three back ends: a seed, a tape of an earlier run, or a hypothesis `data` object, which shrinks its draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from mpreg_proto.rng import Rng

T = TypeVar("T")


class Source(Protocol):
    """A source of draws."""

    def fraction(self, purpose: str) -> float:
        """Return a number, 0 <= x < 1."""
        ...


class Seeded:
    """Draws from a seed: the same on every Python version and in every process."""

    def __init__(self, seed: int) -> None:
        if type(seed) is not int:
            raise TypeError(f"seed={seed!r:.60}: expected a whole number, got {type(seed).__name__}")
        self.seed = seed
        self._root = Rng(seed)
        self._streams: dict[str, Rng] = {}

    def fraction(self, purpose: str) -> float:
        """Return the next draw of the stream of this purpose."""
        stream = self._streams.get(purpose)
        if stream is None:
            stream = self._streams[purpose] = self._root.child(purpose)
        return stream.fraction()


class Tape:
    """The draws of an earlier run, by purpose. After the last recorded draw each draw is 0, the simplest one."""

    def __init__(self, draws: Mapping[str, Sequence[float]]) -> None:
        self._draws = {purpose: iter(values) for purpose, values in draws.items()}

    def fraction(self, purpose: str) -> float:
        """Return the next recorded draw of this purpose."""
        values = self._draws.get(purpose)
        return 0.0 if values is None else next(values, 0.0)


class Hypothesis:
    """Draws of a hypothesis `data` object. Each is an integer, so that hypothesis shrinks it towards 0."""

    def __init__(self, data: Any) -> None:
        from hypothesis import strategies

        self._data = data
        self._integers = strategies.integers(0, (1 << 30) - 1)

    def fraction(self, purpose: str) -> float:
        """Return a draw that hypothesis can shrink."""
        drawn: int = self._data.draw(self._integers, label=purpose)
        return drawn / (1 << 30)


class Chooser:
    """Draws from one source, recorded on a tape if `record`."""

    def __init__(self, source: Source, *, record: bool = False) -> None:
        if not hasattr(source, "fraction"):
            raise TypeError(f"source={source!r:.60}: expected Seeded(7), Tape(...) or Hypothesis(data)")
        self.source = source
        self.recording = record
        self._fraction = source.fraction
        self.tape: dict[str, list[float]] = {}

    def fraction(self, purpose: str) -> float:
        """Return a number, 0 <= x < 1."""
        drawn = self._fraction(purpose)
        if self.recording:
            self.tape.setdefault(purpose, []).append(drawn)
        return drawn

    def below(self, purpose: str, bound: int) -> int:
        """Return an integer, 0 <= n < bound."""
        return int(self.fraction(purpose) * bound)

    def chance(self, purpose: str, probability: float) -> bool:
        """Return True with this probability; 0 and 1 use no draw."""
        return probability > 0 and (probability >= 1 or self.fraction(purpose) < probability)

    def choice(self, purpose: str, items: Sequence[T]) -> T:
        """Return one of `items`, which must not be empty."""
        return items[self.below(purpose, len(items))]

    def entropy(self, purpose: str, size: int) -> bytes:
        """Return `size` bytes for ids. In a simulation they need not be hard to guess."""
        return bytes(self.below(purpose, 256) for _ in range(size))
