"""Equality of users' values, stricter than Python's: of the same type at every place, and NaN equals NaN."""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import Any


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same type at every place. NaN equals NaN; 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is dict:
        return len(one) == len(other) and all(
            same(key, there) and same(held, value)
            for (key, held), (there, value) in zip(one.items(), other.items(), strict=True)
        )
    if type(one) in (set, frozenset):
        return len(one) == len(other) and sorted(map(_token, one)) == sorted(map(_token, other))
    if isinstance(one, (float, complex, Decimal)):
        return repr(one) == repr(other)
    if isinstance(one, (datetime, time)):
        return bool(one == other) and one.utcoffset() == other.utcoffset() and one.fold == other.fold
    return bool(one == other)


def _token(value: object) -> str:
    """Return a text that distinguishes the members of a set, with nested sets in one order."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__} {sorted(map(_token, value))}"
    if isinstance(value, tuple):
        return f"tuple {list(map(_token, value))}"
    return f"{type(value).__name__} {value!r}"
