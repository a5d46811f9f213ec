"""A blocking twin of `Client`, for scripts, notebooks and programs with threads.

A `SyncClient` has an event loop in a thread of its own, in which an ordinary `Client` lives; each method here starts
the coroutine of the same name over there and waits for it. Nothing of the protocol is written twice, and nothing of the
client is touched from another thread than its own. No lock is held while anything is waited for, and what the garbage
collector calls takes none, as it may call in any thread at any moment.
"""

from __future__ import annotations

import atexit
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
from mpreg_transports.client import Client, GraphResult, nanoseconds
from mpreg_transports.config.validation import check_backend
from mpreg_transports.functions.fork_safety import notify_on_fork
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.graph import Graph, Handle, OnError
from mpreg_transports.runtime.driver import clock
from mpreg_transports.runtime.result_stream import ResultStream
from mpreg_transports.values import default_codec

__all__ = ["SyncClient", "SyncGraph"]

T = TypeVar("T")

_CLOSING_SECONDS = 10.0
"""How long `close` waits for the thread; closing a link takes 4 s at most."""


class SyncClient:
    """Calls functions of a cluster and waits for their results; see `Client`, whose arguments and methods it has.

    Use it as `with SyncClient(url) as client`, or call `close()` at the end; without `with` the first call connects,
    within its timeout. Several threads may use one, each waits only for its own calls. Ctrl-C while a call is waited
    for cancels it. In a forked child it connects anew. `backend` is the event loop inside, "asyncio" or "trio".
    """

    def __init__(
        self,
        *urls: str,
        cluster_id: str = "",
        name: str = "",
        codec: ValueCodec | None = None,
        limits: Limits = DEFAULT,
        backend: str = "asyncio",
    ) -> None:
        self._codec = codec or default_codec()
        check_backend(backend)
        self._make = partial(Client, *urls, cluster_id=cluster_id, name=name, codec=self._codec, limits=limits)
        self._client = self._make()
        self._backend = backend
        # Held while a call is handed over, so that none can be handed to a loop that is just ending. Re-entrant, as a
        # signal handler may make a call while it is held.
        self._lock = threading.RLock()
        self._loop: _LoopThread | None = None
        self._finalizer: finalize[..., SyncClient] | None = None
        self._closed = False
        client = ref(self)
        # A client that is never closed hangs up in order when its program ends.
        self._at_exit = lambda: client() and client().close()  # type: ignore[union-attr]
        notify_on_fork(self)

    # -- life ---------------------------------------------------------------------------------------------------------

    def connect(self) -> Self:
        """Connect; nothing happens if it is connected.

        Raises NotConnected if no address answers (one may try again), RuntimeError after `close`.
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
        """Hang up and end the thread; again: nothing happens.

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
        """This process was forked: the thread and the connection are the parent's."""
        self._lock = threading.RLock()  # another thread of the parent's may have held it
        if self._finalizer is not None:
            self._finalizer.detach()
        self._loop = self._finalizer = None
        self._client = self._make()
        notify_on_fork(self)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses that it goes round."""
        return self._client.urls

    @property
    def node(self) -> str:
        """The name of the node that it is connected to; empty while it is to none."""
        return self._client.node

    @property
    def version(self) -> int:
        """The protocol version agreed on with that node; 0 while it is connected to none."""
        return self._client.version

    @property
    def is_open(self) -> bool:
        """Whether it is connected, so that a call need not connect first."""
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
        version: str | None = None,
        **more: Any,
    ) -> Any:
        """The result of one call, as `Client.call`: seconds, errors and keywords are the same."""
        options = {"resources": resources, "kwargs": kwargs, "wait": wait, "version": version, **more}
        return self._wait(
            lambda client, remaining: client.call(function, *args, timeout=remaining, **options), timeout=timeout
        )

    def graph(self) -> SyncGraph:
        """A graph to be filled and run by this client."""
        return SyncGraph(self, codec=self._codec)

    def run(
        self,
        graph: Graph,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
    ) -> Any:
        """Run a graph: `{leaf name: value}`; with one handle, its value; with several, a tuple of theirs."""
        return self._wait(
            lambda client, remaining: client.run(graph, *outputs, timeout=remaining, wait=wait, on_error=on_error),
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
    ) -> GraphResult:
        """Run a graph, or a hand-made request, and get everything that came of it."""
        return self._wait(
            lambda client, remaining: client.answer(
                graph, *outputs, timeout=remaining, wait=wait, on_error=on_error, trace=trace
            ),
            timeout=timeout,
        )

    def stream(
        self, graph: Graph, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run a graph and give each leaf's (name, value) as soon as it is there; leaving the loop cancels the rest."""
        streams: list[ResultStream] = []

        async def next_item(client: Client, remaining: float | None) -> tuple[str, Any] | None:
            if not streams:
                streams.append(client.stream(graph, timeout=remaining, wait=wait))
            return await anext(streams[0], None)

        try:
            while (item := self._wait(next_item, timeout=None if streams else timeout)) is not None:
                yield item
        finally:
            for stream in streams:
                stream.forget()

    def explain(self, graph: Graph | Request) -> tuple[Explained, ...]:
        """For each call: the node, or the equals among which the draw would fall now, and why. Runs nothing."""
        return self._wait(lambda client, remaining: client.explain(graph))

    def view(self) -> NodeView:
        """How the node sees the cluster and itself."""
        return self._wait(lambda client, remaining: client.view())

    # -- the other thread ---------------------------------------------------------------------------------------------

    @property
    def _portal(self) -> BlockingPortal | None:
        """The way into the loop."""
        return None if self._loop is None else self._loop.portal

    def _start_portal(self) -> BlockingPortal:
        """The way into the loop, which is begun if there is none. The lock is held by whoever asks."""
        if self._closed:
            raise RuntimeError("this client is closed; make another SyncClient")
        if self._loop is None or not self._loop.is_alive:
            self._loop = _LoopThread(self._backend, self._client)
            self._finalizer = finalize(self, self._loop.stop)
            self._finalizer.atexit = False
            atexit.register(self._at_exit)
        return self._loop.portal

    def _wait(self, start: Start[T], *, timeout: float | None = None) -> T:
        """What the coroutine gives or raises, once the client is connected; interrupted meanwhile, it is cancelled."""
        # From here on, as the first call of a process also loads and begins an event loop.
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
            # Ctrl-C strikes this thread and not the other, at any moment: also before there is a future to cancel.
            if portal is not None and not isinstance(error, Exception):
                with suppress(RuntimeError):  # it was closed meanwhile
                    portal.start_task_soon(call_there.abandon)
            raise
        return call_there.values[0]


