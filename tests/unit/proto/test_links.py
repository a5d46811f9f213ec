"""A link from open to end, on a real node with stub peers: handshake, pings, goodbyes, violations."""

import json
from typing import Any

import pytest

from mpreg_proto.effects import (
    Cancel,
    Effect,
    Framing,
    HangUp,
    KeepAlive,
    Lane,
    Notify,
    Pause,
    Raised,
    Resume,
    Returned,
    Run,
    Send,
)
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.links import MAX_CONTROL_BYTES
from mpreg_proto.notices import LinkClosed, LinkEndCause, LinkOpened
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CancelRequest,
    Claim,
    Explanation,
    GetView,
    Goodbye,
    GoodbyeReason,
    Gossip,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.session import Stage
from tests.helpers.node_harness import NodeHarness, PeerStub, call, done, spec, value

CLIENT = hello(cluster="", member=b"", name="c")


def opened(harness: NodeHarness, framing: Framing = Framing.OBJECTS) -> PeerStub:
    """Open a link, without any message yet."""
    link = LinkId(len(harness.peers) + 1)
    peer = harness.peers[link] = PeerStub(harness, link)
    harness.node.link_opened(link, framing=framing, dialled=None, now=harness.now)
    return peer


def refusal(peer: PeerStub) -> Fault:
    (sent_refusal,) = peer.take(Refused)
    return sent_refusal.fault


# -- handshake --------------------------------------------------------------------------------------------------------


def test_dialled_side_replies_to_the_hello() -> None:
    harness = NodeHarness()
    peer = opened(harness)
    assert peer.received == []
    peer.send(CLIENT)
    (theirs,) = peer.take(Hello)
    assert (theirs.member, theirs.name, theirs.cluster) == (harness.node.me, "local", "default-cluster")
    assert harness.noticed(LinkOpened) == [LinkOpened(peer.link, "c", None)]


def test_dialling_side_sends_hello_first() -> None:
    harness = NodeHarness()
    harness.node.link_opened(LinkId(1), framing=Framing.NATIVE_MESSAGES, dialled="mem://x", now=harness.now)  # type: ignore[arg-type]
    (sent,) = harness.node.drain()
    assert isinstance(sent, Send) and isinstance(dialects.decode(sent.chunks[0]), Hello)


@pytest.mark.parametrize("framing", [Framing.OBJECTS, Framing.NATIVE_MESSAGES, Framing.STREAM])
def test_handshake_timeout(framing: Framing) -> None:
    harness = NodeHarness()
    link = LinkId(1)
    harness.node.link_opened(link, framing=framing, dialled=None, now=harness.now)
    assert harness.node.next_timeout() == harness.now + 5 * 10**9
    harness.node.wake(now=harness.now + 5 * 10**9 - 1)
    assert harness.node.drain() == []
    harness.node.wake(now=harness.now + 5 * 10**9)
    effects = harness.node.drain()
    assert [type(effect) for effect in effects if not hasattr(effect, "notice")] == [Send, HangUp]
    harness.node.link_closed(link, now=harness.now)
    assert harness.node.next_timeout() is None


@pytest.mark.parametrize("first", [b"{", b'\x00\x00\x00\x02{"'])
def test_handshake_timeout_with_half_a_message(first: bytes) -> None:
    harness = NodeHarness()
    harness.node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=harness.now)
    harness.node.receive(LinkId(1), first[:3], now=harness.now)
    harness.node.wake(now=harness.now + 5 * 10**9)
    assert HangUp(LinkId(1), 1002) in harness.node.drain()


def test_classic_link_without_hello_and_timer() -> None:
    harness = NodeHarness()
    harness.node.link_opened(LinkId(2), framing=Framing.STREAM, dialled=None, now=harness.now)
    harness.node.receive(LinkId(2), prefix(2) + b"{}", now=harness.now)
    assert harness.node.next_timeout() is None, "a byte stream of JSON has no ping"
    (answered,) = harness.node.drain()
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
def test_refusal_of_an_invalid_first_message(first: Message, code: int, close: int) -> None:
    harness = NodeHarness()
    peer = opened(harness)
    peer.send(first)
    assert refusal(peer).code == code and peer.hung_up == close
    peer.send(CLIENT)
    assert peer.received == [], "nothing that still comes is looked at"
    peer.drop()
    ended = harness.noticed(LinkClosed)
    assert len(ended) == 1 and ended[0].reason and harness.noticed(LinkOpened) == []
    harness.idle()


def test_clean_close_of_a_link_to_itself() -> None:
    harness = NodeHarness()
    peer = opened(harness)
    peer.send(hello(cluster="default-cluster", member=harness.node.me, name="local"))
    assert peer.hung_up == 1000 and peer.take(Refused) == []


def test_link_id_opened_twice() -> None:
    harness = NodeHarness()
    peer = harness.client()
    before = harness.node.next_timeout()
    with pytest.raises(LocalProtocolError, match="open already"):
        harness.node.link_opened(peer.link, framing=Framing.STREAM, dialled=None, now=harness.now + 1)
    assert harness.node.drain() == [] and harness.node.next_timeout() == before
    peer.send(Ping(4))
    assert peer.take(Pong) == [Pong(4)]


# -- keepalive --------------------------------------------------------------------------------------------------------


