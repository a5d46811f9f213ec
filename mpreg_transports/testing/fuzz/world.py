"""A node whose functions end at once, for targets with a whole node, and a reader of its output.

Everything is drawn from fixed seeds and the time is an argument, so an input always leads to the same conversation.
Bodies run within the drain that returned them. Nothing here decides what is a defect; the targets do.
"""

from __future__ import annotations

from collections.abc import Iterator

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Effect, Framing, HangUp, Outcome, Raised, Returned, Run, Send
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire import dialects
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.framing import FrameReader, prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Call, Message, Request

FUNCTIONS = (
    FunctionSpec(name="echo", idempotent=True),
    FunctionSpec(name="echos", idempotent=True),
    FunctionSpec(name="boom", resources=("gpu",)),
    FunctionSpec(name="later", concurrency=2),
)
REMOTE = FunctionSpec(name="remote")
"""A function that a real peer offers and the node does not, so its calls go to the peer."""
ASKED = Request(0, (Call("far", "remote", b"\x92\x91\x01\x80"),), timeout=SECOND)


def make_node(name: str = "fuzzed", *, limits: Limits | None = None, seeds: tuple[Address, ...] = ()) -> Node:
    """Return a node that offers `echo`, `echos`, `boom`, which raises, and `later`; each call returns the same one."""
    root = Rng(7).child(name)
    ids = root.child("entropy")
    node = Node(
        NodeConfig(
            name=name,
            cluster_id="c",
            addresses=(Address(f"ws://{name}:1"),),
            seeds=seeds,
            limits=limits or Limits(),
        ),
        me=MemberId(name.encode().ljust(16, b"-")[:16]),
        rng=root.child("node"),
        entropy=lambda size: bytes(ids.below(256) for _ in range(size)),
        now=0,
    )
    for function in FUNCTIONS:
        node.offer(function, now=0)
    return node


def outcome(run: Run) -> Outcome:
    """Return the outcome of a body of FUNCTIONS."""
    if run.function == "boom":
        return Raised("ValueError", "boom")
    if run.function == "echos":
        return Returned(list(run.args))
    return Returned(run.args[0]) if len(run.args) == 1 and not run.kwargs else Raised("TypeError", "one argument")


def drained(node: Node, now: int, held: list[RunId] | None = None) -> Iterator[Effect]:
    """Yield all effects except `Run`s, which are carried out at once, until none is left.

    `Run`s of `later` go into `held`, if it is a list; the caller finishes them.
    """
    while effects := node.drain():
        for effect in effects:
            if isinstance(effect, Run) and effect.function == "later" and held is not None:
                held.append(effect.run)
            elif isinstance(effect, Run):
                node.finished(effect.run, outcome(effect), now=now)
            else:
                yield effect


def frame(message: Message) -> bytes:
    """Return a native message for a byte stream."""
    body = dialects.encode(message)
    return prefix(len(body)) + body


class Transcript:
    """The output of a node on one byte stream, read as its peer reads it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.classic: bytes = b""
        self.hung_up: int | None = None
        self._reader = FrameReader((1 << 25) - 1)

    def send(self, effect: Send) -> None:
        """Read the output of the node. Raises AssertionError for data that no peer can read, or after the end."""
        assert self.hung_up is None, "said after the end"
        for body in self._reader.feed(b"".join(effect.chunks)):
            if bytes(body[:1]) == b"{":
                self.classic = bytes(body)
                continue
            message = dialects.decode(body)
            assert not isinstance(message, BadRequest), f"a node says nonsense: {message}"
            self.messages.append(message)

    def hang_up(self, effect: HangUp) -> None:
        """Record the end of the link by the node."""
        assert self.hung_up is None, "hung up twice"
        self.hung_up = effect.code


__all__ = [
    "ASKED",
    "FUNCTIONS",
    "REMOTE",
    "SECOND",
    "Framing",
    "LinkId",
    "Transcript",
    "drained",
    "frame",
    "hello",
    "make_node",
    "outcome",
]
