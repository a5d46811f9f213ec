"""The connection of a command to a node: the URL, one connection, one request, and Ctrl-C as its cancellation."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mpreg_transports.config.settings import resolve_url

if TYPE_CHECKING:
    from mpreg_transports.client import Client

T = TypeVar("T")


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
    url: str, operation: Callable[[Client], Awaitable[T]], *, before: Callable[[], None] | None = None
) -> T:
    """Connect to `url`, run `operation`, and disconnect. `before` is called just before the connection is opened.

    Raises NotConnected, a RequestError, or CommandFailed for Ctrl-C.
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
        raise CommandFailed("interrupted; the request was cancelled", code=ExitCode.UNKNOWN) from None
