"""A hash over the state of machines: equal for machines that will behave alike, whatever steps led to them.

It walks the objects of the core itself, so that new fields of a machine are included automatically. Caches, counters
for people and values that are fixed for a run are left out. Times are relative to the node's clock, and tables are
sorted, so two worlds that learned the same facts in another order are equal.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from hashlib import blake2b
from types import FunctionType, MethodType
from typing import Any

import msgspec

from mpreg_proto.limits import Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.values import ValueCodec

_FIXED = (Limits, NodeConfig, Rng, ValueCodec, FunctionType, MethodType, type)
# Caches and masks of the index, generations; times of the last change or read; means and reported queues.
_LEFT_OUT = frozenset(
    {
        "_cache",
        "_provider_cache",
        "names",
        "_bits",
        "generation",
        "since",
        "_mean_runtime",
        "_reported_queues",
        "_log",
        "_last_ping",
        "shown",
    }
)
_TIMES = frozenset({"last_activity", "deadline", "arrived", "accepted", "started", "sent", "reached", "tried", "due"})
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_ROWS = frozenset({list, tuple, deque})


class _Encoding(enum.Enum):
    """The ways to encode an object: by its type alone, by its repr, or by its parts."""

    NAME = enum.auto()
    REPR = enum.auto()
    PARTS = enum.auto()


_ENCODINGS: dict[type, _Encoding] = {}
_SLOTS: dict[type, tuple[str, ...]] = {}


def digest(parts: list[object], clocks: list[int]) -> bytes:
    """Return a hash of 16 bytes for `parts`; `clocks` are those of the nodes in them, in their order."""
    walk = _Walk(list(clocks))
    text = walk.encode(parts)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Walk:
    """One walk over a world. `seen` numbers the visited objects, because some can be reached on several paths."""

    def __init__(self, clocks: list[int]) -> None:
        self._clocks = clocks
        self._now = 0
        self._seen: dict[int, int] = {}

    def encode(self, thing: Any) -> str:
        """Return a text that describes the state of `thing`."""
        kind = type(thing)
        if kind in _SCALARS:
            return repr(thing)
        if kind is dict or kind is OrderedDict:
            rows = [f"{self.encode(key)}:{self.encode(value)}" for key, value in thing.items()]
            return "{" + ",".join(sorted(rows)) + "}" if rows else "{}"
        if kind in _ROWS:
            return "[" + ",".join([self.encode(each) for each in thing]) + "]" if thing else "[]"
        encoding = _ENCODINGS.get(kind)
        if encoding is None:
            encoding = _ENCODINGS[kind] = _encoding_of(kind)
        if encoding is _Encoding.NAME:
            return kind.__name__
        if encoding is _Encoding.REPR:
            return repr(thing)
        if kind is Timers:
            return self.encode({key: at - self._now for key, (at, _) in thing._at.items()})
        return self._object(thing)

    def _object(self, thing: Any) -> str:
        number = self._seen.get(id(thing))
        if number is not None:
            return f"#{number}"
        self._seen[id(thing)] = len(self._seen)
        if isinstance(thing, Node):
            self._now = self._clocks.pop(0)
        rows = [type(thing).__name__]
        for name in (*_SLOTS[type(thing)], *sorted(getattr(thing, "__dict__", ()))):
            if name in _LEFT_OUT:
                continue
            value = getattr(thing, name, None)
            if type(value) is int and name in _TIMES:
                rows.append(f"{name}={value - self._now}")
            elif value is not None:
                rows.append(f"{name}={self.encode(value)}")
        return f"({','.join(rows)})"


def _encoding_of(kind: type) -> _Encoding:
    """Return how objects of a type are encoded."""
    if issubclass(kind, _FIXED) or not kind.__module__.startswith("mpreg_proto"):
        return _Encoding.NAME
    if issubclass(kind, (enum.Enum, msgspec.Struct)):
        return _Encoding.REPR
    _SLOTS[kind] = tuple(sorted(name for base in kind.__mro__ for name in getattr(base, "__slots__", ())))
    return _Encoding.PARTS
