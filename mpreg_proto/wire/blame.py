"""Why a value cannot be sent, and where in it that is.

Encoding itself never keeps a path, as that would cost every value that can be sent. When it fails, wire/values.py asks
here for a second, slow look in the same order. Never runs on the way of a value that can be sent.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from mpreg_proto.describe import reason, short_name
from mpreg_proto.wire.extensions import is_record, record
from mpreg_proto.wire.references import NO_REF_IN_SET, Ref
from mpreg_proto.wire.shapes import MAX_DEPTH, Excess, measure_one, step

_Table: TypeAlias = Mapping[type, Callable[[Any], object]]

_PLAIN: Final = frozenset({type(None), bool, float, bytes, bytearray})
_BASES: Final = (str, int, float, bytes, dict, list, tuple, set, frozenset)

HALF_A_PAIR: Final = "holds half of a surrogate pair, which UTF-8 cannot say"
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset, OrderedDict, defaultdict, Counter})
"""Types that hold values; the last three are sent as the dict that they equal."""


class UnsendableValue(Exception):
    """A value cannot be sent. `path` says where, such as `$.rows[2].x`; `type_name` what is there; `why` the reason.

    `limit` are the details of an error 1014, if a limit is the reason.
    """

    def __init__(self, path: str, type_name: str, why: str, *, excess: Excess | None = None) -> None:
        super().__init__(f"{path}: {type_name}: {why}")
        self.path = path
        self.type_name = type_name
        self.why = why
        self.limit = None if excess is None else excess.details


class Search:
    """One search for a fault, with the tables of the codec that found that there is one."""

    __slots__ = ("_unfolds", "_writers")

    def __init__(self, writers: _Table, unfolds: _Table) -> None:
        self._writers = writers
        self._unfolds = unfolds

    def blame(self, value: object, error: Exception) -> UnsendableValue:
        """The first fault in `value`; `error` itself, at the root, if none is to be found any more."""
        try:
            found = self._find(value, "$", 0)
        except Exception:  # an object that raises when it is looked at
            found = None
        if found is not None:
            return found
        excess = error if isinstance(error, Excess) else None
        return UnsendableValue("$", short_name(type(value)), reason(error), excess=excess)

    def _find(self, value: object, path: str, above: int) -> UnsendableValue | None:
        """The first fault in `value`, which lies within `above` containers."""
        kind = type(value)
        if kind in _PLAIN:
            return None
        if isinstance(value, str) and kind is str:
            return None if is_text(value) else UnsendableValue(path, "str", HALF_A_PAIR)
        if kind in CONTAINERS:
            return self._find_inside(value, path, above)
        unfold = self._unfolds.get(kind)
        if unfold is None and kind not in self._writers and is_record(value):
            unfold = record
        try:
            if unfold is not None:
                made = unfold(value)
                return None if type(made) is bytes else self._find(made, path, above + 1)
            if kind is memoryview:
                bytes(value)  # type: ignore[call-overload]
            elif kind not in self._writers:
                return UnsendableValue(path, kind.__name__, _unknown(value))
            else:
                self._writers[kind](value)
        except Exception as error:
            return UnsendableValue(path, kind.__name__, reason(error))
        return None

    def _find_inside(self, value: Any, path: str, above: int) -> UnsendableValue | None:
        name = type(value).__name__
        try:
            if above >= MAX_DEPTH:
                raise Excess("nesting", MAX_DEPTH, above + 1)
            measure_one(value)
        except Excess as excess:
            return UnsendableValue(path, name, str(excess), excess=excess)
        if isinstance(value, (set, frozenset)) and Ref in set(map(type, value)):
            return UnsendableValue(path, name, NO_REF_IN_SET)
        for place, held in _places(value):
            found = self._find(held, path + place, above + 1)
            if found is not None:
                return found
        return None


def _places(value: Any) -> Iterator[tuple[str, object]]:
    """What a container holds, each with the step that leads to it."""
    if isinstance(value, dict):
        for key, held in value.items():
            yield f"{{{step(key)}}}", key
            yield step(key), held
    elif isinstance(value, (list, tuple)):
        for index, held in enumerate(value):
            yield f"[{index}]", held
    else:
        for held in value:
            yield "{}", held


def is_text(value: str) -> bool:
    """Whether UTF-8 can say it."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown(value: object) -> str:
    if isinstance(value, Enum):
        return "an enum member keeps its type only if that is registered; or send its .value"
    for base in _BASES:
        if isinstance(value, base):
            return f"a subclass of {base.__name__}, which it would become; convert it, or register the type"
    return "a type that is not registered"
