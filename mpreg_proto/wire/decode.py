"""Decoding of users' values: the hooks for msgpack, and the checks before and after.

The bytes come from wire/values.py. Plain bytes (no extensions but references) are decoded without hooks for containers.
At the first other extension, decoding starts again with these hooks: only then can a hash be cheap to forge (tuples,
complex, large integers) or costly to compute (shared results). No memory is allocated for what headers only announce.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from msgpack import Unpacker, unpackb  # type: ignore[import-untyped]
from msgpack.exceptions import ExtraData, FormatError, OutOfData, StackError  # type: ignore[import-untyped]

from mpreg_proto.describe import exception_text, short_name
from mpreg_proto.wire.extensions import FIRST_REGISTERED, MARK, REF, REF_PATH
from mpreg_proto.wire.references import NO_REF_IN_SET, Ref, read_reference, resolve
from mpreg_proto.wire.value_limits import (
    MAX_ARRAY,
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_KEY,
    MAX_MAP,
    MAX_SAME_HASH,
    ArrayMarker,
    ValueTooLarge,
    measure,
    refuse_same_hash,
)

_REFS: Final = (REF, REF_PATH)
# Bytes this short can neither hold a key that is too long nor announce much.
SMALL: Final = 1024
_SCALAR_BYTES: Final = bytes(each for each in range(256) if not (0x80 <= each <= 0x9F or 0xDC <= each <= 0xDF))
_INCOMPLETE: Final = "Unpack failed: incomplete input"
_ANNOUNCED: Final = re.compile(r"(\d+) exceeds max_(array|map)_len")


class MalformedValue(Exception):
    """The bytes are not a value. `limit` holds the details of error 1014 if a limit is the reason, else None."""

    def __init__(self, reason: str, *, excess: ValueTooLarge | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit: dict[str, object] | None = None if excess is None else excess.details


class ExtensionFound(Exception):
    """Not an error: the bytes hold extensions, so decoding needs hooks."""


def plain_extension(code: int, payload: bytes) -> object:
    """The hook of a first attempt that replaces no references."""
    if code in _REFS:
        return read_reference(code, payload)
    raise ExtensionFound


def unpack(
    data: bytes | bytearray | memoryview, size: int, hook: Callable[[int, bytes], object], **hooks: Any
) -> object:
    """Decode with bounded counts. Raises whatever msgpack and the hooks raise."""
    return unpackb(
        data,
        ext_hook=hook,
        strict_map_key=False,
        timestamp=3,  # a timestamp of another language: an aware datetime in UTC
        max_array_len=size if size < MAX_ARRAY else MAX_ARRAY + 1,  # a mark is not an entry
        max_map_len=size if size < MAX_MAP else MAX_MAP,
        **hooks,
    )


def is_flat(data: bytes | bytearray | memoryview, size: int) -> bool:
    """Return True if the bytes cannot hold a value over a limit; False proves nothing."""
    if size <= MAX_DEPTH:  # each level takes at least one byte
        return True
    return size <= SMALL and len(bytes(data).translate(None, _SCALAR_BYTES)) <= MAX_DEPTH


def refuse_oversized_headers(data: bytes | bytearray | memoryview, size: int) -> None:
    """Raise OutOfData or ValueTooLarge before decoding allocates the memory that headers announce.

    OutOfData: the bytes end too early. ValueTooLarge: they hold more containers than a value may have; each container
    takes many times its encoded length in memory.
    """
    skip(data, size)
    if size > MAX_CONTAINERS and len(bytes(data).translate(None, _SCALAR_BYTES)) > MAX_CONTAINERS:
        count(data, size)


def skip(data: bytes | bytearray | memoryview, size: int) -> int:
    """Return the length of the first value in the bytes. Raises OutOfData if the bytes end before the value."""
    unpacker = Unpacker(max_buffer_size=max(size, 1))
    unpacker.feed(data)
    unpacker.skip()
    return int(unpacker.tell())


def count(data: bytes | bytearray | memoryview, size: int) -> int:
    """Return the number of elements in the bytes; build at most one level of each container. Raises ValueTooLarge."""
    elements = containers = 0

    def array(items: list[object]) -> None:
        nonlocal elements, containers
        elements += len(items) - (bool(items) and items[0] is _MARKED)
        containers += 1
        if containers > MAX_CONTAINERS:
            raise ValueTooLarge("containers", MAX_CONTAINERS, containers)

    def pairs(items: list[tuple[object, object]]) -> None:
        array([])
        nonlocal elements
        elements += 2 * len(items)

    unpack(data, size, _marks_only, list_hook=array, object_pairs_hook=pairs)
    return elements


def references(data: bytes) -> dict[Ref, int]:
    """Return how often each reference appears in the bytes. Raises whatever msgpack raises for invalid bytes."""
    uses: dict[Ref, int] = {}

    def hook(code: int, payload: bytes) -> None:
        if code in _REFS:
            ref = read_reference(code, payload)
            uses[ref] = uses.get(ref, 0) + 1

    if len(data) > SMALL:
        refuse_oversized_headers(data, len(data))
    unpack(data, len(data), hook, object_pairs_hook=list)  # a key that is a tuple is a list here: no hash of it
    return uses


def outline(args: bytes) -> tuple[list[object], dict[str, object]]:
    """Return the positional and the named arguments of a call: references as `Ref`, other extensions as None.

    Raises whatever msgpack raises for invalid bytes, ValueError for bytes of another form.
    """

    def hook(code: int, payload: bytes) -> Ref | None:
        return read_reference(code, payload) if code in _REFS else None

    decoded: Any = unpack(args, len(args), hook, object_pairs_hook=list)
    given, named = decoded
    if not isinstance(given, list) or not isinstance(named, list):
        raise ValueError("these are no arguments")
    return given, {key: value for key, value in named if isinstance(key, str)}


def _marks_only(code: int, payload: bytes) -> ArrayMarker | None:
    return _MARKED if code == MARK else None


def measure_bytes(data: bytes | bytearray | memoryview, size: int) -> None:
    """Apply `measure` to the arrays and maps in the bytes themselves, so that it covers the content of every type."""
    measure(unpack(data, size, _marks_only, object_pairs_hook=_flatten))


def _flatten(pairs: list[tuple[object, object]]) -> list[object]:
    longest = max((len(key) for key, _ in pairs if type(key) is str), default=0)
    if longest > MAX_KEY:
        raise ValueTooLarge("key length", MAX_KEY, longest)
    return list(chain.from_iterable(pairs))


class _CostlyHash(Exception):
    """Not an error: a reference has a result that is costly to hash; check first whether it would be hashed."""


class _Placeholder:
    """A placeholder for such a result during that check."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise MalformedValue("a reference to a tuple, frozenset or large integer is in a key or in a set")


