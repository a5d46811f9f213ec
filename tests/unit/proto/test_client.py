"""`ClientSession` with a stub node: the messages that it sends, and one reply for each request."""

import msgspec
import pytest

from mpreg_proto.client import (
    ClientEffect,
    ClientSession,
    ItemsReceived,
    LinkDraining,
    ProgressReceived,
    Ready,
    Rejected,
    ReplyReceived,
)
from mpreg_proto.effects import Framing, HangUp, Pause, Resume, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.sending import LINK_GONE
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CallProgress,
    CancelRequest,
    Done,
    Drain,
    DrainReply,
    Explain,
    Explanation,
    GetView,
    Goodbye,
    Hello,
    Items,
    ItemsTaken,
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
    """A client session and a stub node on its one link. Links are numbered from 1."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        opened: bool = True,
        framing: Framing = Framing.OBJECTS,
        alternatives: int = 0,
    ) -> None:
        self.now = SECOND
        self.session = ClientSession(name="me", cluster_id="c", limits=limits or Limits(), alternatives=alternatives)
        self.sent: list[Message] = []
        self.effects: list[ClientEffect] = []
        self.link = LinkId(0)
        self._framing = framing
        if opened:
            self.open()

    def open(self) -> None:
        """Open a link, and receive the hello of the node."""
        self.connect()
        self.deliver(NODE)

    def connect(self) -> None:
        """Open a link."""
        link = LinkId(self.link + 1)
        self.session.link_opened(link, framing=self._framing, address=Address("mem://node"), now=self.now)
        self.link = link
        self.flush()

    def deliver(self, *messages: Message) -> None:
        """Receive messages from the node."""
        for message in messages:
            self.session.handle(self.link, message, now=self.now)
        self.flush()

    def drop(self) -> None:
        """End the link."""
        self.session.link_closed(self.link, now=self.now)
        self.flush()

    def submit(self, request: Request | None = None) -> int:
        """Submit a request."""
        number = self.session.submit(request or Request(0, CALL), now=self.now)
        self.flush()
        return number

    def advance(self, seconds: float) -> None:
        """Advance the time."""
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
                self.effects.append(effect)

    def take(self) -> list[Message]:
        """Return the messages sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def replies(self) -> dict[int, object]:
        """Return the replies since the last call, by request number."""
        came = [effect for effect in self.effects if isinstance(effect, ReplyReceived)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, ReplyReceived)]
        assert len({effect.id for effect in came}) == len(came), "each once"
        return {effect.id: effect.reply for effect in came}

    def fault(self, number: int) -> Fault:
        """Return the error that ended the only request."""
        replies = self.replies()
        reply = replies.pop(number)
        assert not replies and isinstance(reply, Result) and reply.fault is not None and reply.id == number
        return reply.fault


def requests(messages: list[Message]) -> list[int]:
    return [message.id for message in messages if isinstance(message, Request)]


# -- links ------------------------------------------------------------------------------------------------------------


def test_hello_first_and_ready_with_the_hello_of_the_node() -> None:
    booth = Booth(opened=False)
    booth.connect()
    (own_hello,) = booth.take()
    assert isinstance(own_hello, Hello) and (own_hello.member, own_hello.cluster, own_hello.name) == (b"", "c", "me")
    assert not booth.session.ready
    booth.deliver(NODE)
    assert booth.session.ready and booth.effects == [Ready("node", NODE.member, 1)]


def test_one_link_at_a_time() -> None:
    booth = Booth()
    before = (booth.session.next_timeout(), booth.session.ready)
    with pytest.raises(LocalProtocolError, match="is open already"):
        booth.session.link_opened(LinkId(9), framing=Framing.OBJECTS, address=Address("mem://b"), now=booth.now + 5)
    assert booth.session.drain() == [] and (booth.session.next_timeout(), booth.session.ready) == before
    booth.submit()
    assert requests(booth.take()) == [1]
    booth.drop()
    booth.open()


def test_requests_before_the_link_are_sent_in_order() -> None:
    booth = Booth(opened=False)
    numbers = [booth.submit() for _ in range(3)]
    booth.connect()
    numbers.append(booth.submit())
    assert requests(booth.take()) == [] and len(booth.session) == 4
    booth.deliver(NODE)
    assert requests(booth.take()) == numbers == [1, 2, 3, 4]


@pytest.mark.parametrize("timeout", [0, -1])
def test_invalid_timeout_after_waiting_for_a_link(timeout: int) -> None:
    booth = Booth(opened=False)
    booth.submit(Request(0, CALL, timeout=timeout))
    booth.open()
    assert [message.timeout for message in booth.take() if isinstance(message, Request)] == [timeout]


def test_remaining_timeout_after_waiting_for_a_link() -> None:
    booth = Booth(opened=False)
    booth.submit(Request(0, CALL, timeout=10 * SECOND))
    booth.submit()
    booth.advance(4)
    booth.open()
    spans = [message.timeout for message in booth.take() if isinstance(message, Request)]
    assert spans == [6 * SECOND, 56 * SECOND]


def test_lost_link_ends_sent_requests_in_1023_after_a_second_without_another() -> None:
    booth = Booth()
    sent = booth.submit()
    booth.drop()
    booth.advance(0.999)
    assert booth.replies() == {} and not booth.session.ready
    booth.advance(0.001)
    found = booth.fault(sent)
    assert (found.code, found.details["maybe_executed"]) == (1023, True) and "link" in found.message
    waiting = booth.submit()
    booth.connect()
    booth.drop()
    assert booth.replies() == {} and len(booth.session) == 1
    booth.open()
    assert waiting in requests(booth.take())


def again(messages: list[Message]) -> list[tuple[int, bool, int | None]]:
    return [(one.id, one.again, one.timeout) for one in messages if isinstance(one, Request)]


