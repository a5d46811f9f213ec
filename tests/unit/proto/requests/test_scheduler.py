"""The scheduler: pending calls, those that wait for an offer or for a link, with their timers; and `explain`."""

import msgspec
import pytest

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests.backlog import POLL, Credits
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.requests.scheduler import PendingCalls
from mpreg_proto.timers import Timers
from mpreg_proto.wire import dialects
from mpreg_proto.wire.messages import Call, Explain, Explanation, Request, Result
from mpreg_proto.wire.values import Ref
from tests.helpers.node_harness import CODEC, MemberStub, NodeHarness, call, done, spec

ANN, BOB = MemberId(b"a" * 16), MemberId(b"b" * 16)


# -- pending calls ----------------------------------------------------------------------------------------------------


def execution(number: int) -> Execution:
    request = Request(number, (Call("x", "f", b""), Call("y", "f", b"")))
    planned = plan(request, Limits())
    assert isinstance(planned, Plan)
    return Execution(RequestId(number), request, planned, link=LinkId(1), arrived=0, deadline=100)


def test_wait_not_extended_when_pending_again() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers, Credits()), execution(1)
    pending.wait_for_offer(one, "x", 10)
    assert pending.pop_all() == {1: ["x"]} and not pending.calls
    pending.wait_for_offer(one, "x", 20)
    assert timers.next() == 10 and list(pending.calls) == [(1, "x")]


def test_link_wait_restarts_for_another_member() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers, Credits()), execution(1)
    pending.wait_for_link(one, "x", ANN, 10)
    pending.wait_for_link(one, "x", ANN, 20)
    assert (timers.next(), pending.link_target(one, "x"), pending.link_target(one, "y")) == (10, ANN, None)
    pending.wait_for_link(one, "x", BOB, 20)
    assert (timers.next(), pending.link_target(one, "x")) == (20, BOB)
    assert pending.expire(one, "x") and not pending.expire(one, "x")
    assert pending.link_timed_out(one, "x") == BOB and pending.link_target(one, "x") is None


def test_pop_of_the_calls_that_a_change_concerns() -> None:
    timers = Timers()
    pending = PendingCalls(timers, Credits())
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
    pending, one = PendingCalls(timers, Credits()), execution(1)
    pending.retry_at(one, "x", 10)
    pending.retry_at(one, "y", 20)
    assert pending.pop_all() == {} and list(pending.functions) == [] and timers.next() == 10
    assert (
        pending.retries_due(one, "x", 9) == []
        and pending.retries_due(one, "x", 10) == ["x"]
        and list(pending.calls) == [(1, "y")]
    )
    pending.discard(one, "y")
    assert timers.next() is None and not pending.calls and not pending._retry_times


def test_discarded_call_has_no_timer() -> None:
    timers = Timers()
    pending, one, two = PendingCalls(timers, Credits()), execution(1), execution(2)
    pending.wait_for_offer(one, "x", 10)
    pending.wait_for_link(one, "x", ANN, 11)
    pending.wait_for_offer(two, "y", 12)
    pending.wait_for_offer(one, "y", 13)
    pending.discard(one, "x")
    assert (timers.next(), list(one.pending), pending.link_target(one, "x")) == (12, ["y"], None)
    pending.discard(one, "x")
    assert pending.pop_all() == {2: ["y"], 1: ["y"]}, "in the order in which they were pending"


def test_backlog_ends_the_waits_for_an_offer_and_a_link() -> None:
    timers = Timers()
    pending, one = PendingCalls(timers, Credits()), execution(1)
    pending.wait_for_offer(one, "x", 10)
    pending.wait_for_link(one, "x", ANN, 11)
    pending.pop_all()
    pending.wait_for_place(one, "x", ("f", (), None, None), 5)
    assert (timers.next(), pending.link_target(one, "x"), list(pending.calls)) == (5 + POLL, None, [(1, "x")])
    assert pending.pop_all() == {} and len(pending.backlog) == 1
    pending.wait_for_place(one, "y", ("f", (), None, None), 6)
    pending.discard(one, "x")
    assert timers.next() == 5 + POLL
    pending.discard(one, "y")
    assert (timers.next(), len(pending.backlog), pending.calls) == (None, 0, {})


