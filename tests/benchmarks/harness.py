"""Measures a subject and the floor, in each round directly after one another, and keeps the ratios.

Absolute times depend on the machine and the minute; the ratio of two consecutive measures can be compared. The harness
starts and ends the processes of both sides and prints nothing.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.floor_nodes import STEADYING
from tests.benchmarks.pinning import Pinning
from tests.benchmarks.rows import Cores, Row, Transport, plain
from tests.benchmarks.subjects import Subject, Tally

Make = Callable[[], Subject]

SLACK = 1.25
"""The factor by which a measure on a shared machine may exceed its goal and still pass."""

GATE_ROUNDS = 5
"""The number of rounds that a verdict needs."""

WARM_UP = 0.2
"""The warm-up of each side before a measure, as a part of the measure's time; it is not counted."""

PATIENCE = 30.0
"""Seconds that a measure may last beyond ten times its requested time."""


@dataclass(frozen=True, slots=True)
class Result:
    """One measured row: seconds for each operation of floor and subject, by round."""

    row: Row
    floor: Sequence[float]
    subject: Sequence[float]
    goal: float | None

    @property
    def ratios(self) -> list[float]:
        """The slowdown against the floor, by round."""
        return [mine / least for least, mine in zip(self.floor, self.subject, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios, which is compared with the goal."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """`met`, `met by slack`, or the share of the goal by which it is missed; `-` without a goal."""
        if self.goal is None:
            return "-"
        if self.ratio <= self.goal:
            return "met"
        if self.ratio <= self.goal * SLACK:
            return "met by slack"
        return f"missed by {(self.ratio / self.goal - 1) * 100:.0f} %"


async def _seconds_each(subject: Subject, row: Row, seconds: float) -> float:
    """Return the seconds for each operation of one measure.

    Raises:
        RuntimeError: The measure raised, gave a wrong answer, or did not end.
    """
    measure: Callable[[float], Awaitable[Tally]] = getattr(subject, row.name)
    gc.collect()  # so that this side does not clear the garbage of the other side
    try:
        async with asyncio.timeout(PATIENCE + 10 * seconds):
            tally = await measure(seconds)
    except Exception as error:
        raise RuntimeError(f"{subject.name} failed in {row.name}: {error!r}") from error
    if plain(tally.answer) != row.answer:
        raise RuntimeError(f"{subject.name} answered {row.name} with {str(tally.answer)[:100]!r}")
    return tally.elapsed / tally.operations / 1e9


async def _round(
    number: int, row: Row, *, make: tuple[Make, Make], seconds: float, pinning: Pinning
) -> tuple[float, float]:
    """Return the seconds for each operation of floor and subject, from fresh servers; the order alternates."""
    async with AsyncExitStack() as stack:
        sides = [one() for one in make]
        for side in sides:
            stack.push_async_callback(side.stop)
            await side.start()
        pinning.apply(row.cores, [process for side in sides for process in side.processes])
        # New processes inherit the affinity of this one, so it is reset before the next ones start.
        stack.callback(pinning.apply, Cores.ALL, [])
        for side in sides:
            await _seconds_each(side, row, seconds * WARM_UP)
        if number % 2:
            mine = await _seconds_each(sides[1], row, seconds)
            return await _seconds_each(sides[0], row, seconds), mine
        return await _seconds_each(sides[0], row, seconds), await _seconds_each(sides[1], row, seconds)


async def results(
    floor: Make, subject: Make, *, rows: Sequence[Row], rounds: int, seconds: float, transport: Transport
) -> AsyncIterator[Result]:
    """Yield each row's result when it is complete; stop the processes of a round after it, also after an error.

    `seconds` is the time of one round of a row, for both sides together. Servers are new in each round: two starts of
    the same server differ by up to 15 % during their whole life, and the allocator state that a row leaves affects the
    next.

    Raises:
        RuntimeError: A side did not start, or a measure failed, gave a wrong answer or did not end.
    """
    pinning = Pinning()
    # The clients of both sides live in this process. Without this allocation, a large message costs some 700 page
    # faults here or none, which depends on the rest of the heap, and one side is 1.6 times slower for it. Servers keep
    # the defaults.
    bytes(STEADYING)
    for row in rows:
        taken = [
            await _round(number, row, make=(floor, subject), seconds=seconds / 2, pinning=pinning)
            for number in range(rounds)
        ]
        yield Result(row, [least for least, _ in taken], [mine for _, mine in taken], row.goal(transport))
