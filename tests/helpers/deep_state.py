"""The whole state of a machine as text, to see that a refused input has changed nothing."""

from __future__ import annotations

import enum
import random
import types
from typing import Any

import msgspec

_PLAIN = (int, float, str, bytes, type(None), enum.Enum)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def deep_state(value: Any, seen: dict[int, int] | None = None) -> str:
    """Return all that can be reached from `value`, with the order of its containers."""
    seen = {} if seen is None else seen
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, _NAMED):
        return value.__qualname__
    if id(value) in seen:
        return f"@{seen[id(value)]}"
    seen[id(value)] = len(seen)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    parts = [deep_state(one, seen) for one in _items(value)]
    parts += [f"{name}={deep_state(getattr(value, name), seen)}" for name in _fields(value)]
    return f"{type(value).__name__}({', '.join(parts)})"


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, (list, tuple, set, frozenset, bytearray)) else []


def _fields(value: Any) -> list[str]:
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ())]
    return [name for name in [*getattr(value, "__dict__", ()), *slots] if hasattr(value, name)]
