"""The worker on a real node with stub coordinators: slots, queues, refusals, and outcomes of runs."""

from dataclasses import dataclass

import msgspec
import pytest

from mpreg_proto.effects import (
    FAILURE_SUMMARY,
    FAILURE_TEXT,
    Feed,
    Lost,
    NotStarted,
    Raised,
    Report,
    Returned,
    Run,
    Stopped,
)
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import (
    Call,
    CallProgress,
    CancelRequest,
    Credit,
    Failed,
    InputItems,
    InputTaken,
    Items,
    ItemsParameter,
    ItemsTaken,
    Request,
    Result,
)
from mpreg_proto.wire.values import Ref
from tests.helpers.node_harness import CODEC, MemberStub, NodeHarness, call, spec, value

SLOW = spec("slow", concurrency=2)


def dispatch(member: MemberStub, number: int, *calls: Call, **fields: object) -> None:
    """Dispatch all of `calls` to the node, as a coordinator does."""
    here = tuple(one.name for one in calls)
    member.send(Request(number, calls, here=here, partial=True, eager=True, **fields))  # type: ignore[arg-type]


def rows(member: MemberStub) -> dict[str, Failed]:
    """Return the failed calls in the results that the member has received."""
    return {row.name: row for result in member.take(Result) for row in result.failed}


def test_slots_and_fifo_queue_of_each_function() -> None:
    harness = NodeHarness([SLOW, spec("other", concurrency=1)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    for number in (1, 2, 3, 4):
        dispatch(alpha if number % 2 else beta, number, call("x", "slow", number))
    dispatch(alpha, 9, call("x", "other", 9))
    assert [run.args for run in harness.running("slow")] == [[1], [2]] and len(harness.running("other")) == 1
    assert (harness.node.worker.running, harness.node.worker.queued) == (3, 2)
    harness.advance(1)
    harness.finish(harness.running("slow")[1])
    assert [run.args for run in harness.running("slow")] == [[1], [3]]
    (result,) = beta.take(Result)
    assert (result.id, result.last, result.queue, result.done[0].ran) == (2, True, 1, 10**9)
    harness.advance(1)
    for run in (*harness.running("slow"), *harness.running("other")):
        harness.finish(run)
    third = next(result for result in alpha.take(Result) if result.id == 3)
    assert (third.done[0].waited, third.done[0].ran) == (10**9, 10**9)
    harness.finish(harness.running("slow")[0])
    harness.idle()


def test_one_message_for_results_of_one_wake_up() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2), call("z", "slow", 3))
    harness.finish_all({run.run: Returned(run.args[0]) for run in harness.running("slow")})
    (result,) = alpha.take(Result)
    assert [row.name for row in result.done] == ["x", "y"] and not result.last
    harness.finish(harness.running("slow")[0])
    (result,) = alpha.take(Result)
    assert [row.name for row in result.done] == ["z"] and result.last
    harness.idle()


def test_refusal_of_a_call_not_offered_here() -> None:
    harness = NodeHarness([spec("add", resources=("r",))])
    alpha = harness.member("alpha", spec("sub"))
    dispatch(alpha, 1, call("x", "sub"), call("y", "add", 1, resources=("r",)), call("z", "add", resources=("s",)))
    refused = rows(alpha)
    assert {name: (row.fault.code, row.refused) for name, row in refused.items()} == {
        "x": (1001, True),
        "z": (1001, True),
    }
    harness.finish(harness.running("add")[0])
    (result,) = alpha.take(Result)
    assert result.last and value(result, "y") == 1


def test_refusal_of_a_version_not_offered_here() -> None:
    harness = NodeHarness([spec("add", version="1")])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, Call("x", "add", CODEC.encode([[1], {}]), version="2"))
    assert rows(alpha)["x"].fault.code == 1001


def test_refusal_of_queued_calls_of_a_withdrawn_function() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(name, "slow", 1) for name in "wxyz"])
    harness.node.withdraw("slow", now=harness.now)
    harness.flush()
    assert {name: (row.fault.code, row.refused) for name, row in rows(alpha).items()} == {
        "y": (1001, True),
        "z": (1001, True),
    }
    for run in harness.running("slow"):
        harness.finish(run)
    assert alpha.take(Result)[-1].last
    harness.idle()


def test_withdrawn_function_of_a_leaving_node() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(name, "slow", 1) for name in "wxyz"])
    harness.node.leave(now=harness.now)
    harness.flush()
    assert harness.node.worker.queued == 2, "what was accepted before runs"
    harness.node.withdraw("slow", now=harness.now)
    harness.flush()
    assert {name: row.fault.code for name, row in rows(alpha).items()} == {"y": 1001, "z": 1001}


def test_changed_concurrency() -> None:
    harness = NodeHarness([spec("slow", concurrency=2, queue=4)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(name, "slow", name) for name in "stuvwx"])
    harness.node.offer(spec("slow", concurrency=4), now=harness.now)
    harness.flush()
    assert len(harness.running("slow")) == 4
    harness.node.offer(spec("slow", concurrency=1), now=harness.now)
    for run in harness.running("slow")[:3]:
        harness.finish(run)
    assert [run.args for run in harness.running("slow")] == [["v"]]
    harness.finish(harness.running("slow")[0])
    assert [run.args for run in harness.running("slow")] == [["w"]]


# -- places ----------------------------------------------------------------------------------------------------------


def test_calls_beyond_slots_and_queue_are_refused() -> None:
    harness = NodeHarness([spec("slow", concurrency=2)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(name, "slow", name) for name in "stuvwx"])
    assert (harness.node.worker.running, harness.node.worker.queued) == (2, 2)
    refused = rows(alpha)
    assert {name: (row.fault.code, row.refused) for name, row in refused.items()} == dict.fromkeys("wx", (1022, True))
    assert refused["w"].fault.details["retry_after"] == 0.1


