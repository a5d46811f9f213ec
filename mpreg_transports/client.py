"""A client: connects to any node, sends calls and graphs of calls, and goes to its next address when one is gone.

It drives a pure `ClientSession` as the driver drives a `Node`: one reader and one writer task for its link, one timer
for all deadlines, an event a waiting call.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from numbers import Real
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import msgspec

from mpreg_proto.client import ClientSession, Ready, Rejected, Replied, Reply
from mpreg_proto.effects import HangUp, Lane, Send
from mpreg_proto.errors import Fault, RequestError, UnresolvedReference, raised
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Call, Explained, Explanation, Request, Result, Told, Traced
from mpreg_proto.wire.values import UnsendableValue, ValueCodec
from mpreg_transports.addresses import parse_address
from mpreg_transports.dialing import Network, open_link
from mpreg_transports.driver import clock, leave_group
from mpreg_transports.errors import NotConnected
from mpreg_transports.functions import tags
from mpreg_transports.graph import Graph, Handle, OnError, check_called
from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.links.websocket import WebSocketLink
from mpreg_transports.outbox import Outbox, Watch
from mpreg_transports.slices import Slicer
from mpreg_transports.values import default_codec
from mpreg_transports.waiting import Leaves, Waiter

DEFAULT_URL = "ws://127.0.0.1:9001"

_view: msgspec.json.Decoder[NodeView] = msgspec.json.Decoder(NodeView)


class Answer(msgspec.Struct, frozen=True):
    """All that came of a graph: values by name, errors by name (partial only), and where and when each call ran.

    `error` is the first failure (partial only), also where the call that failed was not wanted.
    """

    values: dict[str, Any]
    errors: dict[str, RequestError]
    trace: tuple[Traced, ...]
    error: RequestError | None = None
    untraced: int = 0
    """Calls of which `trace` has no row, as the answer would have been longer than a message with them."""


class Client:
    """Calls functions of a cluster through one of its nodes. Use it as `async with Client(url) as client`.

    Several addresses: the first that answers, and the next when it is gone. What was not sent yet goes with the next
    link; what was pending on a lost one raises OutcomeUnknown, as it may have run. Not thread-safe (`SyncClient` is).
    """

    def __init__(
        self,
        *urls: str,
        cluster_id: str = "",
        name: str = "",
        codec: ValueCodec | None = None,
        limits: Limits = DEFAULT,
        network: Network | None = None,
    ) -> None:
        self.urls = urls or (DEFAULT_URL,)
        for url in self.urls:
            if not isinstance(url, str):
                raise TypeError(f'an address is a text, not {url!r}; write Client("{DEFAULT_URL}"), several one by one')
        for url in self.urls if network is None else ():
            parse_address(url)
        self._open_link = open_link if network is None else network.dial
        self.node = ""
        """The name of the node that it is connected to."""
        self.version = 0
        """The protocol version agreed on with it; 0 before."""
        self._limits = limits
        self._codec = codec or default_codec()
        self._session = ClientSession(name=name, cluster_id=cluster_id, limits=limits, codec=self._codec)
        self._waiters: dict[int, Waiter] = {}
        self._outbox: Outbox | None = None
        self._last_link = 0
        self._due: int | None = None
        self._wakeup = anyio.Event()
        self._on_ready: Callable[[], None] = lambda: None
        self._was_ready = False
        self._rejected: Fault | None = None
        self._open = False
        """Whether it is inside its `async with`: only then does anybody keep its time and its link."""
        self._stack = AsyncExitStack()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect. Raises NotConnected if no address answers, or the node's own reason for refusing."""
        self._wakeup = anyio.Event()
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        try:
            tasks.start_soon(self._keep_time)
            await tasks.start(self._keep_connected)
        except BaseException as error:
            tasks.cancel_scope.cancel()
            await leave_group(self._stack, error)
            raise
        self._stack.callback(tasks.cancel_scope.cancel)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hang up.

        What still waits in other tasks ends: with OutcomeUnknown what the node has, which cancels it, with Cancelled
        what was never sent.
        """
        self._open = False
        try:
            await leave_group(self._stack, error)
        finally:
            self._session.give_up(_CLOSED)
            self._flush()

    # -- calls --------------------------------------------------------------------------------------------------------

    async def call(
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
        """The result of one call. `more` are the function's own keywords; `kwargs` passes names that `call` uses
        itself.

        `timeout` and `wait` are seconds. Raises a RequestError of the kind that happened, TypeError for arguments that
        cannot be sent.
        """
        check_called(function, version)
        for later in _LATER:
            if later in more:
                raise TypeError(f"{later}= is not there yet; a keyword of {function!r} by that name goes into kwargs=")
        keywords = {**kwargs, **more} if kwargs else more
        try:
            encoded = self._codec.encode([list(args), keywords])
        except UnsendableValue as error:
            raise TypeError(f"call {function!r}: {error}") from None
        asked = tuple(sorted(tags(resources))) if resources else ()
        call = Call(function, function, encoded, (), asked, version)
        request = Request(0, (call,), timeout=_span(timeout, "timeout"), wait=_span(wait, "wait") or 0)
        result = await self._result(request)
        return self._codec.decode(result.done[0].value)

    def graph(self) -> Graph:
        """A graph to be filled and run by this client."""
        return Graph(self, codec=self._codec)

    async def run(
        self,
        graph: Graph,
        *wanted: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
    ) -> Any:
        """Run a graph: `{leaf name: value}`; with one handle, its value; with several, a tuple of theirs.

        With `on_error="partial"` what failed stands as its RequestError where its value would be.
        """
        answer = await self.answer(graph, *wanted, timeout=timeout, wait=wait, on_error=on_error)
        values: dict[str, Any] = {**answer.values, **answer.errors}
        if not wanted:
            return values
        picked = tuple(_part(values[handle.name], handle) for handle in wanted)
        return picked[0] if len(picked) == 1 else picked

    async def answer(
        self,
        graph: Graph | Request,
        *wanted: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        trace: bool = False,
    ) -> Answer:
        """Run a graph, or a hand-made request, and get everything that came of it."""
        _check_graph(graph)
        if isinstance(graph, Graph):
            request = graph.request(
                *wanted,
                partial=_partial(on_error),
                timeout=_span(timeout, "timeout"),
                wait=_span(wait, "wait") or 0,
                trace=trace,
            )
        else:
            request = graph
        result = await self._result(request)
        values = {row.name: self._codec.decode(row.value) for row in result.done}
        errors = {row.name: raised(row.fault) for row in result.failed}
        error = None if result.fault is None else raised(result.fault)
        return Answer(values, errors, result.trace, error, result.untraced)

    def stream(
        self, graph: Graph, *, timeout: float | None = None, wait: float | None = None
    ) -> AsyncIterator[tuple[str, Any]]:
        """Run a graph and give each leaf's (name, value) as soon as it is there; leaving the loop cancels the rest."""
        _check_graph(graph)
        request = graph.request(eager=True, timeout=_span(timeout, "timeout"), wait=_span(wait, "wait") or 0)

        def ask() -> tuple[Waiter, Callable[[], None]]:
            number, waiter = self._ask(self._session.submit(request, now=clock()))
            return waiter, partial(self._drop, number)

        return Leaves(ask, self._codec.decode, request)

    async def explain(self, graph: Graph | Request) -> tuple[Explained, ...]:
        """For each call: the node, or the equals among which the draw would fall now, and why. Runs nothing."""
        _check_graph(graph)
        request = graph.request() if isinstance(graph, Graph) else graph
        reply = await self._reply(self._session.explain(request, now=clock()))
        assert isinstance(reply, (Explanation, Result))
        if reply.fault is not None:
            raise raised(reply.fault)
        assert isinstance(reply, Explanation)
        return reply.rows

    async def view(self) -> NodeView:
        """How the node sees the cluster and itself."""
        reply = await self._reply(self._session.ask(now=clock()))
        if isinstance(reply, Result) and reply.fault is not None:
            raise raised(reply.fault)
        assert isinstance(reply, Told)
        return _view.decode(reply.view)

    # -- questions and answers ----------------------------------------------------------------------------------------

    async def _result(self, request: Request) -> Result:
        reply = await self._reply(self._session.submit(request, now=clock()))
        assert isinstance(reply, Result)
        if reply.fault is not None and not request.partial:
            raise raised(reply.fault)
        if reply.fault is not None and not reply.failed and not reply.done:
            raise raised(reply.fault)
        return reply

    async def _reply(self, number: int) -> Reply:
        number, waiter = self._ask(number)
        try:
            await waiter.event.wait()
        finally:
            self._drop(number)
        return waiter.replies[0]

    def _ask(self, number: int) -> tuple[int, Waiter]:
        if not self._open:
            self._session.cancel(number, now=clock())
            raise RuntimeError("this client is not connected: use it as `async with Client(...) as client`")
        waiter = self._waiters[number] = Waiter()
        self._flush()
        return number, waiter

    def _drop(self, number: int) -> None:
        """Nobody waits any more; if the answer is not there yet, the node is told."""
        del self._waiters[number]
        self._session.cancel(number, now=clock())
        self._flush()

    # -- link ---------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Carry out all that the session wants. Never awaits."""
        messages: dict[Lane, list[tuple[bytes, ...]]] = {}
        code: int | None = None
        for effect in self._session.drain():
            match effect:
                case Send():
                    messages.setdefault(effect.lane, []).append(effect.chunks)
                case Replied(id, reply):
                    if (waiter := self._waiters.get(id)) is not None:
                        waiter.replies.append(reply)
                        waiter.event.set()
                case Ready():
                    self.node, self.version = effect.name or "node", effect.version
                    if not self._was_ready:
                        self._was_ready = True
                        self._on_ready()
                case Rejected(fault):
                    self._rejected = fault
                case HangUp():
                    code = effect.code
                case _:
                    pass  # notices are for nodes
        if self._outbox is not None:
            for lane, put in messages.items():
                self._outbox.put(put, lane)
            if code is not None:
                self._outbox.close(code)
        if self._session.next_timeout() != self._due:
            self._wakeup.set()

    async def _keep_time(self) -> None:
        while True:
            self._due = self._session.next_timeout()
            if self._due is None:
                await self._wakeup.wait()
            else:
                with anyio.move_on_after(max(0, self._due - clock()) / SECOND):
                    await self._wakeup.wait()
            self._wakeup = anyio.Event()
            self._session.wake(now=clock())
            self._flush()

    async def _keep_connected(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Go round the addresses until one answers; the first round must succeed, later ones are repeated for ever."""
        self._on_ready = task_status.started
        self._was_ready = False
        failures = 0
        while True:
            tried: dict[str, str] = {}
            for url in self.urls:
                try:
                    link = await self._open_link(url)
                except LinkEnded as end:
                    tried[url] = end.reason
                    continue
                rejected = await self._pump(link, Address(url))
                if self.node:
                    self.node, failures = "", 0
                elif rejected is not None and len(self.urls) == 1:
                    if not self._was_ready:
                        raise raised(rejected)
                    self._session.give_up(rejected)  # it has become another cluster's; whoever waits is told why
                    self._flush()
                else:
                    tried[url] = "it hung up without a hello" if rejected is None else rejected.message
            if not self._was_ready:
                raise not_connected(tried)
            failures += 1
            most = min(self._limits.dial_longest, self._limits.dial_first << min(failures, 8)) / SECOND
            await anyio.sleep(random.uniform(0, most))  # full jitter, so that a crowd does not come back at once

    async def _pump(self, transport: Link, address: Address) -> Fault | None:
        """Be the link's reader until it ends; its writer runs beside. Gives the node's reason if it refused us."""
        self._rejected = None
        self._last_link += 1
        link = LinkId(self._last_link)
        session = self._session

        def tell_progress() -> None:
            session.progress(link, now=clock())

        if isinstance(transport, WebSocketLink):
            transport.on_partial = tell_progress
        slicer = Slicer(lambda data, now: session.receive(link, data, now=now), self._flush, clock)
        try:
            async with anyio.create_task_group() as tasks:
                outbox = self._outbox = Outbox(transport, watch=Watch(tasks.start_soon), progress=tell_progress)
                tasks.start_soon(outbox.run)
                session.link_opened(link, framing=transport.framing, address=address, now=clock())
                self._flush()
                try:
                    while True:
                        await slicer.feed(await transport.receive(), stream=transport.framing is Framing.STREAM)
                except LinkEnded:
                    tasks.cancel_scope.cancel()
        finally:
            self._outbox = None
            session.link_closed(link, now=clock())
            self._flush()
            with anyio.CancelScope(shield=True):
                await transport.close()
        return self._rejected


_LATER = ("retry", "on_progress")
"""Keywords of `call` that will mean something: what used them as the function's own would change in silence."""
_CLOSED = Fault(1021, "the client was closed before it could be sent", {"maybe_executed": False})


def not_connected(tried: Mapping[str, str]) -> NotConnected:
    """What to say when no address answered: each with why not."""
    rows = "; ".join(f"{url}: {why}" for url, why in tried.items())
    return NotConnected(f"no node could be reached ({rows})", details={"tried": dict(tried)})


def _span(seconds: float | None, name: str) -> int | None:
    """Seconds as nanoseconds. Raises TypeError for what is no number, ValueError for what is no span of time."""
    if seconds is None:
        return None
    _check_number(seconds, name)
    if not 0 <= seconds <= 86_400 or (seconds == 0 and name == "timeout"):
        least = "more than 0 and" if name == "timeout" else "0 or more, and"
        raise ValueError(f"{name}={seconds}: {least} at most 86400 seconds")
    return int(seconds * SECOND)


def _check_number(seconds: object, name: str) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(f"{name}={seconds!r} is of type {type(seconds).__name__}; write seconds, such as {name}=5")


def _check_graph(graph: object) -> None:
    if not isinstance(graph, (Graph, Request)):
        kind = type(graph).__name__
        raise TypeError(f"a graph is wanted, not {kind}; make one with client.graph(), or use client.call for one call")


def _partial(on_error: str) -> bool:
    if on_error not in ("fail", "partial"):
        raise ValueError(f'on_error={on_error!r}: "fail" or "partial"')
    return on_error == "partial"


def _part(value: Any, handle: Handle) -> Any:
    """The part of a result that `handle["key"]` means."""
    if isinstance(value, RequestError):
        return value
    for position, step in enumerate(handle.path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            taken = "".join(f"[{key!r}]" for key in handle.path[: position + 1])
            raise UnresolvedReference(f"the result of {handle.name!r} has no {taken}") from None
    return value
