"""The class names of the original MPREG prototype. Its programs run with only their import lines changed.

`MPREGServer` is a `Server`, and `MPREGClientAPI` is a `Client` with the methods of the prototype. The client uses the
native protocol, so a cancelled call is also stopped and a dead link is detected. Its values have the meaning of the
prototype's JSON: a string that equals another call's name is a reference, and arguments and results become what JSON
makes of them (tuples and sets become lists, keys become strings), as for any client of the classic dialect. Like the
prototype it works on asyncio only. Programs that were not written for the prototype need nothing from this module.
"""

from __future__ import annotations

import asyncio
import dataclasses
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from mpreg_proto.errors import CommandNotFound, DeadlineExceeded, ErrorCode, MpregError, RequestError
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.wire.jsonvalues import to_json
from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.references import BadReference, scan_classic
from mpreg_proto.wire.values import UnsendableValue
from mpreg_transports.background import StartedCallback
from mpreg_transports.client import Client, GraphResult
from mpreg_transports.config.addresses import parse_address
from mpreg_transports.functions.execution import tags
from mpreg_transports.runtime import logs
from mpreg_transports.server import Server
from mpreg_transports.values import default_codec

_LONGEST_SECONDS = 86_400
"""The seconds for a call without `timeout`: the longest time that a node allows, as the prototype waits for ever."""

log: logs.NodeLog = logs.get("mpreg.classic")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class MPREGSettings:
    """The settings of a server. Port 0 takes any free port. `peers` and `connect` are both addresses of nodes to join.

    The first of `advertised_urls` is advertised to other nodes. Gossip is sent at once, whatever the value of
    `gossip_interval` (seconds). Anti-entropy runs every 6 times `gossip_interval`: the node compares its state with
    another node to find what was lost. When the server runs, it refuses a `host` that other machines can reach
    (ValueError).
    """

    host: str = "127.0.0.1"
    port: int = 6666
    name: str = "NO NAME PROVIDED"
    resources: Iterable[str] | None = None
    peers: Iterable[str] | None = None
    connect: str | None = None
    cluster_id: str = "default-cluster"
    advertised_urls: Sequence[str] | None = None
    gossip_interval: float = 5.0


class MPREGServer:
    """A node.

    Build it anywhere, then use `await server.server()` or `server.start()`. After `shutdown()` it cannot run again.
    """

    def __init__(self, settings: MPREGSettings | None = None) -> None:
        self.settings: MPREGSettings = settings if settings is not None else MPREGSettings()
        settings = self.settings
        joined = [*(settings.peers or ()), *([settings.connect] if settings.connect else [])]
        advertised = settings.advertised_urls
        self._node = Server(
            name=settings.name,
            host=settings.host,
            port=settings.port,
            resources=settings.resources or (),
            peers=dict.fromkeys(joined),
            cluster_id=settings.cluster_id,
            advertise=advertised[0] if advertised else None,
            allow_hosts=[parse_address(url).host for url in advertised or ()],
            limits=Limits(gossip_interval=max(1, round(settings.gossip_interval * 6 * SECOND))),
        )
        self.url: str = ""
        """The URL at which the server listens; empty before it listens."""
        self._own: dict[str, None] = {}
        self._over = False
        self._ended: Future[None] | None = None
        for name, (function, resources) in _commands.items():
            self._node.register(name, function, resources=resources, replace=True)
        _servers.append(weakref.ref(self, _servers.remove))

    async def server(self) -> None:
        """Serve until `shutdown` is complete or the caller cancels. Raises OSError if the port is not available."""
        await self._serve(self._node.serve)

    def start(self) -> None:
        """Run `asyncio.run(self.server())`; blocks.

        On Ctrl-C and SIGTERM the node leaves the cluster in order; then this returns. In a thread other than the main
        thread no signals arrive, and only `shutdown()` ends it.
        """
        with self._node.ended_by_force():
            asyncio.run(self._serve(self._node.serve_until_signal))

    def shutdown(self) -> Awaitable[None]:
        """Begin the shutdown.

        The server refuses new calls and lets running calls finish (10 s; none after a second call of this method); then
        it sends a goodbye and `server()` returns. All this happens whether or not the returned object is awaited; to
        await it is to wait for the end. It may be called in the event loop, in another thread, and before the server
        runs; the server then never runs. A command of this same server must not await it, because the end waits for the
        command.
        """
        self._over = True
        self._node.leave()
        return _End(self._ended)

    def register_command(self, name: str, function: Callable[..., Any], resources: Iterable[str] = ()) -> None:
        """Offer `function`, before or while the server runs. Gossip carries the offer to all nodes.

        It takes precedence over a command of the same name by `rpc_command`, and over echo and echos. Raises ValueError
        for a name that was already registered here; then nothing has changed.
        """
        if name in self._own:
            raise ValueError(f"a command {name!r} is registered already")
        self._node.register(name, function, resources=resources, replace=True)
        self._own[name] = None

    def _offer_decorated(self, name: str, function: Callable[..., Any], resources: Iterable[str]) -> None:
        if name not in self._own:
            self._node.register(name, function, resources=resources, replace=True)

    async def _serve(self, serve: Callable[..., Awaitable[None]]) -> None:
        if self._over:
            return
        if self._ended is not None and not self._ended.done():
            raise RuntimeError(f"{self.settings.name} runs already")
        ended = self._ended = Future()
        try:
            await serve(task_status=StartedCallback(self._on_listening))
        finally:
            ended.set_result(None)

    def _on_listening(self) -> None:
        if self.settings.port != self._node.port:  # the port was 0; the same settings may be used for more servers
            self.settings = dataclasses.replace(self.settings, port=self._node.port)
        self.url = self._node.url
        log.info("%s listens on %s", self.settings.name, self.url)
        if self._over:  # a shutdown came while the port was being bound
            self._node.leave()


