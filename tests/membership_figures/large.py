"""A death in a cluster too large for a full simulation: real cores near the dead member, stand-ins elsewhere.

The real cores are the victim, until it dies, and its ten observers: `Node`s with a view of all, linked to each other
and to all their neighbours. The rest are `StandIns` with one view for all, which answer pings, handshakes and digests,
and pass the gossip on. Links take 1 ms and lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import msgspec

from mpreg_proto.cluster.members import Card
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.effects import Dial, Effect, Framing, HangUp, Notify, Send
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import BucketHashes, Claim, Digest, Goodbye, Gossip, Hello, Message, Ping, Pong
from tests.membership_figures.standins import StandIns

WARM = 12 * SECOND
"""The time that the real cores probe each other before the death, so that each has had its turn."""
DIAL_TIMEOUT = 3 * SECOND
"""The time until a dial into silence fails."""
SCHEME = "sim://"


def view(nodes: int, *, seed: int) -> tuple[list[MemberId], list[tuple[int, ...]]]:
    """Return the ids of so many members and, by number, the numbers of each one's neighbours."""
    draws = Rng(seed)
    ids = [MemberId(draws.below(1 << 52).to_bytes(8, "big") + bytes(8)) for _ in range(nodes)]
    rings = Rings(ids[0])
    for one in ids:
        rings.enter(one)
    numbers = {one: number for number, one in enumerate(ids)}
    return ids, [tuple(numbers[other] for other in rings.observers_of(one)) for one in ids]


def cards(ids: list[MemberId]) -> tuple[Claim, ...]:
    """Return the claims that all members have about all."""
    written = [msgspec.msgpack.encode(Card(f"n{n}", (f"{SCHEME}{n}",), release="1.0")) for n in range(len(ids))]
    return tuple([Claim(one, 0, 0, card) for one, card in zip(ids, written, strict=True)])


class Core:
    """A real node. `peers`: by link the member number at its other end, and that end's link number, if it is real."""

    def __init__(self, number: int, node: Node) -> None:
        self.number = number
        self.node = node
        self.alive = True
        self.due: int | None = None
        self.peers: dict[LinkId, tuple[int, LinkId | None]] = {}
        self.links: dict[int, LinkId] = {}
        self._last = 0

    def join(self, other: int) -> LinkId:
        """Return a number for a new link to a member."""
        self._last += 1
        link = self.links[other] = LinkId(self._last)
        self.peers[link] = (other, None)
        return link


