"""One real `Node` in virtual time, and peers that a test controls: messages in, messages out, nothing between.

    harness = NodeHarness({"slow": spec("slow")})
    worker = harness.member("alpha", spec("add"))
    client = harness.client()
    client.send(Request(1, (call("x", "add", 1, 2),)))
    (asked,) = worker.take(Request)               # what the node sends to the member
    worker.send(done(asked, "x", 3))
    (answer,) = client.take(Result)

A `Simulation` shows that real nodes work together. A `NodeHarness` shows what one node does when the
others refuse, send false claims, are late, or vanish. Links have Framing.OBJECTS, so a test sees messages, not bytes. A
member holds a real `Cluster`, so the node sees it and its functions as those of any other member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from mpreg_proto.cluster.actions import ClusterOutput, SendMessage
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster, ClusterMessage
from mpreg_proto.effects import (
    Cancel,
    Demand,
    Dial,
    Feed,
    Framing,
    HangUp,
    Notify,
    Outcome,
    Pause,
    Report,
    Resume,
    Returned,
    Run,
    Send,
)
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Notice
from mpreg_proto.rng import Rng
from mpreg_proto.timers import LINK_TIMERS, REQUEST_TIMERS, TimerKind, Timers
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Call, Done, Failed, Message, Ping, Pong, Request, Result
from mpreg_proto.wire.values import Ref, ValueCodec

__all__ = ["CODEC", "MemberStub", "NodeHarness", "PeerStub", "call", "done", "refused", "spec", "value"]

CODEC = ValueCodec()
M = TypeVar("M", bound=msgspec.Struct)


def spec(name: str, **fields: Any) -> FunctionSpec:
    """Return a function as it is offered, with 16 slots unless `concurrency` says otherwise."""
    return FunctionSpec(name=name, **{"concurrency": 16, **fields})


def call(name: str, function: str, /, *args: Any, resources: tuple[str, ...] = (), **kwargs: Any) -> Call:
    """Return a call for a `Request`; `Ref("other")` in its arguments, at any depth, stands for that call's result."""
    dependencies = tuple(dict.fromkeys(_references([args, kwargs])))
    return Call(name, function, CODEC.encode([list(args), kwargs]), dependencies, tuple(sorted(resources)))


def _references(value: Any) -> list[str]:
    if isinstance(value, Ref):
        return [value.name]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for item in value for name in _references(item)] if isinstance(value, (list, tuple)) else []


def done(asked: Request, *rows: object, last: bool = True, **fields: Any) -> Result:
    """Return the answer of a worker; `rows` are names and values by turns."""
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return Result(asked.id, tuple(Done(str(name), CODEC.encode(made)) for name, made in pairs), last=last, **fields)


def refused(asked: Request, code: int, *names: str) -> Result:
    """Return a worker's refusal of calls, of all dispatched calls if none is named."""
    rows = [Failed(name, Fault(code, f"refused with {code}"), refused=True) for name in names or asked.here]
    return Result(asked.id, failed=tuple(rows))


def value(result: Result, name: str) -> object:
    """Return the decoded result of one call."""
    (row,) = [row for row in result.done if row.name == name]
    return CODEC.decode(row.value)


