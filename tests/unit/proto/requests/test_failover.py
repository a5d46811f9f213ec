"""Refused, lost, not linked yet: where a call goes then, and where it must not go. Members are spoken by hand."""

import msgspec
import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.sending import LINK_GONE, SendOutcome, TooLong
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire import dialects
from mpreg_proto.wire.messages import Failed, Goodbye, Message, Request, Result
from tests.helpers.cluster_parties import Ref
from tests.helpers.node_harness import MemberStub, NodeHarness, PeerStub, call, done, refused, spec, value

IDEMPOTENT = spec("safe", idempotent=True)
ONCE = spec("once")
BOTH = (IDEMPOTENT, ONCE)


def ask(client: PeerStub, *calls: object, number: int = 1, **fields: object) -> None:
    client.send(Request(number, tuple(calls), **fields))  # type: ignore[arg-type]


def answer(client: PeerStub) -> Result:
    """The only answer that has come."""
    (result,) = client.take(Result)
    return result


def fault(client: PeerStub) -> Fault:
    found = answer(client).fault
    assert found is not None
    return found


def asked(*members: MemberStub) -> tuple[MemberStub, Request]:
    """The only dispatch that is out, and to whom it went."""
    ((member, request),) = [(member, request) for member in members for request in member.take(Request)]
    return member, request


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1022, 1024])
@pytest.mark.parametrize("function", ["once", "safe"])
def test_a_refusal_sends_the_call_elsewhere_and_never_twice_to_the_same(code: int, function: str) -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta", "gamma")]
    ask(client, call("x", function))
    tried = []
    for _ in range(3):
        member, request = asked(*members)
        tried.append(member)
        member.send(refused(request, code))
    assert len({id(member) for member in tried}) == 3
    found = fault(client)
    assert (found.code, found.details["maybe_executed"], found.details["call"]) == (code, False, "x")
    harness.idle()


def test_only_the_refused_call_goes_elsewhere() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    beta = harness.member("beta", *BOTH)
    alpha.send(msgspec.structs.replace(refused(request, 1022, "y"), last=False))
    (second,) = beta.take(Request)
    assert second.here == ("y",)
    beta.send(done(second, "y", 2))
    alpha.send(done(request, "x", 1))
    assert len(answer(client).done) == 2
    harness.idle()


def test_a_refusal_of_the_whole_dispatch_is_one_of_each_call() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    beta = harness.member("beta", ONCE)
    alpha.send(Result(request.id, fault=Fault(1024, "this link is closing", {"maybe_executed": False})))
    assert beta.take(Request)[0].here == ("x", "y")


def test_a_link_that_closes_is_not_the_member() -> None:
    """Two links, of which the member closes the one that the call is on: it is asked again over the other."""
    harness = NodeHarness()
    client, first = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"))
    (request,) = first.take(Request)
    second = harness.member("alpha", again=first)
    first.send(Goodbye("duplicate"), Result(request.id, fault=Fault(1024, "this link is closing")))
    (repeated,) = second.take(Request)
    second.send(done(repeated, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_a_body_lost_on_a_living_node_is_started_again_if_idempotent() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "safe"))
    for _ in range(3):
        member, request = asked(*members)
        member.send(lost_on_node(request))
        harness.advance(3)
    assert (fault(client).code, harness.node.coordinator.requests) == (1023, {})
    ask(client, call("x", "safe"), number=2)
    member, request = asked(*members)
    member.send(lost_on_node(request))
    assert not any(member.take(Request) for member in members), "it waits, as whatever ended it may end it again"
    harness.advance(1)
    member, request = asked(*members)
    member.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_a_body_lost_on_a_living_node_is_not_started_again_if_not_idempotent() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = asked(*members)
    member.send(lost_on_node(request))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, True)
    assert [one for member in members for one in member.take(Request)] == []
    harness.idle()


def lost_on_node(request: Request) -> Result:
    """The process of a pool that ran the call has died."""
    row = Failed(request.calls[0].name, Fault(1023, "lost", {"node": "there"}))
    return Result(request.id, failed=(row,))


