"""The functions that a node offers, and their execution: in the event loop, in a thread, or in an executor.

`Server` registers them. The driver runs them on the core's effect `Run` and returns an `Outcome`, which is a value: a
function that raises never raises here. The core limits how many bodies run at once (its slots), so nothing queues here.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from reprlib import Repr
from typing import Any, Protocol

import anyio.lowlevel
from msgspec.structs import replace

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.describe import exception_text, sendable, short_name
from mpreg_proto.effects import Lost, NotStarted, Outcome, Raised, Returned, Run
from mpreg_transports.functions.contexts import Contexts
from mpreg_transports.functions.coroutines import CoroutineRun, Spawn
from mpreg_transports.functions.exceptions import describe_exception
from mpreg_transports.functions.generators import (
    Deliver,
    GeneratorRun,
    GeneratorTask,
    GeneratorThread,
    is_async_generator,
    is_generator,
)
from mpreg_transports.functions.iterators import ItemIterator, items_parameter, with_iterator
from mpreg_transports.functions.pools import ExecutorSource, Pool, PoolRun
from mpreg_transports.functions.progress import SILENT, Injected, Progress, injected_parameter
from mpreg_transports.functions.threads import Threads, get_call_soon_threadsafe, worker_threads

ASYNC_CONCURRENCY = 1_024
THREAD_CONCURRENCY = 16
"""The number of bodies of one function that run at once, unless `concurrency=` sets another."""
LONGEST_SHOWN = 200
"""The characters that every node keeps of a default value, an annotation, or the first line of a docstring."""
LONGEST_SIGNATURE = 4_000
MOST_SHOWN = 50
"""The entries of a container that is a default value; of a larger one only the number of entries is shown."""
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class ExecutionMode(enum.Enum):
    """The place where a function runs."""

    INLINE = enum.auto()
    """Within the wake-up that brought the call: for tiny functions that never block."""
    EVENT_LOOP = enum.auto()
    """`async def`, as a task of the event loop."""
    THREAD = enum.auto()
    EXECUTOR = enum.auto()


class Runtime:
    """The resources of the event loop that bodies need; the driver creates it when it starts."""

    def __init__(self, spawn: Spawn) -> None:
        """Create it for the running event loop. `spawn` starts a task of the driver; bodies on trio need one."""
        self.contexts: Contexts = Contexts()
        self.threads: Threads = worker_threads()
        self.call_soon_threadsafe: Callable[..., None] = get_call_soon_threadsafe()
        native = anyio.lowlevel.current_token().native_token
        self.loop: asyncio.AbstractEventLoop | None = native if isinstance(native, asyncio.AbstractEventLoop) else None
        self.spawn = spawn


class FunctionRun(Protocol):
    """A running body."""

    def cancel(self) -> None:
        """Request its end. It may go on."""


class ThreadRun:
    """A body in a thread, which nothing can interrupt."""

    def cancel(self) -> None:
        """Do nothing: the body goes on, and its slot stays taken."""


class Function:
    """One registered function: its description in the cluster (`spec`) and the way to call it."""

    __slots__ = ("_default_concurrency", "_plain", "call", "for_processes", "mode", "pool", "progress", "spec")

    def __init__(
        self,
        call: Callable[..., Any],
        spec: FunctionSpec,
        *,
        mode: ExecutionMode,
        pool: Pool | None = None,
        progress: Injected | None = None,
        default_concurrency: bool = False,
    ) -> None:
        self.call: Callable[..., Any] = call
        self.progress: Injected | None = progress
        """The parameter that gets a progress reporter."""
        self.spec: FunctionSpec = spec
        self.mode: ExecutionMode = mode
        self.pool: Pool | None = pool
        self.for_processes: bool = mode is ExecutionMode.THREAD and progress is None and not is_generator(call)
        """True for a `def` function without an executor: it runs in the processes of the node, if that has any.

        Generators and functions that report progress stay in threads, as processes send one result.
        """
        self._default_concurrency = default_concurrency
        self._plain = progress is None and spec.consumes is None
        """True if a body gets the arguments as its caller passed them."""

    def move(self, pool: Pool | None, processes: int) -> None:
        """Run it in the pool with these processes of the node, or in threads (None). Only if `for_processes`."""
        self.pool = pool
        self.mode = ExecutionMode.THREAD if pool is None else ExecutionMode.EXECUTOR
        if self._default_concurrency:
            self.spec = replace(self.spec, concurrency=THREAD_CONCURRENCY if pool is None else processes)

    def arguments(
        self, run: Run, reporter: Progress = SILENT, iterator: ItemIterator | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a body; `iterator` is for a `fed` run.

        Raises TypeError if its caller has passed the reporter's parameter, or no list for that of an iterator.
        """
        args, kwargs = run.args, run.kwargs
        if self._plain:
            return args, kwargs
        if self.spec.consumes is not None:
            args, kwargs = with_iterator(self.spec.consumes, args, kwargs, iterator)
        return (args, kwargs) if self.progress is None else self.progress.add(reporter, args, kwargs)

    def run_inline(self, run: Run, runtime: Runtime, reporter: Progress = SILENT) -> Outcome:
        """Call the function at once, in the calling thread."""
        try:
            args, kwargs = self.arguments(run, reporter)
            return Returned(runtime.contexts.fresh().run(self.call, *args, **kwargs))
        except BaseException as error:  # an exception of a body is its call's error, never the node's end
            return describe_exception(error)

    def start_generator(
        self,
        run: Run,
        runtime: Runtime,
        deliver: Deliver,
        done: Callable[[Outcome], None],
        *,
        on_start: Callable[[], None],
        reporter: Progress = SILENT,
        iterator: ItemIterator | None = None,
    ) -> GeneratorRun | NotStarted | Raised:
        """Start a generator: `deliver` takes its items and `done` its outcome, as in `start`. Or return the outcome."""
        try:
            args, kwargs = self.arguments(run, reporter, iterator)
        except TypeError as error:
            return Raised("TypeError", str(error))
        call = partial(self.call, *args, **kwargs)
        if self.mode is ExecutionMode.EVENT_LOOP:
            task = GeneratorTask(call, deliver, done, demand=run.demand, on_start=on_start)
            task.start(runtime.contexts.fresh(), runtime.loop, runtime.spawn)
            return task
        soon = runtime.call_soon_threadsafe
        thread = GeneratorThread(call, deliver, done, demand=run.demand, call_soon_threadsafe=soon)
        try:
            thread.start(runtime.contexts.for_thread(), runtime.threads)
        except RuntimeError as error:
            return NotStarted(f"no worker thread could be started: {exception_text(error)}")
        return thread

    def start(
        self,
        run: Run,
        runtime: Runtime,
        done: Callable[[Outcome], None],
        *,
        on_start: Callable[[], None],
        reporter: Progress = SILENT,
        iterator: ItemIterator | None = None,
    ) -> FunctionRun | NotStarted | Lost | Raised:
        """Start a body; `done` is called once with its outcome in the event loop's thread. Or return the outcome.

        `on_start` is called when the body begins, where that is known. `done` of a coroutine is called in its task;
        `done` of others is called in a callback of the event loop, where no part of anyio can be used except to set an
        event.
        """
        try:
            args, kwargs = self.arguments(run, reporter, iterator)
        except TypeError as error:
            return Raised("TypeError", str(error))
        if self.mode is ExecutionMode.EVENT_LOOP:
            body = CoroutineRun(partial(self.call, *args, **kwargs), done, on_start=on_start)
            body.start(runtime.contexts.fresh(), runtime.loop, runtime.spawn)
            return body
        if self.mode is ExecutionMode.EXECUTOR:
            return self._start_in_pool(run, runtime, done)
        context = runtime.contexts.for_thread()
        try:
            runtime.threads.start(partial(self._in_thread, args, kwargs, context), done, runtime.call_soon_threadsafe)
        except RuntimeError as error:
            return NotStarted(f"no worker thread could be started: {exception_text(error)}")
        return ThreadRun()

    def _in_thread(self, args: list[Any], kwargs: dict[str, Any], context: Context) -> Outcome:
        try:
            return Returned(context.run(self.call, *args, **kwargs))
        except BaseException as error:  # in a worker thread of this package only the body raises
            return describe_exception(error)

    def _start_in_pool(
        self, run: Run, runtime: Runtime, done: Callable[[Outcome], None]
    ) -> FunctionRun | NotStarted | Lost:
        assert self.pool is not None

        def settle(body: PoolRun, outcome: Outcome) -> None:
            final = body.record_outcome(outcome)
            if final is not None:
                done(final)

        def in_thread(make: Callable[[], Any], made: Callable[[Any], None]) -> None:
            runtime.threads.start(make, made, runtime.call_soon_threadsafe)

        body = self.pool.start(self.call, run.args, run.kwargs, runtime.contexts.for_thread(), in_thread)
        if isinstance(body, PoolRun):
            body.add_done_callback(partial(runtime.call_soon_threadsafe, settle))
        return body