# -- explain: where calls would run; a real node then runs them there -------------------------------------------------


def explained(harness: NodeHarness, request: Request) -> Explanation:
    peer = harness.client()
    peer.send(Explain(request))
    (explanation,) = peer.take(Explanation)
    return explanation


def test_one_row_for_each_call_in_the_order_of_the_request() -> None:
    harness = NodeHarness([spec("f")])
    harness.member("alpha", spec("f"), resources=("r", "s"))
    harness.member("beta", spec("f"), resources=("r",))
    made = (
        call("z", "f", Ref("x"), resources=("r",)),
        call("x", "f"),
        call("y", "f", resources=("r", "s")),
    )
    explanation = explained(harness, Request(5, made))
    assert (explanation.id, explanation.fault, [row.name for row in explanation.rows]) == (5, None, ["z", "x", "y"])
    z, x, y = explanation.rows
    assert [node.split("#")[0] for node in z.nodes] == ["beta"] and z.why == "the best of 2"
    assert [(node.split("#")[0], why) for node, why in z.rejected] == [("alpha", "holds more resources than asked for")]
    assert (
        sorted(node.split("#")[0] for node in x.nodes) == ["alpha", "beta", "local"] and x.why == "drawn among 3 equals"
    )
    assert [node.split("#")[0] for node in y.nodes] == ["alpha"] and (y.why, y.rejected) == (
        "the only node that can",
        (),
    )


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(1, ()), 1010),
        (Request(1, (call("x", "f"), call("x", "f"))), 1011),
        (Request(1, (call("x", "f", Ref("y")),)), 1013),
        (Request(1, (call("x", "f", Ref("y")), call("y", "f", Ref("x")))), 1012),
        (Request(1, (call("x", "f"), call("y", "g"))), 1001),
    ],
)
def test_error_of_the_request_as_error_of_explain(request_: Request, code: int) -> None:
    harness = NodeHarness([spec("f")])
    explanation = explained(harness, request_)
    assert explanation.fault is not None and (explanation.fault.code, explanation.rows) == (code, ())
    assert explanation.fault.details["maybe_executed"] is False


def test_reason_in_the_row_of_a_call_that_cannot_run() -> None:
    harness = NodeHarness([spec("f")])
    explanation = explained(harness, Request(1, (call("x", "f"), call("y", "nowhere")), partial=True))
    assert explanation.fault is None and [len(row.nodes) for row in explanation.rows] == [1, 0]
    assert "'nowhere'" in explanation.rows[1].why


def test_explained_nodes_are_the_nodes_that_run_the_calls() -> None:
    harness = NodeHarness([spec("f"), spec("h", resources=("z",))])
    members = [harness.member(f"m{n}", spec("f"), spec("g"), resources=tuple("abc"[: n + 1])) for n in range(3)]
    peer = harness.client()
    for number in range(40):
        made = tuple(
            call(name, "fgh"[(number + place) % 2], resources=tuple("abc"[: (number * 7 + place) % 4]))
            for place, name in enumerate("xyz")
        )
        explanation = explained(harness, Request(number, made))
        assert explanation.fault is None, explanation
        peer.send(Request(number + 1, made))
        ran = where(harness, members)
        for row in explanation.rows:
            assert ran[row.name] in row.nodes, (number, row, ran)


def where(harness: NodeHarness, members: list[MemberStub]) -> dict[str, str]:
    """Return the node that runs each call of the request, and finish all calls."""
    ran: dict[str, str] = {}
    for member in members:
        for request in member.take(Request):
            ran |= dict.fromkeys(request.here, member.cluster.members.own.shown)
            member.send(done(request, *[part for name in request.here for part in (name, 1)]))
    for run in list(harness.runs.values()):
        job = harness.node.worker.job(run.run)
        assert job is not None
        ran[job.call.name] = harness.node.shown
        harness.finish(run)
    return ran


def test_one_of_many_due_retries_takes_them_all() -> None:
    pending, one = PendingCalls(Timers(), Credits()), execution(1)
    pending.retry_at(one, "x", 10)
    pending.retry_at(one, "y", 10)
    assert pending.retries_due(one, "x", 10) == ["x", "y"]
    pending.retry_at(one, "y", 20)
    assert pending.retries_due(one, "y", 10) == [], "its timer of before, which found it waiting again"
    assert list(one.pending) == ["y"]


