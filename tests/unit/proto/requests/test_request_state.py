"""The state of one request: ready calls, kept values, the states of its calls, and their refusals and losses."""

from types import SimpleNamespace

import pytest

from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import TRANSITIONS, CallState, Execution, History, RunTimes
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Traced


def complete(one: Execution, name: str, value: bytes) -> list[str]:
    """Dispatch a call and record its result."""
    for state in (CallState.READY, CallState.DISPATCHED) if one.is_open(name) else ():
        if one.states[name] is not state:
            one.move(name, state, 0)
    return one.complete(name, value, 0)


BOOM = Fault(1003, "boom", {"call": "?"})


def execution(want: str | None = None, given: dict[str, bytes] | None = None, /, **needs: str) -> Execution:
    calls = tuple(Call(name, "f", b"", tuple(others.split())) for name, others in needs.items())
    request = Request(7, calls, want=None if want is None else tuple(want.split()), inputs=given or {})
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    return Execution(RequestId(1), request, made, link=LinkId(3), arrived=10, deadline=20)


def test_start_with_calls_without_dependencies() -> None:
    one = execution(d="b c", a="", b="a", c="", e="")
    assert one.start(0) == ["a", "c", "e"]
    assert (one.id, one.link, one.reply_id, one.arrived, one.deadline, one.finished) == (1, 3, 7, 10, 20, False)


def test_call_is_ready_with_its_last_dependency() -> None:
    one = execution(fast="", slow="", join="fast slow", after="fast")
    one.start(0)
    assert complete(one, "fast", b"1") == ["after"]
    assert complete(one, "slow", b"2") == ["join"]
    assert one.inputs_of("join") == {"fast": b"1", "slow": b"2"}


def test_second_result_is_ignored() -> None:
    one = execution(a="", b="a")
    assert complete(one, "a", b"1") == ["b"] and complete(one, "a", b"2") == []
    assert one.inputs_of("b") == {"a": b"1"}
    one.fail("a", BOOM, 0)
    assert one.first_fault is None and not one.faults


def test_value_without_open_dependents_is_dropped() -> None:
    one = execution("c", None, a="", b="a", c="b", d="a")
    complete(one, "a", b"1")
    complete(one, "b", b"2")
    assert list(one.values) == ["a", "b"], "d still needs a"
    complete(one, "d", b"4")
    assert list(one.values) == ["b"], "d is wanted by nobody, and a is needed no more"
    complete(one, "c", b"3")
    assert list(one.values) == ["c"] and one.finished


def test_value_for_failed_dependents_only() -> None:
    one = execution("b c", None, a="", b="", c="a b")
    one.fail("b", BOOM, 0)
    assert complete(one, "a", b"1") == [] and not one.values and one.finished


def test_failure_fails_all_dependents() -> None:
    one = execution(a="", b="a", c="b", d="c x", x="", y="x")
    one.fail("a", BOOM, 0)
    assert one.first_fault is BOOM and one.open == ["x", "y"]
    assert {name: (fault.code, fault.details.get("because")) for name, fault in one.faults.items()} == {
        "a": (1003, None),
        "b": (1021, "a"),
        "c": (1021, "a"),
        "d": (1021, "a"),
    }
    assert complete(one, "x", b"1") == ["y"]
    complete(one, "y", b"2")
    assert one.finished and one.done() == (Done("y", b"2"),)
    assert [row.name for row in one.failed()] == ["d"]


def test_no_start_of_a_failed_call() -> None:
    """Under partial a call may fail before the first dispatch."""
    one = execution(a="", b="a", c="")
    one.fail("a", BOOM, 0)
    assert one.start(0) == ["c"]
    single = execution(a="", c="")
    single.fail("a", BOOM, 0)
    assert single.start(0) == ["c"]


def test_first_failure_is_kept() -> None:
    one = execution(a="", b="")
    one.fail("b", BOOM, 0)
    one.fail("a", Fault(1020, "late"), 0)
    one.fail("b", Fault(1020, "late"), 0)
    assert one.first_fault is BOOM and one.faults["b"] is BOOM and one.finished


