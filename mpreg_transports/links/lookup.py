"""The lookup of names, and the race between the addresses of a name (RFC 8305, happy eyeballs).

Event loops look up names in threads that the process joins at its end, even if a name server never answers. This module
uses threads that are not joined. It also provides the race, which not every event loop has.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from itertools import chain, zip_longest

import anyio
from anyio.abc import ByteStream

from mpreg_transports.background import single_errors
from mpreg_transports.functions.threads import get_call_soon_threadsafe

STAGGER_SECONDS = 0.25
"""The seconds for which an address is tried alone before the next one is tried beside it (RFC 8305, section 5)."""


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a name, families alternating; an address is returned itself.

    Raises OSError, UnicodeError.
    """
    try:
        ipaddress.ip_address(host)
        return [host]
    except ValueError:
        pass
    rows = await _look_up(host, port)
    families: dict[int, dict[str, None]] = {}
    for family, _, _, _, address in rows:
        families.setdefault(family, {})[_text(address)] = None
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


_Rows = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]]


async def _look_up(host: str, port: int) -> _Rows:
    """Look the name up in the system, in a thread that is abandoned if this is cancelled."""
    done, found, call_soon_threadsafe = anyio.Event(), Future[_Rows](), get_call_soon_threadsafe()

    def work() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except Exception as error:
            found.set_exception(error)
        call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="mpreg lookup", daemon=True).start()
    await done.wait()
    return found.result()


def _text(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Return an address with its zone, where it has one (RFC 4007)."""
    return f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else address[0]


async def race(attempts: Sequence[Callable[[], Awaitable[ByteStream]]]) -> ByteStream:
    """Return the first of several connections that opens.

    Each starts a little after the one before; the others are closed. Raises OSError: that of the only attempt, or one
    with the errors of all.
    """
    if len(attempts) == 1:
        return await attempts[0]()
    opened: list[ByteStream] = []
    errors: list[OSError] = []
    try:
        with single_errors():
            await _race(attempts, opened, errors)
    except BaseException:
        await _close(opened)
        raise
    await _close(opened[1:])
    if opened:
        return opened[0]
    raise OSError("; ".join(dict.fromkeys(map(str, errors)))) from ExceptionGroup("no address answered", errors)


async def _race(
    attempts: Sequence[Callable[[], Awaitable[ByteStream]]], opened: list[ByteStream], errors: list[OSError]
) -> None:
    async with anyio.create_task_group() as tasks:

        async def attempt(connect: Callable[[], Awaitable[ByteStream]], failed: anyio.Event) -> None:
            try:
                opened.append(await connect())
                tasks.cancel_scope.cancel()
            except OSError as error:
                errors.append(error)
                failed.set()

        for connect in attempts:
            failed = anyio.Event()
            tasks.start_soon(attempt, connect, failed)
            with anyio.move_on_after(STAGGER_SECONDS):
                await failed.wait()


async def _close(streams: Sequence[ByteStream]) -> None:
    with anyio.CancelScope(shield=True):
        for stream in streams:
            await stream.aclose()