class _End:
    """An awaitable for any event loop, done when the server has ended, or at once if it never ran.

    It need not be awaited.
    """

    def __init__(self, ended: Future[None] | None) -> None:
        self._ended = ended

    def __await__(self) -> Generator[Any, None, None]:
        if self._ended is not None:
            # Shielded: cancelling one caller that waits must not cancel the future for which all wait.
            yield from asyncio.shield(asyncio.wrap_future(self._ended)).__await__()


_commands: dict[str, tuple[Callable[..., Any], frozenset[str]]] = {}
_servers: list[weakref.ref[MPREGServer]] = []


def rpc_command(name: str, resources: Iterable[str] | None = None) -> Callable[[F], F]:
    """Offer the decorated function as `name` on every server of this process, created before or later.

    A command of that name that a server registered itself takes precedence. Raises ValueError at decoration for a name
    that another function has. The same function (its module was imported twice) replaces itself.
    """
    asked = tags(resources or ())

    def decorate(function: F) -> F:
        if name in _commands and _origin(_commands[name][0]) != _origin(function):
            raise ValueError(f"another function is the command {name!r} already")
        _commands[name] = (function, asked)
        for reference in tuple(_servers):
            if (server := reference()) is not None:
                server._offer_decorated(name, function, asked)
        return function

    return decorate


def _origin(function: Callable[..., Any]) -> object:
    """Return the place where a function is defined: the same for `__main__` and for its file imported by name."""
    code = getattr(function, "__code__", None)
    return function if code is None else (code.co_filename, code.co_firstlineno, function.__qualname__)


@dataclass(frozen=True, kw_only=True)
class RPCCommand:
    """One call: `fun` is the function, `name` is how other calls refer to it, `locs` are the resources it requires."""

    name: str
    fun: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    locs: Iterable[str] = frozenset()

    def __post_init__(self) -> None:
        if isinstance(self.args, str):
            raise TypeError(f"args={self.args!r} is a bare string; write args=({self.args!r},)")
        object.__setattr__(self, "args", tuple(self.args))
        object.__setattr__(self, "locs", tags(self.locs))


@dataclass(frozen=True)
class RPCError:
    """An error as it was received: a code of docs/reference/errors.md, a text for people, details for programs."""

    code: int
    message: str
    details: Any = None


class MPREGException(MpregError):
    """The error `rpc_error`, with which a request or one call of it ended."""

    def __init__(self, rpc_error: RPCError | None = None) -> None:
        super().__init__(rpc_error)
        self.rpc_error: RPCError = rpc_error if rpc_error is not None else RPCError(-1, "unknown error")

    def __str__(self) -> str:
        return f"{self.rpc_error.message} (error {self.rpc_error.code})"


class CommandNotFoundException(MPREGException):
    """1001: no node offers `command_name`, or no node that offers it holds the requested resources."""

    def __init__(self, rpc_error: RPCError | None = None, command_name: str = "") -> None:
        made = rpc_error or RPCError(
            ErrorCode.COMMAND_NOT_FOUND, f"no node offers {command_name!r}", {"function": command_name}
        )
        super().__init__(made)
        self.command_name = command_name


def _as_seed_error(error: RequestError) -> MPREGException:
    seed_error = RPCError(error.code, error.message, error.details)
    if isinstance(error, CommandNotFound):
        return CommandNotFoundException(seed_error, str(error.details.get("function", "")))
    return MPREGException(seed_error)


