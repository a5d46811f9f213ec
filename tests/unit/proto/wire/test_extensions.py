"""Extension types: their codes and bytes on the wire, and the fields of an object of a dataclass."""

import enum
from array import array
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cached_property
from math import isnan, nan
from typing import Any

import pytest

from mpreg_proto.wire import extensions as ext
from mpreg_proto.wire.extensions import READERS, SCALARS, entries_and_fields, iso, record, record_of
from mpreg_proto.wire.values import ValueCodec

CODEC = ValueCodec()
PRAGUE = timezone(timedelta(hours=5, minutes=45), "somewhere")


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


BYTES: list[tuple[object, int, bytes]] = [
    (1 << 64, 4, b"\x01" + bytes(8)),
    (-(1 << 63) - 1, 4, b"\xff\x7f" + b"\xff" * 7),
    (-(1 << 71), 4, b"\xff\x80" + bytes(8)),
    (complex(1, -2), 5, b"\x3f\xf0" + bytes(6) + b"\xc0" + bytes(7)),
    (Decimal("1.10"), 6, b"1.10"),
    (Decimal("-Infinity"), 6, b"-Infinity"),
    (datetime(2024, 2, 29, 1, 2, 3, 4), 7, b"2024-02-29T01:02:03.000004"),
    (datetime(2024, 2, 29, tzinfo=UTC), 7, b"2024-02-29T00:00:00+00:00"),
    (datetime(2024, 10, 27, 2, 30, fold=1), 7, b"2024-10-27T02:30:00f"),
    (date.min, 8, b"0001-01-01"),
    (time(2, 30, fold=1), 9, b"02:30:00f"),
    (time(2, 30, tzinfo=PRAGUE), 9, b"02:30:00+05:45"),
    (timedelta(-1, 1, 2), 10, b"\xff\xff\xff\xff" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x02"),
]


@pytest.mark.parametrize(("value", "code", "payload"), BYTES)
def test_bytes_of_a_scalar(value: object, code: int, payload: bytes) -> None:
    written = SCALARS[type(value)](value)
    assert (written.code, written.data) == (code, payload)
    back = READERS[code](payload)
    assert back == value and type(back) is type(value)


def test_each_scalar_has_a_writer_and_a_reader() -> None:
    assert {type(value) for value, _, _ in BYTES} == set(SCALARS)
    assert {code for _, code, _ in BYTES} == set(READERS)


def test_codes_of_the_protocol() -> None:
    codes = {name: getattr(ext, name) for name in "REF REF_PATH MARK TUPLE SET FROZENSET".split()}
    assert codes == {"REF": 1, "REF_PATH": 2, "MARK": 3, "TUPLE": 11, "SET": 12, "FROZENSET": 13}
    assert sorted([*codes.values(), *READERS]) == list(range(1, 14)), "no code has two meanings"
    assert (ext.FIRST_REGISTERED, ext.LAST_REGISTERED) == (32, 127)


# -- time zones -------------------------------------------------------------------------------------------------------


class NoOffset(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None


def test_offset_takes_the_place_of_fold() -> None:
    assert iso(datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=UTC)) == "2024-10-27T02:30:00+00:00"
    assert iso(datetime(2024, 10, 27, 2, 30)) == "2024-10-27T02:30:00"
    assert iso(datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=61)))) == "0001-01-01T00:00:00+00:01:01"


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (time(1, tzinfo=NoOffset()), "no offset from UTC without a date"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(0, 0, 1))), "fractions of a second"),
        (time(1, tzinfo=timezone(timedelta(0, 60, 1))), "fractions of a second"),
    ],
)
def test_offset_without_iso_text(moment: datetime | time, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        iso(moment)


# -- objects of dataclasses -------------------------------------------------------------------------------------------


@dataclass
class Base:
    b: object = 1
    a: object = 2


@dataclass
class Derived(Base):
    c: object = field(default=3, init=False)

    @cached_property
    def total(self) -> int:
        return 6


@dataclass(slots=True)
class Slotted:
    x: object = 1


class Wider(Slotted):
    __slots__ = ("__hidden", "y")

    def hide(self) -> None:
        self.__hidden = 1


@dataclass
class Entries(dict[str, object]):
    x: object = 1


@dataclass
class Listed(list[object]):
    x: object = 1


@dataclass
class Failure(Exception):
    x: object = 1


@dataclass
class Packed(array):  # type: ignore[type-arg]
    x: object = 1


class Tagged(Base, enum.Enum):
    A = (1, 2)


def test_fields_in_the_order_of_the_class() -> None:
    value = Derived(b=[1])
    assert value.total == 6 and "total" in vars(value)
    assert list(record(value).items()) == [("b", [1]), ("a", 2), ("c", 3)]
    assert record(Slotted(5)) == entries_and_fields(Slotted(5)) == {"x": 5}


def test_attribute_that_is_no_field() -> None:
    value, wider, hidden = Base(), Wider(), Wider()
    assert record(wider) == {"x": 1}
    value.extra = 1  # type: ignore[attr-defined]
    wider.y = 1
    hidden.hide()
    for one, name in ((value, "'extra'"), (wider, "'y'"), (hidden, "'_Wider__hidden'")):
        with pytest.raises(TypeError, match=f"an attribute which is no field: {name}"):
            record(one)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Listed(), "also a list"),
        (Failure(), "also a BaseException"),
        (Entries(), "also a dict"),
        (Packed("i"), "from a base class written in C"),
    ],
)
def test_dataclass_with_other_content(value: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        record(value)
    if not isinstance(value, dict):
        with pytest.raises(TypeError, match=reason):
            entries_and_fields(value)


def test_entries_and_fields_of_a_dict() -> None:
    value = Entries(x=5)
    value["k"] = 7
    assert list(entries_and_fields(value).items()) == [("k", 7), ("x", 5)]
    value["x"] = 8
    with pytest.raises(TypeError, match="'x' is an entry and a field"):
        entries_and_fields(value)


@pytest.mark.parametrize("value", [1, {"x": 1}, Tagged.A, object()])
def test_object_of_no_dataclass(value: object) -> None:
    assert record_of(type(value)) is None
    with pytest.raises(TypeError, match="not an object of a dataclass"):
        record(value)
