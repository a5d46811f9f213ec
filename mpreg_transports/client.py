"""A client: it connects to any node, sends calls and graphs of calls, and uses its next address when a node is lost.

It drives a pure `ClientSession` as the driver drives a `Node`: one reader and one writer task for each link, one timer
for all deadlines, one event for each waiting call. All of them run in a task of the client's own, never in its
caller's.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from mpreg_proto.client import (
    ClientSession,
    ItemsReceived,
    LinkDraining,
    ProgressReceived,
    Ready,
    Rejected,
    Reply,
    ReplyReceived,
)
from mpreg_proto.effects import HangUp, KeepAlive, Pause, Resume, Send
from mpreg_proto.errors import ErrorCode, Fault, RequestError, UnresolvedReference, exception_for
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.rng import Entropy
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Call, DrainReply, Explained, Explanation, Request, Result, Traced, View
from mpreg_proto.wire.values import UnsendableValue, ValueCodec
from mpreg_transports.background import Background, LoopAffinity
from mpreg_transports.config.addresses import parse_address
from mpreg_transports.config.validation import check_text, refuse_plain_text, unsendable
from mpreg_transports.errors import NotConnected
from mpreg_transports.functions.progress import ProgressReport
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.graph import Graph, Handle, OnError, check_function_name, checked_resources
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime.clock import Clock, clock
from mpreg_transports.runtime.dialing import NetworkBackend, open_link
from mpreg_transports.runtime.link_loop import LinkLoop
from mpreg_transports.runtime.result_stream import ItemStream, ReplyWaiter, ResultStream
from mpreg_transports.security.secret import Secret, given_secret, read_secret
from mpreg_transports.values import default_codec

DEFAULT_URL = "ws://127.0.0.1:9001"
_SECURED_URL = "wss://127.0.0.1:9001"
_DEFAULT_CLUSTER = "default-cluster"

Submit = Callable[[ClientSession, int], int]
"""Submits a request, an explain or a view query to a session at a given time, and returns its number."""
OpenLink = Callable[[Address], Awaitable[Link]]
OnProgress = Callable[[ProgressReport], object]
"""Gets the progress of calls, in the thread of the client's event loop. It must not block."""

_view: msgspec.json.Decoder[NodeView] = msgspec.json.Decoder(NodeView)


class GraphResult(msgspec.Struct, frozen=True):
    """The complete result of a graph: values by name, errors by name (partial only), and where and when each call ran.

    `error` is the first failure (partial only), even if the result of the failed call was not requested.
    """

    values: dict[str, Any]
    errors: dict[str, RequestError]
    trace: tuple[Traced, ...]
    error: RequestError | None = None
    untraced: int = 0
    """The number of calls without a row in `trace`: with them the reply would be longer than a message may be."""


