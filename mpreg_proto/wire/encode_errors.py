"""Why a value cannot be sent, and where in it that is.

Encoding itself never keeps a path, as that would cost every value that can be sent. When it fails, wire/values.py asks
here for a second, slow look in the same order. Never runs on the way of a value that can be sent. The objects that it
looks at may raise anything at any time: then they are what is refused.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from msgpack import ExtType, Timestamp  # type: ignore[import-untyped]

from mpreg_proto.describe import exception_text, short_name
from mpreg_proto.wire.extensions import record_of
from mpreg_proto.wire.references import NO_REF_IN_SET, Ref
from mpreg_proto.wire.value_limits import (
    MAX_DEPTH,
    RECORD_AS_KEY,
    ValueTooLarge,
    foreign_fault,
    identity,
    measure_one,
    refuse_same_hash,
    step,
)

_Table: TypeAlias = Mapping[type, Callable[[Any], object]]

_PLAIN: Final = frozenset({type(None), bool, float, bytes, bytearray})
_FOREIGN: Final = frozenset({memoryview, ExtType, Timestamp})
_BASES: Final = (str, int, float, complex, bytes, bytearray, dict, list, tuple, set, frozenset)
_SEARCH_LIMIT: Final = 100_000
"""Objects that one search looks at: what is shared is met as often as it appears."""

LONE_SURROGATE: Final = "holds half of a surrogate pair, which UTF-8 cannot say"
CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset, OrderedDict, defaultdict, Counter})
"""Types that hold values; the last three are sent as the dict that they equal."""
REGISTER: Final = "or register the type in a ValueCodec and pass codec="


class UnsendableValue(Exception):
    """A value cannot be sent. `path` says where, such as `$.rows[2].x`; `type_name` what is there; `reason` why.

    `limit` are the details of an error 1014, if a limit is the reason.
    """

    def __init__(self, path: str, type_name: str, reason: str, *, excess: ValueTooLarge | None = None) -> None:
        super().__init__(f"{path}: {type_name}: {reason}")
        self.path = path
        self.type_name = type_name
        self.reason = reason
        self.limit = None if excess is None else excess.details


class _SearchLimitReached(Exception):
    """Not an error: the search has looked at too much."""


class EncodeErrorSearch:
    """One search for a fault, with the tables of the codec that found that there is one."""

    __slots__ = ("_above", "_left", "_record", "_unfolds", "_writers")

    def __init__(self, writers: _Table, unfolds: _Table, record: Callable[[Any], object]) -> None:
        self._record = record
        self._writers = writers
        self._unfolds = unfolds
        self._above: dict[int, object] = {}
        """What holds the place that is looked at, by its identity."""
        self._left = _SEARCH_LIMIT

    def find_error(self, value: object, error: BaseException) -> UnsendableValue:
        """The first fault in `value`; `error` itself, at the root, if none is to be found any more."""
        excess = error if isinstance(error, ValueTooLarge) else None
        try:
            if excess is not None and excess.details["limit"] in ("containers", "elements"):
                found = self._find_self_reference(value)
            else:
                found = self._find(value, "$", 0, keyed=False)
        except KeyboardInterrupt:
            raise
        except BaseException:
            found = None
        return found or UnsendableValue("$", short_name(type(value)), exception_text(error), excess=excess)

    def _find_self_reference(self, value: object) -> UnsendableValue | None:
        found = find_self_reference(value, self._inside)
        return None if found is None else UnsendableValue(found[0], short_name(type(found[1])), CONTAINS_ITSELF)

    def has_cycle(self, value: object) -> bool:
        """Whether something in `value` contains itself. Raises whatever its objects raise."""
        return self._find_self_reference(value) is not None

    def _inside(self, value: Any) -> object:
        kind = type(value)
        if kind in CONTAINERS:
            return value
        if kind in self._unfolds:
            made = self._unfolds[kind](value)
            return None if type(made) is bytes else [made]
        return self._record(value) if kind not in self._writers and record_of(kind) is not None else None

    def _find(self, value: object, path: str, above: int, *, keyed: bool) -> UnsendableValue | None:
        """The first fault in `value`, which lies within `above` containers; `keyed`: within a key or a set."""
        self._left -= 1
        if self._left < 0:
            raise _SearchLimitReached
        try:
            return self._look(value, path, above, keyed=keyed)
        except (_SearchLimitReached, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever an object raises when it is looked at
            return UnsendableValue(path, short_name(type(value)), exception_text(error))

    def _look(self, value: Any, path: str, above: int, *, keyed: bool) -> UnsendableValue | None:
        kind = type(value)
        if kind in _PLAIN:
            return None
        if kind is str:
            return None if is_text(value) else UnsendableValue(path, "str", LONE_SURROGATE)
        if kind in _FOREIGN:
            fault = foreign_fault(value)
            return UnsendableValue(path, short_name(type(value)), fault) if fault else None
        if kind in CONTAINERS:
            return self._within(value, path, lambda: self._find_inside(value, path, above, keyed=keyed))
        writer = self._unfolds.get(kind) or self._writers.get(kind)
        if writer is None and record_of(kind) is not None:
            if keyed:
                return UnsendableValue(path, short_name(type(value)), RECORD_AS_KEY)
            writer = self._record
        if writer is None:
            return UnsendableValue(path, short_name(type(value)), unknown(value))
        made = writer(value)
        if (kind not in self._unfolds and writer is not self._record) or type(made) is bytes:
            return None
        return self._within(value, path, lambda: self._find(made, path, above + 1, keyed=False))

    def _within(self, value: object, path: str, look: Callable[[], UnsendableValue | None]) -> UnsendableValue | None:
        """Look at what `value` holds, unless it holds itself."""
        if identity(value) in self._above:
            return UnsendableValue(path, short_name(type(value)), CONTAINS_ITSELF)
        self._above[identity(value)] = value
        try:
            return look()
        finally:
            del self._above[identity(value)]

    def _find_inside(self, value: Any, path: str, above: int, *, keyed: bool) -> UnsendableValue | None:
        try:
            if above >= MAX_DEPTH:
                raise ValueTooLarge("nesting", MAX_DEPTH, above + 1)
            measure_one(value)
            if isinstance(value, (dict, set, frozenset)):
                refuse_same_hash(value)
        except ValueTooLarge as excess:
            return UnsendableValue(path, short_name(type(value)), str(excess), excess=excess)
        if isinstance(value, (set, frozenset)) and Ref in set(map(type, value)):
            return UnsendableValue(path, short_name(type(value)), NO_REF_IN_SET)
        if type(value) in (list, tuple) and set(map(type, value)) <= _NUMBERS:
            self._left -= len(value) // 64
            return None
        for place, item, hashed in _places(value):
            found = self._find(item, path + place, above + 1, keyed=keyed or hashed)
            if found is not None:
                return found
        return None


CONTAINS_ITSELF: Final = "contains itself; send what it holds once, and say by a name or a number what belongs where"
_NUMBERS: Final = _PLAIN | {int}
_SCALARS: Final = _NUMBERS | {str}


def find_self_reference(value: object, inside: Callable[[Any], object]) -> tuple[str, object] | None:
    """Something in `value` that contains itself, with its place; None if there is none. Each object is looked at once.

    `inside` gives the container that holds what an object holds (a list is its own), None for what holds nothing.
    """
    known: dict[int, object] = {}  # kept, so that no identity is given to another
    above: set[int] = set()
    open_: list[tuple[object, str, Iterator[tuple[str, object, bool]]]] = []

    def enter(item: object, place: str) -> None:
        inner = inside(item)
        if inner is not None:
            known[identity(item)] = item
            above.add(identity(item))
            open_.append((item, place, _places(inner)))

    enter(value, "$")
    while open_:
        holder, _, places = open_[-1]
        for place, item, _ in places:
            if identity(item) in above:
                return "".join([step for _, step, _ in open_]) + place, item
            if identity(item) not in known and type(item) not in _SCALARS:
                enter(item, place)
                break
        else:
            above.discard(identity(holder))
            open_.pop()
    return None


def _places(value: Any) -> Iterator[tuple[str, object, bool]]:
    """What a container holds, each with the step that leads to it and whether it is hashed there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{{{step(key)}}}", key, True
            yield step(key), item, False
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item, False
    else:
        for item in value:
            yield "{}", item, True


