"""The growth of the cost of one input with all else that a node holds: counts or ratios, never seconds.

Each module here has `rows()`; `python -m tests.benchmarks.growth` prints them all and exits with 1 if one exceeds its
bound. A row compares the same work at two sizes, so the machine's speed cancels out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Growth:
    """One comparison: the results of `measure` at a small and at a large size, and the largest allowed ratio."""

    name: str
    what: str
    small: float
    large: float
    most: float
    """The largest allowed `large / small`."""

    @property
    def ratio(self) -> float:
        """The ratio of the large to the small result."""
        return self.large / self.small if self.small else float("inf")

    @property
    def met(self) -> bool:
        """True if the growth is within its bound."""
        return self.ratio <= self.most
