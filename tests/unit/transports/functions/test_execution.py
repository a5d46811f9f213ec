"""One function: its inspection when it is registered, and the outcome of a run, for any function."""

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
import trio.lowlevel

from mpreg_proto.effects import Lost, NotStarted, Outcome, Raised, Returned, Run, Stopped
from mpreg_proto.ids import RunId
from mpreg_transports.functions import coroutines, execution, threads
from mpreg_transports.functions.execution import (
    ASYNC_CONCURRENCY,
    THREAD_CONCURRENCY,
    ExecutionMode,
    Function,
    Runtime,
    function,
    tags,
)

var: ContextVar[str] = ContextVar("var", default="unset")
PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits that long."""


def plain(value: int, *, more: int = 0) -> int:
    """Add.

    In a thread.
    """
    return value + more


async def coroutine(value: int) -> int:
    await anyio.lowlevel.checkpoint()
    return value


class Callable_:
    def __call__(self) -> int:
        return threading.get_ident()


class AsyncCallable:
    async def __call__(self) -> int:
        return threading.get_ident()


def run(*args: object, **kwargs: object) -> Run:
    return Run(RunId(1), "f", list(args), kwargs, 0)


def spawn(start: Callable[[], Any]) -> None:
    """Start a task as a driver's task group does on trio."""
    trio.lowlevel.spawn_system_task(start, context=copy_context())


class Started:
    """One run of a function, as the driver starts it."""

    def __init__(self, made: Function, *args: object, runtime: Runtime | None = None, **kwargs: object) -> None:
        self.outcomes: list[Outcome] = []
        self.began = 0
        self.ended = anyio.Event()
        self.runtime = runtime or Runtime(spawn)
        body = made.start(run(*args, **kwargs), self.runtime, self._done, on_start=self._begin)
        if isinstance(body, (NotStarted, Lost)):
            self._done(body)
        else:
            self.body = body

    def _done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended.set()

    def _begin(self) -> None:
        self.began += 1

    async def outcome(self) -> Outcome:
        with anyio.fail_after(PATIENCE):
            await self.ended.wait()
        (outcome,) = self.outcomes
        return outcome


async def outcome(made: Function, *args: object, **kwargs: object) -> object:
    return await Started(made, *args, **kwargs).outcome()


def inline(call: Callable[..., Any], *args: object) -> Outcome:
    return function(call, name="f", inline=True).run_inline(run(*args), Runtime(lambda start: None))


# -- inspection at registration ----------------------------------------------------------------------------------------


def test_function_spec() -> None:
    spec = function(plain, version="2", resources=["b", "a"], idempotent=True).spec
    assert (spec.name, spec.version, spec.resources, spec.idempotent) == ("plain", "2", ("a", "b"), True)
    assert (spec.doc, spec.signature) == ("Add.", "(value: int, *, more: int = 0) -> int")
    assert (spec.concurrency, spec.inline, spec.streaming) == (THREAD_CONCURRENCY, False, False)
    assert function(coroutine).spec.concurrency == ASYNC_CONCURRENCY
    assert function(plain, inline=True).spec.inline is True
    assert function(plain, concurrency=3).spec.concurrency == 3
    assert function(coroutine).spec.doc == ""
    assert function(dict, name="dict").spec.signature == "(...)"


@pytest.mark.parametrize(
    ("call", "options", "mode"),
    [
        (plain, {}, ExecutionMode.THREAD),
        (plain, {"inline": True}, ExecutionMode.INLINE),
        (coroutine, {}, ExecutionMode.EVENT_LOOP),
        (functools.partial(coroutine, 1), {"name": "f"}, ExecutionMode.EVENT_LOOP),
        (AsyncCallable(), {"name": "f"}, ExecutionMode.EVENT_LOOP),
        (Callable_(), {"name": "f"}, ExecutionMode.THREAD),
        (lambda: 1, {"name": "f"}, ExecutionMode.THREAD),
    ],
)
def test_execution_mode(call: Callable[..., Any], options: dict[str, Any], mode: ExecutionMode) -> None:
    assert function(call, **options).mode is mode


