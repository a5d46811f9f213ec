"""The messages: equal after a round trip, with fixed type numbers, and with arrays that grow only at the end."""

import typing

import msgspec
import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.wire.messages import (
    BucketHashes,
    Call,
    CallProgress,
    CancelRequest,
    Change,
    Claim,
    Credit,
    Delta,
    DialBack,
    Digest,
    Done,
    Drain,
    DrainReply,
    Explain,
    Explained,
    Explanation,
    Failed,
    Fetch,
    GetView,
    Goodbye,
    Gossip,
    Head,
    Hello,
    IndirectAck,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Message,
    Ping,
    PingReq,
    Pong,
    Pull,
    Refused,
    Request,
    Result,
    Traced,
    View,
)

decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
CALL = Call("x", "f", b"\x92\x90\x80", ("a",), ("r",), "2")
HEAD = Head(b"m" * 16, 3, b"h" * 16)
EACH: dict[int, Message] = {
    1: Hello((1, 2), ("f",), "c", b"m" * 16, "n"),
    2: Refused(Fault(1040, "why", {"mine": [1, 1]})),
    3: Ping(2**64 - 1),
    4: Pong(0),
    5: Goodbye("why"),
    10: Request(
        7, (CALL,), 5, ("x",), ("x",), {"a": b"\x01"}, 9, True, True, True, 2, "me", ("x",), b"t" * 16, (b"v" * 16,),
        True, 8, True, ("x",), {"x": "a"},
    ),
    11: Result(
        7, (Done("x", b"\x01", 2, 3),), (Failed("y", Fault(1003, ""), True, 4, 5),), False, Fault(1003, ""), 6,
        (Traced("x", "n#1", 1, 2, 3, 4, 5, "why"),),
    ),
    12: CancelRequest(7),
    13: Explain(Request(7, (CALL,))),
    14: Explanation(7, (Explained("x", "f", ("n",), "why", (("m", "busy"),)),), Fault(1001, "")),
    15: GetView(1),
    16: View(1, b"{}"),
    17: Credit("f"),
    20: Gossip(
        (Claim(b"m" * 16, 1, 1, b"card", (b"n" * 16,)),), (Delta(HEAD, 0, (Change(1, "f:x", b""),)),), (HEAD,), True
    ),
    21: Digest((Claim(b"m" * 16, 1, 0),), (HEAD,), bytes(32)),
    22: Fetch(b"m" * 16, 0),
    23: BucketHashes(bytes(2048)),
    24: Pull((Claim(b"m" * 16, -1, 0),), (HEAD,)),
    25: DialBack(b"m" * 16, b"n" * 16, (b"o" * 16,)),
    26: PingReq(b"m" * 16),
    27: IndirectAck(b"m" * 16),
    30: Drain(7, "till", b"m" * 16, (b"n" * 16,)),
    31: DrainReply(7, b"m" * 16, "till#6d6d", "sent", Fault(1010, "")),
    32: CallProgress(7, "x", "f", "n#1", 3, 4.5, "step"),
    33: Items(7, "x", (b"\x01", b"\x02")),
    34: ItemsTaken(7, "x", 8),
    35: InputItems(7, "x", (b"\x01", b"\x02"), last=True),
    36: InputTaken(7, "x", 8),
}  # fmt: skip


def test_type_number_of_each_message() -> None:
    kinds = {kind.__struct_config__.tag: kind for kind in typing.get_args(Message)}
    assert {number: type(message) for number, message in EACH.items()} == kinds


@pytest.mark.parametrize("kind", EACH)
def test_round_trip_of_each_message(kind: int) -> None:
    data = msgspec.msgpack.encode(EACH[kind])
    assert decoder.decode(data) == EACH[kind]
    assert msgspec.msgpack.decode(data)[0] == kind


@pytest.mark.parametrize("kind", EACH)
def test_unknown_fields_at_the_end_are_ignored(kind: int) -> None:
    loose = msgspec.msgpack.decode(msgspec.msgpack.encode(EACH[kind]))
    newer = msgspec.msgpack.encode([*loose, {"new": [1, 2]}, None])
    assert decoder.decode(newer) == EACH[kind]


@pytest.mark.parametrize(
    ("least", "message"),
    [
        ([10, 1, []], Request(1, ())),
        ([11, 1], Result(1)),
        ([14, 1], Explanation(1)),
        ([20], Gossip()),
        ([10, 1, [["x", "f", b""]]], Request(1, (Call("x", "f", b""),))),
        ([11, 1, [["x", b""]], [["y", [1003, ""]]]], Result(1, (Done("x", b""),), (Failed("y", Fault(1003, "")),))),
    ],
)
def test_defaults_of_omitted_fields(least: list[object], message: Message) -> None:
    assert decoder.decode(msgspec.msgpack.encode(least)) == message


@pytest.mark.parametrize("kind", EACH)
def test_messages_are_frozen_arrays(kind: int) -> None:
    message = EACH[kind]
    field = message.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(message, field, None)
    assert message.__struct_config__.array_like and message.__struct_config__.frozen


def test_defaults_of_last_and_refused() -> None:
    assert Result(1).last and not Failed("x", Fault(1003, "")).refused
