"""Random durations: the delay of a link, or the run time of a function.

Function arguments are in seconds, stored values in nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from mpreg_transports.testing.simulation.checks import check_number

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
    check_number("seconds", seconds)
    return Duration("constant", round(seconds * SECOND), 0)


def uniform(least: float, most: float) -> Duration:
    """Return a uniform distribution between `least` and `most` seconds."""
    check_number("least", least)
    check_number("most", most, least=least)
    return Duration("uniform", round(least * SECOND), round(most * SECOND))


def exponential(mean: float, *, least: float = 0.0) -> Duration:
    """Return an exponential distribution with this mean, shifted by `least` seconds: mostly short, sometimes long."""
    check_number("mean", mean)
    check_number("least", least)
    return Duration("exponential", round(least * SECOND), round(mean * SECOND))


def as_duration(value: float | Duration) -> Duration:
    """Return a `Duration` unchanged, or a number of seconds as a constant."""
    if isinstance(value, Duration):
        return value
    check_number("duration", value)
    return constant(value)