@pytest.mark.parametrize(
    ("error", "text", "call", "options"),
    [
        (TypeError, "expected a callable, got str", "plain", {}),
        (ValueError, "no name of its own; give it one with name=", lambda: 1, {}),
        (ValueError, "no name of its own; give it one with name=", functools.partial(plain, 1), {}),
        (ValueError, "no name of its own; give it one with name=", plain, {"name": ""}),
        (ValueError, "coroutine is async def: it runs in the event loop, not inline", coroutine, {"inline": True}),
        (
            ValueError,
            "coroutine is async def: it runs in the event loop, not inline",
            coroutine,
            {"executor": Executor()},
        ),
        (ValueError, "exclude each other", plain, {"inline": True, "executor": Executor()}),
        (ValueError, "plain: concurrency=0, and at least 1 body", plain, {"concurrency": 0}),
        (TypeError, r'resources="gpu" is a bare string; write resources=\{"gpu"\}', plain, {"resources": "gpu"}),
        (TypeError, "a resource is a non-empty string, not 1", plain, {"resources": [1]}),
    ],
)
def test_wrong_options_are_refused(error: type[Exception], text: str, call: Any, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=text):
        function(call, **options)


def test_tags() -> None:
    assert tags(tag for tag in ("a", "b", "a")) == {"a", "b"}
    assert tags(()) == frozenset()
    with pytest.raises(TypeError, match="a resource is a non-empty string, not ''"):
        tags([""])


# -- the outcome of a run ----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_returned_values() -> None:
    assert await outcome(function(plain), 1, more=2) == Returned(3)
    assert await outcome(function(coroutine), 1) == Returned(1)
    assert inline(plain, 1) == Returned(1)
    with ThreadPoolExecutor(1) as pool:
        assert await outcome(function(plain, executor=pool), 1, more=2) == Returned(3)


@pytest.mark.anyio
async def test_raised_has_type_text_and_traceback_of_user_code() -> None:
    class Own(Exception):
        pass

    def body() -> None:
        raise Own("why")

    async def in_loop() -> None:
        body()

    with ThreadPoolExecutor(1) as pool:
        outcomes = [
            inline(body),
            await outcome(function(body)),
            await outcome(function(in_loop)),
            await outcome(function(body, executor=pool)),
        ]
    for reported in outcomes:
        assert isinstance(reported, Raised)
        assert reported.kind.endswith("<locals>.Own")
        assert reported.message == "why"
        assert 'raise Own("why")' in reported.traceback
    for reported in outcomes[:3]:
        assert isinstance(reported, Raised)
        assert "mpreg_transports" not in reported.traceback
    assert inline(divmod, 1, 0) == Raised("ZeroDivisionError", "integer division or modulo by zero")


@pytest.mark.anyio
async def test_exception_whose_text_raises() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    def body() -> None:
        raise Mute

    reported = await outcome(function(body))
    assert isinstance(reported, Raised)
    assert reported.message == "<no text: its __str__ raised LookupError>"


@pytest.mark.anyio
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_thread_that_raises_system_exit(error: type[BaseException]) -> None:
    def body() -> None:
        raise error

    reported = await outcome(function(body))
    assert isinstance(reported, Raised)
    assert reported.kind == error.__name__


