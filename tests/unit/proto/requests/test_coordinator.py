"""The coordinator on a real node with stub members: its dispatches, and its replies to the client."""

import msgspec
import pytest

from mpreg_proto.effects import Framing, HangUp, Pause, Report, Returned, Run, Send
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import RequestFinished, StrayResult
from mpreg_proto.requests.faults import no_place
from mpreg_proto.sending import TooLong
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CallProgress,
    CancelRequest,
    Credit,
    Done,
    Explain,
    Failed,
    GetView,
    Hello,
    Items,
    ItemsTaken,
    Ping,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.values import Ref
from tests.helpers.node_harness import CODEC, MemberStub, NodeHarness, PeerStub, call, done, refused, spec, value

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


# -- arrival ----------------------------------------------------------------------------------------------------------


def test_unknown_function_fails_the_request_on_arrival() -> None:
    harness = NodeHarness([spec("add")])
    client = harness.client()
    ask(client, call("x", "add", 1), call("y", "ad", Ref("x")))
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1001, "y", False)
    assert "'add'" in found.message and harness.runs == {}
    harness.idle()


def test_partial_request_runs_the_calls_that_can_run() -> None:
    harness = NodeHarness([spec("add")])
    client = harness.client()
    ask(
        client,
        call("gone", "nowhere"),
        call("after", "add", Ref("gone")),
        call("also", "nowhere", Ref("gone")),
        call("fine", "add", 4),
        partial=True,
        want=("gone", "after", "also", "fine"),
    )
    (run,) = harness.running("add")
    assert run.args == [4]
    harness.finish(run)
    result = answer(client)
    assert value(result, "fine") == 4 and len(result.done) == 1
    assert {row.name: row.fault.code for row in result.failed} == {"gone": 1001, "after": 1021, "also": 1021}
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1001, True)
    assert [row.fault.details.get("because") for row in result.failed] == [None, "gone", "gone"]
    harness.idle()


@pytest.mark.parametrize("second", ["add", "nowhere"])
@pytest.mark.parametrize("eager", [False, True])
def test_one_reply_to_a_partial_request_without_a_runnable_call(second: str, eager: bool) -> None:
    harness = NodeHarness([spec("add")])
    client = harness.client()
    calls = (call("x", "nowhere"), call("y", second, Ref("x")))
    ask(client, *calls, partial=True, eager=eager, want=("x", "y"))
    result = answer(client)
    assert {row.name: row.fault.code for row in result.failed} == {"x": 1001, "y": 1021}
    assert result.last and result.fault is not None and result.fault.details["maybe_executed"] is False
    harness.idle()


def test_wait_for_an_unknown_function_ends_in_1001() -> None:
    harness = NodeHarness()
    client = harness.client()
    ask(client, call("x", "later"), wait=3 * 10**9)
    harness.advance(2.9)
    assert client.take(Result) == []
    harness.advance(0.2)
    assert fault(client).code == 1001
    harness.idle()


def test_pending_call_runs_once_its_function_is_offered() -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    ask(client, call("x", "later", 1), wait=3600 * 10**9, timeout=7200 * 10**9)
    harness.advance(5)
    member.offer(spec("later"))
    _, request = only_dispatch(member)
    member.send(done(request, "x", "late"))
    assert value(answer(client), "x") == "late"
    harness.idle()


def test_wait_timer_of_a_call_that_is_pending_again() -> None:
    """The call is pending, is dispatched, is refused, and is then pending again for the full `wait`."""
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    ask(client, call("x", "later", 1), wait=10 * 10**9)
    harness.advance(9)
    member.offer(spec("later"))
    _, request = only_dispatch(member)
    member.withdraw("later")
    member.send(refused(request, 1001))
    harness.advance(5)
    assert client.take(Result) == []
    member.offer(spec("later"))
    member.send(done(only_dispatch(member)[1], "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_wait_timers_end_in_the_backlog() -> None:
    """The call waits for an offer and a link, then for a slot, for longer than `wait`."""
    harness = NodeHarness([spec("slow", concurrency=1, queue=1)])
    client, other = harness.client(), harness.client()
    harness.node.withdraw("slow", now=harness.now)
    ask(client, call("x", "slow", 1), wait=3 * 10**9)
    harness.advance(1)
    ask(other, call("y", "slow", 2), call("z", "slow", 3), wait=3 * 10**9, number=2)
    harness.node.offer(spec("slow", concurrency=1, queue=1), now=harness.now)
    harness.flush()
    backlog = harness.node.coordinator.pending_calls.backlog
    assert len(backlog) == 1
    harness.advance(5)
    assert client.take(Result) == other.take(Result) == [] and len(backlog) == 1
    for _ in range(3):
        harness.finish(harness.running("slow")[0])
    assert answer(client).fault is None and answer(other).fault is None
    harness.idle()


def test_duplicate_request_id_on_one_link() -> None:
    harness = NodeHarness([spec("add")])
    client = harness.client()
    ask(client, call("x", "add", 1))
    ask(client, call("x", "add", 2))
    assert fault(client).code == 1010
    harness.finish(harness.running("add")[0])
    assert value(answer(client), "x") == 1
    harness.idle()


def test_limit_of_open_requests() -> None:
    harness = NodeHarness([spec("add")], limits=Limits(requests=2))
    first, second, third = [harness.client() for _ in range(3)]
    for number, client in enumerate((first, second, third)):
        ask(client, call("x", "add", number), number=number)
    result = answer(third)
    assert result.id == 2 and result.fault is not None and result.fault.code == 1022
    assert result.fault.details["retry_after"] > 0 and result.fault.details["maybe_executed"] is False
    harness.finish(harness.running("add")[0])
    ask(third, call("x", "add", 4), number=4)
    assert len(harness.running("add")) == 2


def test_client_has_as_many_requests_as_there_is_room_for_more() -> None:
    """Alone it has half of the limit. One with many is refused before one with few, however many there are."""
    harness = NodeHarness([spec("add", concurrency=100)], limits=Limits(requests=16, client_requests=100))
    number = 0
    for allowed in (8, 4, 2, 1, 1):
        client = harness.client()
        for _ in range(allowed):
            number += 1
            ask(client, call("x", "add", number), number=number)
        assert client.take(Result) == [], "all of them are accepted"
    assert len(harness.running("add")) == 16
    last = harness.client()
    ask(last, call("x", "add", 0), number=99)
    assert answer(last).fault is not None, "the node is full"


@pytest.mark.parametrize("link", ["client", "process"])
def test_half_of_the_limit_for_one_caller(link: str) -> None:
    harness = NodeHarness([spec("add", concurrency=100)], limits=Limits(requests=5, client_requests=100))
    client = harness.client()
    for number in range(1, 5):
        if link == "client":
            ask(client, call("x", "add", number), number=number)
        else:
            harness.node.submit(Request(0, (call("x", "add", number),)), now=harness.now)
            harness.flush()
    assert len(harness.running("add")) == 3


# -- dispatches -------------------------------------------------------------------------------------------------------


def test_one_dispatch_for_ready_calls_to_one_node() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH, resources=("r",))
    beta = harness.member("beta", IDEMPOTENT, resources=("b",))
    here = ("r",)
    ask(
        client,
        call("x", "safe", 1, resources=here),
        call("y", "once", 2, resources=here),
        call("z", "safe", Ref("x"), Ref("y"), resources=here),
        call("w", "safe", Ref("x"), resources=("b",)),
    )
    (request,) = alpha.take(Request)
    assert request.here == ("x", "y") == tuple(one.name for one in request.calls)
    assert (request.partial, request.eager, request.inputs) == (True, True, {})
    alpha.send(done(request, "x", 10, last=False))
    assert [one.here for one in beta.take(Request)] == [("w",)]
    alpha.send(done(request, "y", 20))
    (third,) = alpha.take(Request)
    assert {name: CODEC.decode(data) for name, data in third.inputs.items()} == {"x": 10, "y": 20}
    assert third.id > request.id


def test_one_dispatch_for_calls_made_ready_by_one_result() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    roots = [call(f"root{n}", "safe", n) for n in range(3)]
    ask(client, *roots, *[call(f"leaf{n}", "safe", Ref(f"root{n}")) for n in range(3)])
    (request,) = alpha.take(Request)
    alpha.send(done(request, "root0", 0, "root1", 1, "root2", 2))
    (second,) = alpha.take(Request)
    assert second.here == ("leaf0", "leaf1", "leaf2")


def test_values_without_open_dependents_are_dropped() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("a", "safe"), call("b", "safe", Ref("a")), call("c", "safe", Ref("b")))
    for name in ("a", "b"):
        alpha.send(done(alpha.take(Request)[0], name, name))
    (execution,) = harness.node.coordinator.requests.values()
    assert list(execution.values) == ["b"]


