"""Decoding of values: malformed bytes, counts and nesting over the limits, forged hashes, and costly references."""

import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from msgpack.exceptions import OutOfData, StackError

from mpreg_proto.wire.decode import (
    SMALL,
    MalformedValue,
    count,
    is_flat,
    malformed,
    references,
    refuse_oversized_headers,
    skip,
)
from mpreg_proto.wire.value_limits import MAX_ARRAY, MAX_CONTAINERS, MAX_DEPTH, MAX_MAP, ValueTooLarge
from mpreg_proto.wire.values import Ref, ValueCodec

CODEC = ValueCodec()


def test_msgpack_timestamp_as_a_datetime() -> None:
    assert CODEC.decode(msgpack.packb(msgpack.Timestamp(1))) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", [b"\x0c", b"\x0d"])
def test_reference_in_a_set_is_malformed(kind: bytes) -> None:
    with pytest.raises(MalformedValue, match="a reference cannot be a member of a set"):
        CODEC.decode(b"\x92\xd4\x03" + kind + b"\xd4\x01b")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x91", b"\x01\x01", b"\xa2\xff\xff", b"\xa3\xed\xa0\x80",
        b"\x81\x91\x01\x02", b"\x81\x81\x01\x02\x03",
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01",
        b"\xd6\xff\xff\xff\xff", b"\xc7\x03\xff\xff\xff\xff", b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7,
        b"\xd4\x0e\x00", b"\xd4\x20\x00", b"\xd4\x80\x00", b"\xd4\x00\x00",  # unknown codes
        b"\xd4\x01\xff", b"\xd4\x02\xc0", b"\xd5\x02\x91\xa0", b"\xc7\x03\x02\x92\xa0\xc3", b"\xc7\x03\x02\x92\xa0\xff",
        b"\xd4\x05\x00", b"\xd4\x06x", b"\xd4\x06\xb2", b"\xd4\x07x", b"\xd4\x08f", b"\xd4\x09f", b"\xd4\x0a\x00",
        b"\xc7\x0c\x0a\x7f\xff\xff\xff" + b"\x00" * 8,
        b"\xd4\x03\x0b", b"\x91\x91\xd4\x03\x20", b"\x92\x01\xd4\x03\x0b", b"\x92\xd4\x03\x0b\xd4\x03\x0b",
        b"\x81\xd4\x03\x0b\x01",
        b"\x91\xd4\x03\x00", b"\x91\xd5\x03\x0b\x0b", b"\x91\xc7\x00\x03", b"\x82\x01\xd4\x03\x0b\x01\x02",
        b"\x92\xd4\x03\x0c\x90", b"\x92\xd4\x03\x0d\x80",
    ],
)  # fmt: skip
def test_malformed_bytes(data: bytes) -> None:
    with pytest.raises(MalformedValue):
        CODEC.decode(data)
    with pytest.raises(MalformedValue):
        CODEC.decode(b"\x93\x01" + data + b"\xda\x08\x00" + b"x" * 2048)
    with pytest.raises(MalformedValue):
        CODEC.decode(data, inputs={})


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x91\xd4\x03\x0b", ()),
        (b"\x93\xd4\x03\x0b\x01\x02", (1, 2)),
        (b"\x93\xd4\x03\x0c\x01\x02", {1, 2}),
        (b"\x92\xd4\x03\x0d\x92\xd4\x03\x0b\x01", frozenset({(1,)})),
        (b"\x92\x90\x92\xd4\x03\x0b\x81\xa1k\x91\xd4\x03\x0c", [[], ({"k": set()},)]),
    ],
)
def test_arrays_that_begin_with_a_mark(data: bytes, value: object) -> None:
    for back in (CODEC.decode(data), CODEC.decode(memoryview(data), inputs={})):
        assert back == value and type(back) is type(value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x92\xda\x08\x00" + b"x" * 2048, "the bytes end too early"),
        (b"\x01\x01", "bytes after the value"),
        (b"\xdd\xff\xff\xff\xff", "the bytes end too early"),
        (b"\xd4\x20\x00", "extension type 32 is not known here"),
        (b"\x92\xd4\x03\x20\x01", "extension type 32 is not known here"),
        (b"\x92\x01\xd4\x03\x0b", "a mark that no array begins with"),
        (b"\xd4\x03\x0c", "a mark that no array begins with"),
        (b"\x92\xd4\x03\x0c\xd4\x01b", "a reference cannot be a member of a set"),
    ],
)
def test_reason_of_malformed_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(data)
    assert (caught.value.reason, str(caught.value), caught.value.limit) == (reason, reason, None)


