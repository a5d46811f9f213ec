"""Random durations: the delay of a link, or the run time of a function.

Function arguments are in seconds, stored values in nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

SECOND = 1_000_000_000


class Duration(msgspec.Struct, frozen=True, array_like=True):
    """A distribution of durations. `kind` is constant, uniform or exponential.

    `low` and `high` are nanoseconds (exponential: the shift and the mean).
    """

    kind: str
    low: int
    high: int

    def draw(self, fraction: Callable[[str], float], purpose: str) -> int:
        """Return one duration in nanoseconds. A constant uses no draw."""
        if self.kind == "constant":
            return self.low
        drawn = fraction(purpose)
        if self.kind == "uniform":
            return self.low + int(drawn * (self.high - self.low))
        return self.low + int(-math.log1p(-drawn) * self.high)


def constant(seconds: float) -> Duration:
    """Return a duration that is always `seconds`."""
    return Duration("constant", round(seconds * SECOND), 0)


def uniform(least: float, most: float) -> Duration:
    """Return a uniform distribution between `least` and `most` seconds."""
    return Duration("uniform", round(least * SECOND), round(most * SECOND))


def exponential(mean: float, *, least: float = 0.0) -> Duration:
    """Return an exponential distribution with this mean, shifted by `least` seconds: mostly short, sometimes long."""
    return Duration("exponential", round(least * SECOND), round(mean * SECOND))


def as_duration(value: float | Duration) -> Duration:
    """Return a `Duration` unchanged, or a number of seconds as a constant."""
    return value if isinstance(value, Duration) else constant(value)