def test_lost_link_repeats_requests_over_the_next_link_with_the_time_left() -> None:
    booth = Booth()
    first, second = booth.submit(Request(0, CALL, timeout=10 * SECOND)), booth.submit()
    assert again(booth.take()) == [(first, False, 10 * SECOND), (second, False, None)]
    booth.advance(2)
    booth.deliver(Result(second, (Done("x", b"\x01"),)))
    booth.drop()
    booth.advance(0.5)
    booth.replies()
    booth.open()
    assert again(booth.take()) == [(first, True, 7_500_000_000)]
    booth.advance(1)
    booth.deliver(Result(first, (Done("x", b"\x01"),)))
    assert list(booth.replies()) == [first] and len(booth.session) == 0


def test_answer_of_the_node_that_refuses_a_repeat() -> None:
    booth = Booth()
    number = booth.submit()
    booth.drop()
    booth.open()
    fault = Fault(1023, "f is not idempotent", {"maybe_executed": True})
    booth.deliver(Result(number, fault=fault))
    assert booth.fault(number) == fault


def test_no_repeat_to_a_node_without_the_feature() -> None:
    booth = Booth()
    number, view = booth.submit(), booth.session.get_view(now=booth.now)
    booth.drop()
    booth.connect()
    booth.take()
    booth.deliver(msgspec.structs.replace(NODE, features=()))
    assert booth.take() == [GetView(view)], "a query starts nothing"
    assert booth.fault(number).code == 1023 and len(booth.session) == 1


def test_no_repeat_after_a_part_of_the_results() -> None:
    booth = Booth()
    number = booth.submit(Request(0, CALL, eager=True))
    booth.deliver(Result(number, (Done("x", b"\x01"),), last=False))
    booth.replies()
    booth.drop()
    assert booth.fault(number).code == 1023


def test_no_repeat_after_too_many_losses() -> None:
    booth = Booth(limits=Limits(failovers=2))
    number = booth.submit()
    for _ in range(2):
        booth.drop()
        booth.open()
        assert booth.replies() == {}
    booth.drop()
    assert booth.fault(number).code == 1023
    booth.open()
    booth.take()


def test_no_repeat_after_close() -> None:
    booth = Booth()
    number = booth.submit()
    booth.session.close(now=booth.now)
    booth.flush()
    assert booth.fault(number).code == 1023


def test_cancelled_repeat_is_never_sent() -> None:
    booth = Booth()
    number = booth.submit()
    booth.drop()
    booth.session.cancel(number, now=booth.now)
    booth.take()
    booth.open()
    assert requests(booth.take()) == [] and booth.session.next_timeout() is not None
    booth.advance(0.5)
    assert booth.replies() == {}


def test_view_that_begins_again_after_a_lost_link() -> None:
    booth = Booth()
    view = booth.session.get_view(now=booth.now)
    booth.deliver(View(view, b"{half", last=False))
    booth.drop()
    booth.open()
    booth.deliver(View(view, b"{}"))
    assert booth.replies() == {view: View(view, b"{}")}


@pytest.mark.parametrize("code", [1010, 1014])
def test_repeat_that_another_node_cannot_read_may_have_started(code: int) -> None:
    booth = Booth()
    number = booth.submit()
    booth.drop()
    booth.open()
    booth.deliver(Result(number, fault=Fault(code, "no", {"maybe_executed": False})))
    assert booth.fault(number).details["maybe_executed"]


@pytest.mark.parametrize("code", [1001, 1022, 1024])
@pytest.mark.parametrize("maybe", [True, False])
def test_refused_repeat_leaves_the_outcome_unknown_unless_the_node_knows_better(code: int, maybe: bool) -> None:
    booth = Booth()
    number = booth.submit()
    booth.drop()
    booth.open()
    booth.deliver(Result(number, fault=Fault(code, "because", {"maybe_executed": maybe})))
    found = booth.fault(number)
    assert (found.code, found.details) == (1023 if maybe else code, {"maybe_executed": maybe})
    assert found.message.endswith("because")


def test_repeat_over_the_message_limit_may_have_started() -> None:
    booth = Booth(limits=Limits(message=500), framing=Framing.STREAM, opened=False)
    session = booth.session
    for link in (1, 2):
        session.link_opened(LinkId(link), framing=Framing.STREAM, address=Address("mem://node"), now=1)
        body = dialects.encode(NODE)
        session.receive(LinkId(link), prefix(len(body)) + body, now=1)
        if link == 1:
            long = Request(0, CALL, wait=1, caller="x" * 500)
            number = session.submit(long, now=1)
            while len(session) == 0:  # it did not fit
                long = msgspec.structs.replace(long, caller=long.caller[:-1])
                number = session.submit(long, now=1)
            session.drain()
            session.link_closed(LinkId(1), now=1)
    replies = [effect.reply for effect in session.drain() if isinstance(effect, ReplyReceived) and effect.id == number]
    assert [type(reply) for reply in replies] == [Result]
    assert isinstance(replies[0], Result) and replies[0].fault is not None
    assert (replies[0].fault.code, replies[0].fault.details["maybe_executed"]) == (1014, True)


def test_deadline_of_a_lost_request_may_have_started() -> None:
    booth = Booth(limits=Limits(lost_link=5 * SECOND))
    number = booth.submit(Request(0, CALL, timeout=SECOND))
    booth.drop()
    booth.advance(1.2)
    assert booth.fault(number) == Fault(1020, "no answer came by the deadline", {"maybe_executed": True})


def test_fail_all_keeps_the_outcome_of_a_lost_request_unknown() -> None:
    booth = Booth()
    number = booth.submit()
    booth.drop()
    booth.session.fail_all(Fault(1021, "closed", {"maybe_executed": False}))
    booth.flush()
    assert booth.fault(number).code == 1023


def test_repeat_refused_by_a_draining_node_goes_on() -> None:
    booth = Booth(alternatives=1)
    number = booth.submit()
    booth.drop()
    booth.open()
    booth.take()
    booth.deliver(Result(number, fault=Fault(1024, "draining", {"maybe_executed": True})))
    booth.open()
    assert again(booth.take()) == [(number, True, 60 * SECOND)]


