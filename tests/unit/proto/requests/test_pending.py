"""Pending calls: those that wait for an offer or for a link, and their timers."""

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.requests.scheduler import PendingCalls
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Call, Request

ANN, BOB = MemberId(b"a" * 16), MemberId(b"b" * 16)


def execution(number: int) -> Execution:
    request = Request(number, (Call("x", "f", b""), Call("y", "f", b"")))
    planned = plan(request, Limits())
    assert isinstance(planned, Plan)
    return Execution(RequestId(number), request, planned, link=LinkId(1), arrived=0, deadline=100)


def test_wait_not_extended_when_pending_again() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers), execution(1)
    pending.wait_for_offer(one, "x", 10)
    assert pending.pop_all() == {1: ["x"]} and not pending.calls
    pending.wait_for_offer(one, "x", 20)
    assert timers.next() == 10 and list(pending.calls) == [(1, "x")]


def test_link_wait_restarts_for_another_member() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers), execution(1)
    pending.wait_for_link(one, "x", ANN, 10)
    pending.wait_for_link(one, "x", ANN, 20)
    assert (timers.next(), pending.link_target(one, "x"), pending.link_target(one, "y")) == (10, ANN, None)
    pending.wait_for_link(one, "x", BOB, 20)
    assert (timers.next(), pending.link_target(one, "x")) == (20, BOB)
    assert pending.expire(one, "x") and not pending.expire(one, "x")
    assert pending.link_timed_out(one, "x") == BOB and pending.link_target(one, "x") is None


def test_pop_of_the_calls_that_a_change_concerns() -> None:
    timers = Timers()
    pending = PendingCalls(timers)
    request = Request(1, (Call("x", "f", b""), Call("y", "f", b"", (), ("red",)), Call("z", "g", b"")))
    planned = plan(request, Limits())
    assert isinstance(planned, Plan)
    one = Execution(RequestId(1), request, planned, link=LinkId(1), arrived=0, deadline=100)
    pending.wait_for_offer(one, "x", 10)
    pending.wait_for_offer(one, "y", 10)
    pending.wait_for_link(one, "z", ANN, 10)
    assert list(pending.functions) == ["f", "g"]
    assert pending.matching(["f", "h"], lambda requirements: not requirements[1]) == [(1, "x")]
    assert pending.waiting_for_link([ANN, BOB]) == [(1, "z")] and pending.waiting_for_link([BOB]) == []
    assert pending.pop([(RequestId(1), "x"), (RequestId(1), "x"), (RequestId(2), "x")]) == {1: ["x"]}
    assert list(pending.calls) == [(1, "y"), (1, "z")] and pending.matching(["f"], lambda requirements: True) == [
        (1, "y")
    ]
    for name in "xyz":
        pending.discard(one, name)
    assert not (
        pending.calls or pending._requirements or pending._by_function or pending._by_member or pending._link_targets
    )


def test_retry_pause_ends_by_time_only() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers), execution(1)
    pending.retry_at(one, "x", 10)
    pending.retry_at(one, "y", 20)
    assert pending.pop_all() == {} and list(pending.functions) == [] and timers.next() == 10
    assert (
        pending.retries_due(one, 9) == []
        and pending.retries_due(one, 10) == ["x"]
        and list(pending.calls) == [(1, "y")]
    )
    pending.discard(one, "y")
    assert timers.next() is None and not pending.calls and not pending._retry_times


def test_discarded_call_has_no_timer() -> None:
    timers = Timers()
    pending, one, two = PendingCalls(timers), execution(1), execution(2)
    pending.wait_for_offer(one, "x", 10)
    pending.wait_for_link(one, "x", ANN, 11)
    pending.wait_for_offer(two, "y", 12)
    pending.wait_for_offer(one, "y", 13)
    pending.discard(one, "x")
    assert (timers.next(), list(one.pending), pending.link_target(one, "x")) == (12, ["y"], None)
    pending.discard(one, "x")
    assert pending.pop_all() == {2: ["y"], 1: ["y"]}, "in the order in which they were pending"