class Client:
    """A client that calls functions of a cluster through one of its nodes.

    Use it as `async with Client(url) as client`, or `await client.connect()` and `await client.close()`, from any task
    of one event loop.

    `wait` is how long it waits for the first node, in seconds: one that starts at the same time, for example. With
    several addresses it uses the first one that answers, and the next one when that node is lost or drains.
    Requests that were not sent yet, or that a draining node refused, are sent on the next link. Requests that were
    pending on a lost link are repeated there if all of their functions are idempotent; the others raise OutcomeUnknown,
    as they may have run. Not thread-safe (`SyncClient` is).

    With the secret of a cluster, as its text or its file, the addresses are `wss://` or `tls://`; both ends prove the
    secret. `cluster_id` is then that of the cluster, "default-cluster" if it is left out. Without a secret such
    addresses are verified by the authorities of the system. Raises SecretError for an invalid secret.
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
        network: NetworkBackend | None = None,
    ) -> None:
        self.urls: tuple[str, ...] = urls or (DEFAULT_URL if secret is None and secret_file is None else _SECURED_URL,)
        for url in self.urls:
            if not isinstance(url, str):
                raise TypeError(f'an address is a text, not {url!r}; write Client("{DEFAULT_URL}"), several one by one')
        for url in self.urls if network is None else ():
            parse_address(url)
        check_text(cluster_id, "cluster_id", example="shop")
        check_text(name, "name", example="report")
        self._wait = nanoseconds(wait, "wait") or 0
        self._codec = codec or default_codec()
        self._make_session = partial(
            ClientSession,
            name=name,
            cluster_id=cluster_id,
            limits=limits,
            codec=self._codec,
            alternatives=len(dict.fromkeys(self.urls)) - 1,
            entropy=os.urandom if network is None else network.entropy,
        )
        self._limits = limits
        self._open_link: OpenLink = open_link if network is None else network.dial
        found = given_secret(secret, secret_file)
        if secret_file is not None:
            found = read_secret(secret_file)
        if found is not None and network is None:
            for url in self.urls:
                refuse_plain_text(url, "the address")
            from mpreg_transports.security.authority import Role  # they load cryptography
            from mpreg_transports.security.contexts import Credentials

            credentials = Credentials(found, cluster_id or _DEFAULT_CLUSTER, role=Role.CLIENT)
            self._open_link = partial(open_link, tls=credentials)
        self._clock: Clock = clock if network is None else network.clock
        self._entropy: Entropy = os.urandom if network is None else network.entropy
        self._connection = self._make_connection()

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def node(self) -> str:
        """The name of the connected node; empty while there is none."""
        return self._connection.node if self._session.ready else ""

    @property
    def version(self) -> int:
        """The protocol version agreed on with the connected node; 0 while there is none."""
        return self._connection.version if self._session.ready else 0

    @property
    def is_open(self) -> bool:
        """True if the client takes calls: it was connected and has not been closed since."""
        return self._connection.is_open

    async def connect(self) -> Self:
        """Connect; does nothing if connected. Any task may `close` the client, in any order with other clients.

        If no address answers, it tries them again until the `wait` of the client is over, and then raises NotConnected.
        If the only node refuses the client, it raises the reason of the node at once. If it is cancelled, the client is
        not connected.
        """
        connection = self._connection
        if connection.is_ended:
            connection = self._connection = self._make_connection()
        await connection.open()
        return self

    async def close(self) -> None:
        """Close the connection, from any task of the event loop in which it was opened. A second call does nothing.

        Calls that other tasks still wait for end: with OutcomeUnknown if they were sent (the node cancels them), with
        Cancelled if they were never sent. In a forked child the connection belongs to the parent and is not touched.
        """
        await self._connection.close()

    async def __aenter__(self) -> Self:
        """See `connect`."""
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `close`."""
        await self.close()

    def __del__(self) -> None:
        connection: ClientConnection | None = getattr(self, "_connection", None)
        if connection is not None and connection.abandon():
            warnings.warn(f"a client of {self.urls[0]} was never closed", ResourceWarning, source=self, stacklevel=2)

    @property
    def _session(self) -> ClientSession:
        return self._connection.session

    def _make_connection(self) -> ClientConnection:
        return ClientConnection(
            self._make_session(),
            self.urls,
            self._open_link,
            self._limits,
            wait=self._wait,
            clock=self._clock,
            entropy=self._entropy,
        )

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
        retry: bool = False,
        version: str | None = None,
        on_progress: OnProgress | None = None,
        **more: Any,
    ) -> Any:
        """Return the result of one call.

        `more` are the function's own keywords; `kwargs` passes the names that `call` uses itself. `timeout` and `wait`
        are seconds. With `retry` a call that an overloaded or leaving node refused is sent again after a pause, within
        its deadline and the client's budget for repeats. `on_progress(report)` is called in the event loop with each
        `ProgressReport`, before the result. Raises the RequestError of the failure, or TypeError for arguments that
        cannot be sent.
        """
        call = self._call(function, args, {**kwargs, **more} if kwargs else more, resources, version)
        request = _one_call(call, timeout, wait, on_progress)
        result = await self._result(request, on_progress, retry=retry)
        return self._codec.decode(result.done[0].value)

    def items(
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
    ) -> ItemStream:
        """Call a generator and yield its items as it produces them; the options are those of `call`.

        The generator waits while 16 of its items have not been used. `timeout` covers the whole stream. Leaving the
        loop cancels the call and closes the generator; `async with aclosing(...)` does that also after an exception.
        The items of a function that returns a list are those of the list.
        """
        call = self._call(function, args, {**kwargs, **more} if kwargs else more, resources, version)
        request = msgspec.structs.replace(_one_call(call, timeout, wait, on_progress), streams=(call.name,))
        _check_retry(retry)

        def ask() -> tuple[ReplyWaiter, Callable[[], None]]:
            connection = self._connection
            number, waiter = connection.submit(
                lambda session, now: session.submit(request, now=now, retry=retry), on_progress
            )
            waiter.take = partial(connection.items_taken, number, call.name)
            return waiter, partial(connection.drop, number)

        return ItemStream(ask, self._codec.decode, function)

    def _call(
        self,
        function: str,
        args: tuple[Any, ...],
        keywords: Mapping[str, Any],
        resources: Iterable[str],
        version: str | None,
    ) -> Call:
        """Return the only call of a request. Raises TypeError for arguments that cannot be sent."""
        check_function_name(function, version)
        try:
            encoded = self._codec.encode([list(args), keywords])
        except UnsendableValue as error:
            raise unsendable(function, error) from None
        return Call(function, function, encoded, (), checked_resources(resources), version)

    def graph(self) -> Graph:
        """Return an empty graph that this client runs."""
        return Graph(self, codec=self._codec)

    async def run(
        self,
        graph: Graph,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        retry: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run a graph and return `{leaf name: value}`; with one handle its value, with several a tuple of values.

        With `on_error="partial"` a failed call has its RequestError in place of its value. `retry` and `on_progress`
        are as in `call`; reports name their call.
        """
        answer = await self.answer(
            graph, *outputs, timeout=timeout, wait=wait, on_error=on_error, retry=retry, on_progress=on_progress
        )
        values: dict[str, Any] = {**answer.values, **answer.errors}
        if not outputs:
            return values
        picked = tuple(_part(values[handle.name], handle) for handle in outputs)
        return picked[0] if len(picked) == 1 else picked

    async def answer(
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
        _check_graph(graph)
        if isinstance(graph, Graph):
            request = graph.request(
                *outputs,
                partial=_partial(on_error),
                timeout=nanoseconds(timeout, "timeout"),
                wait=nanoseconds(wait, "wait") or 0,
                trace=trace,
            )
        else:
            request = graph
        if wants_progress(on_progress):
            request = msgspec.structs.replace(request, progress=True)
        result = await self._result(request, on_progress, retry=retry)
        values = {row.name: self._codec.decode(row.value) for row in result.done}
        errors = {row.name: exception_for(row.fault) for row in result.failed}
        error = None if result.fault is None else exception_for(result.fault)
        return GraphResult(values, errors, result.trace, error, result.untraced)

    def stream(self, graph: Graph, *, timeout: float | None = None, wait: float | None = None) -> ResultStream:
        """Run a graph and yield each leaf's (name, value) as soon as it arrives. Leaving the loop cancels the rest."""
        _check_graph(graph)
        span, patience = nanoseconds(timeout, "timeout"), nanoseconds(wait, "wait") or 0
        request = graph.request(eager=True, timeout=span, wait=patience)

        def ask() -> tuple[ReplyWaiter, Callable[[], None]]:
            connection = self._connection
            number, waiter = connection.submit(lambda session, now: session.submit(request, now=now))
            return waiter, partial(connection.drop, number)

        return ResultStream(ask, self._codec.decode, request)

    async def explain(self, graph: Graph | Request) -> tuple[Explained, ...]:
        """Return for each call its node, or the equal candidates of which one would be drawn now, and why.

        Runs nothing.
        """
        _check_graph(graph)
        request = graph.request() if isinstance(graph, Graph) else graph
        reply = await self._reply(lambda session, now: session.explain(request, now=now))
        assert isinstance(reply, (Explanation, Result))
        if reply.fault is not None:
            raise exception_for(reply.fault)
        assert isinstance(reply, Explanation)
        return reply.rows

    async def view(self) -> NodeView:
        """Return the node's view of the cluster and of itself."""
        reply = await self._reply(lambda session, now: session.get_view(now=now))
        if isinstance(reply, Result) and reply.fault is not None:
            raise exception_for(reply.fault)
        assert isinstance(reply, View)
        return _view.decode(reply.view)

    async def _drain_node(self, node: str) -> DrainReply:
        """Let a member leave the cluster in order, for `mpreg drain`; a second command for it only asks how far it is.

        `node` is its name, the beginning of its id, or an address. Raises InvalidRequest if that means no member.
        """
        reply = await self._reply(lambda session, now: session.drain_node(node, now=now))
        assert isinstance(reply, (DrainReply, Result))
        if reply.fault is not None:
            raise exception_for(reply.fault)
        assert isinstance(reply, DrainReply)
        return reply

    def _stop_requests(self) -> None:
        """Cancel all that is pending, for Ctrl-C: it ends in the node's answer, Cancelled with what had started."""
        self._connection.stop_requests()

    # -- requests and replies -----------------------------------------------------------------------------------------

    async def _result(self, request: Request, on_progress: OnProgress | None = None, *, retry: bool = False) -> Result:
        _check_retry(retry)
        reply = await self._reply(lambda session, now: session.submit(request, now=now, retry=retry), on_progress)
        assert isinstance(reply, Result)
        if reply.fault is not None and not request.partial:
            raise exception_for(reply.fault)
        if reply.fault is not None and not reply.failed and not reply.done:
            raise exception_for(reply.fault)
        return reply

    async def _reply(self, submit: Submit, on_progress: OnProgress | None = None) -> Reply:
        connection = self._connection
        number, waiter = connection.submit(submit, on_progress)
        try:
            await waiter.event.wait()
        finally:
            connection.drop(number)
        return waiter.replies[0]


class ClientConnection:
    """One connection of a client to its cluster, from `open` to `close`. Each has its own session and its own numbers.

    It runs in a task of its own, which has no reference to the client, so that an unused client is garbage-collected.
    """

    def __init__(
        self,
        session: ClientSession,
        urls: tuple[str, ...],
        open_link: OpenLink,
        limits: Limits,
        *,
        wait: int,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.session = session
        self.node: str = ""
        self.version: int = 0
        self._urls = urls
        self._open_link = open_link
        self._limits = limits
        self._wait = wait
        """The nanoseconds for which it waits for the first node."""
        self._clock = clock
        self._entropy = entropy
        self._waiters: dict[int, ReplyWaiter] = {}
        self._link_loop = LinkLoop(session, flush=self.flush, spawn=self._spawn, clock=clock)
        self._links: dict[LinkId, _ClientLink] = {}
        self._current: _ClientLink | None = None
        self._due: int | None = None
        self._wakeup = anyio.Event()
        self._affinity: LoopAffinity | None = None
        self._background: Background | None = None
        self._tasks: TaskGroup | None = None
        self._call_soon_threadsafe: Callable[..., None] | None = None
        self._open = False
        """True while requests are accepted: tasks serve their deadlines and the link."""

    @property
    def is_open(self) -> bool:
        """True if requests are accepted."""
        return self._open and self._affinity is not None and not self._affinity.is_closed

    @property
    def is_ended(self) -> bool:
        """True if the connection has ended, or its event loop can run nothing any more."""
        if self._background is None or self._affinity is None:
            return False
        return self._background.ended or self._affinity.is_closed

    async def open(self) -> None:
        """Connect. See `Client.connect`."""
        if self._background is None or self._affinity is None:
            self._affinity = LoopAffinity()
            self._call_soon_threadsafe = get_call_soon_threadsafe()
            self._background = Background(self._run, name="mpreg client")
        self._affinity.check("this client")
        if self._open:
            return
        await self._background.start()
        if not self._open:
            raise NotConnected("the client was closed while it was connecting")

    async def close(self) -> None:
        """Close the connection. See `Client.close`."""
        if self._background is None or self._affinity is None or self._affinity.is_closed:
            self._open = False
            return
        if not self._background.ended:
            self._affinity.check("this client")
        self._open = False
        await self._background.stop()

    def abandon(self) -> bool:
        """Cancel the task of a client that was garbage-collected. Any thread may call it; never waits."""
        if self._background is None or self._affinity is None or self._call_soon_threadsafe is None or self.is_ended:
            return False
        self._call_soon_threadsafe(self._background.cancel)
        return True

    # -- submission ---------------------------------------------------------------------------------------------------

    def submit(self, submit: Submit, on_progress: OnProgress | None = None) -> tuple[int, ReplyWaiter]:
        """Submit a request; return its number and the waiter of its replies.

        Raises RuntimeError if the client is not connected, or if it belongs to another event loop or process.
        """
        if self._affinity is not None and (self._open or not self.is_ended):
            self._affinity.check("this client")
        if not self._open:
            raise RuntimeError(
                "this client is not connected: use it as `async with Client(...) as client`, or connect() first"
            )
        number = submit(self.session, self._clock())
        waiter = self._waiters[number] = ReplyWaiter(on_progress)
        self.flush()
        return number, waiter

    def items_taken(self, number: int, call: str, count: int) -> None:
        """Let the node send so many more items of a call."""
        self.session.items_taken(number, call, count, now=self._clock())
        self.flush()

    def drop(self, number: int) -> None:
        """Stop waiting for a reply. If the reply has not arrived yet, the node receives a cancellation."""
        if self._affinity is not None and not self._affinity.is_current:
            if self._call_soon_threadsafe is not None and not self._affinity.is_closed:
                self._call_soon_threadsafe(self.drop, number)
            return
        self._waiters.pop(number, None)
        self.session.cancel(number, now=self._clock())
        self.flush()

    def stop_requests(self) -> None:
        """Cancel all pending requests, whose answers still come."""
        for number in list(self._waiters):
            self.session.stop(number, now=self._clock())
        self.flush()

    # -- links --------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Carry out all effects of the session. Never awaits."""
        for effect in self.session.drain():
            match effect:
                case Send() | KeepAlive() | Pause() | Resume():
                    self._link_loop.apply(effect)
                case HangUp(link):
                    self._link_loop.apply(effect)
                    if (linked := self._links.get(link)) is not None and linked.ready:
                        self._detach(linked)  # its close waits for seconds for a peer that takes nothing
                case ReplyReceived(id, reply):
                    if (waiter := self._waiters.get(id)) is not None:
                        waiter.replies.append(reply)
                        waiter.event.set()
                case ItemsReceived(id, items):
                    if (waiter := self._waiters.get(id)) is not None:
                        waiter.items.extend(items.values)
                        waiter.event.set()
                case ProgressReceived(id, progress):
                    if (waiter := self._waiters.get(id)) is not None:
                        waiter.report(progress)
                case Ready() | Rejected() | LinkDraining():
                    self._on_session_event(effect)
                case _:
                    pass  # notices are for nodes
        self._link_loop.write()
        if self.session.next_timeout() != self._due:
            self._wakeup.set()

    def _on_session_event(self, event: Ready | Rejected | LinkDraining) -> None:
        """Record the new state of the link on which requests are sent."""
        linked = self._current
        match event:
            case Ready(name, _, version):
                self.node, self.version = name or "node", version
                if linked is not None:
                    linked.ready = True
                    linked.on_ready()
            case Rejected(fault):
                if linked is not None:
                    linked.rejected = fault
            case LinkDraining(link):
                self._detach(self._links.get(link))

    def _detach(self, linked: _ClientLink | None) -> None:
        """Send no more requests on this link; the next address is tried."""
        if linked is not None:
            linked.released.set()
            if linked is self._current:
                self._current = None

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        def on_ready() -> None:
            if not self._open:
                self._open = True
                task_status.started()

        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    self._tasks.start_soon(self._run_timers)
                    self._link_loop.start(idle=False)
                    await self._stay_connected(self._tasks, on_ready)
                finally:
                    self._end_requests()
        finally:
            self._end_requests()

    def _end_requests(self) -> None:
        """Answer all that is pending, without a wait for the links to close: that takes seconds.

        The task for deadlines has ended.
        """
        self._open = False
        for linked in list(self._links.values()):
            if linked.begun:
                self._link_loop.end(linked.id)
        self.session.fail_all(_CLOSED)
        self.flush()

    async def _run_timers(self) -> None:
        while True:
            self._due = self.session.next_timeout()
            if self._due is None:
                await self._wakeup.wait()
            else:
                with anyio.move_on_after(min(max(0, self._due - self._clock()) / SECOND, _MAX_SLEEP_SECONDS)):
                    await self._wakeup.wait()
            self._wakeup = anyio.Event()
            self.session.wake(now=self._clock())
            self.flush()

    async def _stay_connected(self, tasks: TaskGroup, on_ready: Callable[[], None]) -> None:
        """Dial the addresses in turn until one answers. One must answer within the `wait`; later it tries for ever."""
        was_ready = False
        failures = 0
        give_up = self._clock() + self._wait
        while True:
            tried: dict[str, str] = {}
            denied: list[str] = []
            for url in self._urls:
                try:
                    transport = await self._open_link(Address(url))
                except LinkEnded as end:
                    tried[url] = end.reason
                    denied += [url] if end.denied else []
                    continue
                linked = self._attach(transport, on_ready)
                tasks.start_soon(self._pump, transport, linked, Address(url))
                await linked.released.wait()
                was_ready = was_ready or linked.ready
                rejected = linked.rejected
                if linked.ready:
                    failures = 0
                elif rejected is not None and len(self._urls) == 1:
                    if not was_ready:
                        raise exception_for(rejected)
                    self.session.fail_all(rejected)  # another cluster has this address now: fail all pending calls
                    self.flush()
                elif rejected is not None:
                    tried[url] = rejected.message
                elif linked.denial is not None:
                    tried[url] = linked.denial
                    denied.append(url)
                else:
                    tried[url] = "it hung up without a hello"
            left = give_up - self._clock()
            if not was_ready and left <= 0:
                raise not_connected(tried, denied)
            self.session.unreachable(_reasons(tried))
            failures += 1
            most = min(self._limits.dial_longest, self._limits.dial_first << min(failures, 8))
            jitter = int.from_bytes(self._entropy(4), "big") / 2**32  # so that clients do not reconnect all at once
            pause = most * jitter if was_ready else min(min(most, _FIRST_PAUSE) * jitter, left)
            await anyio.sleep(pause / SECOND)

    def _spawn(self, start: Callable[[], Coroutine[object, object, None]]) -> None:
        assert self._tasks is not None, "effects are carried out while the connection runs"
        self._tasks.start_soon(start)

    def _attach(self, transport: Link, on_ready: Callable[[], None]) -> _ClientLink:
        linked = _ClientLink(self._link_loop.attach(transport), on_ready)
        self._links[linked.id] = self._current = linked
        return linked

    async def _pump(self, transport: Link, linked: _ClientLink, address: Address) -> None:
        """Read the link until it ends; its writer runs beside."""

        def begin() -> None:
            linked.begun = True
            self.session.link_opened(linked.id, framing=transport.framing, address=address, now=self._clock())

        try:
            end = await self._link_loop.run(linked.id, transport, begin=begin)
            linked.denial = end.reason if end.denied else None
        finally:
            del self._links[linked.id]
            self._detach(linked)


class _ClientLink:
    """One link of a client."""

    __slots__ = ("begun", "denial", "id", "on_ready", "ready", "rejected", "released")

    def __init__(self, id: LinkId, on_ready: Callable[[], None]) -> None:
        self.id = id
        self.on_ready = on_ready
        self.begun = False
        """True once the session was notified of it."""
        self.ready = False
        """True if its handshake is complete."""
        self.rejected: Fault | None = None
        """The reason of the node, if it refused this client."""
        self.denial: str | None = None
        """The reason, if the node did not accept the certificate of this client."""
        self.released = anyio.Event()
        """Set when no more requests are sent on it: the link has ended, or its node drains."""


_FIRST_PAUSE = SECOND
"""The longest pause between two rounds while the client waits for its first node."""
_MAX_SLEEP_SECONDS = 3600.0
"""Seconds; some event loops refuse a timer of years."""
_CLOSED = Fault(ErrorCode.CANCELLED, "the client was closed before it could be sent", {"maybe_executed": False})


def not_connected(tried: Mapping[str, str], denied: Sequence[str] = ()) -> NotConnected:
    """Return the error for the case that no address answered, with the reason of each.

    `denied` are those at which one end did not accept the other's certificate.
    """
    details: dict[str, Any] = {"tried": dict(tried)}
    if denied:
        details["denied"] = list(denied)
    return NotConnected(f"no node could be reached ({_reasons(tried)})", details=details)


def _reasons(tried: Mapping[str, str]) -> str:
    return "; ".join(f"{url}: {reason}" for url, reason in tried.items())


def nanoseconds(seconds: float | None, name: str) -> int | None:
    """Convert seconds to nanoseconds, at least 1 unless they are 0.

    Raises TypeError for a value that is not a number, ValueError for one that is not a valid time span.
    """
    if seconds is None:
        return None
    _check_number(seconds, name)
    if not 0 <= seconds <= 86_400 or (seconds == 0 and name == "timeout"):
        least = "more than 0 and" if name == "timeout" else "0 or more, and"
        raise ValueError(f"{name}={seconds}: {least} at most 86400 seconds")
    return max(int(seconds * SECOND), 1 if seconds else 0)  # a time shorter than 1 ns is a deadline too


def _one_call(call: Call, timeout: float | None, wait: float | None, on_progress: OnProgress | None) -> Request:
    """Return the request of one call."""
    span, patience = nanoseconds(timeout, "timeout"), nanoseconds(wait, "wait") or 0
    return Request(0, (call,), timeout=span, wait=patience, progress=wants_progress(on_progress))


def wants_progress(on_progress: object) -> bool:
    """Return whether there is a callback for progress. Raises TypeError for one that cannot be called."""
    if on_progress is not None and (not callable(on_progress) or inspect.iscoroutinefunction(on_progress)):
        raise TypeError(f"on_progress={on_progress!r:.80}: expected a plain function that takes a ProgressReport")
    return on_progress is not None


def _check_number(seconds: object, name: str) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(f"{name}={seconds!r} is of type {type(seconds).__name__}; write seconds, such as {name}=5")


def _check_retry(retry: object) -> None:
    if type(retry) is not bool:
        raise TypeError(f"retry={retry!r}: expected True or False; a function's own keyword goes into kwargs=")


def _check_graph(graph: object) -> None:
    if not isinstance(graph, (Graph, Request)):
        kind = type(graph).__name__
        raise TypeError(f"expected a Graph, got {kind}; make one with client.graph(), or use client.call for one call")


def _partial(on_error: str) -> bool:
    if on_error not in ("fail", "partial"):
        raise ValueError(f'on_error={on_error!r}: "fail" or "partial"')
    return on_error == "partial"


def _part(value: Any, handle: Handle) -> Any:
    """Return the part of a result that `handle["key"]` refers to."""
    if isinstance(value, RequestError):
        return value
    for position, step in enumerate(handle.path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            taken = "".join(f"[{key!r}]" for key in handle.path[: position + 1])
            raise UnresolvedReference(f"the result of {handle.name!r} has no {taken}") from None
    return value