# -- repeats after a refusal ------------------------------------------------------------------------------------------

BUSY = Fault(1022, "busy", {"maybe_executed": False, "retry_after": 0.5})


def retrying(booth: Booth, request: Request | None = None) -> int:
    """Submit a request that is repeated after a refusal."""
    number = booth.session.submit(request or Request(0, CALL), now=booth.now, retry=True)
    booth.flush()
    return number


def test_refused_request_is_repeated_after_the_pause_that_the_node_asks_for() -> None:
    booth = Booth()
    number = retrying(booth)
    booth.take()
    booth.deliver(Result(number, fault=BUSY))
    booth.advance(0.549)
    assert booth.take() == [] and booth.replies() == {}
    booth.advance(0.001)
    assert again(booth.take()) == [(number, False, 59_450_000_000)]
    booth.deliver(Result(number, fault=Fault(1024, "draining", {"maybe_executed": False})))
    booth.advance(0.1)  # without entropy the whole pause, which has doubled
    assert requests(booth.take()) == [number]
    booth.deliver(Result(number, (Done("x", b"\x01"),)))
    assert list(booth.replies()) == [number] and len(booth.session) == 0


@pytest.mark.parametrize(
    "result",
    [
        Result(1, fault=Fault(1022, "busy", {"maybe_executed": True})),
        Result(1, fault=Fault(1022, "busy")),
        Result(1, fault=Fault(1001, "no such function", {"maybe_executed": False})),
        Result(1, fault=Fault(1023, "lost", {"maybe_executed": False})),
        Result(1, (Done("y", b"\x01"),), fault=BUSY),
    ],
)
def test_results_that_are_not_repeated(result: Result) -> None:
    booth = Booth()
    assert retrying(booth) == 1
    booth.deliver(result)
    assert booth.replies() == {1: result}


def test_no_repeat_without_retry_or_after_a_part_of_the_results() -> None:
    booth = Booth()
    number = booth.submit()
    booth.deliver(Result(number, fault=BUSY))
    assert booth.fault(number) == BUSY
    number = retrying(booth, Request(0, CALL, eager=True))
    booth.deliver(Result(number, (Done("x", b"\x01"),), last=False))
    booth.replies()
    booth.deliver(Result(number, fault=BUSY))
    assert booth.fault(number) == BUSY


def test_no_repeat_beyond_the_deadline() -> None:
    booth = Booth()
    number = retrying(booth, Request(0, CALL, timeout=SECOND))
    booth.deliver(Result(number, fault=BUSY))
    booth.advance(0.55)
    booth.deliver(Result(number, fault=BUSY))
    assert booth.fault(number) == BUSY.with_details(repeats=1)


def test_repeats_are_at_most_a_tenth_of_the_calls_after_the_reserve() -> None:
    booth = Booth()
    for _ in range(200):
        booth.deliver(Result(retrying(booth, Request(0, CALL, timeout=2 * SECOND)), fault=BUSY))
    waiting = len(booth.session)
    assert waiting == 10 + 200 // 10 and len(booth.replies()) == 200 - waiting


def test_cancelled_during_the_pause() -> None:
    booth = Booth()
    number = retrying(booth)
    booth.deliver(Result(number, fault=BUSY))
    booth.take()
    booth.session.cancel(number, now=booth.now)
    booth.advance(5)
    assert requests(booth.take()) == [] and booth.replies() == {} and len(booth.session) == 0


def test_repeat_waits_for_the_next_link() -> None:
    booth = Booth()
    number = retrying(booth, Request(0, CALL, timeout=3 * SECOND))
    booth.deliver(Goodbye("leaving"))
    assert booth.replies() == {} and len(booth.session) == 1, "the only node left before it took the request"
    booth.drop()
    booth.take()
    booth.advance(1)
    booth.open()
    assert requests(booth.take()) == [number]
    booth.drop()
    booth.advance(2.2)
    assert booth.fault(number).code == 1023


def test_repeat_without_a_node_until_the_deadline() -> None:
    booth = Booth()
    number = retrying(booth, Request(0, CALL, timeout=3 * SECOND))
    booth.deliver(Result(number, fault=BUSY))
    booth.drop()
    booth.advance(3.2)
    text = "no node took the request by the deadline"
    assert booth.fault(number) == Fault(1020, text, {"maybe_executed": False})


def test_entropy_spreads_the_repeats() -> None:
    booth = Booth()
    booth.session = ClientSession(cluster_id="c", entropy=lambda size: b"\x80" + bytes(size - 1))
    booth.link = LinkId(0)
    booth.open()
    number = retrying(booth)
    booth.take()
    booth.deliver(Result(number, fault=BUSY))
    booth.advance(0.524)
    assert requests(booth.take()) == []
    booth.advance(0.001)
    assert requests(booth.take()) == [number]


@pytest.mark.parametrize("end", ["close", "violation", "silence", "refusal"])
def test_no_request_over_a_link_that_was_hung_up(end: str) -> None:
    """Time may pass between hang-up and link end; a request of that time is never sent, so it is not 1023."""
    booth = Booth()
    if end == "close":
        booth.session.close(now=booth.now)
    elif end == "violation":
        booth.deliver(NODE)
    elif end == "silence":
        booth.advance(20)
    else:
        booth.deliver(Refused(Fault(1040, "no")))
    booth.flush()
    assert any(isinstance(effect, HangUp) for effect in booth.effects) and not booth.session.ready
    number = booth.submit()
    assert requests(booth.take()) == []
    booth.drop()
    assert booth.replies() == {}
    booth.open()
    assert requests(booth.take()) == [number]


def test_reply_before_a_violation_in_the_same_bytes() -> None:
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


