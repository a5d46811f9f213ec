"""The interface of a measured system: the Protocol that the floor and every other subject satisfy, and common loops.

A subject starts its own server processes and its own client, which lives in the harness's process. Its measures have
the names of the rows. The loops here are for subjects whose client is made of coroutines. The floor has its own loops
of callbacks, because it measures the cost without a task for each call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns
from typing import NamedTuple, Protocol

LEAST: int = 3
"""The least number of operations of a measure, however slow they are."""


class Tally(NamedTuple):
    """The result of one measure: finished operations, their total time in nanoseconds, and the last answer."""

    operations: int
    elapsed: int
    answer: object


class Stopwatch:
    """Counts operations and decides when to start no more: after `seconds`, and never before LEAST of them."""

    def __init__(self, seconds: float) -> None:
        self.operations = 0
        self._started = perf_counter_ns()
        self._ends = self._started + int(seconds * 1e9)

    def more(self) -> bool:
        """Count one finished operation; return whether to start another one."""
        self.operations += 1
        return perf_counter_ns() < self._ends or self.operations < LEAST

    def tally(self, answer: object) -> Tally:
        """Return the result up to now."""
        return Tally(self.operations, perf_counter_ns() - self._started, answer)


class Subject(Protocol):
    """A system to measure, made new for each round; making one has no effects before `start`.

    Each measure runs for about `seconds`, twice in a round (a warm-up first), and may raise, which ends the whole run.
    """

    @property
    def name(self) -> str:
        """The heading of its column, at most 9 letters."""

    @property
    def processes(self) -> Sequence[int]:
        """The ids of the server processes, which are pinned with all their threads; valid after `start`."""

    async def start(self) -> None:
        """Start the servers, open the client, and return when every row's calls can be made."""

    async def stop(self) -> None:
        """Close the client and end the servers; also allowed after a `start` that raised."""

    async def echo(self, seconds: float) -> Tally: ...
    async def echo_64(self, seconds: float) -> Tally: ...
    async def echo_1mib(self, seconds: float) -> Tally: ...
    async def routed(self, seconds: float) -> Tally: ...
    async def routed_64(self, seconds: float) -> Tally: ...
    async def chain(self, seconds: float) -> Tally: ...
    async def chain_16(self, seconds: float) -> Tally: ...
    async def fan(self, seconds: float) -> Tally: ...
    async def fan_16(self, seconds: float) -> Tally: ...
    async def echo_def(self, seconds: float) -> Tally: ...
    async def echo_async(self, seconds: float) -> Tally: ...
    async def fan_def(self, seconds: float) -> Tally: ...
    async def fan_async(self, seconds: float) -> Tally: ...
    async def move_16mib(self, seconds: float) -> Tally: ...


async def one_at_a_time(operation: Callable[[], Awaitable[object]], seconds: float) -> Tally:
    """Await the operation in a loop, the next one after the answer of the last one."""
    watch = Stopwatch(seconds)
    answer = await operation()
    while watch.more():
        answer = await operation()
    return watch.tally(answer)


async def in_flight(operation: Callable[[], Awaitable[object]], width: int, seconds: float) -> Tally:
    """Keep `width` operations in flight, each in the loop of a long-lived task, and wait for all of them at the end."""
    watch = Stopwatch(seconds)

    async def lane() -> object:
        answer = await operation()
        while watch.more():
            answer = await operation()
        return answer

    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane()) for _ in range(width)]
    return watch.tally(lanes[-1].result())