def is_text(value: str) -> bool:
    """Whether UTF-8 can say it."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_SUGGESTIONS: Final = (
    ("_asdict", "a named tuple; send tuple(...) or ._asdict()"),
    ("tolist", "a type that is not registered; send .tolist()"),
    ("to_dict", "a type that is not registered; send .to_dict()"),
    ("model_dump", "a type that is not registered; send .model_dump()"),
    ("__fspath__", "a type that is not registered; send str(...)"),
    ("__await__", "not awaited yet; send what awaiting it gives"),
    ("readlines", "an open file; send what it holds, such as .read()"),
    ("__next__", "an iterator; send list(...)"),
    ("__code__", "a function; only data can be sent"),
)
"""Attributes by which types that people often try to send are recognized."""


def unknown(value: object) -> str:
    """Why an object of a type that nobody registered cannot be sent, and what can be sent instead.

    A type may say that itself, as the text `__unsendable__` in its class.
    """
    kind = type(value)
    bases = kind.__mro__
    for base in bases:
        if type(own := vars(base).get("__unsendable__")) is str:
            return own
    if issubclass(kind, type):
        return f"a class; only data can be sent, {REGISTER}"
    if Enum in bases:
        return f"an enum member keeps its type only if that is registered; send its .value, {REGISTER}"
    for attribute, suggestion in _SUGGESTIONS:
        if any(attribute in vars(base) for base in bases):
            return f"{suggestion}, {REGISTER}"
    for base in _BASES:
        if base in bases:
            return f"a subclass of {base.__name__}, which it would become; send {base.__name__}(...), {REGISTER}"
    for attribute, plain in (("keys", "dict"), ("__iter__", "list")):
        if any(attribute in vars(base) for base in bases):
            return f"a type that is not registered; send {plain}(...), {REGISTER}"
    return f"a type that is not registered; convert it to plain values, {REGISTER}"