def test_remaining_timeout_in_dispatches() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("a", "safe"), call("b", "safe", Ref("a")), timeout=10 * 10**9)
    (first,) = alpha.take(Request)
    harness.advance(4)
    alpha.send(done(first, "a", 1))
    assert (first.timeout, alpha.take(Request)[0].timeout) == (10 * 10**9, 6 * 10**9)


def test_dispatch_over_the_message_limit() -> None:
    harness = NodeHarness(limits=Limits(node_message=100))
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    harness.node.links.send = lambda link, message: (  # type: ignore[method-assign]  # OBJECTS messages have no length
        TooLong(101, 100)
        if isinstance(message, Request)
        else type(harness.node.links).send(harness.node.links, link, message)
    )
    ask(client, call("x", "once", "y" * 200))
    found = fault(client)
    assert (found.code, found.details["limit"], found.details["came"]) == (1014, "message", 101)
    assert found.details["maybe_executed"] is False and alpha.take(Request) == []
    harness.idle()


# -- replies ----------------------------------------------------------------------------------------------------------


def test_first_failure_cancels_open_dispatches() -> None:
    harness = NodeHarness([spec("local")])
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"), call("y", "safe"), call("l", "local"), call("z", "safe", Ref("y")))
    (request,) = alpha.take(Request)
    alpha.send(Result(request.id, failed=(Failed("x", Fault(1003, "boom", {"node": "alpha"})),), last=False))
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1003, "x", True)
    assert alpha.take(CancelRequest) == [CancelRequest(request.id)]
    assert harness.cancelled == [harness.running("local")[0].run]
    alpha.send(done(request, "y", 1))
    harness.finish(harness.running("local")[0])
    assert client.take(Result) == [] and alpha.take(Request) == []
    harness.idle()


def test_maybe_executed_false_with_idempotent_calls_only() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "safe"), call("y", "once", Ref("x")))
    (request,) = alpha.take(Request)
    alpha.send(Result(request.id, failed=(Failed("x", Fault(1003, "boom")),)))
    assert fault(client).details["maybe_executed"] is False


def test_maybe_executed_true_after_a_call_is_done() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"), call("y", "safe", Ref("x")))
    alpha.send(done(alpha.take(Request)[0], "x", 1))
    alpha.send(refused(alpha.take(Request)[0], 1013))
    assert fault(client).details["maybe_executed"] is True


def test_eager_results_once_each() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("x", "safe"), call("y", "safe"), call("z", "safe", Ref("y")), eager=True)
    (request,) = alpha.take(Request)
    alpha.send(done(request, "x", 1, last=False))
    early = answer(client)
    assert not early.last and value(early, "x") == 1
    alpha.send(done(request, "y", 2))
    assert client.take(Result) == [], "y is wanted by nobody but z"
    alpha.send(done(alpha.take(Request)[0], "z", 3))
    final = answer(client)
    assert final.last and [row.name for row in final.done] == ["z"]


def test_notice_of_stray_results() -> None:
    harness = NodeHarness()
    client, alpha, beta = harness.client(), harness.member("alpha", ONCE), harness.member("beta")
    ask(client, call("x", "once"))
    (request,) = alpha.take(Request)
    for stranger in (beta, client):
        stranger.send(done(request, "x", "forged"), Result(request.id, fault=Fault(1003, "forged")))
    alpha.send(done(msgspec.structs.replace(request, id=99), "x", 1), done(request, "other", 1, last=False))
    links = [notice.link for notice in harness.noticed(StrayResult)]
    assert [links.count(peer.link) for peer in (alpha, beta, client)] == [2, 3, 3]
    assert client.take(Result) == []
    alpha.send(done(request, "x", "true"))
    assert value(answer(client), "x") == "true"
    alpha.send(done(request, "x", "again"))
    assert client.take(Result) == [] and len(harness.noticed(StrayResult)) == 9


