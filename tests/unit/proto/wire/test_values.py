"""Values of users as MessagePack: types that are kept, values refused with their path, and hostile bytes."""

import enum
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from io import BytesIO
from math import inf, isnan, nan
from types import MappingProxyType
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


def test_nan_and_signs_of_zero() -> None:
    assert isnan(CODEC.decode(CODEC.encode(nan)))  # type: ignore[arg-type]
    assert str(CODEC.decode(CODEC.encode(-0.0))) == "-0.0"
    assert str(CODEC.decode(CODEC.encode(Decimal("sNaN12")))) == "sNaN12"


def test_fold_of_a_time_is_kept() -> None:
    value = CODEC.decode(CODEC.encode([datetime(2024, 10, 27, 2, 30, fold=1), time(2, 30, fold=1)]))
    assert [each.fold for each in value] == [1, 1]  # type: ignore[attr-defined]


def test_offset_without_the_name_of_a_zone() -> None:
    moment = datetime(2024, 7, 1, tzinfo=PRAGUE)
    back = CODEC.decode(CODEC.encode(moment))
    assert isinstance(back, datetime)
    assert back == moment
    assert back.utcoffset() == moment.utcoffset()
    assert back.tzname() == "UTC+05:45"


def test_buffers_as_bytes() -> None:
    assert same(CODEC.decode(CODEC.encode([bytearray(b"a"), memoryview(b"b")])), [b"a", b"b"])


@pytest.mark.parametrize("value", [OrderedDict(a=(1,)), defaultdict(list, a=(1,)), Counter("aab")])
def test_dict_subclasses_as_dicts(value: dict[str, object]) -> None:
    assert same(CODEC.decode(CODEC.encode(value)), dict(value))


def test_msgpack_timestamp_as_a_datetime() -> None:
    assert CODEC.decode(msgpack.packb(msgpack.Timestamp(1))) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_equal_bytes_of_sets_in_each_process() -> None:
    program = """if True:
        from mpreg_proto.wire.values import ValueCodec
        from decimal import Decimal
        words = {"alpha", "beta", "gamma", b"delta", 1, 2.5, None, Decimal("sNaN") if False else Decimal(3)}
        nested = {frozenset({"x", "y", i, (i, frozenset({"z", str(i)}))}) for i in range(5)}
        print(ValueCodec().encode([words, nested, {(str(i), i) for i in range(9)}]).hex())
    """
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_time_of_nested_frozensets() -> None:
    value: object = 1
    for _ in range(60):
        value = frozenset({value, 2})
    assert same(CODEC.decode(CODEC.encode(value)), value)


# Unsendable values


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


class NoZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=1)


class Rude:
    def __class_getitem__(cls, item: object) -> None:
        raise RuntimeError


class Itself:
    __unsendable__ = "write its number instead"


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "path", "type_name", "why"),
    [
        (object(), "$", "object", "not registered"),
        ({"rows": [1, 2, {"x": object()}]}, "$.rows[2].x", "object", "not registered"),
        ([(1, {2: Word("x")})], "$[0][1][2]", "Word", "subclass of str"),
        ({"odd key": [Colour.RED]}, "$['odd key'][0]", "Colour", "send its .value"),
        ([Point(1, 2)], "$[0]", "Point", "named tuple"),
        ({"a": {1, object}}, "$.a{}", "type", "a class; only data"),
        ([Itself()], "$[0]", "Itself", "write its number"),
        ([BytesIO()], "$[0]", "BytesIO", "an open file; send what it holds"),
        ([iter(())], "$[0]", "tuple_iterator", "an iterator; send list(...)"),
        ([range(3)], "$[0]", "range", "send list(...)"),
        ([{1: 2}.values()], "$[0]", "dict_values", "send list(...)"),
        ([MappingProxyType({})], "$[0]", "mappingproxy", "send dict(...)"),
        ({"a": {Word("k"): 1}}, "$.a{", "Word", "subclass of str"),
        (OrderedDict(a=object()), "$.a", "object", "not registered"),
        (["ok", "\ud800"], "$[1]", "str", "half of a surrogate pair"),
        ({"\udfff": 1}, "$", "str", "half of a surrogate pair"),
        ([time(1, tzinfo=NoZone())], "$[0]", "time", "without a date"),
        ([datetime(1, 1, 1, tzinfo=timezone(timedelta(0, 0, 1)))], "$[0]", "datetime", "fractions of a second"),
        ([Ref(5)], "$[0]", "Ref", "name in a reference is text"),  # type: ignore[arg-type]
        ([Ref("a", (True,))], "$[0]", "Ref", "a step of a path"),
        ([Ref("a", (-1,))], "$[0]", "Ref", "a step of a path"),
        ([Ref("a", ("x",) * 65)], "$[0]", "Ref", "at most 64 steps"),
        ([{Ref("a")}], "$[0]", "set", "cannot be a member"),
        ([frozenset({Ref("a")})], "$[0]", "frozenset", "cannot be a member"),
        ([Ref("\ud800")], "$[0]", "Ref", "surrogates not allowed"),
    ],
)
def test_path_of_an_unsendable_value(value: object, path: str, type_name: str, why: str) -> None:
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode(value)
    assert caught.value.path.startswith(path)
    assert caught.value.type_name == type_name
    assert why in caught.value.reason
    assert caught.value.limit is None


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "dict": lambda value: {"k": value},
    "dict of collections": lambda value: OrderedDict(k=value),
    "frozenset": lambda value: frozenset({value}),
}


