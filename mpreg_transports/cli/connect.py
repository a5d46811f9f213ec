"""The connection of a command to a node: the URL, one connection, one request, and Ctrl-C as its cancellation."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mpreg_transports.config.settings import resolve_url

if TYPE_CHECKING:
    from anyio import Event
    from anyio.abc import TaskStatus

    from mpreg_transports.client import Client

T = TypeVar("T")
_INTERRUPTED = "interrupted; the request was cancelled"
_ANSWER_SECONDS = 2.0
"""The seconds for which an interrupted command waits for the answer to its cancellation."""


def node_url(
    url: str | None, config: Path | None, environ: Mapping[str, str] | None = None, *, given_as: str = "--url"
) -> str:
    """Return the URL of the node: from the flag, MPREG_URL, or the file, else the default on this machine.

    `given_as` is the name of the option or argument with `url`, for errors. Raises SettingsError or CommandFailed.
    """
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.addresses import parse_address

    found = resolve_url(url, environ=os.environ if environ is None else environ, config=config)
    try:
        return str(parse_address(str(found.value)))
    except ValueError as error:
        raise CommandFailed(f"{error} ({given_as if url is not None else found.source})") from None


def with_client(
    url: str,
    operation: Callable[[Client], Awaitable[T]],
    *,
    before: Callable[[], None] | None = None,
    interrupted: str = _INTERRUPTED,
) -> T:
    """Connect to `url`, run `operation`, and disconnect. `before` is called just before the connection is opened.

    Raises NotConnected, a RequestError, or CommandFailed with the text `interrupted` for Ctrl-C.
    """
    import anyio

    from mpreg_transports.cli.errors import CommandFailed, ExitCode
    from mpreg_transports.client import Client

    async def run() -> T:
        if before is not None:
            before()
        async with Client(url, name="mpreg command line") as client:
            return await operation(client)

    try:
        return anyio.run(run)
    except KeyboardInterrupt:
        raise CommandFailed(interrupted, code=ExitCode.UNKNOWN) from None


def with_interruptible_client(url: str, operation: Callable[[Client], Awaitable[T]]) -> T:
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

    return with_client(url, stoppable)


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
