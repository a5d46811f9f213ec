"""Users' values <-> MessagePack: the codec and its registry.

Arguments and results come from functions and clients as Python objects and leave as the opaque bytes that travel inside
messages, and the other way round; only the two ends of a call do this. What MessagePack lacks is in wire/extensions.py;
what needs an import of its own (UUID, NumPy) is registered by mpreg_transports. Never imports, evaluates or unpickles.

Types keep their identity: a value comes back equal and of the same type, or it is refused where it is sent. So objects
of subclasses (enum members, named tuples) are refused unless registered; only OrderedDict, defaultdict and Counter go
as the dict that they equal, and an object of a dataclass as the dict of its fields. A bytearray or memoryview comes
back as bytes; of a time zone only the offset is kept.

Arrays that are not lists are written flat, with a mark as first entry, so nothing nests inside extension payloads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgpack import ExtType, Packer  # type: ignore[import-untyped]

from mpreg_proto.wire import extensions as ext
from mpreg_proto.wire.blame import CONTAINERS, Search, UnsendableValue
from mpreg_proto.wire.reading import (
    MalformedValue,
    Mark,
    NotPlain,
    Reading,
    is_flat,
    malformed,
    measure_bytes,
    plain_extension,
    read,
    refuse_announcements,
)
from mpreg_proto.wire.references import (
    NO_REF_IN_SET,
    MissingReference,
    PathNotFound,
    Ref,
    UnresolvedValue,
    write_reference,
)
from mpreg_proto.wire.shapes import Excess, measure, ordered

__all__ = [
    "Excess",
    "MalformedValue",
    "MissingReference",
    "PathNotFound",
    "Ref",
    "UnresolvedValue",
    "UnsendableValue",
    "ValueCodec",
]

_TAKEN: Final = CONTAINERS | {type(None), bool, int, float, str, bytes, bytearray, memoryview, ExtType}


def _mark(code: int) -> ExtType:
    return ExtType(ext.MARK, bytes([code]))


_TUPLE, _SET, _FROZENSET = _mark(ext.TUPLE), _mark(ext.SET), _mark(ext.FROZENSET)


def _only(held: list[Any]) -> tuple[Any]:
    (value,) = held
    return (value,)


class ValueCodec:
    """Encodes and decodes users' values. Without state but for the registry; several threads may use one."""

    __slots__ = ("_changed", "_json", "_marks", "_readers", "_unfolds", "_writers")

    def __init__(self) -> None:
        self._writers: dict[type, Callable[[Any], object]] = {
            **ext.SCALARS,
            Ref: write_reference,
            tuple: lambda value: [_TUPLE, *value],
            set: lambda value: [_SET, *self._members(value)],
            frozenset: lambda value: [_FROZENSET, *self._members(value)],
            OrderedDict: self._write_dict,
            defaultdict: self._write_dict,
            Counter: self._write_dict,
        }
        self._readers: dict[int, Callable[[bytes], object]] = dict(ext.READERS)
        self._marks: dict[int, Mark] = {ext.TUPLE: Mark(tuple), ext.SET: Mark(set), ext.FROZENSET: Mark(frozenset)}
        self._unfolds: dict[type, Callable[[Any], object]] = {}
        self._json: dict[type, Callable[[Any], object]] = {}
        # Another object whenever something is written that `measure` cannot see into: then its bytes are measured.
        self._changed = object()

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
            if type(made) is bytes:
                return ExtType(code, made)
            self._changed = object()
            return [mark, made]

        self._writers[kind] = write
        self._unfolds[kind] = to
        self._readers[code] = from_
        self._marks[code] = Mark(lambda held: from_(*_only(held)))
        if json is not None:
            self._json[kind] = json

    def encode(self, value: object) -> bytes:
        """The bytes of `value`, the same in every process. Raises UnsendableValue, which names the place."""
        before = self._changed
        try:
            # A packer of its own costs 50 ns; so threads may share the codec, and a `to` function may encode. Its
            # buffer starts small: msgpack's 256 KiB can cost malloc system calls each time (measured: 13 us).
            data: bytes = Packer(strict_types=True, default=self._write, buf_size=1024).pack(value)
            size = len(data)
            if not is_flat(data, size):
                if self._changed is before:
                    measure(value)
                else:
                    measure_bytes(data, size)
        except Exception as error:  # also whatever users' objects raise when they are looked at
            raise Search(self._writers, self._unfolds).blame(value, error) from error
        return data

    def decode(self, data: bytes | bytearray | memoryview, *, given: Mapping[str, object] | None = None) -> object:
        """The value of `data`; its references are replaced from `given`, or stay `Ref` objects if that is None.

        What is given is shared, never copied and never looked into; the size after replacing is for the caller to count
        before. Raises MalformedValue, MissingReference or PathNotFound; nothing else, whatever the bytes.
        """
        size = len(data)
        try:
            refuse_announcements(data, size)
            reading = None if given is None else Reading(self._readers, self._marks, given)
            try:
                value = read(data, size, plain_extension if reading is None else reading.plain)
            except NotPlain:
                return (reading or Reading(self._readers, self._marks, None)).whole(data, size)
            if not is_flat(data, size):
                if reading is None or not reading.replaced:
                    measure(value)
                else:  # what was given is not looked into
                    measure_bytes(data, size)
            return value
        except (MalformedValue, UnresolvedValue):
            raise
        except Exception as error:  # msgpack's own, and whatever registered types raise
            raise malformed(error, size) from error

    def unfold(self, value: object) -> object:
        """What stands for an object of a registered type, or `value` itself. Raises whatever its function raises."""
        to = self._unfolds.get(type(value))
        return value if to is None else to(value)

    def json_form(self, value: object) -> object:
        """What a JSON client gets for an object of a registered type; `value` itself if there is nothing."""
        form = self._json.get(type(value))
        if form is not None:
            return form(value)
        made = self.unfold(value)
        return value if type(made) is bytes else made

    def _write(self, value: object) -> object:
        writer = self._writers.get(type(value))
        if writer is not None:
            return writer(value)
        if not ext.is_record(value):
            raise TypeError(type(value).__name__)
        self._changed = object()
        return ext.record(value)

    def _write_dict(self, value: dict[object, object]) -> dict[object, object]:
        self._changed = object()
        return dict(value)

    def _members(self, value: set[object] | frozenset[object]) -> list[object]:
        if Ref in set(map(type, value)):
            raise ValueError(NO_REF_IN_SET)
        return ordered(value, self.unfold)
