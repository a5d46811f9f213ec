"""A user's exception as a `Raised`: its type, its text and its origin, whatever its class does.

Some libraries raise exceptions whose text raises, whose attributes raise, whose cause is a property, or whose text
contains all rows of a query. So this module calls nothing of the exception but `str()`. It reads the data that CPython
itself keeps (traceback, cause, context, notes, members of a group) by the descriptors of the base classes, cuts each
text, and bounds chains and groups. It raises nothing, and does not use calls or nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from traceback import TracebackException
from types import TracebackType
from typing import Any, Final

from mpreg_proto.describe import cut, object_text, type_name
from mpreg_proto.effects import FAILURE_SUMMARY, FAILURE_TEXT, Raised

_FRAMES: Final = 50
"""The frames of a traceback that are shown: the innermost ones."""
_CHAIN: Final = 10
"""The exceptions of a chain that are shown: the latest ones."""
_GROUP: Final = 5
"""The exceptions of a group that are shown."""
_DEPTH: Final = 2
"""The depth of nested groups that is shown."""
_NOTES: Final = 10

_CAUSE: Final[Any] = BaseException.__dict__["__cause__"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]
_SUPPRESS_CONTEXT: Final[Any] = BaseException.__dict__["__suppress_context__"]
_DICT: Final[Any] = BaseException.__dict__["__dict__"]
_TRACEBACK: Final[Any] = BaseException.__dict__["__traceback__"]
_MEMBERS: Final[Any] = BaseExceptionGroup.__dict__["exceptions"]

_CAUSED_BY: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe_exception(error: BaseException, *, skip_frames: int = 1) -> Raised:
    """Describe `error`. The `skip_frames` outermost frames of its traceback belong to this package and are left out.

    There is no traceback if no frame is left.
    """
    kind = type_name(type(error))
    text = object_text(error, FAILURE_TEXT)
    try:
        frames = _TRACEBACK.__get__(error)
        while skip_frames and frames is not None:
            skip_frames, frames = skip_frames - 1, frames.tb_next
        lines = "" if frames is None else "".join(_chain(error, frames))
    except BaseException:  # an error of a source file's loader, or of an exception with an unforeseen defect
        lines = ""
    if len(lines) > FAILURE_TEXT:
        lines = "...\n" + lines[4 - FAILURE_TEXT :]  # the end names the exception that was raised
    return Raised(kind, text, lines)


def _chain(error: BaseException, frames: TracebackType) -> Iterator[str]:
    """Yield the lines of `error` after those of its causes, as Python prints them: the earliest first."""
    links: list[tuple[BaseException, TracebackType | None, str]] = [(error, frames, "")]
    seen = [error]
    while len(links) <= _CHAIN:
        earlier, separator = _previous(links[-1][0])
        if earlier is None or any(earlier is one for one in seen):
            break
        seen.append(earlier)
        links.append((earlier, _TRACEBACK.__get__(earlier), separator))
    for one, where, separator in reversed(links):
        yield from _lines(one, where, _DEPTH)
        yield separator


def _previous(error: BaseException) -> tuple[BaseException | None, str]:
    cause = _CAUSE.__get__(error)
    if cause is not None:
        return cause, _CAUSED_BY
    return (None, "") if _SUPPRESS_CONTEXT.__get__(error) else (_CONTEXT.__get__(error), _DURING)


def _lines(error: BaseException, frames: TracebackType | None, depth: int) -> Iterator[str]:
    """Yield the lines of one exception with its traceback, notes and members."""
    if frames is not None:
        yield from _frames(frames)
    if issubclass(type(error), SyntaxError):
        yield _syntax_error_location(error)
    text = object_text(error, FAILURE_SUMMARY)
    yield f"{type_name(type(error))}: {text}\n" if text else f"{type_name(type(error))}\n"
    notes = _DICT.__get__(error).get("__notes__")
    for note in notes[:_NOTES] if type(notes) is list else ():
        yield object_text(note, FAILURE_SUMMARY) + "\n"
    if issubclass(type(error), BaseExceptionGroup):
        yield from _members(_MEMBERS.__get__(error), depth)


def _members(errors: tuple[BaseException, ...], depth: int) -> Iterator[str]:
    shown = errors[: _GROUP if depth else 0]
    for number, one in enumerate(shown, 1):
        yield f"  +---------------- {number} ----------------\n"
        for text in _lines(one, _TRACEBACK.__get__(one), depth - 1):
            yield "".join(f"  | {line}\n" for line in text.splitlines())
    if len(shown) < len(errors):
        yield f"  ({len(errors) - len(shown)} more)\n"


def _frames(first: TracebackType) -> Iterator[str]:
    """Yield the innermost frames, as Python prints them, but without any access to their exception."""
    count, last = 0, first
    one: TracebackType | None = first
    while one is not None:
        count, one = count + 1, one.tb_next
    for _ in range(count - _FRAMES):
        assert last.tb_next is not None
        last = last.tb_next
    yield "Traceback (most recent call last):\n"
    if count > _FRAMES:
        yield f"  ({count - _FRAMES} frames before these are left out)\n"
    yield from TracebackException(Exception, Exception(), last).stack.format()


def _syntax_error_location(error: BaseException) -> str:
    """Return the location that a SyntaxError reports, as far as its fields have the right types."""
    fields = {name: SyntaxError.__dict__[name].__get__(error) for name in ("filename", "lineno", "text")}
    file, line, text = fields["filename"], fields["lineno"], fields["text"]
    if type(file) is not str or type(line) is not int:
        return ""
    source = f"    {cut(text.strip(), FAILURE_SUMMARY)}\n" if type(text) is str and text.strip() else ""
    return f'  File "{cut(file, FAILURE_SUMMARY)}", line {line}\n{source}'
