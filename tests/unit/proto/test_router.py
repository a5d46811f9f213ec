"""The router: a handler for every type of message and action, the order of causes, and the messages of each peer."""

import typing
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from mpreg_proto.cluster.actions import AbortLink, ClusterOutput, LinkSelected, MemberLost, OffersChanged, SendMessage
from mpreg_proto.effects import Dial, Effect, Notify
from mpreg_proto.errors import CloseCode, Fault
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.links import _CONTROL_HANDLERS, Links
from mpreg_proto.notices import DrainRequested, GossipTooLong, Left, LinkEndCause, PeerUnreachable
from mpreg_proto.requests.actions import CallFinished, Dispatch, RequestOutput
from mpreg_proto.requests.relay import Forward
from mpreg_proto.router import (
    _ACTION_HANDLERS,
    _MESSAGE_HANDLERS,
    ActionRunner,
    Machines,
    OpenLinks,
    Output,
    Router,
)
from mpreg_proto.sending import LINK_GONE, SENT, SendOutcome, TooLong
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import (
    BucketHashes,
    Claim,
    DialBack,
    Digest,
    Done,
    Drain,
    DrainReply,
    Explain,
    Explanation,
    Fetch,
    GetView,
    Goodbye,
    Gossip,
    IndirectAck,
    Message,
    Ping,
    PingReq,
    Pong,
    Pull,
    Refused,
    Request,
    Result,
    View,
)
from tests.helpers.node_harness import NodeHarness, PeerStub, call, done, spec, value

ANN, BOB = MemberId(b"a" * 16), MemberId(b"b" * 16)
LINK = LinkId(1)
PARTS = {
    Router._relay,
    Router._on_dispatch,
    Router._drain,
    ActionRunner._send_items,
    ActionRunner._item_too_long,
    Router._pass_drain_on,
    Router._refuses_more,
}


