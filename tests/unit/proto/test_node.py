"""`Node` as a whole, with stub peers: commands, own requests, requests from peers, view, explain, and cleanup."""

from collections.abc import Callable

import msgspec
import pytest

from mpreg_proto.effects import Framing, HangUp, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.node import Node
from mpreg_proto.notices import RequestFinished, Standing
from mpreg_proto.view import NodeView
from mpreg_proto.wire import dialects
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CancelRequest,
    Claim,
    Explain,
    Explanation,
    Failed,
    GetView,
    Gossip,
    Request,
    Result,
    View,
)
from tests.helpers.node_harness import CODEC, MemberStub, NodeHarness, call, done, refused, spec, value

READ_VIEW = msgspec.json.Decoder(NodeView).decode


def snapshot(harness: NodeHarness) -> tuple[object, ...]:
    """Return all state that a command can change, and the effects that must not remain."""
    node = harness.node
    return (
        node.view(now=harness.now),
        node.next_timeout(),
        node.drain(),
        node.cluster.catalogue.heads(),
        node.cluster.index.generation,
        dict(node.links.sessions),
        (dict(node._machines.offered), node._machines.resources, node._machines.addresses, node.left, node.draining),
        (dict(node.worker._slots), dict(node.worker._busy), list(node.worker._runs)),
    )


# -- requests of the own process --------------------------------------------------------------------------------------


def test_own_request_and_its_notice() -> None:
    harness = NodeHarness([spec("add")])
    number = harness.node.submit(Request(99, (call("x", "add", 1),), here=("x",)), now=harness.now)
    harness.flush()
    harness.finish(harness.running("add")[0])
    (answered,) = harness.noticed(RequestFinished)
    assert answered.request == number != 99 and answered.result.last and value(answered.result, "x") == 1
    harness.idle()


def test_eager_results_of_an_own_request() -> None:
    harness = NodeHarness([spec("add")])
    harness.node.submit(Request(0, (call("x", "add", 1), call("y", "add", 2)), eager=True), now=harness.now)
    harness.flush()
    for run in harness.running("add"):
        harness.finish(run)
    first, second = [notice.result for notice in harness.noticed(RequestFinished)]
    assert (value(first, "x"), first.last, value(second, "y"), second.last) == (1, False, 2, True)


def test_cancellation_of_an_own_request() -> None:
    harness = NodeHarness([spec("add")])
    number = harness.node.submit(Request(0, (call("x", "add", 1),)), now=harness.now)
    harness.flush()
    for _ in range(2):
        harness.node.cancel(number, now=harness.now)
    harness.flush()
    (answered,) = harness.noticed(RequestFinished)
    assert answered.result.fault is not None and answered.result.fault.code == 1021
    harness.finish(harness.running("add")[0])
    harness.idle()


def test_malformed_own_request() -> None:
    harness = NodeHarness()
    harness.node.submit(Request(0, ()), now=harness.now)
    harness.flush()
    (answered,) = harness.noticed(RequestFinished)
    assert answered.result.fault is not None and answered.result.fault.code == 1010


# -- commands that raise change nothing -------------------------------------------------------------------------------

TIGHT = Limits(functions=2, resources=2, name_length=20)


@pytest.mark.parametrize(
    "command",
    [
        lambda node, now: node.offer(spec("third"), now=now),
        lambda node, now: node.offer(spec("first", resources=("a", "b", "c"), concurrency=9), now=now),
        lambda node, now: node.offer(spec("first", resources=("x" * 21,), concurrency=9), now=now),
        lambda node, now: node.withdraw("third", now=now),
        lambda node, now: node.set_resources(("a", "b", "c"), now=now),
        lambda node, now: node.set_resources(("x" * 21,), now=now),
        lambda node, now: node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=now),
    ],
)
def test_state_unchanged_after_a_command_that_raises(command: Callable[[Node, int], None]) -> None:
    harness = NodeHarness([spec("first", concurrency=1), spec("second")], resources=("a",), limits=TIGHT)
    peer = harness.client()
    peer.send(Request(1, (call("x", "first", 1), call("y", "first", 2))))
    before = snapshot(harness)
    with pytest.raises(LocalProtocolError) as raised:
        command(harness.node, harness.now)
    assert snapshot(harness) == before and raised.value.state_unchanged
    harness.finish(harness.running("first")[0])
    harness.finish(harness.running("first")[0])
    assert len(peer.take(Result)[0].done) == 2