def test_rows_in_the_order_of_want() -> None:
    one = execution("c a d b", None, a="", b="", c="", d="")
    for name in "abcd":
        if name in "ac":
            complete(one, name, name.encode())
        else:
            one.fail(name, BOOM, 0)
    assert one.done() == (Done("c", b"c"), Done("a", b"a"))
    assert one.failed() == (Failed("d", BOOM), Failed("b", BOOM))


def test_inputs_of_the_request_are_kept() -> None:
    one = execution(None, {"g": b"9"}, x="g", y="x g")
    assert one.start(0) == ["x"] and one.inputs_of("x") == {"g": b"9"}
    complete(one, "x", b"1")
    assert one.inputs_of("y") == {"x": b"1", "g": b"9"}


def test_no_inputs_without_dependencies() -> None:
    assert execution(None, {"g": b"9"}, x="").inputs_of("x") == {}


def test_fail_returns_all_failed_calls() -> None:
    one = execution(a="", b="a", c="b", d="")
    one.start(0)
    assert one.fail("a", BOOM, 0) == ["a", "b", "c"] and one.fail("a", BOOM, 0) == []


def test_long_value_without_a_reference_is_no_input() -> None:
    calls = (Call("a", "f", b""), Call("b", "f", b""), Call("c", "f", b"...a...", ("a", "b")))
    made = plan(Request(7, calls), DEFAULT)
    assert isinstance(made, Plan)
    one = Execution(RequestId(1), Request(7, calls), made, link=LinkId(3), arrived=10, deadline=20)
    one.start(0)
    complete(one, "a", b"x" * 2000)
    complete(one, "b", b"y" * 2000)
    assert dict(one.inputs_of("c")) == {"a": b"x" * 2000}, "b only had to end before"


def test_finished_request_keeps_no_values() -> None:
    one = execution(None, {"came": b"z"}, a="", b="a came")
    one.start(0)
    complete(one, "a", b"x")
    one.release()
    assert (one.values, one.faults, one.story, one.plan.calls) == ({}, {}, [], {})
    assert (one.request.inputs, one.request.calls) == ({}, ())


def test_eager_results_kept_for_dependents_only() -> None:
    calls = (Call("a", "f", b""), Call("b", "f", b"", ("a",)))
    request = Request(7, calls, want=("a", "b"), eager=True)
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    one = Execution(RequestId(1), request, made, link=LinkId(3), arrived=10, deadline=20)
    one.start(0)
    complete(one, "a", b"1234")
    assert (one.values, one.values_size) == ({"a": b"1234"}, 4)
    complete(one, "b", b"5")
    assert (one.values, one.values_size) == ({}, 0)


# -- the states of a call ---------------------------------------------------------------------------------------------

WAITING, READY, PENDING, DISPATCHED, STARTED, DONE, FAILED, CANCELLED, SKIPPED = CallState


def chain(*, partial: bool = False) -> Execution:
    """A request of three calls, each of which depends on the one before it."""
    request = Request(
        7, (Call("a", "f", b""), Call("b", "f", b"", ("a",)), Call("c", "f", b"", ("b",))), partial=partial
    )
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    return Execution(RequestId(1), request, made, link=LinkId(1), arrived=0, deadline=100)


def test_every_state_has_its_transitions() -> None:
    assert list(TRANSITIONS) == list(CallState)
    assert [state for state in CallState if not TRANSITIONS[state]] == [DONE, FAILED, CANCELLED, SKIPPED]
    reachable, waiting = {WAITING}, [WAITING]
    while waiting:
        following = TRANSITIONS[waiting.pop()] - reachable
        reachable |= following
        waiting += following
    assert reachable == set(CallState)


@pytest.mark.parametrize("state", CallState)
def test_step_that_the_table_does_not_have(state: CallState) -> None:
    for following in CallState:
        one = chain()
        one.states["a"] = state
        if following in TRANSITIONS[state]:
            one.move("a", following, 5)
            assert one.states["a"] is following
        else:
            with pytest.raises(LocalProtocolError, match=f"call 'a' is {state.name} and cannot become"):
                one.move("a", following, 5)
            assert one.states["a"] is state and not one.story


