"""A clock of one simulated machine: starts anywhere, runs a little fast or slow. Integers only, so that it is exact."""

from __future__ import annotations

_PPB = 1_000_000_000


class Clock:
    """Maps the simulation's time to the machine's own; both in nanoseconds. `drift` is in parts per 10**9."""

    __slots__ = ("_drift", "_local", "_since")

    def __init__(self, *, start: int, at: int = 0) -> None:
        self._local = start
        self._since = at
        self._drift = 0

    def now(self, at: int) -> int:
        """What the clock shows at the simulation's time `at`."""
        elapsed = at - self._since
        if not self._drift:
            return self._local + elapsed
        return self._local + elapsed + elapsed * self._drift // _PPB

    def when(self, local: int) -> int:
        """The first moment of the simulation at which the clock shows at least `local`."""
        wanted = local - self._local
        elapsed = wanted * _PPB // (_PPB + self._drift)
        while self._local + elapsed + elapsed * self._drift // _PPB < local:
            elapsed += 1
        return self._since + elapsed

    def skew(self, drift: float, at: int) -> None:
        """From now on run faster by this fraction (2e-4 is 17 s a day); the time shown goes on from where it is."""
        self._local = self.now(at)
        self._since = at
        self._drift = round(drift * _PPB)
