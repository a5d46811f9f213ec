"""The limits of a value: nesting, counts, keys of one hash; the order of sets; and the steps of a path."""

import subprocess
import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from msgpack import ExtType, Timestamp

from mpreg_proto.wire import value_limits
from mpreg_proto.wire.value_limits import (
    MAX_ARRAY,
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_KEY,
    MAX_MAP,
    MAX_SAME_HASH,
    ArrayMarker,
    Unencodable,
    ValueTooLarge,
    foreign_fault,
    is_small,
    measure,
    measure_one,
    order_key,
    ordered,
    refuse_repetition,
    refuse_same_hash,
    step,
)
from mpreg_proto.wire.values import UnsendableValue, ValueCodec

CODEC = ValueCodec()


def same_hash(count: int) -> list[int]:
    """Return integers that all have the hash 0."""
    return [number * ((1 << 61) - 1) << 61 for number in range(1, count + 1)]


# -- values at and over the limits when encoded -----------------------------------------------------------------------

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


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_entries_at_the_limit(kind: Callable[[Any], Any]) -> None:
    value = kind(range(1_000_000))
    assert CODEC.decode(CODEC.encode(value)) == value
    with pytest.raises(UnsendableValue, match="1000001 entries"):
        CODEC.encode(kind(range(1_000_001)))


def test_keys_of_one_hash_at_the_limit() -> None:
    for count, fits in ((64, True), (65, False)):
        keys = same_hash(count)
        for value in ([set(keys)], {"k": dict.fromkeys(keys)}, ((frozenset(keys),),), OrderedDict(a=set(keys))):
            if fits:
                assert CODEC.decode(CODEC.encode(value)) == value
                continue
            with pytest.raises(UnsendableValue) as caught:
                CODEC.encode(value)
            assert caught.value.limit == {"limit": "same hash", "value": 64, "came": 65}


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


# -- the checks themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "fits", "over"),
    [
        ("nesting", nested("list", MAX_DEPTH), nested("list", MAX_DEPTH + 1)),
        ("nesting", nested("frozenset", MAX_DEPTH), nested("frozenset", MAX_DEPTH + 1)),
        ("map entries", dict.fromkeys(range(MAX_MAP)), dict.fromkeys(range(MAX_MAP + 1))),
        ("array entries", [0] * MAX_ARRAY, [0] * (MAX_ARRAY + 1)),
        ("key length", {"k" * MAX_KEY: 1}, {"k" * (MAX_KEY + 1): 1}),
        ("same hash", set(same_hash(MAX_SAME_HASH)), set(same_hash(MAX_SAME_HASH + 1))),
    ],
    ids=lambda value: value if type(value) is str else type(value).__name__,
)
def test_measure_at_each_limit(limit: str, fits: object, over: object) -> None:
    assert measure(fits) == set()
    with pytest.raises(ValueTooLarge) as caught:
        measure(over)
    details = caught.value.details
    assert (details["limit"], details["came"]) == (limit, details["value"] + 1)  # type: ignore[operator]
    assert str(details["value"]) in str(caught.value)


def test_depth_of_the_containers_around_a_value() -> None:
    measure([], MAX_DEPTH - 1)
    with pytest.raises(ValueTooLarge, match="nested deeper than 64 levels"):
        measure([], MAX_DEPTH)
    measure(1, MAX_DEPTH)


def test_counts_of_containers_and_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    value = [[1, 2], {"a": (3,)}, {4}]  # 5 containers; 3 + 2 + 2 + 1 + 1 elements
    monkeypatch.setattr(value_limits, "MAX_CONTAINERS", 5)
    monkeypatch.setattr(value_limits, "MAX_ELEMENTS", 9)
    measure(value)
    for name, bound, limit in (("MAX_CONTAINERS", 4, "containers"), ("MAX_ELEMENTS", 8, "elements")):
        with monkeypatch.context() as patch:
            patch.setattr(value_limits, name, bound)
            with pytest.raises(ValueTooLarge) as caught:
                measure(value)
            assert caught.value.details == {"limit": limit, "value": bound, "came": bound + 1}


def test_measure_returns_rare_types_of_keys_and_members() -> None:
    assert measure({"a": 1, 2: b"x", None: 2.5}) == set()
    assert measure([{1j: 1}, {complex(1, 2), "x"}, {(1, array): 1j}]) == {complex, type}


@pytest.mark.parametrize(
    ("value", "small"),
    [
        (1, True),
        ("x" * 10_000, True),
        (1j, False),
        ([0] * 63, True),
        ([0] * 64, False),
        ([[]] * 31, True),
        ([[]] * 32, False),
        ({"k": (1, [2])}, True),
        ([{(1,): 2}], False),
        ([{1}], False),
    ],
)
def test_small_values(value: object, small: bool) -> None:
    assert is_small(value) is small


