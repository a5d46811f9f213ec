"""A blocking counterpart of `Client`, for scripts, notebooks and programs with threads.

A `SyncClient` has an event loop in a thread of its own, in which an ordinary `Client` lives. Each method here starts
the coroutine of the same name in that thread and waits for it. So the protocol is not implemented twice, and only its
own thread touches the client. No lock is held during a wait. Code that the garbage collector calls takes no lock, as it
may run in any thread at any moment.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import finalize, ref

import anyio
from anyio import CancelScope
from anyio.from_thread import BlockingPortal

from mpreg_proto.errors import Cancelled, DeadlineExceeded
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Explained, Request
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.client import Client, GraphResult, OnProgress, nanoseconds
from mpreg_transports.config.validation import check_backend
from mpreg_transports.functions.fork_safety import notify_on_fork
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.graph import Graph, Handle, OnError
from mpreg_transports.runtime.clock import clock
from mpreg_transports.runtime.result_stream import ReplyStream
from mpreg_transports.security.secret import Secret
from mpreg_transports.values import default_codec

__all__ = ["SyncClient", "SyncGraph"]

T = TypeVar("T")

_CLOSING_SECONDS = 10.0
"""The seconds for which `close` waits for the thread; closing a link takes 4 s at most."""


class SyncClient:
    """A client that calls functions of a cluster and waits for their results.

    Arguments and methods are those of `Client`. Use it as `with SyncClient(url) as client`, or call `close()` at the
    end. Without `with` the first call connects, within its timeout. Several threads may use one client; each waits only
    for its own calls. Ctrl-C during a call cancels the call. In a forked child it connects again. `backend` is the
    event loop inside, "asyncio" or "trio".
    """

    def __init__(
        self,
        *urls: str,
        cluster_id: str = "",
        name: str = "",
        wait: float = 0.0,
        secret: Secret | str | None = None,
        secret_file: str | os.PathLike[str] | None = None,
        codec: ValueCodec | None = None,
        limits: Limits = DEFAULT,
        backend: str = "asyncio",
    ) -> None:
        self._codec = codec or default_codec()
        check_backend(backend)
        self._make = partial(
            Client,
            *urls,
            cluster_id=cluster_id,
            name=name,
            wait=wait,
            secret=secret,
            secret_file=secret_file,
            codec=self._codec,
            limits=limits,
        )
        self._client = self._make()
        self._backend = backend
        # Held while a call is passed to the event loop, so that none is passed to an event loop that is ending.
        # Re-entrant, as a signal handler may make a call while it is held.
        self._lock = threading.RLock()
        self._loop: _LoopThread | None = None
        self._finalizer: finalize[..., SyncClient] | None = None
        self._closed = False
        client = ref(self)
        # A client that is never closed closes its connection in order when its program ends.
        self._at_exit = lambda: client() and client().close()  # type: ignore[union-attr]
        notify_on_fork(self)

    # -- life ---------------------------------------------------------------------------------------------------------

    def connect(self) -> Self:
        """Connect; does nothing if connected.

        Raises NotConnected if no address answers (a later call may succeed), RuntimeError after `close`.
        """
        self._wait(_no_op)
        return self

    def __enter__(self) -> Self:
        """See `connect`."""
        return self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. A second call does nothing.

        Calls that other threads wait for raise OutcomeUnknown, or Cancelled if there was no link to send them on.
        """
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            forget, self._finalizer = self._finalizer, None
        atexit.unregister(self._at_exit)
        if loop is not None and forget is not None:
            forget.detach()
            loop.stop()
            loop.wait()

    def on_fork(self) -> None:
        """Reset the client in a forked child: the thread and the connection belong to the parent."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        if self._finalizer is not None:
            self._finalizer.detach()
        self._loop = self._finalizer = None
        self._client = self._make()
        notify_on_fork(self)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses that it tries in turn."""
        return self._client.urls

    @property
    def node(self) -> str:
        """The name of the connected node; empty while there is none."""
        return self._client.node

    @property
    def version(self) -> int:
        """The protocol version agreed on with the connected node; 0 while there is none."""
        return self._client.version

    @property
    def is_open(self) -> bool:
        """True if it is connected, so that a call need not connect first."""
        return self._client.is_open

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        function: str,
        /,
        *args: Any,
        resources: Iterable[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        retry: bool = False,
        version: str | None = None,
        on_progress: OnProgress | None = None,
        **more: Any,
    ) -> Any:
        """Return the result of one call. Seconds, errors and keywords are those of `Client.call`.

        `on_progress` is called in the client's own thread.
        """
        options = {"resources": resources, "kwargs": kwargs, "wait": wait, "retry": retry, "version": version, **more}
        options["on_progress"] = on_progress
        return self._wait(
            lambda client, remaining: client.call(function, *args, timeout=remaining, **options), timeout=timeout
        )

    def items(
        self,
        function: str,
        /,
        *args: Any,
        resources: Iterable[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        version: str | None = None,
        on_progress: OnProgress | None = None,
        **more: Any,
    ) -> Iterator[Any]:
        """Call a generator and yield its items as it produces them. See `Client.items`."""
        options = {"resources": resources, "kwargs": kwargs, "wait": wait, "version": version, **more}
        options["on_progress"] = on_progress
        return self._pieces(
            lambda client, remaining: client.items(function, *args, timeout=remaining, **options), timeout
        )

    def graph(self) -> SyncGraph:
        """Return an empty graph that this client runs."""
        return SyncGraph(self, codec=self._codec)

    def run(
        self,
        graph: Graph,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        retry: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run a graph and return `{leaf name: value}`; with one handle its value, with several a tuple of values."""
        return self._wait(
            lambda client, remaining: client.run(
                graph,
                *outputs,
                timeout=remaining,
                wait=wait,
                on_error=on_error,
                retry=retry,
                on_progress=on_progress,
            ),
            timeout=timeout,
        )

    def answer(
        self,
        graph: Graph | Request,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        trace: bool = False,
        retry: bool = False,
        on_progress: OnProgress | None = None,
    ) -> GraphResult:
        """Run a graph or a hand-made request, and return its complete result."""
        return self._wait(
            lambda client, remaining: client.answer(
                graph,
                *outputs,
                timeout=remaining,
                wait=wait,
                on_error=on_error,
                trace=trace,
                retry=retry,
                on_progress=on_progress,
            ),
            timeout=timeout,
        )

    def stream(
        self, graph: Graph, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run a graph and yield each leaf's (name, value) as soon as it arrives. Leaving the loop cancels the rest."""
        return self._pieces(lambda client, remaining: client.stream(graph, timeout=remaining, wait=wait), timeout)

    def _pieces(self, start: Callable[[Client, float | None], ReplyStream[T]], timeout: float | None) -> Iterator[T]:
        """Yield what a stream of the client yields; it starts with the first piece."""
        streams: list[ReplyStream[T]] = []

        async def next_piece(client: Client, remaining: float | None) -> list[T]:
            if not streams:
                streams.append(start(client, remaining))
            try:
                return [await anext(streams[0])]
            except StopAsyncIteration:
                return []

        try:
            while piece := self._wait(next_piece, timeout=None if streams else timeout):
                yield piece[0]
        finally:
            for stream in streams:
                stream.forget()

    def explain(self, graph: Graph | Request) -> tuple[Explained, ...]:
        """Return for each call its node, or the equal candidates of which one would be drawn now, and why.

        Runs nothing.
        """
        return self._wait(lambda client, remaining: client.explain(graph))

    def view(self) -> NodeView:
        """Return the node's view of the cluster and of itself."""
        return self._wait(lambda client, remaining: client.view())

    # -- the other thread ---------------------------------------------------------------------------------------------

    @property
    def _portal(self) -> BlockingPortal | None:
        """The portal of the event loop; None if no event loop runs."""
        return None if self._loop is None else self._loop.portal

    def _start_portal(self) -> BlockingPortal:
        """Return the portal of the event loop, which is started if there is none. The caller holds the lock."""
        if self._closed:
            raise RuntimeError("this client is closed; make another SyncClient")
        if self._loop is None or not self._loop.is_alive:
            self._loop = _LoopThread(self._backend, self._client)
            self._finalizer = finalize(self, self._loop.stop)
            self._finalizer.atexit = False
            atexit.register(self._at_exit)
        return self._loop.portal

    def _wait(self, start: Start[T], *, timeout: float | None = None) -> T:
        """Connect if needed, then return or raise what the coroutine does. An interrupt cancels the coroutine."""
        # The time counts from here, as the first call of a process also imports and starts an event loop.
        call_there = _CrossThreadCall(partial(_connected, self._client, start, timeout, clock()))
        portal: BlockingPortal | None = None
        try:
            with self._lock:
                portal = self._start_portal()
                future = portal.start_task_soon(call_there.run)
            future.result()
        except CancelledError:
            text = "the client was closed while this was waited for"
            raise Cancelled(text, details={"maybe_executed": True}) from None
        except BaseException as error:
            # Ctrl-C interrupts this thread and not the other, at any moment: also before there is a future to cancel.
            if portal is not None and not isinstance(error, Exception):
                with suppress(RuntimeError):  # it was closed in the meantime
                    portal.start_task_soon(call_there.abandon)
            raise
        return call_there.values[0]


Start = Callable[[Client, float | None], Coroutine[Any, Any, T]]
"""Starts a coroutine of the client, which gets the client and the remaining seconds."""


async def _no_op(client: Client, remaining: float | None) -> None:
    """Do nothing: the coroutine for a call that only connects."""


async def _connected(client: Client, start: Start[T], timeout: float | None, began: int) -> T:
    """Connect if needed, within the time that remains since `began`, and start the call.

    Raises DeadlineExceeded.
    """
    span = nanoseconds(timeout, "timeout")
    if client.is_open or span is None:
        await client.connect()
        return await start(client, timeout)
    with anyio.move_on_after(max(0, span - (clock() - began)) / SECOND) as scope:
        await client.connect()
    remaining = span - (clock() - began)
    if scope.cancelled_caught or remaining <= 0:
        text = f"no node could be reached by the deadline, within {span / SECOND:g} s"
        raise DeadlineExceeded(text, details={"maybe_executed": False})
    return await start(client, remaining / SECOND)


class _LoopThread:
    """An event loop in a thread, with one client in it. It has no reference to the SyncClient."""

    def __init__(self, backend: str, client: Client) -> None:
        ready: Future[tuple[BlockingPortal, Callable[[], None]]] = Future()
        # A daemon: at the end of a program only `close` waits for it, for a bounded time.
        self._thread = threading.Thread(
            target=_run_loop, args=(backend, client, ready), name="mpreg client", daemon=True
        )
        self._thread.start()
        self.portal, self.stop = ready.result()
        """`stop()` closes the client's connection and ends the thread.

        Any thread may call it at any moment; it never waits.
        """

    @property
    def is_alive(self) -> bool:
        """True if its event loop still runs."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the thread's end, unless this is that thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSING_SECONDS)


def _run_loop(backend: str, client: Client, ready: Future[tuple[BlockingPortal, Callable[[], None]]]) -> None:
    async def main() -> None:
        stopped = anyio.Event()
        async with BlockingPortal() as portal:
            ready.set_result((portal, partial(get_call_soon_threadsafe(), stopped.set)))
            await stopped.wait()
            await client.close()
            await portal.stop(cancel_remaining=True)  # pending calls would keep the event loop from ending

    try:
        anyio.run(main, backend=backend)
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        else:
            raise


class _CrossThreadCall(Generic[T]):
    """One coroutine that runs in the other thread. Both of its methods run there."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._start = start
        self._scope: CancelScope | None = None
        self._abandoned = False
        self.values: list[T] = []
        """The returned value, once the coroutine has returned."""

    async def run(self) -> None:
        if not self._abandoned:
            with CancelScope() as self._scope:
                self.values.append(await self._start())

    def abandon(self) -> None:
        """Cancel the coroutine, or keep it from starting."""
        self._abandoned = True
        if self._scope is not None:
            self._scope.cancel()


class SyncGraph(Graph):
    """A graph whose `run`, `stream` and `explain` block; `SyncClient.graph()` returns one."""

    def __init__(self, client: SyncClient, *, codec: ValueCodec | None = None) -> None:
        super().__init__(codec=codec)
        self._blocking = client

    # None of these methods is awaited, so this class cannot be used where an asynchronous graph is expected.

    def run(
        self,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        retry: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run it and return `{leaf name: value}`; with one handle its value, with several a tuple of their values."""
        return self._blocking.run(
            self,
            *outputs,
            timeout=timeout,
            wait=wait,
            on_error=on_error,
            retry=retry,
            on_progress=on_progress,
        )

    def stream(  # type: ignore[override]
        self, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run the graph and yield each leaf's (name, value) as soon as it arrives."""
        return self._blocking.stream(self, timeout=timeout, wait=wait)

    def explain(self) -> tuple[Explained, ...]:  # type: ignore[override]
        """Return where each call would run now, and why. Runs nothing."""
        return self._blocking.explain(self)