def test_no_request_over_a_refused_link() -> None:
    session = ClientSession(name="me", cluster_id="c")
    session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address("mem://node"), now=1)
    session.submit(Request(0, CALL), now=1)
    bodies = [dialects.encode(message) for message in (Refused(Fault(1040, "no")), NODE)]
    session.receive(LinkId(1), b"".join(prefix(len(body)) + body for body in bodies), now=2)
    assert not session.ready and not any(isinstance(effect, Ready) for effect in session.drain())
    session.link_closed(LinkId(1), now=3)
    received = [effect for effect in session.drain() if isinstance(effect, ReplyReceived)]
    assert len(session) == 1 and not received


def test_maybe_executed_by_request_type_after_a_lost_link() -> None:
    booth = Booth()
    explain = booth.session.explain(Request(0, CALL), now=booth.now)
    view = booth.session.get_view(now=booth.now)
    run = booth.submit()
    booth.drop()
    booth.advance(1)
    faults = {number: reply.fault for number, reply in booth.replies().items() if isinstance(reply, Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {explain: 1023, view: 1023, run: 1023}
    executed = {number: fault.details["maybe_executed"] for number, fault in faults.items() if fault}
    assert executed == {explain: False, view: False, run: True}


def test_maybe_executed_false_for_a_late_explain() -> None:
    booth = Booth(limits=Limits(default_timeout=5 * SECOND))
    explain = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.advance(6)
    assert booth.fault(explain) == Fault(1020, "no answer came by the deadline", {"maybe_executed": False})


def test_addresses_in_the_error_of_a_deadline_without_a_node() -> None:
    booth = Booth(limits=Limits(default_timeout=5 * SECOND), opened=False)
    booth.session.unreachable("ws://h:1: connection refused")
    call = booth.session.submit(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.advance(6)
    text = "the request was never sent: no node could be reached by the deadline (ws://h:1: connection refused)"
    assert booth.fault(call) == Fault(1020, text, {"maybe_executed": False})


def test_reason_of_a_refused_link() -> None:
    booth = Booth(opened=False)
    booth.connect()
    fault = Fault(1005, "another cluster")
    booth.deliver(Refused(fault))
    assert Rejected(fault) in booth.effects


def test_keepalive_and_silent_link() -> None:
    booth = Booth()
    booth.advance(10)
    assert [type(message) for message in booth.take()] == [Hello, Ping]
    booth.deliver(Pong(1), Ping(5))
    assert booth.take() == [Pong(5)]
    booth.advance(20)
    assert HangUp(booth.link, 1001) in booth.effects


def test_replies_after_a_returned_goodbye() -> None:
    booth = Booth()
    number = booth.submit()
    booth.deliver(Goodbye("enough"))
    assert booth.take()[-1] == Goodbye("") and LinkDraining(booth.link) in booth.effects and not booth.session.ready
    booth.deliver(Result(number, (Done("x", b"\x01"),)))
    assert booth.replies() == {number: Result(number, (Done("x", b"\x01"),))}
    assert booth.effects[-1] == HangUp(booth.link, 1000)  # all requests have replies


# -- draining nodes ---------------------------------------------------------------------------------------------------

DRAINING = Fault(1024, "leaving", {"maybe_executed": False})


def two_nodes(*, others: int = 1) -> tuple[Booth, int]:
    """Return a session with `others` more addresses, and the number of a request sent to the first node."""
    booth = Booth(opened=False)
    booth.session = ClientSession(name="me", cluster_id="c", alternatives=others)
    booth.open()
    return booth, booth.submit()


def test_one_retry_after_a_refusal_by_a_draining_node() -> None:
    booth, number = two_nodes()
    booth.deliver(Result(number, fault=DRAINING))
    assert LinkDraining(booth.link) in booth.effects and HangUp(booth.link, 1000) in booth.effects
    assert booth.replies() == {} and not booth.session.ready
    booth.take()
    booth.now += 3 * SECOND
    later = booth.submit()
    booth.open()
    sent = [message for message in booth.take() if isinstance(message, Request)]
    assert [message.id for message in sent] == [number, later]
    assert sent[0].timeout == Limits().default_timeout - 3 * SECOND
    booth.deliver(Result(number, fault=DRAINING))  # the last of the two drains too
    assert booth.fault(number) == DRAINING


def test_draining_link_stays_until_its_last_reply() -> None:
    booth, number = two_nodes()
    refused = booth.submit()
    old = booth.link
    booth.deliver(Result(refused, fault=DRAINING))
    assert HangUp(old, 1000) not in booth.effects
    booth.sent.clear()
    booth.open()
    assert requests(booth.take()) == [refused]
    session = booth.session
    session.handle(booth.link, Result(number, (Done("x", b"\x02"),)), now=booth.now)  # not requested there
    booth.flush()
    assert booth.replies() == {}
    session.handle(old, Result(number, (Done("x", b"\x01"),)), now=booth.now)
    booth.flush()
    assert booth.replies() == {number: Result(number, (Done("x", b"\x01"),))}
    assert HangUp(old, 1000) in booth.effects
    session.link_closed(old, now=booth.now)
    booth.deliver(Result(refused, (Done("x", b"\x01"),)))
    assert set(booth.replies()) == {refused} and session.ready


def test_lost_draining_link_ends_its_own_requests_only() -> None:
    booth, number = two_nodes()
    refused, old = booth.submit(), booth.link
    booth.deliver(Result(refused, fault=DRAINING))
    booth.sent.clear()
    booth.open()
    booth.take()
    booth.session.link_closed(old, now=booth.now)
    booth.flush()
    assert [(one.id, one.again) for one in booth.take() if isinstance(one, Request)] == [(number, True)]
    assert booth.session.ready and len(booth.session) == 2


def test_cancel_request_on_the_draining_link() -> None:
    booth, number = two_nodes()
    refused = booth.submit()
    booth.deliver(Result(refused, fault=DRAINING))
    booth.take()
    booth.session.cancel(number, now=booth.now)
    booth.flush()
    assert booth.take() == [CancelRequest(number)] and HangUp(booth.link, 1000) in booth.effects


@pytest.mark.parametrize("others", [0, 1])
def test_requests_without_a_reply_from_a_node_that_left(others: int) -> None:
    booth, number = two_nodes(others=others)
    booth.deliver(Goodbye("leaving"))
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
def test_refusals_that_are_not_retried(fault: Fault) -> None:
    booth, number = two_nodes()
    booth.deliver(Result(number, fault=fault))
    assert booth.fault(number) == fault and booth.session.ready


def test_no_retry_of_a_started_stream() -> None:
    booth, number = two_nodes()
    booth.deliver(Result(number, (Done("x", b"\x01"),), last=False))
    assert set(booth.replies()) == {number}
    booth.deliver(Result(number, fault=DRAINING))
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
def test_request_that_cannot_be_encoded(request_: Request, linked: bool) -> None:
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


# -- replies ----------------------------------------------------------------------------------------------------------


def test_one_reply_for_each_request_type() -> None:
    booth = Booth()
    run = booth.submit()
    where, view = booth.session.explain(Request(0, CALL), now=booth.now), booth.session.get_view(now=booth.now)
    booth.flush()
    sent = booth.take()[1:]
    assert isinstance(sent[0], Request) and sent[0].id == run
    assert isinstance(sent[1], Explain) and sent[1].request.id == where
    assert sent[2] == GetView(view) and len({run, where, view}) == 3
    answers: list[Message] = [View(view, b"{}"), Explanation(where), Result(run)]
    booth.deliver(*answers, *answers)
    assert booth.replies() == {view: answers[0], where: answers[1], run: answers[2]}
    assert len(booth.session) == 0 and booth.session.next_timeout() == booth.now + SECOND
    booth.advance(1)
    assert booth.session.next_timeout() == booth.now + 9 * SECOND, "no call is out any more"


def test_partial_replies_before_the_last() -> None:
    booth = Booth()
    number = booth.submit(Request(0, CALL, eager=True))
    first, last = Result(number, (Done("x", b"\x01"),), last=False), Result(number)
    booth.deliver(first)
    assert booth.replies() == {number: first} and len(booth.session) == 1
    booth.deliver(last, first)
    assert booth.replies() == {number: last}


def test_reply_to_an_unknown_request() -> None:
    booth = Booth()
    booth.deliver(Result(77), Result(78, last=False), View(79, b""), Explanation(80))
    assert booth.replies() == {}


# -- frozen nodes -----------------------------------------------------------------------------------------------------


def test_link_with_a_request_is_pinged_after_a_second() -> None:
    booth = Booth()
    booth.submit()
    booth.take()
    booth.advance(0.999)
    assert booth.take() == []
    booth.advance(0.001)
    assert booth.take() == [Ping(1)]
    booth.advance(18.9)
    assert booth.take() == [], "a client with one address waits as long as on any link"


def test_silent_link_ends_after_twenty_seconds_although_a_call_went_out_late() -> None:
    booth = Booth()
    booth.advance(10)
    number = booth.submit()
    booth.advance(1)
    booth.advance(8.99)
    assert booth.session.ready
    booth.advance(0.01)
    assert booth.replies() == {} and not booth.session.ready
    booth.advance(1)
    assert booth.fault(number).code == 1023


def test_frozen_node_is_left_after_three_seconds_for_another_address() -> None:
    booth = Booth(alternatives=1)
    number = booth.submit()
    booth.advance(1)
    booth.advance(1.99)
    assert booth.replies() == {}
    booth.advance(0.01)
    assert booth.replies() == {} and not booth.session.ready
    booth.advance(1)
    assert booth.fault(number).code == 1023


def test_answered_ping_keeps_a_slow_node() -> None:
    booth = Booth(alternatives=1)
    booth.submit()
    for _ in range(8):
        booth.advance(1)
        booth.deliver(Pong(1))
    assert booth.replies() == {} and booth.session.ready


def test_idle_link_to_a_frozen_node_stays_as_long_as_any() -> None:
    booth = Booth(alternatives=1)
    number = booth.submit()
    booth.deliver(Result(number))
    booth.advance(1)
    booth.advance(8)
    assert booth.session.ready


def test_late_wake_up_gives_the_node_time_to_answer() -> None:
    booth = Booth(alternatives=1)
    booth.submit()
    booth.now += 30 * SECOND
    booth.session.wake(now=booth.now)
    booth.flush()
    assert booth.replies() == {}, "this process was stalled, and bytes may be unread"
    booth.advance(1.9)
    assert booth.replies() == {} and booth.take()[-1:] == [Ping(1)]
    booth.deliver(Pong(1))
    booth.advance(0.9)
    assert booth.replies() == {} and booth.session.ready


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_local_deadline_200_ms_after_the_request_deadline() -> None:
    booth = Booth()
    number = booth.submit(Request(0, CALL, timeout=3 * SECOND))
    booth.take()
    booth.advance(3.199)
    assert booth.replies() == {}
    booth.advance(0.001)
    found = booth.fault(number)
    assert (found.code, found.details["maybe_executed"]) == (1020, True)
    assert booth.take() == [Ping(1), CancelRequest(number)]
    booth.deliver(Result(number, (Done("x", b"\x01"),)))
    assert booth.replies() == {}


def test_default_timeout() -> None:
    booth = Booth(limits=Limits(default_timeout=SECOND))
    number = booth.submit()
    booth.advance(1.2)
    assert booth.fault(number).code == 1020


def test_deadline_of_a_request_never_sent() -> None:
    booth = Booth(opened=False)
    number = booth.submit(Request(0, CALL, timeout=SECOND))
    booth.advance(1.2)
    found = booth.fault(number)
    assert (found.code, found.details["maybe_executed"]) == (1020, False) and "no node" in found.message
    booth.open()
    assert requests(booth.take()) == []


def test_deadline_of_explain_and_get_view() -> None:
    booth = Booth(limits=Limits(default_timeout=SECOND))
    numbers = {booth.session.explain(Request(0, CALL), now=booth.now), booth.session.get_view(now=booth.now)}
    booth.advance(1.2)
    assert set(booth.replies()) == numbers


# -- cancellation, failing all ----------------------------------------------------------------------------------------


def test_cancellation_sends_one_cancel_request() -> None:
    booth = Booth()
    number = booth.submit()
    for _ in range(2):
        booth.session.cancel(number, now=booth.now)
    booth.flush()
    assert booth.take()[-1] == CancelRequest(number) and booth.take() == []
    booth.deliver(Result(number))
    assert booth.replies() == {} and len(booth.session) == 0


def test_cancellation_before_the_request_is_sent() -> None:
    booth = Booth(opened=False)
    booth.session.cancel(booth.submit(), now=booth.now)
    booth.open()
    assert [type(message) for message in booth.take()] == [Hello]


def test_fail_all_replies_to_all_requests() -> None:
    booth = Booth(opened=False)
    numbers = {booth.submit(), booth.submit()}
    booth.session.fail_all(Fault(1024, "no link will stand"))
    booth.flush()
    assert set(booth.replies()) == numbers and booth.session.next_timeout() is None


def test_request_over_the_message_limit() -> None:
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


def test_no_timer_of_an_idle_session_without_a_link() -> None:
    booth = Booth()
    booth.deliver(Result(booth.submit()))
    booth.drop()
    assert booth.session.next_timeout() is None


# -- replies and their requests ---------------------------------------------------------------------------------------


def test_reply_of_another_type_is_ignored() -> None:
    booth = Booth()
    run, view = booth.submit(), booth.session.get_view(now=booth.now)
    where = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.deliver(
        View(run, b"{}"), Explanation(run), View(where, b"{}"), Explanation(view), Result(view), Result(where)
    )
    booth.deliver(Result(where, (Done("x", b"\x01"),), last=False), Result(99))
    assert booth.replies() == {} and len(booth.session) == 3
    booth.deliver(Result(run), View(view, b"{}"), Explanation(where))
    assert booth.replies() == {run: Result(run), view: View(view, b"{}"), where: Explanation(where)}


def test_error_result_as_reply_to_explain() -> None:
    booth = Booth()
    number = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    booth.deliver(Result(number, fault=Fault(1010, "bad")))
    assert booth.fault(number).code == 1010


def test_no_reply_to_a_request_never_sent() -> None:
    booth = Booth(opened=False)
    booth.connect()
    number = booth.submit()
    booth.deliver(NODE)
    assert number in requests(booth.take())
    booth.deliver(NODE)  # a second hello: the session hangs up
    booth.advance(1)
    assert [reply.fault.code for reply in booth.replies().values()] == [1023], "settled before the link has ended"
    waiting = booth.submit()
    booth.deliver(Result(waiting))
    assert booth.replies() == {} and len(booth.session) == 1, "it waits for the next link"


def test_link_end_at_the_send_of_a_request() -> None:
    booth = Booth()
    send = booth.session.links.send
    booth.session.links.send = lambda link, message, body: LINK_GONE  # type: ignore[method-assign]
    number = booth.submit()
    booth.session.links.send = send  # type: ignore[method-assign]
    booth.drop()
    assert booth.replies() == {}, "it never left, so it is not lost"
    booth.connect()
    booth.deliver(NODE)
    assert requests(booth.take()) == [number]
    booth.deliver(Result(number))
    assert booth.replies() == {number: Result(number)}


def test_view_in_parts() -> None:
    booth = Booth()
    number = booth.session.get_view(now=booth.now)
    booth.flush()
    booth.deliver(View(number, b'{"a"', last=False), View(number, b":", last=False))
    assert booth.replies() == {}
    booth.deliver(View(number, b"1}"))
    assert booth.replies() == {number: View(number, b'{"a":1}')}


def test_reply_over_another_link_is_ignored() -> None:
    booth = Booth()
    number = booth.submit()
    other = LinkId(77)
    booth.session.links.opened(other, framing=Framing.OBJECTS, dialled=Address("mem://b"), now=booth.now)
    booth.session.drain()
    booth.session.handle(other, NODE, now=booth.now)
    booth.session.handle(other, Result(number), now=booth.now)
    booth.session.drain()
    assert len(booth.session) == 1 and booth.replies() == {}


def test_long_json_of_a_foreign_server_does_not_stop_the_link() -> None:
    booth = Booth(opened=False, framing=Framing.CLASSIC_MESSAGES)
    booth.session.link_opened(
        LinkId(1), framing=Framing.CLASSIC_MESSAGES, address=Address("ws://foreign"), now=booth.now
    )
    booth.session.drain()
    booth.session.receive(LinkId(1), "[" + "1," * 200_000 + "1]", now=booth.now)
    assert Pause(LinkId(1)) in booth.session.drain()
    effects: list[ClientEffect] = []
    for _ in range(1000):
        booth.session.wake(now=booth.now)
        effects += booth.session.drain()
        if Resume(LinkId(1)) in effects:
            return
    raise AssertionError("the link stays paused")


# -- credit -----------------------------------------------------------------------------------------------------------

SMALL = msgspec.structs.replace(NODE, credit=(2, 1000))


def small(*, alternatives: int = 0) -> Booth:
    """Return a client at a node that lets it have two requests in flight."""
    booth = Booth(opened=False, alternatives=alternatives)
    booth.connect()
    booth.deliver(SMALL)
    booth.take()
    return booth


def test_requests_beyond_the_credit_wait_in_order() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(5)]
    assert requests(booth.take()) == numbers[:2]
    booth.deliver(Result(numbers[1]))
    assert requests(booth.take()) == [numbers[2]]
    booth.deliver(Result(numbers[0]), Result(numbers[2]))
    assert requests(booth.take()) == numbers[3:]
    booth.deliver(Result(numbers[3]), Result(numbers[4]))
    assert list(booth.replies()) == [numbers[1], numbers[0], *numbers[2:]] and len(booth.session) == 0


def test_default_credit_of_a_node_that_announces_none() -> None:
    assert NODE.credit == (Limits().client_requests, Limits().client_bytes) == Limits().credit
    booth = Booth()
    booth.take()
    for _ in range(1030):
        booth.submit()
    assert len(requests(booth.take())) == 1024


def test_partial_result_returns_no_credit() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(3)]
    booth.deliver(Result(numbers[0], (Done("x", b"\x01"),), last=False))
    assert requests(booth.take()) == numbers[:2]
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == numbers[2:]


def test_queries_need_no_credit() -> None:
    booth = small()
    for _ in range(3):
        booth.submit()
    booth.take()
    view = booth.session.get_view(now=booth.now)
    where = booth.session.explain(Request(0, CALL), now=booth.now)
    booth.flush()
    first, second = booth.take()
    assert first == GetView(view) and isinstance(second, Explain) and second.request.id == where
    booth.deliver(View(view, b"{}"), Result(where, fault=Fault(1010, "bad")))
    assert booth.take() == [], "nor do they return any"


def test_queries_before_the_requests_of_a_new_link() -> None:
    booth = Booth(opened=False)
    numbers = [booth.submit() for _ in range(3)]
    view = booth.session.get_view(now=booth.now)
    booth.connect()
    booth.take()
    booth.deliver(SMALL)
    sent = booth.take()
    assert sent[0] == GetView(view) and requests(sent) == numbers[:2]


def test_cancelled_request_holds_its_credit_until_its_result() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(4)]
    booth.take()
    booth.session.cancel(numbers[0], now=booth.now)
    booth.flush()
    assert booth.take() == [CancelRequest(numbers[0])]
    booth.deliver(Result(numbers[0], fault=Fault(1021, "cancelled")))
    assert requests(booth.take()) == [numbers[2]] and booth.replies() == {}
    booth.deliver(Result(numbers[0]))
    assert booth.take() == [], "it returns its credit once"


