"""Calls that wait for an offer or for a link, and their timers."""

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests.execution import Execution
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.parking import Parking
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Call, Request

ANN, BOB = MemberId(b"a" * 16), MemberId(b"b" * 16)


def execution(number: int) -> Execution:
    request = Request(number, (Call("x", "f", b""), Call("y", "f", b"")))
    laid_out = plan(request, Limits())
    assert isinstance(laid_out, Plan)
    return Execution(RequestId(number), request, laid_out, link=LinkId(1), arrived=0, deadline=100)


def test_a_wait_is_not_made_longer_by_parking_again() -> None:
    timers = Timers()
    parking, one = Parking(timers), execution(1)
    parking.until_offered(one, "x", 10)
    assert parking.take_all() == {1: ["x"]} and not parking.calls
    parking.until_offered(one, "x", 20)
    assert timers.next() == 10 and list(parking.calls) == [(1, "x")]


def test_a_link_to_another_member_is_waited_for_anew() -> None:
    timers = Timers()
    parking, one = Parking(timers), execution(1)
    parking.until_linked(one, "x", ANN, 10)
    parking.until_linked(one, "x", ANN, 20)
    assert (timers.next(), parking.awaited(one, "x"), parking.awaited(one, "y")) == (10, ANN, None)
    parking.until_linked(one, "x", BOB, 20)
    assert (timers.next(), parking.awaited(one, "x")) == (20, BOB)
    assert parking.come_due(one, "x") and not parking.come_due(one, "x")
    assert parking.link_missed(one, "x") == BOB and parking.awaited(one, "x") is None


def test_a_change_takes_out_only_what_it_concerns() -> None:
    timers = Timers()
    parking = Parking(timers)
    request = Request(1, (Call("x", "f", b""), Call("y", "f", b"", (), ("red",)), Call("z", "g", b"")))
    laid_out = plan(request, Limits())
    assert isinstance(laid_out, Plan)
    one = Execution(RequestId(1), request, laid_out, link=LinkId(1), arrived=0, deadline=100)
    parking.until_offered(one, "x", 10)
    parking.until_offered(one, "y", 10)
    parking.until_linked(one, "z", ANN, 10)
    assert list(parking.functions) == ["f", "g"]
    assert parking.offered(["f", "h"], lambda asked: not asked[1]) == [(1, "x")]
    assert parking.awaiting([ANN, BOB]) == [(1, "z")] and parking.awaiting([BOB]) == []
    assert parking.take([(RequestId(1), "x"), (RequestId(1), "x"), (RequestId(2), "x")]) == {1: ["x"]}
    assert list(parking.calls) == [(1, "y"), (1, "z")] and parking.offered(["f"], lambda asked: True) == [(1, "y")]
    for name in "xyz":
        parking.release(one, name)
    assert not (parking.calls or parking._asked or parking._by_function or parking._by_member or parking._awaited)


def test_a_pause_is_ended_by_time_alone() -> None:
    timers = Timers()
    parking, one = Parking(timers), execution(1)
    parking.pause(one, "x", 10)
    parking.pause(one, "y", 20)
    assert parking.take_all() == {} and list(parking.functions) == [] and timers.next() == 10
    assert parking.due(one, 9) == [] and parking.due(one, 10) == ["x"] and list(parking.calls) == [(1, "y")]
    parking.release(one, "y")
    assert timers.next() is None and not parking.calls and not parking._pausing


def test_what_is_released_has_no_timer_and_comes_back_by_none() -> None:
    timers = Timers()
    parking, one, two = Parking(timers), execution(1), execution(2)
    parking.until_offered(one, "x", 10)
    parking.until_linked(one, "x", ANN, 11)
    parking.until_offered(two, "y", 12)
    parking.until_offered(one, "y", 13)
    parking.release(one, "x")
    assert (timers.next(), list(one.parked), parking.awaited(one, "x")) == (12, ["y"], None)
    parking.release(one, "x")
    assert parking.take_all() == {2: ["y"], 1: ["y"]}, "in the order in which they were parked"