def nested(kind: str, levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = WRAPS[kind](value)
    return value


@pytest.mark.parametrize("kind", WRAPS)
@pytest.mark.parametrize("beside", ["", "long enough to be measured in another way" * 50])
def test_nesting_over_the_limit_when_encoded(kind: str, beside: str) -> None:
    assert CODEC.decode(CODEC.encode([beside, nested(kind, 63)])) == [beside, nested(kind, 63)]
    for levels in (64, 65, 500, 2000, 5000):
        with pytest.raises(UnsendableValue) as caught:
            CODEC.encode([beside, nested(kind, levels)])
        assert caught.value.reason == "nested deeper than 64 levels"
        assert caught.value.limit == {"limit": "nesting", "value": 64, "came": 65}
        assert caught.value.path.startswith("$[1]")


def child_and_parent(make: Callable[..., Any]) -> Any:
    """Return a parent whose two children refer to it, so that each step along the references doubles the paths."""
    parent = make()
    children = [make(), make()]
    for each in children:
        each["parent" if isinstance(each, dict) else 0] = parent
    parent["children" if isinstance(parent, dict) else 0] = children
    return parent


@dataclass
class Tree:
    parent: object = None
    children: tuple[object, ...] = ()


def tree() -> Tree:
    root = Tree()
    root.children = (Tree(root), Tree(root))
    return root


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (child_and_parent(lambda: [None]), "$[0][0][0]"),
        (child_and_parent(dict), "$.children[0].parent"),
        (child_and_parent(OrderedDict), "$.children[0].parent"),
        (child_and_parent(lambda: defaultdict(int)), "$.children[0].parent"),
        (tree(), "$.children[0].parent"),
    ],
    ids=["list", "dict", "OrderedDict", "defaultdict", "dataclass"],
)
def test_path_of_a_value_that_contains_itself(value: object, path: str) -> None:
    with pytest.raises(UnsendableValue, match="contains itself") as caught:
        CODEC.encode(value)
    assert caught.value.path == path


def test_shared_values_count_at_each_appearance() -> None:
    value: object = [1]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode(value)
    assert caught.value.limit is not None and caught.value.limit["limit"] == "containers"
    row = [0] * 1_000_000
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode([row] * 1000)
    assert caught.value.limit is not None and caught.value.limit["limit"] == "elements"


def test_counts_over_the_limits_when_encoded() -> None:
    assert CODEC.decode(CODEC.encode([0] * 1_000_000)) == [0] * 1_000_000
    for value, limit in (
        ([0] * 1_000_001, "array entries"),
        (dict.fromkeys(range(100_001)), "map entries"),
        ({"k" * 1025: 1}, "key length"),
        ({"k" * 1025: 1, 5: 2}, "key length"),
    ):
        with pytest.raises(UnsendableValue) as caught:
            CODEC.encode({"big": value})
        assert caught.value.path == "$.big"
        assert caught.value.limit is not None
        assert caught.value.limit["limit"] == limit
    CODEC.encode({"k" * 1024: 1, b"k" * 2000: 2})


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
    deep = nested("list", 3000)
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


def test_costly_input_beside_sets_and_keys() -> None:
    given = {"a": (1, 2), "b": 1 << 100}
    value = [{"k": (Ref("a"), {"x"}, {1: Ref("b")})}, {(3, frozenset({4})): Ref("a")}]
    back: Any = CODEC.decode(CODEC.encode(value), inputs=given)
    assert same(back, [{"k": ((1, 2), {"x"}, {1: 1 << 100})}, {(3, frozenset({4})): (1, 2)}])
    assert back[0]["k"][0] is given["a"]


# Hostile bytes


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
    import tracemalloc

    bomb = (b"\xdd" + (1_000_000).to_bytes(4, "big")) * 500 + b"\x01" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(MalformedValue, match="too early"):
            CODEC.decode(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(bomb)


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


def test_many_keys_of_odd_types() -> None:
    value = {"grid": {(x, y): 1 for x in range(100) for y in range(100)}, "set": {Decimal(n) / 7 for n in range(5000)}}
    assert same(CODEC.decode(CODEC.encode(value)), value)


# The registry


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


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


# Values at and over the limits


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_entries_at_the_limit(kind: Callable[[Any], Any]) -> None:
    value = kind(range(1_000_000))
    assert CODEC.decode(CODEC.encode(value)) == value
    with pytest.raises(UnsendableValue, match="1000001 entries"):
        CODEC.encode(kind(range(1_000_001)))


def test_keys_of_one_hash_at_the_limit() -> None:
    for count, fits in ((64, True), (65, False)):
        keys = [number * ((1 << 61) - 1) << 61 for number in range(1, count + 1)]
        for value in ([set(keys)], {"k": dict.fromkeys(keys)}, ((frozenset(keys),),), OrderedDict(a=set(keys))):
            if fits:
                assert CODEC.decode(CODEC.encode(value)) == value
                continue
            with pytest.raises(UnsendableValue) as caught:
                CODEC.encode(value)
            assert caught.value.limit == {"limit": "same hash", "value": 64, "came": 65}


def test_containers_over_the_limit() -> None:
    row = b"\xdd" + (1 << 17).to_bytes(4, "big") + b"\x90" * (1 << 17)
    with pytest.raises(MalformedValue) as caught:
        CODEC.decode(b"\x99" + row * 9)
    assert caught.value.limit is not None and caught.value.limit["limit"] == "containers"
    row = b"\xdd" + (100_000).to_bytes(4, "big") + b"\x90" * 100_000
    assert len(CODEC.decode(b"\x9a" + row * 10)) == 10  # type: ignore[arg-type]
