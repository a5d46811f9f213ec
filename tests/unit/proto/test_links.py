"""The life of a link, on a real node: handshake, pings, goodbyes, violations. Far ends are spoken by hand."""

import pytest

from mpreg_proto.effects import Cancel, Framing, HangUp, Lane, Notify, Pause, Resume, Run, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.links import SHORT
from mpreg_proto.notices import LinkEnded, LinkOpened
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    Ask,
    CancelRequest,
    Claim,
    Explanation,
    Goodbye,
    Hello,
    Message,
    News,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
    Told,
)
from mpreg_proto.wire.session import Stage
from tests.helpers.pair import Desk, Far, call, done, spec, value

CLIENT = hello(cluster="", member=b"", name="c")


def opened(desk: Desk, framing: Framing = Framing.OBJECTS) -> Far:
    """A link on which nothing has been said yet."""
    link = LinkId(len(desk.fars) + 1)
    far = desk.fars[link] = Far(desk, link)
    desk.node.link_opened(link, framing=framing, dialled=None, now=desk.now)
    return far


def refusal(far: Far) -> Fault:
    (said,) = far.take(Refused)
    return said.fault


# -- handshake --------------------------------------------------------------------------------------------------------


def test_the_side_that_was_dialled_answers_the_hello_and_says_nothing_before() -> None:
    desk = Desk()
    far = opened(desk)
    assert far.heard == []
    far.say(CLIENT)
    (theirs,) = far.take(Hello)
    assert (theirs.member, theirs.name, theirs.cluster) == (desk.node.me, "desk", "default-cluster")
    assert desk.noticed(LinkOpened) == [LinkOpened(far.link, "c", None)]


def test_the_side_that_dials_speaks_first() -> None:
    desk = Desk()
    desk.node.link_opened(LinkId(1), framing=Framing.NATIVE_MESSAGES, dialled="mem://x", now=desk.now)  # type: ignore[arg-type]
    (sent,) = desk.node.drain()
    assert isinstance(sent, Send) and isinstance(dialects.decode(sent.chunks[0]), Hello)


@pytest.mark.parametrize("framing", [Framing.OBJECTS, Framing.NATIVE_MESSAGES, Framing.STREAM])
def test_who_says_nothing_is_refused_after_five_seconds(framing: Framing) -> None:
    desk = Desk()
    link = LinkId(1)
    desk.node.link_opened(link, framing=framing, dialled=None, now=desk.now)
    assert desk.node.next_timeout() == desk.now + 5 * 10**9
    desk.node.wake(now=desk.now + 5 * 10**9 - 1)
    assert desk.node.drain() == []
    desk.node.wake(now=desk.now + 5 * 10**9)
    effects = desk.node.drain()
    assert [type(effect) for effect in effects if not hasattr(effect, "notice")] == [Send, HangUp]
    desk.node.link_closed(link, now=desk.now)
    assert desk.node.next_timeout() is None


@pytest.mark.parametrize("first", [b"{", b'\x00\x00\x00\x02{"'])
def test_half_a_first_message_does_not_stop_the_clock(first: bytes) -> None:
    desk = Desk()
    desk.node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=desk.now)
    desk.node.receive(LinkId(1), first[:3], now=desk.now)
    desk.node.wake(now=desk.now + 5 * 10**9)
    assert HangUp(LinkId(1), 1002) in desk.node.drain()


def test_a_classic_link_never_says_hello_and_has_no_clock() -> None:
    desk = Desk()
    desk.node.link_opened(LinkId(1), framing=Framing.CLASSIC_MESSAGES, dialled=None, now=desk.now)
    desk.node.link_opened(LinkId(2), framing=Framing.STREAM, dialled=None, now=desk.now)
    desk.node.receive(LinkId(2), prefix(2) + b"{}", now=desk.now)
    assert desk.node.next_timeout() is None
    (answered,) = desk.node.drain()
    assert isinstance(answered, Send) and b"1004" in b"".join(answered.chunks)


