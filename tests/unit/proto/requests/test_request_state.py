"""The state of one request: ready calls, kept values, and failures of dependents."""

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.wire.messages import Call, Done, Failed, Request


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
    assert (one.values, one.faults, one.trace, one.request.inputs, one.request.calls, one.plan.calls) == (
        {},
        {},
        [],
        {},
        (),
        {},
    )


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
