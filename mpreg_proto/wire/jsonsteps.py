"""A parser of long JSON texts in steps: the trees and faults of `jsonvalues.loads`, with pauses for other work.

`wire/classic.py` uses it for messages for which one call would block the event loop of a node. CPython's parser does
the work on windows of the text. Only a container that does not fit into a window is walked here, without recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # as json's own Python scanner uses it
from re import compile as regex
from typing import Any, Final

from mpreg_proto.wire.encode_errors import LONE_SURROGATE, is_text
from mpreg_proto.wire.jsonvalues import (
    BYTE_ORDER_MARK,
    DECODER,
    ESCAPED_SURROGATE,
    MalformedJson,
    duplicate,
    has_lone_surrogate,
    malformed,
)
from mpreg_proto.wire.value_limits import MAX_ARRAY, MAX_DEPTH, ValueTooLarge, measure, measure_one

WINDOW: Final = 16 * 1024
"""The number of characters parsed between two pauses; this takes 1 to 3 ms for any content."""
_SPACE: Final = regex(r"[ \t\n\r]*")
_SCALARS: Final = regex(r'[^\[\]{}"]*,')
_TEXTS: Final = regex(r'(?:[ \t\n\r]*"[^"\\\x00-\x1f]*"[ \t\n\r]*,)+')
_WORTH_A_RUN: Final = 16
_ENDS: Final[dict[type, str]] = {list: "]", dict: "}"}
_scan: Final[Callable[[str, int], tuple[Any, int]]] = DECODER.scan_once  # type: ignore[attr-defined]
_OPENED: Final = object()
"""A placeholder for a value whose container was opened and is now walked."""


def loads(text: str | bytes | bytearray | memoryview) -> Generator[None, None, Any]:
    """Parse one JSON text; yield wherever a pause is possible. The generator's value is the tree.

    Raises MalformedJson.
    """
    tree: Any = None
    try:
        if not isinstance(text, str):
            text = str(text, "utf-8")
        elif not is_text(text):
            raise MalformedJson(LONE_SURROGATE)
        yield
        parser = _Parser(text)
        yield from parser.steps()
        tree = parser.tree
        if parser.excess is not None:
            raise parser.excess
    except ValueTooLarge as excess:
        raise MalformedJson(str(excess), excess=excess, tree=tree) from None
    except (ValueError, RecursionError, MemoryError, MalformedJson) as error:
        raise malformed(error) from None
    return tree


class _Parser:
    """The parser of one text. `steps` sets `tree`, and `excess` to the first limit that the text exceeds, if any."""

    def __init__(self, text: str) -> None:
        self.tree: Any = None
        self.excess: ValueTooLarge | None = None
        self._text = text
        self._position = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
        self._window = ""
        self._start = 0
        """The offset of the window in the text."""
        self._suspect = False
        """True if the window holds an escaped surrogate, which may be half of a pair."""
        self._no_run_before = 0
        """The position before which a run of scalars cannot be taken at once."""
        self._stack: list[tuple[Any, str]] = []
        """The containers that are walked, each with its key in the container around it."""
        self._dropped: dict[int, int] = {}
        """By depth: the number of elements that a list over the limit does not keep."""

    def steps(self) -> Generator[None, None, None]:
        """Parse with pauses. Raises JSONDecodeError, MalformedJson, ValueTooLarge; ValueError for too many digits."""
        self._skip_space()
        self._add("", self._element(""))
        while self._stack:
            pause = self._position + WINDOW
            while self._stack and self._position < pause:
                if self._advance() is _OPENED:
                    break
            yield
        self._skip_space()
        if self._position < len(self._text):
            raise JSONDecodeError("Extra data", self._text, self._position)

    def _advance(self) -> object:
        """Take the next part of the innermost container; return _OPENED if that opened another container."""
        container = self._stack[-1][0]
        key = ""
        if not container and self._peek() == _ENDS[type(container)]:
            self._end()
            return None
        if type(container) is dict:
            key = self._key(container)
        elif self._run(container) or self._several(container):
            if len(container) > MAX_ARRAY:  # it is refused, so the rest need not be kept
                self._dropped[len(self._stack)] = self._dropped.get(len(self._stack), 0) + len(container) - MAX_ARRAY
                del container[MAX_ARRAY:]
            return None
        value = self._element(key)
        if value is not _OPENED:
            self._add(key, value)
        elif type(container) is dict:
            container[key] = None  # keeps its place
        return value

    def _key(self, container: dict[str, Any]) -> str:
        if self._peek() != '"':
            raise JSONDecodeError("Expecting property name enclosed in double quotes", self._text, self._position)
        key: str
        key, self._position = scanstring(self._text, self._position + 1, True)
        if not is_text(key):
            raise MalformedJson(LONE_SURROGATE)
        if key in container:
            raise duplicate(key)
        self._skip_space()
        if self._peek() != ":":
            raise JSONDecodeError("Expecting ':' delimiter", self._text, self._position)
        self._position += 1
        self._skip_space()
        return key

    def _run(self, container: list[Any]) -> bool:
        """Take a run of scalars, or of plain texts, at once; return whether there was one."""
        if self._position < self._no_run_before:
            return False
        offset = self._look()
        found = _SCALARS.match(self._window, offset) or _TEXTS.match(self._window, offset)
        if found is None or found.end() - offset < _WORTH_A_RUN:
            return False
        try:
            container += DECODER.decode(f"[{self._window[offset : found.end() - 1]}]")
        except (ValueError, MalformedJson):  # parsed again, one by one, to find the place
            self._no_run_before = self._start + found.end()
            return False
        self._position += found.end() - offset
        self._skip_space()
        return True

    def _several(self, container: list[Any]) -> bool:
        """Take the next elements in the window that a comma follows; return whether there was one."""
        began = offset = self._look()
        window = self._window
        longest = 2 * (MAX_DEPTH - len(self._stack))
        while True:
            try:
                value, end = _scan(window, offset)
            except (StopIteration, ValueError, RecursionError, MalformedJson):
                break
            if window[end : end + 1] != ",":
                break
            if self._suspect or end - offset > longest:
                self._check(value, end - offset)
            container.append(value)
            offset = end + 1
        self._position += offset - began
        self._skip_space()
        return offset > began

    def _element(self, key: str) -> Any:
        """Return the value that begins here, or _OPENED."""
        while True:
            offset = self._look()
            value: Any = _OPENED
            try:
                value, end = _scan(self._window, offset)
            except (StopIteration, ValueError, RecursionError, MalformedJson):
                end = len(self._window)
            at_end = self._start + len(self._window) == len(self._text)
            # A number may continue beyond the window, although the part inside is valid: 1.5 as 1.
            whole = self._window[end : end + 1] not in ("", ".", "e", "E")
            if value is not _OPENED and (whole or at_end):
                self._position += end - offset
                self._check(value, end - offset)
                return value
            if offset == 0:
                return self._long(key)
            self._window = ""  # it begins inside a window: try again with a window from here

    def _long(self, key: str) -> Any:
        """Parse what begins here, which is longer than a window or malformed; return the value, or _OPENED."""
        first = self._peek()
        if first not in _OPENERS:
            try:
                value, self._position = _scan(self._text, self._position)
            except StopIteration as stop:
                raise JSONDecodeError("Expecting value", self._text, stop.value) from None
            if type(value) is str and not is_text(value):
                raise MalformedJson(LONE_SURROGATE)
            return value
        if len(self._stack) >= MAX_DEPTH:
            raise ValueTooLarge("nesting", MAX_DEPTH, MAX_DEPTH + 1)
        self._stack.append(([] if first == "[" else {}, key))
        self._position += 1
        self._skip_space()
        return _OPENED

    def _check(self, value: Any, length: int) -> None:
        """Refuse halves of surrogate pairs; record an exceeded limit if the element is long enough for that."""
        if self._suspect and has_lone_surrogate(value):
            raise MalformedJson(LONE_SURROGATE)
        if length > 2 * (MAX_DEPTH - len(self._stack)):
            try:
                measure(value, len(self._stack))
            except ValueTooLarge as excess:
                self.excess = self.excess or excess

    def _add(self, key: str, value: Any) -> None:
        """Put a value into its container; take the comma, or the end of the container, after it."""
        if value is _OPENED:
            return
        if not self._stack:
            self.tree = value
            return
        container = self._stack[-1][0]
        if type(container) is list:
            container.append(value)
        else:
            container[key] = value
        self._skip_space()
        found = self._peek()
        if found == _ENDS[type(container)]:
            self._end()
        elif found == ",":
            self._position += 1
            self._skip_space()
        else:
            raise JSONDecodeError("Expecting ',' delimiter", self._text, self._position)

    def _end(self) -> None:
        """Close the innermost container."""
        self._position += 1
        dropped = self._dropped.pop(len(self._stack), 0)
        container, key = self._stack.pop()
        try:
            if dropped:
                raise ValueTooLarge("array entries", MAX_ARRAY, len(container) + dropped)
            measure_one(container)
        except ValueTooLarge as excess:
            self.excess = self.excess or excess
        self._add(key, container)

    def _look(self) -> int:
        """Move the window over the position if needed; return the offset of the position in the window."""
        offset = self._position - self._start
        if not 0 <= offset < len(self._window):
            self._start = self._position
            self._window = self._text[self._start : self._start + WINDOW]
            self._suspect = ESCAPED_SURROGATE.search(self._window) is not None
            offset = 0
        return offset

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._position)
        assert found is not None, "it matches nothing too"
        self._position = found.end()


_OPENERS: Final = ("[", "{")