def test_free_place_is_kept_for_the_coordinator_that_was_refused() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    dispatch(beta, 1, call("z", "slow", 3))
    assert rows(beta)["z"].fault.code == 1022 and beta.take(Credit) == []
    harness.finish(harness.running("slow")[0])
    assert beta.take(Credit) == [Credit("slow")]
    dispatch(alpha, 2, call("v", "slow", 4))
    assert rows(alpha)["v"].refused, "the place is promised"
    dispatch(beta, 2, call("z", "slow", 3))
    assert rows(beta) == {} and harness.node.worker.queued == 1
    harness.finish(harness.running("slow")[0])
    assert alpha.take(Credit) == [Credit("slow")], "it is its turn"


def after_the_time_of_a_promise() -> tuple[NodeHarness, MemberStub, MemberStub]:
    """Return a harness with two coordinators, of which the second did not use the place that it was promised."""
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    dispatch(beta, 1, call("z", "slow", 3))
    harness.finish(harness.running("slow")[0])
    harness.advance(0.25)
    return harness, alpha, beta


def test_promised_place_is_free_again_after_a_quarter_second() -> None:
    harness, alpha, _ = after_the_time_of_a_promise()
    alpha.take(Result)
    dispatch(alpha, 2, call("v", "slow", 4))
    assert rows(alpha) == {} and harness.node.worker.queued == 1


def test_promise_after_its_time_is_no_place() -> None:
    harness, alpha, beta = after_the_time_of_a_promise()
    dispatch(alpha, 2, call("v", "slow", 4))
    beta.take(Result)
    dispatch(beta, 2, call("z", "slow", 3))
    assert rows(beta)["z"].fault.code == 1022 and harness.node.worker.queued == 1


def test_coordinators_get_free_places_in_the_order_of_their_refusals() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, beta, gamma = (harness.member(name) for name in ("alpha", "beta", "gamma"))
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    for member in (beta, gamma, beta):
        dispatch(member, 9, call("z", "slow", 3))
        member.take(Result)
    harness.finish(harness.running("slow")[0])
    assert (beta.take(Credit), gamma.take(Credit)) == ([Credit("slow")], [])
    harness.finish(harness.running("slow")[0])
    assert (beta.take(Credit), gamma.take(Credit)) == ([], [Credit("slow")])


def test_places_of_links_that_ended_are_free() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, beta, gamma = (harness.member(name) for name in ("alpha", "beta", "gamma"))
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    for member in (beta, gamma):
        dispatch(member, 1, call("z", "slow", 3))
    harness.finish(harness.running("slow")[0])
    worker = harness.node.worker
    assert beta.take(Credit) and list(worker._promised["slow"]) == [beta.link]
    beta.drop()
    gamma.drop()
    assert (worker._promised, worker._waiters) == ({}, {})
    dispatch(alpha, 2, call("z", "slow", 3))
    assert worker.queued == 1


def test_withdrawn_function_has_no_places() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    dispatch(beta, 1, call("z", "slow", 3))
    harness.node.withdraw("slow", now=harness.now)
    harness.finish(harness.running("slow")[0])
    assert beta.take(Credit) == [] and harness.node.worker._waiters == {}


def test_queued_call_whose_runtime_no_longer_fits_is_not_started() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=9)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(name, "slow", name) for name in "stuvwx"])
    dispatch(alpha, 2, call("y", "slow"), timeout=int(6.5 * SECOND))
    for _ in "stuvwx":
        harness.advance(1)
        harness.finish(harness.running("slow")[0])
    late = rows(alpha)["y"]
    assert (late.fault.code, late.refused, harness.running("slow")) == (1020, True, [])


def test_clients_take_turns_in_a_queue_wherever_their_coordinator_is() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=20)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, *[call(f"a{number}", "slow", f"a{number}") for number in range(5)], client=1)
    dispatch(alpha, 2, call("b", "slow", "b"), client=2)
    dispatch(beta, 1, call("c", "slow", "c"), client=1)
    relayed = {"client": 1, "via": (alpha.cluster.me, beta.cluster.me)}
    dispatch(beta, 2, call("d", "slow", "d"), **relayed)  # of the first client too
    client = harness.client()
    client.send(Request(1, (call("own", "slow", "own"),)))
    order = []
    while running := harness.running("slow"):
        order.append(running[0].args[0])
        harness.advance(1)
        harness.finish(running[0])
    assert order == ["a0", "b", "c", "own", "a1", "a2", "a3", "a4", "d"], "the first one counts too"


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_no_start_at_or_after_the_deadline() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=9)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    dispatch(alpha, 2, call("y", "slow"), timeout=10**9)
    dispatch(alpha, 3, call("z", "slow"), timeout=0)
    dispatch(alpha, 4, call("w", "slow"), timeout=-5)
    harness.advance(1)
    (first,) = harness.running("slow")
    harness.finish(first)
    assert harness.runs == {}
    refused = rows(alpha)
    assert {name: (row.fault.code, row.refused) for name, row in refused.items()} == dict.fromkeys("yzw", (1020, True))
    assert first.deadline == 61 * 10**9


def test_longest_timeout_bounds_the_deadline_of_a_run() -> None:
    harness = NodeHarness([SLOW], limits=Limits(longest_timeout=10**9))
    dispatch(harness.member("alpha"), 1, call("x", "slow"), timeout=2**63)
    assert harness.running("slow")[0].deadline == harness.now + 10**9


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_cancellation_of_queued_and_running_calls() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=9)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow"), call("y", "slow"))
    dispatch(beta, 1, call("z", "slow", "z"))
    alpha.send(CancelRequest(1), CancelRequest(2))
    (running,) = harness.running("slow")
    assert harness.cancelled == [running.run]
    assert {name: (row.fault.code, row.refused) for name, row in rows(alpha).items()} == {"y": (1021, True)}
    assert beta.take(Result) == []
    harness.finish(running, Stopped())
    assert {name: (row.fault.code, row.refused) for name, row in rows(alpha).items()} == {"x": (1021, False)}
    assert [run.args for run in harness.running("slow")] == [["z"]]


def test_one_cancellation_of_a_running_body() -> None:
    """Another one would end its clean-up: neither a second message nor the end of the link sends it."""
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    alpha.send(CancelRequest(1))
    alpha.send(CancelRequest(1))
    alpha.drop()
    (running,) = harness.running("slow")
    assert harness.cancelled == [running.run]
    harness.finish(running, Stopped())
    harness.idle()