def test_ping_after_ten_and_end_after_twenty_silent_seconds() -> None:
    harness = NodeHarness()
    peer = harness.client()
    harness.advance(9.999)
    assert peer.take(Ping) == []
    harness.advance(0.001)
    assert len(peer.take(Ping)) == 1
    harness.advance(9.999)
    assert peer.hung_up is None and peer.take(Ping) == []
    harness.advance(0.001)
    assert peer.hung_up == 1001
    assert harness.noticed(LinkClosed) == [LinkClosed(peer.link, "client", "silent for 20 s", LinkEndCause.SILENT)]
    harness.advance(60)
    peer.drop()
    assert len(harness.noticed(LinkClosed)) == 1
    harness.idle()


@pytest.mark.parametrize("sign", [Pong(1), Pong(77), Ping(1), CancelRequest(5)])
def test_any_message_is_activity(sign: Message) -> None:
    harness = NodeHarness()
    peer = harness.client()
    for _ in range(6):
        harness.advance(15)
        assert len(peer.take(Ping)) == 1
        peer.send(sign)
    assert peer.hung_up is None
    harness.advance(20)
    assert peer.hung_up == 1001


def test_single_byte_is_activity() -> None:
    harness = NodeHarness()
    link, start = LinkId(1), harness.now
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=start)
    body = dialects.encode(CLIENT)
    harness.node.receive(link, prefix(len(body)) + body, now=start)
    ping = dialects.encode(Ping(1))
    for count, byte in enumerate(prefix(len(ping)) + ping, 1):
        harness.node.wake(now=start + count * 15 * 10**9)
        harness.node.receive(link, bytes([byte]), now=start + count * 15 * 10**9)
    assert not any(isinstance(effect, HangUp) for effect in harness.node.drain())
    last = start + count * 15 * 10**9
    harness.node.wake(now=last + 10 * 10**9)
    harness.node.wake(now=last + 20 * 10**9)
    assert HangUp(link, 1001) in harness.node.drain()


def test_no_ping_on_an_active_link() -> None:
    harness = NodeHarness()
    peer = harness.client()
    for _ in range(30):
        harness.advance(2)
        peer.send(CancelRequest(1))
    assert peer.take(Ping) == []


def test_ping_numbers_and_pongs() -> None:
    harness = NodeHarness()
    peer, other = harness.client(), harness.client()
    harness.advance(10)
    assert len({ping.number for end in (peer, other) for ping in end.take(Ping)}) == 2
    peer.send(Ping(2**63))
    assert peer.take(Pong) == [Pong(2**63)]


def test_quiet_link_with_a_call_is_pinged_and_its_member_probed() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha", spec("far"))
    harness.advance(5)
    member.silent = True
    client.send(Request(1, (call("x", "far"),)))
    session = harness.node.links.sessions[member.link]
    probed: list[bytes] = []
    harness.node.cluster.probe = lambda one, now: probed.append(one) or []  # type: ignore[func-returns-value,method-assign]
    sent = session.last_activity
    while not session.keepalive_sent:
        assert session.last_activity == sent and harness.now - sent < 1.5 * 10**9
        harness.advance(0.01)
    assert harness.now - sent >= 10**9
    assert probed == [member.cluster.me], "others are asked about it soon"
    assert harness.node.links.quiet == {}


def test_link_with_a_call_is_silent_after_three_seconds() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha", spec("far"))
    links = harness.node.links
    harness.node.cluster.probe = lambda one, now: []  # type: ignore[method-assign]
    member.silent = True
    harness.advance(1)
    began = links.last_activity(member.link)
    assert not links.silent(member.link, began + 10**10), "no call is out on it"
    client.send(Request(1, (call("x", "far"),)))
    (request,) = member.take(Request)
    assert not links.silent(member.link, began + 3 * 10**9 - 1)
    assert links.silent(member.link, began + 3 * 10**9)
    member.send(done(request, "x", 1))
    assert not links.silent(member.link, began + 10**10) and not links.silent(LinkId(99), began)


@pytest.mark.parametrize("backlog", [0, 1])
def test_half_open_link_whose_member_has_dialled_again(backlog: int) -> None:
    """Its calls are lost after three silent seconds; a link with a backlog is perhaps only slow."""
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha", spec("far"))
    harness.node.cluster.probe = lambda one, now: []  # type: ignore[method-assign]
    client.send(Request(1, (call("x", "far"),)))
    member.silent = True
    harness.node.links.sessions[member.link].backlog = backlog
    began = harness.node.links.last_activity(member.link)
    harness.advance(2)
    harness.member("alpha", again=member)
    while harness.now - began < 2.9 * 10**9:
        harness.advance(0.1)
    assert member.hung_up is None
    harness.advance(1.2)
    assert (member.hung_up is None) is bool(backlog)
    codes = [result.fault.code for result in client.take(Result) if result.fault is not None]
    assert codes == [1023] * (not backlog)


def test_link_without_calls_any_more_is_pinged_as_late_as_any() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha", spec("far"))
    client.send(Request(1, (call("x", "far"),)))
    (request,) = member.take(Request)
    member.send(done(request, "x", 1))
    member.silent = True
    session = harness.node.links.sessions[member.link]
    assert session.watched
    harness.advance(1.5)
    assert not session.watched and harness.node.links.quiet == {}


