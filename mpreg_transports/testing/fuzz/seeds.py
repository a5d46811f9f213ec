"""Small first inputs of each target, generated from real conversations of nodes and clients, and from the formats.

The same inputs come every time.
"""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from mpreg_proto.client import ClientSession
from mpreg_proto.effects import HangUp, Send
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address
from mpreg_proto.node import Node
from mpreg_proto.rng import Rng
from mpreg_proto.wire import dialects
from mpreg_proto.wire.messages import Call, CancelRequest, Message, Ping, Refused, Request, Result
from mpreg_proto.wire.values import Ref, ValueCodec
from mpreg_transports.testing.fuzz.traces import TraceStep, packed
from mpreg_transports.testing.fuzz.world import ASKED, REMOTE, SECOND, Framing, LinkId, drained, frame, hello, make_node

Steps = list[tuple[TraceStep, bytes]]

_CODEC = ValueCodec()


def _call(name: str, *args: object, dependencies: tuple[str, ...] = (), function: str = "echos") -> Call:
    return Call(name, function, _CODEC.encode([list(args), {}]), dependencies)


GRAPHS: tuple[Request, ...] = (
    Request(1, (_call("a", 1, function="echo"),)),
    Request(
        2,
        (_call("a", "x"), _call("b", Ref("a"), dependencies=("a",)), _call("c", Ref("b", (0, 0)), dependencies=("b",))),
    ),
    Request(3, (_call("a", b"y"), _call("b", 2**70, function="boom")), partial=True, eager=True, trace=True),
    Request(4, (_call("a", function="nowhere"),), wait=SECOND, timeout=2 * SECOND),
    Request(5, (_call("a", Ref("b"), dependencies=("b",)), _call("b", Ref("a"), dependencies=("a",)))),
    Request(7, (_call("a", 1, function="later"), _call("b", 2, function="later"), _call("c", 3, function="later"))),
    Request(6, (_call("a", Ref("g"), dependencies=("g",)),), here=("a",), inputs={"g": _CODEC.encode((1, "two"))}),
)


class Conversation:
    """The data of two sides on one stream; each step is kept in the form that the input of the other side has."""

    def __init__(self) -> None:
        self.steps: tuple[Steps, Steps] = ([], [])

    def note(self, side: int, data: bytes) -> None:
        """Add data that `side` sends."""
        self.steps[side].append((TraceStep.SAY, data))

    def wait(self, tenths: int) -> None:
        """Add time that passes for both."""
        for steps in self.steps:
            steps.append((TraceStep.WAIT, bytes([tenths])))


def client_with_node() -> tuple[bytes, bytes]:
    """Return the output of a client that sends all GRAPHS, for `peer`, and the answers of the node, for `client`."""
    talk, node, session, link = Conversation(), make_node(), ClientSession(name="client"), LinkId(1)
    node.link_opened(link, framing=Framing.STREAM, dialled=None, now=0)
    session.link_opened(link, framing=Framing.STREAM, address=Address("ws://fuzzed:1"), now=0)
    now = 0
    for request in GRAPHS:
        session.submit(request, now=now)
        talk.steps[1].append((TraceStep.ACT, b"\0"))
        _exchange(talk, node, session, link, now)
        now += SECOND
        node.wake(now=now)
        talk.wait(10)
    session.get_view(now=now)
    session.explain(GRAPHS[1], now=now)
    talk.steps[1].extend([(TraceStep.ACT, b"\3"), (TraceStep.ACT, b"\2")])
    _exchange(talk, node, session, link, now)
    node.leave(now=now)
    _exchange(talk, node, session, link, now)
    return b"\0" + packed(talk.steps[0]), packed(talk.steps[1])


def _exchange(talk: Conversation, node: Node, session: ClientSession, link: LinkId, now: int) -> None:
    busy = True
    while busy:
        busy = False
        for wanted in session.drain():
            if isinstance(wanted, Send):
                busy = True
                data = b"".join(wanted.chunks)
                talk.note(0, data)
                node.receive(link, data, now=now)
        for effect in drained(node, now):
            if isinstance(effect, Send):
                busy = True
                data = b"".join(effect.chunks)
                talk.note(1, data)
                session.receive(link, data, now=now)


def node_with_node(*, dials: bool, leaves: bool) -> bytes:
    """Return the output of another node to the fuzzed one: it joins, offers, sends calls, runs calls, and leaves."""
    nodes = (make_node("other"), make_node("fuzzed", seeds=(Address("ws://peer:1"),) if dials else ()))
    nodes[0].offer(REMOTE, now=0)
    steps: Steps = []
    dialled = (None, Address("ws://peer:1")) if dials else (Address("ws://fuzzed:1"), None)
    for node, where in zip(nodes, dialled, strict=True):
        node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=where, now=0)
    now = 0
    _between(nodes, steps, now)
    for number, request in enumerate(GRAPHS):
        nodes[0].submit(request, now=now)
        nodes[1].submit(ASKED, now=now)
        steps.append((TraceStep.ACT, b""))
        _between(nodes, steps, now)
        now += SECOND // 2
        for node in nodes:
            node.wake(now=now)
        steps.append((TraceStep.WAIT, b"\5"))
        if number == 3:
            nodes[0].withdraw("boom", now=now)
            nodes[0].set_resources(("gpu", "eu"), now=now)
            nodes[0].advertise((Address("ws://other:2"),), now=now)
        _between(nodes, steps, now)
    if leaves:
        nodes[0].leave(now=now)
        _between(nodes, steps, now)
    steps.append((TraceStep.CLOSE, b""))
    return bytes([dials]) + packed(steps)