def test_story_of_a_chain() -> None:
    one = chain()
    assert one.start(1) == ["a"]
    one.move("a", STARTED, 2, "n1#00", "the best of 2")
    one.move("a", READY, 3, "n1#00", "over the limit")
    one.move("a", DISPATCHED, 4, "n2#00")
    assert one.complete("a", b"1", 5, "n2#00") == ["b"]
    one.move("b", PENDING, 6, reason="no node can run it")
    one.validate()
    assert (one.open, one.open_count, one.finished) == (["b", "c"], 2, False)
    one.cancel_open(9, "cancelled by the caller")
    one.validate()
    assert one.finished
    assert [(row.at, row.call, row.state, row.node, row.reason) for row in one.story] == [
        (1, "a", READY, "", ""),
        (2, "a", STARTED, "n1#00", "the best of 2"),
        (3, "a", READY, "n1#00", "over the limit"),
        (4, "a", DISPATCHED, "n2#00", ""),
        (5, "a", DONE, "n2#00", ""),
        (5, "b", READY, "", ""),
        (6, "b", PENDING, "", "no node can run it"),
        (9, "b", CANCELLED, "", "cancelled by the caller"),
        (9, "c", CANCELLED, "", "cancelled by the caller"),
    ]
    assert {row.request for row in one.story} == {1}


def test_dependents_of_a_failed_call_are_skipped() -> None:
    one = chain(partial=True)
    one.start(1)
    one.move("a", DISPATCHED, 2)
    assert one.fail("a", Fault(1003, "boom", {"node": "n1#00"}), 3) == ["a", "b", "c"]
    one.validate()
    assert list(one.states.values()) == [FAILED, SKIPPED, SKIPPED]
    assert [(row.node, row.reason) for row in one.story[2:]] == [
        ("n1#00", "boom"),
        ("", "call 'b' was not run, as 'a' failed"),
        ("", "call 'c' was not run, as 'a' failed"),
    ]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("states", "the story of 'b' ends otherwise: READY"),
        ("open_count", "2 calls count as open"),
        ("values", "'b' has a result and is WAITING"),
        ("faults", "'b': WAITING"),
        ("_dependencies_left", "'b' is WAITING with 0 dependencies left"),
    ],
)
def test_tables_that_do_not_agree(table: str, text: str) -> None:
    one = chain()
    one.start(1)
    one.validate()
    match table:
        case "states":
            one.states["b"] = READY
        case "open_count":
            one.open_count -= 1
        case "values":
            one.values["b"] = b"1"
        case "faults":
            one.faults["b"] = Fault(1003, "boom")
        case _:
            del one._dependencies_left["b"]
    with pytest.raises(AssertionError, match=text):
        one.validate()


# -- refusals, losses and eligible candidates of a call ---------------------------------------------------------------

FULL = Fault(1022, "full")


def candidate(letter: str, *, idempotent: bool = True, version: str = "1") -> SimpleNamespace:
    return SimpleNamespace(member=MemberId(letter.encode() * 16), idempotent=idempotent, version=version)


A, B, C = (candidate(letter) for letter in "abc")


def test_all_candidates_eligible_at_first() -> None:
    assert History().eligible("x", [A, B]) == [A, B]


def test_refusal_excludes_a_member_until_cleared() -> None:
    history = History()
    history.refused("x", A.member, FULL)
    assert history.eligible("x", [A, B]) == [B] and history.eligible("y", [A, B]) == [A, B]
    assert history.last_refusal("x") == FULL and history.last_refusal("y") is None
    history.clear_refusals("x")
    assert history.eligible("x", [A, B]) == [A, B] and history.last_refusal("x") is None


def test_refusal_kept_over_a_failed_connection() -> None:
    history, unreachable = History(), Fault(1001, "could not connect to b")
    history.refused("x", A.member, FULL)
    history.not_connected("x", B.member, unreachable)
    assert history.eligible("x", [A, B, C]) == [C] and history.last_refusal("x") == FULL
    history.not_connected("y", B.member, unreachable)
    assert history.last_refusal("y") == unreachable