def test_request_cancelled_while_it_waits_never_leaves() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(4)]
    booth.take()
    booth.session.cancel(numbers[2], now=booth.now)
    booth.flush()
    assert booth.take() == []
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == [numbers[3]]


def test_deadline_of_a_request_that_waits() -> None:
    booth = small()
    numbers = [booth.submit(Request(0, CALL, timeout=SECOND if place == 2 else 60 * SECOND)) for place in range(4)]
    booth.take()
    booth.advance(1.2)
    fault = booth.fault(numbers[2])
    assert (fault.code, fault.details) == (1020, {"maybe_executed": False})
    assert fault.message == ("the request was never sent: it waited for the node's credit until its deadline")
    booth.deliver(Result(numbers[0]))
    (sent,) = [message for message in booth.take() if isinstance(message, Request)]
    assert (sent.id, sent.timeout) == (numbers[3], round(58.8 * SECOND)), "the time that it has waited is gone"


def test_no_request_is_sent_after_its_deadline() -> None:
    booth = small()
    numbers = [booth.submit(Request(0, CALL, timeout=SECOND if place == 2 else 60 * SECOND)) for place in range(4)]
    booth.take()
    booth.advance(1.1)
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == [numbers[3]]
    assert [reply.fault.code for reply in booth.replies().values() if reply.fault is not None] == [1020]  # type: ignore[attr-defined]


