"""Two ends of a WebSocket of the package, alone: messages of the sizes at which frames change, both ways at once."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import anyio
from wsproto import ConnectionType, WSConnection

from mpreg_proto.effects import Framing
from mpreg_transports.links import websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.links.frames import FRAGMENT, WHOLE
from mpreg_transports.links.http import HttpRequest
from tests.adapters.loops import now
from tests.adapters.network import APART, FaultyStream, Quality

if TYPE_CHECKING:
    from tests.adapters.world import World

EDGES = (0, 125, 126, 0xFFFF, 0x10000, FRAGMENT, WHOLE, WHOLE + FRAGMENT)
"""The lengths at which the form of frames changes: the head of a frame, one frame or several, the last one full."""
LIMIT = WHOLE + 2 * FRAGMENT
"""The longest message that the ends accept: a third of what one end sends in all."""


def edge(draw: Random, *, most: int = LIMIT) -> int:
    """Return a length at an edge of at most `most`, or one byte beside it."""
    return max(0, draw.choice([one for one in EDGES if one <= most]) + draw.choice((-1, 0, 0, 1)))


async def exchange(world: World, draw: Random) -> None:
    """Send messages both ways over one link; check that each arrives, and that it ends in order."""
    qualities = (Quality(draw, calm=True), Quality(draw, calm=True))
    framing = draw.choice((Framing.NATIVE_MESSAGES, Framing.CLASSIC_MESSAGES))
    near, far = world.network.pair(f"{APART} 0", f"{APART} 1", Framing.STREAM, *qualities)
    ends: list[Link] = []

    async def accept() -> None:
        ends.append(await _accept(FaultyStream(far)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        subprotocols = (websocket.SUBPROTOCOL,) if framing is Framing.NATIVE_MESSAGES else ()
        handshake, chosen = await websocket._shake_hands(FaultyStream(near), "localhost", "/", subprotocols)
    ends.insert(0, websocket._link(FaultyStream(near), handshake, chosen, received=b"", max_message=LIMIT))
    sent = [[_message(draw, framing) for _ in range(draw.randint(3, 9))] for _ in ends]
    got: list[list[bytes]] = [[], []]
    async with anyio.create_task_group() as tasks:
        for number, end in enumerate(ends):
            tasks.start_soon(_receive, end, got[1 - number], len(sent[1 - number]))
            tasks.start_soon(_send, end, sent[number], Random(draw.random()))
    for number in range(2):
        if got[number] != sent[number]:
            lengths = [[len(one) for one in many] for many in (sent[number], got[number])]
            world.violation(f"of messages of {lengths[0]} bytes, {lengths[1]} arrived over a WebSocket")
        if len(got[number]) == len(sent[number]):
            world.sometimes("a message at an edge of WebSocket frames", any(len(one) in EDGES for one in sent[number]))
    if got == sent:
        await _sign_of_life(world, ends, draw)
        await _end(world, ends, draw)
    for one in ends:
        await one.close()


async def _accept(stream: FaultyStream) -> Link:
    """Read the opening handshake and answer it."""
    asked = WSConnection(ConnectionType.SERVER)
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    asked.receive_data(head)
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line))
    return await websocket.accept(stream, HttpRequest("GET", "/", headers=headers), max_message=LIMIT)


def _message(draw: Random, framing: Framing) -> bytes:
    size = min(LIMIT, edge(draw))
    if framing is Framing.NATIVE_MESSAGES:
        return draw.randbytes(8)[:size] + bytes(max(0, size - 8))
    letter = draw.choice("aé✓")  # several bytes of one letter may be in two frames
    text = letter * (size // len(letter.encode()))
    return (text + "x" * (size - len(text.encode()))).encode()


async def _send(end: Link, messages: list[bytes], draw: Random) -> None:
    rest = list(messages)
    while rest:
        count = draw.randint(1, 3)
        some, rest = rest[:count], rest[count:]
        await end.send(some)
        if draw.random() < 0.3:
            await end.keepalive()


async def _receive(end: Link, got: list[bytes], count: int) -> None:
    try:
        with anyio.move_on_after(60.0):
            while len(got) < count:
                got += [one.encode() if isinstance(one, str) else bytes(one) for one in await end.receive()]
    except LinkEnded:
        return  # the check of what arrived says it


async def _sign_of_life(world: World, ends: list[Link], draw: Random) -> None:
    """Check that the answer to a ping is reported, and the first bytes of a long message before its end."""
    signs: list[float] = []
    asking = draw.choice(ends)
    asking.on_partial = lambda: signs.append(now())

    async def read(end: Link) -> None:
        with suppress(LinkEnded), anyio.move_on_after(5.0):
            await end.receive()

    async with anyio.create_task_group() as tasks:
        for end in ends:
            tasks.start_soon(read, end)
        try:
            await asking.keepalive()
        except LinkEnded:
            return
    if not signs:
        world.violation("a ping over a WebSocket brought no sign of life")


async def _end(world: World, ends: list[Link], draw: Random) -> None:
    """Close the link from one side, or by a message over the limit; the other side must learn of it."""
    first, second = draw.sample(ends, 2)
    too_long = draw.random() < 0.3
    reasons: list[LinkEnded] = []

    async def read(end: Link) -> None:
        try:
            with anyio.move_on_after(30.0):
                while True:
                    await end.receive()
        except LinkEnded as ended:
            reasons.append(ended)
        await end.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        if too_long:
            tasks.start_soon(read, first)
            with suppress(LinkEnded):
                await first.send([b"x" * (LIMIT + 1)])
        else:
            await first.close()
    if not reasons:
        world.violation("the end of a WebSocket was not reported to its other end")
    elif too_long and not any(one.code == 1009 for one in reasons):
        world.violation(f"a message over the limit ended a WebSocket with {[one.code for one in reasons]}")
    elif not too_long and not reasons[0].clean:
        world.violation(f"a WebSocket that was closed in order ended with {reasons[0].reason!r}")
