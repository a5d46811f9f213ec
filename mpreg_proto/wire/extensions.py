"""Extension types for the scalars that MessagePack lacks: their codes and their bytes on the wire.

`wire/values.py` uses the two tables: `SCALARS` for an object that MessagePack cannot pack, `READERS` for an extension
in the bytes. Any language can write the payloads: two's complement, IEEE 754, ISO 8601. A reader takes at most linear
time in the length of the payload. Readers may raise anything; the caller turns that into its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple, cast

from msgpack import ExtType  # type: ignore[import-untyped]

# Codes 0 to 31 belong to the protocol. No code ever gets a second meaning.
REF: Final = 1
"""A reference without a path: the call's name, UTF-8."""
REF_PATH: Final = 2
"""A reference with a path: a MessagePack array of the name and the steps."""
MARK: Final = 3
"""The first entry of an array that is not a list; one byte: TUPLE, SET, FROZENSET, or the code of a registered type."""
INT: Final = 4
"""An integer beyond 64 bits: two's complement, big-endian."""
COMPLEX: Final = 5
"""Two IEEE 754 doubles, big-endian."""
DECIMAL: Final = 6
"""Text as `str(Decimal)` writes it."""
DATETIME: Final = 7
"""ISO 8601 text, with its UTC offset if it has one; a trailing `f` marks a naive time with `fold=1`."""
DATE: Final = 8
"""ISO 8601 text."""
TIME: Final = 9
"""ISO 8601 text, like DATETIME."""
TIMEDELTA: Final = 10
"""Days, seconds and microseconds as Python normalizes them: three signed 32-bit integers, big-endian."""
TUPLE: Final = 11
SET: Final = 12
FROZENSET: Final = 13

FIRST_REGISTERED: Final = 32
LAST_REGISTERED: Final = 127

_DOUBLES: Final = Struct(">dd")
_THREE: Final = Struct(">iii")


def _write_int(value: int) -> ExtType:
    return ExtType(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _write_complex(value: complex) -> ExtType:
    return ExtType(COMPLEX, _DOUBLES.pack(value.real, value.imag))


def _write_decimal(value: Decimal) -> ExtType:
    return ExtType(DECIMAL, str(value).encode("ascii"))


def _write_datetime(value: datetime) -> ExtType:
    return ExtType(DATETIME, iso(value).encode("ascii"))


def _write_date(value: date) -> ExtType:
    return ExtType(DATE, value.isoformat().encode("ascii"))


def _write_time(value: time) -> ExtType:
    return ExtType(TIME, iso(value).encode("ascii"))


def _write_timedelta(value: timedelta) -> ExtType:
    return ExtType(TIMEDELTA, _THREE.pack(value.days, value.seconds, value.microseconds))


def iso(value: datetime | time) -> str:
    """Return ISO 8601 text, with a trailing `f` for a naive time with `fold=1`, the second of two equal times.

    Raises ValueError for a time of day whose zone has no offset without a date, because its text would be that of a
    naive time. Raises ValueError for an offset with fractions of a second, some of which CPython reads as no offset.
    """
    if value.tzinfo is None:
        return value.isoformat() + "f" if value.fold else value.isoformat()
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("its time zone gives no offset from UTC without a date")
    if offset.microseconds:
        raise ValueError("its offset from UTC has fractions of a second")
    return value.isoformat()


def _read_int(payload: bytes) -> int:
    return int.from_bytes(payload, "big", signed=True)


def _read_complex(payload: bytes) -> complex:
    return complex(*_DOUBLES.unpack(payload))


def _read_decimal(payload: bytes) -> Decimal:
    return Decimal(payload.decode("ascii"))


def _read_datetime(payload: bytes) -> datetime:
    text = payload.decode("ascii")
    if text.endswith("f"):
        return datetime.fromisoformat(text[:-1]).replace(fold=1)
    return datetime.fromisoformat(text)


def _read_date(payload: bytes) -> date:
    return date.fromisoformat(payload.decode("ascii"))


def _read_time(payload: bytes) -> time:
    text = payload.decode("ascii")
    return time.fromisoformat(text[:-1]).replace(fold=1) if text.endswith("f") else time.fromisoformat(text)


def _read_timedelta(payload: bytes) -> timedelta:
    days, seconds, microseconds = _THREE.unpack(payload)
    return timedelta(days, seconds, microseconds)


SCALARS: Final[dict[type, Callable[[Any], ExtType]]] = {
    int: _write_int,
    complex: _write_complex,
    Decimal: _write_decimal,
    datetime: _write_datetime,
    date: _write_date,
    time: _write_time,
    timedelta: _write_timedelta,
}
READERS: Final[dict[int, Callable[[bytes], object]]] = {
    INT: _read_int,
    COMPLEX: _read_complex,
    DECIMAL: _read_decimal,
    DATETIME: _read_datetime,
    DATE: _read_date,
    TIME: _read_time,
    TIMEDELTA: _read_timedelta,
}


class Record(NamedTuple):
    """The content of an object of a dataclass: its fields, and its slots that are not fields."""

    names: tuple[str, ...]
    others: tuple[str, ...]
    fault: str
    """The reason why its objects hold more than their fields; empty if they do not."""
    entries: bool = False
    """True if its objects are also dicts, and of no other type with content."""


def _record_of(kind: type) -> Record | None:
    bases = kind.__mro__
    if issubclass(kind, Enum) or not any("__dataclass_fields__" in vars(base) for base in bases):
        return None
    names = tuple(field.name for field in fields(cast("Any", kind)))
    slots = [name for base in bases[:-1] for name in _slots(base)]
    for base in bases:
        if base in _WITH_CONTENT:
            fault = f"a dataclass that is also a {base.__name__}, whose content is in no field; send both by themselves"
            return Record(names, tuple(slots), fault, base is dict)
    expected = object.__basicsize__ + _POINTER * (len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0))
    if kind.__itemsize__ or kind.__basicsize__ != expected:  # the test of object.__reduce_ex__
        return Record(names, (), "a dataclass with content that is in no field, from a base class written in C")
    return Record(names, tuple(name for name in slots if name not in names), "")


