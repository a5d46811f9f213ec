"""Peers that do not read, send nothing, or send forbidden data: the node continues, and ends when it must.

Foreign clients send hand-made bytes over real sockets; the test of silence between nodes uses the network in memory.
Limits and constants of the adapters shorten waits that would take seconds.
"""

import json
import logging
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
import msgpack
import msgspec
import pytest
from websockets.frames import Opcode

from mpreg_proto.cluster.members import Card
from mpreg_proto.ids import Address
from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import Client, OutcomeUnknown, Server
from mpreg_transports.links import websocket
from mpreg_transports.runtime.log_observer import printable
from mpreg_transports.testing.memory.cluster import memory_cluster
from mpreg_transports.testing.simulation.hosts import Spec
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine
from tests.helpers.foreign_clients import HELLO, REQUEST, NativeClient, classic_frames, classic_websocket, native
from tests.helpers.servers import joined_servers

pytestmark = pytest.mark.anyio

IMPATIENT = Limits(hang_up=20 * MILLISECOND)
"""A peer that does not read delays the end of a link by milliseconds instead of seconds."""
WATCHFUL = Limits(ping_every=100 * MILLISECOND, gone_after=400 * MILLISECOND, hang_up=20 * MILLISECOND)
"""Short, but long enough for a test that must send data first on a busy machine."""
QUICK = Limits(dial_first=MILLISECOND, dial_longest=10 * MILLISECOND, hang_up=20 * MILLISECOND)
LARGE = 16 * 1024 * 1024
"""More bytes than the system buffers for two sockets of this machine."""
ARGS = msgpack.packb([[], {}])


@pytest.fixture(autouse=True)
def short_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time that a peer that does not read is allowed to tens of milliseconds instead of seconds."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.02)


class Full:
    """A function whose answer fills the sockets; the event is set when it has run."""

    def __init__(self) -> None:
        self.ran = anyio.Event()

    def body(self) -> str:
        """Return 16 MB of text."""
        self.ran.set()
        return "x" * (LARGE - 1_000)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[tuple[Full, BlockingCoroutine]]:
    """The server runs, with `full` and `held`; a test that hangs fails, also at its end."""
    full, held = Full(), BlockingCoroutine()
    server.register("full", full.body, inline=True)
    server.register("held", held.body)
    with anyio.fail_after(PATIENCE):
        async with server:
            yield full, held


