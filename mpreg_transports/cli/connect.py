"""The connection of a command to a node: URL, secret, one connection, one request, and Ctrl-C as its cancellation."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mpreg_transports.config.settings import resolve_one, resolve_url

if TYPE_CHECKING:
    from anyio import Event
    from anyio.abc import TaskStatus

    from mpreg_transports.client import Client
    from mpreg_transports.security.secret import Secret

T = TypeVar("T")
_INTERRUPTED = "interrupted; the request was cancelled"
_ANSWER_SECONDS = 2.0
"""The seconds for which an interrupted command waits for the answer to its cancellation."""


class NodeAccess(NamedTuple):
    """The node that a command asks, and the secret that opens it, if there is one."""

    url: str
    secret: Secret | None = None
    cluster_id: str = ""
    """The cluster of the secret."""


def node_access(
    url: str | None,
    config: Path | None,
    secret_file: str | None = None,
    cluster_id: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    given_as: str = "--url",
) -> NodeAccess:
    """Return the URL of the node and the secret: each from the flag, the environment, the file, or the default.

    `given_as` is the name of the option or argument with `url`, for errors. Raises SettingsError, SecretError or
    CommandFailed.
    """
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.addresses import parse_address
    from mpreg_transports.config.validation import refuse_plain_text

    environ = os.environ if environ is None else environ
    named = resolve_one("secret-file", secret_file, environ=environ, config=config)
    found = resolve_url(url, environ=environ, config=config, secret=named)
    secret, cluster = read_credentials(secret_file, cluster_id, config, environ)
    try:
        address = str(parse_address(str(found.value)))
        if secret is not None:
            refuse_plain_text(address, "the address")
    except ValueError as error:
        raise CommandFailed(f"{error} ({given_as if url is not None else found.source})") from None
    return NodeAccess(address, secret, cluster)


def read_credentials(
    secret_file: str | None, cluster_id: str | None, config: Path | None, environ: Mapping[str, str] | None = None
) -> tuple[Secret | None, str]:
    """Return the secret, None if no file of one is named, and the cluster's id. Raises SettingsError, SecretError."""
    environ = os.environ if environ is None else environ
    named = resolve_one("secret-file", secret_file, environ=environ, config=config)
    if named.value is None:
        return None, ""
    from mpreg_transports.security.secret import read_secret

    cluster = resolve_one("cluster-id", cluster_id, environ=environ, config=config)
    return read_secret(str(named.value)), str(cluster.value)


def with_client(
    access: NodeAccess,
    operation: Callable[[Client], Awaitable[T]],
    *,
    before: Callable[[], None] | None = None,
    interrupted: str = _INTERRUPTED,
) -> T:
    """Connect to a node, run `operation`, and disconnect. `before` is called just before the connection is opened.

    Raises NotConnected, a RequestError, or CommandFailed: with the text `interrupted` for Ctrl-C, and with the reason
    if the node and this command do not accept each other's certificates.
    """
    import anyio

    from mpreg_transports.cli.errors import CommandFailed, ExitCode, innermost
    from mpreg_transports.client import Client
    from mpreg_transports.errors import NotConnected

    async def run() -> T:
        if before is not None:
            before()
        # Without a secret any cluster is accepted; with one the id of the cluster is a part of the proof.
        client = Client(access.url, name="mpreg command line", secret=access.secret, cluster_id=access.cluster_id)
        try:
            async with client:
                return await operation(client)
        except (NotConnected, BaseExceptionGroup) as error:
            if isinstance(lost := innermost(error), NotConnected) and lost.details.get("denied"):
                text, *hints = await _explained(access)
                raise CommandFailed(text, *hints, code=ExitCode.DENIED) from None
            raise

    try:
        return anyio.run(run)
    except KeyboardInterrupt:
        raise CommandFailed(interrupted, code=ExitCode.UNKNOWN) from None


async def _explained(access: NodeAccess) -> tuple[str, ...]:
    from mpreg_transports.cli.denial import explain_denial

    return await explain_denial(access.url, None if access.secret is None else access.cluster_id)


def with_interruptible_client(access: NodeAccess, operation: Callable[[Client], Awaitable[T]]) -> T:
    """Do as `with_client`; Ctrl-C cancels the request and waits for the answer, which lists what had started."""

    async def stoppable(client: Client) -> T:
        import anyio

        from mpreg_proto.errors import Cancelled
        from mpreg_transports.cli.errors import CommandFailed, ExitCode, innermost, started_lines

        stopped = anyio.Event()
        results: list[T] = []
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(_stop_at_interrupt, client, stopped)
                results.append(await operation(client))
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = innermost(group)
            if stopped.is_set() and isinstance(error, Cancelled):
                raise CommandFailed(_INTERRUPTED, *started_lines(error), code=ExitCode.UNKNOWN) from None
            raise error from None
        return results[0]

    return with_client(access, stoppable)


async def _stop_at_interrupt(client: Client, stopped: Event, *, task_status: TaskStatus[None]) -> None:
    """Cancel the requests of `client` at the first Ctrl-C. At the second, or after a while, give up the wait."""
    import anyio

    from mpreg_transports.cli.errors import CommandFailed, ExitCode

    with ExitStack() as stack:
        try:
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT))
        except (NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
            signals = None
        task_status.started()
        if signals is None:
            return
        async for _ in signals:
            break
        stopped.set()
        client._stop_requests()
        with anyio.move_on_after(_ANSWER_SECONDS):
            async for _ in signals:
                break
    raise CommandFailed(_INTERRUPTED, "the node has not said what had started", code=ExitCode.UNKNOWN)
