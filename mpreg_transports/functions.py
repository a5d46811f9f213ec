"""The functions that a node offers, and how each is run: in the loop, in a thread, or in an executor.

`Server` registers them, the driver runs them when the core says `Run` and hands back an `Outcome`, which is a value: a
function that raises never raises here. How many bodies may run at once is the core's business (its slots), so nothing
queues here.
"""

from __future__ import annotations

import enum
import inspect
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from reprlib import Repr
from typing import Any

import anyio
import anyio.lowlevel

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Outcome, Raised, Returned, Run, Stopped
from mpreg_transports.threads import poster, threads

ASYNC_CONCURRENCY = 1_024
THREAD_CONCURRENCY = 16
"""How many bodies of one function run at once unless `concurrency=` says otherwise."""
LONGEST_SHOWN = 200
"""Characters of a default value, an annotation, or the first line of a docstring, as every node keeps them."""
LONGEST_SIGNATURE = 4_000
MOST_SHOWN = 50
"""Entries of a container that is a default value; of a larger one only their number is shown."""
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class Way(enum.Enum):
    """How a function is run."""

    INLINE = enum.auto()
    """Within the wake-up that asked for it: for tiny ones that never block."""
    LOOP = enum.auto()
    """`async def`, as a task of the loop."""
    THREAD = enum.auto()
    EXECUTOR = enum.auto()


class Function:
    """One registered function: what the cluster hears of it (`spec`) and how it is called."""

    __slots__ = ("_executor", "call", "spec", "way")

    def __init__(
        self, call: Callable[..., Any], spec: FunctionSpec, *, way: Way, executor: Executor | None = None
    ) -> None:
        self.call = call
        self.spec = spec
        self.way = way
        self._executor = executor

    def run_inline(self, run: Run) -> Outcome:
        """Call it here and now."""
        try:
            return Returned(self.call(*run.args, **run.kwargs))
        except BaseException as error:  # whatever a body raises is its call's error, never the node's end
            return raised(error)

    async def run(self, run: Run, scope: anyio.CancelScope) -> Outcome:
        """Call it and wait for its end. Cancelling `scope` stops a coroutine at its next await, and nothing else."""
        try:
            if self.way is Way.LOOP:
                with scope:
                    return Returned(await self.call(*run.args, **run.kwargs))
                return Stopped()
            if self.way is Way.EXECUTOR:
                return await self._in_executor(run, scope)
            return await threads().run(partial(self._in_thread, run))
        except anyio.get_cancelled_exc_class() as error:
            await anyio.lowlevel.checkpoint_if_cancelled()  # raises again unless it was the body's own doing
            return raised(error)
        except BaseException as error:
            return raised(error)

    def _in_thread(self, run: Run) -> Outcome:
        try:
            return Returned(self.call(*run.args, **run.kwargs))
        except BaseException as error:  # in a thread of ours nothing but the body raises any
            return raised(error)

    async def _in_executor(self, run: Run, scope: anyio.CancelScope) -> Outcome:
        """Cancelling `scope` takes a body out of the executor's queue; one that has begun goes on to its end."""
        assert self._executor is not None
        done = anyio.Event()
        post = poster()
        future = self._executor.submit(self.call, *run.args, **run.kwargs)
        future.add_done_callback(lambda _: post(done.set))  # at once and in this very thread if it is done already
        try:
            with scope:
                await done.wait()
            if scope.cancelled_caught and future.cancel():
                return Stopped()
            await done.wait()
        except BaseException:
            future.cancel()
            raise
        return Returned(future.result())