def test_a_refused_call_that_waited_ends_with_its_refusal_if_it_is_still_offered() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), wait=SECOND)
    (request,) = alpha.take(Request)
    alpha.send(refused(request, 1022))
    harness.advance(1)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1022, False)
    harness.idle()


@pytest.mark.parametrize("code", [1003, 1010, 1013, 1014, 1020])
def test_other_refusals_fail_the_call(code: int) -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, ONCE) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = asked(*members)
    member.send(refused(request, code))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (code, False)
    assert found.details["node"].startswith(member.cluster.members.own.name)
    harness.idle()


def test_a_node_that_ends_a_dispatch_without_a_word_about_a_call() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    alpha.send(done(alpha.take(Request)[0], "x", 1))
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1002, "y", True)
    harness.idle()


# -- lost nodes -------------------------------------------------------------------------------------------------------


def test_a_lost_call_that_may_have_started_is_1023() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    beta = harness.member("beta", spec("other"))
    ask(client, call("x", "once"))
    harness.member("gamma", ONCE)
    alpha.drop()
    found = fault(client)
    assert (found.code, found.details["maybe_executed"], found.details["call"]) == (1023, True, "x")
    assert found.details["node"].startswith("alpha") and beta.take(Request) == []
    harness.idle()


def test_an_idempotent_call_goes_on_elsewhere_twice_at_most() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma", "delta")]
    ask(client, call("x", "safe"))
    for lost in range(3):
        assert client.take(Result) == [], lost
        asked(*members)[0].drop()
        harness.advance(1)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, False)
    assert "was started on 3 nodes, and each was lost" in found.message and len(found.details["nodes"]) == 3
    harness.idle()


def test_refusals_are_no_losses() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma", "delta")]
    ask(client, call("x", "safe"))
    for _ in range(2):
        member, request = asked(*members)
        member.send(refused(request, 1022))
    asked(*members)[0].drop()
    harness.advance(1)
    member, request = asked(*members)
    member.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1


@pytest.mark.parametrize("other", [spec("safe", idempotent=True, version="2"), spec("safe", version="1")])
def test_elsewhere_is_only_where_version_and_flag_are_the_same(other: object) -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", spec("safe", idempotent=True, version="1"))
    ask(client, call("x", "safe"))
    beta = harness.member("beta", other)  # type: ignore[arg-type]
    alpha.drop()
    harness.advance(30)
    assert beta.take(Request) == []
    assert fault(client).details["maybe_executed"] is False
    harness.idle()


def test_lost_together_they_share_a_message_elsewhere() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, *[call(name, "safe") for name in "xyz"])
    beta = harness.member("beta", IDEMPOTENT)
    alpha.drop()
    harness.advance(1)
    (request,) = beta.take(Request)
    assert request.here == ("x", "y", "z")


def test_a_member_that_has_left_may_still_answer_until_its_link_ends() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    for number, function in enumerate(("once", "safe", "once"), 1):
        ask(client, call("x", function), number=number)
    beta = harness.member("beta", *BOTH)
    alpha.leave()
    assert client.take(Result) == [] and beta.take(Request) == []
    alpha.send(done(alpha.take(Request)[0], "x", 1))
    assert value(answer(client), "x") == 1
    alpha.drop()
    lost = answer(client)
    assert lost.id == 3 and lost.fault is not None and lost.fault.code == 1023
    harness.advance(1)
    assert [request.here for request in beta.take(Request)] == [("x",)]


# -- links that are not there yet -------------------------------------------------------------------------------------


