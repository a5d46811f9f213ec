"""Limits on the size and depth of values, the order of a set in the bytes, and the names of places in a value.

Both dialects use it on values that have just been decoded or are about to be sent (docs/reference/values.md). Only
`order_key` recurses over a value, and its callers handle RecursionError. Nothing here changes a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any, Final

from msgpack import ExtType, Timestamp  # type: ignore[import-untyped]

from mpreg_proto.describe import short_name

MAX_DEPTH: Final = 64
"""Levels of lists, maps, tuples and sets in a value; a scalar has none."""
MAX_MAP: Final = 100_000
"""Entries of one map."""
MAX_ARRAY: Final = 1_000_000
"""Entries of one list, tuple or set."""
MAX_KEY: Final = 1024
"""Characters of a text that is a map's key."""
MAX_CONTAINERS: Final = 1 << 20
"""Lists, maps, tuples and sets in one value; each has one byte or more, and takes 60 or more in memory."""
MAX_ELEMENTS: Final = 1 << 25
"""Entries of all containers of one value together; keys and values of maps count separately."""
MAX_SAME_HASH: Final = 64
"""Keys of one map, or members of one set, with the same hash: each is compared with all others of that hash."""

_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})
_ROWS: Final = frozenset({list, dict, tuple})
_SETS: Final = frozenset({set, frozenset})
_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
# Types whose hash depends on a secret of the process.
_SAFE_KEYS: Final = frozenset({str, bytes})
# Types that msgpack would write by itself, but that would not come back equal.
_FOREIGN: Final = frozenset({ExtType, Timestamp, memoryview})
_FEW: Final = 64
"""The entries and containers of a small value, together: too few to exceed the allowed levels."""
_MANY: Final = 4096


identity: Final = object.__hash__
"""Distinguish objects that exist at the same time, whatever hash they define. Gives no order."""


class ValueTooLarge(Exception):
    """A value is over a limit. `details` are those of error 1014: limit (its name), value (the bound), came."""

    def __init__(self, limit: str, value: int, came: int) -> None:
        super().__init__(_EXCESSES[limit].format(value=value, came=came))
        self.details: dict[str, object] = {"limit": limit, "value": value, "came": came}


_EXCESSES: Final = {
    "nesting": "nested deeper than {value} levels",
    "map entries": "a map of {came} entries is over the limit of {value}",
    "array entries": "an array of {came} entries is over the limit of {value}",
    "key length": "a key of {came} characters is over the limit of {value}",
    "containers": "more than {value} lists, maps, tuples and sets in one value",
    "elements": "more than {value} elements in one value",
    "same hash": "{came} keys of one map or members of one set have the same hash, at most {value} may",
    "expansion": "its references stand for {came} bytes, at most {value} are allowed",
    "expansion_elements": "its references stand for {came} elements, at most {value} are allowed",
}


