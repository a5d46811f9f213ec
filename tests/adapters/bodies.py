"""The functions of a run, in every way that exists, and the ledger in which each body records what it meets.

Bodies of plain functions cannot wait in virtual time. So a "thread" is a task that calls the body at a drawn moment and
delivers its result at another one; an executor works in the same way.
"""

from __future__ import annotations

import asyncio
import decimal
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from random import Random
from typing import Any
from weakref import WeakSet

import anyio
import trio
from anyio.abc import TaskGroup

from mpreg_proto.requests.worker import ITEM_WINDOW
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.functions.generators import GeneratorThread
from mpreg_transports.values import codec as plain_codec
from tests.adapters.loops import now

OWNER: ContextVar[str] = ContextVar("owner")
"""The server in whose context a body runs; a body puts its own call there."""
LIVE: WeakSet[Any] = WeakSet()
"""The arguments and results that still have a reference."""
WAYS = ("inline", "async", "thread", "executor", "stdlib", "made")
"""Executors are given (`executor`, `stdlib`), or a function that makes one (`made`)."""
DIGITS = 28
"""The precision of the decimal context in which a server is started; each body changes its own."""


class Parcel:
    """A value whose release can be seen."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        LIVE.add(self)

    def __repr__(self) -> str:
        return f"Parcel({self.data[:20]!r})"


def codec() -> ValueCodec:
    """Return the codec of nodes and clients of a run."""
    made = plain_codec()
    made.register(
        100,
        Parcel,
        lambda parcel: parcel.data,
        lambda data: Parcel(bytes(data)),
        json=lambda parcel: parcel.data.decode("latin-1"),
    )
    return made


class Wanted(ValueError):
    """Raised by a body because its argument asks for it."""


class Start:
    """One start of a body."""

    def __init__(self, spec: dict[str, Any], function: str, server: str, at: float) -> None:
        self.call: str = spec["call"]
        self.cleanup: float = spec["cleanup"]
        self.function = function
        self.server = server
        self.at = at
        self.ended: float | None = None
        self.cancelled_at: float | None = None
        self.delivered: float | None = None
        """The time at which its node gets the outcome: later than its end where it runs in a thread or an executor."""

    @property
    def cancelled(self) -> bool:
        return self.cancelled_at is not None


class Ledger:
    """The starts of all bodies of a run, and what they saw that must not be."""

    def __init__(self, trace: Callable[[str], None]) -> None:
        self.starts: dict[str, list[Start]] = {}
        self.running: dict[Start, None] = {}
        self.wrong: list[str] = []
        self.taken: dict[str, int] = {}
        """The items of each call of a generator that its client has used."""
        self._trace = trace
        self.changed = anyio.Event()
        self.latest: Start | None = None

    def begin(self, spec: dict[str, Any], function: str, server: str, *, isolated: bool = True) -> Start:
        """Record a start. A body is `isolated` if it has a context of its own."""
        call = spec["call"]
        if isolated:
            if decimal.getcontext().prec != DIGITS:
                self.wrong.append(f"{function} for {call} on {server} began with the decimal context of another call")
            decimal.getcontext().prec = 4
        if len(spec["pad"]) != spec["pad_size"]:
            self.wrong.append(f"{function} for {call} on {server} got an argument of {len(spec['pad'])} characters")
        owner = OWNER.get("nobody")
        if owner != f"node {server}":
            self.wrong.append(f"{function} for {call} on {server} began in the context of {owner!r}")
        OWNER.set(call)
        self.latest = start = Start(spec, function, server, now())
        self.starts.setdefault(call, []).append(start)
        self.running[start] = None
        self._trace(f"{server} begins {function} for {call}")
        changed, self.changed = self.changed, anyio.Event()
        changed.set()
        return start

    def end(self, start: Start, how: str) -> None:
        if OWNER.get("nobody") != start.call:
            self.wrong.append(f"{start.function} for {start.call} ended in the context of {OWNER.get('nobody')!r}")
        start.ended = start.delivered = now()
        self.running.pop(start, None)
        self._trace(f"{start.server} ends {start.function} for {start.call}: {how}")


def result(call: str, number: int, inputs: list[int], size: int) -> dict[str, Any]:
    """Return what each function returns: the same wherever it runs."""
    return {"call": call, "number": number * 3 + sum(inputs) + 1, "parcel": Parcel(b"r" * size)}


def body(ledger: Ledger, way: str, function: str, server: str) -> Callable[..., Any]:
    """Return the function of that name as `server` offers it."""

    def finish(start: Start, spec: dict[str, Any], inputs: list[int]) -> dict[str, Any]:
        if spec["raises"]:
            ledger.end(start, "raises")
            raise Wanted(spec["call"])
        ledger.end(start, "returns")
        return result(spec["call"], spec["number"], inputs, spec["size"])

    def plain(spec: dict[str, Any], *inputs: int) -> dict[str, Any]:
        start = ledger.begin(spec, function, server, isolated=way != "executor")
        return finish(start, spec, list(inputs))

    async def coroutine(spec: dict[str, Any], *inputs: int) -> dict[str, Any]:
        start = ledger.begin(spec, function, server)
        try:
            await anyio.sleep(spec["seconds"])
        except anyio.get_cancelled_exc_class():
            start.cancelled_at = now()
            if spec["cleanup"]:
                try:
                    await anyio.sleep(spec["cleanup"])
                except anyio.get_cancelled_exc_class():
                    ledger.wrong.append(f"{function} for {start.call} was cancelled twice")
                    raise
            if spec["swallows"]:
                return finish(start, spec, list(inputs))
            raise
        finally:
            if start in ledger.running and start.cancelled:
                ledger.end(start, "cancelled")
        return finish(start, spec, list(inputs))

    return coroutine if way == "async" else plain


def generator(ledger: Ledger, function: str, server: str) -> Callable[..., Any]:
    """Return a generator of numbers; its last item is the result that `body` returns."""

    async def items(spec: dict[str, Any], many: int) -> AsyncIterator[Any]:
        start = ledger.begin(spec, function, server)
        try:
            for number in range(many):
                await anyio.sleep(spec["seconds"] / many)
                if number - ledger.taken.get(start.call, 0) > ITEM_WINDOW:
                    ledger.wrong.append(f"{function} for {start.call} produced {number} items that nobody has used")
                yield number
            if not spec["raises"]:
                yield result(spec["call"], spec["number"], [], spec["size"])
        except (GeneratorExit, asyncio.CancelledError, trio.Cancelled):
            with suppress(RuntimeError):  # it was abandoned, and is collected after its run
                start.cancelled_at = now()
            if start.cancelled_at is None:
                raise
            try:
                await anyio.sleep(spec["cleanup"])
            except anyio.get_cancelled_exc_class():
                ledger.wrong.append(f"{function} for {start.call} was cancelled twice")
                raise
            raise
        finally:
            if start.cancelled:
                ledger.end(start, "cancelled")
        ledger.end(start, "raises" if spec["raises"] else "returns")
        if spec["raises"]:
            raise Wanted(spec["call"])

    return items


def plain_generator(ledger: Ledger, function: str, server: str) -> Callable[..., Any]:
    """Return the same as a plain function: its items take no time, and what is between them is drawn by the threads."""

    def items(spec: dict[str, Any], many: int) -> Iterator[Any]:
        start, how = ledger.begin(spec, function, server), "cancelled"
        try:
            for number in range(many):
                if number - ledger.taken.get(start.call, 0) > ITEM_WINDOW:
                    ledger.wrong.append(f"{function} for {start.call} produced {number} items that nobody has used")
                yield number
            if spec["raises"]:
                how = "raises"
                raise Wanted(spec["call"])
            yield result(spec["call"], spec["number"], [], spec["size"])
            how = "returns"
        except GeneratorExit:
            start.cancelled_at = now()
            raise
        finally:
            ledger.end(start, how)

    return items


class VirtualThreads:
    """Threads as tasks of the event loop: `Threads` of mpreg_transports/functions/threads.py."""

    def __init__(self, tasks: TaskGroup, draw: Random, ledger: Ledger) -> None:
        self._tasks = tasks
        self._draw = draw
        self._ledger = ledger
        self.busy = 0
        self.refuses = 0.0
        """The share of calls for which no thread can be started."""

    def start(self, call: Callable[[], Any], done: Callable[[Any], None], soon: Callable[..., None]) -> None:
        if self._draw.random() < self.refuses:
            raise RuntimeError("can't start new thread")
        self.busy += 1
        self._tasks.start_soon(self._run, call, done, soon)

    async def _run(self, call: Callable[[], Any], done: Callable[[Any], None], soon: Callable[..., None]) -> None:
        OWNER.set("a thread")  # a real one has a context of its own
        await anyio.sleep(self._draw.choice((0.0, 0.0001, 0.02)))
        self._ledger.latest = None
        generator = getattr(call, "__self__", None)
        outcome = generator.advance() if isinstance(generator, GeneratorThread) else call()
        start, self._ledger.latest = self._ledger.latest, None
        if isinstance(generator, GeneratorThread) and outcome is None:
            outcome = await self._finish(generator)
        if start is not None:
            start.delivered = None
        del call, generator
        await anyio.sleep(drawn_seconds(self._draw))
        self.busy -= 1
        if start is not None:
            start.delivered = now()
        soon(done, outcome)

    async def _finish(self, generator: GeneratorThread) -> Any:
        """Let a generator go on each time that items are wanted, or that it is to be closed; return its outcome."""
        while True:
            if not generator.is_ready:
                changed = anyio.Event()
                generator.on_change = changed.set
                await changed.wait()
                generator.on_change = None
            await anyio.sleep(self._draw.choice((0.0, 0.0001, 0.02)))
            outcome = generator.advance()
            if outcome is not None:
                return outcome


class VirtualExecutor(Executor):
    """An executor of `size` workers in virtual time, which may break."""

    def __init__(self, tasks: TaskGroup, draw: Random, ledger: Ledger) -> None:
        self._tasks = tasks
        self._draw = draw
        self._ledger = ledger
        self._free = anyio.Semaphore(draw.choice((1, 2, 8)))
        self.broken = False
        self.refuses = False
        """True if it refuses single calls: its queue is full for a while."""
        self.refused = 0
        """The number of calls that it refused because it is broken."""
        self.busy = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.broken:
            self.refused += 1
            raise BrokenExecutor("it broke")
        if self.refuses and self._draw.random() < 0.7:
            raise queue.Full
        future: Future[Any] = Future()
        self._tasks.start_soon(self._run, future, lambda: fn(*args, **kwargs))
        return future

    async def _run(self, future: Future[Any], call: Callable[[], Any]) -> None:
        self.busy += 1
        if isinstance(self, ThreadPoolExecutor):
            OWNER.set("a thread")
        async with self._free:
            await anyio.sleep(self._draw.choice((0.0, 0.001)))
            if self.broken:
                if future.set_running_or_notify_cancel():
                    future.set_exception(BrokenExecutor("it broke"))
            elif future.set_running_or_notify_cancel():
                value, error = None, None
                self._ledger.latest = None
                token = OWNER.set(OWNER.get("nobody"))
                try:
                    value = call()
                except Exception as raised:
                    error = raised
                OWNER.reset(token)
                start, self._ledger.latest = self._ledger.latest, None
                if start is not None:
                    start.delivered = None
                del call
                await anyio.sleep(drawn_seconds(self._draw))
                if self.broken:
                    error = BrokenExecutor("it broke")
                elif start is not None:
                    start.delivered = now()
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)
        self.busy -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.broken = True


class VirtualThreadPool(VirtualExecutor, ThreadPoolExecutor):
    """The same as an executor of the standard library, which gets a call with its context."""


def drawn_seconds(draw: Random) -> float:
    """Return the seconds that a body takes; often the same, so that bodies and timeouts end at one moment."""
    kind = draw.random()
    if kind < 0.3:
        return 0.0
    if kind < 0.7:
        return round(draw.random() * 0.05, 2)
    return round(draw.random() * (2.0 if kind < 0.95 else 12.0), 1)
