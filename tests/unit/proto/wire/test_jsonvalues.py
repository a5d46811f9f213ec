"""Strict decoding of JSON; values encoded as JSON, or refused with their path."""

import json
import sys
from collections import Counter, OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from mpreg_proto.wire.jsonvalues import MalformedJson, digits, dumps, duration, loads, to_json
from mpreg_proto.wire.values import Ref, UnsendableValue, ValueCodec

HUGE = 10**6000 + 7


class Id:
    def __init__(self, text: str) -> None:
        self.text = text


class Box:
    def __init__(self, **held: object) -> None:
        self.held = held


class Sealed:
    pass


CODEC = ValueCodec()
CODEC.register(32, Id, lambda each: each.text.encode(), lambda data: Id(data.decode()), json=lambda each: each.text)
CODEC.register(33, Box, lambda box: box.held, lambda held: Box(**held))
CODEC.register(34, Sealed, lambda _: b"", lambda _: Sealed())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,1.0,true,null,-0.0,"ž🐎"],"b":{}}', {"a": [1, 1.0, True, None, -0.0, "ž🐎"], "b": {}}),
        (" 5 ", 5),
        ('"\\ud83d\\udc0e \\u00e9"', "🐎 é"),
        ('"\\\\ud800"', "\\ud800"),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        (str(2**64), 2**64),
        ("9" * 4300, 10**4300 - 1),
        ("[" * 3 + "]" * 3 + " " * 2000, [[[]]]),
        ('"[[[[' + "[" * 100 + '"', "[[[[" + "[" * 100),
    ],
    ids=lambda each: type(each).__name__,
)
def test_valid_json(text: str, value: object) -> None:
    for form in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        assert typed(loads(form)) == typed(value)


def typed(value: Any) -> Any:
    """Return the value with its types, so that 1, 1.0 and True differ, and -0.0 from 0.0."""
    if isinstance(value, list):
        return [typed(each) for each in value]
    if isinstance(value, dict):
        return [(key, typed(held)) for key, held in value.items()]
    return type(value), repr(value) if isinstance(value, float) else value


def test_byte_order_mark() -> None:
    for text in ("\ufeff[1]", b"\xef\xbb\xbf[1]", bytearray(b"\xef\xbb\xbf[1]"), memoryview(b"\xef\xbb\xbf[1]")):
        assert loads(text) == [1]
    assert loads('["\ufeff"]') == ["\ufeff"]


@pytest.mark.parametrize(
    ("text", "why", "at"),
    [
        ("", "Expecting value", 0),
        ("{", "Expecting property name", 1),
        ("1 2", "Extra data", 2),
        ("[1,]", "", None),
        ("01", "Extra data", 1),
        ("'a'", "Expecting value", 0),
        ("\ufeff\ufeff1", "Expecting value", 1),
        (b"\xef\xbb\xbf[1,}", "Expecting value", 4),
        (b"\xef\xbb1", "not UTF-8", 0),
        ('"a\nb"', "Invalid control character", 2),
        ("NaN", "NaN is not JSON", None),
        ("[-Infinity]", "-Infinity is not JSON", None),
        ("1e400", "beyond the range", None),
        ("-" + "9" * 400 + ".0", "beyond the range", None),
        ('{"a":1,"b":2,"a":3}', "two keys of one object are 'a'", None),
        ('[{"x":{"k":1,"\\u006b":1}}]', "two keys of one object are 'k'", None),
        ("9" * 4301, "more than 4300 digits", None),
        ("-" + "9" * 5000, "more than 4300 digits", None),
        ('"\\ud800"', "half of a surrogate pair", None),
        ('{"\\udc00\\ud800":1}', "half of a surrogate pair", None),
        ('"\ud800"', "half of a surrogate pair", None),
        (b'{"a":"\xff"}', "not UTF-8", 6),
        (b'"\xed\xa0\x80"', "not UTF-8", 1),
        (b"\xff\xfe1\x00", "not UTF-8", 0),
    ],
    ids=lambda each: "",
)
def test_malformed_json(text: str | bytes, why: str, at: int | None) -> None:
    with pytest.raises(MalformedJson) as caught:
        loads(text)
    assert why in caught.value.reason
    assert at is None or caught.value.at == at
    assert caught.value.limit is None