def test_trace_rows_with_implausible_worker_times() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("x", "safe"), call("y", "safe", Ref("x")), call("z", "safe", Ref("x")), trace=True)
    (request,) = alpha.take(Request)
    harness.advance(1)
    alpha.send(Result(request.id, (Done("x", b"\x01", waited=2 * 10**8, ran=6 * 10**8),)))
    (second,) = alpha.take(Request)
    harness.advance(1)
    absurd = (Done("y", b"\x01", waited=2**63, ran=2**63), Done("z", b"\x01", waited=-(2**62), ran=-5))
    alpha.send(Result(second.id, absurd))
    rows = {row.name: row for row in answer(client).trace}
    x = rows["x"]
    assert (x.queued, x.moved, x.started, x.ended) == (0, 10**8, 3 * 10**8, 9 * 10**8)
    assert x.node.startswith("alpha") and (x.tries, x.why) == (1, "the only node that can")
    for row in rows.values():
        assert 0 <= row.queued <= row.moved <= row.started <= row.ended <= 2 * 10**9, row


# -- deadlines, cancellation, lost clients ----------------------------------------------------------------------------


def test_deadline_cancels_open_dispatches() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "safe"), call("y", "safe", Ref("x")), timeout=5 * 10**9)
    (request,) = alpha.take(Request)
    harness.advance(4.999)
    assert client.take(Result) == []
    harness.advance(0.001)
    found = fault(client)
    assert (found.code, found.details["open"], found.details["maybe_executed"]) == (1020, ["x", "y"], False)
    assert alpha.take(CancelRequest) == [CancelRequest(request.id)]
    alpha.send(done(request, "x", 1))
    assert alpha.take(Request) == []
    harness.idle()


def test_default_deadline_in_the_error_message() -> None:
    harness = NodeHarness(limits=Limits(default_timeout=2 * 10**9))
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"))
    harness.advance(2)
    found = fault(client)
    assert "default" in found.message and found.details["maybe_executed"] is True
    assert alpha.take(CancelRequest)


def test_deadline_of_a_partial_request() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "safe"), call("y", "once"), call("w", "gone"), partial=True, timeout=10**9, wait=10**12)
    (request,) = alpha.take(Request)
    alpha.send(done(request, "x", 1, last=False))
    harness.advance(1)
    result = answer(client)
    assert value(result, "x") == 1 and {row.name: row.fault.code for row in result.failed} == {"y": 1020, "w": 1020}
    assert alpha.take(CancelRequest) == [CancelRequest(request.id)]
    alpha.send(refused(request, 1021, "y"))
    harness.idle()


def test_longest_timeout_bounds_a_deadline() -> None:
    harness = NodeHarness(limits=Limits(longest_timeout=10**9))
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"), timeout=2**62)
    assert alpha.take(Request)[0].timeout == 10**9
    harness.advance(1)
    assert fault(client).code == 1020


def test_cancellation_ends_in_1021_and_cancels_dispatches() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"))
    client.send(CancelRequest(1), CancelRequest(1), CancelRequest(77))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1021, True)
    (request,) = alpha.take(Request)
    assert alpha.take(CancelRequest) == [CancelRequest(request.id)]
    alpha.send(refused(request, 1021))
    assert client.take(Result) == []
    harness.idle()


def test_cancel_request_from_another_client() -> None:
    harness = NodeHarness([spec("add")])
    client, other = harness.client(), harness.client("other")
    ask(client, call("x", "add", 1))
    other.send(CancelRequest(1))
    harness.finish(harness.running("add")[0])
    assert value(answer(client), "x") == 1 and other.take(Result) == []


def test_lost_client_cancels_its_request() -> None:
    harness = NodeHarness([spec("local")])
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", "once"), call("l", "local"), call("w", "later"), wait=10**9)
    (request,) = alpha.take(Request)
    client.drop()
    assert alpha.take(CancelRequest) == [CancelRequest(request.id)]
    assert harness.cancelled == [harness.running("local")[0].run]
    alpha.send(refused(request, 1021))
    harness.finish(harness.running("local")[0])
    harness.idle()


# -- the backlog ------------------------------------------------------------------------------------------------------

NARROW = spec("narrow", concurrency=1, queue=1)
"""Its member takes two calls at once."""


def dispatched(member: MemberStub) -> list[tuple[Request, str]]:
    """Return the calls that were dispatched to a member since the last time, in order."""
    return [(request, one) for request in member.take(Request) for one in request.here]


def full(asked: Request) -> Result:
    """Return the refusal of all calls of a dispatch for lack of a place."""
    rows = [Failed(one.name, no_place(one, "alpha"), refused=True) for one in asked.calls]
    return Result(asked.id, failed=tuple(rows))


def ran(asked: Request, name: str, seconds: float) -> Result:
    return Result(asked.id, (Done(name, CODEC.encode(None), 0, round(seconds * SECOND)),))


def run_all(harness: NodeHarness, member: MemberStub) -> list[str]:
    """Let a member end one call after another, a millisecond each, until it gets no more; return them in order."""
    open_calls, order = dispatched(member), list[str]()
    while open_calls:
        request, name = open_calls.pop(0)
        order.append(name)
        harness.advance(0.001)
        member.send(ran(request, name, 0.001))
        open_calls += dispatched(member)
    return order


def test_backlog_is_drained_by_results() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in (1, 2, 3, 4):
        ask(client, call(f"c{number}", "narrow"), number=number)
    (first, _), (second, _) = dispatched(alpha)
    alpha.send(done(first, "c1", 1))
    ((_, name),) = dispatched(alpha)
    assert name == "c3"
    alpha.send(done(second, "c2", 1))
    assert [name for _, name in dispatched(alpha)] == ["c4"]


def test_backlog_is_drained_by_own_results() -> None:
    harness = NodeHarness([NARROW])
    client = harness.client()
    for number in (1, 2, 3):
        ask(client, call("x", "narrow", number), number=number)
    assert (harness.node.worker.queued, len(harness.node.coordinator.pending_calls.backlog)) == (1, 1)
    for number in (1, 2, 3):
        (run,) = harness.running("narrow")
        assert run.args == [number]
        harness.finish(run)
    harness.idle()


