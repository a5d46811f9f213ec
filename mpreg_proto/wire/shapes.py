"""How big and how deep a value may be, in which order a set is written, and how a place in a value is named.

Used by both dialects on values that have just been decoded or are about to be sent (docs/reference/limits.md). Only
`order_key` recurses over a value, and its callers answer for RecursionError. Nothing here changes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final

MAX_DEPTH: Final = 64
"""Levels of lists, maps, tuples and sets in a value; a scalar has none."""
MAX_MAP: Final = 100_000
"""Entries of one map."""
MAX_ARRAY: Final = 1_000_000
"""Entries of one list, tuple or set."""
MAX_KEY: Final = 1024
"""Characters of a text that is a map's key."""

_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})


class Excess(Exception):
    """A value is over a limit. `details` are those of an error 1014: limit (its name), value (the bound), came."""

    def __init__(self, limit: str, value: int, came: int) -> None:
        super().__init__(_EXCESSES[limit].format(value=value, came=came))
        self.details: dict[str, object] = {"limit": limit, "value": value, "came": came}


_EXCESSES: Final = {
    "nesting": "nested deeper than {value} levels",
    "map entries": "a map of {came} entries is over the limit of {value}",
    "array entries": "an array of {came} entries is over the limit of {value}",
    "key length": "a key of {came} characters is over the limit of {value}",
}


def measure(value: object, depth: int = 0) -> None:
    """Raise Excess if `value`, which lies within `depth` containers, is over a limit.

    Goes level by level, so that almost all of it happens in C: 10 ns an element where a level holds scalars only.
    """
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Excess("nesting", MAX_DEPTH, depth)
        maps = [held for held in level if type(held) is dict]
        lists = level if not maps else [held for held in level if type(held) is not dict]
        if max(map(len, level)) > MAX_MAP or (maps and _longest_key(chain.from_iterable(maps)) > MAX_KEY):
            for held in level:
                measure_one(held)
        if _CONTAINERS.isdisjoint(map(type, _items(lists, maps))):
            return
        level = [item for item in _items(lists, maps) if type(item) in _CONTAINERS]


def _items(lists: list[Any], maps: list[dict[Any, Any]]) -> Iterator[object]:
    """What the containers of one level hold; a map's keys count too, as a tuple may be one."""
    held = chain.from_iterable(lists)
    return chain(held, chain.from_iterable(maps), chain.from_iterable(map(dict.values, maps))) if maps else held


def _longest_key(keys: Iterable[Any]) -> int:
    """Length of the longest key that is text; more than that if one of another type is longer, or has no length."""
    try:
        return max(map(len, keys), default=0)
    except TypeError:
        return MAX_KEY + 1


def measure_one(held: Any) -> None:
    """Raise Excess if the container `held` has too many entries, or a key that is too long."""
    if not isinstance(held, dict):
        if len(held) > MAX_ARRAY:
            raise Excess("array entries", MAX_ARRAY, len(held))
        return
    if len(held) > MAX_MAP:
        raise Excess("map entries", MAX_MAP, len(held))
    if _longest_key(held) > MAX_KEY:
        longest = max((len(key) for key in held if type(key) is str), default=0)
        if longest > MAX_KEY:
            raise Excess("key length", MAX_KEY, longest)


def step(key: object) -> str:
    """One step of a path as text: `.x`, `[2]`, or `["odd key"]`."""
    if type(key) is int:
        return f"[{key:d}]" if abs(key) < 1 << 64 else "[a large integer]"
    if type(key) is str:
        short = key if len(key) <= 40 else key[:40] + "…"
        return f".{short}" if short.isidentifier() and short.isascii() else f"[{short!a}]"
    if key is None or type(key) in (bool, float):
        return f"[{key!r}]"
    return f"[a {type(key).__name__}]"


def ordered(values: Iterable[object], unfold: Callable[[object], object]) -> list[object]:
    """The members of a set in an order that does not depend on the process: sorted where they can be.

    `unfold` gives the value that stands for an object of a registered type, and may raise.
    """
    found = list(values)
    kinds = set(map(type, found))
    if len(kinds) > 1 or not kinds <= {str, int, bytes}:
        # Comparing may be partial (frozensets, NaN) or impossible; from a fixed order even that ends in a fixed order.
        found.sort(key=lambda each: order_key(each, unfold))
    try:
        found.sort()
    except (TypeError, ArithmeticError):  # of different types; a signalling Decimal
        found.sort(key=lambda each: order_key(each, unfold))
    return found


def order_key(value: Any, unfold: Callable[[object], object]) -> str:
    """A text that is equal for equal values of one type and the same in every process."""
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
