"""One request in progress: what is ready when, what is kept, how failures spread."""

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.messages import Call, Done, Failed, Request

BOOM = Fault(1003, "boom", {"call": "?"})


def execution(want: str | None = None, given: dict[str, bytes] | None = None, /, **needs: str) -> Execution:
    calls = tuple(Call(name, "f", b"", tuple(others.split())) for name, others in needs.items())
    request = Request(7, calls, want=None if want is None else tuple(want.split()), inputs=given or {})
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    return Execution(RequestId(1), request, made, link=LinkId(3), arrived=10, deadline=20)


def test_it_begins_with_what_waits_for_nothing_in_the_requests_order() -> None:
    one = execution(d="b c", a="", b="a", c="", e="")
    assert one.start() == ["a", "c", "e"]
    assert (one.id, one.link, one.reply_id, one.arrived, one.deadline, one.finished) == (1, 3, 7, 10, 20, False)


def test_a_call_is_ready_the_moment_its_last_need_is_there() -> None:
    one = execution(fast="", slow="", join="fast slow", after="fast")
    one.start()
    assert one.complete("fast", b"1") == ["after"]
    assert one.complete("slow", b"2") == ["join"]
    assert one.inputs_of("join") == {"fast": b"1", "slow": b"2"}


def test_a_second_result_is_ignored() -> None:
    one = execution(a="", b="a")
    assert one.complete("a", b"1") == ["b"] and one.complete("a", b"2") == []
    assert one.inputs_of("b") == {"a": b"1"}
    one.fail("a", BOOM)
    assert one.first_fault is None and not one.faults


def test_what_nobody_needs_any_more_is_let_go() -> None:
    one = execution("c", None, a="", b="a", c="b", d="a")
    one.complete("a", b"1")
    one.complete("b", b"2")
    assert list(one.values) == ["a", "b"], "d still needs a"
    one.complete("d", b"4")
    assert list(one.values) == ["b"], "d is wanted by nobody, and a is needed no more"
    one.complete("c", b"3")
    assert list(one.values) == ["c"] and one.finished


def test_what_only_failed_calls_needed_is_not_even_kept() -> None:
    one = execution("b c", None, a="", b="", c="a b")
    one.fail("b", BOOM)
    assert one.complete("a", b"1") == [] and not one.values and one.finished


def test_a_failure_takes_with_it_all_that_waits_for_it() -> None:
    one = execution(a="", b="a", c="b", d="c x", x="", y="x")
    one.fail("a", BOOM)
    assert one.first_fault is BOOM and list(one.open) == ["x", "y"]
    assert {name: (fault.code, fault.details.get("because")) for name, fault in one.faults.items()} == {
        "a": (1003, None),
        "b": (1021, "a"),
        "c": (1021, "a"),
        "d": (1021, "a"),
    }
    assert one.complete("x", b"1") == ["y"]
    one.complete("y", b"2")
    assert one.finished and one.done() == (Done("y", b"2"),)
    assert [row.name for row in one.failed()] == ["d"]


def test_what_has_failed_is_not_begun() -> None:
    """Under partial a call may fail before the first is handed out."""
    one = execution(a="", b="a", c="")
    one.fail("a", BOOM)
    assert one.start() == ["c"]
    single = execution(a="", c="")
    single.fail("a", BOOM)
    assert single.start() == ["c"]


def test_the_first_failure_stays_the_first() -> None:
    one = execution(a="", b="")
    one.fail("b", BOOM)
    one.fail("a", Fault(1020, "late"))
    one.fail("b", Fault(1020, "late"))
    assert one.first_fault is BOOM and one.faults["b"] is BOOM and one.finished


def test_rows_come_in_the_order_wanted() -> None:
    one = execution("c a d b", None, a="", b="", c="", d="")
    for name in "abcd":
        if name in "ac":
            one.complete(name, name.encode())
        else:
            one.fail(name, BOOM)
    assert one.done() == (Done("c", b"c"), Done("a", b"a"))
    assert one.failed() == (Failed("d", BOOM), Failed("b", BOOM))


def test_values_that_came_along_are_given_and_stay() -> None:
    one = execution(None, {"g": b"9"}, x="g", y="x g")
    assert one.start() == ["x"] and one.inputs_of("x") == {"g": b"9"}
    one.complete("x", b"1")
    assert one.inputs_of("y") == {"x": b"1", "g": b"9"}


def test_no_needs_no_given() -> None:
    assert execution(None, {"g": b"9"}, x="").inputs_of("x") == {}


def test_a_failure_names_all_that_fail_with_it() -> None:
    one = execution(a="", b="a", c="b", d="")
    one.start()
    assert one.fail("a", BOOM) == ["a", "b", "c"] and one.fail("a", BOOM) == []


def test_long_values_that_no_argument_refers_to_are_not_given() -> None:
    calls = (Call("a", "f", b""), Call("b", "f", b""), Call("c", "f", b"...a...", ("a", "b")))
    made = plan(Request(7, calls), DEFAULT)
    assert isinstance(made, Plan)
    one = Execution(RequestId(1), Request(7, calls), made, link=LinkId(3), arrived=10, deadline=20)
    one.start()
    one.complete("a", b"x" * 2000)
    one.complete("b", b"y" * 2000)
    assert dict(one.inputs_of("c")) == {"a": b"x" * 2000}, "b only had to end before"


def test_a_request_that_is_over_keeps_no_values() -> None:
    one = execution(None, {"came": b"z"}, a="", b="a came")
    one.start()
    one.complete("a", b"x")
    one.release()
    assert (one.values, one.faults, one.trace, one.request.inputs, one.request.calls, one.plan.calls) == (
        {},
        {},
        [],
        {},
        (),
        {},
    )


def test_results_that_were_sent_when_they_came_are_kept_for_dependents_alone() -> None:
    calls = (Call("a", "f", b""), Call("b", "f", b"", ("a",)))
    request = Request(7, calls, want=("a", "b"), eager=True)
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    one = Execution(RequestId(1), request, made, link=LinkId(3), arrived=10, deadline=20)
    one.start()
    one.complete("a", b"1234")
    assert (one.values, one.values_size) == ({"a": b"1234"}, 4)
    one.complete("b", b"5")
    assert (one.values, one.values_size) == ({}, 0)