def test_calls_that_this_node_must_run_are_not_unroutable() -> None:
    """Another coordinator has chosen this node for them, so a row of their own says that the function is gone."""
    request = Request(1, (Call("x", "gone", b""), Call("y", "gone", b"")), here=("x",))
    scheduler = NodeHarness().node.coordinator.scheduler
    assert [call.name for call in scheduler.unroutable(request)] == ["y"]


def test_candidates_of_the_calls_that_this_node_must_run() -> None:
    """The calls of `here` run here or nowhere, the others of the request on any node."""
    harness = NodeHarness([spec("add")])
    alpha, beta = harness.member("alpha"), harness.member("beta", spec("add"), spec("sub"))
    calls = (call("x", "add", 1), call("y", "sub", 2), call("z", "sub", 3))
    alpha.send(Request(1, calls, here=("x", "z"), partial=True))
    (dispatched,) = beta.take(Request)
    assert dispatched.here == ("y",) and [run.args for run in harness.running("add")] == [[1]]
    beta.send(done(dispatched, "y", 5))
    harness.finish(harness.running("add")[0])
    (result,) = alpha.take(Result)
    assert sorted(row.name for row in result.done) == ["x", "y"]
    assert [(row.name, row.fault.code) for row in result.failed] == [("z", 1001)]


def test_reasons_in_the_story_of_calls_that_wait_for_a_node() -> None:
    harness = NodeHarness([spec("add")])
    alpha = harness.member("alpha")
    harness.member("beta", spec("sub"), spec("run", idempotent=True, version="1"))
    calls = (
        call("a", "gone"),
        call("b", "sub"),
        call("c", "sub", resources=("gpu",)),
        msgspec.structs.replace(call("d", "add"), version="2"),
    )
    alpha.send(Request(1, calls, here=("b",), wait=10**9))
    (request,) = harness.node.coordinator.requests
    rows = harness.node.coordinator.story(request)
    assert {row.call: row.reason for row in rows if row.state is CallState.PENDING} == {
        "a": "no node offers 'gone'",
        "b": "this node, the only one that may run it, does not offer 'sub'",
        "c": "no node that offers 'sub' has its resources and version",
        "d": "no node that offers 'add' has its resources and version",
    }


MAKE = "\U0001f600" * 200
"""The name of the call that the others depend on: 800 bytes."""
REFERS = CODEC.encode([[Ref(MAKE)], {}])


@pytest.mark.parametrize(
    "added",
    [
        Call("x", "f", b""),
        Call("x" * 250, "f" * 250, REFERS, (MAKE,), ("r" * 250, "s" * 250), "v" * 250),
        Call("\U0001f600" * 60, "\U0001f600" * 60, REFERS, (MAKE,), ("\U0001f600" * 60,), "\U0001f600" * 60),
        Call("x", "f", REFERS, (MAKE,), tuple(f"{number:03}" for number in range(100))),
    ],
)
@pytest.mark.parametrize("included", [False, True])
def test_bytes_that_a_call_adds_to_a_dispatch(added: Call, included: bool) -> None:
    """Never too few, so that a dispatch fits in a message."""
    first = Call(MAKE, "f", b"")
    planned = plan(Request(1, (first, added)), Limits())
    assert isinstance(planned, Plan)
    one = Execution(RequestId(1), Request(1, (first, added)), planned, link=LinkId(1), arrived=0, deadline=100)
    one.values[MAKE] = b"m" * 3000
    inputs = one.inputs_of(added.name)
    before = inputs if included else {}
    scheduler = NodeHarness().node.coordinator.scheduler

    def length(calls: tuple[Call, ...], held: dict[str, bytes]) -> int:
        names = tuple(one.name for one in calls)
        return len(
            dialects.encode(Request(1, calls, here=names, idempotent=names, inputs=held, partial=True, eager=True))
        )

    grown = length((first, added), {**before, **inputs}) - length((first,), dict(before))
    assert grown <= scheduler._size(one, added, before)
    saved = scheduler._size(one, added, {}) - scheduler._size(one, added, inputs)
    assert saved >= 3000 if added.dependencies else saved == 0
