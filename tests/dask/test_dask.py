"""`executor=` with Dask: outcomes of calls, lost workers, closed clusters, and docs/examples/dask_node.py.

The clusters are `distributed.LocalCluster` on ports that the system chooses, without a dashboard. Dask's own log is
switched off: it reports each error of a function.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import anyio
import dask
import pytest
from distributed import Client as DaskClient
from distributed import LocalCluster

from docs.examples.dask_node import AT_MOST_ONCE, executor_of
from mpreg_transports import Client, CommandNotFound, ExecutionFailed, OutcomeUnknown, Overloaded, Server, SyncClient
from tests.helpers.node_processes import ROOT

PATIENCE = 60.0
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default")]  # Dask's warnings are not ours


@pytest.fixture
def anyio_backend() -> str:
    """Dask's client has an event loop of its own; one of ours is enough."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    logger = logging.getLogger("distributed")
    before, logger.level = logger.level, logging.CRITICAL + 1
    yield
    logger.level = before


def local_cluster(*, processes: bool) -> LocalCluster:
    """Return a cluster of one worker that runs one call at a time."""
    with dask.config.set(AT_MOST_ONCE):
        return LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=processes,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            protocol="tcp://",
            silence_logs=logging.CRITICAL,
        )


def pid() -> int:
    return os.getpid()


def raises(text: str) -> None:
    raise ValueError(text)


def reads(path: str, started: str) -> str:
    """Wait for a writer of the pipe `path`, after its start was reported at the pipe `started`."""
    Path(started).write_text("started")
    return Path(path).read_text()


in_process, release = threading.Event(), threading.Event()


def waits() -> None:
    """Wait in a worker that is a thread of this process."""
    in_process.set()
    release.wait(PATIENCE)


def leaves(path: str) -> None:
    Path(path).touch()


def dies_once(flag: str) -> str:
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


async def test_calls_on_a_cluster_of_processes(tmp_path: Path) -> None:
    pipe, started, touched = (tmp_path / name for name in ("pipe", "started", "touched"))
    os.mkfifo(pipe)
    os.mkfifo(started)
    with local_cluster(processes=True) as cluster:
        server = Server(port=0)
        make = executor_of(cluster.scheduler_address)
        for call in (pid, raises, reads, leaves, dies_once):
            server.register(None, call, executor=make)
        server.register("closure", lambda x: x + len(tmp_path.name), executor=make)
        server.register("safe", dies_once, executor=make, idempotent=True)
        with anyio.fail_after(PATIENCE):
            async with server, Client(server.url) as client:
                assert await client.call("pid") != os.getpid()
                assert await client.call("closure", 1) == 1 + len(tmp_path.name)
                with pytest.raises(ExecutionFailed) as failed:
                    await client.call("raises", "no")
                assert failed.value.details["type"] == "ValueError" and failed.value.details["message"] == "no"
                await cancels_a_queued_call(client, cluster, pipe, started, touched)
                with pytest.raises(OutcomeUnknown, match="KilledWorker"):
                    await client.call("dies_once", str(tmp_path / "once"))
                assert await client.call("safe", str(tmp_path / "safe")) == "done"


async def cancels_a_queued_call(
    client: Client, cluster: LocalCluster, pipe: Path, started: Path, touched: Path
) -> None:
    """Cancel a call that waits in Dask for its turn, while the only worker runs another: it never starts."""
    results: list[Any] = []

    async def call() -> None:
        results.append(await client.call("reads", str(pipe), str(started)))

    async def queued(expected: bool) -> None:
        """Wait until the worker has the call in its queue, or not any more."""
        with DaskClient(cluster, set_as_default=False) as observer:
            while True:
                tasks = await anyio.to_thread.run_sync(observer.run, tasks_of)
                if any("leaves" in task for found in tasks.values() for task in found) is expected:
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        assert await anyio.to_thread.run_sync(started.read_text) == "started"
        async with anyio.create_task_group() as cancelled:
            cancelled.start_soon(client.call, "leaves", str(touched))
            await queued(True)
            cancelled.cancel_scope.cancel()
        await queued(False)
        await anyio.to_thread.run_sync(pipe.write_text, "read")
    assert results == ["read"]
    await client.call("pid")
    assert not await anyio.Path(touched).exists()


def tasks_of(dask_worker: Any) -> list[str]:
    """Return the keys of the tasks of a worker."""
    return [str(key) for key in dask_worker.state.tasks]


async def test_closed_cluster_withdraws_the_functions_of_a_given_executor(caplog: pytest.LogCaptureFixture) -> None:
    cluster = local_cluster(processes=False)
    dask_client = DaskClient(cluster, set_as_default=False)
    executor: Executor = dask_client.get_executor(pure=False)
    server = Server(port=0)
    server.register("waits", waits, executor=executor)
    server.register("also", pid, executor=executor)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:

            async def lost() -> None:
                with pytest.raises(OutcomeUnknown):
                    await client.call("waits")
                release.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lost)
                await anyio.to_thread.run_sync(in_process.wait, PATIENCE)
                tasks.start_soon(anyio.to_thread.run_sync, cluster.close)
            with pytest.raises((CommandNotFound, Overloaded)):
                await client.call("also")
            with pytest.raises(CommandNotFound):
                await client.call("also")
            assert server.functions == ("echo", "echos")
    dask_client.close()
    assert len([record for record in caplog.records if "withdrawn" in record.getMessage()]) == 1


async def test_closed_cluster_is_replaced_if_a_function_makes_the_executor() -> None:
    clusters = [local_cluster(processes=False)]
    clients: list[DaskClient] = []

    def make() -> Executor:
        clients.append(DaskClient(clusters[-1], set_as_default=False))
        executor: Executor = clients[-1].get_executor(pure=False)
        return executor

    server = Server(port=0)
    server.register("add", lambda x, y: x + y, executor=make)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            assert await client.call("add", 1, 2) == 3
            await anyio.to_thread.run_sync(clusters[0].close)
            clusters.append(await anyio.to_thread.run_sync(lambda: local_cluster(processes=False)))
            assert await client.call("add", 2, 2) == 4
    assert len(clients) == 2
    for one in (*clients, *clusters):
        one.close()


def test_example() -> None:
    command = [sys.executable, "docs/examples/dask_node.py", "--port", "0"]
    node = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert node.stderr is not None
        ready = (re.search(r"ready at (\S+)", line) for line in node.stderr)
        with SyncClient(next(found[1] for found in ready if found)) as client:
            assert client.call("count_primes", 100, resources={"dask"}) == 25
        node.send_signal(signal.SIGINT)
        node.communicate(timeout=PATIENCE)
        assert node.returncode == 0
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.communicate(timeout=PATIENCE)