@pytest.mark.parametrize(
    ("first", "code", "close"),
    [
        (Ping(1), 1010, 1002),
        (Request(1, (call("x", "echo"),)), 1010, 1002),
        (hello(cluster="other", member=b"m" * 16, name=""), 1005, 1008),
        (hello(cluster="other", member=b"", name=""), 1005, 1008),
        (hello(cluster="default-cluster", member=b"short", name=""), 1010, 1002),
        (Hello((2, 9), (), "", b"", ""), 1040, 1002),
    ],
)
def test_what_cannot_open_a_link_ends_it_with_the_reason(first: Message, code: int, close: int) -> None:
    desk = Desk()
    far = opened(desk)
    far.say(first)
    assert refusal(far).code == code and far.hung_up == close
    far.say(CLIENT)
    assert far.heard == [], "nothing that still comes is looked at"
    far.drop()
    ended = desk.noticed(LinkEnded)
    assert len(ended) == 1 and ended[0].why and desk.noticed(LinkOpened) == []
    desk.idle()


def test_meeting_oneself_is_an_ordinary_end() -> None:
    desk = Desk()
    far = opened(desk)
    far.say(hello(cluster="default-cluster", member=desk.node.me, name="desk"))
    assert far.hung_up == 1000 and far.take(Refused) == []


def test_a_link_is_opened_once() -> None:
    desk = Desk()
    far = desk.client()
    before = desk.node.next_timeout()
    with pytest.raises(LocalProtocolError, match="open already"):
        desk.node.link_opened(far.link, framing=Framing.STREAM, dialled=None, now=desk.now + 1)
    assert desk.node.drain() == [] and desk.node.next_timeout() == before
    far.say(Ping(4))
    assert far.take(Pong) == [Pong(4)]


# -- keepalive --------------------------------------------------------------------------------------------------------


def test_ten_seconds_of_silence_are_pinged_and_twenty_end_the_link() -> None:
    desk = Desk()
    far = desk.client()
    desk.advance(9.999)
    assert far.take(Ping) == []
    desk.advance(0.001)
    assert len(far.take(Ping)) == 1
    desk.advance(9.999)
    assert far.hung_up is None and far.take(Ping) == []
    desk.advance(0.001)
    assert far.hung_up == 1001
    assert desk.noticed(LinkEnded) == [LinkEnded(far.link, "client", "silent for 20 s")]
    desk.advance(60)
    far.drop()
    assert len(desk.noticed(LinkEnded)) == 1
    desk.idle()


@pytest.mark.parametrize("sign", [Pong(1), Pong(77), Ping(1), CancelRequest(5)])
def test_whatever_comes_is_a_sign_of_life(sign: Message) -> None:
    desk = Desk()
    far = desk.client()
    for _ in range(6):
        desk.advance(15)
        assert len(far.take(Ping)) == 1
        far.say(sign)
    assert far.hung_up is None
    desk.advance(20)
    assert far.hung_up == 1001


def test_a_single_byte_is_a_sign_of_life() -> None:
    desk = Desk()
    link, start = LinkId(1), desk.now
    desk.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=start)
    body = dialects.encode(CLIENT)
    desk.node.receive(link, prefix(len(body)) + body, now=start)
    ping = dialects.encode(Ping(1))
    for count, byte in enumerate(prefix(len(ping)) + ping, 1):
        desk.node.wake(now=start + count * 15 * 10**9)
        desk.node.receive(link, bytes([byte]), now=start + count * 15 * 10**9)
    assert not any(isinstance(effect, HangUp) for effect in desk.node.drain())
    last = start + count * 15 * 10**9
    desk.node.wake(now=last + 10 * 10**9)
    desk.node.wake(now=last + 20 * 10**9)
    assert HangUp(link, 1001) in desk.node.drain()


def test_who_talks_all_the_time_is_never_pinged() -> None:
    desk = Desk()
    far = desk.client()
    for _ in range(30):
        desk.advance(2)
        far.say(CancelRequest(1))
    assert far.take(Ping) == []


def test_pings_are_numbered_and_answered_by_number() -> None:
    desk = Desk()
    far, other = desk.client(), desk.client()
    desk.advance(10)
    assert len({ping.number for end in (far, other) for ping in end.take(Ping)}) == 2
    far.say(Ping(2**63))
    assert far.take(Pong) == [Pong(2**63)]


def test_a_member_that_is_silent_is_under_suspicion() -> None:
    desk = Desk()
    far = desk.member("alpha")
    desk.advance(20)
    far.drop()
    assert [row.standing for row in desk.node.view(now=desk.now).members if not row.me] == ["suspect"]