class Own(BaseException):
    """An exception as test tools and libraries of other event loops raise it."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    "mode", [ExecutionMode.INLINE, ExecutionMode.EVENT_LOOP, ExecutionMode.THREAD, ExecutionMode.EXECUTOR]
)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Own])
async def test_any_exception_is_an_error_of_its_call(error: type[BaseException], mode: ExecutionMode) -> None:
    def body() -> None:
        raise error("why")

    async def in_loop() -> None:
        raise error("why")

    with ThreadPoolExecutor(1) as pool:
        if mode is ExecutionMode.INLINE:
            reported: object = inline(body)
        else:
            made = (
                function(in_loop)
                if mode is ExecutionMode.EVENT_LOOP
                else function(body, executor=pool if mode is ExecutionMode.EXECUTOR else None)
            )
            reported = await outcome(made)
    assert isinstance(reported, Raised)
    assert (reported.kind.rpartition(".")[2], reported.message) == (error.__name__, "why")


@pytest.mark.anyio
async def test_own_cancellation_of_a_function_is_an_error_of_its_call() -> None:
    async def body() -> None:
        own: BaseException | None = None
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                own = error
                raise
        assert own is not None
        raise own

    reported = await outcome(function(body))
    assert isinstance(reported, Raised)
    assert reported.kind.rpartition(".")[2] in ("CancelledError", "Cancelled")


@pytest.mark.anyio
async def test_cancel_of_a_coroutine_before_and_after_its_start() -> None:
    begun: list[int] = []

    async def body(number: int) -> None:
        begun.append(number)
        await anyio.sleep_forever()

    made = function(body)
    early = Started(made, 0)
    early.body.cancel()
    assert await early.outcome() == Stopped()
    assert begun == []
    waiting = Started(made, 1)
    while not begun:
        await anyio.lowlevel.checkpoint()
    waiting.body.cancel()
    assert await waiting.outcome() == Stopped()
    waiting.body.cancel()
    assert begun == [1]


@pytest.mark.anyio
async def test_cancel_is_raised_once_so_that_cleanup_can_wait() -> None:
    steps: list[str] = []

    async def body() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            for step in ("first", "second"):
                await anyio.lowlevel.checkpoint()
                steps.append(step)

    started = Started(function(body))
    while not started.began:
        await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    started.body.cancel()
    assert await started.outcome() == Stopped()
    assert steps == ["first", "second"]


@pytest.mark.anyio
async def test_anyio_within_a_coroutine() -> None:
    async def body() -> list[object]:
        found: list[object] = []
        try:
            with anyio.fail_after(0):
                await anyio.sleep_forever()
        except TimeoutError:
            found.append("timeout")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                scope.cancel()
        found.append(scope.cancelled_caught)
        found.append(await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident())
        return found

    assert await outcome(function(body)) == Returned(["timeout", True, True])


@pytest.mark.anyio
async def test_anyio_scopes_in_the_first_step_of_a_coroutine() -> None:
    async def body() -> str:
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        return "left" if scope.cancelled_caught else "not left"

    assert await outcome(function(body)) == Returned("left")


async def asyncio_timeout() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timeout"
    return "none"


async def asyncio_task_group() -> str:
    async def fails() -> None:
        raise KeyError("child")

    try:
        async with asyncio.TaskGroup() as tasks:
            sibling = tasks.create_task(asyncio.Event().wait())
            tasks.create_task(fails())
    except ExceptionGroup as group:
        return f"{group.exceptions[0]!r} {sibling.cancelled()}"
    return "none"


@pytest.mark.parametrize(
    ("body", "result"), [(asyncio_timeout, "timeout"), (asyncio_task_group, "KeyError('child') True")]
)
def test_asyncio_within_a_coroutine(body: Callable[[], Any], result: str) -> None:
    async def main() -> None:
        assert await outcome(function(body)) == Returned(result)

    anyio.run(main, backend="asyncio")


def test_cancel_of_a_coroutine_in_an_asyncio_task_group() -> None:
    steps: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("child")

    async def body() -> None:
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                tasks.create_task(child())
        finally:
            await asyncio.sleep(0)
            steps.append("body")

    async def main() -> None:
        started = Started(function(body))
        for _ in range(5):
            await asyncio.sleep(0)
        started.body.cancel()
        assert await started.outcome() == Stopped()

    anyio.run(main, backend="asyncio")
    assert steps == ["child", "body"]


@pytest.mark.anyio
async def test_swallowed_cancellation_keeps_the_slot() -> None:
    caught: list[BaseException] = []
    release = anyio.Event()

    async def body() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except BaseException as error:
                caught.append(error)
        return "done"

    started = Started(function(body))
    while not started.began:
        await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    started.body.cancel()
    started.body.cancel()
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    assert len(caught) == 1 and started.outcomes == []
    release.set()
    assert await started.outcome() == Returned("done")


@pytest.mark.anyio
async def test_abandoned_coroutine_ends_its_task_without_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(coroutines, "_abandoned", left)
    stubborn = True

    async def body() -> None:
        while stubborn:
            with suppress(BaseException):
                await anyio.Event().wait()

    started = Started(function(body))
    while not started.began:
        await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    started.body.cancel()
    await anyio.lowlevel.checkpoint()
    assert isinstance(started.body, coroutines.CoroutineRun)
    started.body.abandon()
    with anyio.fail_after(PATIENCE):
        while not left:
            await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert started.outcomes == []
    stubborn = False
    left.pop().close()


class Queue(Executor):
    """Keeps what is submitted."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.given = anyio.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.given.set()
        return self.futures[-1]


