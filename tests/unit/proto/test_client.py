"""`ClientSession`, its node spoken by hand: what is sent when, and what comes of each question, once."""

import msgspec
import pytest

from mpreg_proto.client import ClientEffect, ClientSession, LinkDraining, Ready, Rejected, ReplyReceived
from mpreg_proto.effects import Framing, HangUp, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.sending import LINK_GONE
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CancelRequest,
    Done,
    Explain,
    Explanation,
    GetView,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
    View,
)
from tests.helpers.node_harness import call

NODE = hello(cluster="c", member=b"n" * 16, name="node")
CALL = (call("x", "f", 1),)


class Booth:
    """A session and the node's end of its one link. Links are numbered from 1."""

    def __init__(
        self, *, limits: Limits | None = None, opened: bool = True, framing: Framing = Framing.OBJECTS
    ) -> None:
        self.now = SECOND
        self.session = ClientSession(name="me", cluster_id="c", limits=limits or Limits())
        self.sent: list[Message] = []
        self.told: list[ClientEffect] = []
        self.link = LinkId(0)
        self._framing = framing
        if opened:
            self.open()

    def open(self) -> None:
        """A transport stands and the node's hello is in."""
        self.connect()
        self.say(NODE)

    def connect(self) -> None:
        """A transport stands."""
        link = LinkId(self.link + 1)
        self.session.link_opened(link, framing=self._framing, address=Address("mem://node"), now=self.now)
        self.link = link
        self.flush()

    def say(self, *messages: Message) -> None:
        """The node sends."""
        for message in messages:
            self.session.handle(self.link, message, now=self.now)
        self.flush()

    def drop(self) -> None:
        """The link is gone."""
        self.session.link_closed(self.link, now=self.now)
        self.flush()

    def ask(self, request: Request | None = None) -> int:
        """Submit a request."""
        number = self.session.submit(request or Request(0, CALL), now=self.now)
        self.flush()
        return number

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + round(seconds * SECOND)
        while (due := self.session.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.session.wake(now=self.now)
            self.flush()
        self.now = end

    def flush(self) -> None:
        for effect in self.session.drain():
            if isinstance(effect, Send):
                assert effect.link == self.link and effect.message is not None
                self.sent.append(effect.message)
            else:
                self.told.append(effect)

    def take(self) -> list[Message]:
        """What has been sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def replies(self) -> dict[int, object]:
        """What came of questions since the last time: what a result's error is, else the reply itself."""
        came = [effect for effect in self.told if isinstance(effect, ReplyReceived)]
        self.told = [effect for effect in self.told if not isinstance(effect, ReplyReceived)]
        assert len({effect.id for effect in came}) == len(came), "each once"
        return {effect.id: effect.reply for effect in came}

    def fault(self, number: int) -> Fault:
        """The error that the one question is over with."""
        replies = self.replies()
        reply = replies.pop(number)
        assert not replies and isinstance(reply, Result) and reply.fault is not None and reply.id == number
        return reply.fault


def requests(messages: list[Message]) -> list[int]:
    return [message.id for message in messages if isinstance(message, Request)]


# -- links ------------------------------------------------------------------------------------------------------------


def test_it_says_hello_first_and_is_ready_with_the_nodes() -> None:
    booth = Booth(opened=False)
    booth.connect()
    (mine,) = booth.take()
    assert isinstance(mine, Hello) and (mine.member, mine.cluster, mine.name) == (b"", "c", "me")
    assert not booth.session.ready
    booth.say(NODE)
    assert booth.session.ready and booth.told == [Ready("node", NODE.member, 1)]


def test_one_link_at_a_time() -> None:
    booth = Booth()
    before = (booth.session.next_timeout(), booth.session.ready)
    with pytest.raises(LocalProtocolError, match="stands already"):
        booth.session.link_opened(LinkId(9), framing=Framing.OBJECTS, address=Address("mem://b"), now=booth.now + 5)
    assert booth.session.drain() == [] and (booth.session.next_timeout(), booth.session.ready) == before
    booth.ask()
    assert requests(booth.take()) == [1]
    booth.drop()
    booth.open()


def test_what_is_asked_before_a_link_stands_leaves_with_it_in_order() -> None:
    booth = Booth(opened=False)
    numbers = [booth.ask() for _ in range(3)]
    booth.connect()
    numbers.append(booth.ask())
    assert requests(booth.take()) == [] and len(booth.session) == 4
    booth.say(NODE)
    assert requests(booth.take()) == numbers == [1, 2, 3, 4]


def test_what_waited_for_a_link_has_less_time_left() -> None:
    booth = Booth(opened=False)
    booth.ask(Request(0, CALL, timeout=10 * SECOND))
    booth.ask()
    booth.advance(4)
    booth.open()
    spans = [message.timeout for message in booth.take() if isinstance(message, Request)]
    assert spans == [6 * SECOND, 56 * SECOND]


def test_what_was_sent_on_a_lost_link_is_1023_and_what_was_not_waits() -> None:
    booth = Booth()
    sent = booth.ask()
    booth.drop()
    found = booth.fault(sent)
    assert (found.code, found.details["maybe_executed"], booth.session.ready) == (1023, True, False)
    waiting = booth.ask()
    booth.connect()
    booth.drop()
    assert booth.replies() == {} and len(booth.session) == 1
    booth.open()
    assert waiting in requests(booth.take())


@pytest.mark.parametrize("end", ["close", "violation", "silence", "refusal"])
def test_over_a_link_that_was_hung_up_nothing_is_sent_any_more(end: str) -> None:
    """Between the hang-up and the link's end there may be time; what is asked then never left, so it is not 1023."""
    booth = Booth()
    if end == "close":
        booth.session.close(now=booth.now)
    elif end == "violation":
        booth.say(NODE)
    elif end == "silence":
        booth.advance(20)
    else:
        booth.say(Refused(Fault(1040, "no")))
    booth.flush()
    assert any(isinstance(effect, HangUp) for effect in booth.told) and not booth.session.ready
    number = booth.ask()
    assert requests(booth.take()) == []
    booth.drop()
    assert booth.replies() == {}
    booth.open()
    assert requests(booth.take()) == [number]


def test_what_came_before_a_violation_in_the_same_piece_counts() -> None:
    session = ClientSession(name="me", cluster_id="c")
    link = LinkId(1)
    session.link_opened(link, framing=Framing.STREAM, address=Address("mem://node"), now=1)
    number = session.submit(Request(0, CALL), now=1)
    answer = Result(number, (Done("x", b"\x01"),))
    bodies = [dialects.encode(message) for message in (NODE, answer, NODE, answer)]
    session.receive(link, b"".join(prefix(len(body)) + body for body in bodies), now=2)
    effects = session.drain()
    sent = [type(dialects.decode(effect.chunks[1])) for effect in effects if isinstance(effect, Send)]
    assert sent == [Hello, Request, Refused], "the request left before the second hello ended the link"
    assert [effect for effect in effects if isinstance(effect, ReplyReceived)] == [ReplyReceived(number, answer)]
    assert isinstance(effects[-1], HangUp) and not session.ready and len(session) == 0


def test_what_waits_is_not_sent_over_a_link_that_was_refused() -> None:
    session = ClientSession(name="me", cluster_id="c")
    session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address("mem://node"), now=1)
    session.submit(Request(0, CALL), now=1)
    bodies = [dialects.encode(message) for message in (Refused(Fault(1040, "no")), NODE)]
    session.receive(LinkId(1), b"".join(prefix(len(body)) + body for body in bodies), now=2)
    assert not session.ready and not any(isinstance(effect, Ready) for effect in session.drain())
    session.link_closed(LinkId(1), now=3)
    received = [effect for effect in session.drain() if isinstance(effect, ReplyReceived)]
    assert len(session) == 1 and not received


