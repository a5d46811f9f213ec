"""Every sendable value comes back the same; no bytes make the decoder raise other errors than its declared ones."""

from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from mpreg_proto.wire.encode_errors import is_text
from mpreg_proto.wire.jsonvalues import MalformedJson, dumps, loads, to_json
from mpreg_proto.wire.values import MalformedValue, Ref, UnresolvedValue, UnsendableValue, ValueCodec
from mpreg_transports.testing.equality import same
from mpreg_transports.values import default_codec
from tests.helpers.hostile_values import comes_back, holding, odd, raising, zoned

CODEC = ValueCodec()
CODEC.register(32, ValueError, lambda error: list(error.args), lambda held: ValueError(*held))
CODEC.register(33, KeyError, lambda error: b"k", KeyError)

offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
# With an offset, `fold` has no meaning, and is dropped.
moments = st.datetimes(timezones=st.none() | offsets).map(lambda at: at.replace(fold=0) if at.tzinfo else at)
clocks = st.times(timezones=st.none() | offsets).map(lambda at: at.replace(fold=0) if at.tzinfo else at)
hashable_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(1 << 200), 1 << 200), st.floats(allow_nan=False), st.text(),
    st.binary(), st.complex_numbers(allow_nan=False), st.decimals(allow_nan=False), moments, st.dates(),
    clocks, st.timedeltas(),
)  # fmt: skip
scalars = hashable_scalars | st.builds(Ref, st.text(), st.lists(st.text() | st.integers(0, 1 << 62)).map(tuple))
hashables = st.recursive(
    hashable_scalars, lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner, max_size=5), max_leaves=8
)
values = st.recursive(
    scalars | hashables,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(hashables, inner), st.sets(hashables, max_size=5)
    ),
    max_leaves=20,
)


def typed(value: Any) -> Any:
    """Return the value with its types, so that 1, 1.0 and True differ."""
    if isinstance(value, (list, tuple)):
        return type(value), [typed(each) for each in value]
    if isinstance(value, dict):
        return dict, [(typed(key), typed(held)) for key, held in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(typed(each)) for each in value)
    return type(value), repr(value) if isinstance(value, float) else value


@given(values)
def test_every_value_comes_back_the_same(value: object) -> None:
    data = CODEC.encode(value)
    assert typed(CODEC.decode(data)) == typed(value)
    assert CODEC.encode(CODEC.decode(data)) == data


class Map:
    """A map with keys of any kind, which only bytes can express."""

    def __init__(self, pairs: list[tuple[object, object]]) -> None:
        self.pairs = pairs


extensions = st.builds(msgpack.ExtType, st.integers(0, 40), st.binary(max_size=14))
marks = st.builds(lambda code: msgpack.ExtType(3, bytes([code])), st.sampled_from([11, 12, 13, 32, 33, 34]))
shapes = st.recursive(
    st.one_of(st.integers(-5, 5), st.text(max_size=3), st.just([]), extensions, marks, st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.builds(lambda mark, held: [mark, *held], marks, st.lists(inner, max_size=5)),
        st.lists(st.tuples(inner, inner), max_size=4).map(Map),
    ),
    max_leaves=25,
)


def pack(shape: Any) -> bytes:
    if isinstance(shape, Map):
        return bytes([0x80 + len(shape.pairs)]) + b"".join(pack(key) + pack(held) for key, held in shape.pairs)
    if isinstance(shape, list):
        return bytes([0x90 + len(shape)]) + b"".join(map(pack, shape))
    packed: bytes = msgpack.packb(shape)
    return packed


def nothing_else_comes_out(data: bytes) -> None:
    for given_ in (None, {"a": (1, 2), "": {"x": [1]}}):
        try:
            value = CODEC.decode(data, inputs=given_)
        except (MalformedValue, UnresolvedValue):
            continue
        try:
            CODEC.encode(value)
        except UnsendableValue as error:  # hashable only while it was a reference
            assert "reference" in error.reason or "hash" in error.reason


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_declared_errors(data: bytes) -> None:
    nothing_else_comes_out(data)


@given(shapes, st.data())
def test_any_shapes_raise_only_declared_errors(shape: object, data: st.DataObject) -> None:
    packed = pack(shape)
    nothing_else_comes_out(packed)
    nothing_else_comes_out(b"\x92" + packed + b"\xda\x04\x00" + b"x" * 1024)
    cut = data.draw(st.integers(0, len(packed)))
    nothing_else_comes_out(packed[:cut])
    nothing_else_comes_out(packed[:cut] + data.draw(st.binary(max_size=4)) + packed[cut + 1 :])


# -- any object at all ------------------------------------------------------------------------------------------------

anything = st.recursive(scalars | odd | raising | zoned, holding, max_leaves=8)


@settings(max_examples=400)
@given(anything)
def test_any_object_is_refused_or_comes_back_as_documented(value: object) -> None:
    """docs/reference/values.md; `CHANGED` are the only exceptions."""
    codec = default_codec()
    try:
        data = codec.encode(value)
    except UnsendableValue as refusal:
        assert refusal.path.startswith("$") and refusal.reason
        assert all(map(is_text, (str(refusal), refusal.type_name)))
        return
    assert same(codec.decode(data), comes_back(value))
    assert same(codec.decode(codec.encode([[value], {"k": value}])), [[comes_back(value)], {"k": comes_back(value)}])


@settings(max_examples=400)
@given(anything)
def test_any_object_is_refused_or_is_strict_json(value: object) -> None:
    codec = default_codec()
    try:
        text = dumps(to_json(value, codec))
    except UnsendableValue as refusal:
        assert refusal.path.startswith("$") and refusal.reason
        assert is_text(str(refusal))
        return
    try:
        tree = loads(text)
    except MalformedJson as error:  # integers of more digits than CPython reads, and keys above the limit
        assert "4300 digits" in error.reason or error.limit is not None
        return
    assert same(loads(dumps(to_json(tree, codec))), tree)
    try:
        back = codec.decode(codec.encode(value))
    except UnsendableValue:
        return
    assert dumps(to_json(back, codec)) == text


class Changing:
    """Changes its container while it is encoded."""

    def __init__(self) -> None:
        self.change: Callable[[], object] = lambda: None


CHANGING = ValueCodec()
CHANGING.register(64, Changing, lambda value: value.change() or b"", lambda data: None)
CHANGES: tuple[Callable[[list[Any], dict[Any, Any]], object], ...] = (
    lambda row, table: row.append(1),
    lambda row, table: row.pop(),
    lambda row, table: row.clear(),
    lambda row, table: table.update(new=1),
    lambda row, table: table.clear(),
    lambda row, table: table.update({"k0": [1, 2]}),
    lambda row, table: (table.pop("k1", None), table.update(other=1)),
)


@given(st.sampled_from(CHANGES), st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_values_that_change_during_encoding(
    change: Callable[[list[Any], dict[Any, Any]], object], size: int, place: int, in_row: bool
) -> None:
    one = Changing()
    row: list[Any] = [*range(size)]
    table: dict[Any, Any] = {f"k{index}": index for index in range(size)}
    if in_row:
        row.insert(place, one)
    else:
        table["k0"] = one
    one.change = lambda: change(row, table)
    try:
        data = CHANGING.encode([[row, "after", table], "end"])
    except UnsendableValue:
        return
    back: Any = CHANGING.decode(data)
    assert len(back) == 2 and back[1] == "end" and back[0][1] == "after" and len(back[0]) == 3