class StubLinks:
    """Links that take messages of at most `limit` claims or view bytes, and record them; none after `close`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self.sent: list[Message] = []

    def send(self, link: LinkId, message: Message) -> SendOutcome:
        if self.closed:
            return LINK_GONE
        size = len(message.claims) if isinstance(message, Gossip) else len(cast("View", message).view)
        if size > self.limit:
            return TooLong(size, self.limit)
        self.sent.append(message)
        return SENT

    def send_or_close(self, link: LinkId, message: Message) -> None:
        assert self.send(link, message) is SENT

    sessions: typing.ClassVar = {LINK: None}

    def is_flooded(self, session: object) -> bool:
        return False


def machines(**parts: Any) -> tuple[Machines, list[Effect]]:
    """Return machines of which only `parts` exist, and their log."""
    log: list[Effect] = []
    stub = SimpleNamespace(**{"links": None, "replies": None, "worker": None, **parts, "log": log})
    return cast("Machines", stub), log


# -- the tables -------------------------------------------------------------------------------------------------------


def test_each_message_type_has_a_handler() -> None:
    """`Links` answers a `Ping` itself, so it never comes to the router."""
    assert set(_MESSAGE_HANDLERS) == {*typing.get_args(Message), BadRequest} - {Ping}
    assert Ping in _CONTROL_HANDLERS
    harness = NodeHarness()
    peer = harness.client()
    peer.send(Ping(5))
    assert peer.take(Pong) == [Pong(5)]


def test_each_action_has_a_handler_or_is_an_effect() -> None:
    outputs = {*typing.get_args(RequestOutput), *typing.get_args(ClusterOutput), Forward}
    assert outputs == set(typing.get_args(Output))
    effects = set(typing.get_args(Effect))
    assert set(_ACTION_HANDLERS) == outputs - effects
    assert {kind.__name__ for kind in outputs & effects} == {"Run", "Cancel", "Demand", "Feed", "Notify", "Dial"}


@pytest.mark.parametrize(("table", "owner"), [(_MESSAGE_HANDLERS, Router), (_ACTION_HANDLERS, ActionRunner)])
def test_each_handler_is_in_its_table(table: dict[type, object], owner: type) -> None:
    own = {one for name, one in vars(owner).items() if name.startswith("_") and not name.startswith("__")}
    assert set(table.values()) == own - PARTS, "these are parts of others"


# -- the order of causes ----------------------------------------------------------------------------------------------


def test_action_runs_after_all_that_was_before_it() -> None:
    trace: list[object] = []
    first, second, last = (Notify(PeerUnreachable(Address(name))) for name in ("first", "second", "last"))

    class Coordinator:
        def member_lost(self, member: MemberId, now: int) -> list[Output]:
            trace.append(("lost", member, now, len(log)))
            return [second, OffersChanged(("f",))]

        def link_selected(self, member: MemberId, now: int) -> list[Output]:
            trace.append(("selected", member, now, len(log)))
            return []

        def offers_changed(
            self, now: int, *, functions: tuple[str, ...], members: tuple[MemberId, ...]
        ) -> list[Output]:
            trace.append(("offers", functions, members, len(log)))
            return [last]

    made, log = machines(coordinator=Coordinator())
    ActionRunner(made).run([MemberLost(ANN), LinkSelected(BOB, LINK), first], 7)
    assert trace == [("lost", ANN, 7, 0), ("selected", BOB, 7, 0), ("offers", ("f",), (), 2)]
    assert log == [first, second, last]


def test_effects_go_to_the_log_unchanged() -> None:
    made, log = machines()
    effects = [Dial(Address("ws://a:1")), Notify(Left())]
    ActionRunner(made).run(effects, 0)
    assert len(log) == 2 and all(one is other for one, other in zip(log, effects, strict=True))


def test_own_call_finished_goes_to_the_coordinator_and_others_to_replies() -> None:
    found: list[object] = []
    coordinator = SimpleNamespace(call_finished=lambda *given: found.append(("coordinator", *given)))
    replies = SimpleNamespace(add=lambda *given, last: found.append(("replies", *given, last)))
    made, _ = machines(coordinator=coordinator, replies=replies)
    row = Done("x", b"\x01")
    ActionRunner(made).run([CallFinished(LinkId(0), 5, row, True), CallFinished(LINK, 6, row, False)], 9)
    assert found == [("coordinator", 5, row, 9), ("replies", LINK, 6, row, False)]


def test_aborted_link_is_hung_up_for_its_dead_member() -> None:
    ended: list[object] = []
    links = SimpleNamespace(hang_up=lambda link, code, *, cause, reason: ended.append((link, code, cause)))
    made, log = machines(links=links)
    ActionRunner(made).run([AbortLink(LINK)], 0)
    assert (ended, log) == ([(LINK, CloseCode.GOING_AWAY, LinkEndCause.MEMBER_DEAD)], [])


# -- messages that are too long ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "sizes"), [(5, [5]), (3, [2, 3]), (1, [1] * 5)])
def test_gossip_in_parts_that_fit_the_link(limit: int, sizes: list[int]) -> None:
    links = StubLinks(limit)
    claims = tuple(Claim(bytes([number]) * 16, 0, 0) for number in range(5))
    made, log = machines(links=links)
    ActionRunner(made).run([SendMessage(LINK, Gossip(claims, answer=True))], 0)
    parts = cast("list[Gossip]", links.sent)
    assert [len(part.claims) for part in parts] == sizes and log == []
    assert tuple(claim for part in parts for claim in part.claims) == claims
    assert [part.answer for part in parts] == [False] * (len(sizes) - 1) + [True]


def test_notice_of_gossip_that_cannot_be_split() -> None:
    links = StubLinks(0)
    made, log = machines(links=links)
    ActionRunner(made).run([SendMessage(LINK, Gossip((Claim(ANN, 0, 0),)))], 0)
    assert (links.sent, log) == ([], [Notify(GossipTooLong(LINK, "Gossip", 1, 0))])
    links.closed = True
    ActionRunner(made).run([SendMessage(LINK, Gossip((Claim(ANN, 0, 0),)))], 0)
    assert len(log) == 1, "no notice for a link that has ended"


@pytest.mark.parametrize(("limit", "parts"), [(1000, 1), (132, 4), (33, 400), (10, 400)])
def test_view_in_parts_that_fit_the_link(limit: int, parts: int) -> None:
    links = StubLinks(limit)
    text = "x" * 398  # and two quotation marks
    made, _ = machines(links=links, view=lambda now: text)
    Router(made, ActionRunner(made)).deliver(LINK, GetView(7), 0)
    views = cast("list[View]", links.sent)
    assert len(views) == parts and {view.id for view in views} == {7}
    assert b"".join(view.view for view in views) == msgspec.json.encode(text)
    assert [view.last for view in views] == [False] * (parts - 1) + [True]


# -- the messages that each kind of peer may send ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Gossip(),
        Digest((), ()),
        Fetch(ANN, 0),
        BucketHashes(bytes(2048)),
        Pull((), ()),
        DialBack(ANN, BOB),
        PingReq(ANN),
        IndirectAck(ANN),
    ],
    ids=lambda message: type(message).__name__,
)
def test_membership_message_of_a_client_ends_its_link(message: Message) -> None:
    harness = NodeHarness()
    peer = harness.client()
    peer.send(message)
    (refused,) = peer.take(Refused)
    assert refused.fault.code == 1010 and peer.hung_up == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("reply", [Explanation(1), View(1, b"{}")], ids=lambda reply: type(reply).__name__)
@pytest.mark.parametrize("kind", ["client", "member"])
def test_reply_that_was_not_requested_ends_the_link(reply: Message, kind: str) -> None:
    harness = NodeHarness()
    peer = harness.client() if kind == "client" else harness.member("alpha")
    peer.send(reply)
    (refused,) = peer.take(Refused)
    assert refused.fault.code == 1010 and peer.hung_up == CloseCode.PROTOCOL_ERROR


def test_request_on_a_closing_link() -> None:
    harness = NodeHarness([spec("add")])
    peer = harness.client()
    peer.send(Request(1, (call("x", "add", 1),)), Goodbye(""), Request(2, (call("x", "add", 2),)))
    (late,) = peer.take(Result)
    assert late.id == 2 and late.fault is not None
    assert (late.fault.code, late.fault.details) == (1024, {"maybe_executed": False})
    (run,) = harness.running("add")
    harness.finish(run)
    (result,) = peer.take(Result)
    assert (result.id, value(result, "x"), peer.hung_up) == (1, 1, 1000)


@pytest.mark.parametrize(
    ("names", "here"), [("xx", "xx"), ("xy", "xx"), ("xy", "xz")], ids=["calls", "here", "other names"]
)
def test_dispatch_names_each_call_once(names: str, here: str) -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha")
    alpha.send(Request(1, tuple(call(name, "add", 1) for name in names), here=tuple(here)))
    (result,) = alpha.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.message) == (
        1010,
        "here names each call of the request once",
    )
    assert harness.runs == {} and alpha.hung_up is None


@pytest.mark.parametrize("to", [b"", b"beta".ljust(16, b"-")], ids=["dispatch", "relayed"])
def test_number_of_a_dispatch_in_progress(to: bytes) -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha")
    harness.member("beta", spec("add"))
    for _ in range(2):
        alpha.send(Request(1, (call("x", "add", 1),), here=("x",), to=to))
    (result,) = alpha.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.message) == (
        1010,
        "request 1 is already in progress on this link",
    )
    assert result.fault.details == {"maybe_executed": False} and alpha.hung_up is None


def test_bad_request_is_answered_as_not_executed() -> None:
    answered: list[tuple[LinkId, Result]] = []
    made, _ = machines(replies=SimpleNamespace(refuse=lambda link, result: answered.append((link, result))))
    Router(made, ActionRunner(made)).deliver(LINK, BadRequest(4, Fault(1010, "no calls", {"path": "$[2]"})), 0)
    fault = Fault(1010, "no calls", {"path": "$[2]", "maybe_executed": False})
    assert answered == [(LINK, Result(4, fault=fault))]


def test_links_that_this_node_has_not_closed() -> None:
    links = cast("Links", SimpleNamespace(is_open=lambda link: link == 1))
    best = {ANN: LinkId(1), BOB: LinkId(2)}
    found = OpenLinks(best, links)
    assert dict(found) == {ANN: 1} and len(found) == 1 and found.get(BOB) is None
    assert ANN in found and BOB not in found and MemberId(b"c" * 16) not in found
    best[BOB] = LinkId(1)
    assert found[BOB] == 1, "it reads the table of the cluster, and copies nothing"


# -- the end of draining, and of a link: what is in progress comes first ----------------------------------------------

FAR = b"beta".ljust(16, b"-")


def test_draining_node_waits_for_the_requests_that_it_relays() -> None:
    harness = NodeHarness()
    alpha, beta = harness.member("alpha"), harness.member("beta", spec("add"))
    alpha.send(Request(1, (call("x", "add", 1),), here=("x",), to=FAR))
    (relayed,) = beta.take(Request)
    harness.node.leave(now=harness.now)
    harness.flush()
    assert not harness.node.left
    alpha.send(Request(2, (call("y", "add", 1),), here=("y",), to=FAR))
    (late,) = alpha.take(Result)
    assert late.id == 2 and late.fault is not None and late.fault.details["relayed"] is True
    assert beta.take(Request) == [], "it relays no new ones"
    beta.send(done(relayed, "x", 5))
    (result,) = alpha.take(Result)
    assert (result.id, value(result, "x"), harness.node.left) == (1, 5, True)


def test_draining_node_waits_for_a_body_whose_coordinator_is_gone() -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha")
    alpha.send(Request(1, (call("x", "add", 1),), here=("x",)))
    alpha.drop()
    harness.node.leave(now=harness.now)
    harness.flush()
    assert not harness.node.left
    harness.finish(harness.running("add")[0])
    assert harness.node.left


def test_closing_link_waits_for_the_requests_relayed_over_it() -> None:
    harness = NodeHarness()
    alpha, beta = harness.member("alpha"), harness.member("beta", spec("add"))
    alpha.send(Request(1, (call("x", "add", 1),), here=("x",), to=FAR))
    (relayed,) = beta.take(Request)
    alpha.send(Goodbye(""))
    beta.send(Goodbye(""))
    assert (alpha.hung_up, beta.hung_up) == (None, None)
    beta.send(done(relayed, "x", 5))
    assert value(alpha.take(Result)[0], "x") == 5
    assert (alpha.hung_up, beta.hung_up) == (1000, 1000)


# -- each outcome of sending ------------------------------------------------------------------------------------------


class OutcomeLinks:
    """Links that give these outcomes of sending, one after another, and record the messages."""

    def __init__(self, *outcomes: SendOutcome) -> None:
        self.outcomes = list(outcomes)
        self.tried: list[Message] = []

    def send(self, link: LinkId, message: Message) -> SendOutcome:
        self.tried.append(message)
        return self.outcomes.pop(0)

    def send_or_close(self, link: LinkId, message: Message) -> None:
        assert self.send(link, message) is SENT

    sessions: typing.ClassVar = {LINK: None}

    def is_flooded(self, session: object) -> bool:
        return False

    def watch(self, link: LinkId, now: int) -> None:
        pass


TOO_LONG = TooLong(900, 500)
OVER_LIMIT = {"limit": "message", "value": 500, "came": 900, "maybe_executed": False}


def explained(request: Request, *outcomes: SendOutcome) -> list[Explanation]:
    node = NodeHarness([spec("add")]).node
    links = OutcomeLinks(*outcomes)
    made, _ = machines(links=links, coordinator=node.coordinator, config=node.config, cluster=node.cluster)
    Router(made, ActionRunner(made)).deliver(LINK, Explain(request), 0)
    assert not links.outcomes
    return cast("list[Explanation]", links.tried)


def test_explanation_over_the_message_limit() -> None:
    request = Request(7, (call("x", "add", 1),))
    whole, short = explained(request, TOO_LONG, SENT)
    assert len(whole.rows) == 1 and whole.fault is None
    assert (short.id, short.rows) == (7, ()) and short.fault is not None
    assert (short.fault.code, short.fault.details) == (1014, OVER_LIMIT)
    assert explained(request, SENT) == explained(request, LINK_GONE) == [whole]


def test_error_of_explain_over_the_message_limit() -> None:
    whole, short = explained(Request(7, (call("x", "missing", 1),)), TOO_LONG, SENT)
    assert whole.fault is not None and short.fault is not None and (short.id, short.rows) == (7, ())
    assert (short.fault.code, short.fault.details["shortened"]) == (whole.fault.code, True) == (1001, True)


@pytest.mark.parametrize(("outcome", "code"), [(SENT, None), (LINK_GONE, 1001), (TOO_LONG, 1014)])
def test_answer_to_a_relayed_request_that_could_not_be_sent(outcome: SendOutcome, code: int | None) -> None:
    answered: list[tuple[LinkId, Result]] = []
    relay = SimpleNamespace(result=lambda link, result: answered.append((link, result)))
    links = OutcomeLinks(outcome)
    made, _ = machines(links=links, relay=relay)
    request = Request(5, (call("x", "add", 1),), here=("x",), to=BOB)
    ActionRunner(made).run([Forward(LINK, request)], 0)
    assert links.tried == [request]
    assert [(link, result.id, result.fault.code if result.fault else 0) for link, result in answered] == (
        [] if code is None else [(LINK, 5, code)]
    )
    assert all(result.fault and result.fault.details["maybe_executed"] is False for _, result in answered)


@pytest.mark.parametrize("outcome", [SENT, LINK_GONE, TOO_LONG])
def test_dispatch_that_could_not_be_sent(outcome: SendOutcome) -> None:
    unsent: list[tuple[int, Fault | None, int]] = []
    coordinator = SimpleNamespace(unsent=lambda number, fault, now: unsent.append((number, fault, now)) or ())
    made, _ = machines(links=OutcomeLinks(outcome), coordinator=coordinator, me=ANN)
    ActionRunner(made).run([Dispatch(LINK, 5, [call("x", "add", 1)], {}, 100)], 9)
    if outcome is SENT:
        assert unsent == []
    else:
        ((number, fault, now),) = unsent
        assert (number, now) == (5, 9)
        assert fault is None if outcome is LINK_GONE else fault is not None and fault.details == OVER_LIMIT


# -- draining ---------------------------------------------------------------------------------------------------------


def drained(client: PeerStub, node: str, number: int = 1) -> DrainReply:
    """Send the command for a member, and return the answer."""
    client.send(Drain(number, node))
    (reply,) = client.take(DrainReply)
    assert reply.id == number
    return reply


def test_drain_of_the_node_that_is_asked() -> None:
    harness = NodeHarness([spec("slow")])
    client, other = harness.client("ops"), harness.client()
    other.send(Request(1, (call("x", "slow", 5),)))
    reply = drained(client, "local")
    assert (reply.member, reply.shown, reply.state) == (harness.node.me, harness.node.shown, "sent")
    assert harness.node.draining and not harness.node.left
    assert [(one.peer, one.link) for one in harness.noticed(DrainRequested)] == [("ops", client.link)]
    assert drained(client, harness.node.shown, 2).state == "draining", "a second command does not end the grace"
    assert not harness.node.left and len(harness.noticed(DrainRequested)) == 1
    (run,) = harness.running("slow")
    harness.finish(run)
    assert [value(result, "x") for result in other.take(Result)] == [5]
    assert harness.node.left and client.take(Goodbye) == [Goodbye("leaving")]


def test_drained_node_refuses_new_requests() -> None:
    harness = NodeHarness([spec("slow")])
    client = harness.client()
    client.send(Request(1, (call("x", "slow", 5),)))
    drained(client, "local")
    client.send(Request(2, (call("x", "slow", 5),)))
    assert [result.fault.code for result in client.take(Result) if result.fault] == [1024]


@pytest.mark.parametrize("node", ["alpha", "mem://alpha", "616c7068"])
def test_drain_of_a_linked_member(node: str) -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    reply = drained(client, node)
    assert (reply.member, reply.shown, reply.state) == (member.cluster.me, "alpha#616c", "sent")
    assert member.take(Drain) == [Drain(0, to=member.cluster.me, via=(harness.node.me,))]
    assert not harness.node.draining and client.take(Goodbye) == []
    member.deliver(member.cluster.drain(harness.now))
    assert drained(client, node).state == "draining" and member.take(Drain) == []
    member.leave()
    assert drained(client, node).state == "left"


def test_drain_of_a_member_without_a_link_opens_one() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    member.drop()
    assert drained(client, "alpha").state == "connecting" and Address("mem://alpha") in harness.dials


def test_drain_from_another_node() -> None:
    harness = NodeHarness()
    member = harness.member("alpha")
    member.send(Drain(0, to=harness.node.me, via=(b"x" * 16,)))
    assert harness.node.left and [one.peer for one in harness.noticed(DrainRequested)] == ["alpha"]
    assert member.take(DrainReply) == []


def test_relayed_drain() -> None:
    harness = NodeHarness()
    alpha, beta = harness.member("alpha"), harness.member("beta")
    to = beta.cluster.me
    alpha.send(Drain(0, to=to))
    assert beta.take(Drain) == [Drain(0, to=to, via=(alpha.cluster.me, harness.node.me))]
    alpha.send(Drain(0, to=to, via=(harness.node.me,)))
    assert beta.take(Drain) == [], "never twice by one node"
    alpha.send(Drain(0, to=b"u" * 16, via=(b"1", b"2", b"3")))
    assert beta.take(Drain) == [], "at most four hops"
    assert not harness.node.draining and alpha.take(DrainReply) == beta.take(DrainReply) == []


def test_drain_is_not_sent_to_an_older_node() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    session = harness.node.links.sessions[member.link]
    assert session.agreed is not None
    session.agreed = msgspec.structs.replace(session.agreed, features=())
    assert drained(client, "alpha").state == "connecting" and member.take(Drain) == []


@pytest.mark.parametrize("node", ["", "nobody", "616", "mem://", "alph", "x" * 10_000])
def test_drain_of_an_unknown_member(node: str) -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    fault = drained(client, node).fault
    assert fault is not None and fault.code == 1010 and len(fault.message) < 300
    assert not harness.node.draining and member.take(Drain) == []


def test_client_cannot_address_a_member_by_the_field_of_nodes() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    client.send(Drain(1, "nobody", to=member.cluster.me), Drain(2, "nobody", to=harness.node.me))
    assert [reply.fault is not None for reply in client.take(DrainReply)] == [True, True]
    assert not harness.node.draining and member.take(Drain) == []
