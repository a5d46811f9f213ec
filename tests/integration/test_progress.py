"""Progress through real nodes: from threads, coroutines and inline functions, over a coordinator, to a callback."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from mpreg_transports import Client, ExecutionFailed, Progress, ProgressReport, Server, SyncClient
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio


def work(rows: int, progress: Progress) -> int:
    for row in range(rows):
        progress(row + 1, rows, "in a thread")
    return rows


async def ponder(progress: Progress, rows: int) -> int:
    for row in range(rows):
        progress(row + 1, rows)
        await anyio.lowlevel.checkpoint()
    return rows


def tiny(rows: int, *, progress: Progress) -> int:
    progress(rows)
    return rows


def cluster() -> tuple[Server, Server]:
    front = Server(name="front", port=0)
    worker = Server(name="worker", port=0)
    worker.register("work", work)
    worker.register("ponder", ponder)
    worker.register("tiny", tiny, inline=True)
    return front, worker


async def test_progress_of_each_kind_of_function() -> None:
    front, worker = cluster()
    with anyio.fail_after(PATIENCE):
        async with front:
            worker.peers = (front.url,)
            async with worker, Client(front.url) as client:
                for name in ("work", "ponder", "tiny"):
                    reports: list[ProgressReport] = []
                    assert await client.call(name, 500, wait=20, on_progress=reports.append) == 500
                    dones = [report.done for report in reports]
                    assert dones == sorted(dones) and dones[-1] == 500 and len(dones) < 100
                    assert {(one.call, one.function) for one in reports} == {(name, name)}
                    assert reports[0].node.startswith("worker")
                    assert await client.call(name, 5) == 5, "without a callback"


async def test_progress_of_a_graph_names_its_calls() -> None:
    front, worker = cluster()
    with anyio.fail_after(PATIENCE):
        async with front:
            worker.peers = (front.url,)
            async with worker, Client(front.url) as client:
                graph = client.graph()
                first = graph.call("work", 3, name="first")
                graph.call("ponder", first, name="second")
                reports: list[ProgressReport] = []
                assert await graph.run(wait=20, on_progress=reports.append) == {"second": 3}
                assert {one.call for one in reports} == {"first", "second"}
                assert next(one for one in reports[::-1] if one.call == "first").done == 3
                assert reports[-1].done == 3


async def test_callback_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)
    server.register("ponder", ponder)

    def broken(report: ProgressReport) -> None:
        raise LookupError("no bar")

    with anyio.fail_after(PATIENCE), caplog.at_level(logging.ERROR):
        async with server, Client(server.url) as client:
            assert await client.call("ponder", 3, on_progress=broken) == 3
    (record,) = [record for record in caplog.records if "on_progress raised" in record.message]
    assert record.exc_info is not None


async def test_callback_that_cannot_be_called_is_refused() -> None:
    async def coroutine(report: ProgressReport) -> None: ...

    server = Server(port=0)
    async with server, Client(server.url) as client:
        for wrong in (5, coroutine):
            with pytest.raises(TypeError, match="expected a plain function"):
                await client.call("echo", 1, on_progress=wrong)  # type: ignore[arg-type]


async def test_reporter_is_no_argument_of_callers() -> None:
    server = Server(port=0)
    server.register("work", work)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            with pytest.raises(ExecutionFailed, match="'progress' is no argument"):
                await client.call("work", 5, progress=3)
            (row,) = [one for one in (await client.view()).functions if one.function == "work"]
            assert row.signature == "(rows: int) -> int"


async def test_progress_of_a_blocking_client() -> None:
    server = Server(port=0)
    server.register("work", work)
    reports: list[tuple[float, str]] = []

    def ask(url: str) -> object:
        def note(report: ProgressReport) -> None:
            reports.append((report.done, threading.current_thread().name))

        with SyncClient(url) as client:
            graph = client.graph()
            graph.call("work", 6)
            return client.call("work", 5, on_progress=note), graph.run(on_progress=note)

    with anyio.fail_after(PATIENCE):
        async with server:
            assert await anyio.to_thread.run_sync(ask, server.url) == (5, {"work": 6})
    assert [done for done, _ in reports if done in (5, 6)][-1:] == [6]
    assert {thread for _, thread in reports} == {"mpreg client"}


def test_registration_refuses_progress_in_an_executor() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="leave out executor="):
        Server(port=0).register("work", work, executor=executor)
