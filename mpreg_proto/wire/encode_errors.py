"""The search for the reason why a value cannot be sent, and for its place in the value.

Encoding itself keeps no path, because that would slow down every value that can be sent. When encoding fails,
wire/values.py starts this second, slow search in the same order. It never runs for a value that can be sent. The
objects that it inspects may raise anything at any time: then they are the fault that is reported.
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
"""The most objects that one search inspects; a shared object counts as often as it appears."""

LONE_SURROGATE: Final = "holds half of a surrogate pair, which UTF-8 cannot say"
CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset, OrderedDict, defaultdict, Counter})
"""Types that hold values; the last three are sent as the dict that they equal."""
REGISTER: Final = "or register the type in a ValueCodec and pass codec="


class UnsendableValue(Exception):
    """A value cannot be sent.

    `path` is the place, such as `$.rows[2].x`; `type_name` the type found there; `reason` the text for people. `limit`
    holds the details of error 1014 if a limit is the reason, else None.
    """

    def __init__(self, path: str, type_name: str, reason: str, *, excess: ValueTooLarge | None = None) -> None:
        super().__init__(f"{path}: {type_name}: {reason}")
        self.path = path
        self.type_name = type_name
        self.reason = reason
        self.limit: dict[str, object] | None = None if excess is None else excess.details


class _SearchLimitReached(Exception):
    """Not an error: the search has inspected too many objects."""


class EncodeErrorSearch:
    """One search for the fault in a value, with the tables of the codec that failed to encode it."""

    __slots__ = ("_above", "_left", "_record", "_unfolds", "_writers")

    def __init__(self, writers: _Table, unfolds: _Table, record: Callable[[Any], object]) -> None:
        self._record = record
        self._writers = writers
        self._unfolds = unfolds
        self._above: dict[int, object] = {}
        """The containers around the place that is inspected, by identity."""
        self._left = _SEARCH_LIMIT

    def find_error(self, value: object, error: BaseException) -> UnsendableValue:
        """Return the first fault in `value`; `error` itself, at the root, if the search finds none."""
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
        """Return whether something in `value` contains itself. Raises whatever its objects raise."""
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
        """Return the first fault in `value`, which lies within `above` containers; `keyed`: within a key or a set."""
        self._left -= 1
        if self._left < 0:
            raise _SearchLimitReached
        try:
            return self._look(value, path, above, keyed=keyed)
        except (_SearchLimitReached, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever an object raises when it is inspected
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
        """Inspect the content of `value` with `look`; a value that contains itself is a fault."""
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
    """Return the place of something in `value` that contains itself, and that object; None if there is none.

    Inspects each object once. `inside` returns the container with the content of an object (a list is its own), or
    None for an object without content.
    """
    known: dict[int, object] = {}  # kept alive, so that no other object gets its identity
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
    """Yield for each item of a container: the step that leads to it, the item, and whether it is hashed there."""
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
    """Return whether UTF-8 can encode `value`."""
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
"""Attributes that identify types which people often try to send."""


def unknown(value: object) -> str:
    """Return the reason why an object of an unregistered type cannot be sent, and what to send instead.

    A class may provide its own reason as the text `__unsendable__`.
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