# -- goodbye ----------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_returned_and_the_link_closes_when_nothing_is_pending() -> None:
    desk = Desk()
    far = desk.member("alpha")
    far.say(Goodbye("idle"))
    assert far.take(Goodbye) == [Goodbye("")] and far.hung_up == 1000
    far.drop()
    assert [row.standing for row in desk.node.view(now=desk.now).members if not row.me] == ["alive"]
    assert desk.noticed(LinkEnded)[-1].why == ""
    desk.idle()


def test_what_is_pending_finishes_first_both_ways() -> None:
    desk = Desk([spec("slow")])
    far, client = desk.member("alpha", spec("far")), desk.client()
    far.say(Request(7, (call("x", "slow", 1),), here=("x",)))
    client.say(Request(1, (call("y", "far", 2),)))
    (asked,) = far.take(Request)
    far.say(Goodbye("idle"))
    assert far.take(Goodbye) and far.hung_up is None
    desk.finish(desk.running("slow")[0])
    assert value(far.take(Result)[0], "x") == 1 and far.hung_up is None
    far.say(done(asked, "y", 2))
    assert far.hung_up == 1000 and value(client.take(Result)[0], "y") == 2
    far.drop()
    desk.idle()


def test_the_last_answer_is_sent_before_the_link_closes() -> None:
    desk = Desk([spec("slow")])
    far = desk.member("alpha")
    far.say(Request(7, (call("x", "slow", 1),), here=("x",)))
    far.say(Goodbye("idle"))
    desk.finish(desk.running("slow")[0])
    assert value(far.take(Result)[0], "x") == 1 and far.hung_up == 1000


