"""Generators through real nodes: lists and items, backpressure, leaving early, errors, lost nodes, other clients."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import (
    Client,
    DeadlineExceeded,
    ExecutionFailed,
    LimitExceeded,
    OutcomeUnknown,
    Progress,
    ProgressReport,
    Server,
    SyncClient,
)
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio


class Shelf:
    """Generators that note what they produce, and when they are closed."""

    def __init__(self) -> None:
        self.produced: list[int] = []
        self.closed = threading.Event()

    def count(self, items: int, fail: bool = False) -> Iterator[int]:
        try:
            for item in range(items):
                self.produced.append(item)
                yield item
            if fail:
                raise LookupError("no more")
        finally:
            self.closed.set()

    async def ponder(self, items: int, fail: bool = False) -> AsyncIterator[int]:
        try:
            for item in range(items):
                self.produced.append(item)
                yield item
            if fail:
                raise LookupError("no more")
        finally:
            await anyio.lowlevel.checkpoint()
            self.closed.set()

    async def closing(self) -> None:
        """Wait until a generator is closed."""
        await anyio.to_thread.run_sync(self.closed.wait, PATIENCE)
        assert self.closed.is_set()

    async def waiting(self, items: int) -> None:
        """Wait until so many items are produced, and check that no more come."""
        while len(self.produced) < items:
            await anyio.lowlevel.checkpoint()
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert len(self.produced) == items


class Pair:
    """A front node and a worker with the generators of a shelf, and a client of the front."""

    def __init__(self, **limits: int) -> None:
        self.shelf = Shelf()
        self.front = Server(name="front", port=0, limits=Limits(**limits))
        self.worker = Server(name="worker", port=0, limits=Limits(**limits))
        self.worker.register("count", self.shelf.count)
        self.worker.register("ponder", self.shelf.ponder, idempotent=True)

    async def __aenter__(self) -> Client:
        await self.front.__aenter__()
        self.worker.peers = (self.front.url,)
        await self.worker.__aenter__()
        self.client = await Client(self.front.url).connect()
        await self.client.call("count", 0, wait=20)
        self.shelf.closed.clear()
        return self.client

    async def __aexit__(self, *args: Any) -> None:
        await self.client.close()
        await self.worker.__aexit__(*args)
        await self.front.__aexit__(*args)


both = pytest.mark.parametrize("name", ["count", "ponder"])


@both
async def test_call_gives_the_list_and_items_gives_each(name: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Pair() as client:
            for items in (0, 1, 15, 16, 17, 100):
                expected = list(range(items))
                assert await client.call(name, items) == expected
                assert [item async for item in client.items(name, items)] == expected
            rows = {row.function: row.streaming for row in (await client.view()).functions}
            assert rows[name] and not rows["echo"]


@both
async def test_generator_waits_for_its_consumer(name: str) -> None:
    pair = Pair()
    with anyio.fail_after(PATIENCE):
        async with pair as client, aclosing(client.items(name, 1000)) as items:
            assert await anext(items) == 0
            await pair.shelf.waiting(16)
            for expected in range(1, 8):
                assert await anext(items) == expected
            await pair.shelf.waiting(24)


@both
async def test_leaving_early_closes_the_generator(name: str) -> None:
    pair = Pair()
    with anyio.fail_after(PATIENCE):
        async with pair as client:
            async with aclosing(client.items(name, 1000)) as items:
                async for item in items:
                    if item == 20:
                        break
            await pair.shelf.closing()
            pair.shelf.closed.clear()
            with anyio.CancelScope() as scope:
                async for item in client.items(name, 10_000):
                    if item == 20:
                        scope.cancel()
            await pair.shelf.closing()
            pair.shelf.closed.clear()
            async for _ in client.items(name, 1000):
                break  # the stream is collected
            await pair.shelf.closing()


@both
async def test_generator_that_fails_after_some_items(name: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Pair() as client:
            received: list[int] = []
            with pytest.raises(ExecutionFailed, match="LookupError: no more") as caught:
                async for item in client.items(name, 20, fail=True):
                    received.append(item)
            assert received == list(range(20)) and name in caught.value.details["traceback"]
            assert "generators.py" not in caught.value.details["traceback"]
            with pytest.raises(ExecutionFailed, match="no more"):
                await client.call(name, 20, fail=True)


@both
async def test_deadline_of_a_stream(name: str) -> None:
    pair = Pair()
    with anyio.fail_after(PATIENCE):
        async with pair as client:
            with pytest.raises(DeadlineExceeded):
                async for _ in client.items(name, 1_000_000, timeout=0.2):
                    pass
            await pair.shelf.closing()


@both
async def test_lost_node_after_the_first_item(name: str) -> None:
    pair = Pair()
    with anyio.fail_after(PATIENCE):
        async with pair as client, aclosing(client.items(name, 1000)) as items:
            assert await anext(items) == 0
            await pair.worker.__aexit__(None, None, None)
            with pytest.raises(OutcomeUnknown):
                async for _ in items:
                    pass
            await pair.shelf.closing()
            await pair.worker.__aenter__()


async def test_list_over_the_limit_closes_its_generator() -> None:
    pair = Pair(node_message=100_000)

    def flood() -> Iterator[bytes]:
        try:
            while True:
                yield b"y" * 30_000
        finally:
            pair.shelf.closed.set()

    with anyio.fail_after(PATIENCE):
        async with pair as client:
            pair.worker.register("flood", flood)
            with pytest.raises(LimitExceeded):
                await client.call("flood", wait=20)
            await pair.shelf.closing()
            async with aclosing(client.items("flood")) as items:
                for _ in range(40):
                    assert len(await anext(items)) == 30_000


@pytest.mark.parametrize("limits", [{"node_message": 50_000}, {"message": 50_000}])
async def test_item_over_the_limit_of_a_message(limits: dict[str, int]) -> None:
    pair = Pair(**limits)

    async def large() -> AsyncIterator[bytes]:
        yield b"small"
        yield bytes(60_000)
        yield b"never"

    with anyio.fail_after(PATIENCE):
        async with pair as client:
            pair.worker.register("large", large)
            received: list[bytes] = []
            with pytest.raises(LimitExceeded):
                async for item in client.items("large", wait=20):
                    received.append(item)
            assert received == [b"small"]
            assert await client.call("echo", 1) == 1, "the links are still there"


async def test_items_of_lists_and_of_other_functions() -> None:
    with anyio.fail_after(PATIENCE):
        async with Pair() as client:
            assert [item async for item in client.items("echo", [1, 2, 3])] == [1, 2, 3]
            assert [item async for item in client.items("echo", ())] == []
            with pytest.raises(TypeError, match="'echo' is no generator: it returned int"):
                async for _ in client.items("echo", 5):
                    pass


async def test_items_with_progress_and_options() -> None:
    server = Server(port=0)

    @server.function(resources={"gpu"}, version="2")
    def count(items: int, progress: Progress, *, step: int = 1) -> Iterator[int]:
        for item in range(items):
            progress(item + 1, items)
            yield item * step

    reports: list[ProgressReport] = []
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            options: dict[str, Any] = {"resources": {"gpu"}, "version": "2", "timeout": 20, "kwargs": {"step": 3}}
            items = client.items("count", 40, on_progress=reports.append, **options)
            assert [item async for item in items] == list(range(0, 120, 3))
            assert reports[-1].done == 40
            with pytest.raises(TypeError, match="named by its name"):
                client.items(5)  # type: ignore[arg-type]


async def test_json_clients_get_the_list() -> None:
    pair = Pair()
    with anyio.fail_after(PATIENCE):
        async with pair:
            text = json.dumps({"role": "rpc", "cmds": [{"name": "x", "fun": "count", "args": [20]}]})
            assert pair.front._driver is not None
            answer = json.loads(await pair.front._driver.exchange(text.encode()))
            assert answer["r"] == {"x": list(range(20))}


async def test_dependents_get_the_list() -> None:
    with anyio.fail_after(PATIENCE):
        async with Pair() as client:
            graph = client.graph()
            items = graph.call("count", 20)
            assert await graph.run(graph.call("echos", items, items[3])) == [list(range(20)), 3]


async def test_items_of_a_blocking_client() -> None:
    pair = Pair()

    def ask(url: str) -> tuple[list[int], list[int]]:
        with SyncClient(url) as client:
            first = []
            for item in client.items("ponder", 1000):
                first.append(item)
                if item == 3:
                    break
            return first, list(client.items("count", 40))

    with anyio.fail_after(PATIENCE):
        async with pair:
            first, whole = await anyio.to_thread.run_sync(ask, pair.front.url)
            assert (first, whole) == ([0, 1, 2, 3], list(range(40)))


@pytest.mark.parametrize("kind", ["count", "ponder"])
def test_registration_of_generators(kind: str) -> None:
    shelf, server = Shelf(), Server(port=0)
    with ThreadPoolExecutor(1) as executor:
        for option, word in (({"executor": executor}, "executor="), ({"inline": True}, "inline=True")):
            with pytest.raises(ValueError, match=word):
                server.register("count", getattr(shelf, kind), **option)  # type: ignore[arg-type]


async def test_stopped_node_closes_its_generators() -> None:
    shelf = Shelf()
    server = Server(port=0, limits=Limits(dial_first=MILLISECOND))
    server.register("count", shelf.count)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            items = client.items("count", 1000)
            assert await anext(items) == 0
        await shelf.closing()
        await items.aclose()
