"""One real `Node` in virtual time, and far ends that a test speaks by hand: messages in, messages out, nothing between.

    desk = Desk({"slow": spec("slow")})
    worker = desk.member("alpha", spec("add"))
    client = desk.client()
    client.say(Request(1, (call("x", "add", 1, 2),)))
    (asked,) = worker.take(Request)               # what the node wants of the member
    worker.say(done(asked, "x", 3))
    (answer,) = client.take(Result)

A `VirtualCluster` (cluster.py) shows that real nodes do the right thing together; a `Desk` shows what one of them does
when the others refuse, lie, are late, or vanish. Links have Framing.OBJECTS, so a test sees messages, not bytes. A
member holds a real `Cluster`, so that the node knows it and its functions as it would any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster, Said
from mpreg_proto.cluster.outputs import Out, Tell
from mpreg_proto.effects import Cancel, Dial, Framing, HangUp, Notify, Outcome, Pause, Resume, Returned, Run, Send
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Notice
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Done, Failed, Message, Ping, Pong, Request, Result
from mpreg_proto.wire.values import ValueCodec
from tests.helpers.cluster_parties import call

__all__ = ["CODEC", "Desk", "Far", "Member", "call", "done", "refused", "spec", "value"]

CODEC = ValueCodec()
M = TypeVar("M", bound=msgspec.Struct)


def spec(name: str, **fields: Any) -> FunctionSpec:
    """A function as it is offered; of 16 slots unless `concurrency` says another number."""
    return FunctionSpec(name=name, **{"concurrency": 16, **fields})


def done(asked: Request, *rows: object, last: bool = True, **fields: Any) -> Result:
    """The answer of a worker: names and values by turns."""
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return Result(asked.id, tuple(Done(str(name), CODEC.encode(made)) for name, made in pairs), last=last, **fields)


def refused(asked: Request, code: int, *names: str) -> Result:
    """A worker's refusal of calls, of all that were asked for if none is named."""
    rows = [Failed(name, Fault(code, f"refused with {code}"), refused=True) for name in names or asked.here]
    return Result(asked.id, failed=tuple(rows))


def value(result: Result, name: str) -> object:
    """The decoded result of one call."""
    (row,) = [row for row in result.done if row.name == name]
    return CODEC.decode(row.value)


class Far:
    """The far end of one link of the node."""

    def __init__(self, desk: Desk, link: LinkId) -> None:
        self.link = link
        self.heard: list[Message] = []
        self.hung_up: int | None = None
        """The close code, once the node has hung up."""
        self._desk = desk

    def say(self, *messages: Message) -> None:
        """Send messages to the node, each an input of its own, and carry out what it wants."""
        for message in messages:
            self._desk.node.handle(self.link, message, now=self._desk.now)
            self._desk.flush()

    def take(self, kind: type[M]) -> list[M]:
        """What has been heard of one kind of message since the last time."""
        taken: list[M] = [message for message in self.heard if isinstance(message, kind)]
        self.heard = [message for message in self.heard if not isinstance(message, kind)]
        return taken

    def drop(self) -> None:
        """The link is gone without a word."""
        self._desk.node.link_closed(self.link, now=self._desk.now)
        self._desk.flush()

    def hear(self, message: Message) -> None:
        """One message of the node's."""
        self.heard.append(message)


class Member(Far):
    """A far end that is a node; what is said of members and offers it says and hears by itself.

    It answers pings, unless it is `silent`.
    """

    def __init__(self, desk: Desk, link: LinkId, cluster: Cluster) -> None:
        super().__init__(desk, link)
        self.cluster = cluster
        self.silent = False
        self._said = 0
        self._early: list[Said] | None = []

    def hear(self, message: Message) -> None:
        if isinstance(message, Ping) and not self.silent:
            self.say(Pong(message.number))
        elif not isinstance(message, Said):
            super().hear(message)
        elif self._early is not None:
            self._early.append(message)  # comes with the node's hello, of which the cluster has not heard yet
        else:
            self.tell(self.cluster.received(self.link, message, self._desk.now))

    def linked(self) -> None:
        """The node's hello is in."""
        node, now = self._desk.node, self._desk.now
        early, self._early = self._early or [], None
        self.tell(self.cluster.linked(self.link, node.me, "desk", dialled=Address("mem://desk"), now=now))
        for message in early:
            self.hear(message)

    def offer(self, function: FunctionSpec) -> None:
        """Offer one more function, and let the node know."""
        self.tell(self.cluster.offer(function, self._later()))

    def withdraw(self, function: str) -> None:
        """Offer it no longer, and let the node know."""
        self.tell(self.cluster.withdraw(function, self._later()))

    def _later(self) -> int:
        """When nothing is joined with what was said before."""
        self._said += SECOND
        return self._desk.now + self._said

    def leave(self) -> None:
        """Say LEFT, and nothing else."""
        self.tell(self.cluster.leave(self._desk.now))

    def tell(self, outs: Iterable[Out]) -> None:
        """Send what this member's cluster wants sent."""
        for out in outs:
            if isinstance(out, Tell) and out.link in self._desk.fars:
                self.say(out.message)


