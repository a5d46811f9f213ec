"""Plain text for users' exceptions and types, whatever their own methods do.

Encoding, the worker and the adapters describe objects that they did not create. A `__str__` may raise, or return a
subclass of str or millions of characters, and a metaclass may hide a name. Nothing here raises, and nothing here calls
more of an object than its `__str__`.
"""

from __future__ import annotations

from typing import Final

_NAME: Final = type.__dict__["__name__"]
_QUALNAME: Final = type.__dict__["__qualname__"]
_MODULE: Final = type.__dict__["__module__"]


def cut(text: str, most: int) -> str:
    """Return `text` as an exact str of at most `most` characters, with "..." in place of what is missing."""
    return str.__str__(text) if str.__len__(text) <= most else str.__getitem__(text, slice(most - 3)) + "..."


def sendable(text: str, most: int) -> str:
    """Return `text`, cut, in characters that UTF-8 can encode: names of files may hold halves of surrogate pairs."""
    short = cut(text, most)
    return short if short.isascii() else cut(short.encode("utf-8", "backslashreplace").decode(), most)


def object_text(value: object, most: int = 1_000) -> str:
    """Return `str(value)`, cut, in characters that can be sent; if it raises, a text with the type of its exception."""
    try:
        return sendable(str(value), most)
    except BaseException as worse:  # no exception of a user's object may end anything here
        return f"<no text: its __str__ raised {type_name(type(worse))}>"


def short_name(kind: type) -> str:
    """Return the name of a type without its module, past its metaclass."""
    return cut(_NAME.__get__(kind), 200)


def type_name(kind: type, most: int = 200) -> str:
    """Return the name of a type, past its metaclass; with its module unless that is builtins or __main__."""
    try:
        name = cut(_QUALNAME.__get__(kind), most)
        module = _MODULE.__get__(kind)
        if not isinstance(module, str) or str.__str__(module) in ("builtins", "__main__"):
            return name
        return f"{cut(module, most)}.{name}"
    except BaseException:  # a `__module__` of an unforeseen kind
        return "<a type without a name>"


def exception_text(error: BaseException, most: int = 1_000) -> str:
    """Return an exception as a reason for people: its text, or its type's name if it has none."""
    return object_text(error, most) or type_name(type(error))