# -- requests from peers ----------------------------------------------------------------------------------------------


def test_routing_fields_of_a_client_request_are_ignored() -> None:
    harness = NodeHarness([spec("add")])
    peer, alpha = harness.client(), harness.member("alpha", spec("sub"))
    peer.send(Request(1, (call("x", "sub", 1),), here=("x",), hops=3, caller="root"))
    (request,) = alpha.take(Request)
    assert (request.here, request.hops, request.caller) == (("x",), 0, "")
    alpha.send(done(request, "x", 1))
    assert peer.take(Result)[0].fault is None


def test_request_of_a_member_with_a_whole_graph() -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha", spec("sub"))
    alpha.send(Request(1, (call("x", "add", 1), call("y", "sub", 2))))
    (request,) = alpha.take(Request)
    alpha.send(done(request, "y", 2))
    harness.finish(harness.running("add")[0])
    (result,) = alpha.take(Result)
    assert result.id == 1 and {row.name for row in result.done} == {"x", "y"}


def test_dispatched_call_is_never_placed_elsewhere() -> None:
    harness = NodeHarness([spec("add")])
    alpha, beta = harness.member("alpha"), harness.member("beta", spec("add"), spec("sub"))
    alpha.send(Request(1, (call("x", "sub", 1), call("y", "add", 1)), here=("x",)))
    (result,) = alpha.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["call"]) == (1001, "x")
    assert [request.here for request in beta.take(Request)] in ([], [("y",)])


@pytest.mark.parametrize("inputs", [{}, {"inputs": {"a": CODEC.encode(5)}}])
def test_inputs_of_a_client_request(inputs: dict[str, dict[str, bytes]]) -> None:
    harness = NodeHarness([spec("add")])
    peer = harness.client()
    made = msgspec.structs.replace(call("x", "add", 1), dependencies=("a",))
    peer.send(Request(1, (made,), **inputs))
    if not inputs:
        (result,) = peer.take(Result)
        assert result.fault is not None and result.fault.code == 1013
    else:
        harness.finish(harness.running("add")[0])
        assert value(peer.take(Result)[0], "x") == 1
    harness.idle()


def test_reply_to_a_request_with_a_readable_id_only() -> None:
    harness = NodeHarness([spec("add")])
    link = LinkId(1)
    harness.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=harness.now)
    for body in (dialects.encode(hello(cluster="", member=b"", name="")), msgspec.msgpack.encode([10, 7, "calls?"])):
        harness.node.receive(link, body, now=harness.now)
    harness.node.receive(link, dialects.encode(GetView(8)), now=harness.now)
    _, bad, reply = [dialects.decode(effect.chunks[0]) for effect in harness.node.drain() if isinstance(effect, Send)]
    assert isinstance(bad, Result) and bad.id == 7 and bad.fault is not None
    assert (bad.fault.code, bad.fault.details) == (1010, {"path": "$[2]", "maybe_executed": False})
    assert isinstance(reply, View) and reply.id == 8


# -- view and explain -------------------------------------------------------------------------------------------------


def test_view_as_json() -> None:
    harness = NodeHarness([spec("add", resources=("f",), doc="Adds.")], resources=("r",))
    peer, alpha = harness.client(), harness.member("alpha", spec("sub"))
    peer.send(Request(1, (call("x", "add", 1), call("y", "sub", 1))), GetView(2))
    (reply,) = peer.take(View)
    view = READ_VIEW(reply.view)
    assert reply.id == 2 and view == harness.node.view(now=harness.now)
    assert (view.requests, view.running, view.queued, view.links) == (1, 1, 0, 2)
    assert [(row.name, row.me, row.linked, row.waiting) for row in view.members] == [
        ("alpha", False, True, 1),
        ("local", True, False, 1),
    ]
    assert [(row.function, row.node, row.resources) for row in view.functions] == [
        ("add", harness.node.shown, ("f", "r")),
        ("sub", view.members[0].shown, ()),
    ]
    assert alpha.take(View) == []


