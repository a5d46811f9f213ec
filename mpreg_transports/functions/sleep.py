"""`sleep` for functions that run in production and in the simulator alike."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import anyio


class Sleep:
    """What a coroutine hands to the simulator that steps it."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[Sleep, None, None]:
        yield self


_virtual: list[bool] = []


async def sleep(seconds: float) -> None:
    """Wait: anyio's sleep in production, virtual time in a simulation."""
    if _virtual:
        await Sleep(seconds)
    else:
        await anyio.sleep(seconds)


@contextmanager
def in_virtual_time() -> Iterator[None]:
    """The simulator steps a coroutine inside of this; never across an await of an event loop."""
    _virtual.append(True)
    try:
        yield
    finally:
        _virtual.pop()
