"""One function: how it is looked at when it is registered, and what becomes of a run, whatever its body does."""

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
"""Seconds until what hangs fails. Nothing waits for them."""


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
    """What a driver's task group does on trio."""
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


# -- what is seen of it -----------------------------------------------------------------------------------------------


def test_what_the_cluster_hears_of_it() -> None:
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
def test_how_it_will_run(call: Callable[..., Any], options: dict[str, Any], mode: ExecutionMode) -> None:
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
def test_what_cannot_be(error: type[Exception], text: str, call: Any, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=text):
        function(call, **options)


def test_tags() -> None:
    assert tags(tag for tag in ("a", "b", "a")) == {"a", "b"}
    assert tags(()) == frozenset()
    with pytest.raises(TypeError, match="a resource is a non-empty string, not ''"):
        tags([""])


# -- what becomes of a run --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_values() -> None:
    assert await outcome(function(plain), 1, more=2) == Returned(3)
    assert await outcome(function(coroutine), 1) == Returned(1)
    assert inline(plain, 1) == Returned(1)
    with ThreadPoolExecutor(1) as pool:
        assert await outcome(function(plain, executor=pool), 1, more=2) == Returned(3)


@pytest.mark.anyio
async def test_errors_carry_type_text_and_where_in_the_users_code() -> None:
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
    for told in outcomes:
        assert isinstance(told, Raised)
        assert told.kind.endswith("<locals>.Own")
        assert told.message == "why"
        assert 'raise Own("why")' in told.traceback
    for told in outcomes[:3]:
        assert isinstance(told, Raised)
        assert "mpreg_transports" not in told.traceback
    assert inline(divmod, 1, 0) == Raised("ZeroDivisionError", "integer division or modulo by zero")


@pytest.mark.anyio
async def test_an_exception_whose_text_cannot_be_had() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    def body() -> None:
        raise Mute

    told = await outcome(function(body))
    assert isinstance(told, Raised)
    assert told.message == "<no text: its __str__ raised LookupError>"


@pytest.mark.anyio
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_thread_may_raise_what_ends_a_program(error: type[BaseException]) -> None:
    def body() -> None:
        raise error

    told = await outcome(function(body))
    assert isinstance(told, Raised)
    assert told.kind == error.__name__


