"""Exceptions and results that are hard to format, to send or to keep; one maker for each name of the table.

Each class occurs in libraries, or is the smallest with the same effect: exceptions that read attributes from a dict,
that build their text from objects that are no text, that carry a whole file as their argument.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from mpreg_proto.errors import Draining, Overloaded
from mpreg_transports.links.base import LinkEnded

VERY_LONG = 20_000_000
LONG = 3_000_000
"""A number of characters, longer than any message of the matrix may be."""


class OddText(str):
    """A str subclass that breaks the methods of text."""

    def encode(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError("this text cannot be encoded")

    def isascii(self) -> NoReturn:
        raise ValueError("nobody knows")

    def __getitem__(self, key: Any) -> NoReturn:
        raise ValueError("this text cannot be cut")

    def __format__(self, spec: str) -> NoReturn:
        raise ValueError("this text cannot be formatted")


class StrSubclass(Exception):
    def __str__(self) -> str:
        return OddText("boom")


class TextOfStrSubclass(Exception):
    """As markupsafe.Markup in an exception of a template: the argument has a str subclass."""


class StrRaises(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class StrRaisesBase(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class StrIsNoText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class GetattrRaises(Exception):
    def __getattr__(self, name: str) -> Any:
        return {"status": 500}[name]


class GetattributeRaises(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)


class CauseRaises(Exception):
    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise ValueError("no cause")


class ContextRaises(Exception):
    @property
    def __context__(self) -> NoReturn:  # type: ignore[override]
        raise ValueError("no context")

    @property
    def __suppress_context__(self) -> NoReturn:  # type: ignore[override]
        raise ValueError("nobody knows")


class TracebackRaises(Exception):
    @property
    def __traceback__(self) -> NoReturn:  # type: ignore[override]
        raise ValueError("no traceback")


class TracebackIsNone(Exception):
    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        return None


class ClassLies(Exception):
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise ValueError("of no class")


class _Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__"):
            raise ValueError("without a name")
        return super().__getattribute__(name)


class MetaclassRaises(Exception, metaclass=_Meta):
    pass


class ModuleIsNoText(Exception):
    pass


ModuleIsNoText.__module__ = None  # type: ignore[assignment]


class NameWithSurrogate(Exception):
    pass


NameWithSurrogate.__qualname__ = "Bad\udc80"


class NameLong(Exception):
    pass


NameLong.__qualname__ = "N" * LONG


class EqualityRaises(Exception):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError("ambiguous")

    def __bool__(self) -> bool:
        raise TypeError("ambiguous")


class Base(BaseException):
    """A BaseException that is no Exception, as pytest's outcomes."""


class Unpicklable(Exception):
    """An exception with an attribute that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NotUnpicklable(Exception):
    """Can be pickled but not unpickled, as exceptions with two arguments and one `args`."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


class Columns:
    """A namespace as formula evaluators have one."""

    def __getitem__(self, name: str) -> Any:
        return {"b": 1}[name]


class DirRaises:
    def __dir__(self) -> NoReturn:
        raise RuntimeError("no names")

    def __getattribute__(self, name: str) -> Any:
        raise AttributeError(name, name=name, obj=self)


def _with(error: BaseException, **attributes: Any) -> BaseException:
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def _raised(body: Callable[[], object]) -> BaseException:
    try:
        body()
    except BaseException as error:
        return error
    raise AssertionError("the body did not raise")


def _recursion() -> BaseException:
    def deeper() -> None:
        deeper()

    return _raised(deeper)