class PeerStub:
    """The peer end of one link of the node."""

    def __init__(self, harness: NodeHarness, link: LinkId) -> None:
        self.link = link
        self.received: list[Message] = []
        self.hung_up: int | None = None
        """The close code, once the node has closed the link."""
        self._harness = harness
        self._open = True

    def send(self, *messages: Message) -> None:
        """Send messages to the node, each an input of its own, and carry out the effects. After `drop` none arrives."""
        for message in messages if self._open else ():
            self._harness.node.handle(self.link, message, now=self._harness.now)
            self._harness.flush()

    def take(self, kind: type[M]) -> list[M]:
        """Return the messages of one kind since the last call for that kind."""
        taken: list[M] = [message for message in self.received if isinstance(message, kind)]
        self.received = [message for message in self.received if not isinstance(message, kind)]
        return taken

    def drop(self) -> None:
        """End the link without a goodbye; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        self._harness.node.link_closed(self.link, now=self._harness.now)
        self._harness.flush()

    def receive(self, message: Message) -> None:
        """Record one message of the node."""
        self.received.append(message)


class MemberStub(PeerStub):
    """A peer end that is a node: its own cluster sends and receives the messages about members and offers.

    It answers pings, unless it is `silent`.
    """

    def __init__(self, harness: NodeHarness, link: LinkId, cluster: Cluster) -> None:
        super().__init__(harness, link)
        self.cluster = cluster
        self.silent = False
        self._clock_offset = 0
        self._early: list[ClusterMessage] | None = []

    def receive(self, message: Message) -> None:
        if isinstance(message, Ping) and not self.silent:
            self.send(Pong(message.number))
        elif not isinstance(message, ClusterMessage):
            super().receive(message)
        elif self._early is not None:
            self._early.append(message)  # comes with the node's hello, which the cluster has not received yet
        else:
            self.deliver(self.cluster.received(self.link, message, self._harness.now))

    def linked(self) -> None:
        """Continue after the node's hello."""
        node, now = self._harness.node, self._harness.now
        early, self._early = self._early or [], None
        self.deliver(
            self.cluster.link_established(self.link, node.me, "local", dialled=Address("mem://local"), now=now)
        )
        for message in early:
            self.receive(message)

    def offer(self, function: FunctionSpec) -> None:
        """Offer one more function, and send the change to the node."""
        self.deliver(self.cluster.offer(function, self._later()))

    def withdraw(self, function: str) -> None:
        """Withdraw a function, and send the change to the node."""
        self.deliver(self.cluster.withdraw(function, self._later()))

    def _later(self) -> int:
        """Return a time so late that no gossip is joined with earlier gossip."""
        self._clock_offset += SECOND
        return self._harness.now + self._clock_offset

    def leave(self) -> None:
        """Send LEFT, and nothing else."""
        self.deliver(self.cluster.leave(self._harness.now))

    def deliver(self, outs: Iterable[ClusterOutput]) -> None:
        """Send the messages of this member's cluster."""
        for out in outs:
            if isinstance(out, SendMessage) and out.link in self._harness.peers:
                self.send(out.message)


