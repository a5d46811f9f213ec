"""Calls that take the items of a generator while it runs, through real nodes: start, backpressure, ends, chains."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel
import pytest

from mpreg_transports import Client, DeadlineExceeded, ExecutionFailed, Server
from tests.helpers.blocking_functions import PATIENCE
from tests.helpers.servers import joined_servers

pytestmark = pytest.mark.anyio


class Mill:
    """Nodes with generators and with functions that take items, which note what they do, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = threading.Event()
        self.front = Server(name="front", port=0)
        self.maker = Server(name="maker", port=0)
        self.taker = Server(name="taker", port=0)
        for made in (self.count, self.ponder):
            self.maker.register(made.__name__, made)
        for made in (self.total, self.first, self.double, self.stall):
            self.taker.register(made.__name__, made)

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    def count(self, items: int, fail: bool = False) -> Iterator[int]:
        try:
            for item in range(items):
                self.note(f"made {item}")
                yield item
            if fail:
                raise LookupError("no more")
        finally:
            self.note("closed")

    async def ponder(self, items: int, fail: bool = False) -> AsyncIterator[int]:
        try:
            for item in range(items):
                self.note(f"made {item}")
                yield item
            if fail:
                raise LookupError("no more")
        finally:
            await anyio.lowlevel.checkpoint()
            self.note("closed")

    async def total(self, rows: AsyncIterator[int], start: int = 0, *, fail_at: int = -1) -> int:
        async for row in rows:
            self.note(f"took {row}")
            if row == fail_at:
                raise ValueError(f"no {row}")
            start += row
        return start

    async def first(self, rows: AsyncIterator[int], most: int) -> list[int]:
        taken: list[int] = []
        async for row in rows:
            taken.append(row)
            if len(taken) == most:
                break
        return taken

    async def double(self, rows: AsyncIterator[int]) -> AsyncIterator[int]:
        async for row in rows:
            yield 2 * row

    async def stall(self, rows: AsyncIterator[int]) -> int:
        try:
            await anext(rows)
            self.note("stalls")
            await anyio.sleep(PATIENCE)
            return 1
        finally:
            self.note("stalled")

    async def until(self, event: str) -> None:
        """Wait until an event was noted."""
        with anyio.fail_after(PATIENCE):
            while event not in self.events:
                self.changed.clear()
                if event not in self.events:
                    await anyio.to_thread.run_sync(self.changed.wait, 1)

    def run(self) -> AbstractAsyncContextManager[Client]:
        """Return a context in which the nodes and a third one run, with a client of that."""
        return joined_servers(self.front, self.maker, self.taker)


both = pytest.mark.parametrize("name", ["count", "ponder"])


@both
async def test_first_item_is_taken_before_the_generator_ends(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        total = graph.call("total", graph.call(name, 100), 5)
        assert await graph.run(total) == 5 + sum(range(100))
    assert mill.events.index("took 0") < mill.events.index("made 17")
    assert [event for event in mill.events if "took" in event] == [f"took {number}" for number in range(100)]


@both
async def test_generator_waits_for_the_call_that_takes_its_items(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        graph.call("stall", graph.call(name, 1000))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(graph.run)
            await mill.until("made 16")
            await mill.until("stalls")
            for _ in range(20):
                await client.view()
            assert "made 17" not in mill.events, "16 items that are not taken, and one that is"
            tasks.cancel_scope.cancel()
        await mill.until("stalled")
        await mill.until("closed")


@both
async def test_call_that_returns_early_closes_an_endless_generator(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        graph.call("first", graph.call(name, 10**9), 50)
        assert await graph.run() == {"first": list(range(50))}
        await mill.until("closed")
    assert len(mill.events) <= 50 + 16 + 1


@both
async def test_list_beside_the_items(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        rows = graph.call(name, 100)
        first, total = graph.call("first", rows, 3), graph.call("total", rows)
        assert await graph.run(first, total, rows) == ([0, 1, 2], sum(range(100)), list(range(100)))


async def test_generators_that_take_items() -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        rows = graph.call("double", graph.call("double", graph.call("count", 100)))
        total = graph.call("total", rows)
        assert await graph.run(total) == 4 * sum(range(100))
        assert mill.events.index("took 0") < mill.events.index("closed")
        assert await graph.run(rows) == [4 * number for number in range(100)]


@both
async def test_generator_that_fails_cancels_the_call(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        graph.call("stall", graph.call(name, 16, fail=True))
        with pytest.raises(ExecutionFailed, match="LookupError: no more") as caught:
            await graph.run()
        assert caught.value.details["call"] == name
        await mill.until("stalled")


@both
async def test_call_that_fails_closes_its_generator(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        graph.call("total", graph.call(name, 10**9), fail_at=3)
        with pytest.raises(ExecutionFailed, match="ValueError: no 3"):
            await graph.run()
        await mill.until("closed")


@both
async def test_deadline_ends_both(name: str) -> None:
    mill = Mill()
    async with mill.run() as client:
        graph = client.graph()
        graph.call("stall", graph.call(name, 1000))
        with pytest.raises(DeadlineExceeded):
            await graph.run(timeout=0.5)
        await mill.until("stalled")
        await mill.until("closed")


async def test_lists_where_items_are_expected() -> None:
    mill = Mill()
    async with mill.run() as client:
        assert await client.call("total", [1, 2, 3]) == 6
        assert await client.call("total", kwargs={"rows": (), "start": 4}) == 4
        graph = client.graph()
        assert await graph.run(graph.call("total", graph.call("echo", [1, 2]), 4)) == 7
        graph = client.graph()
        assert await graph.run(graph.call("total", [graph.call("echo", 1), 2])) == 3
        with pytest.raises(ExecutionFailed, match="'rows' is annotated AsyncIterator: expected the items in a list"):
            await client.call("total", 5)
        assert [item async for item in client.items("double", [1, 2])] == [2, 4]


async def test_all_on_one_node() -> None:
    mill = Mill()
    server = Server(name="alone", port=0)
    for made in (mill.ponder, mill.total):
        server.register(made.__name__, made)
    async with joined_servers(server) as client:
        graph = client.graph()
        graph.call("total", graph.call("ponder", 100))
        assert await graph.run() == {"total": sum(range(100))}
    assert mill.events.index("took 0") < mill.events.index("made 17")
