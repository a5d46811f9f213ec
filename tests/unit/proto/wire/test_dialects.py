"""Bodies to messages, natively: whatever the bytes, a message, a request to be answered, or RemoteProtocolError."""

from collections.abc import Callable

import msgspec
import pytest

from mpreg_proto.errors import Fault, RemoteProtocolError
from mpreg_proto.limits import Limits
from mpreg_proto.wire.dialects import BadRequest, decode, encode, error_path
from mpreg_proto.wire.messages import Call, Explain, Message, Ping, Refused, Request

pack = msgspec.msgpack.encode


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_there_and_back_from_any_buffer(kind: type) -> None:
    request = Request(5, (Call("x", "f", b"\x01"),))
    assert decode(kind(encode(request))) == request


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 1010),
        (b"\xc1", 1010),
        (pack({}), 1010),
        (pack([]), 1010),
        (pack(["x"]), 1010),
        (pack([True, 1]), 1010),
        (pack([3]), 1010),
        (pack([3, "x"]), 1010),
        (pack([3, 1]) + b"\x00", 1010),
        (pack([99, 1]), 1040),
        (pack([0]), 1040),
        (pack([-1, {}]), 1040),
        (pack([2**63, {}]), 1040),
        (pack([5, "x"])[:-1] + b"\xff", 1010),
        (pack([1, [1, 1], [], "c", b"", 7]), 1010),
    ],
)
def test_what_is_no_message_is_refused(body: bytes, code: int) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(body)
    assert raised.value.code == code


@pytest.mark.parametrize("inside", [b"\x91" * 100_000, b"\x81\xa1x" * 100_000])
@pytest.mark.parametrize("head", [b"", b"\x93\x05\xa0", b"\x92\x02\x93\x01\xa0\x81\xa1a"])
def test_depth_is_no_way_in(head: bytes, inside: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(head + inside)


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\x96\x01\x92\x01\x01\xdd\xff\xff\xff\xff",
        b"\x92\x02\x93\x01\xa0\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x92\x05\xdb\xff\xff\xff\xff",
        b"\x93\x10\x01\xc6\xff\xff\xff\xff",
    ],
)
def test_what_is_only_announced_costs_nothing(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="truncated"):
        decode(body)


@pytest.mark.parametrize("key", [b"\x80", b"\x91\x80", b"\x90"])
def test_odd_keys_inside_details_raise_nothing_else(key: bytes) -> None:
    body = b"\x92\x02\x93\x01\xa0\x81\xa1a\x81" + key + b"\x01"
    try:
        found = decode(body)
    except RemoteProtocolError:
        return
    assert isinstance(found, Refused)


@pytest.mark.parametrize(
    ("body", "number", "path"),
    [
        ([10, 7, "calls"], 7, "$[2]"),
        ([10, 7], 7, "$"),
        ([10, 7, [["x", 5, b""]]], 7, "$[2][0][1]"),
        ([10, 7, [["x", "f", "text"]]], 7, "$[2][0][2]"),
        ([10, 7, [], None, None, [], {"a": 5}], 7, "$[6][...]"),
        ([13, [10, 8, "calls"]], 8, "$[1]"),
    ],
)
def test_a_request_whose_id_can_be_read_is_for_answering(body: list[object], number: int, path: str) -> None:
    found = decode(pack(body))
    assert isinstance(found, BadRequest)
    assert (found.id, found.fault.code) == (number, 1010)
    assert str(found.fault.details["path"]).startswith(path) and found.fault.message.startswith(path)


@pytest.mark.parametrize(
    "body",
    [[10], [10, "seven", []], [10, 1.5, []], [10, True, []], [10, None], [13], [13, 7], [13, []], [13, [10, "7"]]],
)
def test_without_an_id_there_is_nobody_to_answer(body: list[object]) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(pack(body))
    assert raised.value.code == 1010


def test_explain_is_a_question_of_its_own() -> None:
    question = Explain(Request(3, (Call("x", "f", b""),)))
    assert decode(encode(question)) == question


def test_the_words_of_a_message_find_their_place() -> None:
    assert error_path("Expected `int`, got `str` - at `$[2][0]`") == ("$[2][0]", "expected `int`, got `str`")
    assert error_path("Input data was truncated") == ("$", "input data was truncated")
    assert error_path("") == ("$", "")


def test_details_may_hold_what_the_core_does_not_know() -> None:
    fault = Fault(1, "", {"ext": msgspec.msgpack.Ext(9, b"x"), "deep": [[[{"a": 1.5}]]]})
    again = decode(encode(Refused(fault)))
    assert isinstance(again, Refused) and encode(again) == encode(Refused(fault))
    assert decode(encode(Ping(1))) == Ping(1)


EDGES = Limits(edges=4, calls=3)


@pytest.mark.parametrize("wrap", [lambda request: request, Explain], ids=["request", "explain"])
@pytest.mark.parametrize(
    ("calls", "details"),
    [
        ((Call("a", "f", b"\x01"), Call("b", "f", b"\x01", ("a",) * 5)), {"limit": "edges", "value": 4, "came": 5}),
        ((Call("a", "f", b"\x01", ("x",) * 20),), {"limit": "edges", "value": 4, "came": 20}),
        ((Call("a", "f", b"\x01", ("x",) * 70_000),), {"limit": "edges", "value": 4, "came": 70_000}),
        ((Call("a", "f", b"\x01"),) * 31, {"limit": "calls", "value": 3, "came": 31}),
    ],
)
def test_calls_and_edges_are_counted_before_they_are_decoded(
    wrap: Callable[[Request], Message], calls: tuple[Call, ...], details: dict[str, object]
) -> None:
    bad = decode(encode(wrap(Request(9, calls))), EDGES)
    assert isinstance(bad, BadRequest) and bad.id == 9
    assert (bad.fault.code, bad.fault.details) == (1014, details)


def test_an_empty_name_is_told_before_too_many_edges() -> None:
    bad = decode(encode(Request(9, (Call("a", "", b"\x01", ("x",) * 5),))), EDGES)
    assert isinstance(bad, BadRequest) and (bad.fault.code, bad.fault.details) == (1010, {"path": "$.cmds[0].fun"})
    few_too_many = Request(9, (Call("a", "f", b"\x01"),) * 4)
    assert decode(encode(few_too_many), EDGES) == few_too_many, "left to those who check its shape"


@pytest.mark.parametrize("wrap", [lambda request: request, Explain], ids=["request", "explain"])
def test_as_many_as_may_be_are_decoded(wrap: Callable[[Request], Message]) -> None:
    calls = (Call("a", "f", b"\x01"), Call("b", "f", b"\x01", ("a",) * 3), Call("c", "f", b"\x01", ("b",)))
    request = Request(9, calls)
    assert decode(encode(wrap(request)), EDGES) == wrap(request)