def test_unsent_requests_go_by_the_credit_of_the_next_link() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(6)]
    booth.take()
    booth.drop()
    booth.connect()
    booth.take()
    booth.deliver(msgspec.structs.replace(SMALL, credit=(3, 1000)))
    sent = booth.take()
    assert requests(sent) == numbers[:3], "what was lost waits for credit like the others, in its place"
    assert [message.again for message in sent if isinstance(message, Request)] == [True, True, False]


def test_lost_request_that_waits_for_credit_has_all_its_time() -> None:
    booth = small()
    numbers = [booth.submit() for _ in range(2)]
    booth.take()
    booth.drop()
    booth.connect()
    booth.take()
    booth.deliver(msgspec.structs.replace(SMALL, credit=(1, 1000)))
    assert requests(booth.take()) == numbers[:1]
    booth.advance(5)
    assert booth.replies() == {}
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == numbers[1:]
    booth.drop()
    booth.advance(1.1)
    assert sorted(booth.replies()) == numbers


def test_refused_requests_go_to_the_next_node_in_order() -> None:
    booth = small(alternatives=1)
    numbers = [booth.submit() for _ in range(4)]
    booth.take()
    refusal = Fault(1024, "draining", {"maybe_executed": False})
    old = booth.link
    booth.deliver(Result(numbers[1], fault=refusal))
    booth.session.handle(old, Result(numbers[0], fault=refusal), now=booth.now)
    booth.session.drain()
    booth.connect()
    booth.take()
    booth.deliver(SMALL)
    assert requests(booth.take()) == numbers[:2]
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == [numbers[2]]