class ArrayMarker:
    """The first entry of an array that is not a list; `build` makes the value of the others. Only decoding uses it."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], object]) -> None:
        self.build: Callable[[list[Any]], object] = build


class Unencodable(Exception):
    """A value has a part that would not come back equal, or not at all: types of msgpack, records as keys."""


def is_small(value: object) -> bool:
    """Return whether `value` is a scalar, or a few lists, tuples and maps of a few scalars.

    In such a value, only keys can be over a limit.
    """
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind not in _ROWS:
        return False
    left = _FEW
    waiting: list[Any] = [value]
    for container in waiting:
        left -= len(container) + 1
        if left < 0:
            return False
        if type(container) is dict:
            if not _ATOMS.issuperset(map(type, container)):
                return False
            container = container.values()
        if not _ATOMS.issuperset(map(type, container)):
            for item in container:
                if type(item) in _ROWS:
                    waiting.append(item)
                elif type(item) not in _ATOMS:
                    return False
    return True


def measure(value: object, depth: int = 0) -> set[type]:
    """Raise ValueTooLarge or Unencodable if `value`, which lies within `depth` containers, cannot be sent.

    Returns the rare types of its keys and of members of sets.

    Works level by level, so that almost all of it runs in C: 10 ns for each element of a level that holds only scalars.
    A shared part counts as often as it appears, and a value that contains itself is soon over a limit.
    """
    if type(value) not in _CONTAINERS:
        refuse_foreign([value])
        return set()
    level: list[Any] = [value]
    keyed: list[Any] = []  # within keys and members of sets
    containers = elements = 0
    rare: set[type] = set()
    trusted = False
    while level or keyed:
        depth += 1
        kinds = set(map(type, level))
        maps = [container for container in level if type(container) is dict] if dict in kinds else []
        sets = [container for container in level if type(container) in _SETS] if kinds & _SETS else []
        rows = (
            level
            if not (maps or sets)
            else [container for container in level if type(container) is list or type(container) is tuple]
        )
        containers += len(level) + len(keyed)
        elements += sum(map(len, level)) + sum(map(len, keyed)) + sum(map(len, maps))
        _bound(depth, containers, elements)
        hashed = [*maps, *sets, *keyed]
        found = set(map(type, chain.from_iterable(hashed)))
        if max(map(len, chain(level, keyed))) > MAX_MAP or (str in found and _longest(maps, found) > MAX_KEY):
            for container in chain(level, keyed):
                measure_one(container)
        if len(level) > _MANY and not trusted and len(set(map(identity, level))) * 2 <= len(level):
            refuse_repetition(value)
            trusted = True
        level = _next(lambda rows=rows, maps=maps: _entries(rows, maps), _CONTAINERS)  # type: ignore[misc]
        if not found <= _SAFE_KEYS:
            rare |= _keys(hashed, found)
        keyed = _next(lambda hashed=hashed: chain.from_iterable(hashed), _CONTAINERS) if not found <= _ATOMS else []  # type: ignore[misc]
    return rare


def refuse_repetition(value: object) -> None:
    """Raise ValueTooLarge for a value that only appears small, because it shares parts or contains itself.

    Inspects each container once.
    """
    sizes: dict[int, int] = {}
    above = {identity(value)}
    open_: list[tuple[object, Iterator[Any]]] = [(value, _contained(value))]
    totals = [1]
    while open_:
        holder, items = open_[-1]
        for item in items:
            if identity(item) in sizes:
                totals[-1] += sizes[identity(item)]
                continue
            if identity(item) in above:
                raise ValueTooLarge("nesting", MAX_DEPTH, MAX_DEPTH + 1)
            above.add(identity(item))
            open_.append((item, _contained(item)))
            totals.append(1)
            break
        else:
            open_.pop()
            above.discard(identity(holder))
            total = sizes[identity(holder)] = totals.pop()
            if total > MAX_CONTAINERS:
                raise ValueTooLarge("containers", MAX_CONTAINERS, total)
            if totals:
                totals[-1] += total


def _contained(value: Any) -> Iterator[Any]:
    """Iterate over the containers directly in `value`."""
    items = chain(value, value.values()) if type(value) is dict else iter(value)
    return (item for item in items if type(item) in _CONTAINERS)


def _longest(maps: list[dict[Any, Any]], kinds: set[type]) -> int:
    """Return the length of the longest text key."""
    keys = chain.from_iterable(maps)
    if len(kinds) == 1:
        return max(map(len, keys), default=0)
    return max((len(key) for key in keys if type(key) is str), default=0)


def _entries(rows: list[Any], maps: list[dict[Any, Any]]) -> Iterator[Any]:
    """Iterate over the content of the lists, tuples and maps of one level, without keys."""
    container = chain.from_iterable(rows)
    return chain(container, chain.from_iterable(map(dict.values, maps))) if maps else container


def _next(entries: Callable[[], Iterator[Any]], wanted: frozenset[type]) -> list[Any]:
    """Return the entries of the `wanted` types. Raises Unencodable."""
    kinds = set(map(type, entries()))
    if kinds <= _ATOMS:
        return []
    if kinds & _FOREIGN:
        refuse_foreign(entries())
    return [item for item in entries() if type(item) in wanted] if kinds & wanted else []


def _keys(hashed: list[Any], kinds: set[type]) -> set[type]:
    """Check the keys and members of sets, which have these types; return the rare types. Raises ValueTooLarge."""
    for container in hashed:
        if len(container) > MAX_SAME_HASH and type(container) is not tuple:
            refuse_same_hash(container)
    return kinds - _ATOMS - _CONTAINERS


RECORD_AS_KEY: Final = (
    "an object of a dataclass is sent as a map, which can be no key and no member of a set; "
    "use a tuple, or register the type and pass codec="
)


def refuse_foreign(items: Iterable[Any]) -> None:
    """Raise Unencodable for objects that msgpack would write by itself, but that would come back as something else."""
    for item in items:
        if type(item) in _FOREIGN and (fault := foreign_fault(item)):
            raise Unencodable(fault)


def foreign_fault(item: Any) -> str:
    """Return the reason why an object of a msgpack type, or a memoryview, cannot be sent; empty if it can."""
    if type(item) is not memoryview:
        return "a type of msgpack's own; send the value that it stands for"
    if item.format != "B" or item.ndim != 1:
        return f"a view of items of format {item.format!r} in {item.ndim} dimensions; send .tolist() or .tobytes()"
    return "" if item.contiguous else "a view that is not contiguous; send .tobytes()"


def _bound(depth: int, containers: int, elements: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueTooLarge("nesting", MAX_DEPTH, depth)
    if containers > MAX_CONTAINERS:
        raise ValueTooLarge("containers", MAX_CONTAINERS, containers)
    if elements > MAX_ELEMENTS:
        raise ValueTooLarge("elements", MAX_ELEMENTS, elements)


def measure_one(container: Any) -> None:
    """Raise ValueTooLarge if `container` has too many entries, or a key that is too long."""
    if not isinstance(container, dict):
        marked = len(container) > MAX_ARRAY and isinstance(container, list) and type(container[0]) is ArrayMarker
        if len(container) - marked > MAX_ARRAY:
            raise ValueTooLarge("array entries", MAX_ARRAY, len(container) - marked)
        return
    if len(container) > MAX_MAP:
        raise ValueTooLarge("map entries", MAX_MAP, len(container))
    longest = max((len(key) for key in container if type(key) is str), default=0)
    if longest > MAX_KEY:
        raise ValueTooLarge("key length", MAX_KEY, longest)


def refuse_same_hash(keys: Collection[Any]) -> None:
    """Raise ValueTooLarge if too many keys of one map, or members of one set, have the same hash."""
    kinds = set(map(type, keys))
    if len(keys) <= MAX_SAME_HASH or kinds <= _SAFE_KEYS:
        return
    if kinds == {int} and max(keys).bit_length() <= 64 and min(keys).bit_length() <= 64:
        return  # at most 16 of them have the same hash, the value modulo 2**61 - 1
    # The result is the same in all processes, although hashes differ: so many are equal only if somebody forged them.
    most = max(Counter([key.__hash__() for key in keys]).values())
    if most > MAX_SAME_HASH:
        raise ValueTooLarge("same hash", MAX_SAME_HASH, most)


def step(key: object) -> str:
    """Return one step of a path as text: `.x`, `[2]`, or `["odd key"]`."""
    if type(key) is int:
        return f"[{key:d}]" if abs(key) < 1 << 64 else "[a large integer]"
    if type(key) is str:
        short = key if len(key) <= 40 else key[:40] + "…"
        return f".{short}" if short.isidentifier() and short.isascii() else f"[{short!a}]"
    if key is None or type(key) in (bool, float):
        return f"[{key!r}]"
    return f"[a {short_name(type(key))}]"


def ordered(values: Iterable[object], unfold: Callable[[object], object]) -> list[object]:
    """Return the members of a set in an order that does not depend on the process: sorted if possible.

    `unfold` returns the value that stands for an object of a registered type, and may raise.
    """
    found = list(values)
    kinds = set(map(type, found))
    if len(kinds) > 1 or not kinds <= {str, int, bytes}:
        # Comparison may be partial (frozensets, NaN) or impossible; from a fixed order it still ends in a fixed order.
        found.sort(key=lambda each: order_key(each, unfold))
    try:
        found.sort()
    except Exception:  # of different types; a signalling Decimal; whatever objects of registered types raise
        found.sort(key=lambda each: order_key(each, unfold))
    return found


def order_key(value: Any, unfold: Callable[[object], object]) -> str:
    """Return a text that is equal for equal values of one type, and the same in every process."""
    if type(value) is memoryview:
        value = bytes(value)
    kind = type(value)
    if kind is int:
        return f"int {value:x}"
    if kind is tuple or kind is list:
        return f"{kind.__name__} ({', '.join([order_key(each, unfold) for each in value])})"
    if kind is frozenset or kind is set:
        return f"set ({', '.join(sorted([order_key(each, unfold) for each in value]))})"
    if kind is dict:
        return f"dict ({', '.join([order_key(each, unfold) for each in value.items()])})"
    unfolded = unfold(value)
    if unfolded is value:
        return f"{kind.__name__} {value!r}"
    return f"{kind.__name__} {order_key(unfolded, unfold)}"
