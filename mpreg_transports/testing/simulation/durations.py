"""Spans of time that are drawn: how long a link delays, how long a function takes.

Seconds outside, nanoseconds inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

SECOND = 1_000_000_000


class Duration(msgspec.Struct, frozen=True, array_like=True):
    """A distribution: `kind` is constant, uniform or exponential; `low` and `high` are nanoseconds (exponential:
    shift, mean).
    """

    kind: str
    low: int
    high: int

    def draw(self, fraction: Callable[[str], float], purpose: str) -> int:
        """One span in nanoseconds; a constant makes no draw."""
        if self.kind == "constant":
            return self.low
        drawn = fraction(purpose)
        if self.kind == "uniform":
            return self.low + int(drawn * (self.high - self.low))
        return self.low + int(-math.log1p(-drawn) * self.high)


def constant(seconds: float) -> Duration:
    """Always this long."""
    return Duration("constant", round(seconds * SECOND), 0)


def uniform(least: float, most: float) -> Duration:
    """Anything between, alike."""
    return Duration("uniform", round(least * SECOND), round(most * SECOND))


def exponential(mean: float, *, least: float = 0.0) -> Duration:
    """Mostly short, sometimes long: `least` plus an exponential of this mean."""
    return Duration("exponential", round(least * SECOND), round(mean * SECOND))


def as_duration(value: float | Duration) -> Duration:
    """A span as it is, or a constant of so many seconds."""
    return value if isinstance(value, Duration) else constant(value)
