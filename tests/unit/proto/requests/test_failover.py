"""Failover: where a call goes after a refusal, a loss or a missing link, on a real node with stub members."""

import msgspec
import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.sending import LINK_GONE, SendOutcome, TooLong
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire import dialects
from mpreg_proto.wire.messages import Failed, Goodbye, Message, Request, Result
from mpreg_proto.wire.values import Ref
from tests.helpers.node_harness import MemberStub, NodeHarness, PeerStub, call, done, refused, spec, value

IDEMPOTENT = spec("safe", idempotent=True)
ONCE = spec("once")
BOTH = (IDEMPOTENT, ONCE)


def ask(client: PeerStub, *calls: object, number: int = 1, **fields: object) -> None:
    client.send(Request(number, tuple(calls), **fields))  # type: ignore[arg-type]


def answer(client: PeerStub) -> Result:
    """Return the only reply that the client has received."""
    (result,) = client.take(Result)
    return result


def fault(client: PeerStub) -> Fault:
    found = answer(client).fault
    assert found is not None
    return found


def only_dispatch(*members: MemberStub) -> tuple[MemberStub, Request]:
    """Return the only dispatch that was sent, with the member that received it."""
    ((member, request),) = [(member, request) for member in members for request in member.take(Request)]
    return member, request


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1022, 1024])
@pytest.mark.parametrize("function", ["once", "safe"])
def test_refused_call_tries_each_member_once(code: int, function: str) -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta", "gamma")]
    ask(client, call("x", function))
    tried = []
    for _ in range(3):
        member, request = only_dispatch(*members)
        tried.append(member)
        member.send(refused(request, code))
    assert len({id(member) for member in tried}) == 3
    found = fault(client)
    assert (found.code, found.details["maybe_executed"], found.details["call"]) == (code, False, "x")
    harness.idle()


def test_only_the_refused_call_is_placed_again() -> None:
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


def test_refusal_of_a_whole_dispatch() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    beta = harness.member("beta", ONCE)
    alpha.send(Result(request.id, fault=Fault(1024, "this link is closing", {"maybe_executed": False})))
    assert beta.take(Request)[0].here == ("x", "y")


def test_refusal_on_a_closing_link_of_a_member_with_two() -> None:
    """Of two links, the member closes the one with the call; the call is dispatched again over the other."""
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


def test_failover_of_an_idempotent_call_lost_on_an_alive_node() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "safe"))
    for _ in range(3):
        member, request = only_dispatch(*members)
        member.send(lost_on_node(request))
        harness.advance(3)
    assert (fault(client).code, harness.node.coordinator.requests) == (1023, {})
    ask(client, call("x", "safe"), number=2)
    member, request = only_dispatch(*members)
    member.send(lost_on_node(request))
    assert not any(member.take(Request) for member in members), "it waits, as whatever ended it may end it again"
    harness.advance(1)
    member, request = only_dispatch(*members)
    member.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_no_failover_of_a_call_lost_on_an_alive_node() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = only_dispatch(*members)
    member.send(lost_on_node(request))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, True)
    assert [one for member in members for one in member.take(Request)] == []
    harness.idle()


def lost_on_node(request: Request) -> Result:
    """Return a result for a call whose pool process has died."""
    row = Failed(request.calls[0].name, Fault(1023, "lost", {"node": "there"}))
    return Result(request.id, failed=(row,))


def test_pending_call_ends_with_its_last_refusal() -> None:
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
def test_refusals_that_fail_the_call(code: int) -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, ONCE) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = only_dispatch(*members)
    member.send(refused(request, code))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (code, False)
    assert found.details["node"].startswith(member.cluster.members.own.name)
    harness.idle()


def test_dispatch_that_ends_without_an_outcome_of_a_call() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    alpha.send(done(alpha.take(Request)[0], "x", 1))
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1002, "y", True)
    harness.idle()


# -- lost nodes -------------------------------------------------------------------------------------------------------


def test_lost_call_that_may_have_started_is_1023() -> None:
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


def test_limit_of_failovers_of_an_idempotent_call() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma", "delta")]
    ask(client, call("x", "safe"))
    for lost in range(3):
        assert client.take(Result) == [], lost
        only_dispatch(*members)[0].drop()
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
        member, request = only_dispatch(*members)
        member.send(refused(request, 1022))
    only_dispatch(*members)[0].drop()
    harness.advance(1)
    member, request = only_dispatch(*members)
    member.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1


@pytest.mark.parametrize("other", [spec("safe", idempotent=True, version="2"), spec("safe", version="1")])
def test_failover_only_to_the_same_version_and_idempotent_flag(other: object) -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", spec("safe", idempotent=True, version="1"))
    ask(client, call("x", "safe"))
    beta = harness.member("beta", other)  # type: ignore[arg-type]
    alpha.drop()
    harness.advance(30)
    assert beta.take(Request) == []
    assert fault(client).details["maybe_executed"] is False
    harness.idle()


def test_one_dispatch_for_calls_lost_together() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, *[call(name, "safe") for name in "xyz"])
    beta = harness.member("beta", IDEMPOTENT)
    alpha.drop()
    harness.advance(1)
    (request,) = beta.take(Request)
    assert request.here == ("x", "y", "z")