def test_suspicion_of_a_silent_member() -> None:
    harness = NodeHarness()
    peer = harness.member("alpha")
    harness.advance(20)
    peer.drop()
    assert [row.standing for row in harness.node.view(now=harness.now).members if not row.me] == ["suspect"]


# -- goodbye ----------------------------------------------------------------------------------------------------------


def test_returned_goodbye_and_close_of_an_idle_link() -> None:
    harness = NodeHarness()
    peer = harness.member("alpha")
    peer.send(Goodbye("idle"))
    assert peer.take(Goodbye) == [Goodbye("")] and peer.hung_up == 1000
    peer.drop()
    assert [row.standing for row in harness.node.view(now=harness.now).members if not row.me] == ["alive"]
    assert harness.noticed(LinkClosed)[-1].reason == ""
    harness.idle()


def test_calls_in_both_directions_finish_before_the_close() -> None:
    harness = NodeHarness([spec("slow")])
    peer, client = harness.member("alpha", spec("peer")), harness.client()
    peer.send(Request(7, (call("x", "slow", 1),), here=("x",)))
    client.send(Request(1, (call("y", "peer", 2),)))
    (dispatched,) = peer.take(Request)
    peer.send(Goodbye("idle"))
    assert peer.take(Goodbye) and peer.hung_up is None
    harness.finish(harness.running("slow")[0])
    assert value(peer.take(Result)[0], "x") == 1 and peer.hung_up is None
    peer.send(done(dispatched, "y", 2))
    assert peer.hung_up == 1000 and value(client.take(Result)[0], "y") == 2
    peer.drop()
    harness.idle()


def test_last_result_before_the_close() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.member("alpha")
    peer.send(Request(7, (call("x", "slow", 1),), here=("x",)))
    peer.send(Goodbye("idle"))
    harness.finish(harness.running("slow")[0])
    assert value(peer.take(Result)[0], "x") == 1 and peer.hung_up == 1000


