"""Executors that refuse, break, are shut down or replaced; the outcome of the calls that were submitted to them."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from mpreg_proto.effects import Lost, NotStarted, Outcome, Raised, Returned, Stopped
from mpreg_transports.errors import CannotImport
from mpreg_transports.functions.execution import function
from mpreg_transports.functions.pools import Pool, PoolRun, Pools

PATIENCE = 30.0
var: ContextVar[str] = ContextVar("var", default="unset")


def started(pool: Pool, call: Callable[..., Any], *args: Any) -> tuple[PoolRun, Callable[[], Outcome]]:
    """Submit a call; return its run, and a function that waits for its outcome."""
    body = pool.start(call, list(args), {}, copy_context())
    assert isinstance(body, PoolRun)
    outcomes: list[Outcome] = []
    done = threading.Event()

    def note(run: PoolRun, outcome: Outcome) -> None:
        final = run.record_outcome(outcome)
        if final is not None:
            outcomes.append(final)
            done.set()

    body.add_done_callback(note)

    def outcome() -> Outcome:
        assert done.wait(PATIENCE)
        return outcomes[0]

    return body, outcome


def outcome(pool: Pool, call: Callable[..., Any], *args: Any) -> Outcome:
    body = pool.start(call, list(args), {}, copy_context())
    return body if isinstance(body, (NotStarted, Lost)) else started(pool, call, *args)[1]()


class Needy(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("needy")


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def raises() -> None:
    raise Needy(1, 2)


def unreadable() -> Unreadable:
    return Unreadable()


def dies() -> None:
    os._exit(1)


def sets_and_gets() -> str:
    before = var.get()
    var.set("call")
    return before


class Script(Executor):
    """Does what the next step says at each `submit`."""

    def __init__(self, *steps: BaseException | None) -> None:
        self.steps = list(steps)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        step = self.steps.pop(0) if self.steps else None
        if step is not None:
            raise step
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_dead_process_loses_its_call_and_a_given_pool() -> None:
    with ProcessPoolExecutor(1) as executor:
        pool = Pool(executor)
        assert outcome(pool, abs, -1) == Returned(1)
        assert isinstance(outcome(pool, dies), Lost)
        assert "BrokenProcessPool" in pool.closed_reason
        assert outcome(pool, abs, -1) == NotStarted(pool.closed_reason)


def test_unpicklable_values_fail_their_call_alone() -> None:
    with ProcessPoolExecutor(1) as executor:
        pool = Pool(executor)
        raised = outcome(pool, raises)
        assert isinstance(raised, Raised) and raised.message == "needy" and "raise Needy" in raised.traceback
        for call in (unreadable, lambda: 1):
            assert isinstance(outcome(pool, call), Raised)
        assert isinstance(outcome(pool, abs, threading.Lock()), Raised)
        assert outcome(pool, abs, -1) == Returned(1)


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_context_of_a_call_does_not_reach_the_next(kind: type[ThreadPoolExecutor]) -> None:
    with kind(1) as executor:
        pool = Pool(executor)
        assert [outcome(pool, sets_and_gets) for _ in range(2)] == [Returned("unset")] * 2


def test_context_of_a_call_in_a_thread_pool() -> None:
    def within() -> None:
        var.set("start")
        with ThreadPoolExecutor(1) as executor:
            assert outcome(Pool(executor), var.get) == Returned("start")

    copy_context().run(within)


def test_shut_down_executor_starts_no_queued_call() -> None:
    release = threading.Event()
    executor = ThreadPoolExecutor(1)
    pool = Pool(executor)
    _, first = started(pool, release.wait, PATIENCE)
    _, second = started(pool, abs, -1)
    cancelled, third = started(pool, abs, -2)
    cancelled.cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert isinstance(second(), NotStarted)
    assert third() == Stopped()
    assert isinstance(outcome(pool, abs, -1), NotStarted) and "shut down" in pool.closed_reason
    release.set()
    assert first() == Returned(True)


def test_refusal_of_an_executor_refuses_one_call() -> None:
    pool = Pool(Script(OSError("no route"), ValueError("odd"), None))
    assert outcome(pool, abs, -1) == NotStarted("its executor takes no calls: OSError: no route")
    assert isinstance(outcome(pool, abs, -1), NotStarted)
    assert not pool.closed_reason
    assert outcome(pool, abs, -1) == Returned(1)


def test_executor_without_a_thread_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """ThreadPoolExecutor queues the call before it fails to start a thread."""
    began: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        pool = Pool(executor)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", _no_thread)
            assert isinstance(pool.start(began.append, [1], {}, copy_context()), NotStarted)
        assert not pool.closed_reason
        assert outcome(pool, began.append, 2) == Returned(None)
    assert 1 not in began


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_broken_executor_is_replaced_by_its_factory() -> None:
    made: list[Script] = []

    def make() -> Executor:
        made.append(Script(None, None, BrokenExecutor("died")))
        return made[-1]

    pool = Pool(make)
    assert [outcome(pool, abs, -1) for _ in range(6)] == [Returned(1)] * 6
    assert len(made) > 2 and not pool.closed_reason


def test_late_losses_of_a_broken_executor_leave_its_successor_alone() -> None:
    """All calls in a broken executor are lost, one after another; meanwhile another executor works."""
    made: list[ThreadPoolExecutor] = []

    def make() -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[-1]

    pool = Pool(make)
    lost = [started(pool, abs, -1)[0] for _ in range(4)]
    lost[0].record_outcome(Lost("died"))
    assert outcome(pool, abs, -1) == Returned(1)
    for one in lost[1:]:
        one.record_outcome(Lost("died"))
    assert outcome(pool, abs, -2) == Returned(2)
    assert len(made) == 2 and not pool.closed_reason
    pool.close()


def test_pool_closes_after_broken_executors_in_a_row() -> None:
    made: list[Script] = []

    def make() -> Executor:
        made.append(Script(BrokenExecutor("died")))
        return made[-1]

    pool = Pool(make)
    assert isinstance(outcome(pool, abs, -1), NotStarted)
    assert len(made) == 3 and "3 executors in a row" in pool.closed_reason


@pytest.mark.parametrize("make", [lambda: 3, lambda: 1 // 0, ThreadPoolExecutor(1).submit])
def test_pool_closes_if_its_factory_makes_no_executor(make: Any) -> None:
    pool = Pool(make)
    assert isinstance(outcome(pool, abs, -1), NotStarted)
    assert "the function given as executor=" in pool.closed_reason


def test_close_shuts_down_only_executors_of_a_factory() -> None:
    made: list[ThreadPoolExecutor] = []

    def make() -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[-1]

    with ThreadPoolExecutor(1) as given:
        pools = Pools()
        for source in (make, given):
            pool = pools.pool_for(source)
            assert pools.pool_for(source) is pool
            for _ in range(2):
                assert outcome(pool, abs, -1) == Returned(1)
                pool.close()
        assert len(made) == 2
    with pytest.raises(RuntimeError):
        made[0].submit(abs, -1)


class Silent(ThreadPoolExecutor):
    """Takes calls and begins none."""

    def __init__(self) -> None:
        super().__init__(1)
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


def test_queued_body_of_a_broken_executor_runs_in_the_next() -> None:
    first, second, third = Silent(), Silent(), ThreadPoolExecutor(1)
    made: list[Executor] = [first, second, third]
    pool = Pool(lambda: made.pop(0))
    (cancelled, stopped), (_, result) = started(pool, abs, -1), started(pool, abs, -2)
    first.futures[1].set_exception(BrokenExecutor("died"))
    assert len(second.futures) == 1
    cancelled.cancel()
    assert stopped() == Stopped()
    second.futures[0].set_exception(BrokenExecutor("died"))
    assert result() == Returned(2)
    pool.close()


def test_queued_bodies_of_a_closed_pool_do_not_run() -> None:
    silent = Silent()
    made: list[Executor] = [silent]
    pool = Pool(lambda: made.pop(0))
    _, result = started(pool, abs, -1)
    pool.close()
    silent.futures[0].set_exception(BrokenExecutor("ended"))
    assert isinstance(result(), NotStarted)


@pytest.mark.parametrize("given", [True, False])
def test_registration_refuses_a_function_processes_cannot_import(given: bool) -> None:
    def make() -> ProcessPoolExecutor:
        made.append(ProcessPoolExecutor(1))
        return made[-1]

    made: list[ProcessPoolExecutor] = []
    pool = Pool(make() if given else make)
    if not given:
        function(lambda: 1, name="f", executor=pool)
        assert made == []
    with pytest.raises(CannotImport, match=r"f is defined .*: processes cannot import it; move it out"):
        pool.check("f", lambda: 1, make=True)
    pool.check("f", abs, make=True)
    assert len(made) == 1
    Pool(lambda: ThreadPoolExecutor(1)).check("f", lambda: 1, make=True)
    made[0].shutdown()


class ClosedClientError(Exception):
    """As Dask raises it."""

    __module__ = "distributed.client"


class KilledWorker(Exception):
    """As Dask raises it."""

    __module__ = "distributed.scheduler"


class Dask(Executor):
    """An executor with the attributes of Dask's."""

    def __init__(self) -> None:
        self._shutdown = False
        self._client = SimpleNamespace(status="running")
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._client.status == "closed":
            raise ClosedClientError("Client is closed")
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self._shutdown = True


