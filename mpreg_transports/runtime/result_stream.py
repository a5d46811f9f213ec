"""The objects in a client that wait for replies: of one request, or of the leaves of a streamed graph.

`Client` creates them when it submits a request and adds replies as they arrive; the caller waits here. This module does
not use links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice
from typing import Any, Never

import anyio

from mpreg_proto.client import Reply
from mpreg_proto.errors import ErrorCode, Fault, exception_for
from mpreg_proto.wire.messages import CallProgress, Done, Request, Result
from mpreg_transports.background import LoopAffinity
from mpreg_transports.functions.progress import ProgressReport
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.runtime import logs

log: logs.NodeLog = logs.get(__name__)


class ReplyWaiter:
    """One request that waits for its reply; a stream gets several. `on_progress` gets the progress of its calls."""

    __slots__ = ("_on_progress", "event", "replies")

    def __init__(self, on_progress: Callable[[ProgressReport], object] | None = None) -> None:
        self.event: anyio.Event = anyio.Event()
        self.replies: list[Reply] = []
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


class ResultStream(AsyncGenerator[tuple[str, Any], None]):
    """Each leaf's (name, value) as soon as it arrives.

    The first `asend` submits the request. When the stream is left, closed or garbage-collected, it cancels what still
    runs. It is a hand-written generator: when a loop over one of Python's own is left, that is cleaned up late, and on
    trio with a warning.
    """

    def __init__(self, start: StartRequest, decode: Callable[[bytes], Any], request: Request) -> None:
        """Create the stream. It ends without an error only when every leaf of `request` has arrived."""
        self._start_request = start
        self._missing = dict.fromkeys(leaf_names(request))
        self._fault: Fault | None = None
        """The reason why a leaf has no value; its request may still go on."""
        self._decode = decode
        self._waiter: ReplyWaiter | None = None
        self._drop: Callable[[], None] | None = None
        """Set while the request runs."""
        self._call_soon_threadsafe: Callable[..., None] | None = None
        self._affinity: LoopAffinity | None = None
        self._rows: deque[Done] = deque()
        self._result: Result | None = None
        self._closed = False

    async def asend(self, value: None) -> tuple[str, Any]:
        """Return the next leaf.

        Raises the error with which the request ended. If it is cancelled, the stream is closed.
        """
        if self._affinity is not None:
            self._affinity.check("this stream")
        while not self._closed:
            if self._rows:
                row = self._rows.popleft()
                return row.name, self._decode(row.value)
            if self._result is not None:
                await self.aclose()
                fault = self._result.fault or self._fault
                if fault is None and self._missing:
                    names = ", ".join(map(repr, islice(self._missing, 5)))
                    fault = Fault(ErrorCode.INTERNAL, f"the node ended the request without a result of {names}")
                if fault is not None:
                    raise exception_for(fault)
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
        replies, waiter.replies = waiter.replies, []
        for result in replies:
            assert isinstance(result, Result)
            self._rows.extend(result.done)
            for row in result.done:
                self._missing.pop(row.name, None)
            if result.failed and self._fault is None:
                self._fault = result.failed[0].fault
            if result.last:
                self._result = result

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


def leaf_names(request: Request) -> Iterable[str]:
    """Return the calls whose results a request returns: those that it names, else its leaves."""
    if request.want is not None:
        return request.want
    names = dict.fromkeys([call.name for call in request.calls])
    for call in request.calls:
        for dependency in call.dependencies:
            names.pop(dependency, None)
    return names
