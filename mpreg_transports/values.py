"""Value types of users that need an extra import, in addition to those of wire/values.py: UUID so far."""

from __future__ import annotations

from functools import cache
from uuid import UUID

from mpreg_proto.wire.extensions import record
from mpreg_proto.wire.values import ValueCodec

UUID_CODE = 32


def codec() -> ValueCodec:
    """Return a codec with all types that this package registers. Register your own types (codes 64 to 127) on it."""
    made = ValueCodec(record=record)
    made.register(UUID_CODE, UUID, lambda value: value.bytes, lambda data: UUID(bytes=bytes(data)), json=str)
    return made


@cache
def default_codec() -> ValueCodec:
    """Return the codec that clients, graphs and servers use by default."""
    return codec()