def test_results_of_a_left_member_until_its_link_ends() -> None:
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


# -- links not open yet -----------------------------------------------------------------------------------------------


def test_call_waits_for_a_link_to_its_member() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    alpha.drop()  # SUSPECT now, and its address does not answer
    harness.dials.clear()
    ask(client, call("x", "safe"))
    assert client.take(Result) == []
    harness.advance(0.5)
    back = harness.member("alpha", again=alpha)
    (request,) = back.take(Request)
    back.send(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_link_wait_ends_in_1001_after_a_second() -> None:
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


def test_no_link_wait_timer_after_the_call_failed() -> None:
    """Under partial the request goes on; the timer of the ended wait must not."""
    harness = NodeHarness([spec("own")], limits=Limits(link_wait=60 * SECOND))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    alpha.drop()
    ask(client, call("x", "once"), call("y", "own"), partial=True)
    assert [key for key in harness.node._timers._at if key[0] == TimerKind.LINK_WAIT] == [(TimerKind.LINK_WAIT, 1, "x")]
    harness.advance(15)  # DEAD by now, so no member offers it
    assert harness.node.coordinator.pending_calls.calls == {}
    assert [key for key in harness.node._timers._at if key[0] == TimerKind.LINK_WAIT] == []
    (run,) = harness.running("own")
    harness.finish(run)
    assert [(row.name, row.fault.code) for row in answer(client).failed] == [("x", 1001)]
    harness.idle()


# -- many nodes lost at once ------------------------------------------------------------------------------------------


def test_one_failover_for_links_that_end_at_once() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(f"m{number}", IDEMPOTENT) for number in range(6)]
    ask(client, call("x", "safe"))
    first, _ = only_dispatch(*members)
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


def test_failover_backoff_bounded_by_the_deadline() -> None:
    harness = NodeHarness()
    client = harness.client()
    members = [harness.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma")]
    ask(client, call("x", "safe"))
    pauses = []
    for _ in range(2):
        only_dispatch(*members)[0].drop()
        (at,) = [at for key, (at, _) in harness.node._timers._at.items() if key[0] == TimerKind.RETRY]
        pauses.append((at - harness.now) / SECOND)
        harness.advance(0.4)
    assert 0.05 <= pauses[0] <= 0.1 and 0.2 <= pauses[1] <= 0.4
    last, _ = only_dispatch(*members)
    ask(client, call("y", "safe"), number=2, timeout=SECOND // 10)
    last.drop()
    harness.advance(0.2)
    assert {result.id: result.fault.code for result in client.take(Result) if result.fault} == {1: 1023, 2: 1020}


def test_node_lost_again_counts_once() -> None:
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


# -- dispatches never sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["once", "safe"])
def test_call_for_a_link_closed_by_this_node(function: str) -> None:
    """The cluster learns of the link end when the transport ends. Nothing was sent, so no call can have started."""
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


def test_link_end_at_the_send_of_a_dispatch_is_no_loss() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    send, failures = harness.node.links.send, [True]

    def fails_once(link: LinkId, message: Message) -> SendOutcome:
        return LINK_GONE if isinstance(message, Request) and failures and failures.pop() else send(link, message)

    harness.node.links.send = fails_once  # type: ignore[method-assign]
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    assert request.here == ("x", "y")
    alpha.send(done(request, "x", 1, "y", 2))
    assert answer(client).fault is None
    harness.idle()


def test_several_dispatches_for_calls_over_the_message_limit() -> None:
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


def test_failover_in_several_dispatches_within_the_limit() -> None:
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


def test_dispatches_of_one_call_after_too_long() -> None:
    """If the estimate of the size is too low, the outcome of sending decides."""
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
def test_refusal_by_a_relay_does_not_count_for_the_member(code: int) -> None:
    """The call goes to the same member through another relay; it is not placed elsewhere, and it does not fail."""
    harness = NodeHarness(limits=Limits(link_wait=SECOND // 10))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    relays = [harness.member("one"), harness.member("two")]
    alpha.send(Goodbye("on purpose"))
    alpha.drop()
    ask(client, call("x", "once"))
    harness.advance(0.2)
    first, request = only_dispatch(*relays)
    assert request.to == alpha.cluster.me
    details = {"maybe_executed": False, "relayed": True}
    first.send(Result(request.id, fault=Fault(code, "not over me", details)))
    second, again = only_dispatch(*relays)
    assert second is not first and again.to == alpha.cluster.me
    second.send(done(again, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_refusal_by_a_relay_on_its_closing_link_does_not_count_for_the_member() -> None:
    harness = NodeHarness(limits=Limits(link_wait=SECOND // 10))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    relays = [harness.member("one"), harness.member("two")]
    alpha.send(Goodbye("on purpose"))
    alpha.drop()
    ask(client, call("x", "once"))
    harness.advance(0.2)
    first, request = only_dispatch(*relays)
    first.send(Goodbye(""))
    first.send(Result(request.id, fault=Fault(1001, "not over me", {"maybe_executed": False, "relayed": True})))
    harness.advance(0.2)
    second, again = only_dispatch(*relays)
    assert second is not first and again.to == alpha.cluster.me
    second.send(done(again, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_refusal_by_all_relays_names_the_failed_route() -> None:
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