def test_nesting_at_the_limit() -> None:
    tree = loads("[" * 64 + "]" * 64)
    for _ in range(63):
        (tree,) = tree
    assert tree == []


@pytest.mark.parametrize("levels", [65, 900, 5000, 200_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"k":', "}")])
def test_nesting_over_the_limit(levels: int, start: str, end: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        loads(start * levels + "1" + end * levels)
    assert caught.value.limit == {"limit": "nesting", "value": 64, "came": 65}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("[" + "0," * 1_000_000 + "0]", {"limit": "array entries", "value": 1_000_000, "came": 1_000_001}),
        (json.dumps(dict.fromkeys(range(100_001))), {"limit": "map entries", "value": 100_000, "came": 100_001}),
        ('{"' + "k" * 1025 + '":1}', {"limit": "key length", "value": 1024, "came": 1025}),
    ],
    ids=["array entries", "map entries", "key length"],
)
def test_counts_over_the_limits(text: str, limit: dict[str, object]) -> None:
    with pytest.raises(MalformedJson) as caught:
        loads(text)
    assert caught.value.limit == limit


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        ({"a": [1, 1.0, True, None, "ž"]}, {"a": [1, 1.0, True, None, "ž"]}),
        ((1, (2, [3])), [1, [2, [3]]]),
        ([b"\x00\xff", bytearray(b"a"), memoryview(b"")], ["AP8=", "YQ==", ""]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1.5, 1, 10}, [1, 1.5, 10]),
        ({(10, 1), (2, 1)}, [[2, 1], [10, 1]]),
        ({date(2024, 2, 1), date(2023, 12, 1)}, ["2023-12-01", "2024-02-01"]),
        ([Decimal("1.10"), Decimal("1E+5")], ["1.10", "1E+5"]),
        (datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), "2024-02-29T01:02:03+00:00"),
        (datetime(2024, 2, 29, 1, 2, 3, 4, fold=1), "2024-02-29T01:02:03.000004"),
        ([date(2024, 2, 29), time(1, 2, tzinfo=timezone(timedelta(hours=-3)))], ["2024-02-29", "01:02:00-03:00"]),
        (timedelta(1, 7384.5), "P1DT2H3M4.5S"),
        (OrderedDict(a=(1,)), {"a": [1]}),
        ([Counter("aab")], [{"a": 2, "b": 1}]),
        ([Id("x"), Box(a=(1,), b=Id("y"))], ["x", {"a": [1], "b": "y"}]),
        ({1: "a", -5: "b", "c": 2}, {"1": "a", "-5": "b", "c": 2}),
        ({date(2024, 2, 29): 1, Id("k"): 2, b"a": 3, Decimal(1): 4}, {"2024-02-29": 1, "k": 2, "YQ==": 3, "1": 4}),
        ([HUGE, [HUGE, None], {HUGE: 1}], [HUGE, [HUGE, None], {"1" + "0" * 5999 + "7": 1}]),
    ],
    ids=lambda each: "",
)
def test_values_as_json(value: object, tree: object) -> None:
    made = to_json(value, CODEC)
    assert made == tree
    assert type(made) is type(tree)
    dumps(made)