def test_one_map_at_its_limits() -> None:
    measure_one({"k" * MAX_KEY: 1, b"k" * 2 * MAX_KEY: 2})
    measure_one(dict.fromkeys(range(MAX_MAP)))
    for value, limit in (({"k" * (MAX_KEY + 1): 1}, "key length"), (dict.fromkeys(range(MAX_MAP + 1)), "map entries")):
        with pytest.raises(ValueTooLarge) as caught:
            measure_one(value)
        assert caught.value.details["limit"] == limit


def test_mark_is_no_entry() -> None:
    measure_one([ArrayMarker(tuple), *[0] * MAX_ARRAY])
    with pytest.raises(ValueTooLarge) as caught:
        measure_one([ArrayMarker(tuple), *[0] * (MAX_ARRAY + 1)])
    assert caught.value.details == {"limit": "array entries", "value": MAX_ARRAY, "came": MAX_ARRAY + 1}


def test_repetition_that_a_few_objects_hide() -> None:
    value: object = []
    for _ in range(19):
        value = [value, value]
    refuse_repetition([value])  # 2**20 containers
    with pytest.raises(ValueTooLarge) as caught:
        refuse_repetition([value, []])
    assert caught.value.details == {"limit": "containers", "value": MAX_CONTAINERS, "came": MAX_CONTAINERS + 1}
    circle: list[object] = []
    circle.append({"k": circle})
    with pytest.raises(ValueTooLarge, match="nested deeper"):
        refuse_repetition(circle)


def test_keys_whose_hash_cannot_be_forged() -> None:
    texts = [str(number) for number in range(1000)]
    refuse_same_hash(texts)
    refuse_same_hash([number * ((1 << 61) - 1) for number in range(8)] + list(range(1000)))
    with pytest.raises(ValueTooLarge, match="65 keys of one map or members of one set have the same hash"):
        refuse_same_hash([*texts, *same_hash(65)])
    refuse_same_hash([*texts, *same_hash(64)])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (ExtType(5, b""), "a type of msgpack's own; send the value that it stands for"),
        (Timestamp(1), "a type of msgpack's own; send the value that it stands for"),
        (memoryview(array("i", [1])), "a view of items of format 'i' in 1 dimensions; send .tolist() or .tobytes()"),
        (memoryview(b"abcd")[::2], "a view that is not contiguous; send .tobytes()"),
        (memoryview(b"abcd"), ""),
    ],
)
def test_types_that_msgpack_writes_by_itself(item: object, reason: str) -> None:
    assert foreign_fault(item) == reason
    for value in (item, [item], {"k": (1, item)}):
        if not reason:
            measure(value)
            continue
        with pytest.raises(Unencodable) as caught:
            measure(value)
        assert str(caught.value) == reason


# -- the order of sets and the steps of a path ------------------------------------------------------------------------


def test_order_of_a_set() -> None:
    assert ordered({3, 1, 2}, lambda value: value) == [1, 2, 3]
    assert ordered({"b", "a"}, lambda value: value) == ["a", "b"]
    assert ordered([2, "a", None, b"x"], lambda value: value) == ordered([b"x", None, "a", 2], lambda value: value)
    sets = [frozenset({1}), frozenset({2}), frozenset({1, 2})]
    assert ordered(sets, lambda value: value) == ordered(sets[::-1], lambda value: value)


def test_order_of_objects_by_what_stands_for_them() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    found = ordered([Named("c"), Named("a"), Named("b")], lambda value: getattr(value, "name", value))
    assert [one.name for one in found] == ["a", "b", "c"]  # type: ignore[attr-defined]


def test_order_key_of_equal_values() -> None:
    assert order_key((1, frozenset({"b", "a"})), lambda value: value) == "tuple (int 1, set (str 'a', str 'b'))"
    assert order_key(memoryview(b"x"), lambda value: value) == order_key(b"x", lambda value: value)
    assert order_key({"k": [255]}, lambda value: value) == "dict (tuple (str 'k', list (int ff)))"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("x", ".x"), ("odd key", "['odd key']"), ("é", "['\\xe9']"), ("", "['']"), ("x" * 40, "." + "x" * 40),
        ("x" * 41, "['" + "x" * 40 + "\\u2026']"), (2, "[2]"), (-3, "[-3]"), ((1 << 64) - 1, "[18446744073709551615]"),
        (1 << 64, "[a large integer]"), (None, "[None]"), (True, "[True]"), (2.5, "[2.5]"), (b"x", "[a bytes]"),
        ((1, 2), "[a tuple]"),
    ],
)  # fmt: skip
def test_step_of_a_path(key: object, text: str) -> None:
    assert step(key) == text
