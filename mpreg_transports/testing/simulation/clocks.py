"""The clock of one simulated machine. It starts at any time and may drift. It uses only integers, so it is exact."""

from __future__ import annotations

_PPB = 1_000_000_000


class Clock:
    """A map from simulated time to the machine's own time, both in nanoseconds. `drift` is in parts per 10**9."""

    __slots__ = ("_drift", "_local", "_since")

    def __init__(self, *, start: int, at: int = 0) -> None:
        self._local = start
        self._since = at
        self._drift = 0

    @property
    def drift(self) -> float:
        """The fraction by which the clock runs faster now."""
        return self._drift / _PPB

    def now(self, at: int) -> int:
        """Return the time that the clock shows at the simulated time `at`."""
        elapsed = at - self._since
        if not self._drift:
            return self._local + elapsed
        return self._local + elapsed + elapsed * self._drift // _PPB

    def when(self, local: int) -> int:
        """Return the first simulated time at which the clock shows at least `local`."""
        wanted = local - self._local
        elapsed = wanted * _PPB // (_PPB + self._drift)
        while self._local + elapsed + elapsed * self._drift // _PPB < local:
            elapsed += 1
        return self._since + elapsed

    def skew(self, drift: float, at: int) -> None:
        """Change the drift: from `at` on the clock runs faster by this fraction (2e-4 is 17 s a day).

        The time that the clock shows does not jump.
        """
        self._local = self.now(at)
        self._since = at
        self._drift = round(drift * _PPB)