class Death:
    """One death among `ids`. `run` returns the time until 99 % of the others have marked the victim DEAD."""

    def __init__(
        self, ids: list[MemberId], near: list[tuple[int, ...]], claims: tuple[Claim, ...], *, victim: int, seed: int
    ) -> None:
        self.now = 0
        self._ids = ids
        self._claims = claims
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._victim = victim
        self._silent = False
        self._died: int | None = None
        self.dead: dict[int, int] = {}
        """The members that have marked the victim DEAD, and the time of each."""
        self.strays: list[Claim] = []
        """Claims about other members after the death."""
        self._rest = StandIns(near, later=self._later, send=self._pass_on)
        self._cores = {number: self._core(number, seed) for number in (victim, *near[victim])}
        for number, core in self._cores.items():
            for other in near[number]:
                if other not in self._cores:
                    self._stand_in_dials(core, other)
                elif number < other:
                    self._connect(core, self._cores[other])
        self._until(10 * MILLISECOND)
        for core in self._cores.values():
            core.node.handle(next(iter(core.peers)), Gossip(claims), now=self.now)
            self._carry_out(core)

    def run(self, *, silent: bool, after: float) -> float | None:
        """Let it die after so many seconds; return the seconds until 99 % of the others know, None if not in 20 s."""
        self._until(self.now + WARM + round(after * SECOND))
        self._died, self._silent = self.now, silent
        gone = self._cores[self._victim]
        gone.alive = False
        if not silent:
            for other, there in gone.peers.values():
                if there is not None:
                    self._later(MILLISECOND, self._closed, self._cores[other], there)
        wanted = -(-(len(self._ids) - 1) * 99 // 100)
        self._until(self.now + 20 * SECOND, enough=wanted)
        assert not self.strays, "claims about other members"
        times = sorted(self.dead.values())
        return (times[wanted - 1] - self._died) / SECOND if len(times) >= wanted else None

    # -- time -----------------------------------------------------------------------------------------------------

    def _later(self, after: int, act: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (self.now + after, self._sequence, act, args))

    def _until(self, end: int, *, enough: int | None = None) -> None:
        while self._heap and self._heap[0][0] <= end and (enough is None or len(self.dead) < enough):
            self.now, _, act, args = heappop(self._heap)
            act(self.now, *args)
        self.now = max(self.now, end) if enough is None else self.now

    # -- real cores -----------------------------------------------------------------------------------------------

    def _core(self, number: int, seed: int) -> Core:
        config = NodeConfig(name=f"n{number}", addresses=(Address(f"{SCHEME}{number}"),))
        draws = Rng(seed).child(f"core {number}")
        node = Node(config, me=self._ids[number], rng=draws, entropy=bytes, now=self.now)
        return Core(number, node)

    def _connect(self, dialler: Core, other: Core) -> None:
        here, there = dialler.join(other.number), other.join(dialler.number)
        dialler.peers[here], other.peers[there] = (other.number, there), (dialler.number, here)
        other.node.link_opened(there, framing=Framing.OBJECTS, dialled=None, now=self.now)
        self._opened(dialler, here, other.number)
        self._carry_out(other)

    def _opened(self, core: Core, link: LinkId, target: int) -> None:
        where = Address(f"{SCHEME}{target}")
        core.node.link_opened(link, framing=Framing.OBJECTS, dialled=where, now=self.now)
        self._carry_out(core)

    def _stand_in_dials(self, core: Core, other: int) -> None:
        link = core.join(other)
        core.node.link_opened(link, framing=Framing.OBJECTS, dialled=None, now=self.now)
        self._arrive(self.now, core, link, self._hello(other))

    def _arrive(self, now: int, core: Core, link: LinkId, message: Message) -> None:
        if core.alive and link in core.peers:
            core.node.handle(link, message, now=now)
            self._carry_out(core)

    def _closed(self, now: int, core: Core, link: LinkId) -> None:
        if core.alive and core.peers.pop(link, None) is not None:
            core.node.link_closed(link, now=now)
            self._carry_out(core)

    def _wake(self, now: int, core: Core, due: int) -> None:
        if core.alive and core.due == due:
            core.due = None
            core.node.wake(now=now)
            self._carry_out(core)

    def _dialled(self, now: int, core: Core, target: int) -> None:
        other = self._cores.get(target)
        if other is None:
            self._opened(core, core.join(target), target)
        elif other.alive:
            self._connect(core, other)
        elif core.alive:
            core.node.dial_failed(Address(f"{SCHEME}{target}"), now=now)
            self._carry_out(core)

    def _carry_out(self, core: Core) -> None:
        while effects := core.node.drain():
            for effect in effects:
                self._one(core, effect)
        due = core.node.next_timeout()
        if due is not None and due != core.due:
            core.due = due
            self._later(max(0, due - self.now), self._wake, core, due)

    def _one(self, core: Core, effect: Effect) -> None:
        match effect:
            case Send(link, _, message) if link in core.peers and message is not None:
                other, there = core.peers[link]
                if there is not None:
                    self._later(MILLISECOND, self._arrive, self._cores[other], there, message)
                elif other not in self._cores:
                    self._later(MILLISECOND, self._answer, core, link, other, message)
            case Dial(where):
                target = int(where.removeprefix(SCHEME))
                unanswered = self._silent and target == self._victim
                self._later(DIAL_TIMEOUT if unanswered else 2 * MILLISECOND, self._dialled, core, target)
            case HangUp(link) if link in core.peers:
                other, there = core.peers[link]
                self._later(0, self._closed, core, link)
                if there is not None:
                    self._later(MILLISECOND, self._closed, self._cores[other], there)
            case Notify(MemberChanged(member, _, Standing.DEAD)) if member == self._ids[self._victim]:
                self.dead.setdefault(core.number, self.now)

    # -- stand-ins ------------------------------------------------------------------------------------------------

    def _hello(self, number: int) -> Hello:
        return hello(cluster="default-cluster", member=self._ids[number], name=f"n{number}")

    def _answer(self, now: int, core: Core, link: LinkId, other: int, message: Message) -> None:
        """Send the answer of a stand-in to a real core."""
        answer: Message | None = None
        match message:
            case Ping(number):
                answer = Pong(number)
            case Hello():
                answer = self._hello(other)
            case BucketHashes() | Digest():
                answer = Gossip(answer=True)
            case Goodbye():
                answer = Goodbye("")
            case Gossip(claims) if self._died is not None:
                for claim in claims:
                    self._received(now, other, core.number, claim)
        if answer is not None:
            self._later(MILLISECOND, self._arrive, core, link, answer)

    def _received(self, now: int, node: int, sender: int, claim: Claim) -> None:
        if claim.member != self._ids[self._victim]:
            self.strays.append(claim)
        elif self._rest.receive(node, sender, claim, now):
            self.dead.setdefault(node, now)

    def _pass_on(self, sender: int, receivers: list[int], claim: Claim) -> None:
        self._later(MILLISECOND, self._passed_on, sender, receivers, claim)

    def _passed_on(self, now: int, sender: int, receivers: list[int], claim: Claim) -> None:
        for node in receivers:
            core = self._cores.get(node)
            if core is None:
                self._received(now, node, sender, claim)
            elif sender in core.links:
                self._arrive(now, core, core.links[sender], Gossip((claim,)))


def deaths(nodes: int, *, seed: int, count: int, silent: bool) -> list[float]:
    """Return the seconds until 99 % have marked a random member DEAD, for `count` deaths, each in a new cluster."""
    ids, near = view(nodes, seed=seed)
    claims = cards(ids)
    draws = Rng(seed).child("deaths, silent" if silent else "deaths")
    spans: list[float] = []
    for number in range(count):
        death = Death(ids, near, claims, victim=draws.below(nodes), seed=seed * 1000 + number)
        span = death.run(silent=silent, after=draws.fraction() * 2)
        spans.append(20.0 if span is None else span)
    return spans