def _as_request(cmds: Sequence[RPCCommand], timeout: float | None) -> Request:
    """Return the request that the classic dialect makes of the same commands.

    Raises TypeError for a value that JSON cannot represent.
    """
    codec = default_codec()
    names = dict.fromkeys(command.name for command in cmds)
    calls: list[Call] = []
    for command in cmds:
        try:
            tree = to_json([command.args, dict(command.kwargs)], codec)
            scanned, needs = scan_classic(tree, names, command.name)
            encoded = codec.encode(scanned)
        except (UnsendableValue, BadReference) as error:
            raise TypeError(f"call {command.name!r}: {error}") from None
        calls.append(Call(command.name, command.fun, encoded, needs, tuple(sorted(command.locs))))
    span = _LONGEST_SECONDS if timeout is None else min(timeout, _LONGEST_SECONDS)
    return Request(0, tuple(calls), timeout=max(1, int(span * SECOND)))


def _as_json(name: str, value: object) -> object:
    try:
        return to_json(value, default_codec())
    except UnsendableValue as error:
        text = f"the result of call {name!r} cannot be sent as JSON: {error}"
        raise MPREGException(RPCError(ErrorCode.EXECUTION_FAILED, text, {"call": name})) from None


class MPREGClientAPI:
    """A client that calls functions through the node at `url`.

    It connects by `connect()`, `async with`, or the first call. The next call dials a lost link again; what was pending
    on it ends with error 1023. `full_log` writes each request and its result to the log `mpreg.classic`, at level INFO.
    """

    def __init__(self, url: str, full_log: bool = True) -> None:
        self.url = url
        self.full_log = full_log
        self._client = _SeedClient(url, full_log=full_log)

    async def connect(self) -> None:
        """Connect, if not connected. Raises ConnectionError if no node answers, MPREGException if the node refuses."""
        await self._client.connect()

    async def disconnect(self) -> None:
        """Close the link, if connected. The node cancels what is pending."""
        await self._client.disconnect()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.disconnect()

    async def call(
        self, fun: str, *args: Any, locs: Iterable[str] = frozenset(), timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Return the value of one call, run on a node that holds all of `locs`.

        `kwargs` are the function's own keywords. `timeout` is in seconds. Raises asyncio.TimeoutError when it has
        passed, CommandNotFoundException, MPREGException for other errors, ConnectionError, TypeError for arguments that
        JSON cannot represent.
        """
        command = RPCCommand(name=fun, fun=fun, args=args, kwargs=kwargs, locs=locs)
        return (await self._client.request([command], timeout))[fun]


class _SeedClient:
    """The object that programs use as `client._client`: requests of many commands over one link."""

    def __init__(self, url: str, *, full_log: bool) -> None:
        self.url = url
        self.full_log = full_log
        self._open_client: Client | None = None
        self._dialling = asyncio.Lock()

    async def connect(self) -> None:
        """See MPREGClientAPI."""
        async with self._dialling:
            if self._open_client is not None and self._open_client.node:
                return
            await self._drop()
            client = Client(self.url)
            try:
                await client.connect()
            except RequestError as error:
                raise _as_seed_error(error) from None
            self._open_client = client

    async def disconnect(self) -> None:
        """See MPREGClientAPI."""
        async with self._dialling:
            await self._drop()

    async def request(self, cmds: Sequence[RPCCommand], timeout: float | None = None) -> dict[str, Any]:
        """Return `{leaf name: value}` of commands that refer to each other by name. Errors: `MPREGClientAPI.call`."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None or timeout > _LONGEST_SECONDS else loop.time() + timeout
        if timeout is not None and not timeout > 0:
            raise TimeoutError(f"a timeout of {timeout} s has passed before anything could be sent")
        request = _as_request(cmds, timeout)
        self._log("request", cmds)
        try:
            async with asyncio.timeout_at(until):
                answer = await self._answer(request)
            if until is not None and loop.time() >= until:  # it arrived, but the busy event loop delivered it too late
                raise TimeoutError
            values = {name: _as_json(name, value) for name, value in answer.values.items()}
        except TimeoutError as error:  # a DeadlineExceeded is one too
            self._log("timed out:", error)
            if isinstance(error, DeadlineExceeded):
                raise
            raise TimeoutError(f"no answer came within {timeout} s") from None
        except RequestError as error:
            self._log("failed:", error)
            raise _as_seed_error(error) from None
        self._log("result", values)
        return values

    async def _answer(self, request: Request) -> GraphResult:
        while self._open_client is None or not self._open_client.node:
            await self.connect()
        # No await between the check above and the sending: a request never waits for a link that may never be restored.
        return await self._open_client.answer(request)

    async def _drop(self) -> None:
        client, self._open_client = self._open_client, None
        if client is not None:
            await client.close()

    def _log(self, label: str, what: object) -> None:
        if self.full_log:
            log.info("[%s] %s %s", self.url, label, what)
