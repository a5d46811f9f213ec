"""Operations on the sessions of one process: no order of them raises, and nothing is sent on a link after its end.

Input: operations, one byte each and their arguments. Three links of different framings may be open at once; their input
is real messages, pieces of these, and random bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from mpreg_proto.effects import Effect, HangUp, KeepAlive, Notify, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.links import Links
from mpreg_proto.timers import Timers
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import Framing, prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    GetView,
    Goodbye,
    GoodbyeReason,
    Gossip,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
)
from mpreg_proto.wire.session import Received, Stage
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.testing.fuzz.draws import Draws

_LIMITS = Limits(message=2048, node_message=4096)
_CLASSIC = b'{"role":"rpc","cmds":[{"name":"a","fun":"echo","args":[1]}],"u":"x"}'
_MESSAGES: tuple[Message, ...] = (
    hello(cluster="c", member=b"p" * 16, name="peer"),
    hello(cluster="", member=b"", name="client"),
    Hello((7, 9), (), "c", b"", "from the future"),
    hello(cluster="other", member=b"q" * 16, name="stranger"),
    hello(cluster="c", member=b"short", name="wrong"),
    Ping(1),
    Pong(1),
    Goodbye("done"),
    Refused(Fault(1005, "another cluster")),
    Request(1, ()),
    Result(1),
    GetView(1),
    Gossip(),
    Result(2, fault=Fault(1002, "x" * 3000)),
)


class FuzzedLinks:
    """One `Links` and its effects."""

    def __init__(self) -> None:
        self.log: list[Effect] = []
        self.timers: Timers = Timers()
        self.links: Links = Links(
            lambda: hello(cluster="c", member=b"m" * 16, name="me"),
            codec=ValueCodec(),
            timers=self.timers,
            limits=_LIMITS,
            log=self.log,
        )
        self.now = 0
        self.hung_up: dict[LinkId, None] = {}
        self.numbers: list[LinkId] = [LinkId(1), LinkId(2), LinkId(3)]
        """The numbers of three connections; one that has ended gets a new number."""
        self.last: int = 3

    def is_open(self, link: LinkId) -> bool:
        """Return whether the transport of a link is open, hung up or not."""
        return link in self.links.sessions or link in self.hung_up

    def close(self, slot: int) -> None:
        """End the transport of a link, and give the connection a new number."""
        link = self.numbers[slot]
        assert (self.links.closed(link) is None) is (link in self.hung_up), "a hung up link has no session"
        self.hung_up.pop(link, None)
        self.last += 1
        self.numbers[slot] = LinkId(self.last)

    def check(self) -> None:
        """Check the effects and the tables after an operation."""
        for effect in self.log:
            match effect:
                case Send(link, chunks, message):
                    assert link in self.links.sessions and link not in self.hung_up, "said after the end"
                    framing = self.links.sessions[link].framing
                    assert bool(chunks) is (framing is not Framing.OBJECTS) is (message is None), "one or the other"
                case HangUp(link):
                    assert link not in self.hung_up, "hung up twice"
                    self.hung_up[link] = None
                case Notify() | KeepAlive():
                    pass
                case _:
                    raise AssertionError(f"links want {effect}")
        self.log.clear()
        for link, session in self.links.sessions.items():
            assert (session.stage is Stage.ENDED) is (link in self.links.ended) is (link in self.hung_up), link
        while self.links.ended:
            self.links.release()
        for link in self.links.closing:
            assert link in self.links.sessions, "a link that is gone is leaving"
        assert len(self.timers) <= 3 * len(self.links.sessions), "timers of links that are gone"


def harness(data: bytes) -> None:
    """Run the operations of the input."""
    draws, world = Draws(data), FuzzedLinks()
    while draws.more:
        _operate(draws, world)
        world.check()
    for slot, link in enumerate(world.numbers):
        if world.is_open(link):
            world.close(slot)
    world.check()
    assert not len(world.timers), "a timer outlives all links"


def _operate(draws: Draws, world: FuzzedLinks) -> None:
    links, slot = world.links, draws.below(3)
    link = world.numbers[slot]
    match draws.below(10):
        case 0 | 1:
            _open(draws, world, link)
        case 2 | 3 | 4:
            _receive(draws, world, link)
        case 5:
            links.send(link, draws.pick(_MESSAGES))
        case 6:
            links.goodbye(link, GoodbyeReason.NONE, world.now)
        case 7:
            draws.pick((links.hang_up, lambda link: links.refuse(link, Fault(1010, "no"))))(link)
        case 8:
            if world.is_open(link):
                world.close(slot)
            else:
                _refused(lambda: links.closed(link))
        case _:
            world.now += draws.below(30) * SECOND
            for key in world.timers.due(world.now):
                links.wake(key, world.now)


def _open(draws: Draws, world: FuzzedLinks, link: LinkId) -> None:
    framing = draws.pick(tuple(Framing))
    dialled = Address("ws://peer:1") if framing is not Framing.CLASSIC_MESSAGES and draws.byte() % 2 else None
    known = world.is_open(link)
    try:
        world.links.opened(link, framing=framing, dialled=dialled, now=world.now)
    except LocalProtocolError:
        assert known, "a new link is refused"
    else:
        assert not known, "a link opens twice"


def _refused(act: Callable[[], object]) -> None:
    """Check that an input of a link that is not open is refused."""
    try:
        act()
    except LocalProtocolError:
        return
    raise AssertionError("a link that is not open is used")


def _receive(draws: Draws, world: FuzzedLinks, link: LinkId) -> None:
    if not world.is_open(link):
        _refused(lambda: world.links.receive(link, b"x", world.now))
        return
    session = world.links.sessions.get(link)
    message = draws.pick(_MESSAGES)
    if session is not None and session.framing is Framing.OBJECTS:
        _take(world, link, world.links.handle(link, message, world.now))
        return
    body = draws.pick((dialects.encode(message), dialects.encode(message), _CLASSIC, draws.piece(20)))
    stream = prefix(len(body)) + body if session is None or session.framing is Framing.STREAM else body
    start = draws.below(8) if draws.chance(8) else 0
    if session is not None and session.classic and draws.byte() % 2:
        if session.framing is not Framing.STREAM:
            _take(world, link, world.links.receive(link, stream.decode("latin-1"), world.now))
    else:
        _take(world, link, world.links.receive(link, stream[start:], world.now))


def _take(world: FuzzedLinks, link: LinkId, received: Received) -> None:
    for one in received:
        world.links.handle_control(link, one, world.now)
    if received.violation is not None:
        world.links.refuse(link, received.violation)