def test_refusal_of_a_member_request_after_goodbye() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.member("alpha")
    peer.send(Request(1, (call("x", "slow", 1),), here=("x",)), Goodbye("idle"))
    peer.send(Request(2, (call("x", "slow", 2),), here=("x",)), Request(3, (call("x", "slow", 3),)))
    faults = {result.id: result.fault for result in peer.take(Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {2: 1024, 3: 1024}
    assert all(fault is not None and fault.details == {"maybe_executed": False} for fault in faults.values())
    assert len(harness.runs) == 1


def test_refusal_of_a_client_request_after_goodbye() -> None:
    harness = NodeHarness([spec("slow")])
    client = harness.client()
    client.send(Request(1, (call("x", "slow", 1),)), Goodbye("enough"), Request(2, (call("x", "slow", 2),)))
    (refused,) = client.take(Result)
    assert refused.id == 2 and refused.fault is not None and refused.fault.code == 1024
    harness.finish(harness.running("slow")[0])
    assert value(client.take(Result)[0], "x") == 1 and client.hung_up == 1000


def test_no_calls_over_a_link_after_goodbye() -> None:
    harness = NodeHarness([spec("slow")])
    peer, client = harness.member("alpha", spec("peer", idempotent=True)), harness.client()
    peer.send(Request(1, (call("x", "slow", 1),), here=("x",)), Goodbye("idle"))
    client.send(Request(1, (call("y", "peer", 2),)))
    assert peer.take(Request) == []
    second = harness.member("alpha", again=peer)
    assert len(second.take(Request)) == 1


def test_link_with_a_running_call_outlasts_the_goodbye_timer() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.member("alpha")
    peer.send(Request(1, (call("x", "slow", 1),), timeout=200 * SECOND, here=("x",)), Goodbye("idle"))
    for _ in range(15):
        harness.advance(9)
        peer.send(Ping(1))
    assert peer.hung_up is None
    harness.finish(harness.running("slow")[0])
    assert value(peer.take(Result)[0], "x") == 1 and peer.hung_up == 1000


def test_link_without_calls_closes_ten_seconds_after_its_goodbye() -> None:
    """The peer never sends Goodbye itself."""
    harness = NodeHarness()
    peer = harness.member("alpha")
    harness.node.links.goodbye(peer.link, GoodbyeReason.IDLE, harness.now)
    harness.flush()
    harness.advance(9.999)
    assert peer.hung_up is None
    harness.advance(0.001)
    assert peer.hung_up == 1000


def test_closing_link_waits_for_what_comes_slowly() -> None:
    """The messages that its peer sent before its own goodbye take 25 s on a slow link."""
    harness = NodeHarness()
    peer = harness.member("alpha")
    harness.node.links.goodbye(peer.link, GoodbyeReason.IDLE, harness.now)
    harness.flush()
    for number in range(5):
        harness.advance(5)
        peer.send(CancelRequest(number))
        assert peer.hung_up is None
    harness.advance(15)
    assert peer.hung_up == 1000


def test_dialler_of_a_duplicate_link_sends_goodbye_first() -> None:
    """This node dialled the duplicate, so it sends Goodbye, and it closes the link when the peer has returned it."""
    harness = NodeHarness(me=b"z" * 16)
    first = harness.member("alpha")
    link = LinkId(len(harness.peers) + 1)
    peer = harness.peers[link] = PeerStub(harness, link)
    harness.node.link_opened(link, framing=Framing.OBJECTS, dialled="mem://alpha", now=harness.now)  # type: ignore[arg-type]
    harness.flush()
    peer.send(hello(cluster="default-cluster", member=first.cluster.me, name="alpha"))
    assert peer.take(Goodbye) == [Goodbye("duplicate")] and peer.hung_up is None
    assert harness.node.links.sessions[link].stage is Stage.LOCAL_CLOSING
    peer.send(Goodbye(""))
    assert peer.hung_up == 1000 and first.hung_up is None and peer.take(Goodbye) == []


def test_hang_up_ten_seconds_after_an_unreturned_goodbye() -> None:
    harness = NodeHarness(me=b"z" * 16)
    first = harness.member("alpha")
    link = LinkId(len(harness.peers) + 1)
    peer = harness.peers[link] = PeerStub(harness, link)
    harness.node.link_opened(link, framing=Framing.OBJECTS, dialled="mem://alpha", now=harness.now)  # type: ignore[arg-type]
    peer.send(hello(cluster="default-cluster", member=first.cluster.me, name="alpha"))
    harness.advance(9.999)
    assert peer.hung_up is None
    harness.advance(0.001)
    assert peer.hung_up == 1000 and first.hung_up is None


@pytest.mark.parametrize("sender", ["client", "member"])
def test_one_goodbye_on_a_link(sender: str) -> None:
    harness = NodeHarness([spec("slow")])
    peer: PeerStub = harness.member("alpha") if sender == "member" else harness.client()
    peer.send(Request(1, (call("x", "slow", 1),), here=("x",)))
    peer.send(Goodbye("a"), Goodbye("b"), Goodbye("c"))
    assert len(peer.take(Goodbye)) == 1 and peer.hung_up is None
    assert harness.node.links.sessions[peer.link].stage is Stage.BOTH_CLOSING


# -- violations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [CLIENT, Explanation(1), View(1, b"")])
def test_message_of_a_wrong_type_ends_the_link(wrong: Message) -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.client()
    peer.send(Request(1, (call("x", "slow", 1),)))
    peer.send(wrong)
    assert refusal(peer).code == 1010 and peer.hung_up == 1002
    peer.drop()
    assert harness.cancelled == [harness.running("slow")[0].run]
    harness.finish(harness.running("slow")[0])
    harness.idle()


def test_gossip_from_a_client_ends_the_link() -> None:
    harness = NodeHarness()
    peer = harness.client()
    peer.send(Gossip())
    assert refusal(peer).code == 1010 and peer.hung_up == 1002


def test_messages_before_a_violation_are_handled() -> None:
    harness = NodeHarness()
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=harness.now)
    bodies = [dialects.encode(message) for message in (CLIENT, Ping(3))]
    harness.node.receive(link, b"".join(prefix(len(body)) + body for body in bodies) + b"\x07", now=harness.now)
    sent = [effect for effect in harness.node.drain() if isinstance(effect, (Send, HangUp))]
    kinds = [type(dialects.decode(effect.chunks[1])) for effect in sent[:-1] if isinstance(effect, Send)]
    assert kinds == [Hello, Pong, Refused] and sent[-1] == HangUp(link, 1002)


STORY = (CLIENT, Request(1, (call("x", "slow", 1),)), Ping(3), Request(2, (call("y", "slow", 2),)))


def effects_of_pieces(size: int, *messages: Message, end: bytes) -> list[object]:
    """Return all effects of these messages and `end`, received in pieces; each sent message is decoded."""
    harness = NodeHarness([spec("slow")])
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=harness.now)
    data = b"".join(prefix(len(body)) + body for body in map(dialects.encode, messages)) + end
    for start in range(0, len(data), size):
        harness.node.receive(link, data[start : start + size], now=harness.now)
    harness.node.link_closed(link, now=harness.now)
    effects = harness.node.drain()
    return [dialects.decode(effect.chunks[1]) if isinstance(effect, Send) else effect for effect in effects]


@pytest.mark.parametrize(
    "end",
    [b"\x07", prefix(1) + b"\xc1", b"\x01\xff\xff\xff", b"".join((prefix(3), b"\x92\x63\x01"))],
    ids=["prefix", "body", "length", "kind"],
)
def test_messages_before_a_violation_in_pieces_of_any_size(end: bytes) -> None:
    whole = effects_of_pieces(1 << 20, *STORY, end=end)
    kinds = [type(effect) for effect in whole]
    assert kinds == [Hello, Notify, Run, Pong, Run, Refused, Notify, HangUp, Cancel, Cancel], whole
    for size in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        assert effects_of_pieces(size, *STORY, end=end) == whole, size


def test_goodbye_handled_in_the_order_of_messages() -> None:
    whole = effects_of_pieces(1 << 20, *STORY, Goodbye("enough"), end=b"")
    assert [type(effect) for effect in whole] == [Hello, Notify, Run, Pong, Run, Goodbye, Notify, Cancel, Cancel]
    for size in (1, 3, 8, 21):
        assert effects_of_pieces(size, *STORY, Goodbye("enough"), end=b"") == whole, size


def test_messages_after_a_violation_are_ignored() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.client()
    for message in (Gossip(), Request(1, (call("x", "slow", 1),)), Ping(1)):
        harness.node.handle(peer.link, message, now=harness.now)
    harness.flush()
    assert refusal(peer).code == 1010 and harness.runs == {} and peer.take(Pong) == []