class _Parts:
    """A placeholder for an object of a registered type during that check: any of its parts may count for its hash."""

    __slots__ = ("_items",)

    def __init__(self, elements: list[Any]) -> None:
        self._items = elements

    def __hash__(self) -> int:
        waiting: list[Any] = [self._items]
        while waiting:
            part = waiting.pop()
            if type(part) is _Placeholder:
                part.__hash__()
            elif isinstance(part, dict):
                waiting.extend(part.values())  # its keys have been hashed already
            elif isinstance(part, (list, tuple)):
                waiting.extend(part)
            elif type(part) is _Parts:
                waiting.append(part._items)
        return object.__hash__(self)


_PLACEHOLDER: Final = _Placeholder()
_PARTS: Final = ArrayMarker(_Parts)
_MARKED: Final = ArrayMarker(list)


class ValueDecoder:
    """The hooks of one decoding, and their state."""

    __slots__ = ("_checked", "_inputs", "_marks", "_open", "_readers", "replaced")

    def __init__(
        self,
        readers: Mapping[int, Callable[[bytes], object]],
        marks: Mapping[int, ArrayMarker],
        inputs: Mapping[str, object] | None,
    ) -> None:
        self._readers = readers
        self._marks = marks
        self._inputs = inputs
        self._open = 0  # marks whose array is not complete yet
        self._checked = False  # True once it is known that no costly result is hashed
        self.replaced: int = 0
        """The number of references that were replaced. If 0, the value holds nothing but what was in the bytes."""

    def reference_hook(self, code: int, payload: bytes) -> object:
        """The hook of a first attempt that replaces references."""
        if code not in _REFS:
            raise ExtensionFound
        value = self._resolve(code, payload)
        if _is_costly(value):
            raise ExtensionFound
        return value

    def decode_with_hooks(self, data: bytes | bytearray | memoryview, size: int) -> object:
        """Decode with all hooks. Raises whatever msgpack, registered types and the hooks raise."""
        if not is_flat(data, size):
            measure_bytes(data, size)
        hooks: dict[str, Any] = {"list_hook": self._array}
        if size > SMALL:
            hooks["object_pairs_hook"] = self._map
        try:
            value = unpack(data, size, self._extension, **hooks)
        except _CostlyHash:
            unpack(data, size, self._without_costly, list_hook=self._array, object_pairs_hook=self._map)
            self._checked, self._open = True, 0
            value = unpack(data, size, self._extension, **hooks)
        if self._open or type(value) is ArrayMarker:
            raise MalformedValue("a mark that no array begins with")
        return value

    def _extension(self, code: int, payload: bytes) -> object:
        if code == MARK:
            (kind,) = payload
            mark = self._marks.get(kind)
            if mark is None:
                raise MalformedValue(f"extension type {kind} is not known here")
            self._open += 1
            return mark
        if code in _REFS:
            if self._inputs is None:
                return read_reference(code, payload)
            value = self._resolve(code, payload)
            if not self._checked and _is_costly(value):
                raise _CostlyHash
            return value
        reader = self._readers.get(code)
        if reader is None:
            raise MalformedValue(f"extension type {code} is not known here")
        return reader(payload)

    def _resolve(self, code: int, payload: bytes) -> object:
        assert self._inputs is not None, "without given values references stay what they are"
        self.replaced += 1
        return resolve(read_reference(code, payload), self._inputs)

    def _without_costly(self, code: int, payload: bytes) -> object:
        """The hook of an attempt that fails if a costly result would be hashed, at any depth of a key."""
        if code == MARK:
            self._open += 1
            return self._marks[payload[0]] if payload[0] < FIRST_REGISTERED else _PARTS
        if code in _REFS and _is_costly(self._resolve(code, payload)):
            return _PLACEHOLDER
        return None

    def _array(self, items: list[Any]) -> object:
        if not items or type(items[0]) is not ArrayMarker:
            return items
        self._open -= 1
        mark: ArrayMarker = items[0]
        elements = items[1:]
        if mark.build is set or mark.build is frozenset:
            if Ref in set(map(type, elements)):
                raise MalformedValue(NO_REF_IN_SET)
            refuse_same_hash(elements)
        return mark.build(elements)

    def _map(self, pairs: list[tuple[Any, object]]) -> dict[Any, object]:
        if len(pairs) > MAX_SAME_HASH:
            refuse_same_hash([key for key, _ in pairs])
        return dict(pairs)


