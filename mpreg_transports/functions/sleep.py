"""`sleep` for functions that run both in production and in the simulator."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import anyio


class Sleep:
    """The object that a coroutine yields to the simulator that steps it."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds

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
    """Let `sleep` use virtual time.

    The simulator steps a coroutine in this block; never across an await of an event loop.
    """
    _virtual.append(True)
    try:
        yield
    finally:
        _virtual.pop()