def function(
    call: Callable[..., Any],
    *,
    name: str | None = None,
    version: str = "",
    resources: Iterable[str] = (),
    idempotent: bool = False,
    concurrency: int | None = None,
    executor: Executor | None = None,
    inline: bool = False,
) -> Function:
    """Look at `call` and say how it will be run. Raises TypeError or ValueError with the fix in words."""
    if not callable(call):
        raise TypeError(f"a function is wanted, not {type(call).__name__}")
    name = name if name is not None else getattr(call, "__name__", "")
    if not name or name == "<lambda>":
        raise ValueError("this function has no name of its own; give it one with name=")
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
    if is_async and (executor is not None or inline):
        raise ValueError(f"{name} is async def: it runs in the loop, not inline or in an executor")
    if inline and executor is not None:
        raise ValueError(f"{name}: inline=True and executor= exclude each other")
    way = Way.LOOP if is_async else Way.INLINE if inline else Way.EXECUTOR if executor is not None else Way.THREAD
    if concurrency is None:
        concurrency = ASYNC_CONCURRENCY if way in (Way.LOOP, Way.INLINE) else THREAD_CONCURRENCY
    if concurrency < 1:
        raise ValueError(f"{name}: concurrency={concurrency}, and at least 1 body must be able to run")
    spec = FunctionSpec(
        name=name,
        version=version,
        resources=tuple(sorted(tags(resources))),
        idempotent=idempotent,
        streaming=False,
        signature=_signature(call),
        doc=_first_line(call),
        concurrency=concurrency,
        inline=inline,
    )
    return Function(call, spec, way=way, executor=executor)


def tags(resources: Iterable[str]) -> frozenset[str]:
    """A set of resources. Raises TypeError for a bare string, which would be taken apart into its letters."""
    if isinstance(resources, str):
        raise TypeError(f'resources="{resources}" is a bare string; write resources={{"{resources}"}}')
    found = frozenset(resources)
    for tag in found:
        if not tag or type(tag) is not str:
            raise TypeError(f"a resource is a non-empty string, not {tag!r}")
    return found


def raised(error: BaseException) -> Raised:
    """What is told of an exception: its type, its text, and where in the user's code it came from."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except Exception as worse:
        text = f"<its text cannot be had: {type(worse).__name__}>"
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without the frame of ours
    lines = traceback.format_exception(kind, error, frames) if frames is not None else []
    return Raised(name, text, "".join(lines))


def echo(value: Any) -> Any:
    """Gives back what it gets."""
    return value


def echos(*values: Any) -> list[Any]:
    """Gives back all that it gets, as a list."""
    return list(values)


def built_in() -> list[Function]:
    """What every node offers."""
    return [function(one, idempotent=True, inline=True) for one in (echo, echos)]


class _Shown:
    """Stands in a signature for a default value or an annotation, with a text that is short and can be sent."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Short(Repr):
    """`repr` of Python's own containers and texts, which stops early instead of being cut when it is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = MOST_SHOWN
        self.maxstring = self.maxlong = self.maxother = 2 * LONGEST_SHOWN


_short = _Short()


def _signature(call: Callable[..., Any]) -> str:
    """The parameters with their defaults, as `inspect.signature` writes them, each default and annotation cut short."""
    try:
        signature = inspect.signature(call)
        parameters = [
            one.replace(default=_shown(one.default), annotation=_annotation(one.annotation))
            for one in signature.parameters.values()
        ]
        found = str(
            signature.replace(parameters=parameters, return_annotation=_annotation(signature.return_annotation))
        )
    except Exception:  # whatever a callable of a user's raises when it is looked at
        return "(...)"
    return found if len(found) <= LONGEST_SIGNATURE else "(...)"


def _shown(default: object) -> object:
    """A default value's stand-in. What formats itself too long, badly or not at all is shown as its type."""
    if default is inspect.Parameter.empty:
        return default
    try:
        kind = type(default)
        if kind in _CONTAINERS and len(default) > MOST_SHOWN:  # type: ignore[arg-type]
            return _Shown(f"<{kind.__name__} of {len(default)} items>")  # type: ignore[arg-type]
        return _Shown(_brief(_short.repr(default) if kind in _CONTAINERS or kind in (str, bytes) else repr(default)))
    except Exception:
        return _Shown(f"<{type.__dict__['__name__'].__get__(type(default))}>")


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    try:
        return _Shown(_brief(inspect.formatannotation(annotation)))
    except Exception:
        return _Shown("...")


def _brief(text: str) -> str:
    """At most 200 characters, which UTF-8 can say."""
    text = str.__getitem__(text, slice(LONGEST_SHOWN + 1)).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _first_line(call: Callable[..., Any]) -> str:
    try:
        doc = inspect.getdoc(call) if getattr(call, "__doc__", None) else None
        lines = doc.strip().splitlines() if doc else []
        return _brief(lines[0]) if lines else ""
    except Exception:
        return ""