def test_a_question_that_runs_nothing_says_so_when_its_answer_does_not_come() -> None:
    booth = Booth()
    explain = booth.session.explain(Request(0, CALL), now=booth.now)
    ask = booth.session.get_view(now=booth.now)
    run = booth.ask()
    booth.drop()
    faults = {number: reply.fault for number, reply in booth.replies().items() if isinstance(reply, Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {explain: 1023, ask: 1023, run: 1023}
    executed = {number: fault.details["maybe_executed"] for number, fault in faults.items() if fault}
    assert executed == {explain: False, ask: False, run: True}


def test_nor_may_it_have_run_anything_when_it_is_late() -> None:
    booth = Booth(limits=Limits(default_timeout=5 * SECOND))
    explain = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.advance(6)
    assert booth.fault(explain) == Fault(1020, "no answer came by the deadline", {"maybe_executed": False})


def test_a_deadline_without_a_node_names_the_addresses() -> None:
    booth = Booth(limits=Limits(default_timeout=5 * SECOND), opened=False)
    booth.session.unreachable("ws://h:1: connection refused")
    call = booth.session.submit(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.advance(6)
    text = "no node could be reached by the deadline (ws://h:1: connection refused)"
    assert booth.fault(call) == Fault(1020, text, {"maybe_executed": False})


def test_the_nodes_reason_is_told() -> None:
    booth = Booth(opened=False)
    booth.connect()
    fault = Fault(1005, "another cluster")
    booth.say(Refused(fault))
    assert Rejected(fault) in booth.told


def test_it_keeps_the_link_alive_and_notices_that_it_is_dead() -> None:
    booth = Booth()
    booth.advance(10)
    assert [type(message) for message in booth.take()] == [Hello, Ping]
    booth.say(Pong(1), Ping(5))
    assert booth.take() == [Pong(5)]
    booth.advance(20)
    assert HangUp(booth.link, 1001) in booth.told


def test_a_goodbye_is_returned_and_answers_still_come() -> None:
    booth = Booth()
    number = booth.ask()
    booth.say(Goodbye("enough"))
    assert booth.take()[-1] == Goodbye("") and LinkDraining(booth.link) in booth.told and not booth.session.ready
    booth.say(Result(number, (Done("x", b"\x01"),)))
    assert booth.replies() == {number: Result(number, (Done("x", b"\x01"),))}
    assert booth.told[-1] == HangUp(booth.link, 1000)  # all is answered


# -- nodes that drain -------------------------------------------------------------------------------------------------

DRAINING = Fault(1024, "leaving", {"maybe_executed": False})


def two_nodes(*, others: int = 1) -> tuple[Booth, int]:
    """A session that knows `others` more addresses, and the number of a request that the first node has."""
    booth = Booth(opened=False)
    booth.session = ClientSession(name="me", cluster_id="c", alternatives=others)
    booth.open()
    return booth, booth.ask()


def test_a_request_refused_by_a_draining_node_goes_to_the_next_once() -> None:
    booth, number = two_nodes()
    booth.say(Result(number, fault=DRAINING))
    assert LinkDraining(booth.link) in booth.told and HangUp(booth.link, 1000) in booth.told
    assert booth.replies() == {} and not booth.session.ready
    booth.take()
    booth.now += 3 * SECOND
    later = booth.ask()
    booth.open()
    sent = [message for message in booth.take() if isinstance(message, Request)]
    assert [message.id for message in sent] == [number, later]
    assert sent[0].timeout == Limits().default_timeout - 3 * SECOND
    booth.say(Result(number, fault=DRAINING))  # the last of the two drains too
    assert booth.fault(number) == DRAINING


def test_the_link_to_a_draining_node_stays_until_it_has_answered() -> None:
    booth, number = two_nodes()
    refused = booth.ask()
    old = booth.link
    booth.say(Result(refused, fault=DRAINING))
    assert HangUp(old, 1000) not in booth.told
    booth.sent.clear()
    booth.open()
    assert requests(booth.take()) == [refused]
    session = booth.session
    session.handle(booth.link, Result(number, (Done("x", b"\x02"),)), now=booth.now)  # not asked there
    booth.flush()
    assert booth.replies() == {}
    session.handle(old, Result(number, (Done("x", b"\x01"),)), now=booth.now)
    booth.flush()
    assert booth.replies() == {number: Result(number, (Done("x", b"\x01"),))}
    assert HangUp(old, 1000) in booth.told
    session.link_closed(old, now=booth.now)
    booth.say(Result(refused, (Done("x", b"\x01"),)))
    assert set(booth.replies()) == {refused} and session.ready


def test_a_draining_link_that_breaks_ends_what_was_on_it_alone() -> None:
    booth, number = two_nodes()
    refused, old = booth.ask(), booth.link
    booth.say(Result(refused, fault=DRAINING))
    booth.sent.clear()
    booth.open()
    booth.session.link_closed(old, now=booth.now)
    booth.flush()
    assert booth.fault(number).code == 1023
    assert booth.session.ready and len(booth.session) == 1


def test_a_cancel_goes_to_the_node_that_has_the_request() -> None:
    booth, number = two_nodes()
    refused = booth.ask()
    booth.say(Result(refused, fault=DRAINING))
    booth.take()
    booth.session.cancel(number, now=booth.now)
    booth.flush()
    assert booth.take() == [CancelRequest(number)] and HangUp(booth.link, 1000) in booth.told


@pytest.mark.parametrize("others", [0, 1])
def test_a_node_that_left_took_nothing_that_it_has_not_answered(others: int) -> None:
    booth, number = two_nodes(others=others)
    booth.say(Goodbye("leaving"))
    booth.drop()
    if others:
        booth.take()
        booth.open()
        assert booth.replies() == {} and requests(booth.take()) == [number]
    else:
        fault = booth.fault(number)
        assert (fault.code, fault.details) == (1024, {"maybe_executed": False})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(1024, "grace is over", {"maybe_executed": True}),
        Fault(1024, "no node takes this call", {"maybe_executed": False, "call": "x"}),
        Fault(1022, "busy", {"maybe_executed": False}),
    ],
)
def test_other_refusals_are_the_callers_to_repeat(fault: Fault) -> None:
    booth, number = two_nodes()
    booth.say(Result(number, fault=fault))
    assert booth.fault(number) == fault and booth.session.ready


def test_a_stream_that_has_begun_is_not_begun_again() -> None:
    booth, number = two_nodes()
    booth.say(Result(number, (Done("x", b"\x01"),), last=False))
    assert set(booth.replies()) == {number}
    booth.say(Result(number, fault=DRAINING))
    assert booth.fault(number) == DRAINING


# -- requests that cannot be encoded ----------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    "request_",
    [
        Request(0, (call("x", "\ud800", 1),)),
        Request(0, (call("\ud800", "f", 1),)),
        Request(0, (msgspec.structs.replace(call("x", "f", 1), resources=("\ud800",)),)),
        Request(0, (msgspec.structs.replace(call("x", "f", 1), version="\ud800"),)),
        Request(0, CALL, want=("\ud800",)),
        Request(0, CALL, timeout=2**70),
        Request(0, CALL, wait=2**70),
    ],
)
def test_a_request_that_cannot_be_encoded_is_an_error_of_its_own(request_: Request, linked: bool) -> None:
    session = ClientSession(cluster_id="c")

    def connect() -> None:
        session.link_opened(LinkId(1), framing=Framing.NATIVE_MESSAGES, address=Address("mem://n"), now=0)
        session.receive(LinkId(1), dialects.encode(NODE), now=0)

    if linked:
        connect()
    number, good = session.submit(request_, now=0), session.submit(Request(0, CALL), now=0)
    if not linked:
        connect()
    replies = [effect for effect in session.drain() if isinstance(effect, ReplyReceived)]
    assert [reply.id for reply in replies] == [number] and isinstance(replies[0].reply, Result)
    fault = replies[0].reply.fault
    assert fault is not None and fault.code == 1010 and fault.details == {"maybe_executed": False}
    assert "cannot be encoded" in fault.message and session.ready and len(session) == 1 and good != number


