"""`Node` as a whole, with stub peers: commands, requests, view, explain, cleanup, leaving, and a new id."""

from collections.abc import Callable

import msgspec
import pytest

from mpreg_proto.effects import Dial, Effect, Framing, HangUp, Notify, Returned, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Left, PeerUnreachable, RequestFinished, Standing
from mpreg_proto.rng import Rng
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
    Goodbye,
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


def test_time_when_the_body_of_a_run_began() -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha")
    alpha.send(Request(1, (call("x", "add", 1),), here=("x",)))
    harness.advance(4)
    (run,) = harness.running("add")
    harness.node.finished(run.run, Returned(1), now=harness.now, began=harness.now - SECOND)
    harness.flush()
    (result,) = alpha.take(Result)
    assert (result.done[0].waited, result.done[0].ran) == (3 * SECOND, SECOND)


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


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_idle_node_leaves_at_once_with_goodbyes() -> None:
    harness = NodeHarness([spec("add")])
    alpha, peer = harness.member("alpha"), harness.client()
    harness.node.leave(now=harness.now)
    harness.flush()
    assert harness.node.left and len(harness.noticed(Left)) == 1
    assert alpha.cluster.members.get(harness.node.me).standing is Standing.LEFT  # type: ignore[union-attr]
    assert (alpha.hung_up, peer.hung_up) == (1000, 1000)
    assert len(alpha.take(Goodbye)) == len(peer.take(Goodbye)) == 1
    harness.node.leave(now=harness.now)
    harness.flush()
    assert len(harness.noticed(Left)) == 1
    for end in (alpha, peer):
        end.drop()
    harness.advance(3600)
    harness.idle()


def test_draining_refuses_new_calls_and_finishes_accepted_ones() -> None:
    harness = NodeHarness([spec("add", concurrency=1)])
    alpha, peer = harness.member("alpha", spec("sub")), harness.client()
    peer.send(Request(1, (call("x", "add", 1),)))
    alpha.send(Request(1, (call("q", "add", 2),), here=("q",)))
    harness.node.leave(now=harness.now)
    harness.flush()
    assert alpha.cluster.index.offers("add", (), None) == ()
    peer.send(Request(2, (call("y", "sub", 1),)))
    alpha.send(Request(2, (call("z", "add", 1),), here=("z",)), Request(3, (call("w", "sub", 1),)))
    (result,) = peer.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1024, False)
    late = {result.id: result for result in alpha.take(Result)}
    assert late[2].failed[0].refused and late[2].failed[0].fault.code == 1024
    assert late[3].fault is not None and late[3].fault.code == 1024
    harness.node.submit(Request(0, (call("y", "sub", 1),)), now=harness.now)
    harness.flush()
    assert harness.noticed(RequestFinished)[0].result.fault.code == 1024  # type: ignore[union-attr]
    harness.finish(harness.running("add")[0])
    assert value(peer.take(Result)[0], "x") == 1 and not harness.node.left
    harness.finish(harness.running("add")[0])
    assert value(alpha.take(Result)[0], "q") == 2 and harness.node.left and alpha.hung_up == 1000


def test_draining_finishes_open_requests() -> None:
    harness = NodeHarness()
    alpha, peer = harness.member("alpha", spec("sub")), harness.client()
    peer.send(Request(1, (call("x", "sub", 1), msgspec.structs.replace(call("y", "sub", 1), dependencies=("x",)))))
    harness.node.leave(now=harness.now)
    harness.flush()
    for name in "xy":
        assert not harness.node.left
        alpha.send(done(alpha.take(Request)[0], name, name))
    assert value(peer.take(Result)[0], "y") == "y" and harness.node.left


