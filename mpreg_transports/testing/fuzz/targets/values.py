"""Users' values: a value arrives equal and of the same type; hostile bytes are MalformedValue and nothing else.

Input: one byte for the mode. Hostile: the rest is decoded as it is. Made: a value is built from the rest, encoded, and
compared; a plain one also with `msgpack` itself, in both directions.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]

from mpreg_proto.wire.values import MalformedValue, Ref, UnresolvedValue, UnsendableValue, ValueCodec
from mpreg_transports.testing.equality import same
from mpreg_transports.testing.fuzz.draws import Draws

_CODEC = ValueCodec()
_GIVEN: dict[str, object] = {"a": 1, "b": [1, {"k": "v"}], "c": (1, 2), "d": frozenset({1}), "e": 2**70, "f": "text"}


def harness(data: bytes) -> None:
    """Run the mode that the first byte selects."""
    draws = Draws(data)
    way = draws.below(3)
    if way == 0:
        _hostile(draws.rest(), None)
    elif way == 1:
        _hostile(draws.rest(), _GIVEN)
    else:
        _made(draws)


def _hostile(data: bytes, given: dict[str, object] | None) -> None:
    try:
        value = _CODEC.decode(data, inputs=given)
    except (MalformedValue, UnresolvedValue):
        return
    try:
        encoded = _CODEC.encode(value)
    except UnsendableValue as refusal:
        # The replaced references may put the whole over a bound.
        assert given is not None or refusal.limit is not None, f"what came in cannot go out: {refusal}"
        return
    again = _CODEC.decode(encoded)
    assert _CODEC.encode(again) == encoded, "a second journey changes the value"
    if given is None:
        assert same(value, again), f"{value!r} came back as {again!r}"


def _made(draws: Draws) -> None:
    plain = draws.chance(3)
    value = build(draws, 4, plain=plain)
    encoded = _CODEC.encode(value)
    back = _CODEC.decode(encoded)
    assert same(value, back), f"{value!r} came back as {back!r}"
    assert same(value, _CODEC.decode(memoryview(encoded))), "it depends on the buffer"
    if plain:
        foreign = msgpack.packb(value)
        assert same(value, _CODEC.decode(foreign)), f"msgpack's {value!r} is read as another value"
        assert same(value, msgpack.unpackb(encoded, strict_map_key=False)), f"msgpack reads {value!r} otherwise"


def build(draws: Draws, depth: int, *, plain: bool) -> Any:
    """Return a value that can be sent; if `plain`, only of the types of MessagePack itself."""
    scalars, containers = (_PLAIN, _HOLDERS[:2]) if plain else (_PLAIN + _RICH, _HOLDERS)
    kind = draws.pick(scalars + containers if depth else scalars)
    size = draws.below(4) if kind in ("list", "dict", "tuple", "set", "frozenset") else 0
    if kind == "list":
        return [build(draws, depth - 1, plain=plain) for _ in range(size)]
    if kind == "tuple":
        return tuple(build(draws, depth - 1, plain=plain) for _ in range(size))
    if kind == "dict":
        return {scalar(draws, draws.pick(_KEYS)): build(draws, depth - 1, plain=plain) for _ in range(size)}
    if kind in ("set", "frozenset"):
        held = [scalar(draws, draws.pick(_KEYS)) for _ in range(size)]
        return set(held) if kind == "set" else frozenset(held)
    return scalar(draws, kind)


def scalar(draws: Draws, kind: str) -> Any:
    """Return one value without parts."""
    match kind:
        case "none":
            return None
        case "bool":
            return draws.byte() % 2 == 1
        case "int":
            return min(max(draws.integer(), -(2**63)), 2**64 - 1)
        case "float":
            return draws.pick((0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")))
        case "text":
            return draws.text(40)
        case "bytes":
            return draws.piece(40)
        case "huge":
            return int.from_bytes(draws.piece(40), "big", signed=True) << draws.byte()
        case "complex":
            return complex(draws.integer(), draws.integer())
        case "decimal":
            return draws.pick((Decimal("1.50"), Decimal("-0"), Decimal("NaN"), Decimal("Infinity"), Decimal("1E+99")))
        case "ref":
            return Ref(draws.text(8), tuple(draws.pick(_STEPS) for _ in range(draws.below(3))))
    return _moment(draws, kind)


def _moment(draws: Draws, kind: str) -> datetime | date | time | timedelta:
    year, hour, fraction = 1 + draws.below(9999), draws.below(24), draws.pick((0, 1, 999_999))
    zone = draws.pick((None, UTC, timezone(timedelta(hours=-7, minutes=-30)), timezone(timedelta(seconds=3661))))
    if kind == "date":
        return date(year, 2, 3)
    if kind == "time":
        return time(hour, 5, 6, fraction, zone)
    if kind == "timedelta":
        return timedelta(year * (1 if hour % 2 else -1), hour, fraction)
    return datetime(year, 2, 3, hour, 5, 6, fraction, zone, fold=0 if zone else hour % 2)


_STEPS: tuple[str | int, ...] = ("k", 0, 7)
_PLAIN = ("none", "bool", "int", "float", "text", "bytes")
_RICH = ("huge", "complex", "decimal", "date", "time", "timedelta", "datetime", "ref")
_HOLDERS = ("list", "dict", "tuple", "set", "frozenset")
_KEYS = ("none", "bool", "int", "text", "bytes")
