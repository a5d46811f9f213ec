"""What waits in a client for answers: one question, or the leaves of a graph that is streamed.

`Client` makes them when it asks and puts replies in as they come; whoever asked waits here. Nothing here knows links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Never

import anyio

from mpreg_proto.client import Reply
from mpreg_proto.errors import raised
from mpreg_proto.wire.messages import Result
from mpreg_transports.threads import poster


class Waiter:
    """One question that waits for its answer; streams get several."""

    __slots__ = ("event", "replies")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.replies: list[Reply] = []


class Leaves(AsyncGenerator[tuple[str, Any], None]):
    """Each leaf's (name, value) as soon as it is there. Left, closed or forgotten, it cancels what still runs.

    It is a generator made by hand, because one of Python's own is cleaned up late when a loop over it is left, on trio
    with a warning.
    """

    def __init__(self, waiter: Waiter, decode: Callable[[bytes], Any], drop: Callable[[], None]) -> None:
        self._waiter = waiter
        self._decode = decode
        self._drop = drop
        self._post = poster()
        self._done: deque[tuple[str, bytes]] = deque()
        self._replies: deque[Result] = deque()
        self._open = True

    async def asend(self, value: None) -> tuple[str, Any]:
        """The next leaf. Raises the error with which the request ended."""
        while self._open:
            if self._done:
                name, encoded = self._done.popleft()
                return name, self._decode(encoded)
            if not self._replies:
                await self._wait()
            result = self._replies[0]
            if result.done:
                self._done.extend((row.name, row.value) for row in result.done)
        raise StopAsyncIteration

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Never:
        """Close it and raise."""
        await self.aclose()
        raise typ if val is None else val

    async def aclose(self) -> None:
        """Want no more of it."""
        if self._open:
            self._open = False
            self._drop()

    def __del__(self) -> None:
        if self._open:
            self._post(self._drop)  # from whichever thread, in the midst of whatever
