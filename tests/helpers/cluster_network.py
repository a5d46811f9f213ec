"""Several `Cluster`s joined by links in memory: virtual time, no sockets, nothing lost while a link is open.

A link keeps the order of each direction; between links the order is that of `delay`, which a test draws. Messages pass
through their encoding, as between processes. `crash` ends links without Goodbye, `cut` does so between two nodes and
makes dials between them fail until `heal`. All other outputs of the clusters are kept in `outs` for the test.

It tests the membership machine alone. Whole nodes with functions and clients run in a `Simulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import cast

import msgspec

from mpreg_proto.cluster.actions import AbortLink, CloseIfIdle, CloseLink, ClusterOutput, SendMessage, SendPing
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster, ClusterMessage
from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.notices import MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.view import member_views
from mpreg_proto.wire.messages import Message

_decode = msgspec.msgpack.Decoder(Message).decode


class Peer:
    """One node of the network: its cluster and its outputs."""

    def __init__(self, cluster: Cluster, timers: Timers, addresses: tuple[Address, ...]) -> None:
        self.cluster = cluster
        self.timers = timers
        self.addresses = addresses
        self.running = True
        self.outs: list[tuple[int, ClusterOutput]] = []
        self.dials: list[tuple[int, Address]] = []

    @property
    def me(self) -> MemberId:
        return self.cluster.me

    def standings(self) -> dict[str, str]:
        """Return the standing of each other member in the view of this node, by name."""
        return {row.name: row.standing for row in member_views(self.cluster, now=0)}

    def suspected(self) -> list[MemberId]:
        """Return every SUSPECT that this node noticed."""
        return [
            out.notice.member
            for _, out in self.outs
            if isinstance(out, Notify)
            and isinstance(out.notice, MemberChanged)
            and out.notice.standing is Standing.SUSPECT
        ]


class _End:
    """One side of a link."""

    def __init__(self, peer: Peer, link: LinkId) -> None:
        self.peer = peer
        self.link = link
        self.open = False
        self.free_at = 0
        """The earliest arrival of the next message from here, which keeps the order."""
        self.other: _End = self


class Network:
    """The environment of the clusters. `delay` returns the latency of the next message on a link, in nanoseconds."""

    def __init__(self, *, seed: int = 0, delay: Callable[[], int] = lambda: MILLISECOND) -> None:
        self.now = 0
        self.delay = delay
        self.peers: dict[str, Peer] = {}
        self.ends: dict[tuple[MemberId, LinkId], _End] = {}
        self._rng = Rng(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._links = 0
        self._cut: dict[frozenset[MemberId], None] = {}

    # -- changes of nodes ----------------------------------------------------------------------------------------------

    def node(
        self,
        name: str,
        *,
        identity: bytes | None = None,
        seeds: tuple[str, ...] = (),
        functions: tuple[str, ...] = (),
        resources: tuple[str, ...] = (),
        addresses: tuple[str, ...] | None = None,
        limits: Limits | None = None,
    ) -> Peer:
        """Start a node at `addresses`, by default one made of its name; seeds are names or addresses."""
        timers = Timers()
        where = tuple(Address(address) for address in (at(name) if addresses is None else addresses))
        cluster = Cluster(
            MemberId(identity if identity is not None else name.encode().ljust(16, b".")),
            name=name,
            addresses=where,
            seeds=tuple(Address(seed if ":" in seed else at(seed)[0]) for seed in seeds),
            resources=resources,
            timers=timers,
            rng=self._rng.child(f"{name}/{len(self.peers)}/{self.now}"),
            limits=limits or Limits(),
            now=self.now,
        )
        peer = Peer(cluster, timers, where)
        self.peers[name] = peer
        for function in functions:
            self.do(peer, cluster.offer(FunctionSpec(name=function), self.now))
        self.do(peer, cluster.start(self.now))
        return peer

    def crash(self, name: str) -> None:
        """Kill the process: its links end without a goodbye."""
        peer = self.peers[name]
        peer.running = False
        for end in [end for end in self.ends.values() if end.peer is peer or end.other.peer is peer]:
            self._end(end, clean=False)

    def leave(self, name: str) -> None:
        """Let the process leave in order: LEFT, then Goodbye on each link."""
        peer = self.peers[name]
        self.do(peer, peer.cluster.leave(self.now))
        for end in [end for end in self.ends.values() if end.peer is peer]:
            self._close(end)
        peer.running = False

    def cut(self, one: str, other: str) -> None:
        """End the links between two nodes, and deliver nothing between them from now on."""
        pair = (self.peers[one], self.peers[other])
        self._cut[frozenset(peer.me for peer in pair)] = None
        for end in [end for end in self.ends.values() if end.peer in pair and end.other.peer in pair]:
            self._end(end, clean=False)

    def heal(self) -> None:
        """Make all pairs reachable again."""
        self._cut.clear()

    def close(self, one: str, other: str) -> None:
        """Close the links of `one` to `other` on purpose."""
        pair = (self.peers[one], self.peers[other])
        for end in [end for end in self.ends.values() if end.peer is pair[0] and end.other.peer is pair[1]]:
            self._close(end)

    # -- time -----------------------------------------------------------------------------------------------------

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass. Return early only if no event is left."""
        until = self.now + int(seconds * SECOND)
        while True:
            times = [peer.timers.next() for peer in self.peers.values() if peer.running]
            due = min((time for time in times if time is not None), default=until + 1)
            event = self._events[0][0] if self._events else until + 1
            if min(due, event) > until:
                break
            self.now = max(self.now, min(due, event))
            if event <= due:
                heappop(self._events)[2]()
                continue
            for peer in list(self.peers.values()):
                for key in peer.timers.due(self.now) if peer.running else ():
                    self.do(peer, peer.cluster.wake(key, self.now))
        self.now = until

    def later(self, delay: int, action: Callable[[], None]) -> int:
        """Run an action after `delay`; return its time."""
        self._sequence += 1
        heappush(self._events, (self.now + delay, self._sequence, action))
        return self.now + delay

    def do(self, peer: Peer, outs: list[ClusterOutput]) -> None:
        """Carry out the outputs of a cluster."""
        for out in outs:
            peer.outs.append((self.now, out))
            if isinstance(out, SendMessage):
                self._send(peer, out)
            elif isinstance(out, SendPing):
                self._ping(self.ends[peer.me, out.link])
            elif isinstance(out, AbortLink):
                for end in (self.ends[peer.me, out.link], self.ends[peer.me, out.link].other):
                    self.later(self.delay(), lambda end=end: self._end(end, clean=False))  # type: ignore[misc]
            elif isinstance(out, CloseIfIdle):
                self.do(peer, peer.cluster.start_closing(out.link))
                self._close(self.ends[peer.me, out.link])
            elif isinstance(out, Dial):
                peer.dials.append((self.now, out.address))
                address = out.address
                self.later(self.delay(), lambda address=address: self._arrive(peer, address))  # type: ignore[misc]
            elif isinstance(out, CloseLink):
                self._close(self.ends[peer.me, out.link])

    # -- links ----------------------------------------------------------------------------------------------------

    def _arrive(self, peer: Peer, address: Address) -> None:
        there = next((other for other in self.peers.values() if other.running and address in other.addresses), None)
        if not peer.running:
            return
        if there is None or frozenset((peer.me, there.me)) in self._cut:
            self.do(peer, peer.cluster.dial_failed(address, self.now))
        elif there is peer:
            self.do(peer, peer.cluster.reached_self(None, self.now))
            self.do(peer, peer.cluster.reached_self(address, self.now))
        else:
            near, far = self._make(peer), self._make(there)
            near.other, far.other = far, near
            # The own end learns later: what the other side sends meanwhile waits until then.
            far.free_at = self.later(self.delay(), lambda: self._open(near, address))
            self._open(far, None)

    def _make(self, peer: Peer) -> _End:
        self._links += 1
        end = _End(peer, LinkId(self._links))
        self.ends[peer.me, end.link] = end
        return end

    def _open(self, end: _End, dialled: Address | None) -> None:
        peer, other = end.peer, end.other.peer
        if (peer.me, end.link) not in self.ends:
            if dialled is not None and peer.running:
                self.do(peer, peer.cluster.dial_failed(dialled, self.now))
            return
        end.open = True
        name = other.cluster.members.own.name
        self.do(peer, peer.cluster.link_established(end.link, other.me, name, dialled=dialled, now=self.now))

    def _send(self, peer: Peer, output: SendMessage) -> None:
        end = self.ends.get((peer.me, output.link))
        if end is None:
            return
        assert end.open, "sent on a link that is not up"
        data = msgspec.msgpack.encode(output.message)
        far = end.other
        self._after_what_was_sent(end, lambda: self._receive(far, data))

    def _after_what_was_sent(self, end: _End, action: Callable[[], None]) -> None:
        wait = max(self.delay(), end.free_at - self.now)
        end.free_at = self.later(wait, action)

    def _ping(self, end: _End) -> None:
        """Send a ping, which the other end answers if it runs."""
        far = end.other

        def came() -> None:
            if far.open and far.peer.running and (far.peer.me, far.link) in self.ends:
                self._after_what_was_sent(far, back)

        def back() -> None:
            if end.peer.running and (end.peer.me, end.link) in self.ends:
                self.do(end.peer, end.peer.cluster.ack_received(end.link, self.now))

        self._after_what_was_sent(end, came)

    def _receive(self, end: _End, data: bytes) -> None:
        peer = end.peer
        if end.open and peer.running and (peer.me, end.link) in self.ends:
            message = cast("ClusterMessage", _decode(data))
            self.do(peer, peer.cluster.received(end.link, message, self.now))

    def _close(self, end: _End) -> None:
        """Send Goodbye from one side after its earlier messages; the link ends once the other side has received it."""
        far = end.other

        def arrived() -> None:
            peer = far.peer
            if peer.running and (peer.me, far.link) in self.ends:
                self.do(peer, peer.cluster.goodbye_received(far.link, self.now))
            self.later(self.delay(), lambda: self._end(far, clean=True))
            self.later(self.delay(), lambda: self._end(end, clean=True))

        end.free_at = self.later(max(self.delay(), end.free_at - self.now), arrived)

    def _end(self, end: _End, *, clean: bool) -> None:
        peer = end.peer
        if self.ends.pop((peer.me, end.link), None) is None:
            return
        if peer.running and end.open:
            self.do(peer, peer.cluster.link_closed(end.link, clean=clean, now=self.now))

    def between(self, one: str, other: str) -> int:
        """Return the number of links between two nodes."""
        pair = (self.peers[one], self.peers[other])
        return sum(end.peer is pair[0] and end.other.peer is pair[1] for end in self.ends.values())


def at(name: str) -> tuple[str, ...]:
    """Return the address of a node of that name."""
    return (f"ws://{name}:9001",)


def drawn_network(seed: int, most: int) -> Network:
    """Return a network with delays of 1 ms to `most` ms, drawn for each message."""
    draws = Rng(seed).child("delay")
    return Network(seed=seed, delay=lambda: (1 + draws.below(most)) * MILLISECOND)


def agree(peers: Sequence[Peer]) -> None:
    """Assert that each of `peers` sees exactly these as ALIVE, with the current catalogues; all offer `all`."""
    wanted = sorted(peer.me for peer in peers)
    for peer in peers:
        known = peer.cluster.members
        assert sorted(held.id for held in known.all() if held.standing is Standing.ALIVE) == wanted
        for other in peers:
            mine, own = peer.cluster.catalogue.content(other.me), other.cluster.catalogue.content(other.me)
            assert mine is not None
            assert own is not None
            assert mine.head == own.head
        assert [row.member for row in peer.cluster.index.offers("all", (), None)] == wanted
