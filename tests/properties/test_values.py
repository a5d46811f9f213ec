"""Every sendable value comes back the same; no bytes make the decoder raise anything but its declared errors."""

from datetime import timedelta, timezone
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.wire.values import MalformedValue, Ref, UnresolvedValue, UnsendableValue, ValueCodec

CODEC = ValueCodec()
CODEC.register(32, ValueError, lambda error: list(error.args), lambda held: ValueError(*held))
CODEC.register(33, KeyError, lambda error: b"k", KeyError)

offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
# `fold` tells nothing where there is an offset, and goes.
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
    """The value with its types beside it, so that 1, 1.0 and True differ."""
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
    """A map whose keys may be anything, as only bytes can say it."""

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
            value = CODEC.decode(data, given=given_)
        except (MalformedValue, UnresolvedValue):
            continue
        try:
            CODEC.encode(value)
        except UnsendableValue as error:  # hashable only while it was a reference
            assert "reference" in error.why or "hash" in error.why


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_undeclared(data: bytes) -> None:
    nothing_else_comes_out(data)


@given(shapes, st.data())
def test_no_shapes_raise_anything_undeclared(shape: object, data: st.DataObject) -> None:
    packed = pack(shape)
    nothing_else_comes_out(packed)
    nothing_else_comes_out(b"\x92" + packed + b"\xda\x04\x00" + b"x" * 1024)
    cut = data.draw(st.integers(0, len(packed)))
    nothing_else_comes_out(packed[:cut])
    nothing_else_comes_out(packed[:cut] + data.draw(st.binary(max_size=4)) + packed[cut + 1 :])