record_of: Final[Callable[[type], Record | None]] = lru_cache(maxsize=1024)(_record_of)
"""Return the `Record` by which objects of a dataclass are sent as maps; None for other types, and for enums.

A class that is also a list, a text or an exception has content that is in no field.
"""


def _slots(base: type) -> list[str]:
    slots = vars(base).get("__slots__", ())
    found = [slots] if isinstance(slots, str) else list(slots)
    return [_mangled(base, name) for name in found if name not in ("__dict__", "__weakref__")]


def _mangled(base: type, name: str) -> str:
    hidden = name.startswith("__") and not name.endswith("__")
    return f"_{base.__name__.lstrip('_')}{name}" if hidden else name


_POINTER: Final = Struct("P").size
_WITH_CONTENT: Final = frozenset(
    {str, int, float, complex, bytes, bytearray, list, dict, tuple, set, frozenset, BaseException}
)


def record(value: Any) -> dict[str, object]:
    """Return a dataclass object's fields by name, in the order of its class. Raises TypeError if it has other content.

    Values that `functools.cached_property` keeps in an object are left out, because they follow from its fields.
    """
    kind = type(value)
    found = record_of(kind)
    if found is None:
        raise TypeError("not an object of a dataclass")
    if found.fault:
        raise TypeError(found.fault)
    return _fields(value, found)


def entries_and_fields(value: Any) -> dict[object, object]:
    """Return the same as `record`; for an object that is also a dict, its entries, then its fields.

    Raises TypeError if one name is both an entry and a field.
    """
    found = record_of(type(value))
    if found is None or not found.entries:
        return dict(record(value).items())
    made: dict[object, object] = dict(_fields(value, found).items())
    both = [name for name in made if name in value]
    if both:
        raise TypeError(f"a dataclass that is also a dict, in which {both[0]!r:.60} is an entry and a field")
    return {**value, **made}


def _fields(value: Any, found: Record) -> dict[str, object]:
    kind = type(value)
    made = {name: getattr(value, name) for name in found.names}
    attributes = getattr(value, "__dict__", None)
    others = [name for name in found.others if hasattr(value, name)]
    if attributes and not attributes.keys() <= made.keys():
        others += [name for name in attributes if name not in made and not _is_derived(kind, name)]
    if others:
        raise TypeError(f"an object of a dataclass that has an attribute which is no field: {others[0]!r:.60}")
    return made


def _is_derived(kind: type, name: str) -> bool:
    """Return whether an attribute is kept by `cached_property`, or is Python's own, such as `__orig_class__`."""
    if name.startswith("__") and name.endswith("__"):
        return True
    return any(isinstance(vars(base).get(name), cached_property) for base in kind.__mro__)
