"""Measures a subject against the floor, both in each round directly after one another, and keeps the ratios.

Absolute times are of one machine and one minute; a ratio of two measures a moment apart is what can be compared.
Starts and ends the processes of both sides; prints nothing.
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
"""What a measure on a shared machine may miss its goal by and still pass."""

GATE_ROUNDS = 5
"""Rounds that a verdict needs to be worth anything."""

WARM_UP = 0.2
"""The part of a measure's time that each side runs before it, uncounted."""

PATIENCE = 30.0
"""Seconds that a measure may last beyond ten times what it was asked for."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row measured: seconds for each operation of floor and subject, round by round."""

    row: Row
    floor: Sequence[float]
    subject: Sequence[float]
    goal: float | None

    @property
    def ratios(self) -> list[float]:
        """Times slower than the floor, round by round."""
        return [mine / least for least, mine in zip(self.floor, self.subject, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios, which the goal is held against."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """`met`, `met by slack`, or by how much of the goal it is missed; `-` without a goal."""
        if self.goal is None:
            return "-"
        if self.ratio <= self.goal:
            return "met"
        if self.ratio <= self.goal * SLACK:
            return "met by slack"
        return f"missed by {(self.ratio / self.goal - 1) * 100:.0f} %"


async def _seconds_each(subject: Subject, row: Row, seconds: float) -> float:
    """Seconds for each operation of one measure.

    Raises:
        RuntimeError: The measure raised, gave a wrong answer, or did not end.
    """
    measure: Callable[[float], Awaitable[Tally]] = getattr(subject, row.name)
    gc.collect()  # what the other side left behind is not this one's to clear
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
    """Seconds for each operation of floor and subject, from fresh servers; who goes first alternates."""
    async with AsyncExitStack() as stack:
        sides = [one() for one in make]
        for side in sides:
            stack.push_async_callback(side.stop)
            await side.start()
        pinning.apply(row.cores, [process for side in sides for process in side.processes])
        # New processes start where this one is, so it is set free again before the next are started.
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
    """Give each row's result as it is there; what was started for a round is stopped after it, whatever happens.

    `seconds` is what one round of a row measures, both sides together. Servers are new in each round: two starts of the
    same server differ by up to 15 % for as long as they live, and what a row leaves in the allocator shows in the next.

    Raises:
        RuntimeError: A side did not start, or a measure failed, gave a wrong answer or did not end.
    """
    pinning = Pinning()
    # Both sides' clients live in this process. Without this, a large message costs some 700 page faults here or none,
    # depending on what else lies on the heap, and one side is 1.6 times slower for it. Servers keep the defaults.
    bytes(STEADYING)
    for row in rows:
        taken = [
            await _round(number, row, make=(floor, subject), seconds=seconds / 2, pinning=pinning)
            for number in range(rounds)
        ]
        yield Result(row, [least for least, _ in taken], [mine for _, mine in taken], row.goal(transport))
