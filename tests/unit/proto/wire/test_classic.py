"""The classic JSON dialect: one object is one request, one result is one object (docs/howto/call-from-json.md)."""

import json
from typing import Any

import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.limits import Limits
from mpreg_proto.wire.classic import ClassicDialect
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Call, Done, Failed, Goodbye, Ping, Refused, Request, Result, Traced
from mpreg_proto.wire.values import Ref, ValueCodec

CODEC = ValueCodec()
SECOND = 10**9


def dialect(limit: int = 10**6) -> ClassicDialect:
    return ClassicDialect(CODEC, limit)


def rpc(*cmds: object, **fields: object) -> str:
    return json.dumps({"role": "rpc", "cmds": cmds, **fields})


def request(text: str) -> Request:
    made = dialect().decode(text)
    assert isinstance(made, Request), made
    return made


def fault(text: str | bytes) -> Fault:
    made = dialect().decode(text)
    assert isinstance(made, BadRequest), made
    return made.fault


def answer(one: ClassicDialect, result: Result) -> Any:
    encoded = one.encode(result)
    assert encoded is not None
    return json.loads(encoded)


def arguments(call: Call) -> object:
    return CODEC.decode(call.args)


ECHO = {"name": "x", "fun": "echo"}


# -- decoding ---------------------------------------------------------------------------------------------------------


def test_minimal_request() -> None:
    made = request(rpc(ECHO))
    assert made == Request(1, (Call("x", "echo", CODEC.encode([[], {}])),))


@pytest.mark.parametrize("kind", [str, str.encode, lambda text: memoryview(text.encode())])
def test_byte_order_mark_is_skipped_once(kind: Any) -> None:
    text = rpc({"name": "a", "fun": "f"})
    assert isinstance(dialect().decode(kind("\ufeff" + text)), Request)
    assert isinstance(dialect().decode(kind("\ufeff\ufeff" + text)), BadRequest)
    assert isinstance(dialect().decode(kind("\ufeff")), BadRequest)


def test_request_with_all_fields() -> None:
    made = request(
        rpc(
            {"name": "x", "fun": "f", "args": [1, {"a": [2]}], "kwargs": {"k": None}, "locs": ["b", "a", "b"]},
            u="id",
            refs="explicit",
            want=["x"],
            timeout=2.5,
            wait=0.5,
            on_error="partial",
            trace=True,
        )
    )
    (call,) = made.calls
    assert arguments(call) == [[1, {"a": [2]}], {"k": None}] and call.resources == ("a", "b")
    assert (made.timeout, made.wait, made.want) == (25 * SECOND // 10, SECOND // 2, ("x",))
    assert (made.partial, made.trace, made.eager, made.here) == (True, True, False, ())


def test_request_numbers_in_order_with_malformed_ones() -> None:
    one = dialect()
    made = [one.decode(text) for text in (rpc(ECHO), "nonsense", rpc(ECHO, u="same"), rpc(ECHO, u="same"))]
    assert [each.id for each in made] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind", [str, str.encode, lambda text: bytearray(text.encode()), lambda text: memoryview(text.encode())]
)
def test_text_and_binary_frames(kind: Any) -> None:
    assert isinstance(dialect().decode(kind(rpc(ECHO, u="é"))), Request)


def test_classic_references_to_other_calls_only() -> None:
    made = request(rpc({**ECHO, "args": ["x", ["y"], {"y": "y"}], "kwargs": {"k": "z"}}, {"name": "y", "fun": "f"}))
    call = made.calls[0]
    assert arguments(call) == [["x", [Ref("y")], {"y": Ref("y")}], {"k": "z"}]
    assert call.dependencies == ("y",)