def test_result_of_a_cancelled_run_that_returns() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 5))
    alpha.send(CancelRequest(1))
    harness.finish(harness.running("slow")[0])
    assert value(alpha.take(Result)[0], "x") == 5


def test_lost_coordinator_cancels_its_calls() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=9)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow"))
    dispatch(alpha, 2, call("x", "slow"))
    dispatch(beta, 1, call("z", "slow", "z"))
    alpha.drop()
    (running,) = harness.running("slow")
    assert harness.cancelled == [running.run] and harness.node.worker.queued == 1
    harness.finish(running, Stopped())
    harness.finish(harness.running("slow")[0])
    assert value(beta.take(Result)[0], "z") == "z" and alpha.take(Result) == []
    harness.idle()


def test_outcome_of_an_unknown_or_ended_run() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    (running,) = harness.running("slow")
    harness.finish(running)
    for run in (running.run, 99):
        with pytest.raises(LocalProtocolError, match=f"run {run} does not run"):
            harness.node.finished(run, Returned(2), now=harness.now)  # type: ignore[arg-type]
    harness.flush()
    assert len(alpha.take(Result)) == 1 and harness.node.worker.running == 0


# -- outcomes of runs -------------------------------------------------------------------------------------------------


def test_details_of_a_raised_exception() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    harness.finish(harness.running("slow")[0], Raised("ValueError", "no such thing", "Traceback ..."))
    row = rows(alpha)["x"]
    assert not row.refused and row.fault.code == 1003
    assert row.fault.details == {
        "call": "x",
        "function": "slow",
        "node": harness.node.shown,
        "type": "ValueError",
        "message": "no such thing",
        "traceback": "Traceback ...",
    }


def test_exception_text_with_surrogates() -> None:
    """File names that are not UTF-8 contain lone surrogates; the fault must be encodable."""
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    harness.finish(harness.running("slow")[0], Raised("Odd\ud800", "no file \udcff é", "at \udcff"))
    fault = rows(alpha)["x"].fault
    assert (fault.message + "".join(map(str, fault.details.values()))).encode()
    assert "no file \\udcff é" in fault.message


def test_unsendable_result_is_1003() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    harness.finish(harness.running("slow")[0], Returned({"deep": [object()]}))
    fault = rows(alpha)["x"].fault
    assert (fault.code, fault.details["type"]) == (1003, "UnsendableValue") and "$.deep[0]" in fault.message


def test_cut_texts_of_a_failure() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    long = "x" * 1_000_000
    harness.finish(harness.running("slow")[0], Raised(long, long, long))
    fault = rows(alpha)["x"].fault
    assert len(fault.message) < 2 * FAILURE_SUMMARY + 200
    assert len(fault.details["message"]) == len(fault.details["traceback"]) == FAILURE_TEXT
    assert len(fault.details["type"]) == FAILURE_SUMMARY


def test_str_subclasses_in_a_failure() -> None:
    class Markup(str):
        __slots__ = ()

    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow"))
    harness.finish(harness.running("slow")[0], Raised(Markup("Kind"), Markup("no"), Markup("Traceback")))
    fault = rows(alpha)["x"].fault
    assert {type(text) for text in (fault.message, *fault.details.values())} == {str}


def test_exceptions_while_a_result_is_encoded() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise LookupError

    class Odd(metaclass=Meta):
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise SystemExit

    class Text(Exception):
        def __str__(self) -> str:
            raise LookupError

    @dataclass
    class Record:
        held: int = 0

        def __getattribute__(self, name: str) -> object:
            if name == "held":
                raise Text
            return super().__getattribute__(name)

    for result in (Odd(), [Odd()], Record(), {"a": Record()}):
        harness = NodeHarness([SLOW])
        alpha = harness.member("alpha")
        dispatch(alpha, 1, call("x", "slow"))
        harness.finish(harness.running("slow")[0], Returned(result))
        assert rows(alpha)["x"].fault.code == 1003
        harness.idle()


def test_refusal_of_a_run_that_did_not_start() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    dispatch(alpha, 2, call("y", "slow", 2))
    harness.finish(harness.running("slow")[0], NotStarted("no thread"))
    row = rows(alpha)["x"]
    assert (row.fault.code, row.refused) == (1022, True) and "no thread" in row.fault.message
    assert row.fault.details["retry_after"] > 0
    assert [run.args for run in harness.running("slow")] == [[2]]


def test_lost_run_may_have_started() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    harness.finish(harness.running("slow")[0], Lost("its process died"))
    row = rows(alpha)["x"]
    assert (row.fault.code, row.refused) == (1023, False) and "its process died" in row.fault.message
    harness.idle()


# -- arguments --------------------------------------------------------------------------------------------------------


def test_references_resolved_to_separate_copies() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    given = {"a": CODEC.encode({"k": [1, 2]})}
    dispatch(alpha, 1, call("x", "slow", Ref("a")), call("y", "slow", [Ref("a", ("k", 1))], w=Ref("a")), inputs=given)
    x, y = harness.running("slow")
    assert (x.args, y.args, y.kwargs) == ([{"k": [1, 2]}], [[2]], {"w": {"k": [1, 2]}})
    assert x.args[0] is not y.kwargs["w"]


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (Call("x", "slow", CODEC.encode([[Ref("a")], {}])), 1010, "'a', which is not among its dependencies"),
        (Call("x", "slow", CODEC.encode([[Ref("a")], {}]), dependencies=("b",)), 1010, "not among its dependencies"),
        (Call("x", "slow", CODEC.encode([[Ref("a", ("k", 9))], {}]), dependencies=("a",)), 1013, "has no"),
        (Call("x", "slow", b"\xc1"), 1010, "cannot be read"),
        (Call("x", "slow", b""), 1010, "cannot be read"),
        (Call("x", "slow", CODEC.encode(5)), 1010, "are not [["),
        (Call("x", "slow", CODEC.encode([[], {}, 3])), 1010, "are not [["),
        (Call("x", "slow", CODEC.encode([{}, {}])), 1010, "are not [["),
        (Call("x", "slow", CODEC.encode([[], {1: 2}])), 1010, "are not [["),
        (Call("x", "slow", b"\x92\x91" + b"\x91" * 200 + b"\x01\x80"), 1014, "over a limit"),
    ],
)
def test_refusal_of_invalid_arguments(made: Call, code: int, words: str) -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, made, inputs={"a": CODEC.encode({"k": [1, 2]}), "b": b"\x01"})
    row = rows(alpha)["x"]
    assert (row.fault.code, row.refused) == (code, True) and words in row.fault.message
    assert row.fault.details and harness.runs == {}
    harness.idle()


