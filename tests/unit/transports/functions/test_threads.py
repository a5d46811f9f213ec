"""The threads of one event loop, their queue of jobs, and their replacement."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mpreg_transports.functions import threads
from mpreg_transports.functions.threads import WorkerThreads, get_call_soon_threadsafe, use_threads, worker_threads
from tests.helpers.blocking_functions import PATIENCE, BlockingThread

pytestmark = pytest.mark.anyio

WIDTH = 5


class Recorded:
    """Runs nothing."""

    def start(self, call: Callable[[], Any], done: Callable[[Any], None], soon: Callable[..., None]) -> None:
        raise AssertionError("nothing is started here")


class Results:
    """The results that the event loop gets, in their order."""

    def __init__(self, pool: WorkerThreads) -> None:
        self.got: list[object] = []
        self._pool = pool
        self._soon = get_call_soon_threadsafe()

    def start(self, *calls: Callable[[], object]) -> None:
        for call in calls:
            self._pool.start(call, self.got.append, self._soon)

    async def until(self, count: int) -> list[object]:
        with anyio.fail_after(PATIENCE):
            while len(self.got) < count:  # noqa: ASYNC110 - nothing of the event loop says so
                await anyio.sleep(0.001)
        return self.got


async def warm(results: Results) -> None:
    """Create WIDTH threads."""
    body = BlockingThread()
    results.start(*[body.body] * WIDTH)
    for _ in range(WIDTH):
        await body.next_start()
    body.release()
    await results.until(WIDTH)
    results.got.clear()


async def test_each_event_loop_has_worker_threads() -> None:
    found = worker_threads()
    assert type(found) is WorkerThreads
    assert worker_threads() is found


async def test_use_threads_replaces_those_of_the_running_event_loop() -> None:
    before, replacement = worker_threads(), Recorded()
    use_threads(replacement)
    assert worker_threads() is replacement
    use_threads(before)


async def test_blocked_body_delays_no_other() -> None:
    results = Results(WorkerThreads())
    await warm(results)
    blocked = [BlockingThread() for _ in range(WIDTH - 1)]
    results.start(*[one.body for one in blocked], lambda: "free")
    assert await results.until(1) == ["free"]
    for one in blocked:
        with anyio.fail_after(PATIENCE):
            await one.next_start()
        one.release()
    await results.until(WIDTH)


async def test_more_bodies_than_threads_start_more_threads() -> None:
    results = Results(WorkerThreads())
    await warm(results)
    body = BlockingThread()
    results.start(*[body.body] * (WIDTH + 2))
    with anyio.fail_after(PATIENCE):
        for _ in range(WIDTH + 2):
            await body.next_start()
    body.release()
    await results.until(WIDTH + 2)


async def test_every_job_of_many_bursts_has_one_result() -> None:
    results = Results(WorkerThreads())
    for burst in range(200):
        results.start(*[lambda at=at: at for at in range(burst % 7)])
        if burst % 3:
            await anyio.lowlevel.checkpoint()
    expected = sorted(at for burst in range(200) for at in range(burst % 7))
    await results.until(len(expected))
    await anyio.sleep(0.01)
    assert sorted(map(str, results.got)) == sorted(map(str, expected))


async def test_receiver_that_raises_keeps_no_other_result_back() -> None:
    got: list[int] = []
    later: list[Callable[[], None]] = []

    def soon(call: Callable[..., None], *arguments: object) -> None:
        later.append(lambda: call(*arguments))

    def done(number: int) -> None:
        got.append(number)
        if number == 1:
            raise ValueError("this receiver")

    threads._post([(soon, done, number) for number in range(4)])
    with pytest.raises(ValueError, match="this receiver"):
        later.pop(0)()
    later.pop(0)()
    assert got == [0, 1, 2, 3]
    assert later == []


# -- the queue, without threads ---------------------------------------------------------------------------------------


class Thread(threads._WorkerThread):
    """A thread that does what the test says."""

    def __init__(self, pool: threads._Pool) -> None:
        super().__init__(pool)
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def idle_pool(size: int) -> tuple[threads._Pool, list[Thread]]:
    """Return a pool with idle threads; the last one is woken first."""
    pool = threads._Pool()
    sleepers = [Thread(pool) for _ in range(size)]
    for one in sleepers:
        assert pool.next_job(one, None) == (None, [], False)
    return pool, sleepers


def job() -> threads._Job:
    return threads._Job(int, print, print)


RESULTS: list[threads._Result] = [(print, print, number) for number in range(3)]


async def test_one_thread_is_woken_for_several_jobs() -> None:
    pool, (other, second, first) = idle_pool(3)
    jobs = [job(), job(), job()]
    for one in jobs:
        pool.submit(one)
    assert (first.woken, second.woken, other.woken) == (1, 0, 0)
    assert pool.next_job(first, None) == (jobs[0], [], False)
    assert (first.woken, second.woken, other.woken) == (1, 1, 0)  # the first body may block
    assert pool.next_job(first, RESULTS[0])[0] is jobs[1]
    assert pool.next_job(first, RESULTS[1])[0] is jobs[2]
    assert (first.woken, second.woken, other.woken) == (1, 1, 0)


async def test_results_wait_for_the_woken_thread() -> None:
    pool, (second, first) = idle_pool(2)
    jobs = [job(), job()]
    for one in jobs:
        pool.submit(one)
    assert pool.next_job(first, None) == (jobs[0], [], False)
    assert pool.next_job(first, RESULTS[0]) == (jobs[1], [], False)
    assert pool.next_job(second, None) == (None, [RESULTS[0]], False)  # the second body may block
    assert pool.next_job(first, RESULTS[1]) == (None, [RESULTS[1]], False)


async def test_result_is_posted_at_once_if_no_thread_was_woken() -> None:
    pool, (first,) = idle_pool(1)
    only = job()
    pool.submit(only)
    assert pool.next_job(first, None) == (only, [], False)
    assert pool.next_job(first, RESULTS[0]) == (None, [RESULTS[0]], False)


async def test_woken_thread_posts_although_it_wakes_another() -> None:
    pool, (third, second, first) = idle_pool(3)
    jobs = [job(), job(), job()]
    for one in jobs[:2]:
        pool.submit(one)
    pool.next_job(first, None)
    pool.next_job(first, RESULTS[0])
    pool.submit(jobs[2])
    pool.submit(job())
    assert pool.next_job(second, None) == (jobs[2], [RESULTS[0]], False)
    assert third.woken == 1


async def test_thread_is_not_ended_while_a_job_waits() -> None:
    pool, (second, first) = idle_pool(2)
    pool.submit(job())
    pool.submit(job())
    assert not pool.remove_idle(first)  # it was woken
    assert not pool.remove_idle(second)
    pool.next_job(first, None)
    pool.next_job(first, None)
    pool.next_job(second, None)
    assert pool.remove_idle(second)


async def test_job_without_a_free_thread_starts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []

    def start(thread: threading.Thread) -> None:
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    pool, (only,) = idle_pool(1)
    for _ in range(3):
        pool.submit(job())
    assert only.woken == 1
    assert len(started) == 2


async def test_closed_pool_ends_its_threads_after_their_jobs() -> None:
    pool, (second, first) = idle_pool(2)
    jobs = [job(), job()]
    for one in jobs:
        pool.submit(one)
    pool.close()
    assert pool.next_job(first, None)[0] is jobs[0]
    assert pool.next_job(first, RESULTS[0]) == (jobs[1], [RESULTS[0]], False)
    assert pool.next_job(second, None) == (None, [], True)
    assert pool.next_job(first, RESULTS[1]) == (None, [RESULTS[1]], True)


async def test_results_are_delivered_in_their_order() -> None:
    got: list[int] = []
    threads._deliver(deque((print, got.append, number) for number in range(5)))
    assert got == [0, 1, 2, 3, 4]
