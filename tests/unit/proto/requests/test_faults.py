"""The messages of faults: what was expected, what exists, and what to do next."""

import pytest

from mpreg_proto.errors import BY_CODE
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_proto.requests import faults
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.messages import Call, Request


def execution(count: int, timeout: int | None) -> Execution:
    request = Request(1, tuple(Call(f"c{number}", "f", b"") for number in range(count)), timeout=timeout)
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    return Execution(RequestId(1), request, made, link=LinkId(1), arrived=SECOND, deadline=3 * SECOND + SECOND // 2)


def test_fault_of_a_deadline() -> None:
    requested, default = faults.deadline(execution(2, 5)), faults.deadline(execution(2, None))
    assert requested.code == default.code == 1020
    assert requested.message == "not done within 2.5 s; still open: c0, c1"
    assert "the default; set another with timeout" in default.message
    assert requested.details == {"timeout": 2.5, "open": ["c0", "c1"]}


def test_first_open_calls_in_the_message_of_a_deadline() -> None:
    found = faults.deadline(execution(100, 5))
    assert found.message.endswith("c0, c1, c2, c3, c4, ...") and len(found.details["open"]) == 20


def test_fault_of_a_lost_node() -> None:
    found = faults.lost("x", "alpha#1234")
    assert found.code == 1023 and "alpha#1234" in found.message and "'x'" in found.message
    assert found.details == {"node": "alpha#1234"}


def test_retry_after_in_the_fault_of_an_overload() -> None:
    found = faults.too_many_requests(2, 7, 8)
    assert found.code == 1022 and "7 of 8 are in flight, 2 of them of this client" in found.message
    assert found.details == {"limit": "requests", "value": 8, "came": 2, "retry_after": 1.0}
    for other in (faults.over_credit("client_bytes", 7, 9), faults.unread_answers(7, 9)):
        assert other.code == 1022 and (other.details["value"], other.details["came"]) == (7, 9)
        assert other.details["retry_after"] == 1.0


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({"unknown": "function", "close": []}, "no node offers 'ad'"),
        ({"unknown": "function", "close": ["add"]}, "no node offers 'ad'; did you mean 'add'?"),
        ({"unknown": "function", "close": ["add", "had"]}, "no node offers 'ad'; did you mean 'add' or 'had'?"),
        (
            {"unknown": "resources", "node": "a#1", "lacks": ["s"]},
            "no node that offers 'ad' holds 'r', 's'; the nearest, a#1, lacks 's'",
        ),
        (
            {"unknown": "resources", "node": "a#1", "lacks": ["s"], "close": ["t", "u"]},
            "no node that offers 'ad' holds 'r', 's'; the nearest, a#1, lacks 's'; did you mean 't' or 'u'?",
        ),
        (
            {"unknown": "resources", "node": "a#1", "lacks": ["r", "s"], "corrections": {"r": "rr", "s": "t"}},
            "no node that offers 'ad' holds 'r', 's'; the nearest, a#1, lacks 'r', 's'; "
            "did you mean 'rr' for 'r' and 't' for 's'?",
        ),
        (
            {"unknown": "resources", "node": "a#1", "lacks": ["r", "s"], "close": [], "corrections": {}},
            "no node that offers 'ad' holds 'r', 's'; the nearest, a#1, lacks 'r', 's'",
        ),
        ({"unknown": "resources", "node": "a#1", "lacks": []}, "no node that offers 'ad' is left to run it"),
    ],
)
def test_message_of_not_found(details: dict[str, object], text: str) -> None:
    found = faults.not_found(Call("x", "ad", b"", (), ("r", "s")), details)
    assert found.code == 1001 and found.message == f"call 'x': {text}"
    assert found.details == {"call": "x", "function": "ad", **details}
    assert faults.not_found(Call("ad", "ad", b"", (), ("r", "s")), details).message == text


def test_version_in_the_message_of_not_found() -> None:
    call = Call("add", "add", b"", version="2")
    assert faults.not_found(call, {"unknown": "function"}).message == "no node offers 'add' in version '2'"
    details = {"unknown": "function", "close": ["adds"], "versions": ["", "1"]}
    text = "no node offers 'add' in version '2'; there is one without a version, '1'"
    assert faults.not_found(call, details).message == text


def test_codes_of_the_constant_faults() -> None:
    codes = [fault.code for fault in (faults.CANCELLED, faults.DRAINING, faults.LOST_BY_LEAVING)]
    assert codes == [1021, 1024, 1023] and all(code in BY_CODE for code in codes)
