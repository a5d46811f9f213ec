"""Host names to addresses, and the race between their connections."""

import socket
from functools import partial

import anyio
import anyio.abc
import pytest

from mpreg_transports.links import lookup, tcp
from mpreg_transports.links.lookup import addresses_of, race

pytestmark = pytest.mark.anyio


class Stream:
    """A connection that counts its calls of `aclose`."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def opens(stream: Stream, *, after: anyio.Event | None = None) -> anyio.abc.ByteStream:
    if after is not None:
        await after.wait()
    return stream  # type: ignore[return-value]


async def refused(why: str) -> anyio.abc.ByteStream:
    raise ConnectionRefusedError(111, why)


async def never() -> anyio.abc.ByteStream:
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%lo"])
async def test_ip_address_is_not_looked_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert await addresses_of(address, 1) == [address]


async def test_address_families_of_a_name_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four, stream = socket.AF_INET6, socket.AF_INET, socket.SOCK_STREAM
    rows = [(six, stream, 6, "", (f"fd00::{one}", 1, 0, 0)) for one in (1, 2, 3, 1)]
    rows += [(four, stream, 6, "", ("10.0.0.1", 1)), (six, stream, 6, "", ("fe80::1", 1, 0, 4))]  # type: ignore[list-item]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: rows)
    assert await addresses_of("some.name", 1) == ["fd00::1", "10.0.0.1", "fd00::2", "fd00::3", "fe80::1%4"]


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64 + ".example", "\ud800"])
async def test_unknown_name(name: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        await addresses_of(name, 1)


async def test_first_open_connection_wins_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "STAGGER_SECONDS", 0.001)
    winner = Stream()
    assert await race([never, partial(refused, "no"), partial(opens, winner), never]) is winner
    assert winner.closed == 0


async def test_second_open_connection_of_a_race_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "STAGGER_SECONDS", 0.001)
    go, first, second = anyio.Event(), Stream(), Stream()

    async def shielded() -> anyio.abc.ByteStream:
        with anyio.CancelScope(shield=True):
            return await opens(second, after=go)

    async def opening() -> anyio.abc.ByteStream:
        try:
            return await opens(first)
        finally:
            go.set()

    assert await race([shielded, opening]) is first
    assert (first.closed, second.closed) == (0, 1)


async def test_race_without_a_winner() -> None:
    with pytest.raises(OSError) as caught:
        await race([partial(refused, "no"), partial(refused, "never")])
    assert tcp.describe_error(caught.value) == "connection refused"
    with pytest.raises(ConnectionRefusedError):
        await race([partial(refused, "no")])


async def test_cancelled_race_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "STAGGER_SECONDS", 60)
    one = Stream()
    with anyio.CancelScope() as scope:

        async def opening() -> anyio.abc.ByteStream:
            scope.cancel()
            return one  # type: ignore[return-value]

        await race([opening, never])
    assert one.closed == 1
