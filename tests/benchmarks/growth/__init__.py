"""How the cost of one input grows with all else that a node holds: counts of operations or ratios, never seconds.

Each module here has `rows()`; `python -m tests.benchmarks.growth` prints them all and exits with 1 if one is over its
bound. A row compares the same work at two sizes, so the machine's speed cancels out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Growth:
    """One comparison: what `measure` gave at a small and at a large size, and how much more the large one may cost."""

    name: str
    what: str
    small: float
    large: float
    most: float
    """Largest allowed `large / small`."""

    @property
    def ratio(self) -> float:
        """How many times as much the large size costs."""
        return self.large / self.small if self.small else float("inf")

    @property
    def met(self) -> bool:
        """Whether the growth is within its bound."""
        return self.ratio <= self.most
