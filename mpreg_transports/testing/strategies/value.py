"""Values that can be sent (docs/reference/values.md)."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Moment = TypeVar("Moment", datetime, time)


@cache
def values(*, json: bool = False, converted: bool = False, max_leaves: int = 8) -> SearchStrategy[Any]:
    """Return a strategy for values that can be sent, of every kind, in containers at any depth.

    They arrive equal and of the same type. With `json` only values that JSON has; with `converted` also values that
    arrive as another type, such as a dataclass, which arrives as a dict.
    """
    if json and converted:
        raise ValueError("json=True and converted=True exclude each other: a converted value is not in JSON")
    if json:
        return st.recursive(_json_scalars(), _json_containers, max_leaves=max_leaves)
    leaves = st.one_of(_plain(), _rich(), _converted()) if converted else st.one_of(_plain(), _rich())
    return st.recursive(leaves, _containers, max_leaves=max_leaves)


@dataclass
class Pair:
    """A dataclass, which arrives as a dict."""

    left: Any = 1
    right: Any = 2


_INTEGERS = st.one_of(st.integers(-3, 9), st.sampled_from([-(2**63), 2**63, 2**64 - 1, 2**64, 2**70, -(10**40)]))
_ZONES = st.one_of(st.none(), st.integers(-86_399, 86_399).map(lambda offset: timezone(timedelta(seconds=offset))))


def _json_scalars() -> SearchStrategy[Any]:
    return st.one_of(
        st.none(), st.booleans(), _INTEGERS, st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=6)
    )


def _json_containers(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3))


def _plain() -> SearchStrategy[Any]:
    """Return a strategy for values without parts that MessagePack has itself."""
    return st.one_of(st.none(), st.booleans(), _INTEGERS, st.floats(), st.text(max_size=6), st.binary(max_size=6))


def _without_fold(moment: Moment) -> Moment:
    """Return the moment without `fold` if it has a time zone, as it arrives."""
    return moment if moment.tzinfo is None else moment.replace(fold=0)


def _rich() -> SearchStrategy[Any]:
    """Return a strategy for values without parts that are extensions of MessagePack."""
    return st.one_of(
        st.complex_numbers(),
        st.decimals(),
        st.uuids(),
        st.datetimes(timezones=_ZONES).map(_without_fold),
        st.dates(),
        st.times(timezones=_ZONES).map(_without_fold),
        st.timedeltas(),
    )


def _view(data: bytes) -> memoryview:
    return memoryview(data)


def _converted() -> SearchStrategy[Any]:
    """Return a strategy for values that arrive as another type."""
    entries = st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2)
    return st.one_of(
        st.binary(max_size=4).map(bytearray),
        st.binary(max_size=4).map(_view),
        entries.map(OrderedDict),
        entries.map(lambda held: defaultdict(int, held)),
        st.text(max_size=3).map(Counter),
        st.builds(Pair, st.integers(), st.text(max_size=3)),
        st.datetimes(timezones=st.just(timezone(timedelta(hours=2), "CEST"))),
    )


@cache
def _keys() -> SearchStrategy[Hashable]:
    """Return a strategy for keys of maps and members of sets."""
    single = st.one_of(
        st.none(), st.booleans(), _INTEGERS, st.text(max_size=4), st.binary(max_size=4), st.dates(), st.uuids()
    )
    return st.one_of(single, st.tuples(single, single), st.frozensets(single, max_size=2))


def _containers(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_keys(), inner, max_size=3),
        st.sets(_keys(), max_size=3),
        st.frozensets(_keys(), max_size=3),
    )