def test_lost_worker_of_dask_loses_its_call_alone() -> None:
    dask = Dask()
    pool = Pool(dask)
    _, killed = started(pool, abs, -1)
    _, cancelled = started(pool, abs, -1)
    _, returned = started(pool, abs, -1)
    dask.futures[0].set_exception(KilledWorker("died"))
    dask.futures[1].cancel()
    dask.futures[2].set_result(1)
    assert (
        killed() == Lost("distributed.scheduler.KilledWorker: died")
        and isinstance(cancelled(), Lost)
        and returned() == Returned(1)
    )
    assert not pool.closed_reason


@pytest.mark.parametrize("at_call", [True, False])
def test_closed_client_of_dask_closes_a_given_pool(at_call: bool) -> None:
    dask = Dask()
    pool = Pool(dask)
    _, lost = started(pool, abs, -1)
    dask._client.status = "closed"
    if at_call:
        assert isinstance(pool.start(abs, [-1], {}, copy_context()), NotStarted)
        assert "ClosedClientError" in pool.closed_reason
    dask.futures[0].cancel()
    assert isinstance(lost(), Lost) and pool.closed_reason


def test_made_executor_of_dask_is_shut_down() -> None:
    dask = Dask()
    pool = Pool(lambda: dask)
    started(pool, abs, -1)
    pool.close()
    assert dask._shutdown