def test_received_refusal_ends_the_link() -> None:
    harness = NodeHarness()
    peer = harness.client()
    peer.send(Refused(Fault(1040, "go away")), Ping(1))
    assert peer.hung_up == 1000 and peer.take(Pong) == [] and peer.take(Refused) == []
    assert harness.noticed(LinkClosed) == [LinkClosed(peer.link, "client", "go away", LinkEndCause.REFUSED)]


def test_message_over_the_limit_ends_the_link_with_1014() -> None:
    harness = NodeHarness(limits=Limits(message=1000))
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=harness.now)
    harness.node.receive(link, b"\x01" * 1001, now=harness.now)
    sent, hang_up = [effect for effect in harness.node.drain() if isinstance(effect, (Send, HangUp))]
    assert isinstance(sent, Send) and hang_up == HangUp(link, 1009)
    sent_refusal = dialects.decode(sent.chunks[0])
    assert isinstance(sent_refusal, Refused) and sent_refusal.fault.details == {
        "limit": "message",
        "value": 1000,
        "came": 1001,
    }


@pytest.mark.parametrize(("link", "text"), [(1, "link 1 is closed already"), (99, "link 99 was never opened")])
def test_input_of_a_closed_or_unknown_link(link: LinkId, text: str) -> None:
    harness = NodeHarness()
    peer = harness.client()
    peer.drop()
    node, now = harness.node, harness.now
    for act in (
        lambda: node.receive(link, b"\x00", now=now),
        lambda: node.handle(link, GetView(1), now=now),
        lambda: node.link_closed(link, now=now),
        lambda: node.progress(link, now=now),
        lambda: node.backlog(link, 5, now=now),
    ):
        with pytest.raises(LocalProtocolError, match=text):
            act()
    assert peer.received[1:] == [] and node.drain() == []


def test_number_of_a_link_used_twice() -> None:
    harness = NodeHarness()
    peer = harness.client()
    for text in ("is open already", "has been used before"):
        with pytest.raises(LocalProtocolError, match=f"link {peer.link} {text}"):
            harness.node.link_opened(peer.link, framing=Framing.STREAM, dialled=None, now=harness.now)
        peer.drop()
    assert harness.node.drain() == []


def test_number_of_a_hung_up_link_used_again() -> None:
    harness = NodeHarness()
    peer = harness.client()
    harness.node.leave(now=harness.now)
    harness.flush()
    assert peer.hung_up == 1000 and peer.link not in harness.node.links.sessions
    harness.node.handle(peer.link, GetView(1), now=harness.now)
    harness.node.progress(peer.link, now=harness.now)
    assert harness.node.drain() == [], "what still arrives is ignored"
    with pytest.raises(LocalProtocolError, match="is open already"):
        harness.node.link_opened(peer.link, framing=Framing.STREAM, dialled=None, now=harness.now)
    harness.node.link_closed(peer.link, now=harness.now)
    with pytest.raises(LocalProtocolError, match="is closed already"):
        harness.node.link_closed(peer.link, now=harness.now)


@pytest.mark.parametrize(
    ("data", "text"),
    [("{}", "carries bytes, got text"), (None, "expected bytes or text from a link, got NoneType"), ([1], "got list")],
)
def test_data_that_no_stream_delivers(data: Any, text: str) -> None:
    harness = NodeHarness()
    harness.node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=harness.now)
    with pytest.raises(LocalProtocolError, match=text):
        harness.node.receive(LinkId(1), data, now=harness.now)
    assert harness.node.drain() == [] and harness.node.links.is_open(LinkId(1))


# -- links of JSON clients --------------------------------------------------------------------------------------------


def json_link(harness: NodeHarness) -> LinkId:
    """Open a WebSocket link of a JSON client."""
    harness.node.link_opened(LinkId(1), framing=Framing.CLASSIC_MESSAGES, dialled=None, now=harness.now)
    return LinkId(1)


def woken(harness: NodeHarness, seconds: float) -> list[Effect]:
    """Let time pass; return the effects."""
    effects: list[Effect] = []
    end = harness.now + round(seconds * 10**9)
    while (due := harness.node.next_timeout()) is not None and due <= end:
        harness.now = max(harness.now, due)
        harness.node.wake(now=harness.now)
        effects += harness.node.drain()
    harness.now = end
    return effects


def test_silent_json_link_is_pinged_then_closed() -> None:
    harness = NodeHarness()
    link = json_link(harness)
    assert woken(harness, 9.9) == []
    assert woken(harness, 0.1) == [KeepAlive(link)]
    (closed, hang_up) = woken(harness, 10)
    assert hang_up == HangUp(link, 1001)
    assert isinstance(closed, Notify) and isinstance(closed.notice, LinkClosed)
    assert closed.notice.cause is LinkEndCause.SILENT


def test_json_link_with_pongs_stays_open() -> None:
    harness = NodeHarness()
    link = json_link(harness)
    for _ in range(5):
        assert woken(harness, 10) == [KeepAlive(link)]
        harness.node.progress(link, now=harness.now)


# -- backlog ----------------------------------------------------------------------------------------------------------


