"""The guard of a machine's inputs: one at a time, with the time in whole nanoseconds, and arguments of the right kind.

A machine calls nobody back except its tap, its codec and its entropy, and is not thread-safe. An input that comes while
another one runs would meet half a state, so it is refused before it changes anything. The check costs one `pop` and one
`append` on a list, both atomic under the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from mpreg_proto.errors import LocalProtocolError

P = ParamSpec("P")
R = TypeVar("R")


class Guarded(Protocol):
    """A machine whose inputs are guarded. `_free` has one item while no input runs."""

    _free: list[None]


G = TypeVar("G", bound=Guarded)


def exclusive(method: Callable[Concatenate[G, P], R]) -> Callable[Concatenate[G, P], R]:
    """Guard an input: raise LocalProtocolError, with nothing changed, for re-entrance or a `now` that is no int."""
    name = method.__name__

    @wraps(method)
    def guarded(self: G, *args: P.args, **kwargs: P.kwargs) -> R:
        now = kwargs.get("now", 0)
        if type(now) is not int:
            raise LocalProtocolError(
                f"{name}(now={now!r:.40}): expected whole nanoseconds (int), such as time.monotonic_ns(), "
                f"got {type(now).__name__}"
            )
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


def check_texts(what: str, value: object) -> None:
    """Raise LocalProtocolError unless `value` is a tuple, list or set of texts."""
    if isinstance(value, str):
        raise LocalProtocolError(
            f"{what}={value!r:.60}: expected a tuple of texts, got one text; write ({value!r:.60},)"
        )
    if not isinstance(value, (tuple, list, set, frozenset)) or not all(isinstance(one, str) for one in value):
        raise LocalProtocolError(f"{what}={value!r:.60}: expected a tuple of texts")


def check_kind(what: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise LocalProtocolError unless `value` is of one of these types."""
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise LocalProtocolError(f"{what}: expected {expected}, got {type(value).__name__} ({value!r:.60})")


def check_data(data: object, *, stream: bool) -> None:
    """Raise LocalProtocolError for what no transport delivers: text on a byte stream, or neither bytes nor text."""
    if stream and type(data) is str:
        raise LocalProtocolError(
            "a link with Framing.STREAM carries bytes, got text; encode it, or open the link with "
            "a framing of whole messages"
        )
    if not isinstance(data, (bytes, bytearray, memoryview, str)):
        raise LocalProtocolError(f"expected bytes or text from a link, got {type(data).__name__}")
