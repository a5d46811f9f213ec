"""A client with a hostile server: nothing raises, each request is answered once, and at its deadline at the latest.

Input: a trace (traces.py) of a server's output; ACT steps are actions of the client meanwhile: submit, explain, get a
view, cancel, close. At the end the link closes and time passes, and nothing may be left.
"""

from __future__ import annotations

from mpreg_proto.client import ClientSession, ReplyReceived
from mpreg_proto.effects import HangUp, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import Call, Explain, GetView, Message, Request, Result
from mpreg_transports.testing.fuzz.traces import TraceStep, unpacked
from mpreg_transports.testing.fuzz.world import SECOND, Framing, Transcript

_LIMITS = Limits(message=65_536, node_message=65_536, default_timeout=5 * SECOND)
_MOST_STEPS = 100
_CALL = Request(0, (Call("a", "echo", b"\x92\x91\x01\x80"),))


class FuzzedClient:
    """A client, its link, and the answered requests."""

    def __init__(self) -> None:
        self.session: ClientSession = ClientSession(name="client", limits=_LIMITS)
        self.now: int = 0
        self.link: LinkId = LinkId(0)
        self.transcript: Transcript = Transcript()
        self.answered: dict[int, int] = {}
        self.asked: list[int] = []
        self.cancelled: dict[int, None] = {}

    def open(self) -> None:
        """Open a link."""
        self.link = LinkId(self.link + 1)
        self.transcript = Transcript()
        self.session.link_opened(self.link, framing=Framing.STREAM, address=Address("ws://server:1"), now=self.now)
        self.carry_out()

    def close(self) -> None:
        """Close the link."""
        self.session.link_closed(self.link, now=self.now)
        self.carry_out()

    def act(self, what: int) -> None:
        """Do an action of the client."""
        session = self.session
        match what % 6:
            case 0 | 1:
                self.asked.append(session.submit(_CALL, now=self.now))
            case 2:
                self.asked.append(session.explain(_CALL, now=self.now))
            case 3:
                self.asked.append(session.get_view(now=self.now))
            case 4 if self.asked:
                number = self.asked[what % len(self.asked)]
                if number not in self.answered:
                    self.cancelled[number] = None
                session.cancel(number, now=self.now)
            case _:
                session.close(now=self.now)
        self.carry_out()

    def wait(self, span: int) -> None:
        """Let time pass, and wake the client at each of its timers."""
        end = self.now + span
        while (due := self.session.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.session.wake(now=self.now)
            self.carry_out()
        self.now = end

    def carry_out(self) -> None:
        """Check the output and the replies of the client."""
        for effect in self.session.drain():
            match effect:
                case Send():
                    self.transcript.send(effect)
                    for message in self.transcript.messages:
                        self._is_wanted(message)
                    self.transcript.messages.clear()
                case HangUp():
                    self.transcript.hang_up(effect)
                case ReplyReceived(number, reply):
                    assert number in self.asked and number not in self.cancelled, f"an unexpected answer to {number}"
                    assert number not in self.answered, f"{number} is answered again"
                    if not isinstance(reply, Result) or reply.last:
                        self.answered[number] = self.now
                case _:
                    pass

    def _is_wanted(self, message: Message) -> None:
        """Check that the client sends no request that is answered or cancelled."""
        number = message.request.id if isinstance(message, Explain) else None
        if isinstance(message, (Request, GetView)):
            number = message.id
        assert number is None or (number not in self.answered and number not in self.cancelled), f"{number} is asked"


def harness(data: bytes) -> None:
    """Replay a server's output."""
    world = FuzzedClient()
    world.open()
    for number, (step, payload) in enumerate(unpacked(data)):
        if number == _MOST_STEPS:
            break
        match step:
            case TraceStep.SAY:
                world.session.receive(world.link, payload, now=world.now)
                world.carry_out()
            case TraceStep.WAIT:
                world.wait((payload[0] if payload else 0) * SECOND // 10)
            case TraceStep.CLOSE:
                world.close()
                world.open()
            case TraceStep.ACT:
                world.act(payload[0] if payload else 0)
    world.close()
    world.wait(6 * SECOND)
    assert len(world.session) == 0, "a request that is never answered"
    for number in world.asked:
        assert number in world.answered or number in world.cancelled, f"{number} has no answer"
    assert world.session.next_timeout() is None, "a timer is left"