def test_json_client_with_a_long_backlog_is_paused() -> None:
    harness = NodeHarness()
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.CLASSIC_MESSAGES, dialled=None, now=harness.now)
    harness.node.drain()
    limit = Limits().backlog
    for queued, effects in (
        (limit - 1, []),
        (limit, [Pause(link)]),
        (3 * limit, []),
        (limit // 2 + 1, []),
        (limit // 2, [Resume(link)]),
        (0, []),
    ):
        harness.node.backlog(link, queued, now=harness.now)
        assert harness.node.drain() == effects, queued


def test_native_links_with_a_long_backlog_are_read() -> None:
    harness = NodeHarness()
    for peer in (harness.member("alpha"), harness.client()):
        harness.node.backlog(peer.link, 64 * Limits().backlog, now=harness.now)
        assert harness.node.drain() == []


def test_peer_that_takes_nothing_is_hung_up() -> None:
    harness = NodeHarness()
    peer = harness.client()
    harness.node.backlog(peer.link, 100_000, now=harness.now)
    for queued in range(90_000, 10_000, -10_000):
        harness.advance(9)
        harness.node.backlog(peer.link, queued, now=harness.now)
    assert peer.hung_up is None, "each time it has taken some"
    harness.advance(9)
    peer.send(GetView(1))
    assert peer.hung_up is None
    harness.advance(1)
    assert peer.hung_up == 1013
    (notice,) = harness.noticed(LinkClosed)
    assert (notice.cause, notice.reason) == (LinkEndCause.STALLED, "took none of 20000 bytes for 10 s")


def test_last_bytes_of_a_message_count_for_the_stall() -> None:
    """A short backlog that shrinks is no sign of life, but its peer is not one that takes nothing."""
    harness = NodeHarness()
    peer = harness.client()
    harness.node.backlog(peer.link, 1000, now=harness.now)
    for queued in range(900, 0, -100):
        harness.advance(9)
        peer.send(GetView(1))
        harness.node.backlog(peer.link, queued, now=harness.now)
    assert peer.hung_up is None


def test_backlog_that_was_sent_has_no_timer() -> None:
    harness = NodeHarness()
    peer = harness.client()
    harness.node.backlog(peer.link, 1000, now=harness.now)
    harness.node.backlog(peer.link, 0, now=harness.now)
    for _ in range(3):
        harness.advance(9)
        peer.send(GetView(1))
    assert peer.hung_up is None


@pytest.mark.parametrize(
    "reports", [(7, 0), (7, 3, 0), (1204, 1200, 1196, 600, 0), (MAX_CONTROL_BYTES + 4, MAX_CONTROL_BYTES, 0)]
)
def test_short_writes_to_a_silent_peer_are_no_sign_of_life(reports: tuple[int, ...]) -> None:
    """The system takes pings and gossip for a peer that is gone, whole or in pieces, and the driver reports each."""
    harness = NodeHarness()
    peer = harness.client()
    begun = harness.now
    while peer.hung_up is None:
        harness.advance(1)
        for queued in reports if peer.hung_up is None else ():
            harness.node.backlog(peer.link, queued, now=harness.now)
        assert harness.now - begun <= Limits().gone_after
    assert peer.hung_up == 1001
    (notice,) = harness.noticed(LinkClosed)
    assert notice.cause is LinkEndCause.SILENT


def test_long_backlog_that_becomes_shorter_is_a_sign_of_life() -> None:
    harness = NodeHarness()
    peer = harness.client()
    for queued in range(900_000, 0, -100_000):
        harness.advance(5)
        harness.node.backlog(peer.link, queued, now=harness.now)
    assert peer.hung_up is None


@pytest.mark.parametrize("queued", [-1, 1.5, "many"])
def test_backlog_that_is_no_number_of_bytes(queued: Any) -> None:
    harness = NodeHarness()
    peer = harness.client()
    with pytest.raises(LocalProtocolError, match="expected a number of bytes, 0 or more"):
        harness.node.backlog(peer.link, queued, now=harness.now)


# -- what belonged to a link ------------------------------------------------------------------------------------------


def test_bodies_of_a_link_are_cancelled_at_its_hang_up() -> None:
    harness = NodeHarness([spec("slow")])
    alpha = harness.member("alpha")
    alpha.send(Request(1, (call("x", "slow"),), here=("x",)))
    (run,) = harness.running("slow")
    alpha.send(CLIENT)
    assert alpha.hung_up == 1002 and harness.cancelled == [run.run], "before the transport has ended"


def test_calls_on_a_link_are_settled_at_its_hang_up() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", spec("once"))
    client.send(Request(1, (call("x", "once"),)))
    assert alpha.take(Request)
    alpha.send(CLIENT)
    (result,) = client.take(Result)
    assert alpha.hung_up == 1002 and result.fault is not None and result.fault.code == 1023


# -- bytes as activity ------------------------------------------------------------------------------------------------


def test_written_bytes_are_activity() -> None:
    harness = NodeHarness()
    peer = harness.client()
    for _ in range(10):
        harness.advance(9)
        harness.node.progress(peer.link, now=harness.now)
    assert peer.take(Ping) == [] and peer.hung_up is None
    harness.advance(20)
    assert peer.hung_up == 1001


def test_stalled_node_extends_a_silent_link_once() -> None:
    harness = NodeHarness()
    peer = harness.client()
    harness.now += 60 * 10**9
    harness.node.wake(now=harness.now)
    harness.flush()
    assert peer.hung_up is None, "what came meanwhile may lie unread"
    harness.advance(2.5)
    assert peer.hung_up == 1001


def test_bytes_of_an_incomplete_message_are_activity() -> None:
    harness = NodeHarness()
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=harness.now)
    body = dialects.encode(CLIENT)
    harness.node.receive(link, prefix(len(body)) + body + prefix(1000), now=harness.now)
    harness.node.drain()
    for _ in range(10):
        harness.now += 9 * 10**9
        harness.node.receive(link, b"x", now=harness.now)
        harness.node.wake(now=harness.now)
        assert harness.node.drain() == []


def test_no_suspicion_of_a_member_with_written_bytes() -> None:
    harness = NodeHarness()
    peer = harness.member("alpha")
    for _ in range(100):
        harness.advance(0.4)
        harness.node.progress(peer.link, now=harness.now)
    assert [row.standing for row in harness.node.view(now=harness.now).members if not row.me] == ["alive"]


def test_control_and_content_lanes() -> None:
    harness = NodeHarness([spec("echo")])
    peer = harness.client()
    harness.node.handle(peer.link, Ping(1), now=harness.now)
    harness.node.handle(peer.link, GetView(1), now=harness.now)
    lanes = {type(sent.message): sent.lane for sent in harness.node.drain() if isinstance(sent, Send)}
    assert lanes == {Pong: Lane.CONTROL, View: Lane.CONTENT}


def test_content_lane_for_long_gossip() -> None:
    harness = NodeHarness()
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=harness.now)
    harness.node.receive(
        link, dialects.encode(hello(cluster="default-cluster", member=b"m" * 16, name="m")), now=harness.now
    )
    harness.node.drain()
    for length, lane in ((100, Lane.CONTROL), (MAX_CONTROL_BYTES, Lane.CONTENT)):
        harness.node.links.send(link, Gossip(claims=(Claim(b"m" * 16, 1, 0, bytes(length)),)))
        assert [sent.lane for sent in harness.node.drain() if isinstance(sent, Send)] == [lane]


