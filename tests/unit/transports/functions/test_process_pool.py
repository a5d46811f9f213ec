"""The processes of a node: the functions that run in them, and the check that they can import these."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import ModuleType

import pytest

from mpreg_proto.effects import Lost, Outcome, Returned
from mpreg_proto.limits import DEFAULT
from mpreg_transports import Server
from mpreg_transports.errors import CannotImport
from mpreg_transports.functions.execution import ExecutionMode
from mpreg_transports.functions.pools import Pool, PoolRun
from mpreg_transports.functions.process_pool import check_importable, process_pool
from mpreg_transports.functions.registry import FunctionRegistry

PATIENCE = 60.0


def square(x: int) -> int:
    return x * x


def numbers() -> Iterator[int]:
    yield 1


async def waits() -> None:
    return


def reads(path: str) -> str:
    """Return what the writer of a pipe writes; end this process for no text."""
    with open(path) as pipe:
        return pipe.read() or os._exit(1)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = process_pool(1)
    yield made
    made.close()


def test_functions_that_run_in_the_processes() -> None:
    server = Server(port=0, processes=3)
    for name, call, options in (
        ("def", square, {}),
        ("four", square, {"concurrency": 4}),
        ("inline", square, {"inline": True}),
        ("own", square, {"executor": ThreadPoolExecutor(1)}),
        ("async", waits, {}),
        ("generator", numbers, {}),
    ):
        server.register(name, call, **options)  # type: ignore[arg-type]
    found = {name: (one.mode, one.spec.concurrency) for name, one in server._functions.items()}
    assert found["def"] == (ExecutionMode.EXECUTOR, 3)
    assert found["four"] == (ExecutionMode.EXECUTOR, 4)
    assert found["inline"][0] is ExecutionMode.INLINE
    assert found["async"][0] is ExecutionMode.EVENT_LOOP
    assert found["generator"] == (ExecutionMode.THREAD, 16)
    pools = {name: one.pool for name, one in server._functions.items()}
    assert pools["def"] is pools["four"] and pools["own"] not in (None, pools["def"])
    server._functions.use_processes(0)
    assert server._functions["def"].mode is ExecutionMode.THREAD
    assert server._functions["def"].spec.concurrency == 16 and server._functions["four"].spec.concurrency == 4


def test_registration_refuses_a_function_that_the_processes_cannot_import() -> None:
    server = Server(port=0, processes=1)
    with pytest.raises(ValueError, match=r"late is defined within a function or is a lambda: .* move it out"):
        server.register("late", lambda: 1)
    server.register("here", lambda: 1, inline=True)
    assert "late" not in server.functions


@pytest.mark.parametrize(
    ("given", "error"), [(-1, ValueError), (1025, ValueError), ("2", TypeError), (True, TypeError)]
)
def test_numbers_of_processes_that_are_refused(given: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="processes="):
        Server(processes=given)


def test_check_names_every_function_that_is_not_importable(pool: Pool) -> None:
    with pytest.raises(CannotImport, match=r"'a' is defined within a function .*; 'b' cannot be pickled: .*lock"):
        check_importable(pool, {"a": lambda: 1, "b": threading.Lock().acquire, "c": square})


def test_check_imports_in_a_process(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = ModuleType("ghost")
    exec("def haunt(): return 1", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    with pytest.raises(CannotImport, match=r"'haunt' does not import there: ModuleNotFoundError: .*ghost"):
        check_importable(pool, {"haunt": ghost.haunt, "abs": abs})
    check_importable(pool, {"abs": abs})


def test_queued_bodies_of_a_broken_pool_run_in_the_next(pool: Pool, tmp_path: Path) -> None:
    """A pool has fetched at most two bodies beyond the running one. The others cannot have begun."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    outcomes: dict[int, Outcome] = {}
    ended = threading.Semaphore(0)

    def start(number: int, *call: object) -> None:
        def settle(run: PoolRun, outcome: Outcome) -> None:
            final = run.record_outcome(outcome)
            if final is not None:
                outcomes[number] = final
                ended.release()

        body = pool.start(call[0], list(call[1:]), {}, copy_context())  # type: ignore[arg-type]
        assert isinstance(body, PoolRun)
        body.add_done_callback(settle)

    start(0, reads, str(pipe))
    for number in range(1, 6):
        start(number, square, number)
    pipe.open("w").close()
    for _ in range(6):
        assert ended.acquire(timeout=PATIENCE)
    assert isinstance(outcomes[0], Lost)
    assert all(isinstance(outcomes[one], Lost) or outcomes[one] == Returned(one * one) for one in (1, 2))
    assert [outcomes[one] for one in (3, 4, 5)] == [Returned(9), Returned(16), Returned(25)]


def test_registry_without_functions_for_processes_starts_none() -> None:
    registry = FunctionRegistry(DEFAULT)
    registry.use_processes(2)
    assert not registry.unchecked()
    registry.check_importable()
    registry.end_processes()
