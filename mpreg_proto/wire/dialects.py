"""The native dialect: bodies to messages and back, one MessagePack array for each message (wire/messages.py).

The other dialect is the classic JSON (wire/classic.py). A body that cannot be read raises `RemoteProtocolError` and
nothing else. An invalid body that is recognizable as a request becomes a `BadRequest`, so that it is answered and the
link goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from mpreg_proto.errors import ErrorCode, Fault, RemoteProtocolError, over_limit
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.wire.messages import Explain, Message, Request, Result
from mpreg_proto.wire.value_limits import ValueTooLarge, measure

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_loose = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode  # reads only the head of an invalid message
_SHORT = 64
encode: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode
"""Encode one message as the body of a frame."""
_REQUEST_KINDS = (Request.__struct_config__.tag, Explain.__struct_config__.tag)
_FAR_OVER = 10
"""Up to this many times the allowed calls are still decoded to find other faults: 1010 is reported before 1014."""
_KINDS: tuple[object, ...] = tuple(kind.__struct_config__.tag for kind in Message.__args__)


LONG: Final = 64 * 1024
"""The bytes from which on a message of a client is checked before it is decoded."""


class BadRequest(msgspec.Struct, frozen=True, gc=False):
    """A request of which only `id` could be read. It is to be answered with `fault`; the link goes on."""

    id: int
    fault: Fault


def decode(body: bytes | bytearray | memoryview, limits: Limits = DEFAULT) -> Message | BadRequest:
    """Return the message in `body`.

    Raises RemoteProtocolError: 1040 for an unknown kind, 1014 for errors whose details are over a limit, else 1010. A
    request with more calls or edges than `limits` allow becomes a `BadRequest`; it is counted before it is decoded.
    """
    if len(body) > min(limits.calls, limits.edges):  # each takes at least one byte
        bad = _count(body, limits)
        if bad is not None:
            return bad
    try:
        message = _decoder.decode(body)
        if type(message) is Result and (message.failed or message.fault is not None):
            _measure_details(message)
        return message
    # msgspec has no depth limit of its own: deep nesting, also inside skipped elements, ends in RecursionError.
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        why = str(error)
    try:
        loose = _loose(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RemoteProtocolError(f"not a message: {why}") from None
    kind = _scalar(loose[0]) if loose else None
    if kind in _REQUEST_KINDS and type(kind) is int:
        number = _number(loose[1]) if len(loose) > 1 else None
        if kind == _REQUEST_KINDS[1]:  # an Explain contains the request
            number = _number_inside(loose[1]) if len(loose) > 1 else None
        if number is not None:
            path, text = error_path(why)
            return BadRequest(number, Fault(ErrorCode.INVALID_REQUEST, f"{path}: {text}", {"path": path}))
    if type(kind) is int and kind not in _KINDS:
        raise RemoteProtocolError(f"message of unknown kind {kind}", code=ErrorCode.VERSION_MISMATCH)
    raise RemoteProtocolError(f"malformed message of kind {kind!r}: {why}")


def check_client_message(body: bytes | bytearray | memoryview) -> None:
    """Raise RemoteProtocolError for a long message of a client that is no request: it would be decoded for nothing."""
    try:
        kind = _scalar(_loose(body)[0])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, IndexError):
        return  # `decode` has the words
    if kind not in _REQUEST_KINDS and kind in _KINDS:
        raise RemoteProtocolError(f"a client sends no message of kind {kind} with more than {LONG} bytes")


_EMPTY = msgspec.Raw(b"\x90")
_RESOURCES_PER_CALL = 100
"""The resources that a call may ask for on average, if the request has as many calls as it may have."""


class _Names(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A call of which only the names are decoded and the dependencies are counted."""

    name: str
    function: str
    args: msgspec.Raw
    dependencies: msgspec.Raw = _EMPTY
    resources: msgspec.Raw = _EMPTY


class _Counted(msgspec.Struct, array_like=True, frozen=True, tag=_REQUEST_KINDS[0], gc=False):
    """A request of which only the id and the calls are read."""

    id: int
    calls: msgspec.Raw


class _CountedExplain(msgspec.Struct, array_like=True, frozen=True, tag=_REQUEST_KINDS[1], gc=False):
    request: _Counted


