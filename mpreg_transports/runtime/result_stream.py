"""The objects in a client that wait for replies: of one request, of the leaves of a streamed graph, or of a generator.

`Client` creates them when it submits a request and adds replies as they arrive; the caller waits here. This module does
not use links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice
from typing import Any, Final, Never, TypeVar

import anyio
import msgspec

from mpreg_proto.client import Reply
from mpreg_proto.describe import short_name
from mpreg_proto.errors import ErrorCode, Fault, exception_for
from mpreg_proto.requests.worker import ITEM_WINDOW
from mpreg_proto.wire.messages import CallProgress, Done, Request, Result
from mpreg_transports.background import LoopAffinity
from mpreg_transports.functions.progress import ProgressReport
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.runtime import logs

T = TypeVar("T")
log: logs.NodeLog = logs.get(__name__)


class ReplyWaiter:
    """One request that waits for its reply; a stream gets several. `on_progress` gets the progress of its calls."""

    __slots__ = ("_on_progress", "event", "items", "replies", "take")

    def __init__(self, on_progress: Callable[[ProgressReport], object] | None = None) -> None:
        self.event: anyio.Event = anyio.Event()
        self.replies: list[Reply] = []
        self.items: list[bytes] = []
        """The items of a generator that have arrived."""
        self.take: Callable[[int], None] = lambda count: None
        """Lets the node send so many more items."""
        self._on_progress = on_progress

    def report(self, one: CallProgress) -> None:
        """Pass on how far a call is.

        A callback that raises is logged and not called again: the call itself goes on.
        """
        on_progress = self._on_progress
        if on_progress is None:
            return
        try:
            on_progress(ProgressReport(one.done, one.total, one.text, one.call, one.function, one.node))
        except Exception:
            self._on_progress = None
            log.exception("on_progress raised and is not called again for this request, which goes on")


StartRequest = Callable[[], tuple[ReplyWaiter, Callable[[], None]]]
"""Submits the request, in the event loop. Returns the waiter of its replies and a function that drops the request."""


class ReplyStream(AsyncGenerator[T, None]):
    """The pieces that arrive for one request.

    The first `asend` submits the request. When the stream is left, closed or garbage-collected, it cancels what still
    runs. It is a hand-written generator: when a loop over one of Python's own is left, that is cleaned up late, and on
    trio with a warning.
    """

    def __init__(self, start: StartRequest) -> None:
        self._start_request = start
        self._waiter: ReplyWaiter | None = None
        self._drop: Callable[[], None] | None = None
        """Set while the request runs."""
        self._call_soon_threadsafe: Callable[..., None] | None = None
        self._affinity: LoopAffinity | None = None
        self._pieces: deque[Any] = deque()
        self._result: Result | None = None
        """The last reply."""
        self._closed = False

    def _receive(self, waiter: ReplyWaiter) -> None:
        """Take what has arrived."""
        raise NotImplementedError

    def _next(self) -> T:
        """Return the next piece."""
        raise NotImplementedError

    def _check(self, result: Result) -> None:
        """Raise the error with which the request ended, if it did."""
        raise NotImplementedError

    async def asend(self, value: None) -> T:
        """Return the next piece.

        Raises the error with which the request ended. If it is cancelled, the stream is closed.
        """
        if self._affinity is not None:
            self._affinity.check("this stream")
        while not self._closed:
            if self._pieces:
                return self._next()
            if self._result is not None:
                await self.aclose()
                self._check(self._result)
            else:
                await self._more()
        raise StopAsyncIteration

    async def _more(self) -> None:
        if self._waiter is None:
            self._waiter, self._drop = self._start_request()
            self._affinity, self._call_soon_threadsafe = LoopAffinity(), get_call_soon_threadsafe()
        waiter = self._waiter
        try:
            await waiter.event.wait()
        except BaseException:
            await self.aclose()
            raise
        waiter.event = anyio.Event()
        self._receive(waiter)

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Never:
        """Close the stream and raise."""
        await self.aclose()
        raise typ if val is None else val

    async def aclose(self) -> None:
        """Close the stream and drop the request. Never waits."""
        self._closed = True
        drop, self._drop = self._drop, None
        if drop is not None:
            drop()

    def forget(self) -> None:
        """Close the stream from any thread at any moment, also during garbage collection. Never waits."""
        self._closed = True
        drop, self._drop = self._drop, None
        if drop is not None and self._call_soon_threadsafe is not None:
            self._call_soon_threadsafe(drop)

    def __del__(self) -> None:
        self.forget()


class ResultStream(ReplyStream[tuple[str, Any]]):
    """Each leaf's (name, value) as soon as it arrives."""

    def __init__(self, start: StartRequest, decode: Callable[[bytes], Any], request: Request) -> None:
        """Create the stream. It ends without an error only when every leaf of `request` has arrived."""
        super().__init__(start)
        self._missing = dict.fromkeys(leaf_names(request))
        self._fault: Fault | None = None
        """The reason why a leaf has no value; its request may still go on."""
        self._decode = decode

    def _receive(self, waiter: ReplyWaiter) -> None:
        replies, waiter.replies = waiter.replies, []
        for result in replies:
            assert isinstance(result, Result)
            self._pieces.extend(result.done)
            for row in result.done:
                self._missing.pop(row.name, None)
            if result.failed and self._fault is None:
                self._fault = result.failed[0].fault
            if result.last:
                self._result = result

    def _next(self) -> tuple[str, Any]:
        row: Done = self._pieces.popleft()
        return row.name, self._decode(row.value)

    def _check(self, result: Result) -> None:
        fault = result.fault or self._fault
        if fault is None and self._missing:
            names = ", ".join(map(repr, islice(self._missing, 5)))
            fault = Fault(ErrorCode.INTERNAL, f"the node ended the request without a result of {names}")
        if fault is not None:
            raise exception_for(fault)


