"""The scalars that MessagePack lacks, as extension types: their codes and their bytes on the wire.

`wire/values.py` calls the two tables: `SCALARS` when it meets an object it cannot pack itself, `READERS` when it meets
an extension. Payloads are plain enough to be written from any language: two's complement, IEEE 754, ISO 8601. Never
reads anything that takes longer than linear time in the payload's length. Readers may raise anything; the caller turns
that into its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from struct import Struct
from typing import Any, Final

from msgpack import ExtType  # type: ignore[import-untyped]

# Codes 0 to 31 are the protocol's own. They are never given a second meaning.
REF: Final = 1
"""A reference without a path: the call's name, UTF-8."""
REF_PATH: Final = 2
"""A reference with a path: a MessagePack array of the name and the steps."""
MARK: Final = 3
"""First entry of an array that is not a list; one byte: TUPLE, SET, FROZENSET, or the code of a registered type."""
INT: Final = 4
"""An integer beyond 64 bits: two's complement, big-endian."""
COMPLEX: Final = 5
"""Two IEEE 754 doubles, big-endian."""
DECIMAL: Final = 6
"""Text as `str(Decimal)` writes it."""
DATETIME: Final = 7
"""ISO 8601 text, with its UTC offset if it has one; a trailing `f` is `fold=1` of one that has none."""
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
    """ISO 8601, to which a naive time that is the second of its name adds `f`.

    Raises ValueError for a time of day whose zone says nothing without a date, as its text would be that of a naive
    one, and for an offset with fractions of a second, some of which CPython reads as no offset.
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


def is_record(value: object) -> bool:
    """Whether `value` is an object of a dataclass, which goes as the map of its fields unless it is registered."""
    return is_dataclass(value) and not isinstance(value, type)


def record(value: Any) -> dict[str, object]:
    """A dataclass object's fields by name, in the order of its class."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