def test_a_request_that_still_comes_from_a_member_is_refused_and_never_run() -> None:
    desk = Desk([spec("slow")])
    far = desk.member("alpha")
    far.say(Request(1, (call("x", "slow", 1),), here=("x",)), Goodbye("idle"))
    far.say(Request(2, (call("x", "slow", 2),), here=("x",)), Request(3, (call("x", "slow", 3),)))
    faults = {result.id: result.fault for result in far.take(Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {2: 1024, 3: 1024}
    assert all(fault is not None and fault.details == {"maybe_executed": False} for fault in faults.values())
    assert len(desk.runs) == 1


def test_a_request_that_still_comes_from_a_client_is_refused_as_well() -> None:
    desk = Desk([spec("slow")])
    client = desk.client()
    client.say(Request(1, (call("x", "slow", 1),)), Goodbye("enough"), Request(2, (call("x", "slow", 2),)))
    (refused,) = client.take(Result)
    assert refused.id == 2 and refused.fault is not None and refused.fault.code == 1024
    desk.finish(desk.running("slow")[0])
    assert value(client.take(Result)[0], "x") == 1 and client.hung_up == 1000


def test_after_a_goodbye_calls_for_that_member_do_not_use_the_link() -> None:
    desk = Desk([spec("slow")])
    far, client = desk.member("alpha", spec("far", idempotent=True)), desk.client()
    far.say(Request(1, (call("x", "slow", 1),), here=("x",)), Goodbye("idle"))
    client.say(Request(1, (call("y", "far", 2),)))
    assert far.take(Request) == []
    second = desk.member("alpha", again=far)
    assert len(second.take(Request)) == 1


def test_link_with_a_running_call_outlasts_the_goodbye_timer() -> None:
    desk = Desk([spec("slow")])
    far = desk.member("alpha")
    far.say(Request(1, (call("x", "slow", 1),), timeout=200 * SECOND, here=("x",)), Goodbye("idle"))
    for _ in range(15):
        desk.advance(9)
        far.say(Ping(1))
    assert far.hung_up is None
    desk.finish(desk.running("slow")[0])
    assert value(far.take(Result)[0], "x") == 1 and far.hung_up == 1000


def test_link_without_calls_closes_ten_seconds_after_its_goodbye() -> None:
    """The peer never says Goodbye itself."""
    desk = Desk()
    far = desk.member("alpha")
    desk.node.links.goodbye(far.link, "idle", desk.now)
    desk.flush()
    desk.advance(9.999)
    assert far.hung_up is None
    desk.advance(0.001)
    assert far.hung_up == 1000


def test_of_two_links_the_dialler_of_the_later_one_to_go_says_goodbye_first() -> None:
    """This node dialled the one that goes, so it is its to close, and it closes once the other side has agreed."""
    desk = Desk(me=b"z" * 16)
    first = desk.member("alpha")
    link = LinkId(len(desk.fars) + 1)
    far = desk.fars[link] = Far(desk, link)
    desk.node.link_opened(link, framing=Framing.OBJECTS, dialled="mem://alpha", now=desk.now)  # type: ignore[arg-type]
    desk.flush()
    far.say(hello(cluster="default-cluster", member=first.cluster.me, name="alpha"))
    assert far.take(Goodbye) == [Goodbye("duplicate")] and far.hung_up is None
    assert desk.node.links.sessions[link].stage is Stage.WE_LEAVE
    far.say(Goodbye(""))
    assert far.hung_up == 1000 and first.hung_up is None and far.take(Goodbye) == []


def test_who_never_returns_a_goodbye_is_hung_up_on_after_ten_seconds() -> None:
    desk = Desk(me=b"z" * 16)
    first = desk.member("alpha")
    link = LinkId(len(desk.fars) + 1)
    far = desk.fars[link] = Far(desk, link)
    desk.node.link_opened(link, framing=Framing.OBJECTS, dialled="mem://alpha", now=desk.now)  # type: ignore[arg-type]
    far.say(hello(cluster="default-cluster", member=first.cluster.me, name="alpha"))
    desk.advance(9.999)
    assert far.hung_up is None
    desk.advance(0.001)
    assert far.hung_up == 1000 and first.hung_up is None


@pytest.mark.parametrize("sender", ["client", "member"])
def test_goodbye_comes_once(sender: str) -> None:
    desk = Desk([spec("slow")])
    far: Far = desk.member("alpha") if sender == "member" else desk.client()
    far.say(Request(1, (call("x", "slow", 1),), here=("x",)))
    far.say(Goodbye("a"), Goodbye("b"), Goodbye("c"))
    assert len(far.take(Goodbye)) == 1 and far.hung_up is None
    assert desk.node.links.sessions[far.link].stage is Stage.BOTH_LEAVE


# -- violations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [CLIENT, Explanation(1), Told(1, b"")])
def test_a_message_out_of_place_ends_the_link_with_the_reason(wrong: Message) -> None:
    desk = Desk([spec("slow")])
    far = desk.client()
    far.say(Request(1, (call("x", "slow", 1),)))
    far.say(wrong)
    assert refusal(far).code == 1010 and far.hung_up == 1002
    far.drop()
    assert desk.cancelled == [desk.running("slow")[0].run]
    desk.finish(desk.running("slow")[0])
    desk.idle()


def test_only_nodes_speak_of_members() -> None:
    desk = Desk()
    far = desk.client()
    far.say(News())
    assert refusal(far).code == 1010 and far.hung_up == 1002


def test_what_came_before_a_violation_counts() -> None:
    desk = Desk()
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=desk.now)
    bodies = [dialects.encode(message) for message in (CLIENT, Ping(3))]
    desk.node.receive(link, b"".join(prefix(len(body)) + body for body in bodies) + b"\x07", now=desk.now)
    sent = [effect for effect in desk.node.drain() if isinstance(effect, (Send, HangUp))]
    kinds = [type(dialects.decode(effect.chunks[1])) for effect in sent[:-1] if isinstance(effect, Send)]
    assert kinds == [Hello, Pong, Refused] and sent[-1] == HangUp(link, 1002)


STORY = (CLIENT, Request(1, (call("x", "slow", 1),)), Ping(3), Request(2, (call("y", "slow", 2),)))


def told_in_pieces(size: int, *messages: Message, end: bytes) -> list[object]:
    """All effects of these messages and then `end`, cut into pieces; what was sent as messages."""
    desk = Desk([spec("slow")])
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=desk.now)
    data = b"".join(prefix(len(body)) + body for body in map(dialects.encode, messages)) + end
    for start in range(0, len(data), size):
        desk.node.receive(link, data[start : start + size], now=desk.now)
    desk.node.link_closed(link, now=desk.now)
    effects = desk.node.drain()
    return [dialects.decode(effect.chunks[1]) if isinstance(effect, Send) else effect for effect in effects]


