"""Refused, lost, not linked yet: where a call goes then, and where it must not go. Members are spoken by hand."""

import msgspec
import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.wire.messages import Failed, Goodbye, Request, Result
from tests.helpers.pair import Desk, Far, Member, call, done, refused, spec, value

IDEMPOTENT = spec("safe", idempotent=True)
ONCE = spec("once")
BOTH = (IDEMPOTENT, ONCE)


def ask(client: Far, *calls: object, number: int = 1, **fields: object) -> None:
    client.say(Request(number, tuple(calls), **fields))  # type: ignore[arg-type]


def answer(client: Far) -> Result:
    """The only answer that has come."""
    (result,) = client.take(Result)
    return result


def fault(client: Far) -> Fault:
    found = answer(client).fault
    assert found is not None
    return found


def asked(*members: Member) -> tuple[Member, Request]:
    """The only dispatch that is out, and to whom it went."""
    ((member, request),) = [(member, request) for member in members for request in member.take(Request)]
    return member, request


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1022, 1024])
@pytest.mark.parametrize("function", ["once", "safe"])
def test_a_refusal_sends_the_call_elsewhere_and_never_twice_to_the_same(code: int, function: str) -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, *BOTH) for name in ("alpha", "beta", "gamma")]
    ask(client, call("x", function))
    tried = []
    for _ in range(3):
        member, request = asked(*members)
        tried.append(member)
        member.say(refused(request, code))
    assert len({id(member) for member in tried}) == 3
    found = fault(client)
    assert (found.code, found.details["maybe_executed"], found.details["call"]) == (code, False, "x")
    desk.idle()


def test_only_the_refused_call_goes_elsewhere() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", *BOTH)
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    beta = desk.member("beta", *BOTH)
    alpha.say(msgspec.structs.replace(refused(request, 1022, "y"), last=False))
    (second,) = beta.take(Request)
    assert second.here == ("y",)
    beta.say(done(second, "y", 2))
    alpha.say(done(request, "x", 1))
    assert len(answer(client).done) == 2
    desk.idle()


def test_a_refusal_of_the_whole_dispatch_is_one_of_each_call() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    (request,) = alpha.take(Request)
    beta = desk.member("beta", ONCE)
    alpha.say(Result(request.id, fault=Fault(1024, "this link is closing", {"maybe_executed": False})))
    assert beta.take(Request)[0].here == ("x", "y")


def test_a_link_that_closes_is_not_the_member() -> None:
    """Two links, of which the member closes the one that the call is on: it is asked again over the other."""
    desk = Desk()
    client, first = desk.client(), desk.member("alpha", ONCE)
    ask(client, call("x", "once"))
    (request,) = first.take(Request)
    second = desk.member("alpha", again=first)
    first.say(Goodbye("duplicate"), Result(request.id, fault=Fault(1024, "this link is closing")))
    (repeated,) = second.take(Request)
    second.say(done(repeated, "x", 1))
    assert value(answer(client), "x") == 1
    desk.idle()


def test_a_body_lost_on_a_living_node_is_started_again_if_idempotent() -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "safe"))
    for _ in range(3):
        member, request = asked(*members)
        member.say(lost_there(request))
    assert (fault(client).code, desk.node.coordinator.requests) == (1023, {})
    ask(client, call("x", "safe"), number=2)
    member, request = asked(*members)
    member.say(lost_there(request))
    member, request = asked(*members)
    member.say(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    desk.idle()


def test_a_body_lost_on_a_living_node_is_not_started_again_if_not_idempotent() -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, *BOTH) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = asked(*members)
    member.say(lost_there(request))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, True)
    assert [one for member in members for one in member.take(Request)] == []
    desk.idle()


def lost_there(request: Request) -> Result:
    """The process of a pool that ran the call has died."""
    row = Failed(request.calls[0].name, Fault(1023, "lost", {"node": "there"}))
    return Result(request.id, failed=(row,))


def test_a_refused_call_that_waited_ends_with_its_refusal_if_it_is_still_offered() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    ask(client, call("x", "once"), wait=SECOND)
    (request,) = alpha.take(Request)
    alpha.say(refused(request, 1022))
    desk.advance(1)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1022, False)
    desk.idle()


@pytest.mark.parametrize("code", [1003, 1010, 1013, 1014, 1020])
def test_other_refusals_fail_the_call(code: int) -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, ONCE) for name in ("alpha", "beta")]
    ask(client, call("x", "once"))
    member, request = asked(*members)
    member.say(refused(request, code))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (code, False)
    assert found.details["node"].startswith(member.cluster.members.own.name)
    desk.idle()


def test_a_node_that_ends_a_dispatch_without_a_word_about_a_call() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once"))
    alpha.say(done(alpha.take(Request)[0], "x", 1))
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1002, "y", True)
    desk.idle()