def function(
    call: Callable[..., Any],
    *,
    name: str | None = None,
    version: str = "",
    resources: Iterable[str] = (),
    idempotent: bool = False,
    concurrency: int | None = None,
    queue: int | None = None,
    executor: ExecutorSource | Pool | None = None,
    inline: bool = False,
) -> Function:
    """Return the description of `call` and of its execution. Raises TypeError or ValueError with the fix."""
    if not callable(call):
        raise TypeError(f"expected a callable, got {type(call).__name__}")
    name = name if name is not None else getattr(call, "__name__", "")
    if not name or name == "<lambda>":
        raise ValueError("this function has no name of its own; give it one with name=")
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
    if is_async and (executor is not None or inline):
        raise ValueError(f"{name} is async def: it runs in the event loop, not inline or in an executor")
    if inline and executor is not None:
        raise ValueError(f"{name}: inline=True and executor= exclude each other")
    streaming = is_generator(call)
    if streaming and (executor is not None or inline):
        option = "inline=True" if inline else "executor="
        raise ValueError(
            f"{name} is a generator, which runs in a thread or the event loop of the node, step by step; leave out "
            f"{option}, or return a list"
        )
    progress = injected_parameter(name, call)
    if progress is not None and executor is not None:
        raise ValueError(
            f"{name}: an executor such as a process pool cannot pass on progress; leave out executor=, or the "
            f"parameter {progress.name!r}, which is annotated Progress"
        )
    in_loop = is_async or is_async_generator(call)
    consumes = items_parameter(name, call, progress=progress, is_async=in_loop)
    mode = ExecutionMode.THREAD
    default_concurrency = concurrency is None
    if in_loop:
        mode = ExecutionMode.EVENT_LOOP
    elif inline:
        mode = ExecutionMode.INLINE
    elif executor is not None:
        mode = ExecutionMode.EXECUTOR
    if concurrency is None:
        concurrency = (
            ASYNC_CONCURRENCY if mode in (ExecutionMode.EVENT_LOOP, ExecutionMode.INLINE) else THREAD_CONCURRENCY
        )
    if concurrency < 1:
        raise ValueError(f"{name}: concurrency={concurrency}, and at least 1 body must be able to run")
    if queue is not None and queue < 1:
        raise ValueError(f"{name}: queue={queue}, and at least 1 call must be able to wait")
    pool = executor if isinstance(executor, Pool) or executor is None else Pool(executor)
    if pool is not None:
        pool.check(name, call)
    spec = FunctionSpec(
        name=name,
        version=version,
        resources=tuple(sorted(tags(resources))),
        idempotent=idempotent,
        streaming=streaming,
        signature=_signature(call, None if progress is None else progress.name),
        doc=_first_line(call),
        concurrency=concurrency,
        queue=queue or 0,
        inline=inline,
        consumes=consumes,
    )
    return Function(call, spec, mode=mode, pool=pool, progress=progress, default_concurrency=default_concurrency)


