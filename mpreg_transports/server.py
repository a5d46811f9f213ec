"""A node in a process: functions registered in Python, one port for everything, membership in a cluster.

`Server` connects the parts: a pure `Node`, the driver that carries out its effects, the listener, the functions. Run it
with `server.run()`, `await server.serve()` or `async with server:`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskStatus
from anyio.lowlevel import EventLoopToken, current_token

from mpreg_proto.ids import Address, MemberId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.view import NodeView
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.background import Background, LoopAffinity, is_cancellation, single_errors
from mpreg_transports.config.addresses import (
    DEFAULT_PORT,
    Scheme,
    address_evidence,
    can_be_advertised,
    format_address,
    host_and_port,
    is_loopback,
    is_wildcard,
    normal_host,
    parse_address,
    reachable_host,
)
from mpreg_transports.config.import_guard import refuse_while_importing
from mpreg_transports.config.validation import (
    cannot_journal,
    check_backend,
    check_length,
    check_name,
    check_port,
    check_processes,
    check_text,
    refuse_open_host,
    refuse_plain_text,
)
from mpreg_transports.functions.execution import Function, tags
from mpreg_transports.functions.pools import ExecutorSource
from mpreg_transports.functions.registry import FunctionRegistry
from mpreg_transports.functions.threads import get_call_soon_threadsafe
from mpreg_transports.links.base import Link
from mpreg_transports.observe.journal import Journal
from mpreg_transports.runtime import logs
from mpreg_transports.runtime.clock import Clock, clock
from mpreg_transports.runtime.dialing import Dialler, LinkListener, NetworkBackend
from mpreg_transports.runtime.driver import Driver
from mpreg_transports.runtime.listener import Listener, own_address
from mpreg_transports.runtime.log_observer import LogObserver, on_stderr, open_line, ready_line, secured_line
from mpreg_transports.runtime.signals import SignalExit
from mpreg_transports.security.secret import Secret, given_secret, read_secret
from mpreg_transports.values import default_codec
from mpreg_transports.web.access import Access, allowed_names
from mpreg_transports.web.routes import HttpRoutes

if TYPE_CHECKING:
    from mpreg_transports.security.contexts import Credentials

log: logs.NodeLog = logs.get("mpreg")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Server:
    """One node.

    The arguments are those of `mpreg serve`: resources are names that calls may require, peers are the nodes to join.
    With `processes=N` its `def` functions that name no executor run in N processes, which import them. With a secret
    (the text that `mpreg secret new` made, or its file) all links are encrypted, and only nodes and clients that prove
    it are served; with `open_clients` also other clients.
    With a `network` (tests) host, port, advertise, transport and secret have no effect, and peers are addresses of that
    network.
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
        secret: Secret | str | None = None,
        secret_file: str | os.PathLike[str] | None = None,
        open_clients: bool = False,
        insecure: bool = False,
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        processes: int = 0,
        limits: Limits = DEFAULT,
        codec: ValueCodec | None = None,
        journal: str | os.PathLike[str] | None = None,
        network: NetworkBackend | None = None,
    ) -> None:
        if isinstance(peers, str):
            raise TypeError(f'peers="{peers}" is a bare string; write peers=["{peers}"]')
        if transport not in ("auto", "websocket"):
            raise ValueError(f'transport={transport!r}: "auto" or "websocket"')
        check_name(name, "the node's name", limits)
        check_text(host, "host", example="127.0.0.1")
        check_port(port)
        check_processes(processes)
        check_text(cluster_id, "cluster_id", example="shop")
        self.name = name
        self.host = host
        self.port: int = port
        self.resources: frozenset[str] = tags(resources)
        for tag in sorted(self.resources):
            check_length(tag, "a resource", limits)
        self.peers: tuple[str, ...] = (
            tuple(peers) if network is not None else tuple(str(parse_address(peer)) for peer in peers)
        )
        self.cluster_id = cluster_id
        self.advertise: str | None = str(parse_address(advertise)) if advertise is not None else None
        self.transport = transport
        self.secret_file: str | None = None if secret_file is None else os.fspath(secret_file)
        """The file with the secret of the cluster; it is read when the node starts."""
        self._secret = given_secret(secret, secret_file)
        self.open_clients = open_clients
        self.insecure = insecure
        self.allow_hosts: tuple[str, ...]
        self.allow_origins: tuple[str, ...]
        self.allow_hosts, self.allow_origins = allowed_names(allow_hosts, allow_origins)
        self.network = network
        self.check_addresses()
        self.journal: Path | None = Path(journal) if journal is not None else None
        """The file for the core's inputs, which include arguments and results.

        An earlier journal of that name is moved.
        """
        self.url: str = ""
        """The URL at which the node listens; empty before it listens."""
        self._limits = limits
        self._codec = codec or default_codec()
        self._clock: Clock = clock
        self.processes: int = processes
        """The number of processes that run its `def` functions; with 0 they run in threads."""
        self._functions = FunctionRegistry(limits)
        self._functions.use_processes(processes)
        self._driver: Driver | None = None
        self._open_journal: Journal | None = None
        self._affinity: LoopAffinity | None = None
        """The process and event loop in which it runs; None while it does not run."""
        self._token: EventLoopToken | None = None
        self._thread: int | None = None
        self._evidence: tuple[int, str] = (0, "")
        """The quality of the evidence for the address that the node advertises, if it is detected, and its host."""
        self._call_soon_threadsafe: Callable[..., None] | None = None
        self._registration_lock = threading.RLock()
        """Held while its functions are passed to a node, and while other threads change them before that."""
        self._has_run = False
        self._leave_early: bool | None = None
        """The grace (True or False) of a `leave` that came before the node listened; None if there was none."""
        self._access = Access()
        self._credentials: Credentials | None = None
        """The certificate and the TLS contexts of this run; None without a secret."""
        self._leaving_since: int | None = None
        """The time at which it began to leave with grace."""
        self._background: Background | None = None
        self._signals = SignalExit(self._leave_for_signal, self._is_draining, grace=limits.drain_grace)

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
        queue: int | None = None,
        executor: ExecutorSource | None = None,
        inline: bool = False,
        replace: bool = False,
    ) -> Callable[[F], F]: ...
    def function(self, call: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
        """Offer the decorated function, with or without the arguments of `register`."""

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
        queue: int | None = None,
        executor: ExecutorSource | None = None,
        inline: bool = False,
        replace: bool = False,
    ) -> None:
        """Offer `function` as `name` (None: its own), before or while the node runs.

        Gossip carries the offer to all nodes, usually within a second.

        `async def` runs in the event loop, `def` in a thread, or in a process if the node has some (`processes=`).
        `executor=` runs it in any concurrent.futures Executor, and `inline=True` within the wake-up that brought the
        call, for tiny functions that never block. If an executor breaks or is shut down, its functions are withdrawn.
        If `executor=` is a function that makes an executor, a new one is made instead. `concurrency=` bodies run at
        once, and `queue=` further calls wait here (by default as many as run); the others wait at the nodes that place
        them. `idempotent=True` allows a second run after the loss of a node. Raises ValueError for a name that is
        taken, unless `replace`, and for a function that processes cannot import; then nothing has changed.
        """
        described = self._functions.describe(
            name,
            function,
            version=version,
            resources=resources,
            idempotent=idempotent,
            concurrency=concurrency,
            queue=queue,
            executor=executor,
            inline=inline,
        )
        if self._driver is not None and described.pool is not None:
            described.pool.check(described.spec.name, function, make=True)
        self._call_in_loop(self._offer, described, replace)

    def unregister(self, name: str) -> None:
        """Withdraw `name`; running calls go on. Raises KeyError for a name that is not registered."""
        self._call_in_loop(self._withdraw, name)

    @property
    def functions(self) -> tuple[str, ...]:
        """Return the names of the functions that it offers."""
        return tuple(self._functions)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, *, backend: str = "asyncio") -> None:
        """Serve until SIGTERM, SIGHUP or Ctrl-C, then let running calls finish (10 s; a second signal ends this grace).

        In a thread other than the main thread there are no signals; `leave()` ends it. A body that keeps the process
        from ending is not waited for. If the program has not configured logging, the log is written to stderr.
        """
        with on_stderr():
            self.run_until_signal(lambda: log.info("%s", self.ready_line()), backend=backend)

    def run_until_signal(self, on_ready: Callable[[], None], *, backend: str = "asyncio") -> None:
        """Run `serve_until_signal` in a new event loop; `on_ready` is called once the node listens."""
        check_backend(backend)
        refuse_while_importing()

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self.serve_until_signal)
                on_ready()

        with self.ended_by_force(), single_errors():
            anyio.run(main, backend=backend, backend_options=backend_options(backend))

    def ended_by_force(self) -> AbstractContextManager[None]:
        """Return a context manager for a program that is only this node.

        If the process does not end by itself, it is ended by force some seconds after a signal.
        """
        return self._signals.forced()

    def ready_line(self) -> str:
        """Return the one log line that states where the node listens."""
        return ready_line(self.name, self.url, functions=len(self.functions), resources=self.resources)

    async def serve_until_signal(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run `serve`, and leave the cluster in order on a signal to end the process."""
        with single_errors():
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._signals.deliver)
                await self.serve(task_status=task_status)
                tasks.cancel_scope.cancel()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `leave()` is complete or the caller cancels.

        Raises CannotListen, CannotImport, SecretError or ValueError, or RuntimeError if it already runs.
        """
        refuse_while_importing()
        if self._affinity is not None:
            self._affinity.check_process("this server")
            if not self._affinity.is_closed:
                raise RuntimeError("this server runs already; make another Server for another node")
        self._affinity, self._driver = LoopAffinity(), None
        self._leaving_since = None
        try:
            with single_errors():
                await self._check_importable()
                await self._serve(task_status)
        finally:
            self._functions.end_processes()
            self._affinity = None
            self._has_run = True
            self._leave_early = None

    async def _check_importable(self) -> None:
        """Raise CannotImport, before the node listens, for functions that the processes for them cannot import."""
        check_processes(self.processes)
        self._functions.use_processes(self.processes)
        if self._functions.unchecked():
            await anyio.to_thread.run_sync(self._functions.check_importable, abandon_on_cancel=True)

    async def _serve(self, task_status: TaskStatus[None]) -> None:
        listener = await self._bind()
        try:
            self._token, self._thread, self._call_soon_threadsafe = (
                current_token(),
                threading.get_ident(),
                get_call_soon_threadsafe(),
            )
            with self._registration_lock:
                driver = self._driver = self._make_driver()
            routes = HttpRoutes(self.view, driver.exchange, self._access)
            async with anyio.create_task_group() as tasks:
                await tasks.start(driver.run)
                await tasks.start(self._listen, listener, routes)
                task_status.started()
                if self._leave_early is not None:
                    self._leave(self._leave_early)
                await driver.ended.wait()
                self._log_grace_expired()
                await listener.close()
                tasks.cancel_scope.cancel()
        finally:
            if self._open_journal is not None:
                self._open_journal.close()
            self._driver = self._open_journal = None
            with anyio.CancelScope(shield=True):
                await listener.close()

    async def __aenter__(self) -> Self:
        """Serve in the background. On return the node listens and `url` is set.

        A separate task serves: another task may leave the block, in any order with other blocks.
        """
        background = Background(self.serve, name=f"mpreg node {self.name}")
        await background.start()
        self._background = background
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the cluster: running calls get no grace, other nodes are notified.

        If cancelled, it does not wait for them. In a forked child the server belongs to the parent and is not touched.
        """
        background, self._background = self._background, None
        if background is None or (self._affinity is not None and self._affinity.is_closed):
            return
        if self._affinity is not None:
            self._affinity.check("this server")
        self._leave(False)
        if is_cancellation(error):
            background.cancel()
        await background.wait()

    def leave(self, *, grace: bool = True) -> None:
        """Begin to leave: refuse new calls, finish running ones, send a goodbye; then `serve` returns.

        A second call ends the grace. Any thread and any signal handler may call it; it takes effect between two
        callbacks of the event loop. Before the server runs, it makes the server leave as soon as it listens; after its
        end it does nothing.
        """
        if self._affinity is not None and self._driver is not None:
            self._affinity.check_process("this server")
            assert self._call_soon_threadsafe is not None
            self._call_soon_threadsafe(self._leave, grace)
        elif self._affinity is not None or not self._has_run:
            self._leave_early = grace and self._leave_early is None

    def view(self) -> NodeView:
        """Return this node's view of the cluster and of itself.

        Any thread may call it. Raises RuntimeError while it does not run.
        """
        return self._call_in_loop(self._view)

    # -- inside -------------------------------------------------------------------------------------------------------

    @property
    def has_secret(self) -> bool:
        """True if there is a secret: all links are encrypted, and only those who prove it are served."""
        return self.secret_file is not None or self._secret is not None

    @property
    def _scheme(self) -> Scheme:
        return Scheme.WSS if self.has_secret else Scheme.WS

    def check_addresses(self) -> None:
        """Raise ValueError for an address without TLS, if there is a secret."""
        if self.has_secret and self.network is None:
            for peer in self.peers:
                refuse_plain_text(peer, "the peer")
            if self.advertise is not None:
                refuse_plain_text(self.advertise, "the advertised address")

    def _make_credentials(self) -> Credentials | None:
        """Return the credentials of this run, from the file or the given secret; None if there is none.

        Raises SecretError.
        """
        self.check_addresses()
        secret = self._secret if self.secret_file is None else read_secret(self.secret_file)
        if secret is None:
            return None
        from mpreg_transports.security.contexts import Credentials  # it loads cryptography

        hosts = ["localhost", "127.0.0.1", "::1"]
        if self.advertise is not None:
            hosts.append(parse_address(self.advertise).host)
        own = own_address(self.host) if is_wildcard(self.host) else normal_host(self.host)
        if own is not None:
            hosts.append(own)
        return Credentials(secret, self.cluster_id, hosts=hosts, open_clients=self.open_clients)

    async def _bind(self) -> LinkListener:
        """Open the listener and set the URL at which the node listens."""
        if self.network is not None:
            self.url = self.network.url
            return self.network.listen()
        refuse_open_host(self.host, insecure=self.insecure, secret=self.has_secret)
        self._credentials = self._make_credentials()
        address = self.advertise or format_address(self._scheme, reachable_host(self.host))
        self._access = Access(names=[parse_address(address).host, *self.allow_hosts], origins=self.allow_origins)
        listener = await Listener.bind(self.host, self.port, admit=self._access.check, tls=self._credentials)
        self.port = listener.port
        self.url = self.advertise or format_address(self._scheme, reachable_host(self.host), port=self.port)
        if not is_loopback(self.host):
            self._log_access()
        return listener

    def _log_access(self) -> None:
        """Log that other machines can reach the node, at which address, and whether they need a secret."""
        others: str | None = self.url
        if is_wildcard(self.host) and self.advertise is None:
            own = own_address(self.host)
            others = format_address(self._scheme, own, port=self.port) if own is not None else None
        listening = host_and_port(normal_host(self.host) or "all addresses", self.port)
        if self.has_secret and not self.open_clients:
            log.info("%s", secured_line(listening, others))
        else:
            log.warning("%s", open_line(listening, others))

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
        network = self.network
        self._clock, entropy = (clock, os.urandom) if network is None else (network.clock, network.entropy)
        me, seed = MemberId(entropy(16)), int.from_bytes(entropy(8), "big")
        now = self._clock()
        if self.journal is not None:
            try:
                self._open_journal = Journal(self.journal, config, me=me, seed=seed, now=now, codec=self._codec)
            except OSError as error:
                raise cannot_journal(self.journal, error) from None
            entropy = self._open_journal.entropy
        node = Node(config, me=me, rng=Rng(seed), entropy=entropy, now=now, codec=self._codec, tap=self._open_journal)
        for one in list(self._functions.values()):
            node.offer(one.spec, now=self._clock())
        by_websocket = self.transport == "websocket"
        dial = network.dial if network is not None else Dialler(websocket_only=by_websocket, tls=self._credentials)
        observer = LogObserver(me)
        driver = Driver(node, functions=self._functions, dial=dial, observe=observer.observe, clock=self._clock)
        driver.on_failure = observer.failed
        if wildcard:
            self._evidence = (0, "")
            driver.on_local_host = self._learn_address
        return driver

    async def _listen(self, listener: LinkListener, routes: HttpRoutes, *, task_status: TaskStatus[None]) -> None:
        # The core applies the lower limit of clients to them; until values move in chunks, nodes need a higher one.
        longest = self._limits.node_message
        await listener.serve(self._on_link, routes, max_message=longest, task_status=task_status)

    async def _on_link(self, link: Link) -> None:
        assert self._driver is not None
        await self._driver.pump(link)

    def _learn_address(self, host: str, dialled: Address | None) -> None:
        """Update the advertised address of a node that listens on all addresses and was given no `advertise`.

        It is the address at the local end of the link with the best evidence. Better evidence always replaces worse
        evidence. Equal evidence replaces it only if no link uses the old address any more.
        """
        driver = self._driver
        assert driver is not None
        if not can_be_advertised(host, listening=self.host):
            return
        evidence = address_evidence(host, dialled, seeds=self.peers)
        before, at = self._evidence
        gone = at not in driver.local_hosts()
        if evidence > before or (evidence == before and host != at and gone):
            self._evidence = evidence, host
            self.url = format_address(self._scheme, host, port=self.port)
            driver.node.advertise((Address(self.url),), now=self._clock())

    def _offer(self, function: Function, replace: bool) -> None:
        """Offer a function.

        It checks and acts in the event loop's thread, so that of two threads with one name one is refused.
        """
        name = function.spec.name
        if not replace:
            self._functions.check_free(name)
        if self._driver is not None:
            self._driver.node.offer(function.spec, now=self._clock())  # it may raise: then nothing has changed
        self._functions[name] = function
        if self._driver is not None:
            self._driver.flush()

    def _withdraw(self, name: str) -> None:
        self._functions.check_present(name)
        if self._driver is not None:
            self._driver.node.withdraw(name, now=self._clock())
            self._driver.flush()
        del self._functions[name]

    def _leave(self, grace: bool) -> None:
        driver = self._driver
        if driver is None:
            return
        self._leaving_since = None if driver.node.draining or not grace else self._clock()
        driver.node.leave(now=self._clock())
        if not grace and not driver.node.left:
            driver.node.leave(now=self._clock())
        driver.flush()

    def _view(self) -> NodeView:
        if self._driver is None:
            raise RuntimeError("the server is not running")
        return self._driver.node.view(now=self._clock())

    def _call_in_loop(self, act: Callable[..., T], *args: object) -> T:
        """Call `act` in the thread of the event loop, where the node lives: directly, or by the event loop.

        Raises RuntimeError in a forked child, and in a signal handler that has interrupted the node.
        """
        if self._affinity is not None:
            self._affinity.check_process("this server")
        if self._driver is None:
            with self._registration_lock:
                return act(*args)
        if self._thread != threading.get_ident():
            return anyio.from_thread.run_sync(act, *args, token=self._token)
        if _interrupts_the_core():
            raise RuntimeError(
                "a signal handler interrupted the node in the midst of its work; only leave() may be called there, "
                "all else by loop.add_signal_handler or call_soon_threadsafe"
            )
        return act(*args)

    def _is_draining(self) -> bool:
        return self._driver is not None and self._driver.node.draining

    def _leave_for_signal(self) -> None:
        """Leave because of a signal. Runs in the event loop's thread, between two callbacks."""
        if self._driver is None:
            self.leave()
        else:
            self._leave(True)

    def _log_grace_expired(self) -> None:
        began, grace = self._leaving_since, self._limits.drain_grace
        if began is not None and self._clock() - began >= grace:
            log.warning("%g s are over, calls that still ran were given up", grace / SECOND)


def _interrupts_the_core() -> bool:
    """Return whether the core is handling an input while this code runs: then a signal handler has interrupted it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("mpreg_proto."):
            return True
        frame = frame.f_back
    return False


def backend_options(backend: str) -> dict[str, object]:
    """Return the options for `anyio.run`: uvloop where it works (the extra `uvloop`).

    If the program has set another event loop by asyncio's policy, that is kept.
    """
    return {"use_uvloop": _has_uvloop() and not _has_policy()} if backend == "asyncio" else {}


def _has_uvloop() -> bool:
    try:
        importlib.import_module("uvloop")
    except ImportError:  # not installed, or not available for this platform
        return False
    return True


def _has_policy() -> bool:
    if sys.version_info >= (3, 14):  # policies are deprecated, and reading one warns
        return False
    return type(asyncio.get_event_loop_policy()) is not asyncio.DefaultEventLoopPolicy
