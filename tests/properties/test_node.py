"""No input from a link raises out of a `Node`: the link stays open, or it ends with the reason and a hang-up.

The input: random bytes, random messages with extreme numbers, valid messages with some bytes changed; over every
framing, cut anywhere. After it the node's functions end, time passes, and the node must be consistent.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpreg_proto.client import ClientSession
from mpreg_proto.cluster.catalogue import Entry, entry_hash
from mpreg_proto.cluster.members import Card
from mpreg_proto.effects import Cancel, Framing, HangUp, Raised, Returned, Run, Send, Stopped
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import FrameReader, prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    Call,
    Change,
    Claim,
    Delta,
    Failed,
    Goodbye,
    Gossip,
    Head,
    Hello,
    Message,
    Refused,
    Request,
    Result,
)
from mpreg_proto.wire.values import Ref
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.strategies import messages
from mpreg_transports.testing.strategies.message import plain, whole
from tests.helpers.node_harness import call, spec

PEER = b"p" * 16
"""The member id of the peer that sends the messages."""
NAMES = ("x", "y", "z", "here", "safe", "once", "far", "", "é", "n" * 65)
LIMITS = Limits(message=4096, node_message=8192, calls=20, requests=8, name_length=64)


name = st.sampled_from(NAMES)
names = st.lists(name, max_size=3).map(tuple)
message = messages(names=NAMES)
result = messages(Result, names=NAMES)
request = messages(Request, names=NAMES)


class Target:
    """A node that offers two functions, a member that it knows, and one link under attack."""

    def __init__(self, framing: Framing, opening: str) -> None:
        self.now = SECOND
        self.framing = framing
        entropy = Rng(5)
        self.node = Node(
            NodeConfig(name="node", limits=LIMITS),
            me=MemberId(b"n" * 16),
            rng=Rng(1),
            entropy=lambda size: bytes(entropy.below(256) for _ in range(size)),
            now=self.now,
        )
        for function in (spec("safe", idempotent=True), spec("once", concurrency=1)):
            self.node.offer(function, now=self.now)
        self.link = LinkId(1)
        self.runs: dict[int, Run] = {}
        self.sent = bytearray()
        self.bodies: list[bytes] = []
        self.hung_up = False
        self.classic = framing is Framing.CLASSIC_MESSAGES
        self.node.link_opened(self.link, framing=framing, dialled=None, now=self.now)
        if opening:
            self.say(hello(cluster="default-cluster", member=PEER if opening == "member" else b"", name="peer"))

    def say(self, *messages: Message) -> None:
        """Send messages, each encoded, in one piece if the framing allows it."""
        bodies = [dialects.encode(message) for message in messages]
        if self.framing is Framing.STREAM:
            self.feed(b"".join(prefix(len(body)) + body for body in bodies))
        else:
            for body in bodies:
                self.feed(body)

    def feed(self, data: bytes | str) -> None:
        self.node.receive(self.link, data, now=self.now)
        self.note_dialect()
        self.flush()

    def note_dialect(self) -> None:
        """Record whether the link carries JSON; an ended link has no session any more."""
        session = self.node.links.sessions.get(self.link)
        self.classic = self.classic if session is None else session.classic

    def flush(self) -> None:
        for effect in self.node.drain():
            if isinstance(effect, Send):
                assert not self.hung_up and effect.link == self.link, "nothing is sent after a hang-up"
                if self.framing is Framing.STREAM:
                    self.sent += b"".join(effect.chunks)
                else:
                    self.bodies += effect.chunks
            elif isinstance(effect, HangUp):
                assert not self.hung_up
                self.hung_up = True
            elif isinstance(effect, Run):
                self.runs[effect.run] = effect
            elif isinstance(effect, Cancel):
                assert effect.run in self.runs

    def advance(self, seconds: int) -> None:
        end = self.now + seconds * SECOND
        while (due := self.node.next_timeout()) is not None and due <= end:
            self.now = max(due, self.now)
            self.node.wake(now=self.now)
            self.flush()
        self.now = end

    def check(self) -> None:
        """Check that the link is open or ended with a reason; then end everything, and check that nothing is left."""
        said = self.said()
        assert self.hung_up is (self.link not in self.node.links.sessions)
        if self.hung_up and not self.classic:
            left = self.node.draining  # a `Drain` came
            assert isinstance(said[-1], Refused) or not said or self.quietly or left, said
        for run in list(self.runs):
            outcome = (Returned(run), Raised("E", "why"), Stopped())[run % 3]
            del self.runs[run]
            self.node.finished(run, outcome, now=self.now)  # type: ignore[arg-type]
            self.flush()
        self.advance(1)
        self.node.link_closed(self.link, now=self.now)
        self.flush()
        for run in list(self.runs):
            self.node.finished(run, Stopped(), now=self.now)  # type: ignore[arg-type]
        self.flush()
        self.advance(200)
        view = self.node.view(now=self.now)
        assert (view.requests, view.running, view.queued, view.links) == (0, 0, 0, 0)
        assert len(self.node.coordinator.outstanding) == 0

    quietly = False
    """True if the link may end without a `Refused` of the node: the peer refused or left, or is the node itself."""

    def said(self) -> list[Message]:
        """Return all that the node has sent, which must be whole and readable."""
        if self.classic:
            bodies = FrameReader(1 << 24).feed(bytes(self.sent)) if self.framing is Framing.STREAM else self.bodies
            for body in bodies:
                assert json.loads(bytes(body)).keys() >= {"r", "error", "u"}
            return []
        bodies = FrameReader(1 << 24).feed(bytes(self.sent)) if self.framing is Framing.STREAM else self.bodies
        messages = [dialects.decode(body) for body in bodies]
        assert not any(isinstance(one, dialects.BadRequest) for one in messages)
        return messages  # type: ignore[return-value]


openings = pytest.mark.parametrize("opening", ["", "client", "member"])
framings = pytest.mark.parametrize("framing", [Framing.STREAM, Framing.NATIVE_MESSAGES, Framing.CLASSIC_MESSAGES])


@framings
@openings
@settings(max_examples=60)
@given(pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_bytes_at_random(framing: Framing, opening: str, pieces: list[bytes]) -> None:
    target = Target(framing, opening)
    target.quietly = True
    for piece in pieces:
        target.feed(piece)
    target.check()


@settings(max_examples=150)
@given(pieces=st.lists(st.text(max_size=40), max_size=6))
def test_text_at_random(pieces: list[str]) -> None:
    target = Target(Framing.CLASSIC_MESSAGES, "")
    for piece in pieces:
        target.feed(piece)
    assert len(target.bodies) == len(pieces), "each is answered"
    target.check()


commands = st.lists(
    st.fixed_dictionaries(
        {"name": name, "fun": name},
        optional={
            "args": st.lists(plain, max_size=3),
            "kwargs": st.dictionaries(name, plain, max_size=2),
            "locs": names,
        },
    ),
    max_size=4,
)
objects = st.fixed_dictionaries(
    {"role": st.sampled_from(["rpc", "rpc", "rpc", "auth", 5])},
    optional={
        "cmds": commands,
        "u": st.one_of(st.text(max_size=3), whole),
        "refs": st.sampled_from(["classic", "explicit", "?"]),
        "want": names,
        "timeout": st.one_of(whole, st.floats(0, 5)),
        "wait": st.one_of(whole, st.floats(0, 5)),
        "on_error": st.sampled_from(["fail", "partial"]),
        "trace": st.booleans(),
    },
)


@settings(max_examples=300)
@given(st.lists(objects, max_size=4))
def test_objects_at_random(sent: list[dict[str, object]]) -> None:
    target = Target(Framing.CLASSIC_MESSAGES, "")
    for one in sent:
        target.feed(json.dumps(one, default=lambda value: value.hex(), ensure_ascii=False).encode("utf-8", "replace"))
    target.check()


@pytest.mark.parametrize("framing", [Framing.STREAM, Framing.NATIVE_MESSAGES])
@pytest.mark.parametrize("opening", ["client", "member"])
@settings(max_examples=250)
@given(sent=st.lists(message, max_size=8), together=st.booleans())
def test_messages_at_random(framing: Framing, opening: str, sent: list[Message], together: bool) -> None:
    target = Target(framing, opening)
    target.quietly = any(isinstance(one, (Refused, Goodbye, Hello, Gossip)) for one in sent)
    if opening == "member":
        known(target)
    if together:
        target.say(*sent)
    else:
        for one in sent:
            target.say(one)
            target.advance(1)
    target.check()


@pytest.mark.parametrize("opening", ["client", "member"])
@settings(max_examples=250)
@given(
    sent=st.lists(message, min_size=1, max_size=4),
    changes=st.lists(
        st.tuples(st.sampled_from(["set", "cut", "add"]), st.integers(0, 10**6), st.integers(0, 255)), max_size=3
    ),
)
def test_messages_with_some_bytes_changed(
    opening: str, sent: list[Message], changes: list[tuple[str, int, int]]
) -> None:
    target = Target(Framing.NATIVE_MESSAGES, opening)
    target.quietly = True
    for one in sent:
        body = bytearray(dialects.encode(one))
        for what, place, byte in changes:
            at = place % (len(body) + 1)
            body[at : at + (what != "add")] = b"" if what == "cut" else bytes([byte])
        target.feed(bytes(body))
    target.check()


def known(target: Target) -> None:
    """Make the node know its peer, which offers `far`."""
    entry = Change(1, "f:far", msgspec.msgpack.encode(Entry("far")))
    hash_ = entry_hash(entry.key, entry.entry).to_bytes(16, "big")
    claim = Claim(PEER, 1, Standing.ALIVE, msgspec.msgpack.encode(Card("peer", ())))
    target.say(Gossip((claim,), (Delta(Head(PEER, 1, hash_), 0, (entry,)),)))
    assert target.node.cluster.index.offers("far", (), None)


@settings(max_examples=200)
@given(
    answers=st.lists(
        st.builds(
            lambda one, id_: msgspec.structs.replace(one, id=id_), messages(Result, names=NAMES), st.integers(1, 4)
        ),
        max_size=6,
    ),
    asked=st.lists(request, min_size=1, max_size=3),
    details=st.dictionaries(name, plain, max_size=2),
)
def test_member_that_sends_false_results(answers: list[Result], asked: list[Request], details: dict[str, Any]) -> None:
    """It receives calls, and replies with anything, at last with numbers that are no valid times."""
    target = Target(Framing.STREAM, "member")
    target.quietly = True
    known(target)
    sure = Request(0, (Call("a", "far", b""), Call("b", "once", b"", ("a",))), trace=True, partial=True)
    for number, one in enumerate(asked):
        if number % 2:
            target.node.submit(one, now=target.now)
        else:
            target.say(one)
    target.node.submit(sure, now=target.now)
    target.flush()
    dispatches = [one for one in target.said() if isinstance(one, Request)]
    assert dispatches
    for answer in answers:
        target.say(answer)
    for one in dispatches:
        rows = tuple(Failed(name, Fault(1003, "", details), False, 2**63, 2**64 - 1) for name in one.here)
        target.say(Result(one.id, failed=rows, queue=2**64 - 1))
    target.check()


def test_details_at_the_depth_limit_are_not_passed_on() -> None:
    """Near the depth limit, a value can be decoded and, one level deeper, no longer encoded."""
    for depth in (*range(1, 100, 7), *range(900, 1100)):
        target = Target(Framing.STREAM, "member")
        known(target)
        target.node.submit(Request(0, (Call("a", "far", b""),)), now=target.now)
        target.flush()
        body = dialects.encode(Result(1, failed=(Failed("a", Fault(1003, "", {"deep": None})),)))
        before, after = body.split(b"deep\xc0")
        body = before + b"deep" + b"\x91" * depth + b"\xc0" + after
        target.feed(prefix(len(body)) + body)
        assert target.hung_up is (depth > 61), depth
        target.check()


# -- correct input gives correct output --------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    framing=st.sampled_from([Framing.STREAM, Framing.NATIVE_MESSAGES]),
    shape=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**6)), min_size=1, max_size=8),
)
def test_random_graphs_over_streams_cut_anywhere(seed: int, framing: Framing, shape: list[tuple[int, int]]) -> None:
    """A random graph of sums, its calls spread by resources, against the sums computed here."""
    add = {"add": Fn(lambda *parts: sum(parts), idempotent=True)}
    nodes = {"front": Spec(functions=add, resources={"red"}), "alpha": Spec(functions=add, resources={"blue"})}
    sim = Simulation(seed=seed, nodes=nodes, watchers=invariants())
    sim.set_links(Profile(rechunk=1.0))
    sim.add_client("caller@front", "front", framing=framing)
    sim.run(2)
    values: dict[str, int] = {}
    calls = []
    for place, (color, number) in enumerate(shape):
        needs = [f"c{(number >> shift) % place}" for shift in (0, 5)] if place else []
        values[f"c{place}"] = number + sum(values[need] for need in needs)
        resources = ((), ("red",), ("blue",))[color]
        calls.append(call(f"c{place}", "add", number, *map(Ref, needs), resources=resources))
    asked = sim.submit("front", Request(0, tuple(calls), want=tuple(values)), client="caller@front")
    assert sim.run(until=asked.done, limit=60)
    assert asked.values == values


@settings(max_examples=100)
@given(pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8), sent=st.lists(message, max_size=5))
def test_client_accepts_any_bytes_of_a_node(pieces: list[bytes], sent: list[Message]) -> None:
    session = ClientSession(limits=LIMITS)
    session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address("mem://n"), now=0)
    bodies = [dialects.encode(one) for one in (hello(cluster="c", member=PEER, name="n"), *sent)]
    session.submit(Request(0, (Call("x", "f", b""),), timeout=SECOND), now=0)
    for data in (*[prefix(len(body)) + body for body in bodies], *pieces):
        session.receive(LinkId(1), data, now=1)
        session.drain()
    session.wake(now=100 * SECOND)
    session.link_closed(LinkId(1), now=100 * SECOND)
    session.drain()
    assert len(session) == 0 and session.next_timeout() is None