@pytest.mark.parametrize(
    "end",
    [b"\x07", prefix(1) + b"\xc1", b"\x01\xff\xff\xff", b"".join((prefix(3), b"\x92\x63\x01"))],
    ids=["prefix", "body", "length", "kind"],
)
def test_what_came_before_a_violation_is_handled_however_it_was_cut(end: bytes) -> None:
    whole = told_in_pieces(1 << 20, *STORY, end=end)
    kinds = [type(effect) for effect in whole]
    assert kinds == [Hello, Notify, Run, Pong, Run, Refused, Notify, HangUp, Cancel, Cancel], whole
    for size in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        assert told_in_pieces(size, *STORY, end=end) == whole, size


def test_a_goodbye_is_not_heard_before_what_was_said_before_it() -> None:
    whole = told_in_pieces(1 << 20, *STORY, Goodbye("enough"), end=b"")
    assert [type(effect) for effect in whole] == [Hello, Notify, Run, Pong, Run, Goodbye, Notify, Cancel, Cancel]
    for size in (1, 3, 8, 21):
        assert told_in_pieces(size, *STORY, Goodbye("enough"), end=b"") == whole, size


def test_nothing_after_a_violation_is_looked_at() -> None:
    desk = Desk([spec("slow")])
    far = desk.client()
    for message in (News(), Request(1, (call("x", "slow", 1),)), Ping(1)):
        desk.node.handle(far.link, message, now=desk.now)
    desk.flush()
    assert refusal(far).code == 1010 and desk.runs == {} and far.take(Pong) == []


def test_a_refusal_is_taken_without_an_answer_and_ends_the_link() -> None:
    desk = Desk()
    far = desk.client()
    far.say(Refused(Fault(1040, "go away")), Ping(1))
    assert far.hung_up == 1000 and far.take(Pong) == [] and far.take(Refused) == []
    assert desk.noticed(LinkEnded) == [LinkEnded(far.link, "client", "go away")]


def test_a_message_that_is_too_long_ends_the_link_with_1014() -> None:
    desk = Desk(limits=Limits(message=1000))
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=desk.now)
    desk.node.receive(link, b"\x01" * 1001, now=desk.now)
    sent, hang_up = [effect for effect in desk.node.drain() if isinstance(effect, (Send, HangUp))]
    assert isinstance(sent, Send) and hang_up == HangUp(link, 1009)
    said = dialects.decode(sent.chunks[0])
    assert isinstance(said, Refused) and said.fault.details == {"limit": "message", "value": 1000, "came": 1001}


def test_what_a_closed_or_unknown_link_brings_is_nothing() -> None:
    desk = Desk()
    far = desk.client()
    far.drop()
    far.say(Ask(1))
    desk.node.receive(LinkId(99), b"\x00", now=desk.now)
    desk.node.link_closed(far.link, now=desk.now)
    assert far.heard[1:] == [] and desk.node.drain() == []


# -- bytes as signs of life -------------------------------------------------------------------------------------------


def test_bytes_that_the_peer_takes_keep_a_link() -> None:
    desk = Desk()
    far = desk.client()
    for _ in range(10):
        desk.advance(9)
        desk.node.progress(far.link, now=desk.now)
    assert far.take(Ping) == [] and far.hung_up is None
    desk.advance(20)
    assert far.hung_up == 1001
    desk.node.progress(LinkId(99), now=desk.now)  # one that is gone by then


def test_node_that_stood_still_gives_a_silent_link_time_once() -> None:
    desk = Desk()
    far = desk.client()
    desk.now += 60 * 10**9
    desk.node.wake(now=desk.now)
    desk.flush()
    assert far.hung_up is None, "what came meanwhile may lie unread"
    desk.advance(2.5)
    assert far.hung_up == 1001


def test_bytes_that_complete_no_message_keep_a_link() -> None:
    desk = Desk()
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=desk.now)
    body = dialects.encode(CLIENT)
    desk.node.receive(link, prefix(len(body)) + body + prefix(1000), now=desk.now)
    desk.node.drain()
    for _ in range(10):
        desk.now += 9 * 10**9
        desk.node.receive(link, b"x", now=desk.now)
        desk.node.wake(now=desk.now)
        assert desk.node.drain() == []