# -- answers ----------------------------------------------------------------------------------------------------------


def test_each_question_gets_its_own_kind_of_answer_once() -> None:
    booth = Booth()
    run = booth.ask()
    where, view = booth.session.explain(Request(0, CALL), now=booth.now), booth.session.get_view(now=booth.now)
    booth.flush()
    sent = booth.take()[1:]
    assert isinstance(sent[0], Request) and sent[0].id == run
    assert isinstance(sent[1], Explain) and sent[1].request.id == where
    assert sent[2] == GetView(view) and len({run, where, view}) == 3
    answers: list[Message] = [View(view, b"{}"), Explanation(where), Result(run)]
    booth.say(*answers, *answers)
    assert booth.replies() == {view: answers[0], where: answers[1], run: answers[2]}
    assert len(booth.session) == 0 and booth.session.next_timeout() == booth.now + 10 * SECOND


def test_partial_answers_come_through_before_the_last() -> None:
    booth = Booth()
    number = booth.ask(Request(0, CALL, eager=True))
    first, last = Result(number, (Done("x", b"\x01"),), last=False), Result(number)
    booth.say(first)
    assert booth.replies() == {number: first} and len(booth.session) == 1
    booth.say(last, first)
    assert booth.replies() == {number: last}


def test_an_answer_to_nothing_is_dropped() -> None:
    booth = Booth()
    booth.say(Result(77), Result(78, last=False), View(79, b""), Explanation(80))
    assert booth.replies() == {}


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_two_hundred_milliseconds_after_the_deadline_it_gives_up_by_itself() -> None:
    booth = Booth()
    number = booth.ask(Request(0, CALL, timeout=3 * SECOND))
    booth.take()
    booth.advance(3.199)
    assert booth.replies() == {}
    booth.advance(0.001)
    found = booth.fault(number)
    assert (found.code, found.details["maybe_executed"]) == (1020, True)
    assert booth.take() == [CancelRequest(number)]
    booth.say(Result(number, (Done("x", b"\x01"),)))
    assert booth.replies() == {}