def _chain(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(length):
        error = _with(ValueError(f"number {number}"), __cause__=error)
    return error


def _circle() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _deep_group(depth: int) -> BaseException:
    error: Exception = ValueError("inside")
    for _ in range(depth):
        error = ExceptionGroup("around", [error])
    return error


def _noted(*notes: str) -> BaseException:
    error = ValueError("short")
    for note in notes:
        error.add_note(note)
    return error


def _in_odd_file() -> BaseException:
    code = compile("def body():\n    raise ValueError('boom')\n", "odd-\udc80.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    return _raised(names["body"])


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "raises": lambda: ValueError("boom"),
    "raises-without-text": RuntimeError,
    "raises-assertion": AssertionError,
    "raises-str-subclass": lambda: StrSubclass("boom"),
    "raises-text-of-str-subclass": lambda: TextOfStrSubclass(OddText("boom")),
    "raises-str-raises": lambda: StrRaises("boom"),
    "raises-str-raises-base": lambda: StrRaisesBase("boom"),
    "raises-str-is-no-text": lambda: StrIsNoText("boom"),
    "raises-repr-raises": lambda: ValueError(ReprRaises(), ReprRaises()),
    "raises-getattr-raises": lambda: GetattrRaises("boom"),
    "raises-getattribute-raises": lambda: GetattributeRaises("boom"),
    "raises-cause-raises": lambda: CauseRaises("boom"),
    "raises-context-raises": lambda: ContextRaises("boom"),
    "raises-traceback-raises": lambda: TracebackRaises("boom"),
    "raises-traceback-is-none": lambda: TracebackIsNone("boom"),
    "raises-class-lies": lambda: ClassLies("boom"),
    "raises-metaclass-raises": lambda: MetaclassRaises("boom"),
    "raises-module-is-no-text": lambda: ModuleIsNoText("boom"),
    "raises-name-with-surrogate": lambda: NameWithSurrogate("boom"),
    "raises-name-long": lambda: NameLong("boom"),
    "raises-equality-raises": lambda: EqualityRaises("boom"),
    "raises-syntax-error": lambda: SyntaxError("bad template", ("page.tmpl", 3, 1, 7)),  # type: ignore[arg-type]
    "raises-syntax-error-long": lambda: SyntaxError("bad template", ("page.tmpl", 3, 1, "x" * LONG)),
    "raises-name-error": lambda: _raised(lambda: eval("a + b", {}, Columns())),  # type: ignore[arg-type]
    "raises-attribute-error": lambda: _raised(lambda: DirRaises().anything),
    "raises-import-error-long": lambda: ImportError("none", name="n" * LONG, path="p" * LONG),
    "raises-unicode-error-long": lambda: UnicodeDecodeError("utf-8", b"\xff" * LONG, 0, LONG, "r" * LONG),
    "raises-notes-long": lambda: _noted("n" * LONG),
    "raises-notes-many": lambda: _noted(*["note"] * 300_000),
    "raises-notes-are-odd": lambda: _with(ValueError("short"), __notes__=[ReprRaises(), OddText("note"), None]),
    "raises-cause-long": lambda: _with(ValueError("short"), __cause__=ValueError("c" * LONG)),
    "raises-causes-many": lambda: _chain(5_000),
    "raises-causes-in-a-circle": _circle,
    "raises-group": lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    "raises-group-of-base": lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), SystemExit(1)]),
    "raises-group-wide": lambda: ExceptionGroup("several", [ValueError("x" * 1000) for _ in range(5_000)]),
    "raises-group-deep": lambda: _deep_group(5_000),
    "raises-group-of-odd": lambda: ExceptionGroup("several", [StrRaises("boom"), GetattrRaises("boom")]),
    "raises-recursion": _recursion,
    "raises-in-odd-file": _in_odd_file,
    "raises-text-long": lambda: ValueError("x" * VERY_LONG),
    "raises-text-with-surrogate": lambda: ValueError("no such file: caf\udce9"),
    "raises-text-with-controls": lambda: ValueError("\x00\x1b[2J\r\n\u202e"),
    "raises-memory-error": MemoryError,
    "raises-base": lambda: Base("boom"),
    "raises-system-exit": lambda: SystemExit(3),
    "raises-keyboard-interrupt": KeyboardInterrupt,
    "raises-generator-exit": GeneratorExit,
    "raises-stop-iteration": lambda: StopIteration(7),
    "raises-stop-async-iteration": lambda: StopAsyncIteration(7),
    "raises-cancelled-error": lambda: asyncio.CancelledError("boom"),
    "raises-cancelled-error-of-futures": lambda: concurrent.futures.CancelledError("boom"),
    "raises-timeout-error": lambda: TimeoutError("too slow"),
    "raises-connection-error": lambda: ConnectionResetError("gone"),
    "raises-overloaded": lambda: Overloaded("full", details={"retry_after": 1.0, "maybe_executed": False}),
    "raises-draining": lambda: Draining("leaving", details={"maybe_executed": False}),
    "raises-link-ended": lambda: LinkEnded("gone"),
    "raises-unpicklable": lambda: Unpicklable("boom"),
    "raises-not-unpicklable": lambda: NotUnpicklable("boom", "bang"),
}


class ItemsRaise(dict[str, Any]):
    def items(self) -> NoReturn:
        raise RuntimeError("no items")

    def __iter__(self) -> NoReturn:
        raise RuntimeError("no keys")


def _circular() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def _deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(100_000):
        made = [made]
    return made


RESULTS: dict[str, Callable[[], Any]] = {
    "returns-nothing": lambda: None,
    "returns-nan": lambda: float("nan"),
    "returns-surrogate": lambda: "caf\udce9",
    "returns-object": object,
    "returns-lock": threading.Lock,
    "returns-circle": _circular,
    "returns-depth": _deep,
    "returns-items-raise": lambda: ItemsRaise(a=1),
    "returns-too-long": lambda: b"x" * 3_000_000,
    "returns-too-long-for-clients": lambda: b"x" * 1_500_000,
}
"""The sizes exceed the limits of `house.py`: 1 MiB for messages of clients, 2 MiB between nodes."""
