"""The cores of the measured processes: one for latency, all for throughput.

Only Linux can pin other processes; elsewhere nothing is pinned and the result contains this.
"""

import os
import sys
from collections.abc import Iterable

from tests.benchmarks.rows import Cores

if sys.platform == "linux":

    def _allowed() -> frozenset[int]:
        return frozenset(os.sched_getaffinity(0))

    def _pin(process: int, cores: frozenset[int]) -> None:
        # A process id names only its first thread, so each thread is pinned; later threads inherit it.
        for thread in os.listdir(f"/proc/{process}/task"):
            try:
                os.sched_setaffinity(int(thread), cores)
            except ProcessLookupError:
                continue  # it has ended since the listing

else:

    def _allowed() -> frozenset[int]:
        return frozenset()

    def _pin(process: int, cores: frozenset[int]) -> None:
        return


class Pinning:
    """Moves this process and others between one core and all cores that this process could use at its start."""

    def __init__(self) -> None:
        self._all = _allowed()

    @property
    def core(self) -> int | None:
        """The core for latency: the last one, as interrupts prefer the first. None if nothing can be pinned."""
        return max(self._all, default=None)

    @property
    def cores(self) -> int:
        """The number of usable cores."""
        return len(self._all) or os.cpu_count() or 1

    def apply(self, cores: Cores, processes: Iterable[int]) -> None:
        """Move this process and `processes`, with all their threads."""
        if self.core is None:
            return
        chosen = frozenset({self.core}) if cores is Cores.ONE else self._all
        for process in (os.getpid(), *processes):
            _pin(process, chosen)