def test_explicit_references() -> None:
    args = ["y", {"$ref": "y", "path": ["k", 0]}, {"$data": {"$ref": 5}}]
    made = request(rpc({**ECHO, "args": args}, {"name": "y", "fun": "f"}, refs="explicit"))
    assert arguments(made.calls[0]) == [["y", Ref("y", ("k", 0)), {"$ref": 5}], {}]
    assert made.calls[0].dependencies == ("y",)


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ("", 1000, None),
        ("{", 1000, None),
        ("[]", 1000, None),
        ("5", 1000, None),
        ("null", 1000, None),
        (b"\xff\xfe", 1000, None),
        ('{"role":"rpc","role":"rpc"}', 1000, None),
        ('{"role":NaN}', 1000, None),
        ('{"cmds":[]}', 1004, None),
        ('{"role":"server"}', 1004, None),
        ('{"role":null}', 1004, None),
        ('{"role":["rpc"]}', 1004, None),
        ('{"role":"rpc"}', 1010, "$"),
        (rpc(5), 1010, "$.cmds[0]"),
        (rpc({"fun": "f"}), 1010, "$.cmds[0]"),
        (rpc(ECHO, {"name": 5, "fun": "f"}), 1010, "$.cmds[1].name"),
        (rpc({**ECHO, "args": {}}), 1010, "$.cmds[0].args"),
        (rpc({**ECHO, "kwargs": []}), 1010, "$.cmds[0].kwargs"),
        (rpc({**ECHO, "locs": "gpu"}), 1010, "$.cmds[0].locs"),
        (rpc({**ECHO, "locs": [1]}), 1010, "$.cmds[0].locs[0]"),
        (rpc(ECHO, u=5), 1010, "$.u"),
        (rpc(ECHO, refs="typed"), 1010, "$.refs"),
        (rpc(ECHO, want="x"), 1010, "$.want"),
        (rpc(ECHO, timeout="1"), 1010, "$.timeout"),
        (rpc(ECHO, timeout=0), 1010, "$.timeout"),
        (rpc(ECHO, timeout=-1), 1010, "$.timeout"),
        (rpc(ECHO, timeout=86401), 1010, "$.timeout"),
        (rpc(ECHO, timeout=10**400), 1010, "$.timeout"),
        (rpc(ECHO, timeout=True), 1010, "$.timeout"),
        (rpc(ECHO, wait=-1), 1010, "$.wait"),
        (rpc(ECHO, wait=86401), 1010, "$.wait"),
        (rpc(ECHO, on_error="ignore"), 1010, "$.on_error"),
        (rpc(ECHO, trace="yes"), 1010, "$.trace"),
        (rpc({**ECHO, "args": [{"$ref": 5}]}, refs="explicit"), 1010, '$.cmds[0].args[0]["$ref"]'),
        (rpc({**ECHO, "kwargs": {"k": {"$data": 1, "x": 2}}}, refs="explicit"), 1010, "$.cmds[0].kwargs.k"),
        (rpc({**ECHO, "kwargs": {"$ref": "x"}}, refs="explicit"), 1010, "$.cmds[0].kwargs"),
    ],
)
def test_path_of_a_malformed_request(text: str | bytes, code: int, path: str | None) -> None:
    found = fault(text)
    assert found.code == code, found
    if path is not None:
        assert found.details["path"] == path and found.message.startswith(path)


def test_ref_key_is_data_with_classic_references() -> None:
    made = request(rpc({**ECHO, "args": [{"$ref": 5}], "kwargs": {"$data": 1}}))
    assert arguments(made.calls[0]) == [[{"$ref": 5}], {"$data": 1}]


def test_order_of_errors() -> None:
    deep: object = 1
    for _ in range(70):
        deep = [deep]
    assert fault(rpc({**ECHO, "args": [deep]})).code == 1014
    assert fault(rpc({**ECHO, "args": [deep]}, timeout=0)).code == 1010
    assert fault(json.dumps({"role": "x", "deep": deep})).code == 1004


def test_u_is_echoed_for_a_malformed_request() -> None:
    one = dialect()
    bad = one.decode('{"role":"rpc","cmds":5,"u":"me"}')
    assert isinstance(bad, BadRequest)
    assert answer(one, Result(bad.id, fault=bad.fault))["u"] == "me"
    odd = one.decode('{"role":"rpc","cmds":[],"u":7}')
    assert answer(one, Result(odd.id, fault=Fault(1010, "")))["u"] == ""


# -- encoding ---------------------------------------------------------------------------------------------------------


def opened(**fields: object) -> ClassicDialect:
    one = dialect()
    assert isinstance(one.decode(rpc(ECHO, u="me", **fields)), Request)
    return one


def row(name: str, value: object) -> Done:
    return Done(name, CODEC.encode(value))


def test_encoded_result() -> None:
    assert answer(opened(), Result(1, (row("x", {"a": (1, 2)}),))) == {
        "r": {"x": {"a": [1, 2]}},
        "error": None,
        "u": "me",
    }


def test_encoded_error() -> None:
    found = answer(opened(), Result(1, fault=Fault(1001, "none", {"close": ["a"], "maybe_executed": False})))
    details = {"close": ["a"], "maybe_executed": False}
    assert found == {"r": None, "error": {"code": 1001, "message": "none", "details": details}, "u": "me"}


def test_encoded_partial_result() -> None:
    first = Fault(1003, "boom", {"call": "y"})
    failed = (Failed("y", first), Failed("z", Fault(1021, "not run", {"call": "z", "because": "y"})))
    found = answer(opened(on_error="partial"), Result(1, (row("x", 1),), failed, fault=first))
    assert found["r"] == {"x": 1} and found["error"]["code"] == 1003
    assert list(found["error"]["details"]["failed"]) == ["z"]
    assert found["error"]["details"]["failed"]["z"]["details"]["because"] == "y"