def test_full_member_gets_the_call_once_it_grants_a_place() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    ask(client, call("x", "narrow"))
    alpha.send(full(only_dispatch(alpha)[1]))
    assert dispatched(alpha) == [] and client.take(Result) == []
    alpha.send(Credit("narrow"))
    alpha.send(done(only_dispatch(alpha)[1], "x", 7))
    assert value(answer(client), "x") == 7
    harness.idle()


def test_full_member_is_tried_again_every_quarter_second() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    ask(client, call("x", "narrow"))
    for _ in range(3):
        alpha.send(full(only_dispatch(alpha)[1]))
        harness.advance(0.24)
        assert dispatched(alpha) == []
        harness.advance(0.01)
    alpha.send(done(only_dispatch(alpha)[1], "x", 7))
    assert value(answer(client), "x") == 7
    harness.idle()


def test_full_member_at_the_deadline_is_1020() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    ask(client, call("x", "narrow"), timeout=SECOND)
    _, request = only_dispatch(alpha)
    harness.now += SECOND  # its timer is not handled yet
    alpha.send(full(request))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1020, False)
    harness.idle()


def test_backlog_is_drained_when_a_dispatch_was_not_sent() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in range(3):
        ask(client, call(f"c{number}", "narrow"), number=number, timeout=10 * SECOND)
    ask(client, call("c3", "narrow"), number=3, timeout=20 * SECOND)
    (first, _), _ = dispatched(alpha)
    send = harness.node.links.send
    harness.node.links.send = lambda link, message: (  # type: ignore[method-assign]  # OBJECTS messages have no length
        TooLong(101, 100) if isinstance(message, Request) and message.here == ("c2",) else send(link, message)
    )
    alpha.send(done(first, "c0", 1))
    assert [(result.id, result.fault is None) for result in client.take(Result)] == [(0, True), (2, False)]
    assert [name for _, name in dispatched(alpha)] == ["c3"]


def test_own_place_is_granted_to_the_own_coordinator() -> None:
    harness = NodeHarness([NARROW])
    client, alpha = harness.client(), harness.member("alpha")
    alpha.send(Request(1, (call("x", "narrow", 1), call("y", "narrow", 2)), here=("x", "y"), partial=True, eager=True))
    ask(client, call("z", "narrow", 3))
    harness.finish(harness.running("narrow")[0])
    assert harness.node.worker.queued == 1 and not harness.node.coordinator.pending_calls.backlog


def test_backlog_is_drained_by_another_offer() -> None:
    harness = NodeHarness()
    client, alpha, beta = harness.client(), harness.member("alpha", NARROW), harness.member("beta")
    ask(client, call("x", "narrow"), call("y", "narrow"), call("z", "narrow"))
    assert [name for _, name in dispatched(alpha)] == ["x", "y"]
    beta.offer(NARROW)
    assert [name for _, name in dispatched(beta)] == ["z"]


def test_call_in_the_backlog_fails_with_its_only_member() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in (1, 2, 3):
        ask(client, call("x", "narrow"), number=number)
    alpha.leave()
    alpha.drop()
    assert [result.id for result in client.take(Result)] == [1, 2, 3]
    assert harness.node.coordinator.outstanding.credits._windows == {}
    harness.idle()


def test_cancelled_call_leaves_the_backlog() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in (1, 2, 3):
        ask(client, call("x", "narrow"), number=number)
    client.send(CancelRequest(3))
    assert fault(client).code == 1021 and not harness.node.coordinator.pending_calls.backlog
    assert TimerKind.BACKLOG not in {key[0] for key in harness.node._timers._at}
    alpha.send(done(dispatched(alpha)[0][0], "x", 1))
    assert dispatched(alpha) == []


def test_new_calls_wait_behind_the_backlog() -> None:
    """The result of `x` makes `y` ready, and frees a place for `z`, which has waited."""
    harness = NodeHarness()
    client, other, alpha = harness.client(), harness.client(), harness.member("alpha", NARROW)
    ask(client, call("x", "narrow"), call("w", "narrow"), call("y", "narrow", Ref("x")), timeout=20 * SECOND)
    ask(other, call("z", "narrow"), timeout=10 * SECOND)
    request = dispatched(alpha)[0][0]
    alpha.send(done(request, "x", 1, last=False))
    assert [name for _, name in dispatched(alpha)] == ["z"]


def test_clients_take_turns_in_the_backlog() -> None:
    harness = NodeHarness()
    client, other, alpha = harness.client(), harness.client(), harness.member("alpha", NARROW)
    for number in range(6):
        ask(client, call(f"c{number}", "narrow"), number=number, timeout=10 * SECOND)
    for number in range(2):
        ask(other, call(f"o{number}", "narrow"), number=number, timeout=20 * SECOND)
    order = run_all(harness, alpha)
    assert order == ["c0", "c1", "o0", "o1", "c2", "c3", "c4", "c5"], "the first two count, although they did not wait"


def test_time_of_calls_counts_once_with_or_without_a_turn() -> None:
    harness = NodeHarness()
    client, other, alpha = harness.client(), harness.client(), harness.member("alpha", spec("pair", concurrency=2))
    for number in range(8):
        ask(client, call(f"c{number}", "pair"), number=number, timeout=10 * SECOND)
    for number in range(6):
        ask(other, call(f"o{number}", "pair"), number=number, timeout=20 * SECOND)
    order = run_all(harness, alpha)
    assert order[:4] == ["c0", "c1", "c2", "c3"], "without a turn"
    assert order[4:8] == ["o0", "o1", "o2", "o3"], "as much time"
    assert order[8:] == ["c4", "o4", "c5", "o5", "c6", "c7"]


def test_call_that_waits_for_a_link_has_its_place() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    alpha.drop()
    ask(client, *[call(f"c{number}", "narrow") for number in range(5)])
    pending = harness.node.coordinator.pending_calls
    assert len(pending.calls) == 5 and len(pending.backlog) == 3
    client.send(CancelRequest(1))
    assert fault(client).code == 1021
    assert harness.node.coordinator.outstanding.credits._out == {}