def test_eligible_after_a_loss() -> None:
    history = History()
    assert history.lost("x", A, failovers=2)
    others = [B, candidate("c", version="2"), candidate("d", idempotent=False)]
    assert history.eligible("x", others) == [B] and history.eligible("y", others) == others
    assert history.lost("x", B, failovers=2) and not history.lost("x", C, failovers=2), "three losses are too many"
    assert not history.lost("z", candidate("d", idempotent=False), failovers=2)


def test_possibly_started_until_refused() -> None:
    one = execution(x="", y="", z="")
    one.start(0)
    one.move("x", DISPATCHED, 1)
    assert not one.possibly_started, "an idempotent one may start again"
    one.move("y", STARTED, 1)
    one.move("z", STARTED, 1)
    assert list(one.possibly_started) == ["y", "z"]
    one.move("y", READY, 2, "n1#00", "over the limit")
    one.not_started("z")
    one.fail("z", Fault(1022, "full"), 2)
    assert not one.possibly_started
    one.move("y", STARTED, 3)
    one.complete("y", b"1", 4)
    one.validate()
    assert list(one.possibly_started) == ["y"], "also after its end"


def test_trace_from_the_story() -> None:
    one = execution(a="", b="a", c="")
    one.start(10)
    one.move("c", STARTED, 11, "n3#00", "why c")
    one.move("a", DISPATCHED, 12, "n1#00", "why 1")
    one.move("a", READY, 20, "n1#00", "over the limit")
    one.move("a", DISPATCHED, 21, "n2#00", "why 2")
    one.move("a", READY, 22, reason="the message was not sent")
    one.move("a", DISPATCHED, 23, "n2#00", "why 3")
    one.complete("a", b"1", 50, "n2#00", RunTimes(30, 31, 45))
    one.move("b", DISPATCHED, 51, "n1#00", "why b")
    one.fail("b", Fault(1003, "boom"), 60, RunTimes(52, 53, 54))
    one.fail("c", Fault(1023, "lost"), 61)
    one.arrived = 5
    assert one.trace == (
        Traced("a", "n2#00", 5, 25, 26, 40, 2, "why 3"),
        Traced("b", "n1#00", 45, 47, 48, 49, 1, "why b"),
    )


def test_trace_of_a_cut_story() -> None:
    """Steps in the middle are dropped; ends, first READYs and the number of tries are not."""
    one = execution(a="", b="", c="")
    one.start(10)
    one.move("a", DISPATCHED, 12, "n1#00", "why a")
    one.complete("a", b"1", 50, "n1#00", RunTimes(30, 31, 45))
    for now in range(100, 1000):
        one.move("b", STARTED, now, "n2#00", "why b")
        one.move("b", READY, now, "n2#00" if now % 2 else "", "over the limit")
        one.validate()
    one.move("b", STARTED, 1001, "n2#00", "at last")
    one.complete("b", b"2", 1010, "n2#00", RunTimes(1002, 1003, 1004))
    one.validate()
    assert one.trace == (
        Traced("a", "n1#00", 0, 20, 21, 35, 1, "why a"),
        Traced("b", "n2#00", 0, 992, 993, 994, 451, "at last"),
    )
    assert len(one.story) <= 3 * 16 + 64


def test_story_of_a_call_that_is_refused_again_and_again() -> None:
    one = execution(a="", b="")
    one.start(0)
    one.move("a", CallState.DISPATCHED, 0)
    for now in range(1, 1000):
        one.move("b", CallState.PENDING, now)
        one.move("b", CallState.READY, now, reason="x" * 1000)
        assert len(one.story) <= 2 * 16 + 64
        one.validate()
    assert one.story[-1].at == 999 and len(one.story[-1].reason) == 256


@pytest.mark.parametrize(("node", "kept"), [("n1#00", "n1#00"), ("x" * 10_000, "x" * 253 + "..."), (["x"] * 9, "")])
def test_node_of_a_failure_in_a_story(node: object, kept: str) -> None:
    one = execution(a="")
    one.start(0)
    one.fail("a", Fault(1003, "boom", {"node": node}), 1)
    assert one.story[-1].node == kept
