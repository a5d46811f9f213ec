"""A blocking twin of `Client`, for scripts, notebooks and programs with threads.

A `SyncClient` has an event loop in a thread of its own, in which an ordinary `Client` lives; each method here starts
the coroutine of the same name over there and waits for it. Nothing of the protocol is written twice, and nothing of the
client is touched from another thread than its own.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import ref

from anyio import CancelScope
from anyio.from_thread import BlockingPortal, start_blocking_portal

from mpreg_proto.errors import Cancelled
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Explained, Request
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.client import Answer, Client
from mpreg_transports.graph import Graph, Handle, OnError
from mpreg_transports.values import default_codec

__all__ = ["SyncClient", "SyncGraph"]

T = TypeVar("T")


class SyncClient:
    """Calls functions of a cluster and waits for their results; see `Client`, whose arguments and methods it has.

    Use it as `with SyncClient(url) as client`, or call `close()` at the end; without `with` the first call connects.
    Several threads may use one, each waits only for its own calls. Ctrl-C while a call is waited for cancels it.
    `backend` is the event loop inside, "asyncio" or "trio".
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
        self._client = Client(*urls, cluster_id=cluster_id, name=name, codec=self._codec, limits=limits)
        self._backend = backend
        # Held while a call is handed over, so that none can be handed to a loop that is just ending. Re-entrant, as
        # collecting garbage may finish an abandoned stream at any moment, also in a thread that holds it.
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._closed = False
        client = ref(self)
        # A client that is never closed ends with its program; without this its thread would be waited for, in vain.
        self._at_exit = lambda: client() and client().close()  # type: ignore[union-attr]

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Connect. Raises NotConnected if no address answers (one may try again), RuntimeError after `close`."""
        with self._lock:
            self._connected()
        return self

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
            self._portal = None
            atexit.unregister(self._at_exit)
            self._stack.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses that it goes round."""
        return self._client.urls

    @property
    def node(self) -> str:
        """The name of the node that it is connected to; empty while it is to none."""
        return self._client.node

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
        call = partial(self._client.call, function, *args, resources=resources, kwargs=kwargs, version=version, **more)
        return self._wait(partial(call, timeout=timeout, wait=wait))

    def graph(self) -> SyncGraph:
        """A graph to be filled and run by this client."""
        return SyncGraph(self, codec=self._codec)

    def run(
        self,
        graph: Graph,
        *wanted: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
    ) -> Any:
        """Run a graph: `{leaf name: value}`; with one handle, its value; with several, a tuple of theirs."""
        return self._wait(partial(self._client.run, graph, *wanted, timeout=timeout, wait=wait, on_error=on_error))

    def answer(
        self,
        graph: Graph | Request,
        *wanted: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        trace: bool = False,
    ) -> Answer:
        """Run a graph, or a hand-made request, and get everything that came of it."""
        return self._wait(
            partial(self._client.answer, graph, *wanted, timeout=timeout, wait=wait, on_error=on_error, trace=trace)
        )

    def stream(
        self, graph: Graph, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run a graph and give each leaf's (name, value) as soon as it is there; leaving the loop cancels the rest."""
        items = self._client.stream(graph, timeout=timeout, wait=wait)
        assert isinstance(items, AsyncGenerator)

        async def following() -> tuple[str, Any] | None:
            return await anext(items, None)

        try:
            while (item := self._wait(following)) is not None:
                yield item
        finally:
            self._abandon(items)

    def explain(self, graph: Graph | Request) -> tuple[Explained, ...]:
        """For each call: the node, or the equals among which the draw would fall now, and why. Runs nothing."""
        return self._wait(partial(self._client.explain, graph))

    def view(self) -> NodeView:
        """How the node sees the cluster and itself."""
        return self._wait(self._client.view)

    # -- the other thread ---------------------------------------------------------------------------------------------

    def _connected(self) -> BlockingPortal:
        """The way into the loop, with the client connected. The lock is held by whoever asks."""
        if self._closed:
            raise RuntimeError("this client is closed; make another SyncClient")
        if self._portal is None:
            with ExitStack() as stack:
                portal = stack.enter_context(start_blocking_portal(self._backend, name="mpreg client"))
                # Calls that still wait when the client has hung up would keep the loop from ending.
                stack.callback(portal.call, portal.stop, True)
                stack.enter_context(portal.wrap_async_context_manager(self._client))
                self._stack = stack.pop_all()
            self._portal = portal
            atexit.register(self._at_exit)
        return self._portal

    def _wait(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine gives or raises; interrupted while waiting, it is cancelled."""
        crossing = _Crossing(start)
        portal: BlockingPortal | None = None
        try:
            with self._lock:
                portal = self._connected()
                future = portal.start_task_soon(crossing.run)
            future.result()
        except CancelledError:
            text = "the client was closed while this was waited for"
            raise Cancelled(text, details={"maybe_executed": True}) from None
        except BaseException as error:
            # Ctrl-C strikes this thread and not the other, at any moment: also before there is a future to cancel.
            if portal is not None and not isinstance(error, Exception):
                with self._lock, suppress(RuntimeError):  # it was closed meanwhile
                    portal.start_task_soon(crossing.give_up)
            raise
        return crossing.values[0]

    def _abandon(self, items: AsyncGenerator[Any, None]) -> None:
        """Nobody wants more of these. May run in any thread at any time, when a stream's remains are collected."""
        with self._lock, suppress(RuntimeError):  # the loop has ended, or this is its own thread: it cleans up itself
            if self._portal is not None:
                self._portal.start_task_soon(items.aclose)


class _Crossing(Generic[T]):
    """One coroutine on its way through the other thread, where both of its methods run."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._start = start
        self._scope: CancelScope | None = None
        self._given_up = False
        self.values: list[T] = []
        """What came of it, once it has ended well."""

    async def run(self) -> None:
        if not self._given_up:
            with CancelScope() as self._scope:
                self.values.append(await self._start())

    def give_up(self) -> None:
        """Cancel it, or see to it that it does not begin."""
        self._given_up = True
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
        *wanted: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
    ) -> Any:
        """Run it: `{leaf name: value}`; with one handle, just its value; with several, a tuple of theirs."""
        return self._blocking.run(self, *wanted, timeout=timeout, wait=wait, on_error=on_error)

    def stream(  # type: ignore[override]
        self, *, timeout: float | None = None, wait: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Run it and give each leaf's (name, value) as it is there."""
        return self._blocking.stream(self, timeout=timeout, wait=wait)

    def explain(self) -> tuple[Explained, ...]:  # type: ignore[override]
        """Where each call would run now and why; runs nothing."""
        return self._blocking.explain(self)