def test_backlog_of_a_node_that_leaves() -> None:
    harness = NodeHarness([NARROW])
    client = harness.client()
    ask(client, *[call(f"c{number}", "narrow") for number in range(9)])
    harness.node.leave(now=harness.now)
    harness.flush()
    while running := harness.running("narrow"):
        harness.finish(running[0])
    assert len(answer(client).done) == 9


def test_call_whose_runtime_no_longer_fits_is_not_started() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in range(9):
        ask(client, call("x", "narrow"), number=number)
    open_calls = dispatched(alpha)
    for _ in range(5):
        harness.advance(1)
        alpha.send(ran(open_calls.pop(0)[0], "x", 1))
        open_calls += dispatched(alpha)
    client.take(Result)
    ask(client, call("y", "narrow"), number=9, timeout=3 * SECOND)
    harness.advance(2.5)
    alpha.send(ran(open_calls.pop(0)[0], "x", 1))
    late = {result.id: result for result in client.take(Result)}[9]
    assert late.fault is not None and late.fault.code == 1020
    assert late.fault.details["maybe_executed"] is False and [name for _, name in dispatched(alpha)] == ["x"]


def test_admission_depends_on_the_first_calls_of_a_request() -> None:
    harness = NodeHarness()
    client, other, alpha = harness.client(), harness.client(), harness.member("alpha", NARROW, spec("wide"))
    for number in range(20):
        ask(client, call("x", "narrow"), number=number)
        ask(other, call("x", "narrow"), number=number)
    open_calls = dispatched(alpha)
    for _ in range(6):
        harness.advance(0.25)
        alpha.send(ran(open_calls.pop(0)[0], "x", 0.05))
        open_calls += dispatched(alpha)
    client.take(Result)
    later = call("z", "narrow", Ref("y"))
    ask(client, call("y", "wide"), later, number=30)
    assert client.take(Result) == []
    ask(client, call("y", "narrow"), number=31)
    refusal = fault(client)
    assert (refusal.code, refusal.details["function"], refusal.details["maybe_executed"]) == (1022, "narrow", False)


def test_disconnected_client_leaves_the_backlog() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", NARROW)
    for number in (1, 2, 3):
        ask(client, call("x", "narrow"), number=number)
    backlog = harness.node.coordinator.pending_calls.backlog
    assert len(backlog) == 1
    client.drop()
    assert (len(backlog), backlog._queues) == (0, {})
    assert len(alpha.take(CancelRequest)) == 2


def test_credit_from_a_client_ends_its_link() -> None:
    harness = NodeHarness()
    client = harness.client()
    client.send(Credit("narrow"))
    assert client.hung_up is not None


# -- the credit of clients --------------------------------------------------------------------------------------------


def native(harness: NodeHarness) -> LinkId:
    """Open a link that carries bytes, and greet the node as a client."""
    link = LinkId(50)
    harness.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=harness.now)
    harness.node.receive(link, dialects.encode(hello(cluster="", member=b"", name="c")), now=harness.now)
    harness.node.drain()
    return link


def exchange(harness: NodeHarness, link: LinkId, *messages: object) -> list[Result]:
    """Send messages as bytes, and return the results that come at once."""
    for message in messages:
        harness.node.receive(link, dialects.encode(message), now=harness.now)  # type: ignore[arg-type]
    found: list[Result] = []
    for effect in harness.node.drain():
        if isinstance(effect, Send) and effect.link == link:
            found += [one for chunk in effect.chunks if isinstance(one := dialects.decode(chunk), Result)]
        elif isinstance(effect, Run):
            harness.runs[effect.run] = effect
        assert not isinstance(effect, (HangUp, Pause)), effect
    return found


def test_announced_credit() -> None:
    harness = NodeHarness(limits=Limits(client_requests=7, client_bytes=99))
    (greeting,) = harness.client().take(Hello)
    assert greeting.credit == (7, 99)
    assert Limits(requests=9).credit == (5, Limits().client_bytes), "at most half of what the node takes"
    assert Limits(requests=1).credit[0] == 1


def test_each_request_beyond_the_credit_is_refused_at_once() -> None:
    harness = NodeHarness([spec("add")], limits=Limits(client_requests=2))
    client = harness.client()
    for number in range(5):
        ask(client, call("x", "add", number), number=number)
    results = client.take(Result)
    assert [result.id for result in results] == [2, 3, 4]
    for result in results:
        assert result.fault is not None and result.fault.code == 1022
        details = result.fault.details
        assert (details["limit"], details["value"], details["came"]) == ("client_requests", 2, 3)
        assert details["retry_after"] > 0 and details["maybe_executed"] is False
    assert client.hung_up is None
    harness.finish(harness.running("add")[0])
    ask(client, call("x", "add", 9), number=9)
    assert len(harness.running("add")) == 2 and client.take(Result)[0].id == 0


def test_cancelled_request_returns_its_credit() -> None:
    harness = NodeHarness([spec("add")], limits=Limits(client_requests=1))
    client = harness.client()
    ask(client, call("x", "add", 1), number=1)
    client.send(CancelRequest(1))
    ask(client, call("x", "add", 2), number=2)
    assert [result.fault.code for result in client.take(Result) if result.fault] == [1021]
    assert harness.node.coordinator.in_flight.origins[client.link].keys() == {2}


def test_repeated_number_gives_no_credit() -> None:
    harness = NodeHarness([spec("add", concurrency=9)], limits=Limits(client_requests=2))
    client = harness.client()
    for number in (1, 1, 2, 2, 3):
        ask(client, call("x", "add", number), number=number)
    assert [result.fault.code for result in client.take(Result) if result.fault] == [1010, 1010, 1022]
    assert len(harness.running("add")) == 2