class Jobs:
    """Stands in for worker threads: jobs run when the test says so."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def __call__(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self.refuses:
            raise RuntimeError("no threads")
        self.jobs.append((call, done))

    def run(self) -> None:
        call, done = self.jobs.pop(0)
        done(call())


def waiting(pool: Pool, jobs: Jobs, *args: Any) -> tuple[PoolRun, list[Outcome]]:
    """Submit a call of `abs`, and return its run and the list of its outcomes."""
    body = pool.start(abs, list(args), {}, copy_context(), jobs)
    assert isinstance(body, PoolRun)
    outcomes: list[Outcome] = []

    def note(run: PoolRun, outcome: Outcome) -> None:
        final = run.record_outcome(outcome)
        if final is not None:
            outcomes.append(final)

    body.add_done_callback(note)
    return body, outcomes


def test_bodies_wait_while_a_thread_makes_their_executor() -> None:
    pool, jobs = Pool(Script), Jobs()
    (_, first), (cancelled, second), (_, third) = (waiting(pool, jobs, -number) for number in (1, 2, 3))
    assert len(jobs.jobs) == 1, "one thread makes it for all"
    cancelled.cancel()
    cancelled.cancel()
    assert (first, second, third) == ([], [Stopped()], [])
    jobs.run()
    assert (first, second, third) == ([Returned(1)], [Stopped()], [Returned(3)])
    assert waiting(pool, jobs, -4)[1] == [Returned(4)] and not jobs.jobs, "it is there now"


def test_waiting_bodies_of_a_factory_that_fails() -> None:
    pool, jobs = Pool(lambda: 1 / 0), Jobs()  # type: ignore[arg-type,return-value]
    _, outcomes = waiting(pool, jobs, -1)
    for _ in range(3):
        assert outcomes == []
        jobs.run()
    (refused,) = outcomes
    assert isinstance(refused, NotStarted) and "ZeroDivisionError" in refused.reason == pool.closed_reason


def test_body_whose_executor_no_thread_can_make() -> None:
    pool = Pool(Script)
    refused = pool.start(abs, [-1], {}, copy_context(), Jobs(refuses=True))
    assert isinstance(refused, NotStarted) and "no threads" in refused.reason and not pool.closed_reason


@pytest.mark.parametrize("late", [False, True], ids=["the thread sees it", "the event loop sees it"])
def test_executor_made_for_an_ended_node_is_shut_down(late: bool) -> None:
    made: list[ThreadPoolExecutor] = []

    def make() -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[-1]

    pool, jobs = Pool(make), Jobs()
    _, outcomes = waiting(pool, jobs, -1)
    call, done = jobs.jobs.pop()
    result = call() if late else None
    pool.close()
    done(result if late else call())
    assert outcomes == [] and made[0]._shutdown
    _, again = waiting(pool, jobs, -2)
    assert again == [] and len(jobs.jobs) == 1, "the next node makes its own"


def test_queued_body_of_a_broken_executor_waits_for_the_next() -> None:
    class Holding(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.held: Future[Any] = Future()
            return self.held

    executors: list[Executor] = [Holding(1), Script()]
    pool, jobs = Pool(lambda: executors.pop(0)), Jobs()
    _, outcomes = waiting(pool, jobs, -1)
    holding = executors[0]
    assert isinstance(holding, Holding)
    jobs.run()
    holding.held.set_exception(BrokenExecutor("gone"))
    assert outcomes == [] and len(jobs.jobs) == 1
    jobs.run()
    assert outcomes == [Returned(1)]