class NodeHarness:
    """The node under test, its peer ends, and the effects of the node. `now` only moves by `advance`."""

    def __init__(
        self,
        functions: Iterable[FunctionSpec] = (),
        *,
        resources: tuple[str, ...] = (),
        limits: Limits = DEFAULT,
        seed: int = 1,
        me: bytes = b"n" * 16,
        codec: ValueCodec | None = None,
    ) -> None:
        self.now = SECOND
        self.peers: dict[LinkId, PeerStub] = {}
        self.runs: dict[RunId, Run] = {}
        self.cancelled: list[RunId] = []
        self.demanded: dict[RunId, int] = {}
        """The items that generators may produce beyond the first ones."""
        self.fed: dict[RunId, list[Feed]] = {}
        """The items for the iterators of bodies."""
        self.notices: list[Notice] = []
        self.dials: list[Address] = []
        self._entropy = Rng(seed).child("entropy")
        config = NodeConfig(name="local", resources=resources, limits=limits)
        self.node = Node(
            config,
            me=MemberId(me),
            rng=Rng(seed),
            entropy=lambda size: bytes(self._entropy.below(256) for _ in range(size)),
            now=self.now,
            codec=codec,
        )
        for function in functions:
            self.node.offer(function, now=self.now)
        self.flush()

    # -- peer ends -----------------------------------------------------------------------------------------------------

    def client(self, name: str = "client", *, turns_of: PeerStub | None = None) -> PeerStub:
        """Return a client with an open link, which takes turns as its own client, or as another one."""
        peer = PeerStub(self, self._open(client=None if turns_of is None else turns_of.link))
        self._greet(peer, b"", name)
        return peer

    def member(
        self, name: str, *functions: FunctionSpec, resources: tuple[str, ...] = (), again: MemberStub | None = None
    ) -> MemberStub:
        """Return a node that has dialled this one, and its offers. `again`: one more link of the same member."""
        link = self._open()
        if again is None:
            me = MemberId(name.encode().ljust(16, b"-"))
            cluster = Cluster(
                me,
                name=name,
                addresses=(Address(f"mem://{name}"),),
                seeds=(),
                resources=resources,
                timers=Timers(),
                rng=Rng(1),
                limits=DEFAULT,
                now=self.now,
            )
            for function in functions:
                cluster.offer(function, self.now)
        else:
            cluster = again.cluster
        peer = MemberStub(self, link, cluster)
        self.peers[link] = peer
        self._greet(peer, cluster.me, name)
        peer.linked()
        return peer

    def _open(self, *, client: LinkId | None = None) -> LinkId:
        link = LinkId(len(self.peers) + 1)
        self.peers[link] = PeerStub(self, link)
        self.node.link_opened(link, framing=Framing.OBJECTS, dialled=None, client=client, now=self.now)
        return link

    def _greet(self, peer: PeerStub, member: bytes, name: str) -> None:
        self.peers[peer.link] = peer
        peer.send(hello(cluster="default-cluster", member=member, name=name))

    # -- runs ---------------------------------------------------------------------------------------------------------

    def running(self, function: str) -> list[Run]:
        """Return the bodies that have begun and not ended, oldest first."""
        return [run for run in self.runs.values() if run.function == function]

    def finish(self, run: Run, outcome: Outcome | None = None) -> None:
        """End a body, with its first argument as its result unless `outcome` says otherwise."""
        self.finish_all({run.run: outcome or Returned(run.args[0] if run.args else None)})

    def finish_all(self, outcomes: Mapping[RunId, Outcome]) -> None:
        """End several bodies within one wake-up."""
        for run, outcome in outcomes.items():
            del self.runs[run]
            self.node.finished(run, outcome, now=self.now)
        self.flush()

    def produce(self, run: Run, *items: object) -> None:
        """Let a generator produce items."""
        self.node.yielded(run.run, items, now=self.now)
        self.flush()

    def take(self, run: Run, items: int) -> None:
        """Let a body take items of its iterator."""
        self.node.took(run.run, items, now=self.now)
        self.flush()

    def report(self, run: Run, report: Report) -> None:
        """Let a body report its progress."""
        self.node.reported(run.run, report, now=self.now)
        self.flush()

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let that much time pass, and wake the node at each of its timers."""
        end = self.now + round(seconds * SECOND)
        while (due := self.node.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.node.wake(now=self.now)
            self.flush()
        self.now = end

    def flush(self) -> None:
        """Carry out all effects."""
        for effect in self.node.drain():
            match effect:
                case Send(link, _, message):
                    assert message is not None, "links are made of objects here"
                    self.peers[link].receive(message)
                case HangUp(link, code):
                    self.peers[link].hung_up = code
                case Run():
                    self.runs[effect.run] = effect
                case Cancel(run):
                    self.cancelled.append(run)
                case Demand(run, items):
                    self.demanded[run] = self.demanded.get(run, 0) + items
                case Feed(run):
                    self.fed.setdefault(run, []).append(effect)
                case Notify(notice):
                    self.notices.append(notice)
                case Dial(address):
                    self.dials.append(address)
                case Pause() | Resume():
                    raise AssertionError(f"{effect} is never wanted yet")

    def noticed(self, kind: type[M]) -> list[M]:
        """Return the notices of one kind so far."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def idle(self) -> None:
        """Assert that no state of any request is left, and that the only timers left are those of links and members."""
        node = self.node
        assert (node.coordinator.requests, len(node.coordinator.outstanding)) == ({}, 0)
        assert (node.worker.running, node.worker.queued) == (0, 0)
        assert not any(node.worker.busy_on(link) or node.coordinator.busy_on(link) for link in (LinkId(0), *self.peers))
        assert not any(node.replies.busy_on(link) for link in self.peers)
        left = {key[0] for key in node._timers._at}
        requests = {*REQUEST_TIMERS, TimerKind.REPORT, TimerKind.DRAIN_GRACE}
        assert not left & {*requests, *LINK_TIMERS} - {TimerKind.PING}, left
        assert not node.coordinator.pending_calls.calls