def test_credit_in_bytes() -> None:
    harness = NodeHarness([spec("add", concurrency=9)], limits=Limits(client_bytes=1000))
    link = native(harness)
    assert exchange(harness, link, Request(1, (call("x", "add", bytes(5000)),))) == [], "one may be longer"
    (refusal,) = exchange(harness, link, Request(2, (call("x", "add", 1),)))
    assert refusal.id == 2 and refusal.fault is not None and refusal.fault.code == 1022
    assert (refusal.fault.details["limit"], refusal.fault.details["value"]) == ("client_bytes", 1000)
    (run,) = harness.runs.values()
    harness.node.finished(run.run, Returned(1), now=harness.now)
    assert [result.id for result in exchange(harness, link)] == [1]
    assert exchange(harness, link, *[Request(number, (call("x", "add", bytes(400)),)) for number in (3, 4)]) == []
    assert [result.id for result in exchange(harness, link, Request(5, (call("x", "add", bytes(400)),)))] == [5]
    harness.node.link_closed(link, now=harness.now)
    assert harness.node.coordinator.in_flight.sizes == {}


def test_requests_in_one_piece_have_their_own_lengths() -> None:
    harness = NodeHarness([spec("add", concurrency=9)], limits=Limits(client_bytes=1000))
    link = LinkId(50)
    harness.node.link_opened(link, framing=Framing.STREAM, dialled=None, now=harness.now)
    bodies = [hello(cluster="", member=b"", name="c"), GetView(9)]
    bodies += [Request(number, (call("x", "add", bytes(size)),)) for number, size in ((1, 100), (2, 700), (3, 100))]
    data = b"".join(prefix(len(body)) + body for body in map(dialects.encode, bodies))
    harness.node.receive(link, data, now=harness.now)
    assert list(harness.node.coordinator.in_flight.origins[link]) == [1, 2]
    sizes = [len(body) for body in map(dialects.encode, bodies[2:4])]
    assert harness.node.coordinator.in_flight.sizes[link] == sum(sizes)


def test_node_has_no_credit() -> None:
    harness = NodeHarness([spec("add", concurrency=9)], limits=Limits(client_requests=1, client_bytes=1))
    alpha = harness.member("alpha")
    for number in range(3):
        alpha.send(Request(number, (call("x", "add", number),), here=("x",)))
    assert len(harness.running("add")) == 3 and alpha.take(Result) == []


def test_client_that_leaves_very_much_unread_is_refused() -> None:
    harness = NodeHarness([spec("add")], limits=Limits(client_answers=1_000_000))
    client = harness.client()
    harness.node.backlog(client.link, 999_999, now=harness.now)
    ask(client, call("x", "add", 1), number=1)
    assert len(harness.running("add")) == 1
    harness.node.backlog(client.link, 1_000_000, now=harness.now)
    ask(client, call("x", "add", 2), number=2)
    client.send(GetView(3), Explain(Request(4, (call("x", "add", 2),))))
    results = client.take(Result)
    assert [result.id for result in results] == [2, 3, 4]
    for result in results:
        assert result.fault is not None and result.fault.code == 1022 and result.fault.details["retry_after"] > 0
        assert result.fault.details["limit"] == "client_answers" and result.fault.details["maybe_executed"] is False
    harness.node.backlog(client.link, 0, now=harness.now)
    client.send(GetView(5))
    assert len(client.take(View)) == 1


def test_client_that_asks_on_and_reads_nothing_is_hung_up() -> None:
    harness = NodeHarness(limits=Limits(client_answers=1_000_000, client_requests=4))
    flooding, patient, alpha = harness.client(), harness.client(), harness.member("alpha")
    for _ in range(3):
        for peer in (flooding, patient, alpha):
            harness.node.backlog(peer.link, 1_000_000, now=harness.now)
        patient.send(*[Ping(number) for number in range(80)])
        harness.node.backlog(patient.link, 0, now=harness.now)
        alpha.send(*[Ping(number) for number in range(80)])
    assert patient.hung_up is None and alpha.hung_up is None
    for number in range(80):
        flooding.send(GetView(number))
    assert flooding.hung_up is None and len(flooding.take(Result)) == 80
    flooding.send(GetView(80))
    assert flooding.hung_up == 1008


# -- slices -----------------------------------------------------------------------------------------------------------


def wake(harness: NodeHarness) -> None:
    harness.node.wake(now=harness.now)
    harness.flush()


def test_many_ready_calls_are_placed_in_slices() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", spec("wide", concurrency=1000))
    ask(client, *[call(f"c{number}", "wide") for number in range(300)])
    for start, end in ((0, 128), (128, 256), (256, 300)):
        assert [name for _, name in dispatched(alpha)] == [f"c{number}" for number in range(start, end)]
        wake(harness)
    assert harness.node.coordinator.unplaced == {}


def test_short_slices_beside_another_client() -> None:
    harness = NodeHarness()
    client, other, alpha = harness.client(), harness.client(), harness.member("alpha", spec("wide", concurrency=1000))
    ask(client, *[call(f"c{number}", "wide") for number in range(400)])
    assert len(dispatched(alpha)) == 128
    ask(other, call("small", "wide"))
    assert [name for _, name in dispatched(alpha)] == ["small"], "it comes before the next slice"
    wake(harness)
    assert [name for _, name in dispatched(alpha)] == [f"c{number}" for number in range(128, 144)]
    harness.now += SECOND
    wake(harness)
    assert [name for _, name in dispatched(alpha)] == [f"c{number}" for number in range(144, 272)]


def test_slices_of_requests_in_turn() -> None:
    harness = NodeHarness([spec("root", inline=True)])
    client, alpha = harness.client(), harness.member("alpha", spec("wide", concurrency=1000))
    ask(client, call("r", "root"), *[call(f"a{number}", "wide", Ref("r")) for number in range(400)], number=1)
    ask(client, *[call(f"b{number}", "wide") for number in range(300)], number=2)
    assert {name[0] for _, name in dispatched(alpha)} == {"b"}
    harness.finish(harness.running("root")[0])
    order = ["".join(sorted({name[0] for _, name in dispatched(alpha)}))]
    while TimerKind.PLACE in {key[0] for key in harness.node._timers._at}:
        wake(harness)
        order.append("".join(sorted({name[0] for _, name in dispatched(alpha)})))
    assert order == ["a", "b", "a", "b", "a", "a"]


@pytest.mark.parametrize("end", ["cancel", "link", "deadline"])
def test_end_of_a_request_between_two_slices(end: str) -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", spec("wide", concurrency=1000))
    ask(client, *[call(f"c{number}", "wide") for number in range(300)], timeout=SECOND)
    assert len(dispatched(alpha)) == 128
    if end == "cancel":
        client.send(CancelRequest(1))
        assert fault(client).code == 1021
    elif end == "link":
        client.drop()
    harness.advance(1 if end == "deadline" else 0)
    if end == "deadline":
        assert fault(client).code == 1020
    else:
        assert dispatched(alpha) == []
    assert harness.node.coordinator.unplaced == {}
    alpha.drop()  # which ends what it has not answered
    harness.idle()