def test_a_request_without_a_timeout_has_the_default_one() -> None:
    booth = Booth(limits=Limits(default_timeout=SECOND))
    number = booth.ask()
    booth.advance(1.2)
    assert booth.fault(number).code == 1020


def test_what_never_left_by_its_deadline_has_not_run() -> None:
    booth = Booth(opened=False)
    number = booth.ask(Request(0, CALL, timeout=SECOND))
    booth.advance(1.2)
    found = booth.fault(number)
    assert (found.code, found.details["maybe_executed"]) == (1020, False) and "no node" in found.message
    booth.open()
    assert requests(booth.take()) == []


def test_questions_have_a_deadline_too() -> None:
    booth = Booth(limits=Limits(default_timeout=SECOND))
    numbers = {booth.session.explain(Request(0, CALL), now=booth.now), booth.session.get_view(now=booth.now)}
    booth.advance(1.2)
    assert set(booth.replies()) == numbers


# -- cancelling, giving up --------------------------------------------------------------------------------------------


def test_cancelled_it_tells_the_node_and_hears_nothing() -> None:
    booth = Booth()
    number = booth.ask()
    for _ in range(2):
        booth.session.cancel(number, now=booth.now)
    booth.flush()
    assert booth.take()[-1] == CancelRequest(number) and booth.take() == []
    booth.say(Result(number))
    assert booth.replies() == {} and len(booth.session) == 0