def test_dependency_without_a_reference_has_no_input() -> None:
    harness = NodeHarness([SLOW])
    dispatch(harness.member("alpha"), 1, Call("x", "slow", CODEC.encode([[1], {}]), dependencies=("before",)))
    assert harness.running("slow")[0].args == [1]


# -- malformed dispatches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        Request(1, (call("x", "slow"), call("x", "slow")), here=("x", "x")),
        Request(1, (call("x", "slow"), call("y", "slow")), here=("x", "x")),
        Request(1, (call("x", "slow"),), here=("y",)),
        Request(1, ()),
    ],
)
def test_malformed_dispatch_is_1010(request_: Request) -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    alpha.send(request_)
    (result,) = alpha.take(Result)
    assert result.last and result.fault is not None and result.fault.code == 1010
    assert result.fault.details["maybe_executed"] is False
    harness.idle()


def test_duplicate_request_id_on_one_link() -> None:
    harness = NodeHarness([SLOW])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    dispatch(alpha, 1, call("x", "slow", "first"))
    dispatch(alpha, 1, call("x", "slow", "second"))
    dispatch(beta, 1, call("x", "slow", "another's"))
    (result,) = alpha.take(Result)
    assert result.fault == Fault(1010, "request 1 is already in progress on this link", {"maybe_executed": False})
    for run in harness.running("slow"):
        harness.finish(run)
    assert value(alpha.take(Result)[0], "x") == "first" and value(beta.take(Result)[0], "x") == "another's"
    dispatch(alpha, 1, call("x", "slow", "later"))
    assert harness.running("slow")[0].args == ["later"]


def test_queue_order_after_a_cancellation() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=9)])
    alpha, beta = harness.member("alpha"), harness.member("beta")
    for number in (1, 2, 3, 4):
        dispatch(alpha if number % 2 else beta, number, call("x", "slow", number), call("y", "slow", number + 10))
    assert harness.node.worker.queued == 7
    beta.send(CancelRequest(2))
    assert harness.node.worker.queued == 5 and rows(beta).keys() == {"x", "y"}
    order = []
    while harness.node.worker.running:
        (run,) = harness.running("slow")
        order.append(run.args[0])
        harness.finish(run)
    assert order == [1, 11, 3, 13, 4, 14]
    harness.idle()
    assert not harness.node.worker._queues and not harness.node.worker._busy and not harness.node.worker._by_link


def test_no_state_of_withdrawn_functions() -> None:
    harness = NodeHarness()
    alpha = harness.member("alpha")
    for number in range(5):
        harness.node.offer(spec(f"f{number}"), now=harness.now)
        harness.flush()
        dispatch(alpha, number + 1, call("x", f"f{number}", 1))
        harness.node.withdraw(f"f{number}", now=harness.now)
        harness.finish(*harness.running(f"f{number}"))
    worker = harness.node.worker
    assert (worker._slots, worker._queue_limits, worker._busy, worker._queues) == ({}, {}, {}, {})


def test_encoded_arguments_dropped_after_the_start() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", b"y" * 1000))
    (run,) = harness.running("slow")
    job = harness.node.worker.job(run.run)
    assert run.args == [b"y" * 1000] and job is not None and job.call.args == b"" and job.inputs == {}
    harness.finish(run)


def multiplied(harness: NodeHarness, member: MemberStub, number: int, *refs: Ref, **given: object) -> Failed | None:
    """Dispatch a call of `slow` with these references as arguments; return its failure if it is refused."""
    args = CODEC.encode([list(refs), {}])
    encoded = {name: CODEC.encode(held) for name, held in given.items()}
    dispatch(member, number, Call("x", "slow", args, tuple(given)), inputs=encoded)
    return rows(member).get("x")


@pytest.mark.parametrize(
    ("refs", "given", "limit", "came"),
    [
        ([Ref("a")] * 11, {"a": [0] * 10}, "expansion_elements", 110),
        ([Ref("a")] * 6 + [Ref("b")] * 5, {"a": [0] * 10, "b": dict.fromkeys(range(5), 0)}, "expansion_elements", 110),
        ([Ref("a", ("k",))] * 11, {"a": {"k": [0] * 10, "other": [0] * 500}}, "expansion_elements", 110),
        ([Ref("a", ("k", 1))] * 11, {"a": {"k": (0, (0,) * 10)}}, "expansion_elements", 110),
        ([Ref("a")] * 101, {"a": b"x" * 98}, "expansion", 10_100),
        ([Ref("a", (1,))] * 101, {"a": [b"y" * 500, b"x" * 98]}, "expansion", 10_100),
        ([Ref("a")] * 10 + [Ref("a", (0,))] * 10, {"a": [[0] * 9]}, "expansion_elements", 190),
    ],
)
def test_limit_of_expanded_references(refs: list[Ref], given: dict[str, object], limit: str, came: int) -> None:
    harness = NodeHarness([SLOW], limits=Limits(expansion=10_000, expansion_elements=100))
    failed = multiplied(harness, harness.member("alpha"), 1, *refs, **given)
    assert failed is not None and failed.refused
    assert failed.fault.code == 1014
    value = 10_000 if limit == "expansion" else 100
    assert failed.fault.details == {"limit": limit, "value": value, "came": came}
    assert not harness.running("slow")


@pytest.mark.parametrize(
    ("refs", "given"),
    [
        ([Ref("a")] * 10, {"a": [0] * 10}),
        ([Ref("a")], {"a": (0,) * 100}),
        ([Ref("a", ("k",))] * 10, {"a": {"k": [0] * 10, "other": [0] * 500}}),
        ([Ref("a")] * 100, {"a": b"x" * 98}),
        ([Ref("a")] * 500, {"a": 7}),
        ([], {"a": [0] * 500}),
    ],
)
def test_references_that_expand_to_exactly_the_limit(refs: list[Ref], given: dict[str, object]) -> None:
    harness = NodeHarness([SLOW], limits=Limits(expansion=10_000, expansion_elements=100))
    assert multiplied(harness, harness.member("alpha"), 1, *refs, **given) is None
    assert len(harness.running("slow")[0].args) == len(refs)


