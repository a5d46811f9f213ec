"""The table of errors as documented; an error stays equal when it is sent, pickled or copied."""

import copy
import pickle

import msgspec
import pytest

from mpreg_proto import errors
from mpreg_proto.errors import (
    BY_CODE,
    KINDS,
    CyclicReference,
    DeadlineExceeded,
    DuplicateName,
    Fault,
    Forbidden,
    GraphError,
    InvalidRequest,
    LocalProtocolError,
    MpregError,
    ProtocolError,
    RemoteProtocolError,
    RequestError,
    UnresolvedReference,
    exception_for,
    over_limit,
)

# docs/reference/errors.md: code, name, and the value of the column `repeat safe`.
TABLE = """
1000 unknown_message -
1001 command_not_found yes
1002 internal no
1003 execution_failed no
1004 invalid_role -
1005 cluster_mismatch -
1010 invalid_request -
1011 duplicate_name -
1012 cyclic_reference -
1013 unresolved_reference -
1014 limit_exceeded -
1020 deadline_exceeded no
1021 cancelled no
1022 overloaded yes
1023 outcome_unknown no
1024 draining yes
1030 unauthenticated -
1031 forbidden -
1040 version_mismatch -
"""


def test_table_of_errors_as_documented() -> None:
    rows = [line.split() for line in TABLE.split("\n") if line]
    actual = [[str(kind.default_code), kind.kind, kind.repeat_safe] for kind in KINDS]
    assert actual == [[code, name, safe == "yes"] for code, name, safe in rows]
    assert list(BY_CODE.values()) == list(KINDS)


def test_table_has_all_error_classes() -> None:
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, RequestError) and kind not in (RequestError, GraphError)
    }
    assert sorted(kinds.values(), key=lambda kind: kind.default_code) == list(KINDS)
    assert all(kind.__doc__ and str(kind.default_code) in kind.__doc__ for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_error_after_sending_pickling_and_copying(kind: type[RequestError]) -> None:
    error = kind("what happened", details={"call": "x", "more": [1, {"y": None}]})
    fault = error.fault
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(fault), type=Fault)
    for again in (
        error,
        exception_for(sent),
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert type(again) is kind
        assert (again.code, again.message, again.details) == (kind.default_code, "what happened", error.details)
        assert str(again) == "what happened" and again.fault == fault
        assert again.safe_to_repeat is kind.repeat_safe


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("executed", [True, False])
def test_safe_to_repeat_of_each_error(kind: type[RequestError], executed: bool) -> None:
    error = exception_for(Fault(kind.default_code, "", {"maybe_executed": executed}))
    assert error.safe_to_repeat is (kind.repeat_safe and not executed)


def test_unknown_error_code() -> None:
    error = exception_for(Fault(4711, "new", {"a": 1}))
    assert type(error) is RequestError and (error.code, error.safe_to_repeat) == (4711, False)
    assert pickle.loads(pickle.dumps(error)).code == 4711


def test_builtin_base_classes_of_errors() -> None:
    assert issubclass(DeadlineExceeded, TimeoutError) and issubclass(Forbidden, PermissionError)
    for kind in (InvalidRequest, DuplicateName, CyclicReference, UnresolvedReference):
        assert issubclass(kind, GraphError)
    assert all(issubclass(kind, MpregError) for kind in (*KINDS, LocalProtocolError, RemoteProtocolError))
    assert not any(issubclass(kind, ProtocolError) for kind in KINDS)


@pytest.mark.parametrize(("kind", "unchanged"), [(LocalProtocolError, True), (RemoteProtocolError, False)])
def test_local_and_remote_protocol_errors(kind: type[ProtocolError], unchanged: bool) -> None:
    error = kind("wrong", code=1014, at="$.x", details={"limit": "calls"})
    for again in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind and again.state_unchanged is unchanged  # type: ignore[attr-defined]
        assert (str(again), again.code, again.at, again.details) == ("wrong", 1014, "$.x", {"limit": "calls"})
    plain = kind("wrong")
    assert (plain.code, plain.at, plain.details) == (1010, "", {})


def test_state_unchanged_of_each_error() -> None:
    assert all(kind.state_unchanged is True for kind in KINDS)


def test_fault_over_a_limit() -> None:
    fault = over_limit("calls", 10, 11)
    assert fault == Fault(1014, "over the limit calls: 11, at most 10", {"limit": "calls", "value": 10, "came": 11})


def test_separate_details_of_errors() -> None:
    one, other = RequestError("a"), RequestError("b")
    one.details["x"] = 1
    assert other.details == {} and Fault(1, "").details == {}


def test_with_details_leaves_the_fault_unchanged() -> None:
    fault = Fault(1001, "none", {"call": "x", "node": "a"})
    more = fault.with_details(node="b", maybe_executed=False)
    assert fault.details == {"call": "x", "node": "a"}
    assert more == Fault(1001, "none", {"call": "x", "node": "b", "maybe_executed": False})