Start = Callable[[Client, float | None], Coroutine[Any, Any, T]]
"""Begins a question with the client and the seconds that are left for it."""


async def _no_op(client: Client, remaining: float | None) -> None:
    """What is asked where only a connection is wanted."""


async def _connected(client: Client, start: Start[T], timeout: float | None, began: int) -> T:
    """Connect if need be, within the time that the question has since it `began`, and ask it.

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
    """An event loop in a thread, and one client that lives in it; it knows nothing of the SyncClient."""

    def __init__(self, backend: str, client: Client) -> None:
        ready: Future[tuple[BlockingPortal, Callable[[], None]]] = Future()
        # A daemon: nothing waits for it at the end of a program but `close`, which has a bound.
        self._thread = threading.Thread(
            target=_run_loop, args=(backend, client, ready), name="mpreg client", daemon=True
        )
        self._thread.start()
        self.portal, self.stop = ready.result()
        """`stop()` has the client hang up and the thread end. Any thread may call it at any moment; it never waits."""

    @property
    def is_alive(self) -> bool:
        """Whether its loop still runs."""
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
            await portal.stop(cancel_remaining=True)  # calls that still wait would keep the loop from ending

    try:
        anyio.run(main, backend=backend)
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        else:
            raise


class _CrossThreadCall(Generic[T]):
    """One coroutine on its way through the other thread, where both of its methods run."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._start = start
        self._scope: CancelScope | None = None
        self._abandoned = False
        self.values: list[T] = []
        """What came of it, once it has ended well."""

    async def run(self) -> None:
        if not self._abandoned:
            with CancelScope() as self._scope:
                self.values.append(await self._start())

    def abandon(self) -> None:
        """Cancel it, or see to it that it does not begin."""
        self._abandoned = True
        if self._scope is not None:
            self._scope.cancel()


class SyncGraph(Graph):
    """A graph whose `run`, `stream` and `explain` block; `SyncClient.graph()` makes one."""

    def __init__(self, client: SyncClient, *, codec: ValueCodec | None = None) -> None:
        super().__init__(codec=codec)
        self._blocking = client

    # Nothing here is awaited, which is the point: so this cannot stand where an asynchronous graph is wanted.

    def run(
        self,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
    ) -> Any:
        """Run it: `{leaf name: value}`; with one handle, just its value; with several, a tuple of theirs."""
        return self._blocking.run(self, *outputs, timeout=timeout, wait=wait, on_error=on_error)

    def stream(  # type: ignore[override]
        self, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run it and give each leaf's (name, value) as it is there."""
        return self._blocking.stream(self, timeout=timeout, wait=wait)

    def explain(self) -> tuple[Explained, ...]:  # type: ignore[override]
        """Where each call would run now and why; runs nothing."""
        return self._blocking.explain(self)