def test_a_call_waits_for_a_link_then_goes_elsewhere() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    alpha.drop()  # SUSPECT now, and nobody answers at its address
    harness.dials.clear()
    ask(client, call("x", "safe"))
    assert client.take(Result) == []
    harness.advance(0.5)
    back = harness.member("alpha", again=alpha)
    (request,) = back.take(Request)
    back.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_a_link_that_never_comes_is_1001_after_a_second() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    alpha.send(Goodbye("on purpose"))  # so that it is no suspect for a while
    alpha.drop()
    ask(client, call("x", "once"))
    harness.advance(0.99)
    assert client.take(Result) == []
    harness.advance(0.02)
    found = fault(client)
    assert (
        found.code == 1001
        and "could not connect to alpha" in found.message
        and found.details["maybe_executed"] is False
    )
    harness.idle()


def test_a_call_that_fails_while_it_waits_for_a_link_leaves_no_timer_behind() -> None:
    """Under partial its request goes on, and so did the timer, of a wait that was over."""
    harness = NodeHarness([spec("own")], limits=Limits(link_wait=60 * SECOND))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    alpha.drop()
    ask(client, call("x", "once"), call("y", "own"), partial=True)
    assert [key for key in harness.node._timers._at if key[0] == TimerKind.LINK_WAIT] == [(TimerKind.LINK_WAIT, 1, "x")]
    harness.advance(15)  # DEAD by now, so nobody offers it
    assert harness.node.coordinator.pending_calls.calls == {}
    assert [key for key in harness.node._timers._at if key[0] == TimerKind.LINK_WAIT] == []
    (run,) = harness.running("own")
    harness.finish(run)
    assert [(row.name, row.fault.code) for row in answer(client).failed] == [("x", 1001)]
    harness.idle()


# -- many nodes lost in one moment ------------------------------------------------------------------------------------


def test_links_that_end_in_one_moment_cost_one_try() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(f"m{number}", IDEMPOTENT) for number in range(6)]
    ask(client, call("x", "safe"))
    first, _ = asked(*members)
    survivor = next(member for member in members if member is not first)
    for member in members:
        if member is not survivor:
            member.drop()
            assert client.take(Result) == []
    harness.advance(3)
    (request,) = survivor.take(Request)
    survivor.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_failover_waits_longer_after_each_loss_and_never_for_the_deadline() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma")]
    ask(client, call("x", "safe"))
    pauses = []
    for _ in range(2):
        asked(*members)[0].drop()
        (at,) = [at for key, (at, _) in harness.node._timers._at.items() if key[0] == TimerKind.RETRY]
        pauses.append((at - harness.now) / SECOND)
        harness.advance(0.4)
    assert 0.05 <= pauses[0] <= 0.1 and 0.2 <= pauses[1] <= 0.4
    last, _ = asked(*members)
    ask(client, call("y", "safe"), number=2, timeout=SECOND // 10)
    last.drop()
    harness.advance(0.2)
    assert {result.id: result.fault.code for result in client.take(Result) if result.fault} == {1: 1023, 2: 1020}


def test_a_node_that_is_lost_again_counts_once() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("x", "safe"), timeout=3600 * SECOND)
    for pause in (0.2, 0.5, 2, 6):
        alpha.take(Request)
        alpha.drop()
        alpha = harness.member("alpha", again=alpha)
        harness.advance(pause)
        assert client.take(Result) == []
    (request,) = alpha.take(Request)
    alpha.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


# -- what never left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["once", "safe"])
def test_a_call_for_a_link_that_this_node_has_closed_waits_for_the_next(function: str) -> None:
    """The cluster hears of its end only when the transport is gone; nothing was sent, so nothing can have started."""
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    harness.node.links.hang_up(alpha.link)
    ask(client, call("x", function))
    assert alpha.take(Request) == [] and client.take(Result) == []
    alpha.drop()
    harness.advance(0.5)
    back = harness.member("alpha", again=alpha)
    (request,) = back.take(Request)
    back.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_a_link_that_is_gone_when_a_dispatch_is_sent_is_no_loss() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    send, gone = harness.node.links.send, [True]

    def fails_once(link: LinkId, message: Message) -> SendOutcome:
        return LINK_GONE if isinstance(message, Request) and gone and gone.pop() else send(link, message)

    harness.node.links.send = fails_once  # type: ignore[method-assign]
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    assert request.here == ("x", "y")
    alpha.send(done(request, "x", 1, "y", 2))
    assert answer(client).fault is None
    harness.idle()