@pytest.mark.anyio
async def test_cancel_of_queued_and_running_executor_calls() -> None:
    queue = Queue()
    made = function(plain, executor=queue)
    started = [Started(made, number) for number in (0, 1)]
    queue.futures[1].set_running_or_notify_cancel()
    for one in started:
        one.body.cancel()
    assert await started[0].outcome() == Stopped()
    assert [future.cancelled() for future in queue.futures] == [True, False]
    assert started[1].outcomes == []
    queue.futures[1].set_result("done")
    assert await started[1].outcome() == Returned("done")


@pytest.mark.anyio
async def test_future_cancelled_by_its_executor_is_lost() -> None:
    queue = Queue()
    started = Started(function(plain, executor=queue), 1)
    queue.futures[0].cancel()
    assert isinstance(await started.outcome(), Lost)


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["returns", "raises", "cancelled"])
async def test_ended_coroutine_keeps_no_argument(ends: str) -> None:
    class Argument:
        pass

    async def body(argument: Argument) -> None:
        await anyio.lowlevel.checkpoint()
        if ends == "raises":
            raise ValueError
        if ends == "cancelled":
            started.set()
            await anyio.sleep_forever()

    started = anyio.Event()
    reference = weakref.ref(argument := Argument())
    gc.disable()
    try:
        run = Started(function(body), argument)
        del argument
        if ends == "cancelled":
            await started.wait()
            assert isinstance(run.body, coroutines.CoroutineRun)
            run.body.cancel()
        await run.ended.wait()
        del run
        await anyio.lowlevel.checkpoint()
        if ends == "cancelled" and anyio.get_cancelled_exc_class() is trio.Cancelled:
            gc.collect()  # trio's own frames keep a cancellation
        assert reference() is None
    finally:
        gc.enable()


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_worker_threads_are_reused_and_keep_no_argument() -> None:
    class Argument:
        pass

    used: list[threading.Thread] = []
    argument = Argument()
    reference = weakref.ref(argument)
    made = function(lambda _: used.append(threading.current_thread()), name="f")
    for _ in range(3):
        assert await outcome(made, argument) == Returned(None)
    assert used == [used[0]] * 3
    assert used[0].daemon
    del argument
    gc.collect()
    assert reference() is None


def test_idle_worker_threads_end_with_their_loop(anyio_backend: str) -> None:
    used: list[threading.Thread] = []

    async def main() -> None:
        await outcome(function(lambda: used.append(threading.current_thread()), name="f"))

    anyio.run(main, backend=anyio_backend)
    gc.collect()
    used[0].join(PATIENCE)
    assert not used[0].is_alive()


@pytest.mark.anyio
async def test_idle_worker_threads_end_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    used: list[threading.Thread] = []
    made = function(lambda: used.append(threading.current_thread()), name="f")
    for _ in range(3):
        assert await outcome(made) == Returned(None)
        await anyio.to_thread.run_sync(used[-1].join, PATIENCE)
        assert not used[-1].is_alive()
    assert len({id(thread) for thread in used}) == 3


@pytest.mark.anyio
async def test_worker_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    began: list[int] = []
    made = function(lambda: began.append(1), name="f")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        refused = await outcome(made)
    assert refused == NotStarted("no worker thread could be started: can't start new thread")
    assert began == []
    assert await outcome(made) == Returned(None)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", [ExecutionMode.INLINE, ExecutionMode.EVENT_LOOP, ExecutionMode.THREAD])
async def test_context_of_a_call_is_a_copy_of_the_start_context(mode: ExecutionMode) -> None:
    def body() -> str:
        before = var.get()
        var.set("call")
        return before

    async def in_loop() -> str:
        return body()

    var.set("start")
    runtime = Runtime(spawn)
    var.set("later")
    for _ in range(2):
        if mode is ExecutionMode.INLINE:
            reported: object = function(body, inline=True).run_inline(run(), runtime)
        else:
            made = function(in_loop if mode is ExecutionMode.EVENT_LOOP else body)
            reported = await Started(made, runtime=runtime).outcome()
        assert reported == Returned("start")


