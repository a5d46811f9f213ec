"""Every choice of a simulation goes through one chooser, so that a run can be repeated, recorded and shrunk.

A draw names its purpose, and each purpose has a stream of its own: one more draw for one thing does not shift all
others. Purposes that begin with `~` are the simulation's own: tests and generators draw under other names, so that a
replay, which does what they did without drawing it, finds the simulation's draws where they were. Three back ends: a
seed, a tape of an earlier run, or a hypothesis `data` object, which shrinks what it draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from mpreg_proto.rng import Rng

T = TypeVar("T")


class Source(Protocol):
    """Where draws come from."""

    def fraction(self, purpose: str) -> float:
        """0 <= x < 1."""
        ...


class Seeded:
    """Draws of a seed: the same on every Python and in every process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._root = Rng(seed)
        self._streams: dict[str, Rng] = {}

    def fraction(self, purpose: str) -> float:
        """The next draw of this purpose's stream."""
        stream = self._streams.get(purpose)
        if stream is None:
            stream = self._streams[purpose] = self._root.child(purpose)
        return stream.fraction()


class Tape:
    """The draws of an earlier run, by purpose; where it has no more, 0, the simplest draw there is."""

    def __init__(self, draws: Mapping[str, Sequence[float]]) -> None:
        self._draws = {purpose: iter(values) for purpose, values in draws.items()}

    def fraction(self, purpose: str) -> float:
        """The next draw that was recorded for this purpose."""
        values = self._draws.get(purpose)
        return 0.0 if values is None else next(values, 0.0)


class Hypothesis:
    """Draws of a hypothesis `data` object; each is an integer, so that hypothesis shrinks it towards 0."""

    def __init__(self, data: Any) -> None:
        from hypothesis import strategies

        self._data = data
        self._integers = strategies.integers(0, (1 << 30) - 1)

    def fraction(self, purpose: str) -> float:
        """A draw that hypothesis knows and shrinks."""
        drawn: int = self._data.draw(self._integers, label=purpose)
        return drawn / (1 << 30)


class Chooser:
    """Draws from one source, recorded on a tape if `record`."""

    def __init__(self, source: Source, *, record: bool = False) -> None:
        self.source = source
        self.recording = record
        self._fraction = source.fraction
        self.tape: dict[str, list[float]] = {}

    def fraction(self, purpose: str) -> float:
        """0 <= x < 1."""
        drawn = self._fraction(purpose)
        if self.recording:
            self.tape.setdefault(purpose, []).append(drawn)
        return drawn

    def below(self, purpose: str, bound: int) -> int:
        """An integer, 0 <= n < bound."""
        return int(self.fraction(purpose) * bound)

    def chance(self, purpose: str, probability: float) -> bool:
        """True with this probability; no draw is made for 0 and 1."""
        return probability > 0 and (probability >= 1 or self.fraction(purpose) < probability)

    def choice(self, purpose: str, items: Sequence[T]) -> T:
        """One of `items`, which is not empty."""
        return items[self.below(purpose, len(items))]

    def entropy(self, purpose: str, size: int) -> bytes:
        """`size` bytes, for ids that nobody needs to guess in a simulation."""
        return bytes(self.below(purpose, 256) for _ in range(size))
