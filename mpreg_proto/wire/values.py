"""Users' values to MessagePack and back: the codec and its registry.

Arguments and results are Python objects in functions and clients, and opaque bytes in messages. Only the two ends of a
call convert them. Types that MessagePack lacks are in wire/extensions.py; types that need an import of their own (UUID,
NumPy) are registered by mpreg_transports. This module never imports, evaluates or unpickles anything.

Types keep their identity: a value comes back equal and of the same type, or its sender refuses it, or it is in the
table of docs/reference/values.md. There OrderedDict, defaultdict and Counter become the dict that they equal, an object
of a dataclass the dict of its fields, a bytearray or memoryview bytes, and a time zone only its offset.

Arrays that are not lists are written flat, with a mark as the first entry, so nothing nests inside extension payloads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgpack import ExtType, Packer  # type: ignore[import-untyped]
from msgpack.exceptions import OutOfData  # type: ignore[import-untyped]

from mpreg_proto.wire import extensions as ext
from mpreg_proto.wire.decode import (
    SMALL,
    ExtensionFound,
    MalformedValue,
    ValueDecoder,
    is_flat,
    malformed,
    measure_bytes,
    plain_extension,
    refuse_oversized_headers,
    skip,
    unpack,
)
from mpreg_proto.wire.encode_errors import CONTAINERS, CONTAINS_ITSELF, EncodeErrorSearch, UnsendableValue
from mpreg_proto.wire.references import (
    NO_REF_IN_SET,
    MissingReference,
    PathNotFound,
    Ref,
    UnresolvedValue,
    write_reference,
)
from mpreg_proto.wire.value_limits import (
    MAX_ARRAY,
    MAX_CONTAINERS,
    MAX_KEY,
    RECORD_AS_KEY,
    ArrayMarker,
    Unencodable,
    ValueTooLarge,
    is_small,
    measure,
    ordered,
)

__all__ = [
    "MalformedValue",
    "MissingReference",
    "PathNotFound",
    "Ref",
    "UnresolvedValue",
    "UnsendableValue",
    "ValueCodec",
    "ValueTooLarge",
    "join_items",
]

_TAKEN: Final = CONTAINERS | {type(None), bool, int, float, str, bytes, bytearray, memoryview, ExtType}


def _mark(code: int) -> ExtType:
    return ExtType(ext.MARK, bytes([code]))


_TUPLE, _SET, _FROZENSET = _mark(ext.TUPLE), _mark(ext.SET), _mark(ext.FROZENSET)


def _only(items: list[Any]) -> tuple[Any]:
    (value,) = items
    return (value,)


def join_items(items: bytes | bytearray, count: int) -> bytes:
    """Return the bytes of a list of `count` values, from the bytes of each one after the other.

    Raises ValueTooLarge if the list is over a limit, although each of its values is within all limits.
    """
    if count > MAX_ARRAY:
        raise ValueTooLarge("array entries", MAX_ARRAY, count)
    data: bytes = Packer().pack_array_header(count) + items
    if not is_flat(data, len(data)):
        refuse_oversized_headers(data, len(data))
        measure_bytes(data, len(data))
    return data


class ValueCodec:
    """The codec of users' values. Its only state is the registry, so several threads may use one codec."""

    __slots__ = ("_json", "_marks", "_readers", "_unfolds", "_writers", "record")

    def __init__(self, *, record: Callable[[Any], Mapping[Any, object]] = ext.entries_and_fields) -> None:
        """`record` returns what is sent for an object of a dataclass, and raises TypeError for one that it refuses.

        By default, an object of a dataclass that is also a dict is sent with its entries and its fields. With
        `extensions.record` it is refused. Both refuse an object that is also of another type with content.
        """
        self.record: Callable[[Any], Mapping[Any, object]] = record
        self._writers: dict[type, Callable[[Any], object]] = {
            **ext.SCALARS,
            Ref: write_reference,
            tuple: lambda value: [_TUPLE, *value],
            set: lambda value: [_SET, *self._members(value)],
            frozenset: lambda value: [_FROZENSET, *self._members(value)],
            OrderedDict: dict,
            defaultdict: dict,
            Counter: dict,
        }
        self._readers: dict[int, Callable[[bytes], object]] = dict(ext.READERS)
        self._marks: dict[int, ArrayMarker] = {
            ext.TUPLE: ArrayMarker(tuple),
            ext.SET: ArrayMarker(set),
            ext.FROZENSET: ArrayMarker(frozenset),
        }
        self._unfolds: dict[type, Callable[[Any], object]] = {}
        self._json: dict[type, Callable[[Any], object]] = {}

    def register(
        self,
        code: int,
        kind: type,
        to: Callable[[Any], object],
        from_: Callable[[Any], object],
        *,
        json: Callable[[Any], object] | None = None,
    ) -> None:
        """Send objects of exactly `kind` as extension `code` (32 to 127). Receivers must register it likewise.

        `to(object)` returns bytes, or any sendable value. `from_` takes that and returns the object; it may raise
        anything for invalid input. `json(object)` returns what a JSON client receives, itself any value that has a JSON
        form; without it that is the result of `to`, unless that is bytes. Raises ValueError for a code or type that is
        taken or not available; nothing has changed then.
        """
        if not ext.FIRST_REGISTERED <= code <= ext.LAST_REGISTERED:
            raise ValueError(f"code {code} is not between {ext.FIRST_REGISTERED} and {ext.LAST_REGISTERED}")
        if code in self._readers:
            raise ValueError(f"code {code} is taken")
        if kind in self._writers or kind in _TAKEN:
            raise ValueError(f"type {kind.__name__} has its form already")
        mark = _mark(code)

        def write(value: object) -> object:
            made = to(value)
            return ExtType(code, made) if type(made) is bytes else [mark, made]

        self._writers[kind] = write
        self._unfolds[kind] = to
        self._readers[code] = from_
        self._marks[code] = ArrayMarker(lambda items: from_(*_only(items)))
        if json is not None:
            self._json[kind] = json

    def encode(self, value: object) -> bytes:
        """Return the bytes of `value`, the same in every process. Raises UnsendableValue, which names the place."""
        try:
            return self._encode(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also whatever users' objects raise when they are inspected
            raise self.search().find_error(value, error) from error

    def _encode(self, value: object) -> bytes:
        # First, because a value that contains itself twice would grow without end.
        small = is_small(value)
        keyed = not small and self._measure(value)
        encoding = _ValueEncoding(self, value)
        # A packer for each call costs 50 ns, and lets threads share the codec and a `to` function encode. Its
        # buffer starts small: msgpack's 256 KiB can cost malloc system calls each time (measured: 13 us).
        data: bytes = Packer(strict_types=True, default=encoding.write, buf_size=1024).pack(value)
        if small and len(data) > MAX_KEY:
            measure(value)
        if not encoding.written:
            return data
        # Python code has run, so lists and dicts may have changed after their lengths were written.
        size = len(data)
        try:
            if encoding.hidden:
                if not is_flat(data, size):
                    measure_bytes(data, size)
                if encoding.keyed or keyed:
                    self.decode(data)  # the form of an object may be invalid as a key
            whole = skip(data, size) == size
        except OutOfData:
            whole = False
        if not whole:
            raise RuntimeError("it changed while it was encoded; send a copy")
        return data

    def decode(self, data: bytes | bytearray | memoryview, *, inputs: Mapping[str, object] | None = None) -> object:
        """Return the value of `data`; its references are replaced from `inputs`, or stay `Ref` objects if that is None.

        The values in `inputs` are shared, never copied and never inspected; the caller must count the size after
        replacement beforehand. Raises MalformedValue, MissingReference or PathNotFound; nothing else, for any bytes.
        """
        size = len(data)
        try:
            if size > SMALL:
                refuse_oversized_headers(data, size)
            decoder = None if inputs is None else ValueDecoder(self._readers, self._marks, inputs)
            try:
                value = unpack(data, size, plain_extension if decoder is None else decoder.reference_hook)
            except ExtensionFound:
                return (decoder or ValueDecoder(self._readers, self._marks, None)).decode_with_hooks(data, size)
            if not is_flat(data, size):
                if decoder is None or not decoder.replaced:
                    measure(value)
                else:  # the values in `inputs` are not inspected
                    measure_bytes(data, size)
            return value
        except (MalformedValue, UnresolvedValue):
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # errors of msgpack, and whatever registered types raise
            raise malformed(error, size) from error

    def _measure(self, value: object) -> bool:
        """Raise ValueTooLarge or Unencodable for a refused value; return whether keys or sets hold registered types."""
        keyed = False
        for kind in measure(value):
            if kind in self._unfolds:
                keyed = True
            elif kind not in self._writers and ext.record_of(kind) is not None:
                raise Unencodable(RECORD_AS_KEY)
        return keyed

    def search(self) -> EncodeErrorSearch:
        """Return a search for the fault in a value."""
        return EncodeErrorSearch(self._writers, self._unfolds, self.record)

    def unfold(self, value: object) -> object:
        """Return what stands for an object of a registered type, or `value` itself. Raises whatever `to` raises."""
        to = self._unfolds.get(type(value))
        return value if to is None else to(value)

    def json_form(self, value: object) -> object:
        """Return what a JSON client receives for an object of a registered type or a dataclass, else `value` itself.

        Raises whatever the function of the type raises.
        """
        form = self._json.get(type(value))
        if form is not None:
            return form(value)
        if type(value) not in self._writers and ext.record_of(type(value)) is not None:
            return self.record(value)
        made = self.unfold(value)
        return value if type(made) is bytes else made

    def _members(self, value: set[object] | frozenset[object]) -> list[object]:
        if Ref in set(map(type, value)):
            raise ValueError(NO_REF_IN_SET)
        return ordered(value, self.unfold)


_CHECK_FOR_CYCLE_AFTER: Final = 10_000
"""The number of hidden values after which the encoder checks whether the value contains itself."""


class _ValueEncoding:
    """One encoding: the hook for objects that msgpack cannot write, and its state."""

    __slots__ = ("_codec", "_count", "_root", "hidden", "keyed", "written")

    def __init__(self, codec: ValueCodec, root: object) -> None:
        self._codec = codec
        self._root = root
        self._count = 0
        self.written = False
        """True if there was any such object."""
        self.hidden = False
        """True if there was one with values inside, which `measure` cannot reach."""
        self.keyed = False
        """True if such values have keys or sets of objects of registered types."""

    def write(self, value: object) -> object:
        """Return what stands for `value`: the hook of the packer."""
        self.written = True
        kind = type(value)
        codec = self._codec
        writer = codec._writers.get(kind)
        if writer is None:
            if ext.record_of(kind) is None:
                raise TypeError("a type that is not registered")
            made: Any = codec.record(value)
        else:
            made = writer(value)
            if kind in _PLAIN_ARRAYS or type(made) is ExtType:
                return made
        self._look(made[1] if kind in codec._unfolds else made)
        return made

    def _look(self, inside: object) -> None:
        self.hidden = True
        self._count += 1
        if self._count >= _CHECK_FOR_CYCLE_AFTER:
            if self._count == _CHECK_FOR_CYCLE_AFTER and self._codec.search().has_cycle(self._root):
                raise Unencodable(CONTAINS_ITSELF)
            if self._count > MAX_CONTAINERS:
                raise ValueTooLarge("containers", MAX_CONTAINERS, self._count)
        if not is_small(inside) and self._codec._measure(inside):
            self.keyed = True


_PLAIN_ARRAYS: Final = frozenset({tuple, set, frozenset})