@pytest.mark.parametrize(
    ("error", "size", "reason", "limit"),
    [
        (OutOfData(), 9, "the bytes end too early", None),
        (msgpack.exceptions.ExtraData(1, b"x"), 9, "bytes after the value", None),
        (StackError(), 9, "nested deeper than 64 levels", ("nesting", MAX_DEPTH, MAX_DEPTH + 1)),
        (RecursionError("deep"), 9, "nested deeper than 64 levels", ("nesting", MAX_DEPTH, MAX_DEPTH + 1)),
        (ValueTooLarge("key length", 4, 5), 9, "a key of 5 characters is over the limit of 4", ("key length", 4, 5)),
        (ValueError("7 exceeds max_array_len(6)"), 6, "the bytes end too early", None),
        (
            ValueError(f"{MAX_MAP + 1} exceeds max_map_len({MAX_MAP})"),
            2 * MAX_MAP + 2,
            f"a map of {MAX_MAP + 1} entries is over the limit of {MAX_MAP}",
            ("map entries", MAX_MAP, MAX_MAP + 1),
        ),
        (ValueError(f"{MAX_ARRAY + 2} exceeds max_array_len"), MAX_ARRAY + 1, "the bytes end too early", None),
        (ValueError("month must be in 1..12"), 9, "ValueError: month must be in 1..12", None),
        (ValueError(), 9, "ValueError", None),
    ],
)
def test_malformed_value_for_an_error_of_decoding(
    error: Exception, size: int, reason: str, limit: tuple[str, int, int] | None
) -> None:
    found = malformed(error, size)
    assert found.reason == reason
    assert found.limit == (None if limit is None else dict(zip(("limit", "value", "came"), limit, strict=True)))


# -- bytes that are inspected before they are decoded -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "flat"),
    [
        (b"\x91" * (MAX_DEPTH - 1) + b"\x01", True),  # too short for another level
        (b"\x91" * MAX_DEPTH + b"\x01", True),
        (b"\x91" * (MAX_DEPTH + 1) + b"\x01", False),
        (b"\x80" * MAX_DEPTH + b"\xdc" + bytes(2), False),
        (b"\xc4\xff" + b"\x91" * 255, False),  # content of bytes counts as well
        (bytes(SMALL), True),
        (bytes(SMALL + 1), False),  # may hold a key that is too long
    ],
)
def test_flat_bytes(data: bytes, flat: bool) -> None:
    assert is_flat(data, len(data)) is flat
    assert is_flat(memoryview(data), len(data)) is flat


def test_skip_returns_the_length_of_the_first_value() -> None:
    data = CODEC.encode([1, {"k": (2, 3)}])
    assert skip(data, len(data)) == skip(data + b"\x01", len(data) + 1) == len(data)
    for size in range(len(data)):
        with pytest.raises(OutOfData):
            skip(data[:size], size)


@pytest.mark.parametrize(
    ("value", "elements"),
    [(1, 0), ([], 0), ([1, 2], 2), ((1, 2), 2), ({5}, 1), ({"k": 1, "l": [2, 3]}, 6), ([(1, 2), {}], 4)],
)
def test_count_of_elements(value: object, elements: int) -> None:
    data = CODEC.encode(value)
    assert count(data, len(data)) == elements


def test_count_of_containers_at_the_limit() -> None:
    def nested(containers: int) -> bytes:
        half = (containers - 3) // 2
        return b"\x92" + b"".join(
            b"\xdd" + size.to_bytes(4, "big") + b"\x90" * size for size in (half, containers - 3 - half)
        )

    data = nested(MAX_CONTAINERS)
    refuse_oversized_headers(data, len(data))
    data = nested(MAX_CONTAINERS + 1)
    with pytest.raises(ValueTooLarge) as caught:
        refuse_oversized_headers(data, len(data))
    assert caught.value.details == {"limit": "containers", "value": MAX_CONTAINERS, "came": MAX_CONTAINERS + 1}


def test_uses_of_each_reference() -> None:
    value = [Ref("a"), {"k": (Ref("a"), 1 << 70)}, Ref("b", ("x", 0)), "a"]
    assert references(CODEC.encode(value)) == {Ref("a"): 2, Ref("b", ("x", 0)): 1}
    assert references(CODEC.encode([Ref("a")] * 1000)) == {Ref("a"): 1000}
    assert references(CODEC.encode("a")) == {}
    with pytest.raises(OutOfData):
        references(b"\xdd\x00\x0f\x00\x00" + bytes(SMALL))


# -- values over the limits -------------------------------------------------------------------------------------------

MARKED_TUPLE = b"\x92\xd4\x03\x0b"