def _between(nodes: tuple[Node, Node], steps: Steps, now: int) -> None:
    busy = True
    while busy:
        busy = False
        for side, node in enumerate(nodes):
            for effect in drained(node, now):
                if isinstance(effect, Send):
                    busy = True
                    data = b"".join(effect.chunks)
                    if side == 0:
                        steps.append((TraceStep.SAY, data))
                    nodes[1 - side].receive(LinkId(1), data, now=now)
                elif isinstance(effect, HangUp):
                    return


def handwritten_peer() -> bytes:
    """Return a node that dispatches the same calls twice under one number, and cancels them while they run."""
    calls = (_call("a", 1, function="later"), _call("b", 2, function="echo"))
    dispatch = Request(9, calls, here=("a", "b"), partial=True, eager=True)
    said: list[Message] = [
        hello(cluster="c", member=b"p" * 16, name="peer"),
        dispatch,
        dispatch,
        CancelRequest(9),
        dispatch,
    ]
    return b"\0" + packed([*((TraceStep.SAY, frame(message)) for message in said), (TraceStep.WAIT, b"\5")])


def cancelled_early(answered: bytes) -> bytes:
    """Return the trace of a client that submits requests before a link is open, and cancels one."""
    return packed([(TraceStep.ACT, b"\0"), (TraceStep.ACT, b"\0"), (TraceStep.ACT, b"\4")]) + answered


def frame_bodies(trace: bytes) -> list[bytes]:
    """Return the native bodies in a trace, one of each kind and length."""
    from mpreg_proto.wire.framing import FrameError, FrameReader
    from mpreg_transports.testing.fuzz.traces import unpacked

    reader, found = FrameReader(1 << 20), dict[tuple[int, int], bytes]()
    for step, data in unpacked(trace):
        if step is TraceStep.SAY:
            try:
                for body in reader.feed(data):
                    found.setdefault((bytes(body)[1], len(body) // 32), bytes(body))
            except FrameError:
                break
    return list(found.values())


JSON = (
    '{"role":"rpc","cmds":[{"name":"first","fun":"echo","args":["hi"],"kwargs":{},"locs":[]}],"u":"id"}',
    '{"role":"rpc","cmds":[{"name":"a","fun":"echo","args":[1]},{"name":"b","fun":"echos","args":["a",{"x":["a"]}]}]}',
    '{"role":"rpc","refs":"explicit","cmds":[{"name":"a","fun":"echo","args":[{"k":[1,2]}]},'
    '{"name":"b","fun":"echo","args":[{"$ref":"a","path":["k",0]}]},{"name":"c","fun":"echo","args":[{"$data":{"$ref":1}}]}]}',
    '{"role":"rpc","cmds":[{"name":"a","fun":"boom"},{"name":"b","fun":"echo","args":["a"]}],"on_error":"partial","trace":true}',
    '{"role":"rpc","cmds":[{"name":"a","fun":"nowhere","locs":["gpu"]}],"wait":0.5,"timeout":2,"want":["a"],"u":"\\u00e9"}',
    '{"role":"rpc","cmds":[{"name":"a","fun":"echo","args":["b"]},{"name":"b","fun":"echo","args":["a"]}]}',
    '{"role":"rpc","cmds":[{"name":"a","fun":"echo"},{"name":"a","fun":"echo"}]}',
    '{"role":"status"}',
    "[1,-0.0,1e308,1E-7,true,false,null]",
    '{"a":1,"a":2}',
    '"\\ud800"',
    "NaN",
    "[" * 70 + "]" * 70,
    "12345678901234567890123",
)


def seeds() -> dict[str, list[bytes]]:
    """Return all inputs, by target."""
    said, answered = client_with_node()
    peers = [said] + [node_with_node(dials=dials, leaves=leaves) for dials in (False, True) for leaves in (True, False)]
    peers.append(handwritten_peer())
    natives = {
        body: None for trace in (said[1:], answered, *(peer[1:] for peer in peers)) for body in frame_bodies(trace)
    }
    texts = [text.encode() for text in JSON]
    values = [call.args for request in GRAPHS for call in request.calls]
    rich: tuple[object, ...] = ({1, 2}, 3j, frozenset("ab"), [(), {}], {"k": 2**80}, "é" * 40)
    values += [_CODEC.encode(value) for value in rich]
    foreign = [msgpack.packb(value) for value in ({"a": [1, b"x", None]}, msgpack.Timestamp(1, 5), [1.5, -(2**63)])]
    random = Rng(11)
    noise = [bytes(random.below(256) for _ in range(size)) for size in (8, 24, 64, 128, 200)]
    small: tuple[Message, ...] = (Ping(1), CancelRequest(1), Refused(Fault(1005, "no")), Result(1))
    streams = [b"".join(frame(message) for message in small), frame(hello(cluster="c", member=b"p" * 16, name="p"))]
    return {
        "frames": [bytes([limit, 3, 1, 2, 9]) + stream for limit in (3, 5, 7) for stream in (*streams, b"GET / HTTP")],
        "values": [bytes([way]) + one for one in (*values, *foreign) for way in (0, 1)]
        + [b"\2" + one for one in noise],
        "messages": [b"\0" + body for body in natives]
        + [b"\1" + bytes([0, 2, 3, 1]) + dialects.encode(m) for m in small],
        "json": texts,
        "links": noise,
        "members": noise,
        "catalogue": [bytes([2, way]) + one for one in noise[1:] for way in (0, 1)],
        "graph": [
            *noise,
            *(
                bytes([255, size, shape, closed])
                for size, closed in ((0, 0), (8, 1), (13, 0), (15, 1))
                for shape in range(3)
            ),
        ],
        "placement": noise,
        "peer": peers,
        "requests": [*texts[:8], b"\n".join(texts)],
        "client": [answered, cancelled_early(answered)],
    }
