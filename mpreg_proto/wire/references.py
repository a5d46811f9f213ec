"""References: arguments that stand for another call's result (docs/explanation/requests.md).

This module defines references (`Ref`) and their encoding, resolves a reference in the given values, and turns the two
notations of the classic dialect into `Ref`s. A tree that is scanned came from strict JSON, so it is at most 64 levels
deep; deeper ones are refused. Nothing here changes a value: parts that must differ are copied, the rest is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgpack import ExtType, packb, unpackb  # type: ignore[import-untyped]

from mpreg_proto.wire.extensions import REF, REF_PATH
from mpreg_proto.wire.value_limits import MAX_DEPTH, step

NO_REF_IN_SET: Final = "a reference cannot be a member of a set"
_LARGEST_INDEX: Final = (1 << 63) - 1


class Ref(msgspec.Struct, frozen=True):
    """An argument, or a part of one, that stands for another call's result.

    `path` leads into that result: a text is a map's key, an integer >= 0 is the index in a list or tuple. A reference
    cannot be a member of a set. As a map's key it works only if the result is text or another small scalar.
    """

    name: str
    path: tuple[str | int, ...] = ()


class UnresolvedValue(Exception):
    """A reference in the bytes cannot be resolved; see the two subclasses."""


class MissingReference(UnresolvedValue):
    """No value was given for the name in a reference."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no value is given for {name!r}")
        self.name = name


class PathNotFound(UnresolvedValue):
    """The path of a reference does not exist in the value; `position` is the index of the step that failed."""

    def __init__(self, name: str, path: tuple[str | int, ...], position: int) -> None:
        where = "".join(map(step, path[: position + 1]))
        super().__init__(f"the result of {name!r} has no {where}")
        self.name = name
        self.path = path
        self.position = position


class BadReference(Exception):
    """A classic argument has an invalid reference. `path` is the place in it (`$`, `$[2].x`), `text` the reason."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.text = text


def write_reference(ref: Ref) -> ExtType:
    """Return the extension for `ref`. Raises TypeError or ValueError, with the reason, if it is not well formed."""
    if type(ref.name) is not str:
        raise TypeError("the name in a reference is text")
    if not ref.path:
        return ExtType(REF, ref.name.encode())
    fault = _path_fault(ref.path)
    if fault:
        raise ValueError(fault)
    return ExtType(REF_PATH, packb([ref.name, *ref.path], buf_size=256))


def read_reference(code: int, payload: bytes) -> Ref:
    """Return the reference in an extension.

    Raises ValueError for an invalid payload; errors of msgpack pass through.
    """
    if code == REF:
        return Ref(payload.decode())
    parts = unpackb(payload, max_array_len=MAX_DEPTH + 1, max_map_len=0, max_ext_len=0)
    if type(parts) is not list or len(parts) < 2 or type(parts[0]) is not str or _path_fault(parts[1:]):
        raise ValueError("not a reference")
    return Ref(parts[0], tuple(parts[1:]))


def resolve(ref: Ref, inputs: Mapping[str, object]) -> object:
    """Return the value that `ref` stands for, shared. Raises MissingReference or PathNotFound."""
    try:
        value = inputs[ref.name]
    except KeyError:
        raise MissingReference(ref.name) from None
    for position, key in enumerate(ref.path):
        if isinstance(value, dict):
            there = type(key) is str and key in value
        else:
            there = type(key) is int and isinstance(value, (list, tuple)) and key < len(value)
        if not there:
            raise PathNotFound(ref.name, ref.path, position)
        value = value[key]  # type: ignore[index]  # checked above
    return value


def scan_classic(value: object, names: Container[str], own: str) -> tuple[object, tuple[str, ...]]:
    """Return `value` with a `Ref` in place of each text that names another call, and the names found.

    `names` are all calls of the request, `own` is the call that `value` belongs to. Scans lists and the values of
    dicts, never keys. Returns the same object if nothing was replaced; names come in order of first appearance.
    Raises BadReference for a tree deeper than 64 levels.
    """
    refs: dict[str, Ref] = {}

    def look(item: object, depth: int) -> object:
        if type(item) is str:
            if item in names and item != own:
                return refs.get(item) or refs.setdefault(item, Ref(item))
            return item
        return _children(item, depth, look)

    return look(value, 0), tuple(refs)


def scan_explicit(value: object) -> tuple[object, tuple[str, ...]]:
    """Replace `{"$ref": name}`, `{"$ref": name, "path": [...]}` and `{"$data": x}`; return the names found as well.

    A dict with the key `$ref` must be exactly one of the first two. A dict with `$data` must have no other key, and `x`
    is not scanned. Returns the same object if nothing was replaced; names come in order of first appearance. Raises
    BadReference, also for a tree deeper than 64 levels.
    """
    dependencies: dict[str, None] = {}

    def look(item: object, depth: int) -> object:
        if type(item) is dict:
            if "$ref" in item:
                ref = _explicit(item)
                dependencies[ref.name] = None
                return ref
            if "$data" in item:
                if len(item) > 1:
                    raise BadReference("$", "a dict with $data has no other key")
                return item["$data"]
        return _children(item, depth, look)

    return look(value, 0), tuple(dependencies)


def _children(value: object, depth: int, look: Callable[[object, int], object]) -> object:
    """Return `value` with the results of `look` for its items; `value` itself if that changes nothing."""
    if type(value) is list:
        items: Iterable[tuple[str | int, object]] = enumerate(value)
        children: Iterable[object] = value
    elif type(value) is dict:
        items, children = value.items(), value.values()
    else:
        return value
    if _LOOKED_AT.isdisjoint(map(type, children)):
        return value
    if depth == MAX_DEPTH:
        raise BadReference("$", f"nested deeper than {MAX_DEPTH} levels")
    changed: dict[str | int, object] = {}
    key: str | int = 0
    try:
        for key, item in items:
            made = look(item, depth + 1)
            if made is not item:
                changed[key] = made
    except BadReference as error:
        raise BadReference(f"${step(key)}{error.path[1:]}", error.text) from None
    if not changed:
        return value
    if type(value) is dict:
        return {**value, **changed}
    return [changed.get(index, item) for index, item in enumerate(value)]


def _explicit(marked: dict[str, object]) -> Ref:
    name = marked["$ref"]
    if type(name) is not str:
        raise BadReference('$["$ref"]', "the name of a call is text")
    path = marked.get("path", [])
    if len(marked) > 2 or (len(marked) == 2 and "path" not in marked):
        extra = next(key for key in marked if key not in ("$ref", "path"))
        raise BadReference("$", f"a dict with $ref has no other key than path, not {extra[:40]!a}")
    if type(path) is not list:
        raise BadReference("$.path", "a path is a list")
    fault = _path_fault(path)
    if fault:
        raise BadReference("$.path", fault)
    return Ref(name, tuple(path))


def _path_fault(path: Sequence[object]) -> str:
    """Return the fault of a path; empty if there is none."""
    if len(path) > MAX_DEPTH:
        return f"a path has at most {MAX_DEPTH} steps"
    for key in path:
        if type(key) is not str and not (type(key) is int and 0 <= key <= _LARGEST_INDEX):
            return "a step of a path is text or an integer that is not negative"
    return ""


# Items of other types hold no reference in either notation.
_LOOKED_AT: Final = frozenset({str, list, dict})