class Own(BaseException):
    """Such as test tools and other loops' libraries raise."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    "mode", [ExecutionMode.INLINE, ExecutionMode.EVENT_LOOP, ExecutionMode.THREAD, ExecutionMode.EXECUTOR]
)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Own])
async def test_whatever_a_body_raises_is_its_calls_error(error: type[BaseException], mode: ExecutionMode) -> None:
    def body() -> None:
        raise error("why")

    async def in_loop() -> None:
        raise error("why")

    with ThreadPoolExecutor(1) as pool:
        if mode is ExecutionMode.INLINE:
            told: object = inline(body)
        else:
            made = (
                function(in_loop)
                if mode is ExecutionMode.EVENT_LOOP
                else function(body, executor=pool if mode is ExecutionMode.EXECUTOR else None)
            )
            told = await outcome(made)
    assert isinstance(told, Raised)
    assert (told.kind.rpartition(".")[2], told.message) == (error.__name__, "why")


@pytest.mark.anyio
async def test_a_cancellation_that_is_the_bodys_own_doing_is_its_calls_error() -> None:
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

    told = await outcome(function(body))
    assert isinstance(told, Raised)
    assert told.kind.rpartition(".")[2] in ("CancelledError", "Cancelled")


@pytest.mark.anyio
async def test_cancellation_of_a_coroutine_before_it_begins_and_while_it_waits() -> None:
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
async def test_cancellation_comes_once_so_that_a_body_can_clean_up() -> None:
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
async def test_swallowed_cancellation_keeps_the_slot_and_does_not_spin() -> None:
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
async def test_abandoned_coroutine_ends_its_task_and_tells_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.given = anyio.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.given.set()
        return self.futures[-1]


@pytest.mark.anyio
async def test_cancellation_takes_a_body_out_of_an_executors_queue_and_lets_one_that_has_begun_end() -> None:
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
async def test_future_cancelled_by_others_leaves_the_outcome_unknown() -> None:
    queue = Queue()
    started = Started(function(plain, executor=queue), 1)
    queue.futures[0].cancel()
    assert isinstance(await started.outcome(), Lost)


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["returns", "raises", "cancelled"])
async def test_a_coroutine_that_has_ended_keeps_no_argument(ends: str) -> None:
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
    gone = weakref.ref(argument := Argument())
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
        assert gone() is None
    finally:
        gc.enable()


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_threads_are_used_again_forget_what_they_ran_and_end_with_their_loop() -> None:
    class Argument:
        pass

    used: list[threading.Thread] = []
    argument = Argument()
    gone = weakref.ref(argument)
    made = function(lambda _: used.append(threading.current_thread()), name="f")
    for _ in range(3):
        assert await outcome(made, argument) == Returned(None)
    assert used == [used[0]] * 3
    assert used[0].daemon
    del argument
    gc.collect()
    assert gone() is None


def test_idle_threads_end_when_their_loop_is_gone(anyio_backend: str) -> None:
    used: list[threading.Thread] = []

    async def main() -> None:
        await outcome(function(lambda: used.append(threading.current_thread()), name="f"))

    anyio.run(main, backend=anyio_backend)
    gc.collect()
    used[0].join(PATIENCE)
    assert not used[0].is_alive()


@pytest.mark.anyio
async def test_idle_threads_end_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    used: list[threading.Thread] = []
    made = function(lambda: used.append(threading.current_thread()), name="f")
    for _ in range(3):
        assert await outcome(made) == Returned(None)
        await anyio.to_thread.run_sync(used[-1].join, PATIENCE)
        assert not used[-1].is_alive()
    assert len({id(thread) for thread in used}) == 3


@pytest.mark.anyio
async def test_a_thread_that_cannot_be_started_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
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
async def test_context_of_a_call_is_the_starts_and_its_own(mode: ExecutionMode) -> None:
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
            told: object = function(body, inline=True).run_inline(run(), runtime)
        else:
            made = function(in_loop if mode is ExecutionMode.EVENT_LOOP else body)
            told = await Started(made, runtime=runtime).outcome()
        assert told == Returned("start")


@pytest.mark.anyio
async def test_a_thread_may_run_an_event_loop_of_its_own(anyio_backend: str) -> None:
    made = function(lambda: anyio.run(coroutine, 1, backend=anyio_backend), name="f")
    assert await outcome(made) == Returned(1)


def test_a_body_that_outlives_its_loop_disturbs_nobody(anyio_backend: str) -> None:
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
async def test_what_a_thread_posts_is_done_in_the_loop() -> None:
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
def test_a_default_value_is_cut_before_the_cluster_keeps_it(default: object, shown: str) -> None:
    def body(a: int, b: object = default, *, c: int = 5) -> None:
        """Do it."""

    signature = function(body).spec.signature
    assert signature.startswith("(a: int, b: object = " + shown)
    assert signature.endswith(", *, c: int = 5) -> None")
    assert len(signature) <= len("(a: int, b: object = , *, c: int = 5) -> None") + 200
    signature.encode()


def test_an_annotation_and_a_docstring_are_cut_too() -> None:
    def body(a: object, b: object) -> None: ...

    body.__annotations__ = {"a": "A" * 10_000, "b": Rude(ValueError("no")), "return": Rude("\udfff" * 999)}
    body.__doc__ = "d" * 10_000 + " \ud800\nmore"
    spec = function(body).spec
    assert spec.doc == "d" * 197 + "..."
    assert len(spec.signature) < 700 and spec.signature.startswith("(a: 'AAA")
    spec.signature.encode()


def test_a_signature_that_raises_or_is_very_long() -> None:
    class Signed:
        __name__ = "signed"

        @property
        def __signature__(self) -> object:
            raise RuntimeError("no signature")

        def __call__(self) -> None: ...

    assert function(Signed()).spec.signature == "(...)"
    many = eval(f"lambda {', '.join(f'argument_{number}=None' for number in range(1000))}: None")
    assert function(many, name="many").spec.signature == "(...)"