def tags(resources: Iterable[str]) -> frozenset[str]:
    """Return a set of resources. Raises TypeError for a bare string, whose letters would become resources."""
    if isinstance(resources, str):
        raise TypeError(f'resources="{resources}" is a bare string; write resources={{"{resources}"}}')
    found = frozenset(resources)
    for tag in found:
        if not tag or type(tag) is not str:
            raise TypeError(f"a resource is a non-empty string, not {tag!r}")
    return found


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def echos(*values: Any) -> list[Any]:
    """Return all arguments as a list."""
    return list(values)


def built_in() -> list[Function]:
    """Return the functions that every node offers."""
    return [function(one, idempotent=True, inline=True) for one in (echo, echos)]


class _Shown:
    """A replacement of a default value or an annotation in a signature, with a text that is short and can be sent."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Short(Repr):
    """A `repr` of Python's own containers and strings that stops early instead of cutting the complete text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = MOST_SHOWN
        self.maxstring = self.maxlong = self.maxother = 2 * LONGEST_SHOWN


_short = _Short()


def _signature(call: Callable[..., Any], hidden: str | None) -> str:
    """Return the parameters as `inspect.signature` writes them, each default and annotation cut short.

    Callers do not pass the one named `hidden`.
    """
    try:
        signature = inspect.signature(call)
        parameters = [
            one.replace(default=_shown(one.default), annotation=_annotation(one.annotation))
            for one in signature.parameters.values()
            if one.name != hidden
        ]
        found = str(
            signature.replace(parameters=parameters, return_annotation=_annotation(signature.return_annotation))
        )
    except Exception:  # any exception that a user's callable raises when it is inspected
        return "(...)"
    return found if len(found) <= LONGEST_SIGNATURE else "(...)"


def _shown(default: object) -> object:
    """Return the replacement of a default value: its type, if its own text raises; its text, cut short, otherwise."""
    if default is inspect.Parameter.empty:
        return default
    try:
        kind = type(default)
        if kind in _CONTAINERS and len(default) > MOST_SHOWN:  # type: ignore[arg-type]
            return _Shown(f"<{kind.__name__} of {len(default)} items>")  # type: ignore[arg-type]
        text = _short.repr(default) if kind in _CONTAINERS or kind in (str, bytes) else repr(default)
        return _Shown(sendable(text, LONGEST_SHOWN))
    except Exception:
        return _Shown(f"<{short_name(type(default))}>")


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    try:
        return _Shown(sendable(inspect.formatannotation(annotation), LONGEST_SHOWN))
    except Exception:
        return _Shown("...")


def _first_line(call: Callable[..., Any]) -> str:
    try:
        doc = inspect.getdoc(call) if getattr(call, "__doc__", None) else None
        lines = doc.strip().splitlines() if doc else []
        return sendable(lines[0], LONGEST_SHOWN) if lines else ""
    except Exception:
        return ""
