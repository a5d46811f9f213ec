"""Users' types that need an import of their own, on top of what wire/values.py knows: UUID so far."""

from __future__ import annotations

from functools import cache
from uuid import UUID

from mpreg_proto.wire.extensions import record
from mpreg_proto.wire.values import ValueCodec

UUID_CODE = 32


def codec() -> ValueCodec:
    """A codec with all that this package registers; register types of your own (codes 64 to 127) on top."""
    made = ValueCodec(record=record)
    made.register(UUID_CODE, UUID, lambda value: value.bytes, lambda data: UUID(bytes=bytes(data)), json=str)
    return made


@cache
def default_codec() -> ValueCodec:
    """The one that clients, graphs and servers use unless they are given another."""
    return codec()