def test_slices_of_a_node_that_leaves() -> None:
    harness = NodeHarness([spec("wide", concurrency=1000)])
    client = harness.client()
    ask(client, *[call(f"c{number}", "wide") for number in range(300)])
    harness.node.leave(now=harness.now)
    harness.flush()
    for run in harness.running("wide"):
        harness.finish(run)
    assert len(answer(client).done) == 300


# -- requests that are sent again -------------------------------------------------------------------------------------


def test_repeat_of_idempotent_calls_is_accepted() -> None:
    harness = NodeHarness([spec("safe", idempotent=True)])
    client, member = harness.client(), harness.member("alpha", spec("also", idempotent=True))
    ask(client, call("x", "safe"), call("y", "also", Ref("x")), again=True)
    (run,) = harness.running("safe")
    harness.finish(run)
    _, request = only_dispatch(member)
    assert request.idempotent == ("y",) and not request.again
    member.send(Result(request.id, failed=(Failed("y", Fault(1003, "failed")),)))
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1003, False), "nothing that must not run twice"
    harness.idle()


@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_repeat_with_a_function_that_is_not_idempotent_at_each_node(where: str) -> None:
    harness = NodeHarness([spec("f", idempotent=where == "there"), spec("safe", idempotent=True)])
    client = harness.client()
    member = harness.member("alpha", spec("f", idempotent=where == "here"))
    ask(client, call("x", "safe"), call("y", "f"), again=True)
    found = fault(client)
    assert (found.code, found.details["call"], found.details["maybe_executed"]) == (1023, "y", True)
    assert "not idempotent" in found.message and "'f'" in found.message
    assert harness.runs == {} and member.take(Request) == []
    ask(client, call("x", "f"), number=2)
    assert harness.runs or member.take(Request), "a first request runs"


def test_version_and_resources_decide_where_a_repeat_could_go() -> None:
    harness = NodeHarness([spec("f", idempotent=True, version="2", resources=("gpu",))])
    client = harness.client()
    harness.member("alpha", spec("f", version="1", resources=("gpu",)))
    ask(client, msgspec.structs.replace(call("x", "f", resources=("gpu",)), version="2"), again=True)
    assert len(harness.running("f")) == 1
    ask(client, call("x", "f", resources=("gpu",)), again=True, number=2)
    assert fault(client).code == 1023


def test_repeat_of_an_unknown_function_may_have_started() -> None:
    harness = NodeHarness([spec("safe", idempotent=True)])
    client = harness.client()
    ask(client, call("x", "nowhere"), again=True)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1001, True)
    ask(client, call("x", "nowhere"), call("y", "safe"), again=True, partial=True, number=2, want=("x", "y"))
    (run,) = harness.running("safe")
    harness.finish(run)
    result = answer(client)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1001, True)
    harness.idle()


@pytest.mark.parametrize("idempotent", [True, False])
def test_repeat_that_waits_for_an_offer(idempotent: bool) -> None:
    harness = NodeHarness()
    client, member = harness.client(), harness.member("alpha")
    ask(client, call("x", "later"), wait=30 * SECOND, again=True)
    assert client.take(Result) == []
    member.offer(spec("later", idempotent=idempotent))
    if idempotent:
        assert [request.idempotent for request in member.take(Request)] == [("x",)]
        return
    assert member.take(Request) == []
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1023, True)
    harness.idle()


def test_repeat_never_goes_from_the_backlog_to_a_node_where_it_is_not_idempotent() -> None:
    harness = NodeHarness([spec("f", idempotent=True, concurrency=1)])
    client = harness.client()
    for number in range(1, 5):
        ask(client, call("x", "f"), again=True, number=number)
    (run,) = harness.running("f")
    member = harness.member("alpha", spec("f"))
    harness.finish(run)
    harness.advance(1)
    assert member.take(Request) == [], "it offers f, but not as idempotent"
    codes = [found.fault.code for found in client.take(Result) if found.fault is not None]
    assert codes and set(codes) == {1023}


@pytest.mark.parametrize(("function", "maybe"), [("safe", False), ("once", True), ("nowhere", True)])
def test_refusals_of_a_repeat_promise_only_what_the_node_knows(function: str, maybe: bool) -> None:
    harness = NodeHarness(limits=Limits(requests=1))
    client = harness.client()
    harness.member("alpha", *BOTH)
    ask(client, call("x", "safe"))
    ask(client, call("x", function), again=True, number=2)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1022, maybe)
    harness.node.leave(now=harness.now)
    ask(client, call("x", function), again=True, number=3)
    found = fault(client)
    assert (found.code, found.details["maybe_executed"]) == (1024, maybe)


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_of_a_member_reaches_the_client_that_wants_it() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once", 1), progress=True)
    _, sent = only_dispatch(alpha)
    assert sent.progress
    alpha.send(CallProgress(sent.id, "x", "once", "alpha", 1, 2, "half"))
    assert client.take(CallProgress) == [CallProgress(1, "x", "once", "alpha", 1, 2, "half")]
    alpha.send(done(sent, "x", 1))
    assert value(answer(client), "x") == 1
    harness.idle()


def test_progress_is_not_asked_for_and_not_sent_on_without_need() -> None:
    harness = NodeHarness()
    client, alpha, beta = harness.client(), harness.member("alpha", ONCE), harness.member("beta")
    ask(client, call("x", "once", 1))
    _, sent = only_dispatch(alpha)
    assert not sent.progress
    alpha.send(CallProgress(sent.id, "x", "once", "alpha", 1))
    assert client.take(CallProgress) == [] and harness.noticed(StrayResult) == []
    beta.send(CallProgress(sent.id, "x", "once", "beta", 1))
    assert [notice.link for notice in harness.noticed(StrayResult)] == [beta.link]
    ask(client, call("y", "once", 1), number=2, progress=True)
    _, later = only_dispatch(alpha)
    client.send(CancelRequest(2))
    alpha.send(CallProgress(later.id, "y", "once", "alpha", 1))
    assert client.take(CallProgress) == []


