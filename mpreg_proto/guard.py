"""The guard of a machine's inputs: one at a time, with the time in whole nanoseconds, and arguments of the right kind.

A machine calls nobody back except its tap, its codec and its entropy, and is not thread-safe. An input that comes while
another one runs would meet half a state, so it is refused before it changes anything. The check costs one `pop` and one
`append` on a list, both atomic under the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

from mpreg_proto.describe import cut, short_name
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.wire.messages import Call, Request

P = ParamSpec("P")
R = TypeVar("R")


class Guarded(Protocol):
    """A machine whose inputs are guarded. `_free` has one item while no input runs."""

    _free: list[None]


G = TypeVar("G", bound=Guarded)

FURTHEST: Final = 1 << 62
"""Times are nearer to 0 than this, 146 years: their sums and differences fit the 64 bits of the wire, and a float."""


def shown(value: object, most: int = 60) -> str:
    """Return `repr(value)`, cut; the name of its type if it has none, as a user's object or an int of 5,000 digits."""
    try:
        return cut(repr(value), most)
    except Exception:
        return f"<{short_name(type(value))}>"


def exclusive(method: Callable[Concatenate[G, P], R]) -> Callable[Concatenate[G, P], R]:
    """Guard an input: raise LocalProtocolError, with nothing changed, for re-entrance or a `now` that is no time."""
    name = method.__name__

    @wraps(method)
    def guarded(self: G, *args: P.args, **kwargs: P.kwargs) -> R:
        now = kwargs.get("now", 0)
        if type(now) is not int or not -FURTHEST < now < FURTHEST:
            check_time(f"{name}(now=...)", now)
        try:
            self._free.pop()
        except IndexError:
            raise LocalProtocolError(
                f"{name}() was called while another call of this {type(self).__name__} runs, by a callback of that "
                "call or in another thread: collect inputs, and make one call at a time"
            ) from None
        try:
            return method(self, *args, **kwargs)
        finally:
            self._free.append(None)

    return cast("Callable[Concatenate[G, P], R]", guarded)


def check_time(what: str, value: object) -> None:
    """Raise LocalProtocolError unless `value` is a time: an int nearer to 0 than FURTHEST."""
    if type(value) is not int:
        raise LocalProtocolError(
            f"{what}: expected whole nanoseconds (int), such as time.monotonic_ns(), "
            f"got {short_name(type(value))} ({shown(value)})"
        )
    if not -FURTHEST < value < FURTHEST:
        raise LocalProtocolError(f"{what}: expected nanoseconds of a clock, got {shown(value)}: over 146 years")


def check_text(what: str, value: object) -> None:
    """Raise LocalProtocolError unless `value` is a text that UTF-8 can carry: a str without lone surrogates."""
    check_kind(what, value, (str,))
    try:
        str.encode(value)  # type: ignore[arg-type]  # it is a str
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{what}={shown(value)}: expected a text that UTF-8 can carry: {error}") from None


def check_texts(what: str, value: object) -> tuple[str, ...]:
    """Return a tuple, list or set of texts as a tuple, a set in order. Raises LocalProtocolError for anything else."""
    if isinstance(value, str):
        raise LocalProtocolError(
            f"{what}={shown(value)}: expected a tuple of texts, got one text; write ({shown(value)},)"
        )
    if not isinstance(value, (tuple, list, set, frozenset)) or not all(type(one) is str for one in value):
        raise LocalProtocolError(f"{what}={shown(value)}: expected a tuple of texts")
    for one in value:
        check_text(what, one)
    return tuple(sorted(value)) if isinstance(value, (set, frozenset)) else tuple(value)


def check_kind(what: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise LocalProtocolError unless `value` is of one of these types, and of no subclass of one."""
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise LocalProtocolError(f"{what}: expected {expected}, got {short_name(type(value))} ({shown(value)})")


def check_request(request: object, *, encodable: bool = False) -> None:
    """Raise LocalProtocolError unless `request` is a `Request` of which each field has its type.

    `encodable`: its texts must be such that UTF-8 can carry them. A request of other fields would end the link on which
    it is sent, and with it all other requests.
    """
    if type(request) is not Request:
        raise LocalProtocolError(f"a request: expected Request, got {short_name(type(request))}")
    if type(request.calls) is not tuple:
        raise LocalProtocolError(f"the calls of a request: expected a tuple, got {shown(request.calls)}")
    for call in request.calls:
        if not _is_call(call):
            raise LocalProtocolError(f"expected a Call whose fields have their types, got {shown(call, 300)}")
    for name, is_valid in _REQUEST_FIELDS.items():
        if not is_valid(getattr(request, name)):
            raise LocalProtocolError(f"the field {name} of a request cannot be {shown(getattr(request, name))}")
    if encodable:
        for call in request.calls:
            for text in (call.name, call.function, call.version or "", *call.dependencies, *call.resources):
                check_text("a text of a call", text)
        for text in (request.caller, *(request.want or ()), *request.idempotent, *request.inputs, *request.streams):
            check_text("a text of a request", text)


def _is_call(call: object) -> bool:
    return (
        type(call) is Call
        and type(call.name) is str
        and type(call.function) is str
        and type(call.args) is bytes
        and _is_texts(call.dependencies)
        and _is_texts(call.resources)
        and (call.version is None or type(call.version) is str)
    )


def _is_texts(value: object) -> bool:
    return type(value) is tuple and (not value or all(type(one) is str for one in value))  # most are empty


def _is_number(value: object) -> bool:
    return type(value) is int


def _is_inputs(value: object) -> bool:
    return type(value) is dict and all(type(one) is str and type(value[one]) is bytes for one in value)


def _is_flag(value: object) -> bool:
    return type(value) is bool


_REQUEST_FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    "timeout": lambda value: value is None or _is_number(value),
    "want": lambda value: value is None or _is_texts(value),
    "here": _is_texts,
    "inputs": _is_inputs,
    "wait": _is_number,
    "partial": _is_flag,
    "eager": _is_flag,
    "trace": _is_flag,
    "hops": _is_number,
    "caller": lambda value: type(value) is str,
    "idempotent": _is_texts,
    "to": lambda value: type(value) is bytes,
    "via": lambda value: type(value) is tuple and all(type(one) is bytes for one in value),
    "again": _is_flag,
    "progress": _is_flag,
    "streams": _is_texts,
    "iterates": lambda value: type(value) is dict and _is_texts((*value, *value.values())),
}
"""The check of each field of a request. `id` is replaced by the core, and `calls` are checked apart."""


def check_data(data: object, *, stream: bool) -> None:
    """Raise LocalProtocolError for what no transport delivers: text on a byte stream, or neither bytes nor text."""
    if stream and isinstance(data, str):
        raise LocalProtocolError(
            "a link with Framing.STREAM carries bytes, got text; encode it, or open the link with "
            "a framing of whole messages"
        )
    if isinstance(data, memoryview):
        _check_view(data)
    elif not isinstance(data, (bytes, bytearray, str)):
        raise LocalProtocolError(f"expected bytes or text from a link, got {short_name(type(data))}")


def _check_view(data: memoryview) -> None:
    try:
        plain = data.format == "B" and data.ndim == 1 and data.contiguous
    except ValueError:
        raise LocalProtocolError("expected bytes from a link, got a memoryview that was released") from None
    if not plain:
        raise LocalProtocolError(
            f"expected bytes from a link, got a memoryview of format {data.format!r} that is not a plain row of bytes; "
            "pass bytes(view)"
        )