def test_unknown_path_in_a_large_input() -> None:
    harness = NodeHarness([SLOW], limits=Limits(expansion=10_000, expansion_elements=10))
    failed = multiplied(harness, harness.member("alpha"), 1, Ref("a", ("no",)), a=[0] * 50)
    assert failed is not None and failed.fault.code == 1013


def test_unreferenced_inputs_are_not_decoded() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, Call("x", "slow", CODEC.encode([[1], {}]), ("a",)), inputs={"a": b"\xc1"})
    assert [run.args for run in harness.running("slow")] == [[1]]


@pytest.mark.parametrize("made", [[], {}], ids=["list", "dict"])
def test_result_that_contains_itself(made: list[object] | dict[int, object]) -> None:
    for place in (0, 1):
        made.insert(place, made) if isinstance(made, list) else made.update({place: made})
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    harness.finish_all({run.run: Returned(made) for run in harness.running("slow")})
    failed = rows(alpha)["x"]
    assert failed.fault.code == 1003 and "contains itself" in failed.fault.message
    harness.idle()


# -- inputs of running calls ------------------------------------------------------------------------------------------

INPUT = {"a": CODEC.encode(b"x" * 10_000)}


def test_limit_of_the_inputs_of_running_calls() -> None:
    harness = NodeHarness([spec("slow"), spec("other")], limits=Limits(inputs=25_000))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, *[call(f"x{n}", "slow", n, Ref("a")) for n in range(4)], call("y", "slow", 4), inputs=INPUT)
    dispatch(alpha, 2, call("x", "other", 5, Ref("a")), call("z", "other", 6), inputs=INPUT)
    assert [run.args[0] for run in harness.running("slow")] == [0, 1]
    assert (harness.running("other"), harness.node.worker.queued) == ([], 5)
    harness.finish(harness.running("slow")[0])
    assert [run.args[0] for run in harness.running("slow")] == [1, 2]
    for run in harness.running("slow"):
        harness.finish(run)
    assert [run.args[0] for run in harness.running("slow")] == [3, 4]
    assert [run.args[0] for run in harness.running("other")] == [5, 6]
    for run in (*harness.running("slow"), *harness.running("other")):
        harness.finish(run)
    harness.idle()


def test_call_with_inputs_over_the_limit_runs_alone() -> None:
    harness = NodeHarness([spec("slow")], limits=Limits(inputs=1))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1, Ref("a")), call("y", "slow", 2, Ref("a")), inputs=INPUT)
    for number in (1, 2):
        (run,) = harness.running("slow")
        assert run.args[0] == number
        harness.finish(run)
    harness.idle()


def test_queue_proceeds_after_cancelling_a_call_without_room() -> None:
    harness = NodeHarness([spec("slow")], limits=Limits(inputs=15_000))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1, Ref("a")), inputs=INPUT)
    dispatch(alpha, 2, call("x", "slow", 2, Ref("a")), inputs=INPUT)
    dispatch(alpha, 3, call("x", "slow", 3))
    assert [run.args[0] for run in harness.running("slow")] == [1]
    alpha.send(CancelRequest(2))
    assert [run.args[0] for run in harness.running("slow")] == [1, 3]
    for run in harness.running("slow"):
        harness.finish(run)
    harness.idle()


def test_weight_of_many_small_elements() -> None:
    harness = NodeHarness([spec("slow")], limits=Limits(inputs=1_000_000))
    alpha = harness.member("alpha")
    given = {"a": CODEC.encode([[]] * 10_000)}
    dispatch(alpha, 1, call("x", "slow", 1, Ref("a")), call("y", "slow", 2, Ref("a")), inputs=given)
    assert len(harness.running("slow")) == 1


@pytest.mark.parametrize("partial", [False, True])
def test_limit_of_values_of_one_request(partial: bool) -> None:
    harness = NodeHarness([spec("f")], limits=Limits(values=25_000))
    client = harness.client()
    client.send(Request(1, tuple(call(f"x{n}", "f", n) for n in range(3)), partial=partial))
    for run in harness.running("f"):
        harness.finish(run, Returned(b"x" * 10_000))
    (result,) = client.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["limit"]) == (1014, "values")
    harness.idle()


def test_no_call_with_inputs_overtakes_one_that_waits_for_memory() -> None:
    harness = NodeHarness([spec("slow"), spec("small")], limits=Limits(inputs=15_000))
    alpha = harness.member("alpha")
    short = {"a": CODEC.encode(b"x")}
    dispatch(alpha, 1, call("x", "slow", 1, Ref("a")), inputs=INPUT)
    dispatch(alpha, 2, call("x", "slow", 2, Ref("a")), inputs=INPUT)
    dispatch(alpha, 3, call("x", "small", 3, Ref("a")), inputs=short)
    dispatch(alpha, 4, call("x", "small", 4))
    assert [run.args[0] for run in harness.runs.values()] == [1], "a queue keeps its order"
    dispatch(alpha, 5, call("x", "small", 5, Ref("a")), inputs=short)
    harness.finish(harness.running("slow")[0])
    assert sorted(run.args[0] for run in harness.runs.values()) == [2, 3, 4, 5]
    for run in list(harness.runs.values()):
        harness.finish(run)
    harness.idle()


def test_longest_wait_for_memory_is_first() -> None:
    harness = NodeHarness([spec("one"), spec("two"), spec("three")], limits=Limits(inputs=15_000))
    alpha = harness.member("alpha")
    for number, function in enumerate(("one", "two", "three", "two"), 1):
        dispatch(alpha, number, call("x", function, number, Ref("a")), inputs=INPUT)
    order = []
    while harness.runs:
        (run,) = harness.runs.values()
        order.append(run.args[0])
        harness.finish(run)
    assert order == [1, 2, 3, 4]
    harness.idle()