def test_progress_of_the_own_worker_precedes_the_result() -> None:
    harness = NodeHarness([ONCE])
    client = harness.client()
    ask(client, call("x", "once", 1), progress=True)
    (run,) = harness.running("once")
    harness.report(run, Report(1))
    harness.report(run, Report(2))
    harness.finish(run)
    assert [type(one) for one in client.received][-3:] == [CallProgress, CallProgress, Result]
    assert [one.done for one in client.take(CallProgress)] == [1, 2]
    harness.idle()


def test_own_request_reports_no_progress() -> None:
    harness = NodeHarness([ONCE])
    harness.node.submit(Request(0, (call("x", "once", 1),), progress=True), now=harness.now)
    harness.flush()
    (run,) = harness.running("once")
    assert not run.reports
    harness.finish(run)
    harness.idle()


# -- streams ----------------------------------------------------------------------------------------------------------


def streamed(*members: MemberStub) -> Request:
    """Return the only dispatch, whose call x is a stream."""
    _, sent = only_dispatch(*members)
    assert sent.streams == ("x",)
    return sent


@pytest.mark.parametrize("function", ["safe", "once"])
def test_items_pass_to_the_client_and_credit_back(function: str) -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", *BOTH)
    ask(client, call("x", function), streams=("x",))
    sent = streamed(alpha)
    client.send(ItemsTaken(1, "x", 1))
    assert alpha.take(ItemsTaken) == [], "there is nothing to be taken"
    alpha.send(Items(sent.id, "x", (b"\x01", b"\x02")))
    assert client.take(Items) == [Items(1, "x", (b"\x01", b"\x02"))]
    client.send(ItemsTaken(1, "x", 2), ItemsTaken(1, "y", 2), ItemsTaken(2, "x", 2))
    assert alpha.take(ItemsTaken) == [ItemsTaken(sent.id, "x", 2)]
    alpha.send(Result(sent.id, (Done("x", b""),)))
    assert answer(client).done[0].value == b""
    harness.idle()


def test_only_calls_without_dependents_are_streams() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), call("y", "once", Ref("x")), streams=("x", "nobody"))
    _, sent = only_dispatch(alpha)
    assert sent.streams == ()
    alpha.send(Items(sent.id, "x", (b"\x01",)))
    assert client.take(Items) == []


@pytest.mark.parametrize("items", [0, 1])
def test_lost_stream_starts_again_only_before_its_first_item(items: int) -> None:
    harness = NodeHarness(limits=Limits(failover_pause=0))
    client, alpha, beta = harness.client(), harness.member("alpha", IDEMPOTENT), harness.member("beta", IDEMPOTENT)
    ask(client, call("x", "safe"), streams=("x",))
    first, sent = only_dispatch(alpha, beta)
    if items:
        first.send(Items(sent.id, "x", (b"\x01",)))
    first.drop()
    if not items:
        other, again = only_dispatch(alpha, beta)
        assert other is not first and again.streams == ("x",)
        other.send(Items(again.id, "x", (b"\x02",)), Result(again.id, (Done("x", b""),)))
        assert client.take(Items) == [Items(1, "x", (b"\x02",))] and answer(client).fault is None
    else:
        found = fault(client)
        assert (found.code, found.details["maybe_executed"]) == (1023, False)
        assert "after the first items of call 'x'" in found.message
        assert alpha.take(Request) == beta.take(Request) == []
    harness.idle()


def test_stream_that_its_worker_reports_as_lost_does_not_start_again() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", IDEMPOTENT)
    ask(client, call("x", "safe"), streams=("x",))
    sent = streamed(alpha)
    alpha.send(Items(sent.id, "x", (b"\x01",)))
    alpha.send(Result(sent.id, failed=(Failed("x", Fault(1023, "its executor broke")),)))
    assert fault(client).code == 1023
    harness.advance(10)
    assert alpha.take(Request) == []
    harness.idle()


def test_cancelled_stream_is_cancelled_at_its_worker() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), streams=("x",))
    sent = streamed(alpha)
    alpha.send(Items(sent.id, "x", (b"\x01",)))
    client.send(CancelRequest(1))
    assert alpha.take(CancelRequest) == [CancelRequest(sent.id)] and fault(client).code == 1021
    alpha.send(Items(sent.id, "x", (b"\x02",)))
    client.send(ItemsTaken(1, "x", 1))
    assert [items.values for items in client.take(Items)] == [(b"\x01",)] and alpha.take(ItemsTaken) == []
    alpha.send(refused(sent, 1021))
    harness.idle()


def test_deadline_covers_the_whole_stream() -> None:
    harness = NodeHarness()
    client, alpha = harness.client(), harness.member("alpha", ONCE)
    ask(client, call("x", "once"), streams=("x",), timeout=SECOND)
    sent = streamed(alpha)
    for _ in range(8):
        alpha.send(Items(sent.id, "x", (b"\x01",)))
        harness.advance(0.12)
    assert client.take(Result) == []
    harness.advance(0.12)
    assert fault(client).code == 1020 and alpha.take(CancelRequest) == [CancelRequest(sent.id)]


def test_stream_of_the_own_worker() -> None:
    harness = NodeHarness([spec("count", streaming=True)])
    client = harness.client()
    ask(client, call("x", "count"), streams=("x",))
    (run,) = harness.running("count")
    harness.produce(run, *range(16))
    client.send(ItemsTaken(1, "x", 8))
    assert harness.demanded == {run.run: 8}
    harness.produce(run, 16)
    harness.finish(run)
    assert [len(items.values) for items in client.take(Items)] == [16, 1]
    assert answer(client).done[0].value == b""
    harness.idle()


def test_own_request_gets_a_list() -> None:
    harness = NodeHarness([spec("count", streaming=True)])
    harness.node.submit(Request(0, (call("x", "count"),), streams=("x",)), now=harness.now)
    harness.flush()
    (run,) = harness.running("count")
    harness.produce(run, 1, 2)
    harness.finish(run)
    (notice,) = harness.noticed(RequestFinished)
    assert value(notice.result, "x") == [1, 2]
    harness.idle()