def test_cancelled_before_it_left_it_never_leaves() -> None:
    booth = Booth(opened=False)
    booth.session.cancel(booth.ask(), now=booth.now)
    booth.open()
    assert [type(message) for message in booth.take()] == [Hello]


def test_give_up_answers_all_that_is_pending() -> None:
    booth = Booth(opened=False)
    numbers = {booth.ask(), booth.ask()}
    booth.session.fail_all(Fault(1024, "no link will stand"))
    booth.flush()
    assert set(booth.replies()) == numbers and booth.session.next_timeout() is None


def test_a_request_that_is_too_long_is_answered_here() -> None:
    session = ClientSession(limits=Limits(message=500))
    session.link_opened(LinkId(1), framing=Framing.NATIVE_MESSAGES, address=Address("mem://n"), now=0)
    session.receive(LinkId(1), dialects.encode(NODE), now=0)
    session.drain()
    number = session.submit(Request(0, (call("x", "f", "y" * 500),)), now=0)
    (replied,) = session.drain()
    assert isinstance(replied, ReplyReceived) and replied.id == number and isinstance(replied.reply, Result)
    fault = replied.reply.fault
    assert fault is not None and fault.code == 1014 and fault.details["maybe_executed"] is False
    assert fault.details["value"] == 500 < fault.details["came"]
    assert len(session) == 0