def test_a_member_that_takes_bytes_is_not_accused() -> None:
    desk = Desk()
    far = desk.member("alpha")
    for _ in range(100):
        desk.advance(0.4)
        desk.node.progress(far.link, now=desk.now)
    assert [row.standing for row in desk.node.view(now=desk.now).members if not row.me] == ["alive"]


def test_membership_and_pings_are_control_and_the_rest_is_content() -> None:
    desk = Desk([spec("echo")])
    far = desk.client()
    desk.node.handle(far.link, Ping(1), now=desk.now)
    desk.node.handle(far.link, Ask(1), now=desk.now)
    lanes = {type(sent.message): sent.lane for sent in desk.node.drain() if isinstance(sent, Send)}
    assert lanes == {Pong: Lane.CONTROL, Told: Lane.CONTENT}


def test_long_membership_messages_are_content() -> None:
    desk = Desk()
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=desk.now)
    desk.node.receive(link, dialects.encode(hello(cluster="default-cluster", member=b"m" * 16, name="m")), now=desk.now)
    desk.node.drain()
    for length, lane in ((100, Lane.CONTROL), (SHORT, Lane.CONTENT)):
        desk.node.links.send(link, News(claims=(Claim(b"m" * 16, 1, 0, bytes(length)),)))
        assert [sent.lane for sent in desk.node.drain() if isinstance(sent, Send)] == [lane]


def test_the_last_news_of_a_node_does_not_overtake_its_results() -> None:
    desk = Desk()
    far = desk.member("alpha")
    desk.node.leave(now=desk.now)
    sent = [effect for effect in desk.node.drain() if isinstance(effect, Send) and effect.link == far.link]
    last = [effect for effect in sent if isinstance(effect.message, (News, Goodbye))]
    assert isinstance(last[-1].message, Goodbye)
    assert {effect.lane for effect in last[-2:]} == {Lane.CONTENT}


# -- long JSON messages -----------------------------------------------------------------------------------------------


def classic_link(desk: Desk, framing: Framing, body: bytes) -> list[object]:
    """What a node wants at once when a JSON message comes over link 1."""
    desk.node.link_opened(LinkId(1), framing=framing, dialled=None, now=desk.now)
    desk.node.receive(LinkId(1), prefix(len(body)) + body if framing is Framing.STREAM else body, now=desk.now)
    return list(desk.node.drain())


LONG_JSON = b'{"role":"rpc","u":"long","cmds":[' + b"1," * 100_000 + b"x"


@pytest.mark.parametrize("framing", [Framing.STREAM, Framing.CLASSIC_MESSAGES])
def test_long_json_is_decoded_between_other_inputs_and_in_order(framing: Framing) -> None:
    desk = Desk()
    assert classic_link(desk, framing, LONG_JSON) == [Pause(LinkId(1))]
    short = b'{"role":"none","u":"short"}'
    desk.node.receive(LinkId(1), prefix(len(short)) + short if framing is Framing.STREAM else short, now=desk.now)
    assert desk.node.next_timeout() == desk.now, "it goes on at once"
    desk.node.link_opened(LinkId(2), framing=Framing.OBJECTS, dialled=None, now=desk.now)
    desk.node.handle(LinkId(2), CLIENT, now=desk.now)
    answers: list[bytes] = []
    for turn in range(1000):
        desk.node.handle(LinkId(2), Ping(turn), now=desk.now)
        assert [sent.message for sent in desk.node.drain() if isinstance(sent, Send)][-1] == Pong(turn)
        desk.node.wake(now=desk.now)
        effects = desk.node.drain()
        answers += [b"".join(sent.chunks) for sent in effects if isinstance(sent, Send)]
        if Resume(LinkId(1)) in effects:
            break
    assert [b'"u":"long"' in answers[0] or b'"code":1000' in answers[0], b'"u":"short"' in answers[1]] == [True, True]
    assert desk.node.next_timeout() != desk.now


def test_a_link_that_ends_while_long_json_is_decoded() -> None:
    desk = Desk()
    classic_link(desk, Framing.CLASSIC_MESSAGES, LONG_JSON)
    desk.node.link_closed(LinkId(1), now=desk.now)
    assert desk.node.drain() == [Resume(LinkId(1))]
    desk.node.wake(now=desk.now)
    assert desk.node.drain() == []
    assert desk.node.next_timeout() is None
