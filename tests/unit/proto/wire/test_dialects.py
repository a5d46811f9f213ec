"""The native dialect: any bytes decode to a message, to a malformed request, or raise RemoteProtocolError."""

from collections.abc import Callable

import msgspec
import pytest

from mpreg_proto.errors import Fault, RemoteProtocolError
from mpreg_proto.limits import Limits
from mpreg_proto.wire.dialects import BadRequest, check_client_message, decode, encode, error_path
from mpreg_proto.wire.messages import Call, Claim, Explain, Gossip, Message, Ping, Refused, Request

pack = msgspec.msgpack.encode


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip_from_any_buffer(kind: type) -> None:
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
def test_refusal_of_a_body_that_is_no_message(body: bytes, code: int) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(body)
    assert raised.value.code == code


@pytest.mark.parametrize("inside", [b"\x91" * 100_000, b"\x81\xa1x" * 100_000])
@pytest.mark.parametrize("head", [b"", b"\x93\x05\xa0", b"\x92\x02\x93\x01\xa0\x81\xa1a"])
def test_deep_nesting_raises_a_protocol_error(head: bytes, inside: bytes) -> None:
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
def test_announced_lengths_are_not_allocated(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="truncated"):
        decode(body)


@pytest.mark.parametrize("key", [b"\x80", b"\x91\x80", b"\x90"])
def test_odd_keys_in_details(key: bytes) -> None:
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
def test_malformed_request_with_a_readable_id(body: list[object], number: int, path: str) -> None:
    found = decode(pack(body))
    assert isinstance(found, BadRequest)
    assert (found.id, found.fault.code) == (number, 1010)
    assert str(found.fault.details["path"]).startswith(path) and found.fault.message.startswith(path)


@pytest.mark.parametrize(
    "body",
    [[10], [10, "seven", []], [10, 1.5, []], [10, True, []], [10, None], [13], [13, 7], [13, []], [13, [10, "7"]]],
)
def test_malformed_request_without_an_id(body: list[object]) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(pack(body))
    assert raised.value.code == 1010


def test_round_trip_of_explain() -> None:
    question = Explain(Request(3, (Call("x", "f", b""),)))
    assert decode(encode(question)) == question


def test_error_path_in_a_decoder_message() -> None:
    assert error_path("Expected `int`, got `str` - at `$[2][0]`") == ("$[2][0]", "expected `int`, got `str`")
    assert error_path("Input data was truncated") == ("$", "input data was truncated")
    assert error_path("") == ("$", "")


def test_unknown_types_in_details() -> None:
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
def test_limits_of_calls_and_edges_before_decoding(
    wrap: Callable[[Request], Message], calls: tuple[Call, ...], details: dict[str, object]
) -> None:
    bad = decode(encode(wrap(Request(9, calls))), EDGES)
    assert isinstance(bad, BadRequest) and bad.id == 9
    assert (bad.fault.code, bad.fault.details) == (1014, details)


CALL = Call("a", "f", b"\x01")


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (Request(9, (CALL,), want=("x",) * 31), {"limit": "calls", "value": 3, "came": 31}),
        (Request(9, (CALL,), here=("x",) * 70_000), {"limit": "calls", "value": 3, "came": 70_000}),
        (Request(9, (CALL,), idempotent=("x",) * 31), {"limit": "calls", "value": 3, "came": 31}),
        (Request(9, (CALL,), via=(b"x",) * 31), {"limit": "calls", "value": 3, "came": 31}),
        (Request(9, (CALL,), streams=("x",) * 31), {"limit": "calls", "value": 3, "came": 31}),
        (
            Request(9, (CALL,), inputs={str(number): b"" for number in range(5)}),
            {"limit": "edges", "value": 4, "came": 5},
        ),
        (
            Request(9, (CALL,), inputs={str(number): b"" for number in range(70_000)}),
            {"limit": "edges", "value": 4, "came": 70_000},
        ),
        (
            Request(9, (msgspec.structs.replace(CALL, resources=("r",) * 301),)),
            {"limit": "requested_resources", "value": 300, "came": 301},
        ),
    ],
)
def test_limits_of_other_names_before_decoding(request_: Request, details: dict[str, object]) -> None:
    for message in (request_, Explain(request_)):
        bad = decode(encode(message), EDGES)
        assert isinstance(bad, BadRequest) and bad.id == 9
        assert (bad.fault.code, bad.fault.details) == (1014, details)


def test_request_at_the_limits_of_other_names() -> None:
    names = tuple(str(number) for number in range(30))
    calls = (msgspec.structs.replace(CALL, resources=("r",) * 300),)
    request = Request(9, calls, want=names, here=names, idempotent=names, inputs=dict.fromkeys(names[:4], b""))
    assert decode(encode(request), EDGES) == request


def test_long_message_of_a_client_that_is_no_request() -> None:
    long = Gossip(tuple(Claim(b"m" * 16, number, 1) for number in range(10_000)))
    with pytest.raises(RemoteProtocolError, match="a client sends no message of kind 20") as raised:
        check_client_message(encode(long))
    assert raised.value.code == 1010
    for fine in (Request(1, (CALL,)), Explain(Request(1, (CALL,)))):
        check_client_message(encode(fine))
    for unreadable in (b"", b"\xc1", b"\x90", b"\x91\x7f"):
        check_client_message(unreadable)  # `decode` refuses these


def test_empty_name_before_the_limit_of_edges() -> None:
    bad = decode(encode(Request(9, (Call("a", "", b"\x01", ("x",) * 5),))), EDGES)
    assert isinstance(bad, BadRequest) and (bad.fault.code, bad.fault.details) == (1010, {"path": "$.cmds[0].fun"})
    few_too_many = Request(9, (Call("a", "f", b"\x01"),) * 4)
    assert decode(encode(few_too_many), EDGES) == few_too_many, "left to those who check its shape"


@pytest.mark.parametrize("wrap", [lambda request: request, Explain], ids=["request", "explain"])
def test_request_at_the_limits_of_calls_and_edges(wrap: Callable[[Request], Message]) -> None:
    calls = (Call("a", "f", b"\x01"), Call("b", "f", b"\x01", ("a",) * 3), Call("c", "f", b"\x01", ("b",)))
    request = Request(9, calls)
    assert decode(encode(wrap(request)), EDGES) == wrap(request)