@contextmanager
def logged(name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[anyio.Event, list[str]]]:
    """Return an event that is set at the first log line that is `wanted`, and the list of all lines."""
    found, lines = anyio.Event(), []

    def look(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        if wanted(lines[-1]):
            found.set()
        return True

    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addFilter(look)
    try:
        yield found, lines
    finally:
        log.removeFilter(look)
        log.setLevel(before)


def classic(name: str) -> str:
    return json.dumps({"role": "rpc", "cmds": [{"name": "x", "fun": name}], "u": name})


# -- a peer that does not read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["frames", "native", "websocket"])
async def test_node_leaves_despite_a_peer_that_does_not_read(carrier: str) -> None:
    server = Server(port=0, limits=IMPATIENT)
    async with AsyncExitStack() as strangers, serving(server) as (full, _):
        if carrier == "frames":
            await (await strangers.enter_async_context(classic_frames(server.port))).send(classic("full"))
        elif carrier == "native":
            await ask(await strangers.enter_async_context(native(server.port)), 1, "full")
        else:
            await (await strangers.enter_async_context(classic_websocket(server.port))).send(classic("full"))
        await full.ran.wait()


async def ask(peer: NativeClient, number: int, function: str) -> None:
    await peer.send([REQUEST, number, [["x", function, ARGS]]])


async def test_silent_client_that_does_not_read_is_lost() -> None:
    server = Server(port=0, limits=WATCHFUL)
    async with serving(server) as (_, held), native(server.port, hello=None) as peer:
        full, other = ([REQUEST, number, [["x", name, ARGS]]] for number, name in ((1, "full"), (2, "held")))
        await peer.stream.send(b"".join(framed(message) for message in (HELLO, full, other)))
        await held.until(cancelled=1)


async def test_client_that_reads_nothing_is_a_slow_consumer() -> None:
    server = Server(port=0, limits=Limits(hang_up=20 * MILLISECOND, stalled=500 * MILLISECOND))
    async with serving(server) as (_, held), native(server.port) as peer:
        await ask(peer, 1, "held")
        for number in (2, 3):
            await ask(peer, number, "full")
        await held.until(cancelled=1)


async def test_call_with_unsent_argument_is_lost_with_the_link() -> None:
    """The call ends before its own deadline, and the node that sent it leaves in time."""

    def eat(value: bytes) -> int:
        return len(value)

    nodes = {"a": Spec(limits=WATCHFUL), "b": Spec(functions={"eat": eat}, limits=WATCHFUL)}
    with anyio.fail_after(PATIENCE):
        async with memory_cluster(nodes) as cluster, cluster.client("a") as client:
            assert await client.call("eat", b"12") == 2
            cluster.cut("a", "b", silent=True)
            with pytest.raises(OutcomeUnknown) as caught:
                await client.call("eat", b"x" * 4_000_000, timeout=2 * PATIENCE)
            assert caught.value.details["maybe_executed"] is True
            await cluster.leave("a")


# -- a peer that sends nothing -----------------------------------------------------------------------------------------


async def test_json_client_without_pongs_is_lost() -> None:
    server = Server(port=0, limits=WATCHFUL)
    async with serving(server) as (_, held), classic_websocket(server.port) as peer:
        await peer.send(classic("held"))
        await held.until(cancelled=1)
        assert server.view().links == 0


async def test_json_client_that_answers_pings_stays() -> None:
    server = Server(port=0, limits=WATCHFUL)
    async with serving(server) as (_, held), classic_websocket(server.port) as peer:
        await peer.send(classic("held"))
        for _ in range(6):  # more intervals than a silent client survives
            assert (await peer.client.frame()).opcode is Opcode.PING
        held.release()
        answer = await peer.client.frame()
        while answer.opcode is Opcode.PING:
            answer = await peer.client.frame()
        assert json.loads(bytes(answer.data))["u"] == "held"


# -- a peer that sends what it must not --------------------------------------------------------------------------------

UNUSABLE = ("quic://10.0.0.1:9", "tcp://127.0.0.1:1/p")
"""Addresses in the form of one, which this driver cannot dial."""
MALFORMED = ("nonsense", "", "ws://127.0.0.1:0", "ws://::1:1", "ws://\n:1")
"""Texts that the core never dials."""


async def test_unreadable_addresses_in_gossip_end_no_node() -> None:
    """The node dials those that have the form of an address, without success and more than once."""
    dials: Counter[str] = Counter()

    def dialled(line: str) -> bool:
        if "is not an address" in line:
            dials[line] += 1
        return sum(times > 1 for times in dials.values()) == len(UNUSABLE)

    one, other = Server(port=0, name="one", limits=QUICK), Server(port=0, name="other", limits=QUICK)
    with logged("mpreg_transports.runtime.driver", dialled) as (all_dialled, _):
        async with joined_servers(one, other) as client:
            async with native(one.port, hello=[*HELLO[:3], "default-cluster", os.urandom(16), "evil"]) as peer:
                cards = [
                    msgspec.msgpack.encode(Card("evil", (Address(address),))) for address in (*MALFORMED, *UNUSABLE)
                ]
                await peer.send([20, [[os.urandom(16), 0, 0, card] for card in cards]])
                await all_dialled.wait()
                assert await client.call("echo", 1) == 1
            async with Client(other.url) as second:
                assert await second.call("echo", 2) == 2
    assert len(dials) == len(UNUSABLE), dials


async def test_request_after_a_violation_is_ignored() -> None:
    ran: list[int] = []
    server = Server(port=0, limits=IMPATIENT)
    server.register("f", lambda: ran.append(1), inline=True)
    with anyio.fail_after(PATIENCE):
        async with server, native(server.port, hello=None) as peer:
            forbidden, request = [16, 1, b""], [REQUEST, 1, [["x", "f", ARGS]]]
            piece = b"".join(framed(message) for message in (HELLO, forbidden, request))
            await peer.stream.send(piece)
            await peer.until_closed()
    assert ran == []


def framed(message: list[Any]) -> bytes:
    body = msgpack.packb(message)
    return struct.pack(">I", len(body)) + bytes(body)


async def test_peer_name_cannot_forge_log_lines() -> None:
    name = "x\nforged line\r\x1b[31m\u202e"
    one, other = Server(port=0, name="one", limits=IMPATIENT), Server(port=0, name=name, limits=IMPATIENT)
    with logged("mpreg", lambda line: "forged" in line and "has left" in line) as (left, lines):
        async with joined_servers(one, other):
            other.leave(grace=False)
            await left.wait()
    about = [line for line in lines if "forged" in line]
    assert len(about) > 1
    assert all(line.isprintable() for line in about)
    assert "x\\nforged line\\r\\x1b[31m\\u202e has left" in about


async def test_name_of_a_refused_peer_cannot_forge_log_lines() -> None:
    server = Server(port=0, limits=IMPATIENT)
    with anyio.fail_after(PATIENCE), logged("mpreg", lambda line: "line ended: " in line) as (refused, lines):
        async with server, native(server.port, hello=[*HELLO[:5], "x\nforged line"]) as peer:
            await peer.send([99])
            await refused.wait()
    about = [line for line in lines if "forged" in line]
    assert about[-1].startswith("link to x\\nforged line ended: ")
    assert all(line.isprintable() for line in about)


def test_text_from_peers_is_one_line_of_bounded_length() -> None:
    assert printable("plain ž 'quoted'") == "plain ž 'quoted'"
    assert printable("a\nb\t\x00") == "a\\nb\\t\\x00"
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 200 + "..."