@pytest.mark.parametrize("header", [b"\x91", b"\x81\x01", MARKED_TUPLE, b"\x92\xd4\x03\x0d", b"\x81" + MARKED_TUPLE])
@pytest.mark.parametrize("levels", [65, 300, 600, 1000, 1500, 100_000])
def test_nesting_over_the_limit_when_decoded(header: bytes, levels: int) -> None:
    ends = b"\x01" * (levels if header[-4:] == MARKED_TUPLE and header[:1] == b"\x81" else 0)
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(header * levels + b"\x01" + ends)
    assert caught.value.limit == {"limit": "nesting", "value": 64, "came": 65}


def test_counts_over_the_limits_when_decoded() -> None:
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(b"\xdd" + (1_000_001).to_bytes(4, "big") + b"\x01" * 1_000_001)
    assert caught.value.limit == {"limit": "array entries", "value": 1_000_000, "came": 1_000_001}
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(b"\xdf" + (100_001).to_bytes(4, "big") + b"\x01\x01" * 100_001)
    assert caught.value.limit == {"limit": "map entries", "value": 100_000, "came": 100_001}
    for data in (msgpack.packb({"k" * 1025: 1}), msgpack.packb([{"k" * 1025: 1}, msgpack.ExtType(4, b"\x01")])):
        with pytest.raises(MalformedValue) as caught:
            CODEC.decode(data)
        assert caught.value.limit == {"limit": "key length", "value": 1024, "came": 1025}


def test_announced_arrays_are_not_allocated() -> None:
    bomb = (b"\xdd" + (1_000_000).to_bytes(4, "big")) * 500 + b"\x01" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(MalformedValue, match="too early"):
            CODEC.decode(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(bomb)


def test_containers_over_the_limit() -> None:
    row = b"\xdd" + (1 << 17).to_bytes(4, "big") + b"\x90" * (1 << 17)
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(b"\x99" + row * 9)
    assert caught.value.limit is not None and caught.value.limit["limit"] == "containers"
    row = b"\xdd" + (100_000).to_bytes(4, "big") + b"\x90" * 100_000
    assert len(CODEC.decode(b"\x9a" + row * 10)) == 10  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "keys",
    [
        [complex(1000003 * n, -n) for n in range(20_000)],
        [((1 << 61) - 1) * (n + (1 << 64)) for n in range(20_000)],
        [Decimal(((1 << 61) - 1) * (n + (1 << 64))) for n in range(20_000)],
    ],
    ids=["complex", "large integers", "Decimal"],
)
def test_keys_with_forged_hashes(keys: list[object]) -> None:
    assert len(set(map(hash, keys))) < 10
    as_list = CODEC.encode(keys)
    assert CODEC.decode(as_list) == keys
    packed = [CODEC.encode(key) for key in keys]
    with pytest.raises(MalformedValue, match="have the same hash"):
        CODEC.decode(b"\xde" + len(keys).to_bytes(2, "big") + b"".join(each + b"\xc0" for each in packed))
    with pytest.raises(MalformedValue, match="have the same hash"):
        CODEC.decode(b"\xdc" + (len(keys) + 1).to_bytes(2, "big") + b"\xd4\x03\x0c" + b"".join(packed))


@pytest.mark.parametrize(
    "huge", [tuple(range(100_000)), frozenset(range(100_000)), 1 << 800_000], ids=["tuple", "frozenset", "int"]
)
@pytest.mark.parametrize("wrap", [lambda ref: ref, lambda ref: [msgpack.ExtType(3, b"\x0b"), ref]])
def test_costly_input_in_keys_or_sets_is_refused(huge: object, wrap: Any) -> None:
    ref = msgpack.ExtType(1, b"a")
    as_set = msgpack.packb([msgpack.ExtType(3, b"\x0c"), *[wrap(ref)] * 50_000])
    with pytest.raises(MalformedValue, match="in a key or in a set"):
        CODEC.decode(as_set, inputs={"a": huge})
    pair = msgpack.packb(wrap(ref)) + b"\xc0"
    with pytest.raises(MalformedValue, match="in a key or in a set"):
        CODEC.decode(b"\xde\xc3\x50" + pair * 50_000, inputs={"a": huge})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        *[(data, "the bytes end too early") for data in (b"", b"\x92\x01", b"\xc4\x10ab", b"\xda", b"\xc4\xffab")],
        (b"\xc5\x08\x00" + b"x" * 2000, "the bytes end too early"),
        (b"\xc1", "a byte that begins no value (0xc1)"),
        (b"\x01\x02", "bytes after the value"),
    ],
)
def test_reason_for_malformed_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedValue) as raised:
        CODEC.decode(data)
    assert raised.value.reason == reason
