"""A node as a process runs it: functions registered in Python, one port for everything, a place in a cluster.

`Server` puts the parts together: a pure `Node`, the driver that carries its effects out, the listener, the functions.
Run it with `server.run()`, `await server.serve()` or `async with server:`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel

from mpreg_proto.ids import Address, MemberId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.view import NodeView
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.addresses import (
    DEFAULT_PORT,
    Scheme,
    can_be_advertised,
    format_address,
    host_and_port,
    is_loopback,
    is_wildcard,
    normal_host,
    parse_address,
    reachable_host,
)
from mpreg_transports.arguments import (
    allowed_names,
    cannot_journal,
    check_backend,
    check_function,
    check_length,
    check_name,
    check_port,
    check_text,
    refuse_open_host,
    warn_of_collisions,
)
from mpreg_transports.dialing import Dialler, Listening, Network
from mpreg_transports.driver import Driver, clock, leave_group
from mpreg_transports.functions import Function, built_in, tags
from mpreg_transports.functions import function as make_function
from mpreg_transports.importing import refuse_while_importing
from mpreg_transports.links.base import Link
from mpreg_transports.listener import Listener, own_address
from mpreg_transports.observe.journal import JournalNode
from mpreg_transports.reports import Reports, on_stderr, open_line, ready_line
from mpreg_transports.values import default_codec
from mpreg_transports.web.access import Access
from mpreg_transports.web.routes import Routes

log = logging.getLogger("mpreg")

F = TypeVar("F", bound=Callable[..., Any])


class Server:
    """One node. Arguments are those of `mpreg serve`; resources are what calls may ask for, peers whom it joins.

    With a `network` (tests), host, port, advertise and transport mean nothing, and peers are addresses of its own.
    """

    def __init__(
        self,
        *,
        name: str = "node",
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        resources: Iterable[str] = (),
        peers: Iterable[str] = (),
        cluster_id: str = "default-cluster",
        advertise: str | None = None,
        transport: str = "auto",
        insecure: bool = False,
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        limits: Limits = DEFAULT,
        codec: ValueCodec | None = None,
        journal: str | os.PathLike[str] | None = None,
        network: Network | None = None,
    ) -> None:
        if isinstance(peers, str):
            raise TypeError(f'peers="{peers}" is a bare string; write peers=["{peers}"]')
        if transport not in ("auto", "websocket"):
            raise ValueError(f'transport={transport!r}: "auto" or "websocket"')
        check_name(name, "the node's name", limits)
        check_text(host, "host", example="127.0.0.1")
        check_port(port)
        check_text(cluster_id, "cluster_id", example="shop")
        self.name = name
        self.host = host
        self.port = port
        self.resources = tags(resources)
        for tag in sorted(self.resources):
            check_length(tag, "a resource", limits)
        self.peers = tuple(peers) if network is not None else tuple(str(parse_address(peer)) for peer in peers)
        self.cluster_id = cluster_id
        self.advertise = str(parse_address(advertise)) if advertise is not None else None
        self.transport = transport
        self.insecure = insecure
        self.allow_hosts, self.allow_origins = allowed_names(allow_hosts, allow_origins)
        self.network = network
        self.journal = Path(journal) if journal is not None else None
        """Where the core's inputs are written, arguments and results among them; a new file."""
        self.url = ""
        """Where it listens, once it does."""
        self._limits = limits
        self._codec = codec or default_codec()
        self._functions: dict[str, Function] = {one.spec.name: one for one in built_in()}
        self._driver: Driver | None = None
        self._token: anyio.lowlevel.EventLoopToken | None = None
        self._thread: int | None = None
        self._leave_at_once = False
        self._guessed = False
        """Whether it advertises, for want of a better one, the address of a link that led to no seed."""
        self._access = Access()
        self._leaving_since: int | None = None
        """When it began to leave with grace."""
        self._stack = AsyncExitStack()

    # -- functions ----------------------------------------------------------------------------------------------------

    @overload
    def function(self, call: F, /) -> F: ...
    @overload
    def function(
        self,
        /,
        *,
        name: str | None = None,
        version: str = "",
        resources: Iterable[str] = (),
        idempotent: bool = False,
        concurrency: int | None = None,
        executor: Executor | None = None,
        inline: bool = False,
        replace: bool = False,
    ) -> Callable[[F], F]: ...
    def function(self, call: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
        """Offer the decorated function; with or without arguments, which are those of `register`."""

        def decorate(call: F) -> F:
            self.register(options.get("name"), call, **{key: options[key] for key in options if key != "name"})
            return call

        return decorate if call is None else decorate(call)

    def register(
        self,
        name: str | None,
        function: Callable[..., Any],
        *,
        version: str = "",
        resources: Iterable[str] = (),
        idempotent: bool = False,
        concurrency: int | None = None,
        executor: Executor | None = None,
        inline: bool = False,
        replace: bool = False,
    ) -> None:
        """Offer `function` as `name` (None: its own), before or while running; the cluster learns it at once.

        `async def` runs in the loop, `def` in a thread, `executor=` runs it in any concurrent.futures Executor, and
        `inline=True` within the wake-up that brought the call, for tiny functions that never block. `idempotent=True`
        allows a second run where a node was lost. Raises ValueError for a name that is taken, unless `replace`; nothing
        has changed then.
        """
        check_function(version=version, concurrency=concurrency, executor=executor)
        if name is not None:
            check_name(name, "a function's name", self._limits)
        made = make_function(
            function,
            name=name,
            version=version,
            resources=resources,
            idempotent=idempotent,
            concurrency=concurrency,
            executor=executor,
            inline=inline,
        )
        check_length(made.spec.name, "a function's name", self._limits)
        for tag in made.spec.resources:
            check_length(tag, "a resource", self._limits)
        warn_of_collisions(made.spec.name, function)
        self._in_loop(self._offer, made, replace)

    def unregister(self, name: str) -> None:
        """Offer `name` no longer; running calls go on. Raises KeyError for a name that is not registered."""
        self._in_loop(self._withdraw, name)

    @property
    def functions(self) -> tuple[str, ...]:
        """The names that it offers."""
        return tuple(self._functions)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, *, backend: str = "asyncio") -> None:
        """Serve until SIGTERM or Ctrl-C, then let running calls finish (10 s; a second signal skips that).

        Where the program has not said where its log goes, what the node has to say goes to stderr.
        """
        check_backend(backend)
        refuse_while_importing()
        with on_stderr():
            anyio.run(self._serve_aloud, backend=backend, backend_options=backend_options(backend))

    async def _serve_aloud(self) -> None:
        """`serve_until_signal`, and say where."""
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            try:
                await tasks.start(self.serve_until_signal)
            except Exception as error:
                failed = error  # to be raised as it is, not in a group
            else:
                log.info("%s", self.ready_line())
        if failed is not None:
            raise failed

    def ready_line(self) -> str:
        """The one line that says where it listens."""
        return ready_line(self.name, self.url, functions=len(self.functions), resources=self.resources)

    async def serve_until_signal(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """`serve`, and leave the cluster in order when the process is told to end."""
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._watch_signals)
            try:
                await self.serve(task_status=task_status)
            except Exception as error:
                failed = error  # to be raised as it is, not in a group
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `leave()` is through or the caller cancels. Raises CannotListen or ValueError."""
        refuse_while_importing()
        self._leave_at_once = False
        self._leaving_since = None
        listener = await self._bind()
        try:
            driver = self._driver = self._make_driver()
            self._token, self._thread = anyio.lowlevel.current_token(), threading.get_ident()
            routes = Routes(self.view, driver.exchange, self._access)
            async with anyio.create_task_group() as tasks:
                await tasks.start(driver.run)
                await tasks.start(self._listen, listener, routes)
                task_status.started()
                if self._leave_at_once:  # told so before there was anything to leave
                    self._leave(True)
                await driver.ended.wait()
                self._tell_end_of_grace()
                await listener.close()
                tasks.cancel_scope.cancel()
        finally:
            if self._driver is not None and isinstance(self._driver.node, JournalNode):
                self._driver.node.close_journal()
            self._driver = None
            with anyio.CancelScope(shield=True):
                await listener.close()

    async def __aenter__(self) -> Self:
        """Serve in the background; when this returns, it listens and `url` says where."""
        self._stack = AsyncExitStack()
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        try:
            await tasks.start(self.serve)
        except BaseException as error:
            tasks.cancel_scope.cancel()
            await leave_group(self._stack, error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the cluster: running calls get no grace, other nodes are told."""
        self.leave(grace=False)
        await leave_group(self._stack, error)

    def leave(self, *, grace: bool = True) -> None:
        """Begin to leave: refuse what is new, finish what runs, say goodbye; then `serve` returns. Again: no grace."""
        if self._driver is not None:
            self._in_loop(self._leave, grace)
        else:
            self._leave_at_once = True

    def view(self) -> NodeView:
        """How this node sees the cluster and itself. Raises RuntimeError while it does not run."""
        if self._driver is None:
            raise RuntimeError("the server is not running")
        return self._driver.node.view(now=clock())

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _bind(self) -> Listening:
        """Be reachable, and know where."""
        if self.network is not None:
            self.url = self.network.url
            return self.network.listen()
        refuse_open_host(self.host, insecure=self.insecure)
        address = self.advertise or format_address(Scheme.WS, reachable_host(self.host))
        self._access = Access(names=[parse_address(address).host, *self.allow_hosts], origins=self.allow_origins)
        listener = await Listener.bind(self.host, self.port, admit=self._access.check)
        self.port = listener.port
        self.url = self.advertise or format_address(Scheme.WS, reachable_host(self.host), port=self.port)
        if not is_loopback(self.host):
            self._tell_open()
        return listener

    def _tell_open(self) -> None:
        """Say that other machines can use it, and by which address."""
        others: str | None = self.url
        if is_wildcard(self.host) and self.advertise is None:
            own = own_address(self.host)
            others = format_address(Scheme.WS, own, port=self.port) if own is not None else None
        log.warning("%s", open_line(host_and_port(normal_host(self.host) or "all addresses", self.port), others))

    def _make_driver(self) -> Driver:
        wildcard = is_wildcard(self.host) and self.advertise is None and self.network is None
        config = NodeConfig(
            name=self.name,
            cluster_id=self.cluster_id,
            addresses=() if wildcard else (Address(self.url),),
            seeds=tuple(Address(peer) for peer in self.peers),
            resources=tuple(sorted(self.resources)),
            limits=self._limits,
        )
        me, seed = MemberId(os.urandom(16)), int.from_bytes(os.urandom(8), "big")
        if self.journal is None:
            node = Node(config, me=me, rng=Rng(seed), entropy=os.urandom, now=clock(), codec=self._codec)
        else:
            try:
                node = JournalNode(self.journal, config, me=me, seed=seed, now=clock(), codec=self._codec)
            except OSError as error:
                raise cannot_journal(self.journal, error) from None
        for one in self._functions.values():
            node.offer(one.spec, now=clock())
        network = self.network
        dial = network.dial if network is not None else Dialler(websocket_only=self.transport == "websocket")
        reports = Reports(me)
        driver = Driver(node, functions=self._functions, dial=dial, observe=reports.observe)
        driver.on_failure = reports.failed
        if wildcard:
            self._guessed = False
            driver.on_local_host = self._learn_address
        return driver

    async def _listen(self, listener: Listening, routes: Routes, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        # The core holds clients to their own, lower limit; until values move in chunks, nodes need more.
        longest = self._limits.node_message
        await listener.serve(self._on_link, routes, max_message=longest, task_status=task_status)

    async def _on_link(self, link: Link) -> None:
        assert self._driver is not None
        await self._driver.pump(link)

    def _learn_address(self, host: str, dialled: Address | None) -> None:
        """Bound to all addresses and told none to advertise: the one of the first link to a seed.

        Until there is one, that of the first link at all, such as a client's on this very machine, has to do.
        """
        driver = self._driver
        assert driver is not None
        if not can_be_advertised(host, listening=self.host):
            return
        if not self.peers or dialled in self.peers:
            driver.on_local_host = None
        elif self._guessed:
            return
        self._guessed = True
        self.url = format_address(Scheme.WS, host, port=self.port)
        driver.node.advertise((Address(self.url),), now=clock())

    def _offer(self, made: Function, replace: bool) -> None:
        """Looks and acts in the loop's thread, so that of two threads with one name one is refused."""
        name = made.spec.name
        if name in self._functions and not replace:
            raise ValueError(f"a function {name!r} is registered already; replace=True puts this one in its place")
        if self._driver is not None:
            self._driver.node.offer(made.spec, now=clock())  # it may refuse: then nothing has changed
        self._functions[name] = made
        if self._driver is not None:
            self._driver.flush()

    def _withdraw(self, name: str) -> None:
        if name not in self._functions:
            raise KeyError(f"no function {name!r} is registered; there are {', '.join(self._functions)}")
        if self._driver is not None:
            self._driver.node.withdraw(name, now=clock())
            self._driver.flush()
        del self._functions[name]

    def _leave(self, grace: bool) -> None:
        driver = self._driver
        if driver is None:
            return
        self._leaving_since = None if driver.node.draining or not grace else clock()
        driver.node.leave(now=clock())
        if not grace and not driver.node.left:
            driver.node.leave(now=clock())
        driver.flush()

    def _in_loop(self, act: Callable[..., None], *args: object) -> None:
        """Do it in the loop's thread, where the node lives: here, or over there when another thread calls."""
        if self._driver is None or self._thread == threading.get_ident():
            act(*args)
        else:
            anyio.from_thread.run_sync(act, *args, token=self._token)

    async def _watch_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                again = self._driver is not None and self._driver.node.draining
                grace = f"running calls have {self._limits.drain_grace / SECOND:g} s to finish"
                what = "at once" if again else f"{grace}, a second signal ends them at once"
                log.info("%s: leaving the cluster, %s", signal.Signals(number).name, what)
                self.leave()

    def _tell_end_of_grace(self) -> None:
        began, grace = self._leaving_since, self._limits.drain_grace
        if began is not None and clock() - began >= grace:
            log.warning("%g s are over, calls that still ran were given up", grace / SECOND)


def backend_options(backend: str) -> dict[str, object]:
    """What `anyio.run` should be told: to take uvloop where it is installed (the extra `uvloop`)."""
    return {"use_uvloop": importlib.util.find_spec("uvloop") is not None} if backend == "asyncio" else {}