@pytest.mark.parametrize(
    ("value", "path", "type_name", "why"),
    [
        ({"rows": [1, 2, {"x": nan}]}, "$.rows[2].x", "float", "nan cannot be sent as JSON"),
        ([1.0, inf], "$[1]", "float", "inf cannot be sent as JSON"),
        ([(1j,)], "$[0][0]", "complex", "cannot be sent as JSON"),
        ([Decimal("NaN")], "$[0]", "Decimal", "NaN cannot be sent as JSON"),
        ([object()], "$[0]", "object", "cannot be sent as JSON"),
        ([Sealed()], "$[0]", "Sealed", "cannot be sent as JSON"),
        ([Ref("a")], "$[0]", "Ref", "cannot be sent as JSON"),
        ({"b": Box(a=[1, 2j])}, "$.b.a[1]", "complex", "cannot be sent as JSON"),
        (["x", "\ud800"], "$[1]", "str", "surrogate"),
        ({"\ud800": 1}, "$['\\ud800']", "str", "surrogate"),
        ([{True: 1}], "$[0][True]", "bool", "as a key it cannot"),
        ({None: 1}, "$[None]", "NoneType", "as a key it cannot"),
        ({1.0: 1}, "$[1.0]", "float", "as a key it cannot"),
        ({(1, 2): 1}, "$[a tuple]", "tuple", "as a key it cannot"),
        ({1: 1, "1": 2}, "$['1']", "str", "two keys would both be '1'"),
        ({"1": 1, 1: 2}, "$[1]", "int", "two keys would both be '1'"),
        ([1 << 4_000_000], "$[0]", "int", "so many digits"),
        ([1, -(1 << 4_000_000), None], "$[1]", "int", "so many digits"),
    ],
    ids=lambda each: "",
)
def test_path_of_an_unsendable_value(value: object, path: str, type_name: str, why: str) -> None:
    with pytest.raises(UnsendableValue) as caught:
        to_json(value, CODEC)
    assert (caught.value.path, caught.value.type_name) == (path, type_name)
    assert why in caught.value.reason


def test_path_of_a_failing_registered_type() -> None:
    codec = ValueCodec()
    codec.register(32, Box, lambda box: 1 / 0, lambda held: held)
    with pytest.raises(UnsendableValue, match="division by zero") as caught:
        to_json([1, Box()], codec)
    assert caught.value.path == "$[1]"


def test_depth_and_counts_over_the_limits_when_sent() -> None:
    value: Any = 1
    for _ in range(64):
        value = (value,)
    dumps(to_json(value, CODEC))
    for _ in range(3000):
        value = [value]
    with pytest.raises(UnsendableValue) as caught:
        to_json(value, CODEC)
    assert caught.value.limit == {"limit": "nesting", "value": 64, "came": 65}
    assert caught.value.path == "$" + "[0]" * 64
    with pytest.raises(UnsendableValue) as caught:
        to_json({"a": {"k" * 1025: 1}}, CODEC)
    assert caught.value.limit is not None
    assert caught.value.path == "$.a"
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(UnsendableValue, match="nested deeper"):
        to_json(loop, CODEC)


def test_compact_and_exact_dumps() -> None:
    assert dumps({"a": [1, 1.0, True, None, "ž🐎"], "b": ()}) == '{"a":[1,1.0,true,null,"ž🐎"],"b":[]}'
    text = dumps({"a": [HUGE, -HUGE, 1, 1.5, True, None, "x"], "ž": {"b": ()}})
    tail = "0" * 5999 + "7"
    assert text == '{"a":[1' + tail + ",-1" + tail + ',1,1.5,true,null,"x"],"ž":{"b":[]}}'
    for number in (nan, inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            dumps([number])
    with pytest.raises(TypeError):
        dumps([object()])


def test_dumps_replaces_lone_surrogates() -> None:
    assert dumps(["a\ud800b", "\ud83d\udc0e"]) == '["a\ufffdb","🐎"]'


@pytest.mark.parametrize(
    "value",
    [0, 7, -7, 10**700, -(10**700) + 1, 2**5000, 3**20_000, -(3**20_000), 10**5000],
    ids=lambda each: f"{each.bit_length()} bits",
)
def test_digits(value: int) -> None:
    before = sys.get_int_max_str_digits()
    made = digits(value)
    sys.set_int_max_str_digits(0)
    try:
        assert made == str(value)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_million_digits() -> None:
    assert digits(3 * 10**999_999) == "3" + "0" * 999_999  # 0.3 s; the obvious algorithm takes 13 s


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "PT0S"), (timedelta(2), "P2D"), (timedelta(0, 60), "PT1M"),
        (timedelta(0, 3600.25), "PT1H0.25S"),
        (timedelta(-1, 86399), "-PT1S"), (timedelta.max, "P999999999DT23H59M59.999999S"),
        (timedelta.min, "-P999999999D"),
    ],
    ids=str,
)  # fmt: skip
def test_duration(value: timedelta, text: str) -> None:
    assert duration(value) == text
    assert to_json([value], CODEC) == [text]
