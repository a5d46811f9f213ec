"""Values of users as MessagePack: types that are kept, references, and the registry."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import inf
from typing import Any

import msgpack
import pytest

from mpreg_proto.wire.values import (
    MalformedValue,
    MissingReference,
    PathNotFound,
    Ref,
    UnsendableValue,
    ValueCodec,
)

CODEC = ValueCodec()
PRAGUE = timezone(timedelta(hours=5, minutes=45), "somewhere")


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal and of the same types at all levels."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, (set, frozenset)):
        return bool(left == right) and sorted(map(str, map(type, left))) == sorted(map(str, map(type, right)))
    return bool(left == right)


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, 1, -1, 1.0, -0.0, inf, -inf, "", "žluťoučký 🐎", b"", b"\x00\xff",
        2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**30, -(10**30), 1 << 100_000, -(1 << 127), 1 << 127,
        [], {}, [1, 1.0, True], {"a": {"b": [None]}}, {1: 2, None: 3, b"k": 4, 2.5: 5, (1, (2, "x")): 6},
        (), (1,), ((), ((),)), [(1, [2, (3,)])], {"k": (1, 2)},
        set(), {1, 2}, {"a", 1, None}, frozenset(), frozenset({1, (2, 3)}), {frozenset({1}), frozenset({2, 3})},
        1j, complex(-0.0, inf), Decimal("1.10"), Decimal("-0"), Decimal("1E+999999"), Decimal("Infinity"),
        datetime(2024, 2, 29, 1, 2, 3, 4), datetime(2024, 2, 29, tzinfo=UTC), datetime(1, 1, 1, tzinfo=PRAGUE),
        datetime.max, date(2024, 2, 29), date.min, time(1, 2, 3, 4), time(23, 59, tzinfo=PRAGUE), time(0),
        timedelta(0), timedelta(-1, 1, 1), timedelta.max, timedelta.min,
        Ref("a"), Ref("", ()), Ref("ž", ("key", 0, "", 2**62)), [Ref("a"), (Ref("b"),)],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_round_trip_of_values(value: object) -> None:
    data = CODEC.encode(value)
    assert same(CODEC.decode(data), value)
    assert same(CODEC.decode(memoryview(data)), value)
    assert same(CODEC.decode(bytearray(data)), value)
    assert same(CODEC.decode(CODEC.encode([value] * 300)), [value] * 300)


def test_buffers_as_bytes() -> None:
    assert same(CODEC.decode(CODEC.encode([bytearray(b"a"), memoryview(b"b")])), [b"a", b"b"])


@pytest.mark.parametrize("value", [OrderedDict(a=(1,)), defaultdict(list, a=(1,)), Counter("aab")])
def test_dict_subclasses_as_dicts(value: dict[str, object]) -> None:
    assert same(CODEC.decode(CODEC.encode(value)), dict(value))


def test_time_of_nested_frozensets() -> None:
    value: object = 1
    for _ in range(60):
        value = frozenset({value, 2})
    assert same(CODEC.decode(CODEC.encode(value)), value)


# References


def test_inputs_are_shared() -> None:
    given = {"a": {"rows": [[1], (2, 3)]}, "b": (4,), "c": {5}, "d": None}
    data = CODEC.encode(
        [Ref("a"), {"x": Ref("a", ("rows", 1, 0))}, (Ref("b"),), Ref("c"), Ref("d"), Ref("a", ("rows", 0))]
    )
    value: Any = CODEC.decode(data, inputs=given)
    assert value == [given["a"], {"x": 2}, ((4,),), {5}, None, [1]]
    assert value[0] is given["a"]
    assert value[2][0] is given["b"]
    assert value[3] is given["c"]
    assert value[5] is given["a"]["rows"][0]  # type: ignore[index]


def test_inputs_are_not_traversed() -> None:
    deep: object = 1
    for _ in range(3000):
        deep = [deep]
    big = [0] * 1_000_001
    refs = {"a": Ref("a"), "rest": ["long enough to be measured"] * 100, "b": Ref("b"), "t": ()}
    value: Any = CODEC.decode(CODEC.encode(refs), inputs={"a": deep, "b": big})
    assert value["a"] is deep
    assert value["b"] is big


def test_missing_reference() -> None:
    with pytest.raises(MissingReference) as caught:
        CODEC.decode(CODEC.encode([Ref("a"), (Ref("b"),)]), inputs={"a": 1})
    assert caught.value.name == "b"


@pytest.mark.parametrize(
    ("path", "position"),
    [
        (("x",), 0), ((0,), 0), (("rows", 2), 1), (("rows", "0"), 1), (("rows", 0, 0), 2), (("text", 0), 1),
        (("none", "x"), 1), (("ints", 5), 1),
    ],
)  # fmt: skip
def test_unknown_path_of_a_reference(path: tuple[str | int, ...], position: int) -> None:
    given = {"a": {"rows": [1, 2], "text": "abc", "none": None, "ints": {5: 1}}}
    with pytest.raises(PathNotFound) as caught:
        CODEC.decode(CODEC.encode([Ref("a", path)]), inputs=given)
    assert (caught.value.name, caught.value.path, caught.value.position) == ("a", path, position)


def test_reference_to_text_or_a_list_as_a_key() -> None:
    data = msgpack.packb({msgpack.ExtType(1, b"a"): 1}, use_bin_type=True)
    assert CODEC.decode(data, inputs={"a": "key"}) == {"key": 1}
    with pytest.raises(MalformedValue):
        CODEC.decode(data, inputs={"a": []})


def test_costly_input_beside_sets_and_keys() -> None:
    given = {"a": (1, 2), "b": 1 << 100}
    value = [{"k": (Ref("a"), {"x"}, {1: Ref("b")})}, {(3, frozenset({4})): Ref("a")}]
    back: Any = CODEC.decode(CODEC.encode(value), inputs=given)
    assert same(back, [{"k": ((1, 2), {"x"}, {1: 1 << 100})}, {(3, frozenset({4})): (1, 2)}])
    assert back[0]["k"][0] is given["a"]


def test_many_keys_of_odd_types() -> None:
    value = {"grid": {(x, y): 1 for x in range(100) for y in range(100)}, "set": {Decimal(n) / 7 for n in range(5000)}}
    assert same(CODEC.decode(CODEC.encode(value)), value)


# The registry


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


class Rude:
    def __class_getitem__(cls, item: object) -> None:
        raise RuntimeError


class Blob:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)


@pytest.fixture
def codec() -> ValueCodec:
    made = ValueCodec()
    made.register(32, Pair, lambda pair: [pair.left, pair.right], lambda held: Pair(*held))
    made.register(127, Blob, lambda blob: blob.data, Blob, json=lambda blob: {"size": len(blob.data)})
    return made


@pytest.mark.parametrize(
    "value",
    [
        Pair(1, 2), Pair((1,), {2}), Pair(Pair(1, Blob(b"")), Blob(b"x")),
        [Blob(b"")], [Blob(b""), 1], {Pair(1, 2): Blob(b"y")},
        {Blob(b"1"), Blob(b"2"), Pair(1, 1)},
    ],
)  # fmt: skip
def test_registered_types(codec: ValueCodec, value: object) -> None:
    assert same(codec.decode(codec.encode(value)), value)


def test_references_in_registered_types(codec: ValueCodec) -> None:
    given = {"a": [1]}
    value: Any = codec.decode(codec.encode(Pair(Ref("a"), 2)), inputs=given)
    assert value.left is given["a"]


def test_costly_inputs_in_registered_types(codec: ValueCodec) -> None:
    given = {"a": (1, 2)}
    assert codec.decode(codec.encode([Pair(Ref("a"), Blob(b"x"))]), inputs=given) == [Pair((1, 2), Blob(b"x"))]
    beside = [Ref("a"), {Pair(n, (n, {"k": 1}["k"])): n for n in range(200)}, {Pair(1, Pair(2, 3))}]
    assert codec.decode(codec.encode(beside), inputs=given) == [(1, 2), *beside[1:]]
    for key in (Pair(Ref("a"), 1), Pair((1, Ref("a")), 1), (1, Pair(1, Pair(2, Ref("a"))))):
        for value in ({key: 1}, [{(key,): 1}], {n if n else key: n for n in range(100)}):
            with pytest.raises(MalformedValue, match="in a key or in a set"):
                codec.decode(codec.encode(value), inputs=given)


def test_type_that_is_not_registered(codec: ValueCodec) -> None:
    for value in (Pair(1, 2), Blob(b"")):
        with pytest.raises(MalformedValue, match="not known here"):
            CODEC.decode(codec.encode(value))


def test_nesting_of_registered_types(codec: ValueCodec) -> None:
    def tower(levels: int) -> Pair:
        value: object = 1
        for _ in range(levels):
            value = Pair(value, 2)
        return value  # type: ignore[return-value]

    assert codec.decode(codec.encode(tower(32))) == tower(32)
    for levels in (33, 300, 600):
        with pytest.raises(UnsendableValue) as caught:
            codec.encode(tower(levels))
        assert caught.value.limit is not None
    hostile = b"\x92\xd4\x03\x20\x92" * 600 + b"\x01" * 601
    with pytest.raises(MalformedValue) as refused:
        codec.decode(hostile)
    assert refused.value.limit is not None


def test_faults_in_registered_types(codec: ValueCodec) -> None:
    with pytest.raises(UnsendableValue) as caught:
        codec.encode({"p": Pair(1, object())})
    assert caught.value.path == "$.p[1]"
    for data in (b"\xd4\x20\x05", b"\x91\xd4\x03\x20", b"\x92\xd4\x03\x20\x01", b"\x93\xd4\x03\x20\x01\x02"):
        with pytest.raises(MalformedValue):
            codec.decode(data)

    def fail(value: object) -> object:
        raise KeyError("not today")

    class Failing:
        pass

    codec.register(33, Failing, fail, fail)
    with pytest.raises(UnsendableValue, match="not today") as caught:
        codec.encode([1, Failing()])
    assert caught.value.path == "$[1]"
    with pytest.raises(MalformedValue):
        codec.decode(b"\xd4\x21\x00")


def test_registered_type_that_calls_its_codec() -> None:
    codec = ValueCodec()

    def read(data: bytes) -> Pair:
        left, right = codec.decode(data)  # type: ignore[misc]
        return Pair(left, right)

    codec.register(40, Pair, lambda pair: codec.encode([pair.left, pair.right]), read)
    assert codec.decode(codec.encode([1, Pair(Pair(1, (2,)), 3), 4])) == [1, Pair(Pair(1, (2,)), 3), 4]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (31, Rude),
        (128, Rude),
        (0, Rude),
        (32, Rude),
        (40, Pair),
        (40, dict),
        (40, int),
        (40, datetime),
        (40, Ref),
        (40, bool),
    ],
)
def test_refused_registrations(codec: ValueCodec, code: int, kind: type) -> None:
    with pytest.raises(ValueError):
        codec.register(code, kind, str, str)
    assert codec.decode(codec.encode([Pair(1, 2), Blob(b"x")])) == [Pair(1, 2), Blob(b"x")]
    with pytest.raises(UnsendableValue):
        codec.encode(Rude())
