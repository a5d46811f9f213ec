"""The states of a call: which step follows which, what each step leaves in the story, and that the tables agree."""

from __future__ import annotations

import pytest

from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import TRANSITIONS, CallState, Execution
from mpreg_proto.wire.messages import Call, Request

WAITING, READY, PENDING, DISPATCHED, STARTED, DONE, FAILED, CANCELLED, SKIPPED = CallState


def execution(*, partial: bool = False) -> Execution:
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
        one = execution()
        one.states["a"] = state
        if following in TRANSITIONS[state]:
            one.move("a", following, 5)
            assert one.states["a"] is following
        else:
            with pytest.raises(LocalProtocolError, match=f"call 'a' is {state.name} and cannot become"):
                one.move("a", following, 5)
            assert one.states["a"] is state and not one.story


def test_story_of_a_chain() -> None:
    one = execution()
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
    one = execution(partial=True)
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
    one = execution()
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