def test_stream_of_calls_of_one_function_leaves_memory_to_others() -> None:
    harness = NodeHarness([spec("often"), spec("once")], limits=Limits(inputs=25_000))
    alpha = harness.member("alpha")
    for number in range(1, 5):
        dispatch(alpha, number, call("x", "often", number, Ref("a")), inputs=INPUT)
    dispatch(alpha, 5, call("x", "once", 5, Ref("a")), inputs=INPUT)
    for number in range(6, 9):  # as often as one ends
        harness.finish(harness.running("often")[0])
        dispatch(alpha, number, call("x", "often", number, Ref("a")), inputs=INPUT)
    assert [run.args[0] for run in harness.running("once")] == [5]


@pytest.mark.parametrize("seed", range(5))
def test_no_queued_call_waits_while_nothing_runs(seed: int) -> None:
    rng = Rng(seed)
    functions = ("f", "g", "h")
    harness = NodeHarness([spec(name, concurrency=2) for name in functions], limits=Limits(inputs=15_000))
    alpha = harness.member("alpha")
    for number in range(1, 200):
        kind, name = rng.below(4), functions[rng.below(3)]
        size = (0, 1, 4_000, 9_000)[rng.below(4)]
        if kind < 2:
            given = {"a": CODEC.encode(b"x" * size)} if size else {}
            dispatch(alpha, number, call("x", name, number, *([Ref("a")] if size else [])), inputs=given)
        elif kind == 2:
            alpha.send(CancelRequest(rng.below(number)))
        elif harness.runs:
            harness.finish(list(harness.runs.values())[rng.below(len(harness.runs))])
        assert harness.runs or not harness.node.worker.queued
    while harness.runs:
        harness.finish(list(harness.runs.values())[rng.below(len(harness.runs))])
    harness.idle()
    assert not harness.node.worker._blocked and not harness.node.worker._memory_used


def test_calls_that_were_queued_before_draining_run() -> None:
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1), call("y", "slow", 2))
    harness.node.leave(now=harness.now)
    harness.flush()
    dispatch(alpha, 2, call("z", "slow", 3))
    assert {name: (row.fault.code, row.refused) for name, row in rows(alpha).items()} == {"z": (1024, True)}
    for number in (1, 2):
        (run,) = harness.running("slow")
        assert run.args == [number] and not harness.node.left
        harness.finish(run)
    assert [value(result, name) for result, name in zip(alpha.take(Result), "xy", strict=True)] == [1, 2]
    assert harness.node.left


def test_calls_that_wait_for_memory_before_draining_run() -> None:
    harness = NodeHarness([spec("slow")], limits=Limits(inputs=15_000))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1, Ref("a")), call("y", "slow", 2, Ref("a")), inputs=INPUT)
    harness.node.leave(now=harness.now)
    harness.flush()
    harness.finish(harness.running("slow")[0])
    (run,) = harness.running("slow")
    assert run.args[0] == 2
    harness.finish(run)
    assert harness.node.left


def test_queued_calls_whose_function_changed_are_checked_again() -> None:
    harness = NodeHarness([spec("slow", concurrency=1, queue=2, version="1")])
    alpha = harness.member("alpha")
    made = [msgspec.structs.replace(call(name, "slow", name), version="1") for name in "xy"]
    dispatch(alpha, 1, *made, call("z", "slow", "z"))
    harness.node.offer(spec("slow", concurrency=1, queue=2, version="2"), now=harness.now)
    harness.flush()
    harness.finish(harness.running("slow")[0])
    assert {name: (row.fault.code, row.refused) for name, row in rows(alpha).items()} == {"y": (1001, True)}
    assert [run.args for run in harness.running("slow")] == [["z"]]


@pytest.mark.parametrize(("began", "waited"), [(None, 0), (SECOND // 2, 0), (3 * SECOND, 2), (99 * SECOND, 4)])
def test_times_of_a_body_that_began_after_its_run(began: int | None, waited: int) -> None:
    """Not before its `Run` at 1 s, and not after its end at 5 s."""
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    harness.advance(4)
    (run,) = harness.running("slow")
    harness.node.finished(run.run, Returned(1), now=harness.now, began=began)
    harness.flush()
    (result,) = alpha.take(Result)
    assert (result.done[0].waited, result.done[0].ran) == (waited * SECOND, (4 - waited) * SECOND)


def progress_of(member: MemberStub) -> list[tuple[int, str, float]]:
    """Return the progress that the member has received since the last call: dispatch, call, done."""
    return [(one.id, one.call, one.done) for one in member.take(CallProgress)]


def test_progress_is_sent_at_most_every_tenth_of_a_second() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1), progress=True)
    (run,) = harness.running("slow")
    assert run.reports
    for done in range(5):
        harness.report(run, Report(done, 9, "step"))
    (first,) = alpha.take(CallProgress)
    assert first == CallProgress(1, "x", "slow", harness.node.shown, 0, 9, "step")
    harness.advance(0.099)
    assert progress_of(alpha) == []
    harness.advance(0.001)
    assert progress_of(alpha) == [(1, "x", 4)], "the newest one"
    harness.advance(0.05)
    harness.report(run, Report(5))
    assert progress_of(alpha) == []
    harness.advance(1)
    assert progress_of(alpha) == [(1, "x", 5)]
    harness.report(run, Report(6))
    assert progress_of(alpha) == [(1, "x", 6)], "it was silent for long"
    harness.finish(run)
    harness.idle()


def test_last_progress_comes_before_the_result() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1), progress=True)
    (run,) = harness.running("slow")
    harness.report(run, Report(1))
    harness.report(run, Report(2))
    harness.finish(run)
    kinds = [type(one) for one in alpha.received]
    assert kinds[-3:] == [CallProgress, CallProgress, Result]
    harness.advance(1)
    assert progress_of(alpha) == [(1, "x", 1), (1, "x", 2)]
    harness.idle()


def test_progress_that_nobody_wants_is_dropped() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    dispatch(alpha, 2, call("y", "slow", 2), progress=True)
    silent, cancelled = harness.running("slow")
    assert not silent.reports
    harness.report(silent, Report(1))
    alpha.send(CancelRequest(2))
    harness.report(cancelled, Report(1))
    harness.finish(silent)
    harness.finish(cancelled, Stopped())
    assert alpha.take(CallProgress) == []
    harness.idle()


