"""Users' values <-> MessagePack: the codec and its registry.

Arguments and results come from functions and clients as Python objects and leave as the opaque bytes that travel inside
messages, and the other way round; only the two ends of a call do this. What MessagePack lacks is in wire/extensions.py;
what needs an import of its own (UUID, NumPy) is registered by mpreg_transports. Never imports, evaluates or unpickles.

Types keep their identity: a value comes back equal and of the same type, or it is refused where it is sent, or it is in
the table of docs/reference/values.md: OrderedDict, defaultdict and Counter go as the dict that they equal, an object of
a dataclass as the dict of its fields, a bytearray or memoryview as bytes, and of a time zone only the offset is kept.

Arrays that are not lists are written flat, with a mark as first entry, so nothing nests inside extension payloads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgpack import ExtType, Packer  # type: ignore[import-untyped]
from msgpack.exceptions import OutOfData  # type: ignore[import-untyped]

from mpreg_proto.wire import extensions as ext
from mpreg_proto.wire.decode import (
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
]

_TAKEN: Final = CONTAINERS | {type(None), bool, int, float, str, bytes, bytearray, memoryview, ExtType}


def _mark(code: int) -> ExtType:
    return ExtType(ext.MARK, bytes([code]))


_TUPLE, _SET, _FROZENSET = _mark(ext.TUPLE), _mark(ext.SET), _mark(ext.FROZENSET)


def _only(items: list[Any]) -> tuple[Any]:
    (value,) = items
    return (value,)


class ValueCodec:
    """Encodes and decodes users' values. Without state but for the registry; several threads may use one."""

    __slots__ = ("_json", "_marks", "_readers", "_unfolds", "_writers", "record")

    def __init__(self, *, record: Callable[[Any], Mapping[Any, object]] = ext.entries_and_fields) -> None:
        """`record` gives what an object of a dataclass is sent as, and raises TypeError for one that it refuses.

        By itself an object that is a dataclass's and a dict's goes with its entries and its fields; with
        `extensions.record` it is refused, as is what is also of another type by both.
        """
        self.record = record
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
        """Send objects of exactly `kind` as extension `code` (32 to 127), known to all who register it likewise.

        `to(object)` gives bytes, or any sendable value; `from_` takes that and gives the object, and may raise whatever
        it likes on nonsense. `json(object)` gives what a JSON client receives, itself any value that has a JSON form;
        without it that is what `to` gives, unless that is bytes. Raises ValueError for a code or type that is taken or
        not to be had; nothing has changed then.
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
        """The bytes of `value`, the same in every process. Raises UnsendableValue, which names the place."""
        try:
            return self._encode(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also whatever users' objects raise when they are looked at
            raise self.search().find_error(value, error) from error

    def _encode(self, value: object) -> bytes:
        # First, as what contains itself twice would grow without end.
        small = is_small(value)
        keyed = not small and self._measure(value)
        encoding = _ValueEncoding(self, value)
        # A packer of its own costs 50 ns; so threads may share the codec, and a `to` function may encode. Its
        # buffer starts small: msgpack's 256 KiB can cost malloc system calls each time (measured: 13 us).
        data: bytes = Packer(strict_types=True, default=encoding.write, buf_size=1024).pack(value)
        if small and len(data) > MAX_KEY:
            measure(value)
        if not encoding.written:
            return data
        # Since Python code has run, lists and dicts may have changed after their lengths were written.
        size = len(data)
        try:
            if encoding.hidden:
                if not is_flat(data, size):
                    measure_bytes(data, size)
                if encoding.keyed or keyed:
                    self.decode(data)  # what objects become may not be fit to be a key
            whole = skip(data, size) == size
        except OutOfData:
            whole = False
        if not whole:
            raise RuntimeError("it changed while it was encoded; send a copy")
        return data

    def decode(self, data: bytes | bytearray | memoryview, *, inputs: Mapping[str, object] | None = None) -> object:
        """The value of `data`; its references are replaced from `inputs`, or stay `Ref` objects if that is None.

        What is given is shared, never copied and never looked into; the size after replacing is for the caller to count
        before. Raises MalformedValue, MissingReference or PathNotFound; nothing else, whatever the bytes.
        """
        size = len(data)
        try:
            refuse_oversized_headers(data, size)
            decoder = None if inputs is None else ValueDecoder(self._readers, self._marks, inputs)
            try:
                value = unpack(data, size, plain_extension if decoder is None else decoder.reference_hook)
            except ExtensionFound:
                return (decoder or ValueDecoder(self._readers, self._marks, None)).decode_with_hooks(data, size)
            if not is_flat(data, size):
                if decoder is None or not decoder.replaced:
                    measure(value)
                else:  # what was given is not looked into
                    measure_bytes(data, size)
            return value
        except (MalformedValue, UnresolvedValue):
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # msgpack's own, and whatever registered types raise
            raise malformed(error, size) from error

    def _measure(self, value: object) -> bool:
        """Refuse what cannot be sent (ValueTooLarge, Unencodable); whether keys or sets hold registered types."""
        keyed = False
        for kind in measure(value):
            if kind in self._unfolds:
                keyed = True
            elif kind not in self._writers and ext.record_of(kind) is not None:
                raise Unencodable(RECORD_AS_KEY)
        return keyed

    def search(self) -> EncodeErrorSearch:
        """Looks for what is wrong with a value."""
        return EncodeErrorSearch(self._writers, self._unfolds, self.record)

    def unfold(self, value: object) -> object:
        """What stands for an object of a registered type, or `value` itself. Raises whatever its function raises."""
        to = self._unfolds.get(type(value))
        return value if to is None else to(value)

    def json_form(self, value: object) -> object:
        """What a JSON client gets for an object of a registered type or a dataclass, else `value` itself.

        Raises whatever its function raises.
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
"""Hidden values after which it is asked whether they go round in a circle."""


class _ValueEncoding:
    """One encoding: what is written for objects that msgpack does not know."""

    __slots__ = ("_codec", "_count", "_root", "hidden", "keyed", "written")

    def __init__(self, codec: ValueCodec, root: object) -> None:
        self._codec = codec
        self._root = root
        self._count = 0
        self.written = False
        """Whether there was any such object."""
        self.hidden = False
        """Whether there was one with values inside that `measure` cannot see from outside."""
        self.keyed = False
        """Whether such values have keys or sets of objects of registered types."""

    def write(self, value: object) -> object:
        """What stands for `value`: the packer's hook."""
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