class Desk:
    """The node under test, its far ends, and what it wanted. `now` only moves by `advance`."""

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
        self.fars: dict[LinkId, Far] = {}
        self.runs: dict[RunId, Run] = {}
        self.cancelled: list[RunId] = []
        self.notices: list[Notice] = []
        self.dials: list[Address] = []
        self._entropy = Rng(seed).child("entropy")
        config = NodeConfig(name="desk", resources=resources, limits=limits)
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

    # -- far ends -----------------------------------------------------------------------------------------------------

    def client(self, name: str = "client") -> Far:
        """A client with an open link."""
        far = Far(self, self._open())
        self._greet(far, b"", name)
        return far

    def member(
        self, name: str, *functions: FunctionSpec, resources: tuple[str, ...] = (), again: Member | None = None
    ) -> Member:
        """A node that has dialled this one, and its offers. `again`: one more link of the same member."""
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
        far = Member(self, link, cluster)
        self.fars[link] = far
        self._greet(far, cluster.me, name)
        far.linked()
        return far

    def _open(self) -> LinkId:
        link = LinkId(len(self.fars) + 1)
        self.fars[link] = Far(self, link)
        self.node.link_opened(link, framing=Framing.OBJECTS, dialled=None, now=self.now)
        return link

    def _greet(self, far: Far, member: bytes, name: str) -> None:
        self.fars[far.link] = far
        far.say(hello(cluster="default-cluster", member=member, name=name))

    # -- runs ---------------------------------------------------------------------------------------------------------

    def running(self, function: str) -> list[Run]:
        """The bodies that have begun and not ended, oldest first."""
        return [run for run in self.runs.values() if run.function == function]

    def finish(self, run: Run, outcome: Outcome | None = None) -> None:
        """A body has ended; with its first argument as its result unless `outcome` says otherwise."""
        self.finish_all({run.run: outcome or Returned(run.args[0] if run.args else None)})

    def finish_all(self, outcomes: Mapping[RunId, Outcome]) -> None:
        """Several bodies have ended within one wake-up."""
        for run, outcome in outcomes.items():
            del self.runs[run]
            self.node.finished(run, outcome, now=self.now)
        self.flush()

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let that much time pass, waking the node whenever it wants."""
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
                    self.fars[link].hear(message)
                case HangUp(link, code):
                    self.fars[link].hung_up = code
                case Run():
                    self.runs[effect.run] = effect
                case Cancel(run):
                    self.cancelled.append(run)
                case Notify(notice):
                    self.notices.append(notice)
                case Dial(address):
                    self.dials.append(address)
                case Pause() | Resume():
                    raise AssertionError(f"{effect} is never wanted yet")

    def noticed(self, kind: type[M]) -> list[M]:
        """The notices of one kind so far."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def idle(self) -> None:
        """Assert that nothing of any request is kept, and that the only timers left are those of links and members."""
        node = self.node
        assert (node.coordinator.requests, len(node.coordinator.out)) == ({}, 0)
        assert (node.worker.running, node.worker.queued) == (0, 0)
        assert not any(node.worker.pending(link) or node.coordinator.pending(link) for link in (LinkId(0), *self.fars))
        assert not any(node.answers.pending(link) for link in self.fars)
        left = {key[0] for key in node._timers._at}
        assert left <= {"ping", "cluster"}, left
        assert not node.coordinator.parking.calls