_TAKEN_TOGETHER: Final = ITEM_WINDOW // 2
"""The items after whose use the node gets credit for as many new ones."""


class ItemStream(ReplyStream[Any]):
    """The items of one generator, in order.

    At most 16 of them are on their way or waiting here; then the generator waits.
    """

    def __init__(self, start: StartRequest, decode: Callable[[bytes], Any], function: str) -> None:
        super().__init__(start)
        self._decode = decode
        self._function = function
        self._taken = 0
        """The items that were used since the node got credit last."""

    def _receive(self, waiter: ReplyWaiter) -> None:
        items, waiter.items = waiter.items, []
        self._pieces.extend(items)
        for result in waiter.replies:
            assert isinstance(result, Result)
            self._result = result

    def _next(self) -> Any:
        piece = self._pieces.popleft()
        if isinstance(piece, _Whole):
            return piece.item
        self._taken += 1
        if self._taken >= _TAKEN_TOGETHER and self._result is None:
            assert self._waiter is not None
            self._waiter.take(self._taken)
            self._taken = 0
        return self._decode(piece)

    def _check(self, result: Result) -> None:
        if result.fault is not None:
            raise exception_for(result.fault)
        whole = [row.value for row in result.done if row.value]
        if not whole:
            return
        made = self._decode(whole[0])
        if type(made) not in (list, tuple):
            kind = short_name(type(made))
            raise TypeError(f"{self._function!r} is no generator: it returned {kind}; use client.call")
        self._pieces.extend(map(_Whole, made))
        self._result, self._closed = msgspec.structs.replace(result, done=()), False


class _Whole:
    """An item that came in one list with all others."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


def leaf_names(request: Request) -> Iterable[str]:
    """Return the calls whose results a request returns: those that it names, else its leaves."""
    if request.want is not None:
        return request.want
    names = dict.fromkeys([call.name for call in request.calls])
    for call in request.calls:
        for dependency in call.dependencies:
            names.pop(dependency, None)
    return names