@pytest.mark.parametrize("credit", [(0, 0), (-1, -5)])
def test_one_request_at_a_time_without_credit(credit: tuple[int, int]) -> None:
    booth = Booth(opened=False)
    booth.connect()
    booth.take()
    booth.deliver(msgspec.structs.replace(NODE, credit=credit))
    numbers = [booth.submit() for _ in range(2)]
    assert requests(booth.take()) == numbers[:1]
    booth.deliver(Result(numbers[0]))
    assert requests(booth.take()) == numbers[1:]


class ByteBooth:
    """A client whose link carries bytes."""

    def __init__(self, credit: tuple[int, int], limits: Limits | None = None) -> None:
        self.session = ClientSession(name="me", cluster_id="c", limits=limits or Limits())
        self.link = LinkId(1)
        self.session.link_opened(self.link, framing=Framing.NATIVE_MESSAGES, address=Address("ws://node"), now=SECOND)
        self.receive(msgspec.structs.replace(NODE, credit=credit))
        self.sent()

    def submit(self, size: int) -> int:
        return self.session.submit(Request(0, (call("x", "f", bytes(size)),)), now=SECOND)

    def receive(self, message: Message) -> None:
        self.session.receive(self.link, dialects.encode(message), now=SECOND)

    def sent(self) -> list[int]:
        """Return the numbers of the requests sent since the last call."""
        bodies = [chunk for effect in self.session.drain() if isinstance(effect, Send) for chunk in effect.chunks]
        return requests([dialects.decode(body) for body in bodies])  # type: ignore[misc]


