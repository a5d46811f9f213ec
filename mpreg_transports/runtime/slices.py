"""Input passed to the core in slices, so that the data of one peer does not block the event loop for long.

The reader of each link passes its data to a `Slicer`. Byte streams are cut, as the core accepts any chunks; messages
stay whole. After SLICE of work other tasks run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import anyio.lowlevel

SLICE = 2_000_000
"""The nanoseconds of work after which other tasks run."""
_LEAST = 1024
_MOST = 256 * 1024
_FIRST = 16 * 1024
"""The first size of a piece of a stream, in bytes: halved if one takes over SLICE/4, doubled if it takes far less."""

Data = bytes | bytearray | memoryview | str


class Slicer:
    """The slicer of one link. `take` passes one piece to the core; `flush` carries out the effects of the core."""

    def __init__(self, take: Callable[[Data, int], None], flush: Callable[[], None], clock: Callable[[], int]) -> None:
        self._take = take
        self._flush = flush
        self._clock = clock
        self._size = _FIRST

    async def feed(self, items: Sequence[Data], *, stream: bool) -> None:
        """Pass the data of one read to the core. `stream`: the data may be cut anywhere."""
        began = last = self._clock()
        for item in items:
            for piece in self._cut(item) if stream else (item,):
                self._take(piece, last)
                if stream or self._clock() - began >= SLICE // 2:
                    self._flush()
                now = self._clock()
                if stream:
                    self._learn(len(piece), now - last)
                last = now
                if now - began >= SLICE:
                    await anyio.lowlevel.checkpoint()
                    began = last = self._clock()
        self._flush()

    def _cut(self, item: Data) -> Iterator[Data]:
        start = 0
        while start < len(item):
            end = len(item) if len(item) - start <= self._size else start + self._size
            yield item if start == 0 and end == len(item) else item[start:end]
            start = end

    def _learn(self, size: int, took: int) -> None:
        if took > SLICE // 4 and size >= self._size // 2:
            self._size = max(_LEAST, self._size // 2)
        elif took < SLICE // 16 and size == self._size:
            self._size = min(_MOST, self._size * 2)