def test_calls_that_are_too_long_together_go_in_several_dispatches() -> None:
    harness = NodeHarness(limits=Limits(node_message=5_000))
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("make", "safe", "z" * 2_000), *[call(name, "safe", Ref("make"), "y" * 2_000) for name in "uvwx"])
    (first,) = alpha.take(Request)
    alpha.send(done(first, "make", "m" * 600))
    rest = alpha.take(Request)
    assert len(rest) > 1 and [name for request in rest for name in request.here] == list("uvwx")
    assert all(len(dialects.encode(request)) <= 5_000 and request.inputs.keys() == {"make"} for request in rest)
    for request in rest:
        alpha.send(done(request, *[part for name in request.here for part in (name, 1)]))
    assert len(answer(client).done) == 4
    harness.idle()


def test_failover_of_calls_from_several_nodes_fits_their_messages() -> None:
    harness = NodeHarness(limits=Limits(node_message=5_000))
    client = harness.client()
    alpha = harness.member("alpha", IDEMPOTENT)
    ask(client, *[call(name, "safe", "y" * 2_000) for name in "uvwx"])
    assert len(alpha.take(Request)) > 1
    beta = harness.member("beta", IDEMPOTENT)
    alpha.drop()
    harness.advance(1)
    again = beta.take(Request)
    assert [name for request in again for name in request.here] == list("uvwx")
    assert all(len(dialects.encode(request)) <= 5_000 for request in again)


def test_calls_that_fit_only_one_by_one_go_one_by_one() -> None:
    """Should the reckoning ever be too low: the outcome of sending decides."""
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    send = harness.node.links.send

    def takes_one(link: LinkId, message: Message) -> SendOutcome:
        long = isinstance(message, Request) and len(message.calls) > 1
        return TooLong(101, 100) if long else send(link, message)

    harness.node.links.send = takes_one  # type: ignore[method-assign]
    ask(client, *[call(name, "once") for name in "xyz"], trace=True)
    requests = alpha.take(Request)
    assert [request.here for request in requests] == [("x",), ("y",), ("z",)]
    for request in requests:
        alpha.send(done(request, request.here[0], 1))
    assert [row.tries for row in answer(client).trace] == [1, 1, 1]
    harness.idle()


# -- relays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1022])
def test_a_relay_that_refuses_does_not_count_against_the_member(code: int) -> None:
    """The call goes to the member by another relay, not elsewhere and not nowhere."""
    harness = NodeHarness(limits=Limits(link_wait=SECOND // 10))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    relays = [harness.member("one"), harness.member("two")]
    alpha.send(Goodbye("on purpose"))
    alpha.drop()
    ask(client, call("x", "once"))
    harness.advance(0.2)
    first, request = asked(*relays)
    assert request.to == alpha.cluster.me
    details = {"maybe_executed": False, "relayed": True}
    first.send(Result(request.id, fault=Fault(code, "not over me", details)))
    second, again = asked(*relays)
    assert second is not first and again.to == alpha.cluster.me
    second.send(done(again, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_when_all_relays_refuse_the_error_speaks_of_the_route() -> None:
    harness = NodeHarness(limits=Limits(link_wait=SECOND // 10))
    client, alpha, relay = harness.client(), harness.member("alpha", ONCE), harness.member("one")
    alpha.send(Goodbye("on purpose"))
    alpha.drop()
    ask(client, call("x", "once"))
    harness.advance(0.2)
    (request,) = relay.take(Request)
    relay.send(Result(request.id, fault=Fault(1001, "no", {"maybe_executed": False, "relayed": True})))
    harness.advance(0.2)
    found = fault(client)
    assert (
        found.code == 1001
        and "could not connect to alpha" in found.message
        and found.details["maybe_executed"] is False
    )
    harness.idle()