def _is_costly(value: object) -> bool:
    """Return whether hashing `value` takes long, every time."""
    if isinstance(value, int):
        return value.bit_length() > 64
    return isinstance(value, (tuple, frozenset))


def malformed(error: BaseException, size: int) -> MalformedValue:
    """Return the MalformedValue for any exception of a decoding."""
    if isinstance(error, ValueTooLarge):
        return MalformedValue(str(error), excess=error)
    if isinstance(error, (StackError, RecursionError)):
        excess = ValueTooLarge("nesting", MAX_DEPTH, MAX_DEPTH + 1)
        return MalformedValue(str(excess), excess=excess)
    if isinstance(error, ExtraData):
        return MalformedValue("bytes after the value")
    text = exception_text(error)
    announced = _ANNOUNCED.match(text)
    if announced is not None:
        count, bound = int(announced[1]), MAX_ARRAY if announced[2] == "array" else MAX_MAP
        if bound < count <= size:
            excess = ValueTooLarge(f"{announced[2]} entries", bound, count)
            return MalformedValue(str(excess), excess=excess)
    if announced is not None or isinstance(error, OutOfData) or text.startswith(_INCOMPLETE):
        return MalformedValue("the bytes end too early")
    if isinstance(error, FormatError):
        return MalformedValue("a byte that begins no value (0xc1)")
    kind = short_name(type(error))
    return MalformedValue(kind if text == kind else f"{kind}: {text}")