def test_report_of_a_run_that_does_not_run_and_of_bad_numbers() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1), progress=True)
    (run,) = harness.running("slow")
    for bad in (Report(float("nan")), Report(1 << 63), Report(True), Report(1, "2"), Report(1, 2, b"x"), 5):  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError):
            harness.node.reported(run.run, bad, now=harness.now)  # type: ignore[arg-type]
    harness.finish(run)
    with pytest.raises(LocalProtocolError, match="does not run"):
        harness.node.reported(run.run, Report(1), now=harness.now)
    assert alpha.take(CallProgress) == []


# -- generators -------------------------------------------------------------------------------------------------------

GENERATOR = spec("count", streaming=True)


def stream(**limits: int) -> tuple[NodeHarness, MemberStub, Run]:
    """A generator that a member has dispatched as a stream: dispatch 1, call x."""
    harness = NodeHarness([GENERATOR], limits=Limits(**limits))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "count"), streams=("x",))
    (run,) = harness.running("count")
    return harness, alpha, run


def items_of(member: MemberStub) -> list[object]:
    """Return the items that the member has received since the last call."""
    return [CODEC.decode(one) for items in member.take(Items) for one in items.values]


def test_items_of_a_stream_with_credit_for_more() -> None:
    harness, alpha, run = stream()
    assert run.demand == 16
    harness.produce(run, 0, 1)
    (items,) = alpha.take(Items)
    assert items == Items(1, "x", (b"\x00", b"\x01"))
    harness.produce(run, *range(2, 16))
    with pytest.raises(LocalProtocolError, match="may produce 0 items now, not 1"):
        harness.produce(run, 16)
    assert items_of(alpha) == list(range(2, 16)) and harness.demanded == {}
    alpha.send(ItemsTaken(1, "x", 3))
    assert harness.demanded == {run.run: 3}
    harness.produce(run, 16, 17)
    alpha.send(ItemsTaken(1, "x", 100), ItemsTaken(1, "x", -1), ItemsTaken(1, "y", 1), ItemsTaken(2, "x", 1))
    assert harness.demanded == {run.run: 3 + 15}, "never more than 16 on their way"
    harness.finish(run, Returned("ignored"))
    assert items_of(alpha) == [16, 17]
    (result,) = alpha.take(Result)
    assert (result.done[0].value, result.last) == (b"", True)
    alpha.send(ItemsTaken(1, "x", 1))
    harness.idle()


def test_generator_gives_a_list_without_a_stream() -> None:
    harness = NodeHarness([GENERATOR])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "count"), call("y", "count"), streams=("y", "z"))
    run, other = harness.running("count")
    for start in range(0, 48, 16):
        harness.produce(run, *({"item": number} for number in range(start, start + 16)))
    assert harness.demanded == {run.run: 48} and alpha.take(Items) == []
    harness.finish(run, Returned(None))
    harness.finish(other, Returned(None))
    rows = [row for result in alpha.take(Result) for row in result.done]
    assert CODEC.decode(rows[0].value) == [{"item": number} for number in range(48)]
    assert (rows[1].name, rows[1].value) == ("y", b"")
    harness.idle()


def test_list_of_no_items_and_items_of_every_kind() -> None:
    harness = NodeHarness([GENERATOR])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "count"), call("y", "count"))
    empty, run = harness.running("count")
    harness.finish(empty, Returned(None))
    kinds = [None, (1, 2), {3}, [4, [5]], b"6", 2**80, 1 + 2j]
    harness.produce(run, *kinds)
    harness.finish(run, Returned(None))
    rows = [row for result in alpha.take(Result) for row in result.done]
    assert [CODEC.decode(row.value) for row in rows] == [[], kinds]


def test_list_that_grows_past_the_limit_ends_its_generator() -> None:
    harness = NodeHarness([GENERATOR], limits=Limits(node_message=1000))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "count"))
    (run,) = harness.running("count")
    harness.produce(run, b"y" * 600)
    assert harness.cancelled == []
    harness.produce(run, b"y" * 600)
    assert harness.cancelled == [run.run]
    harness.produce(run, 1)
    harness.finish(run, Stopped())
    failed = rows(alpha)["x"]
    assert (failed.fault.code, failed.fault.details["limit"], failed.refused) == (1014, "message", False)
    harness.idle()


def test_list_that_is_nested_too_deep() -> None:
    harness = NodeHarness([GENERATOR])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "count"))
    (run,) = harness.running("count")
    deep: list[object] = []
    for _ in range(63):
        deep = [deep]
    harness.produce(run, deep)
    harness.finish(run, Returned(None))
    assert rows(alpha)["x"].fault.code == 1014


def test_item_that_cannot_be_sent_ends_its_generator() -> None:
    harness, alpha, run = stream()
    harness.produce(run, 1, object(), 2)
    assert harness.cancelled == [run.run] and items_of(alpha) == []
    harness.finish(run, Returned(None))
    failed = rows(alpha)["x"].fault
    assert (failed.code, failed.details["type"]) == (1003, "UnsendableValue")
    assert "item 2 cannot be sent" in failed.message
    harness.idle()


def test_cancelled_stream_ends_without_more_items() -> None:
    harness, alpha, run = stream()
    harness.produce(run, 1)
    alpha.send(CancelRequest(1), ItemsTaken(1, "x", 1))
    assert harness.cancelled == [run.run] and harness.demanded == {}
    harness.produce(run, 2)
    harness.finish(run, Returned(None))
    assert items_of(alpha) == [1] and rows(alpha)["x"].fault.code == 1021
    harness.idle()


def test_stream_whose_link_is_lost_is_cancelled() -> None:
    harness, alpha, run = stream()
    harness.produce(run, 1)
    alpha.drop()
    assert harness.cancelled == [run.run]
    harness.finish(run, Stopped())
    harness.idle()


def test_stream_of_a_function_that_is_no_generator() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 5), streams=("x",))
    (run,) = harness.running("slow")
    assert run.demand == 0
    with pytest.raises(LocalProtocolError, match="no generator"):
        harness.produce(run, 1)
    harness.finish(run)
    assert value(alpha.take(Result)[0], "x") == 5