def test_the_clock_of_an_idle_session_stops_with_its_link() -> None:
    booth = Booth()
    booth.say(Result(booth.ask()))
    booth.drop()
    assert booth.session.next_timeout() is None


# -- answers and what they answer -------------------------------------------------------------------------------------


def test_a_question_is_answered_by_its_own_kind_of_answer() -> None:
    booth = Booth()
    run, ask = booth.ask(), booth.session.get_view(now=booth.now)
    where = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.say(View(run, b"{}"), Explanation(run), View(where, b"{}"), Explanation(ask), Result(ask), Result(where))
    booth.say(Result(where, (Done("x", b"\x01"),), last=False), Result(99))
    assert booth.replies() == {} and len(booth.session) == 3
    booth.say(Result(run), View(ask, b"{}"), Explanation(where))
    assert booth.replies() == {run: Result(run), ask: View(ask, b"{}"), where: Explanation(where)}


def test_an_error_answers_any_question() -> None:
    booth = Booth()
    number = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.say(Result(number, fault=Fault(1010, "bad")))
    assert booth.fault(number).code == 1010


def test_what_was_never_sent_is_answered_by_nothing_that_comes() -> None:
    booth = Booth(opened=False)
    booth.connect()
    number = booth.ask()
    booth.say(NODE)
    assert number in requests(booth.take())
    booth.session.links.hang_up(booth.link)
    booth.flush()
    waiting = booth.ask()
    booth.say(Result(waiting))
    assert booth.replies() == {} and len(booth.session) == 2


def test_a_link_that_is_gone_when_a_question_is_sent_keeps_it_for_the_next() -> None:
    booth = Booth()
    send = booth.session.links.send
    booth.session.links.send = lambda link, message: LINK_GONE  # type: ignore[method-assign]
    number = booth.ask()
    booth.session.links.send = send  # type: ignore[method-assign]
    booth.drop()
    assert booth.replies() == {}, "it never left, so it is not lost"
    booth.connect()
    booth.say(NODE)
    assert requests(booth.take()) == [number]
    booth.say(Result(number))
    assert booth.replies() == {number: Result(number)}


def test_a_view_in_parts_is_one_view() -> None:
    booth = Booth()
    number = booth.session.get_view(now=booth.now)
    booth.flush()
    booth.say(View(number, b'{"a"', last=False), View(number, b":", last=False))
    assert booth.replies() == {}
    booth.say(View(number, b"1}"))
    assert booth.replies() == {number: View(number, b'{"a":1}')}


def test_an_answer_over_another_link_is_none() -> None:
    booth = Booth()
    number = booth.ask()
    other = LinkId(77)
    booth.session.links.opened(other, framing=Framing.OBJECTS, dialled=Address("mem://b"), now=booth.now)
    booth.session.drain()
    booth.session.handle(other, NODE, now=booth.now)
    booth.session.handle(other, Result(number), now=booth.now)
    booth.session.drain()
    assert len(booth.session) == 1 and booth.replies() == {}
