"""Native messages: every body is a message, a BadRequest to be answered, or RemoteProtocolError; nothing else.

Input: one byte for the mode. The rest is a body as it is, or a real body with one part replaced (the corpus holds real
ones). A decoded message is equal after its own encoding, and `msgpack` reads and writes the same arrays.
"""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from mpreg_proto.errors import RemoteProtocolError
from mpreg_proto.wire import dialects
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message
from mpreg_transports.testing.fuzz.draws import Draws
from mpreg_transports.testing.fuzz.targets.values import build

KINDS: tuple[int, ...] = tuple(kind.__struct_config__.tag for kind in Message.__args__)


def harness(data: bytes) -> None:
    """Run the mode that the first byte selects."""
    draws = Draws(data)
    way = draws.below(3)
    if way == 2:
        body = msgpack.packb([draws.pick(KINDS), *(build(draws, 4, plain=True) for _ in range(draws.below(12)))])
    else:
        splices = draws.take(4) if way else b""
        body = _replaced(draws.rest(), Draws(splices)) if way else draws.rest()
    read(body)


def read(body: bytes) -> None:
    """Decode, and compare the message with its own encoding and with msgpack."""
    try:
        message = dialects.decode(body)
    except RemoteProtocolError as error:
        assert error.code in (1010, 1014, 1040), error
        return
    if isinstance(message, BadRequest):
        assert message.fault.code == 1010 and message.fault.details["path"].startswith("$"), message
        return
    encoded = dialects.encode(message)
    again = dialects.decode(encoded)
    assert type(again) is type(message), again
    assert dialects.encode(again) == encoded, f"a second journey changes {message}"
    try:
        foreign = msgpack.packb(msgpack.unpackb(encoded, strict_map_key=False, timestamp=0))
    except (ValueError, TypeError, msgpack.StackError):
        return  # details of a fault may be deeper than msgpack supports, or have keys that it cannot hash
    theirs = dialects.decode(foreign)
    assert type(theirs) is type(message), f"msgpack's {message} is read as {theirs}"


def _replaced(body: bytes, draws: Draws) -> bytes:
    """Return a body with one element of its array replaced by another value, or unchanged if it is no array."""
    try:
        array: Any = msgpack.unpackb(body, strict_map_key=False)
    except Exception:  # any error of msgpack for invalid data
        return body
    if not isinstance(array, list) or not array:
        return body
    place = draws.below(len(array))
    array[place] = draws.pick((None, -1, 2**64 - 1, "", "x", b"", [], {}, True, 1.5, [[]], array[0], array))
    try:
        packed: bytes = msgpack.packb(array)
    except (ValueError, TypeError):  # an array within itself
        return body
    return packed