def test_generator_that_is_replaced_by_a_plain_function() -> None:
    harness = NodeHarness([GENERATOR])
    alpha = harness.member("alpha")
    harness.node.offer(spec("count"), now=harness.now)
    dispatch(alpha, 1, call("x", "count"))
    assert harness.running("count")[0].demand == 0


# -- items of a dependency --------------------------------------------------------------------------------------------

CONSUMER = spec("use", concurrency=1, consumes=ItemsParameter("rows", 1))


def consumer(**limits: int) -> tuple[NodeHarness, MemberStub, Run]:
    """A call that takes the items of gen as its second argument: dispatch 1, call x."""
    harness = NodeHarness([CONSUMER], limits=Limits(**limits))
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "use", 5, Ref("gen")), iterates={"x": "gen"})
    (run,) = harness.running("use")
    return harness, alpha, run


def test_items_reach_the_iterator_of_a_body() -> None:
    harness, alpha, run = consumer()
    assert run.fed and run.args == [5, None] and harness.fed == {}
    alpha.send(InputItems(1, "x", (b"\x01", b"\xa1y")), InputItems(1, "x", (), last=True))
    assert harness.fed == {run.run: [Feed(run.run, [1, "y"]), Feed(run.run, [], last=True)]}
    harness.take(run, 1)
    harness.take(run, 1)
    assert alpha.take(InputTaken) == [InputTaken(1, "x", 1), InputTaken(1, "x", 1)]
    harness.finish(run)
    assert value(alpha.take(Result)[0], "x") == 5
    harness.idle()


def test_items_of_a_queued_call_come_when_it_starts() -> None:
    harness, alpha, run = consumer()
    dispatch(alpha, 2, call("y", "use", 6, Ref("gen")), iterates={"y": "gen"})
    alpha.send(InputItems(2, "y", (b"\x01",)), InputItems(2, "y", (b"\x02",), last=True))
    assert harness.fed == {}
    harness.finish(run)
    (other,) = harness.running("use")
    assert harness.fed == {other.run: [Feed(other.run, [1, 2], last=True)]}
    harness.take(other, 2)
    assert alpha.take(InputTaken) == [InputTaken(2, "y", 2)]
    harness.finish(other)
    harness.idle()


def test_items_taken_that_a_body_does_not_have() -> None:
    harness, alpha, run = consumer()
    alpha.send(InputItems(1, "x", (b"\x01",)))
    for count in (2, -1):
        with pytest.raises(LocalProtocolError, match="has 1 items, and cannot take"):
            harness.take(run, count)
    harness.take(run, 0)
    assert alpha.take(InputTaken) == []
    harness.finish(run)
    with pytest.raises(LocalProtocolError, match="does not run"):
        harness.take(run, 1)
    plain = NodeHarness([SLOW])
    beta = plain.member("beta")
    dispatch(beta, 1, call("x", "slow", 1))
    with pytest.raises(LocalProtocolError, match="no items to take"):
        plain.take(plain.running("slow")[0], 1)


@pytest.mark.parametrize("after", ["window", "last"])
def test_more_items_than_a_call_may_have(after: str) -> None:
    harness, alpha, run = consumer()
    sixteen = tuple(bytes([number]) for number in range(16))
    alpha.send(InputItems(1, "x", sixteen, last=after == "last"))
    if after == "last":
        harness.take(run, 16)
    alpha.send(InputItems(1, "x", (b"\x01",)))
    assert harness.cancelled == [run.run]
    alpha.send(InputItems(1, "x", (b"\x01",)))
    harness.finish(run, Stopped())
    assert rows(alpha)["x"].fault.code == 1010
    harness.idle()


def test_item_that_cannot_be_read_stops_a_body() -> None:
    harness, alpha, run = consumer()
    alpha.send(InputItems(1, "x", (b"\x01", b"\xc1")))
    assert harness.cancelled == [run.run] and harness.fed == {}
    harness.finish(run, Stopped())
    failed = rows(alpha)["x"]
    assert failed.fault.code == 1010 and "got an item that cannot be read" in failed.fault.message


def test_items_for_calls_that_take_none() -> None:
    harness = NodeHarness([SLOW])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "slow", 1))
    alpha.send(InputItems(1, "x", (b"\x01",)), InputItems(1, "z", (b"\x01",)), InputItems(9, "x", (b"\x01",)))
    assert harness.fed == {} and harness.cancelled == []
    harness.finish(harness.running("slow")[0])
    harness.idle()


@pytest.mark.parametrize("arguments", [(Ref("gen"), 5), (5, [Ref("gen")]), (5, Ref("gen"), Ref("gen"))])
def test_reference_that_is_no_whole_argument_is_refused(arguments: tuple[object, ...]) -> None:
    harness = NodeHarness([CONSUMER])
    alpha = harness.member("alpha")
    dispatch(alpha, 1, call("x", "use", *arguments), iterates={"x": "gen"})
    failed = rows(alpha)["x"]
    assert failed.refused and failed.fault.code == 1001 and "takes no items one by one" in failed.fault.message
    harness.idle()


def test_function_that_takes_no_items_any_more_refuses() -> None:
    harness, alpha, run = consumer()
    dispatch(alpha, 2, call("y", "use", 6, Ref("gen")), iterates={"y": "gen"})
    alpha.send(InputItems(2, "y", (b"\x01",)))
    harness.node.offer(spec("use", concurrency=1), now=harness.now)
    harness.finish(run)
    found = {row.name: row for result in alpha.take(Result) for row in result.failed}
    assert found["y"].refused and found["y"].fault.code == 1001 and harness.fed == {}
    harness.idle()


def test_cancelled_call_takes_no_more_items() -> None:
    harness, alpha, run = consumer()
    alpha.send(InputItems(1, "x", (b"\x01",)), CancelRequest(1), InputItems(1, "x", (b"\x02",)))
    assert harness.cancelled == [run.run] and len(harness.fed[run.run]) == 1
    harness.take(run, 1)
    assert alpha.take(InputTaken) == []
    harness.finish(run, Stopped())
    harness.idle()