@pytest.mark.parametrize("again", [False, True])
def test_open_requests_end_with_grace_or_a_second_leave(again: bool) -> None:
    harness = NodeHarness([spec("once", concurrency=1), spec("safe", idempotent=True, concurrency=1)])
    alpha, peer = harness.member("alpha"), harness.client()
    peer.send(Request(1, (call("x", "once"),)), Request(2, (call("x", "safe"),)), Request(3, (call("x", "safe"),)))
    alpha.send(Request(4, (call("q", "once"),), here=("q",)))
    harness.node.leave(now=harness.now)
    harness.advance(9.999)
    assert not harness.node.left and peer.take(Result) == []
    if again:
        harness.node.leave(now=harness.now)
        harness.flush()
    else:
        harness.advance(0.001)
    assert harness.node.left and len(harness.noticed(Left)) == 1
    faults = {result.id: result.fault for result in peer.take(Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {1: 1023, 2: 1024, 3: 1024}
    assert [fault.details["maybe_executed"] for fault in faults.values() if fault] == [True, False, False]
    (result,) = alpha.take(Result)
    assert [(row.name, row.refused, row.fault.code) for row in result.failed] == [("q", True, 1024)]
    assert list(dict.fromkeys(harness.cancelled)) == list(harness.runs) and (alpha.hung_up, peer.hung_up) == (
        1000,
        1000,
    )
    for end in (alpha, peer):
        end.drop()
    for run in list(harness.runs.values()):
        harness.finish(run)
    harness.idle()


def test_call_refused_by_a_leaving_node_runs_elsewhere() -> None:
    """The view of the coordinator: a refusal with 1024, then LEFT."""
    harness = NodeHarness()
    peer, alpha, beta = harness.client(), harness.member("alpha", spec("once")), harness.member("beta", spec("other"))
    peer.send(Request(1, (call("x", "once"),)))
    beta.offer(spec("once"))
    alpha.send(refused(alpha.take(Request)[0], 1024))
    alpha.leave()
    assert [request.here for request in beta.take(Request)] == [("x",)]


@pytest.mark.parametrize("dialled", [None, Address("ws://127.0.0.1:1")])
def test_link_opened_after_leaving(dialled: Address | None) -> None:
    node = Node(NodeConfig(), me=MemberId(b"a" * 16), rng=Rng(0), entropy=bytes, now=0)
    node.leave(now=1)
    assert not node.left, "its last effects are not drained yet"
    assert Notify(Left()) in node.drain() and node.left
    link = LinkId(1)
    node.link_opened(link, framing=Framing.STREAM, dialled=dialled, now=2)
    assert node.drain() == [HangUp(link, 1001)]
    node.receive(link, b"what comes meanwhile", now=3)
    node.link_closed(link, now=4)
    assert node.drain() == []
    assert node.next_timeout() is None


# -- a new id ---------------------------------------------------------------------------------------------------------


def test_new_id_after_the_old_one_is_retired() -> None:
    harness = NodeHarness([spec("add"), spec("slow")])
    alpha, peer = harness.member("alpha"), harness.client()
    old = harness.node.me
    peer.send(Request(1, (call("x", "slow", "old"),)))
    peer.send(Request(3, (call("x", "nowhere"),), wait=5 * SECOND))
    alpha.send(Gossip((Claim(old, 2, Standing.RETIRED),)))
    assert harness.node.me != old and alpha.hung_up == 1000 and peer.hung_up is None
    lost, waiting = [result.fault for result in peer.take(Result)]
    assert lost is not None and (lost.code, lost.details["maybe_executed"]) == (1023, True)
    assert waiting is not None and (waiting.code, waiting.details["maybe_executed"]) == (1024, False)
    assert all("retired the id of this node" in fault.message for fault in (lost, waiting)), "it does not leave"
    alpha.drop()
    back = harness.member("beta", spec("sub"))
    assert back.cluster.index.offers("add", (), None)[0].member == harness.node.me
    peer.send(Request(2, (call("x", "slow", "new"),)))
    first, second = harness.running("slow")
    harness.finish(first)
    assert peer.take(Result) == [], "the answer of the life before reaches nobody"
    harness.finish(second)
    assert value(peer.take(Result)[0], "x") == "new"
    harness.idle()


def test_grace_continues_after_a_new_id() -> None:
    harness = NodeHarness([spec("slow")])
    alpha, gamma = harness.member("alpha"), harness.client()
    alpha.send(Request(1, (call("x", "slow"),), here=("x",)))
    harness.node.leave(now=harness.now)
    alpha.send(Gossip((Claim(harness.node.me, 2, Standing.RETIRED),)))
    assert harness.node.cluster.index.offers("slow", (), None) == (), "still draining"
    harness.advance(10)
    assert harness.node.left and gamma.hung_up == 1000


def test_commands_of_the_old_id_apply_to_the_new_one() -> None:
    harness = NodeHarness([spec("add"), spec("gone")], resources=("old",))
    node, now = harness.node, harness.now
    node.withdraw("gone", now=now)
    node.offer(spec("add", version="2"), now=now)
    node.set_resources(("new",), now=now)
    node.advertise((Address("ws://here:1"),), now=now)
    alpha = harness.member("alpha")
    alpha.send(Gossip((Claim(node.me, 2, Standing.RETIRED),)))
    content = node.cluster.catalogue.content(node.me)
    assert content is not None and node.me != MemberId(b"n" * 16)
    assert {name: entry.version for name, entry in content.functions.items()} == {"add": "2"}
    assert content.resources == ("new",) and node.cluster.members.own.addresses == ("ws://here:1",)


# -- dials ------------------------------------------------------------------------------------------------------------

SEED = Address("ws://seed:1")


def dials_until(node: Node, until: int) -> list[int]:
    """Return when the node dials up to a time."""
    found: list[int] = []
    while (due := node.next_timeout()) is not None and due <= until:
        node.wake(now=due)
        found += [due for effect in node.drain() if isinstance(effect, Dial)]
    return found


def unreachable(effects: list[Effect]) -> list[Address]:
    notices = [effect.notice for effect in effects if isinstance(effect, Notify)]
    return [notice.address for notice in notices if isinstance(notice, PeerUnreachable)]


@pytest.mark.parametrize("end", ["dial failed", "closed before its hello", "no hello", "another cluster"])
def test_seed_is_dialled_again_after_a_dial_without_a_handshake(end: str) -> None:
    node = Node(NodeConfig(seeds=(SEED,)), me=MemberId(b"a" * 16), rng=Rng(0), entropy=bytes, now=0)
    assert [effect.address for effect in node.drain() if isinstance(effect, Dial)] == [SEED]
    now = SECOND
    if end == "dial failed":
        node.dial_failed(SEED, now=now)
    else:
        link = LinkId(1)
        node.link_opened(link, framing=Framing.OBJECTS, dialled=SEED, now=now)
        if end == "another cluster":
            node.handle(link, hello(cluster="other", member=b"b" * 16, name="b"), now=now)
        elif end == "no hello":
            while not any(isinstance(effect, HangUp) for effect in node.drain()):
                now = node.next_timeout() or 0
                node.wake(now=now)
        if link in node.links.sessions:
            node.link_closed(link, now=now)
    assert unreachable(node.drain()) in ([SEED], []), "at most once"
    first = dials_until(node, now + 2 * SECOND)
    assert first and first[0] <= now + SECOND


def test_dial_that_leads_to_the_own_process_is_repeated() -> None:
    node = Node(NodeConfig(seeds=(SEED,)), me=MemberId(b"a" * 16), rng=Rng(0), entropy=bytes, now=0)
    node.drain()
    link = LinkId(1)
    node.link_opened(link, framing=Framing.OBJECTS, dialled=SEED, now=SECOND)
    node.handle(link, hello(cluster="default-cluster", member=node.me, name=""), now=SECOND)
    assert any(isinstance(effect, HangUp) for effect in node.drain())
    if link in node.links.sessions:
        node.link_closed(link, now=SECOND)
    assert dials_until(node, 3 * SECOND)


def test_dial_whose_link_is_open_ends_with_its_handshake() -> None:
    limits = Limits()
    node = Node(NodeConfig(seeds=(SEED,)), me=MemberId(b"a" * 16), rng=Rng(0), entropy=bytes, now=0)
    node.drain()
    link, opened = LinkId(1), limits.dial - 1
    node.link_opened(link, framing=Framing.OBJECTS, dialled=SEED, now=opened)
    now = opened + limits.handshake - 1
    assert dials_until(node, now) == [], "the time of a dial is over, that of a handshake is not"
    node.handle(link, hello(cluster="default-cluster", member=b"b" * 16, name="b"), now=now)
    effects = node.drain()
    assert not any(isinstance(effect, HangUp) for effect in effects) and unreachable(effects) == []
