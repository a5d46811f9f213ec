"""One decoding of a user's value: what msgpack's hooks do, and what is refused before and after.

Bytes come from wire/values.py. Plain bytes (no extension but references) are decoded without hooks for containers; at
the first other extension decoding starts anew with them, because only then can a hash be cheap to forge (tuples,
complex, large integers) or dear to compute (shared results). Never allocates for what the bytes only announce.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from msgpack import Unpacker, unpackb  # type: ignore[import-untyped]
from msgpack.exceptions import ExtraData, OutOfData, StackError  # type: ignore[import-untyped]

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
# What is this short can neither hold a key that is too long nor announce much.
_SMALL: Final = 1024
_SCALAR_BYTES: Final = bytes(each for each in range(256) if not (0x80 <= each <= 0x9F or 0xDC <= each <= 0xDF))
_ANNOUNCED: Final = re.compile(r"(\d+) exceeds max_(array|map)_len")


class MalformedValue(Exception):
    """The bytes are not a value. `limit` are the details of an error 1014, if a limit is the reason."""

    def __init__(self, reason: str, *, excess: ValueTooLarge | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = None if excess is None else excess.details


class ExtensionFound(Exception):
    """Not an error: there are extensions, so hooks are needed."""


def plain_extension(code: int, payload: bytes) -> object:
    """The hook of a first attempt that replaces no references."""
    if code in _REFS:
        return read_reference(code, payload)
    raise ExtensionFound


def unpack(
    data: bytes | bytearray | memoryview, size: int, hook: Callable[[int, bytes], object], **hooks: Any
) -> object:
    """Decode with counts bounded; raises whatever msgpack and the hooks raise."""
    return unpackb(
        data,
        ext_hook=hook,
        strict_map_key=False,
        timestamp=3,  # another language's instant: an aware datetime in UTC
        max_array_len=size if size < MAX_ARRAY else MAX_ARRAY + 1,  # a mark is no entry
        max_map_len=size if size < MAX_MAP else MAX_MAP,
        **hooks,
    )


def is_flat(data: bytes | bytearray | memoryview, size: int) -> bool:
    """Whether the bytes cannot possibly hold a value that is over a limit; False proves nothing."""
    if size <= MAX_DEPTH:  # each level takes a byte
        return True
    return size <= _SMALL and len(bytes(data).translate(None, _SCALAR_BYTES)) <= MAX_DEPTH


def refuse_oversized_headers(data: bytes | bytearray | memoryview, size: int) -> None:
    """Raise OutOfData for bytes that end too early, before decoding allocates what their headers announce; and
    ValueTooLarge for more containers than a value may have, each of which takes many times its length in memory.
    """
    if size > _SMALL:
        skip(data, size)
    if size > MAX_CONTAINERS and len(bytes(data).translate(None, _SCALAR_BYTES)) > MAX_CONTAINERS:
        count(data, size)


def skip(data: bytes | bytearray | memoryview, size: int) -> int:
    """The length of the first value in the bytes. Raises OutOfData if they end before it does."""
    unpacker = Unpacker(max_buffer_size=max(size, 1))
    unpacker.feed(data)
    unpacker.skip()
    return int(unpacker.tell())


def count(data: bytes | bytearray | memoryview, size: int) -> int:
    """How many elements the bytes hold; no more than one level of each container is built. Raises ValueTooLarge."""
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
    """How often each reference appears in the bytes. Raises whatever msgpack raises for what is not a value."""
    uses: dict[Ref, int] = {}

    def hook(code: int, payload: bytes) -> None:
        if code in _REFS:
            ref = read_reference(code, payload)
            uses[ref] = uses.get(ref, 0) + 1

    refuse_oversized_headers(data, len(data))
    unpack(data, len(data), hook)
    return uses


def _marks_only(code: int, payload: bytes) -> ArrayMarker | None:
    return _MARKED if code == MARK else None


def measure_bytes(data: bytes | bytearray | memoryview, size: int) -> None:
    """Like `measure`, of the arrays and maps as they lie in the bytes, so that it sees into every type."""
    measure(unpack(data, size, _marks_only, object_pairs_hook=_flatten))


def _flatten(pairs: list[tuple[object, object]]) -> list[object]:
    longest = max((len(key) for key, _ in pairs if type(key) is str), default=0)
    if longest > MAX_KEY:
        raise ValueTooLarge("key length", MAX_KEY, longest)
    return list(chain.from_iterable(pairs))


class _CostlyHash(Exception):
    """Not an error: a result that is dear to hash is referred to, so see first whether it would be hashed."""


class _Placeholder:
    """Such a result, while that is being seen."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise MalformedValue("a reference to a tuple, frozenset or large integer is in a key or in a set")


class _Parts:
    """An object of a registered type, then: any of its parts may count for its hash."""

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
    """The hooks of one decoding, and what they remember."""

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
        self._open = 0  # marks that have come and have not been used up by their array
        self._checked = False  # whether results that are dear to hash are known not to be hashed
        self.replaced = 0
        """References that were replaced; where there are none, the value holds nothing but what was in the bytes."""

    def reference_hook(self, code: int, payload: bytes) -> object:
        """The hook of a first attempt that replaces references."""
        if code not in _REFS:
            raise ExtensionFound
        value = self._resolve(code, payload)
        if _is_costly(value):
            raise ExtensionFound
        return value

    def decode_with_hooks(self, data: bytes | bytearray | memoryview, size: int) -> object:
        """Decode with all hooks; raises whatever msgpack, registered types and the hooks raise."""
        if not is_flat(data, size):
            measure_bytes(data, size)
        hooks: dict[str, Any] = {"list_hook": self._array}
        if size > _SMALL:
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
        """The hook of an attempt that fails where a costly result would be hashed, at whatever depth of a key."""
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
    """Whether hashing `value` takes long, and again each time."""
    if isinstance(value, int):
        return value.bit_length() > 64
    return isinstance(value, (tuple, frozenset))


def malformed(error: BaseException, size: int) -> MalformedValue:
    """Any exception of a decoding as the one that is declared."""
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
    if announced is not None or isinstance(error, OutOfData):
        return MalformedValue("the bytes end too early")
    kind = short_name(type(error))
    return MalformedValue(kind if text == kind else f"{kind}: {text}")