# -- lost nodes -------------------------------------------------------------------------------------------------------


def test_a_lost_call_that_may_have_started_is_1023() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    beta = desk.member("beta", spec("other"))
    ask(client, call("x", "once"))
    desk.member("gamma", ONCE)
    alpha.drop()
    found = fault(client)
    assert (found.code, found.details["maybe_executed"], found.details["call"]) == (1023, True, "x")
    assert found.details["node"].startswith("alpha") and beta.take(Request) == []
    desk.idle()


def test_an_idempotent_call_goes_on_elsewhere_twice_at_most() -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma", "delta")]
    ask(client, call("x", "safe"))
    for lost in range(3):
        assert client.take(Result) == [], lost
        asked(*members)[0].drop()
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, False)
    desk.idle()


def test_refusals_are_no_losses() -> None:
    desk = Desk()
    client = desk.client()
    members = [desk.member(name, IDEMPOTENT) for name in ("alpha", "beta", "gamma", "delta")]
    ask(client, call("x", "safe"))
    for _ in range(2):
        member, request = asked(*members)
        member.say(refused(request, 1022))
    asked(*members)[0].drop()
    member, request = asked(*members)
    member.say(done(request, "x", 1))
    assert value(answer(client), "x") == 1


@pytest.mark.parametrize("other", [spec("safe", idempotent=True, version="2"), spec("safe", version="1")])
def test_elsewhere_is_only_where_version_and_flag_are_the_same(other: object) -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", spec("safe", idempotent=True, version="1"))
    ask(client, call("x", "safe"))
    beta = desk.member("beta", other)  # type: ignore[arg-type]
    alpha.drop()
    desk.advance(30)
    assert beta.take(Request) == []
    assert fault(client).details["maybe_executed"] is False
    desk.idle()


def test_lost_together_they_share_a_message_elsewhere() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", IDEMPOTENT)
    ask(client, *[call(name, "safe") for name in "xyz"])
    beta = desk.member("beta", IDEMPOTENT)
    alpha.drop()
    (request,) = beta.take(Request)
    assert request.here == ("x", "y", "z")


def test_a_member_that_has_left_may_still_answer_until_its_link_ends() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", *BOTH)
    for number, function in enumerate(("once", "safe", "once"), 1):
        ask(client, call("x", function), number=number)
    beta = desk.member("beta", *BOTH)
    alpha.leave()
    assert client.take(Result) == [] and beta.take(Request) == []
    alpha.say(done(alpha.take(Request)[0], "x", 1))
    assert value(answer(client), "x") == 1
    alpha.drop()
    lost = answer(client)
    assert lost.id == 3 and lost.fault is not None and lost.fault.code == 1023
    assert [request.here for request in beta.take(Request)] == [("x",)]


# -- links that are not there yet -------------------------------------------------------------------------------------


def test_a_call_waits_for_a_link_then_goes_elsewhere() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", IDEMPOTENT)
    alpha.drop()  # SUSPECT now, and nobody answers at its address
    desk.dials.clear()
    ask(client, call("x", "safe"))
    assert client.take(Result) == []
    desk.advance(0.5)
    back = desk.member("alpha", again=alpha)
    (request,) = back.take(Request)
    back.say(done(request, "x", 1))
    assert value(answer(client), "x") == 1
    desk.idle()


def test_a_link_that_never_comes_is_1001_after_a_second() -> None:
    desk = Desk()
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    alpha.say(Goodbye("on purpose"))  # so that it is no suspect for a while
    alpha.drop()
    ask(client, call("x", "once"))
    desk.advance(0.99)
    assert client.take(Result) == []
    desk.advance(0.02)
    found = fault(client)
    assert found.code == 1001 and "no link to alpha" in found.message and found.details["maybe_executed"] is False
    desk.idle()


def test_a_call_that_fails_while_it_waits_for_a_link_leaves_no_timer_behind() -> None:
    """Under partial its request goes on, and so did the timer, of a wait that was over."""
    desk = Desk([spec("own")], limits=Limits(link_wait=60 * SECOND))
    client, alpha = desk.client(), desk.member("alpha", ONCE)
    alpha.drop()
    ask(client, call("x", "once"), call("y", "own"), partial=True)
    assert [key for key in desk.node._timers._at if key[0] == "link"] == [("link", 1, "x")]
    desk.advance(15)  # DEAD by now, so nobody offers it
    assert desk.node.coordinator.parking.calls == {}
    assert [key for key in desk.node._timers._at if key[0] == "link"] == []
    (run,) = desk.running("own")
    desk.finish(run)
    assert [(row.name, row.fault.code) for row in answer(client).failed] == [("x", 1001)]
    desk.idle()