def test_content_lane_for_the_last_gossip() -> None:
    harness = NodeHarness()
    peer = harness.member("alpha")
    harness.node.leave(now=harness.now)
    sent = [effect for effect in harness.node.drain() if isinstance(effect, Send) and effect.link == peer.link]
    last = [effect for effect in sent if isinstance(effect.message, (Gossip, Goodbye))]
    assert isinstance(last[-1].message, Goodbye)
    assert {effect.lane for effect in last[-2:]} == {Lane.CONTENT}


# -- long JSON messages -----------------------------------------------------------------------------------------------


def classic_link(harness: NodeHarness, framing: Framing, body: bytes) -> list[object]:
    """Return the effects of a node right after a JSON message on link 1."""
    harness.node.link_opened(LinkId(1), framing=framing, dialled=None, now=harness.now)
    harness.node.receive(LinkId(1), prefix(len(body)) + body if framing is Framing.STREAM else body, now=harness.now)
    return list(harness.node.drain())


LONG_JSON = b'{"role":"rpc","u":"long","cmds":[' + b"1," * 100_000 + b"x"


@pytest.mark.parametrize("framing", [Framing.STREAM, Framing.CLASSIC_MESSAGES])
def test_long_json_decoded_in_steps(framing: Framing) -> None:
    harness = NodeHarness()
    assert classic_link(harness, framing, LONG_JSON) == [Pause(LinkId(1))]
    short = b'{"role":"none","u":"short"}'
    harness.node.receive(LinkId(1), prefix(len(short)) + short if framing is Framing.STREAM else short, now=harness.now)
    assert harness.node.next_timeout() == harness.now, "it goes on at once"
    harness.node.link_opened(LinkId(2), framing=Framing.OBJECTS, dialled=None, now=harness.now)
    harness.node.handle(LinkId(2), CLIENT, now=harness.now)
    answers: list[bytes] = []
    for turn in range(1000):
        harness.node.handle(LinkId(2), Ping(turn), now=harness.now)
        assert [sent.message for sent in harness.node.drain() if isinstance(sent, Send)][-1] == Pong(turn)
        harness.node.wake(now=harness.now)
        effects = harness.node.drain()
        answers += [b"".join(sent.chunks) for sent in effects if isinstance(sent, Send)]
        if Resume(LinkId(1)) in effects:
            break
    assert [b'"u":"long"' in answers[0] or b'"code":1000' in answers[0], b'"u":"short"' in answers[1]] == [True, True]
    assert harness.node.next_timeout() != harness.now


def test_link_end_while_long_json_is_decoded() -> None:
    harness = NodeHarness()
    classic_link(harness, Framing.CLASSIC_MESSAGES, LONG_JSON)
    harness.node.link_closed(LinkId(1), now=harness.now)
    assert harness.node.drain() == [Resume(LinkId(1))]
    harness.node.wake(now=harness.now)
    assert harness.node.drain() == []
    assert harness.node.next_timeout() is None


@pytest.mark.parametrize("framing", Framing)
def test_handshake_timeout_of_a_dialled_link(framing: Framing) -> None:
    """Also if the other side speaks no native dialect, and so never sends a hello."""
    harness = NodeHarness()
    harness.node.link_opened(LinkId(1), framing=framing, dialled=Address("ws://x"), now=harness.now)
    harness.node.drain()
    harness.node.wake(now=harness.now + harness.node.config.limits.handshake)
    assert HangUp in {type(effect) for effect in harness.node.drain()}


# -- flow control of JSON clients -------------------------------------------------------------------------------------