def test_credit_in_bytes() -> None:
    booth = ByteBooth((100, 1000))
    numbers = [booth.submit(size) for size in (300, 300, 300, 10)]
    assert booth.sent() == numbers[:2], "a short request does not overtake a long one"
    booth.receive(Result(numbers[1]))
    assert booth.sent() == numbers[2:]
    numbers.append(booth.submit(300))
    assert booth.sent() == []
    booth.receive(Result(numbers[3]))
    assert booth.sent() == []
    booth.receive(Result(numbers[0]))
    assert booth.sent() == numbers[4:]


def test_request_longer_than_the_credit_goes_alone() -> None:
    booth = ByteBooth((100, 1000))
    numbers = [booth.submit(size) for size in (10, 5000, 10)]
    assert booth.sent() == numbers[:1]
    booth.receive(Result(numbers[0]))
    assert booth.sent() == numbers[1:2]
    booth.receive(Result(numbers[1]))
    assert booth.sent() == numbers[2:]


def test_cancel_of_a_long_request_lets_the_next_one_go() -> None:
    booth = ByteBooth((100, 1000))
    numbers = [booth.submit(size) for size in (10, 5000, 10)]
    booth.session.cancel(numbers[1], now=SECOND)
    assert booth.sent() == [numbers[0], numbers[2]]


def test_request_over_the_message_limit_fails_at_once() -> None:
    booth = ByteBooth((100, 1000), Limits(message=2000))
    booth.submit(10)
    number = booth.submit(3000)
    (reply,) = [effect for effect in booth.session.drain() if isinstance(effect, ReplyReceived)]
    assert reply.id == number and isinstance(reply.reply, Result) and reply.reply.fault is not None
    assert reply.reply.fault.code == 1014


def test_request_over_the_message_limit_that_waited() -> None:
    booth = ByteBooth((1, 1000), Limits(message=2000))
    numbers = [booth.submit(size) for size in (10, 3000, 10)]
    booth.receive(Result(numbers[0]))
    assert booth.sent() == [numbers[0], numbers[2]], "it ends with 1014, and the next one goes"


def test_cancelled_requests_leave_no_trace_in_the_order() -> None:
    booth = small()
    for _ in range(3):
        booth.submit()
    for _ in range(1000):
        booth.session.cancel(booth.submit(), now=booth.now)
    assert len(booth.session._order) < 200


# -- draining a node --------------------------------------------------------------------------------------------------


def test_drain_of_a_node_by_name() -> None:
    booth = Booth()
    number = booth.session.drain_node("till", now=booth.now)
    booth.flush()
    assert booth.take()[-1] == Drain(number, "till")
    reply = DrainReply(number, b"t" * 16, "till#7474", "sent")
    booth.deliver(Result(number), reply)
    assert booth.replies() == {number: reply} and len(booth.session) == 0
    with pytest.raises(LocalProtocolError, match="node"):
        booth.session.drain_node(7, now=booth.now)  # type: ignore[arg-type]


def test_drain_by_an_older_node() -> None:
    booth = Booth(opened=False)
    number = booth.session.drain_node("till", now=booth.now)
    booth.connect()
    booth.deliver(msgspec.structs.replace(NODE, features=("again",)))
    assert [type(one) for one in booth.take()] == [Hello]
    assert booth.fault(number).code == 1040


def test_progress_of_a_request_that_wants_it() -> None:
    booth = Booth()
    wants, other = booth.submit(Request(0, CALL, progress=True)), booth.submit()
    news = CallProgress(wants, "x", "f", "node", 1, 2, "half")
    booth.deliver(news, CallProgress(other, "x", "f", "node", 1), CallProgress(9, "x", "f", "node", 1))
    assert [one for one in booth.effects if type(one) is ProgressReceived] == [ProgressReceived(wants, news)]
    booth.deliver(Result(wants), news)
    assert len([one for one in booth.effects if type(one) is ProgressReceived]) == 1, "it is over"


def test_items_of_a_stream_and_credit_for_more() -> None:
    booth = Booth()
    number, other = booth.submit(Request(0, CALL, streams=("x",))), booth.submit()
    items = Items(number, "x", (b"\x01",))
    booth.deliver(items, Items(other, "x", (b"\x02",)), Items(number, "y", (b"\x03",)), Items(9, "x", ()))
    assert [one for one in booth.effects if type(one) is ItemsReceived] == [ItemsReceived(number, items)]
    booth.session.items_taken(number, "x", 1, now=booth.now)
    booth.session.items_taken(9, "x", 1, now=booth.now)
    booth.flush()
    assert [one for one in booth.sent if type(one) is ItemsTaken] == [ItemsTaken(number, "x", 1)]
    booth.deliver(Result(number, (Done("x", b""),)))
    booth.session.items_taken(number, "x", 1, now=booth.now)
    booth.flush()
    assert len([one for one in booth.sent if type(one) is ItemsTaken]) == 1, "it is over"
    with pytest.raises(LocalProtocolError):
        booth.session.items_taken(number, "x", "1", now=booth.now)  # type: ignore[arg-type]


def test_stream_with_items_does_not_go_to_another_node() -> None:
    booth = Booth(alternatives=1)
    number = booth.submit(Request(0, CALL, streams=("x",)))
    booth.deliver(Items(number, "x", (b"\x01",)), Goodbye("leaving"))
    assert [one.reply.fault.code for one in booth.effects if type(one) is ReplyReceived] == [1024]  # type: ignore[union-attr]