@pytest.mark.anyio
async def test_event_loop_in_a_worker_thread(anyio_backend: str) -> None:
    made = function(lambda: anyio.run(coroutine, 1, backend=anyio_backend), name="f")
    assert await outcome(made) == Returned(1)


def test_function_that_outlives_its_loop(anyio_backend: str) -> None:
    used: list[threading.Thread] = []
    go, started = threading.Event(), threading.Event()

    def body() -> None:
        used.append(threading.current_thread())
        started.set()
        go.wait(PATIENCE)

    async def main() -> None:
        Started(function(body))
        assert await anyio.to_thread.run_sync(started.wait, PATIENCE)

    anyio.run(main, backend=anyio_backend)
    go.set()
    gc.collect()
    used[0].join(PATIENCE)
    assert not used[0].is_alive()


@pytest.mark.anyio
async def test_call_soon_threadsafe_runs_in_the_event_loop() -> None:
    call_soon_threadsafe, where, done = threads.get_call_soon_threadsafe(), [], anyio.Event()

    def note() -> None:
        where.append(threading.get_ident())
        if len(where) == 2:
            done.set()

    with anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(call_soon_threadsafe, note)
        call_soon_threadsafe(note)
        await done.wait()
    assert where == [threading.get_ident()] * 2


@pytest.mark.anyio
async def test_built_in_functions() -> None:
    echo, echos = execution.built_in()
    assert (echo.spec.name, echos.spec.name) == ("echo", "echos")
    assert all(one.spec.idempotent and one.mode is ExecutionMode.INLINE for one in (echo, echos))
    assert inline(echo.call, 1) == Returned(1)
    assert inline(echos.call, 1, 2) == Returned([1, 2])


class Rude:
    def __init__(self, says: object) -> None:
        self.says = says

    def __repr__(self) -> str:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        ("x" * 1_000_000, "'" + "x" * 8),
        (b"x" * 1_000_000, "b'xxx"),
        ([0] * 1_000_000, "<list of 1000000 items>"),
        ([[0] * 1_000_000], "[[0, 0, 0"),
        (dict.fromkeys(range(100_000)), "<dict of 100000 items>"),
        (10**5000, "<int>"),
        (Rude("r" * 1_000_000), "rrrrr"),
        (Rude(ValueError("no")), "<Rude>"),
        (Rude(RecursionError("deep")), "<Rude>"),
        (Rude(5), "<Rude>"),
        (Rude("half \ud800"), "half \\ud800"),
        ([1, 2], "[1, 2]"),
        ("y" * 198, "'" + "y" * 198 + "'"),
    ],
    ids=lambda each: "",
)
def test_default_value_in_a_signature_is_cut(default: object, shown: str) -> None:
    def body(a: int, b: object = default, *, c: int = 5) -> None:
        """Do it."""

    signature = function(body).spec.signature
    assert signature.startswith("(a: int, b: object = " + shown)
    assert signature.endswith(", *, c: int = 5) -> None")
    assert len(signature) <= len("(a: int, b: object = , *, c: int = 5) -> None") + 200
    signature.encode()


def test_annotation_and_docstring_are_cut() -> None:
    def body(a: object, b: object) -> None: ...

    body.__annotations__ = {"a": "A" * 10_000, "b": Rude(ValueError("no")), "return": Rude("\udfff" * 999)}
    body.__doc__ = "d" * 10_000 + " \ud800\nmore"
    spec = function(body).spec
    assert spec.doc == "d" * 197 + "..."
    assert len(spec.signature) < 700 and spec.signature.startswith("(a: 'AAA")
    spec.signature.encode()


def test_signature_that_raises_or_is_very_long() -> None:
    class Signed:
        __name__ = "signed"

        @property
        def __signature__(self) -> object:
            raise RuntimeError("no signature")

        def __call__(self) -> None: ...

    assert function(Signed()).spec.signature == "(...)"
    many = eval(f"lambda {', '.join(f'argument_{number}=None' for number in range(1000))}: None")
    assert function(many, name="many").spec.signature == "(...)"


def test_doc_of_a_callable_whose_docstring_raises() -> None:
    class Odd:
        @property
        def __doc__(self) -> str:  # type: ignore[override]
            raise RuntimeError("no text")

        def __call__(self) -> int:
            return 1

    assert function(Odd(), name="odd").spec.doc == ""