def json_request(number: int, size: int = 0) -> bytes:
    cmds = [{"name": "x", "fun": "add", "args": ["y" * size]}]
    return json.dumps({"role": "rpc", "u": f"{number}", "cmds": cmds}).encode()


class JsonClient:
    """A JSON client of a node that offers `add`, and the effects on its link."""

    def __init__(self, **limits: int) -> None:
        self.harness = NodeHarness([spec("add", concurrency=100)], limits=Limits(**limits))
        self.link = json_link(self.harness)

    def send(self, *texts: bytes) -> list[str]:
        for text in texts:
            self.harness.node.receive(self.link, text, now=self.harness.now)
        return self.effects()

    def finish(self, value: object = None) -> list[str]:
        """End the oldest body."""
        run = self.harness.runs.pop(next(iter(self.harness.runs)))
        self.harness.node.finished(run.run, Returned(value), now=self.harness.now)
        return self.effects()

    def effects(self) -> list[str]:
        """Return the kinds of the effects on the link, with the `u` or the error code of each answer."""
        found: list[str] = []
        for effect in self.harness.node.drain():
            if isinstance(effect, Run):
                self.harness.runs[effect.run] = effect
            elif isinstance(effect, Send):
                self.answer = json.loads(effect.chunks[0])
                error = self.answer["error"]
                found.append(f"{error['code']}" if error else self.answer["u"])
            elif not isinstance(effect, Notify):
                found.append(type(effect).__name__)
        return found


def test_json_client_with_many_requests_in_flight_is_paused() -> None:
    client = JsonClient(client_requests=4)
    assert client.send(*[json_request(number) for number in range(3)]) == []
    assert client.send(json_request(3)) == ["Pause"]
    assert client.finish() == ["0"]
    assert client.finish() == ["1", "Resume"], "at half"
    assert client.send(json_request(4)) == []


def test_json_client_with_many_bytes_in_flight_is_paused() -> None:
    client = JsonClient(client_bytes=1000)
    assert client.send(json_request(0, 800)) == []
    assert client.send(json_request(1, 200)) == ["Pause"]
    assert client.finish() == ["0", "Resume"]


def test_json_requests_beyond_the_bound_in_one_piece_are_served() -> None:
    harness = NodeHarness([spec("add", concurrency=100)], limits=Limits(client_requests=2))
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=harness.now)
    bodies = [json_request(number) for number in range(6)]
    harness.node.receive(link, b"".join(prefix(len(body)) + body for body in bodies), now=harness.now)
    effects = harness.node.drain()
    assert [type(effect) for effect in effects if not isinstance(effect, Notify)] == [Pause, *[Run] * 6]


def test_json_client_is_read_on_after_its_inline_calls() -> None:
    client = JsonClient(client_requests=1)
    assert client.send(b'{"role":"none"}') == ["Pause", "1004", "Resume"]


def test_paused_json_client_counts_as_alive() -> None:
    client = JsonClient(client_requests=1)
    client.send(b'{"role":"rpc","cmds":[{"name":"x","fun":"add"}],"timeout":86400}')
    assert woken(client.harness, 3600) == [], "no answer to a ping could be read"
    assert client.finish() == ["", "Resume"]
    assert woken(client.harness, 11) == [KeepAlive(client.link)]


def test_answer_beyond_what_is_kept_for_a_json_client() -> None:
    client = JsonClient(json_answers=100_000)
    client.send(*[json_request(number) for number in range(5)])
    assert client.finish("y" * 60_000) == ["0"]
    client.harness.node.backlog(client.link, 60_000, now=client.harness.now)
    assert client.finish("y" * 60_000) == ["1014"]
    details = client.answer["error"]["details"]
    assert (details["limit"], details["value"]) == ("json_answers", 100_000)
    assert 120_000 < details["came"] < 120_100 and details["maybe_executed"] is True
    assert client.finish("y" * 30_000) == ["2"], "the link stays open"
    client.harness.node.backlog(client.link, 100_000, now=client.harness.now)
    assert client.finish("y" * 500) == ["3"], "an answer shorter than the error is sent"
    client.harness.node.backlog(client.link, 0, now=client.harness.now)
    assert client.finish("y" * 60_000) == ["4"]


def test_answers_of_one_input_for_a_json_client() -> None:
    """The driver has not reported them yet."""
    client = JsonClient(json_answers=100_000)
    client.send(*[json_request(number) for number in range(3)])
    for run in list(client.harness.runs.values())[:2]:
        client.harness.node.finished(run.run, Returned("y" * 60_000), now=client.harness.now)
    assert client.effects() == ["0", "1014"]
    client.harness.runs = dict(list(client.harness.runs.items())[2:])
    assert client.finish("y" * 60_000) == ["2"], "the driver reports no backlog, so all of it has left"


def test_error_beyond_what_is_kept_for_a_json_client_is_shortened() -> None:
    client = JsonClient(json_answers=2_000)
    client.send(json_request(0))
    client.harness.node.backlog(client.link, 2_000, now=client.harness.now)
    run = client.harness.runs.pop(next(iter(client.harness.runs)))
    client.harness.node.finished(run.run, Raised("ValueError", "n" * 10_000, "t" * 10_000), now=client.harness.now)
    assert client.effects() == ["1003"]
    assert len(json.dumps(client.answer)) < 2_000
    assert client.answer["error"]["details"]["function"] == "add"
