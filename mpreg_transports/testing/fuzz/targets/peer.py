"""A hostile peer: a mutated trace of a real conversation, sent to a node, which serves another client as before.

The node raises for no input; the link stays open, or it ends with Refused and HangUp, after which the node sends
nothing on it. An honest client on another link still gets its answers, and each request that the node itself submits
meanwhile (ACT) is answered once. Input: a trace (traces.py); its first byte modulo 2 decides whether the node dialled
the link.
"""

from __future__ import annotations

from mpreg_proto.effects import HangUp, Notify, Returned, Send
from mpreg_proto.ids import Address, RunId
from mpreg_proto.limits import Limits
from mpreg_proto.node import Node
from mpreg_proto.notices import LinkClosed, RequestFinished
from mpreg_proto.wire.messages import Call, Ping, Pong, Refused, Request, Result
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.testing.fuzz.traces import TraceStep, unpacked
from mpreg_transports.testing.fuzz.world import (
    ASKED,
    SECOND,
    Framing,
    LinkId,
    Transcript,
    drained,
    frame,
    hello,
    make_node,
)

_HOSTILE, _HONEST = 1, 1_000_000
_MOST_STEPS = 60
_LIMITS = Limits(message=65_536, node_message=65_536, members=8, dead_members=4, retired_members=8, functions=8)
_ARGS = ValueCodec().encode([["still here"], {}])
_ANSWER = ValueCodec().encode("still here")


class FuzzedNode:
    """One node, one honest client, and the current hostile link."""

    def __init__(self, *, dials: bool) -> None:
        self.node: Node = make_node(limits=_LIMITS, seeds=(Address("ws://peer:1"),) if dials else ())
        self.dials = dials
        self.now: int = 0
        self.link: LinkId = LinkId(_HOSTILE)
        self.transcripts: dict[LinkId, Transcript] = {}
        self.asked: int = 0
        self.submitted: dict[int, int] = {}
        """The node's own requests, and the number of answers of each."""
        self.held: list[RunId] = []
        """Bodies of `later`, which end when time passes."""
        self.reopen()
        self.open(LinkId(_HONEST), None)
        self.receive(LinkId(_HONEST), frame(hello(cluster="", member=b"", name="honest")))

    def open(self, link: LinkId, dialled: Address | None) -> None:
        """Open a link."""
        self.transcripts[link] = Transcript()
        self.node.link_opened(link, framing=Framing.STREAM, dialled=dialled, now=self.now)
        self.carry_out()

    def reopen(self) -> None:
        """Close the hostile link, if it is open, and open the next one."""
        if self.link in self.transcripts:
            del self.transcripts[self.link]
            self.node.link_closed(self.link, now=self.now)
            self.carry_out()
            self.link = LinkId(self.link + 1)
        self.open(self.link, Address("ws://peer:1") if self.dials else None)

    def receive(self, link: LinkId, data: bytes) -> None:
        """Feed received bytes to the node."""
        self.node.receive(link, data, now=self.now)
        self.carry_out()

    def wait(self, span: int) -> None:
        """Let time pass, and wake the node at each of its timers."""
        held, self.held[:] = list(self.held), []
        for run in held:
            self.node.finished(run, Returned(None), now=self.now)
            self.carry_out()
        end = self.now + span
        while (due := self.node.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.node.wake(now=self.now)
            self.carry_out()
            self.answer_pings()
        self.now = end

    def answer_pings(self) -> None:
        """Answer the pings of the node for the honest client."""
        honest = self.transcripts[LinkId(_HONEST)].messages
        pings = [message for message in honest if isinstance(message, Ping)]
        honest.clear()
        for ping in pings:
            self.receive(LinkId(_HONEST), frame(Pong(ping.number)))

    def carry_out(self) -> None:
        """Carry out the effects of the node; a HangUp that is no ordinary end must follow a Refused."""
        reasons: dict[LinkId, str] = {}
        for effect in drained(self.node, self.now, self.held):
            match effect:
                case Send(link):
                    self.transcripts[link].send(effect)
                case Notify(RequestFinished(request)):
                    self.submitted[request] = self.submitted.get(request, 0) + 1
                case Notify(LinkClosed(link, _, reason)):
                    reasons[link] = reason
                case HangUp(link, code):
                    self.transcripts[link].hang_up(effect)
                    _is_refused_first(self.transcripts[link], code, reasons.get(link, ""))
                case _:
                    pass

    def submit(self) -> None:
        """Submit a request of the node's own process for a function that only the peer may have."""
        self.submitted.setdefault(self.node.submit(ASKED, now=self.now), 0)
        self.carry_out()

    def serves(self) -> None:
        """Send an echo of the honest client, and check its answer."""
        link = LinkId(_HONEST)
        transcript = self.transcripts[link]
        assert transcript.hung_up is None, "an honest client was hung up"
        self.asked += 1
        transcript.messages.clear()
        self.receive(link, frame(Request(self.asked, (Call("a", "echo", _ARGS),))))
        answers = [message for message in transcript.messages if isinstance(message, Result)]
        assert [answer.id for answer in answers] == [self.asked], f"an honest client's request has {answers}"
        assert [row.value for row in answers[0].done] == [_ANSWER], f"an honest client gets {answers[0]}"


def harness(data: bytes) -> None:
    """Replay the trace, then check that the node still serves."""
    world = FuzzedNode(dials=bool(data[:1]) and data[0] % 2 == 1)
    for number, (step, payload) in enumerate(unpacked(data[1:])):
        if number == _MOST_STEPS:
            break
        if step is TraceStep.WAIT:
            world.wait(min(payload[0] if payload else 0, 80) * SECOND // 10)
        elif step is TraceStep.CLOSE:
            world.reopen()
        elif step is TraceStep.ACT:
            world.submit()
        else:
            world.receive(world.link, payload)
    world.serves()
    world.node.view(now=world.now)
    world.reopen()
    world.wait(2 * SECOND)
    world.wait(2 * SECOND)
    world.serves()
    assert not world.node.worker.running and not world.node.worker.queued, "something is left at the worker"
    assert set(world.submitted.values()) <= {1}, f"the node's own requests are answered {world.submitted} times"


def _is_refused_first(transcript: Transcript, code: int, reason: str) -> None:
    """Check the end of a link.

    1000 and 1001 are ordinary ends (goodbye, refused by the peer, link to itself, silence); others follow a Refused.
    """
    if code in (1000, 1001) or transcript.classic:
        return
    said = transcript.messages[-1] if transcript.messages else None
    assert isinstance(said, Refused), f"hung up with {code} ({reason}) after {said}"