_counted = msgspec.msgpack.Decoder(_Counted | _CountedExplain)
_names = msgspec.msgpack.Decoder(list[_Names])


def _count(body: bytes | bytearray | memoryview, limits: Limits) -> BadRequest | None:
    """Return a `BadRequest` with 1014 for a request with too many calls, edges or names of other kinds, else None.

    The fault is 1010 if a name is empty as well. The decoder refuses what cannot be read here.
    """
    try:
        counted = _counted.decode(body)
        request = counted if isinstance(counted, _Counted) else counted.request
        calls = _length(request.calls)
        if calls > _FAR_OVER * limits.calls:
            return BadRequest(request.id, over_limit("calls", limits.calls, calls))
        fields = _loose(body)[1:]  # behind the kind
        if counted is not request:
            fields = _loose(fields[0])[1:]
        lengths = dict(zip(Request.__struct_fields__, map(_length, fields), strict=False))
        inputs, named = lengths.pop("inputs", 0), max([lengths[name] for name in lengths if name != "calls"])
        if named > _FAR_OVER * limits.calls:
            return BadRequest(request.id, over_limit("calls", limits.calls, named))
        if inputs > limits.edges:
            return BadRequest(request.id, over_limit("edges", limits.edges, inputs))
        names = _names.decode(request.calls)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    edges = sum([_length(call.dependencies) for call in names if len(call.dependencies) > 1])
    resources = sum([_length(call.resources) for call in names if len(call.resources) > 1])
    most_resources = _RESOURCES_PER_CALL * limits.calls
    if edges <= limits.edges and resources <= most_resources:
        return None
    for position, call in enumerate(names):  # 1010 is reported before 1014
        if not call.name or not call.function:
            path = f"$.cmds[{position}].{'fun' if call.name else 'name'}"
            return BadRequest(
                request.id, Fault(ErrorCode.INVALID_REQUEST, f"{path}: a name is not empty", {"path": path})
            )
    if edges > limits.edges:
        return BadRequest(request.id, over_limit("edges", limits.edges, edges))
    return BadRequest(request.id, over_limit("requested_resources", most_resources, resources))


def _length(container: msgspec.Raw) -> int:
    """Return the number of entries of a MessagePack array or map, from its head alone; 0 for anything else."""
    head = bytes(memoryview(container)[:5])
    if head[:1] in (b"\xdc", b"\xde"):
        return int.from_bytes(head[1:3], "big")
    if head[:1] in (b"\xdd", b"\xdf"):
        return int.from_bytes(head[1:5], "big")
    return head[0] & 0x0F if head and head[0] & 0xF0 in (0x80, 0x90) else 0


def _scalar(raw: msgspec.Raw) -> object:
    """Return the value of `raw` if it is short and can be decoded, else the text "..."."""
    if len(raw) > _SHORT:
        return "..."
    try:
        return msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return "..."


def _number(raw: msgspec.Raw) -> int | None:
    found = _scalar(raw)
    return found if type(found) is int else None


def _number_inside(raw: msgspec.Raw) -> int | None:
    """Return the id of the request in an `Explain`, or None."""
    try:
        loose = _loose(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return _number(loose[1]) if len(loose) > 1 else None


def _measure_details(result: Result) -> None:
    """Raise RemoteProtocolError if details of the errors in a `Result` are over a limit.

    Details are forwarded to the caller one level deeper, so details that can just be decoded could not always be
    encoded.
    """
    faults = [row.fault for row in result.failed]
    if result.fault is not None:
        faults.append(result.fault)
    try:
        measure([fault.details for fault in faults])
    except ValueTooLarge as excess:
        raise RemoteProtocolError(
            f"details of an error: {excess}", code=ErrorCode.LIMIT_EXCEEDED, details=excess.details
        ) from None


def error_path(why: str) -> tuple[str, str]:
    """Return the place and the text of a message of msgspec: `Expected ..., got ... - at `$[2][0]`` or without a place.

    For the key of a map, msgspec writes ``at `key` in `$[6]``: then the place is the map.
    """
    text, _, place = why.partition(" - at `")
    return place.removeprefix("key` in `").rstrip("`") or "$", f"{text[:1].lower()}{text[1:]}"