def test_explain_runs_and_dispatches_nothing() -> None:
    harness = NodeHarness([spec("add")])
    peer, alpha = harness.client(), harness.member("alpha", spec("add"), spec("sub"))
    peer.send(Explain(Request(3, (call("x", "add"), call("y", "sub")))))
    (reply,) = peer.take(Explanation)
    assert reply.id == 3 and [len(row.nodes) for row in reply.rows] == [2, 1]
    assert harness.runs == {} and alpha.take(Request) == []
    harness.idle()


# -- cleanup ----------------------------------------------------------------------------------------------------------


def test_no_state_left_after_mixed_requests() -> None:
    harness = NodeHarness([spec("local", concurrency=2), spec("safe", idempotent=True)], seed=9)
    clients = [harness.client(f"c{n}") for n in range(3)]
    members = [harness.member(f"m{n}", spec("safe", idempotent=True), spec("once")) for n in range(3)]
    for number in range(60):
        peer = clients[number % 3]
        calls = (call("a", "local", number), call("b", "safe"), call("c", "once"), call("d", "missing"))
        kind = number % 5
        peer.send(
            Request(
                number + 1,
                calls[: 3 + (kind == 4)],
                wait=10**9 if kind == 4 else 0,
                timeout=3 * 10**9,
                partial=kind == 2,
                eager=kind == 1,
                trace=kind == 3,
            )
        )
        if number % 7 == 0:
            peer.send(CancelRequest(number + 1))
    owed: list[tuple[MemberStub, Request]] = []
    for position, member in enumerate(members):
        for request in member.take(Request):
            if position == 0:
                member.send(refused(request, 1022))
            elif request.id % 2:
                member.send(Result(request.id, failed=tuple(Failed(name, Fault(1003, "")) for name in request.here)))
            else:
                owed.append((member, request))
    members[1].drop()
    clients[0].drop()
    for run in list(harness.runs.values())[::2]:
        harness.finish(run)
    harness.advance(8)
    while harness.runs:
        harness.finish(next(iter(harness.runs.values())))
    owed += [(member, request) for member in members for request in member.take(Request)]
    for member, request in owed:
        member.send(refused(request, 1021))
    harness.advance(5)
    answered = [result.id for peer in clients[1:] for result in peer.take(Result) if result.last]
    assert sorted(answered) == [number + 1 for number in range(60) if number % 3], "each once"
    harness.idle()


def test_member_id_of_sixteen_bytes() -> None:
    harness = NodeHarness()
    alpha = harness.member("alpha")
    alpha.send(Gossip((Claim(harness.node.me, 2, Standing.RETIRED),)))
    assert len(harness.node.me) == 16 and harness.node.me != MemberId(b"n" * 16)
    assert not any(isinstance(effect, HangUp) for effect in harness.node.drain())


def test_refusal_of_an_unknown_function_sends_the_head() -> None:
    harness = NodeHarness([spec("add"), spec("gone")])
    alpha = harness.member("alpha")
    sent: list[object] = []
    received = alpha.cluster.received
    alpha.cluster.received = lambda link, message, now: (sent.append(message), received(link, message, now))[1]  # type: ignore[method-assign]
    alpha.send(Request(1, (call("x", "never", 1),), here=("x",)))
    own = harness.node.cluster.catalogue.content(harness.node.me)
    assert own is not None
    assert [message.heads for message in sent if isinstance(message, Gossip)] == [(own.head,)]
    (result,) = alpha.take(Result)
    assert [(row.fault.code, row.refused) for row in result.failed] == [(1001, True)]


def test_slow_link_by_backlog() -> None:
    harness = NodeHarness()
    alpha = harness.member("alpha")
    harness.node.backlog(alpha.link, harness.node.config.limits.slow_link, now=harness.now)
    assert list(harness.node.cluster._gossip.slow_links) == [alpha.link]
    harness.node.backlog(alpha.link, 0, now=harness.now)
    assert not harness.node.cluster._gossip.slow_links