def test_empty_r_of_a_partial_request_without_results() -> None:
    first = Fault(1003, "boom", {"call": "x"})
    assert answer(opened(on_error="partial"), Result(1, (), (Failed("x", first),), fault=first))["r"] == {}


def test_result_without_a_json_form_is_1003() -> None:
    result = Result(1, (row("x", float("nan")), row("y", 1)))
    found = answer(opened(), result)
    assert found["r"] is None and found["error"]["code"] == 1003
    assert "cannot be sent as JSON" in found["error"]["message"] and found["error"]["details"]["call"] == "x"
    partial = answer(opened(on_error="partial"), result)
    assert partial["r"] == {"y": 1} and partial["error"]["code"] == 1003


def test_first_error_stays_beside_a_result_without_a_json_form() -> None:
    late = Fault(1020, "too late", {"maybe_executed": True})
    rows = (row("x", float("nan")), row("y", 1), row("z", float("inf")))
    found = answer(opened(on_error="partial"), Result(1, rows, fault=late))
    assert (found["r"], found["error"]["code"]) == ({"y": 1}, 1020)
    assert {name: one["code"] for name, one in found["error"]["details"]["failed"].items()} == {"x": 1003, "z": 1003}
    alone = answer(opened(on_error="partial"), Result(1, rows))
    assert alone["error"]["details"]["call"] == "x" and list(alone["error"]["details"]["failed"]) == ["z"]


def test_reply_over_the_message_limit_is_1014() -> None:
    one = dialect(limit=300)
    one.decode(rpc(ECHO, u="me"))
    found = answer(one, Result(1, (row("x", "y" * 300),)))
    assert found["error"]["code"] == 1014 and found["error"]["details"]["value"] == 300 and found["u"] == "me"


def test_requested_trace_in_seconds() -> None:
    trace = (Traced("x", "n#1", 1, SECOND, 2 * SECOND, 3 * SECOND, 1, "why"),)
    assert "trace" not in answer(opened(), Result(1, trace=trace))
    (found,) = answer(opened(trace=True), Result(1, trace=trace))["trace"]
    assert found == {
        "name": "x", "node": "n#1", "queued": 1e-9, "moved": 1.0, "started": 2.0, "ended": 3.0, "tries": 1, "why": "why"
    }  # fmt: skip


def test_one_reply_with_the_last_result() -> None:
    one = opened()
    assert one.encode(Result(1, (row("x", 1),), last=False)) is None
    assert one.encode(Result(2)) is None
    assert one.encode(Result(1)) is not None and one.encode(Result(1)) is None
    assert one.encode(Ping(1)) is None and one.encode(Goodbye("")) is None


def test_encoded_refusal() -> None:
    encoded = dialect().encode(Refused(Fault(1014, "too long")))
    assert encoded is not None
    assert json.loads(encoded) == {"r": None, "error": {"code": 1014, "message": "too long", "details": {}}, "u": ""}


def test_details_without_a_json_form_are_dropped() -> None:
    found = answer(opened(), Result(1, fault=Fault(1003, "boom", {"bad": float("inf")})))
    assert found["error"] == {"code": 1003, "message": "boom", "details": {}}


def test_malformed_value_is_1003() -> None:
    assert answer(opened(), Result(1, (Done("x", b"\xc1"),)))["error"]["code"] == 1003


def test_limit_of_edges() -> None:
    cmds = [{"name": name, "fun": "f", "args": ["a", "b", "c"]} for name in "abcd"]
    one = ClassicDialect(CODEC, 10**6, Limits(edges=8))
    bad = one.decode(rpc(*cmds))
    assert isinstance(bad, BadRequest) and bad.fault.code == 1014
    assert bad.fault.details == {"limit": "edges", "value": 8, "came": 9}
    assert isinstance(one.decode(rpc(*cmds[:3])), Request)
    bad = one.decode(rpc(*cmds, {"name": "", "fun": "f"}))
    assert isinstance(bad, BadRequest) and bad.fault.details == {"path": "$.cmds[4].name"}, "1010 comes first"


def test_error_over_the_message_limit_with_a_long_u() -> None:
    one = dialect(500)
    made = one.decode(rpc(ECHO, u="u" * 600))
    assert isinstance(made, Request)
    for _ in range(2):
        encoded = one.encode(Result(made.id, (Done("x", CODEC.encode("y" * 600)),)))
        assert encoded is not None and len(encoded) > 500, "so it is no answer that was sent"
