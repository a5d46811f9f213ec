"""Input in slices: streams are cut by their processing time, messages are not, and other tasks run in between."""

import anyio
import pytest

from mpreg_transports.runtime.slices import SLICE, Slicer

pytestmark = pytest.mark.anyio


class Core:
    """Takes pieces, each of which costs some time per byte."""

    def __init__(self, cost: int) -> None:
        self.now = 0
        self.cost = cost
        self.taken: list[bytes | bytearray | memoryview | str] = []
        self.flushed = 0
        self.turns = 0

    def take(self, data: bytes | bytearray | memoryview | str, now: int) -> None:
        assert now == self.now
        self.taken.append(data)
        self.now += self.cost * len(data)

    def flush(self) -> None:
        self.flushed += 1

    def slicer(self) -> Slicer:
        return Slicer(self.take, self.flush, lambda: self.now)

    async def others(self) -> None:
        """Another task: count its turns."""
        while True:
            self.turns += 1
            await anyio.lowlevel.checkpoint()


async def test_short_input_is_one_piece() -> None:
    core = Core(1)
    await core.slicer().feed([b"abc"], stream=True)
    assert core.taken == [b"abc"]


async def test_cheap_streams_are_not_cut_for_long() -> None:
    core, data = Core(0), b"x" * 250_000
    slicer = core.slicer()
    for _ in range(8):
        await slicer.feed([data], stream=True)
    assert core.taken[-1] is data
    assert b"".join(bytes(piece) for piece in core.taken if not isinstance(piece, str)) == data * 8


async def test_costly_streams_are_cut_and_other_tasks_run() -> None:
    core, data = Core(1000), bytes(range(250)) * 1000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(core.others)
        await core.slicer().feed([data], stream=True)
        tasks.cancel_scope.cancel()
    assert b"".join(bytes(piece) for piece in core.taken if not isinstance(piece, str)) == data
    assert max(len(piece) for piece in core.taken[8:]) * core.cost <= SLICE
    assert core.turns >= len(data) * core.cost // (2 * SLICE)


async def test_messages_stay_whole_and_other_tasks_run() -> None:
    core, messages = Core(SLICE // 4), ["ab", "cd", "ef", "gh"] * 10  # trio's order within a round is random
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(core.others)
        await core.slicer().feed(messages, stream=False)
        tasks.cancel_scope.cancel()
    assert core.taken == messages
    assert core.turns >= 10
    assert core.flushed >= 21


async def test_stream_is_flushed_after_each_piece() -> None:
    events: list[object] = []
    slicer = Slicer(lambda data, now: events.append(bytes(data)), lambda: events.append("flush"), lambda: 0)
    await slicer.feed([b"a", b"b"], stream=True)
    assert events == [b"a", "flush", b"b", "flush", "flush"]
