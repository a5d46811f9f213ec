"""Python objects of all kinds, many of which cannot be sent, and the value that each sendable object arrives as.

`CHANGED` is the table of docs/reference/values.md as code: the types that arrive as another type.
"""

from __future__ import annotations

import enum
from array import array
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st
from msgpack import ExtType, Timestamp  # type: ignore[import-untyped]

T = TypeVar("T")


def _fixed(moment: datetime | time) -> datetime | time:
    """Return the same moment with only its offset."""
    offset = moment.utcoffset()
    return moment if offset is None else moment.replace(tzinfo=timezone(offset), fold=0)


CHANGED: dict[type, Callable[[Any], Any]] = {
    bytearray: bytes,
    memoryview: bytes,
    OrderedDict: lambda value: comes_back(dict(value)),
    defaultdict: lambda value: comes_back(dict(value)),
    Counter: lambda value: comes_back(dict(value)),
    datetime: _fixed,
    time: _fixed,
}


def comes_back(value: Any) -> Any:
    """Return the value that an accepted value must arrive as."""
    kind = type(value)
    if kind in CHANGED:
        return CHANGED[kind](value)
    if is_dataclass(value) and not isinstance(value, (type, enum.Enum)):
        return {field.name: comes_back(getattr(value, field.name)) for field in fields(value)}
    if kind is dict:
        return {comes_back(key): comes_back(held) for key, held in value.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(map(comes_back, value))
    return value


# -- time zones -------------------------------------------------------------------------------------------------------


class Folding(tzinfo):
    """An offset that depends on `fold`, as in the hour that occurs twice."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=2 - moment.fold)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "CEST"


class Lying(tzinfo):
    """A time zone that raises, has no offset, or has one with fractions of a second."""

    def __init__(self, answer: timedelta | BaseException | None) -> None:
        self.answer = answer

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    dst = tzname = utcoffset  # type: ignore[assignment]


ZONES = (
    Folding(), Lying(None), Lying(timedelta(0, 0, 7)), Lying(timedelta(seconds=11)), Lying(ValueError("no")),
    Lying(SystemExit(3)), timezone(timedelta(hours=-3), "named"), UTC,
)  # fmt: skip

# -- classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    x: Any = 1
    y: Any = 2


@dataclass(slots=True)
class Slotted:
    x: Any = 1


@dataclass
class Box(Generic[T]):
    held: T

    @cached_property
    def doubled(self) -> tuple[T, T]:
        return (self.held, self.held)


@dataclass
class AlsoList(list[int]):
    tag: str = "t"


@dataclass
class AlsoDict(dict[str, int]):
    tag: str = "t"


@dataclass(init=False)
class AlsoStr(str):
    tag: str = "t"


@dataclass(init=False)
class AlsoFloat(float):
    tag: bool = True


@dataclass(init=False, eq=False)
class AlsoInt(int):
    tag: bool = True


@dataclass
class AlsoError(Exception):
    code: int = 1


@dataclass
class AlsoDeque(deque[int]):
    tag: str = "t"


@dataclass
class AlsoUserDict(UserDict[str, int]):
    tag: str = "t"

    def __post_init__(self) -> None:
        self.data = {"a": 1}


class Plain(enum.Enum):
    ONE = 1


class Number(enum.IntEnum):
    ONE = 1


class Text(enum.StrEnum):
    ONE = "one"


class Animal(Point, enum.Enum):
    BEETLE = "small", 6


class Flag(enum.Flag):
    A = 1


class Word(str):
    pass


class Whole(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Row(list[Any]):
    pass


class Table(dict[Any, Any]):
    pass


class Group(frozenset[Any]):
    pass


class Moment(datetime):
    pass


class Money(Decimal):
    pass


Pair = namedtuple("Pair", "x y")
ERRORS = (
    ValueError("\ud800"),
    RuntimeError,
    RecursionError("deep"),
    MemoryError,
    SystemExit(3),
    GeneratorExit,
    KeyError,
)


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Proxy:
    """Raises on every access, including its class, as a proxy without an object does."""

    def __init__(self, error: Any) -> None:
        object.__setattr__(self, "error", error)

    def _refuse(self, *_: object) -> Any:
        raise object.__getattribute__(self, "error")

    __getattribute__ = __getattr__ = __repr__ = __str__ = __len__ = __iter__ = __eq__ = __bool__ = _refuse
    __hash__ = object.__hash__


class Liar:
    """Claims to be text by `__class__`."""

    __class__ = property(lambda self: str)


class Meta(type):
    """Raises when its classes are read."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class Metaed(metaclass=Meta):
    pass


@dataclass
class Raising:
    """A dataclass with a field that cannot be read."""

    x: int = 1
    error: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise object.__getattribute__(self, "error")
        return object.__getattribute__(self, name)


def more() -> Box[int]:
    made = Box(1)
    made.note = 2  # type: ignore[attr-defined]
    return made


def cached() -> Box[int]:
    made = Box(1)
    assert made.doubled == (1, 1)
    return made


def released() -> memoryview:
    view = memoryview(b"a")
    view.release()
    return view


def itself(make: Callable[[], Any]) -> Any:
    """Holds itself twice."""
    made = make()
    for key in (0, 1):
        if isinstance(made, dict):
            made[key] = made
        else:
            made.append(made)
    return made


def doubled(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made, made]
    return made


def deep(levels: int) -> Any:
    made: Any = ()
    for _ in range(levels):
        made = (made,)
    return made


ODD: tuple[Callable[[], Any], ...] = (
    Point, Slotted, cached, more, lambda: Box[int](1), AlsoList, AlsoDict, lambda: AlsoStr("a"), lambda: AlsoFloat(1.5),
    lambda: AlsoInt(3), AlsoError, AlsoDeque, AlsoUserDict, lambda: Plain.ONE, lambda: Number.ONE, lambda: Text.ONE,
    lambda: Animal.BEETLE, lambda: Flag.A, lambda: Word("a"), lambda: Whole(1), lambda: Real(1), lambda: Raw(b"a"),
    lambda: Row([1]), lambda: Table(a=1), lambda: Group([1]), lambda: Moment(2024, 1, 1), lambda: Money("1"),
    lambda: Pair(1, 2), Liar, Metaed, lambda: Metaed, object, lambda: object, lambda: len, lambda: iter([1]),
    lambda: SimpleNamespace(a=1), lambda: array("i", [1]), lambda: deque([1]), lambda: UserList([1]), lambda: range(3),
    lambda: Fraction(1, 3), lambda: PurePosixPath("a"), lambda: ..., lambda: NotImplemented, released,
    lambda: memoryview(b"abcd")[::2], lambda: memoryview(b"abcd").cast("i"), lambda: memoryview(b"abcd").cast("b"),
    lambda: memoryview(b"abcd").cast("B", (2, 2)), lambda: memoryview(bytearray(b"ab")), lambda: bytearray(b"a" * 70),
    lambda: ExtType(1, b"name"), lambda: ExtType(3, b"\x0b"), lambda: ExtType(99, b""), lambda: Timestamp(1),
    lambda: itself(list), lambda: itself(dict), lambda: itself(OrderedDict), lambda: doubled(30), lambda: deep(63),
    lambda: deep(64), lambda: deep(700), lambda: "\ud800", lambda: 1 << 5000, lambda: float("nan"),
    lambda: Decimal("-sNaN1"), lambda: {number * (2**61 - 1) for number in range(1, 66)},
    lambda: {number * (2**61 - 1) for number in range(1, 65)}, lambda: Counter([memoryview(b"a")]),
    lambda: {(number * (2**61 - 1), 1): 0 for number in range(1, 66)}, lambda: {"k" * 1025: 1},
    lambda: {b"k" * 1025: 1}, lambda: defaultdict(list, {Point(): 1}), lambda: OrderedDict([((Point(), 1), 1)]),
)  # fmt: skip
"""A maker for each odd object; each call makes a new object, because some objects change."""

odd = st.integers(0, len(ODD) - 1).map(lambda index: ODD[index]())
raising = st.integers(0, len(ERRORS) - 1).flatmap(
    lambda index: st.booleans().map(lambda way: Proxy(ERRORS[index]) if way else Raising(1, ERRORS[index]))
)
zoned = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.sampled_from((datetime(2024, 7, 1, 2, 30), datetime.min, datetime.max, time(2))),
    st.sampled_from((None, *ZONES)),
    st.sampled_from((0, 1)),
)


def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return containers and dataclass objects of `inner`."""
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4).map(OrderedDict),
        st.lists(inner, max_size=4).map(_hashable).map(set),
        st.lists(inner, max_size=4).map(_hashable).map(frozenset),
        st.tuples(st.lists(inner, max_size=4).map(_hashable), inner).map(lambda pair: dict.fromkeys(*pair)),
        st.builds(Point, inner, inner),
        inner.map(Slotted),
    )


def _hashable(items: list[Any]) -> list[Any]:
    found = []
    for item in items:
        try:
            hash(item)
            found.append(item) if item == item else None
        except BaseException:
            continue
    return found
