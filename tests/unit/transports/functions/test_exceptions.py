"""A user's exception as a `Raised`, whatever its class does when its attributes are read."""

import pytest

from mpreg_proto.effects import FAILURE_TEXT, Raised
from mpreg_transports.functions.exceptions import describe_exception


def boom(*_: object) -> object:
    raise LookupError("no")


class Text(str):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        raise LookupError

    def __len__(self) -> int:
        raise LookupError


class SubclassOfStr(Exception):
    def __str__(self) -> str:
        return Text("no")


class NoText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NoAttributes(Exception):
    __getattr__ = boom


class NothingAtAll(Exception):
    __getattribute__ = boom


class OddProperties(Exception):
    __cause__ = __context__ = __traceback__ = __notes__ = __dict__ = __class__ = property(boom)  # type: ignore[assignment]
    __suppress_context__ = property(boom)  # type: ignore[assignment]


class OddMeta(type):
    __name__ = __module__ = property(boom)  # type: ignore[assignment]

    def __getattribute__(cls, name: str) -> object:
        raise LookupError(name)


class OddNotes(Exception):
    def __init__(self) -> None:
        self.__notes__ = [Text("note"), NoText(), 3] * 1000  # type: ignore[assignment]


class OddCause(Exception):
    def __init__(self) -> None:
        self.__cause__ = NothingAtAll("inner")


def odd_module() -> BaseException:
    kind = type("Odd", (Exception,), {"__module__": 3})
    return kind("x")  # type: ignore[no-any-return]


ODD = [
    SubclassOfStr(),
    NoText(),
    NoAttributes("x"),
    NothingAtAll("x"),
    OddProperties("x"),
    OddMeta("Odd", (Exception,), {})("x"),
    OddNotes(),
    OddCause(),
    odd_module(),
    SyntaxError("bad", ("page.tmpl", 3, 1, 7)),
    SyntaxError("bad", (Text("f"), Text("1"), None, 7)),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(Text("x")),
    ImportError("x" * 100_000, name="y" * 100_000),
    NameError("name 'a' is not defined", name="a"),
    ExceptionGroup("g", [NoText(), ExceptionGroup("h", [NothingAtAll()] * 1000)] * 100),
    BaseExceptionGroup("g", [SystemExit()]),
    UnicodeDecodeError("utf-8", b"\xff" * 100_000, 0, 1, "no"),
    OSError(2, "no such file", "/\udcff"),
]


@pytest.mark.parametrize("number", range(len(ODD)))  # pytest reads its parameters, which fails for some of these
def test_odd_exceptions_are_described_in_plain_bounded_text(number: int) -> None:
    error = ODD[number]

    def body() -> None:
        raise error

    try:
        body()
    except BaseException as caught:
        described = describe_exception(caught, skip_frames=0)
    assert {type(text) for text in (described.kind, described.message, described.traceback)} == {str}
    assert described.kind and "in body" in described.traceback
    assert max(map(len, (described.kind, described.message, described.traceback))) <= FAILURE_TEXT


def test_long_text_and_notes_are_cut() -> None:
    error = ValueError("x" * 1_000_000)
    error.add_note("y" * 1_000_000)
    try:
        raise error
    except ValueError as caught:
        described = describe_exception(caught, skip_frames=0)
    assert len(described.message) == FAILURE_TEXT and described.message.endswith("...")
    assert len(described.traceback) < 5_000


def test_deep_chains_and_recursion_end_with_the_last_error() -> None:
    def deep(level: int) -> None:
        try:
            raise KeyError(level)
        except KeyError:
            if level:
                deep(level - 1)
            raise

    def endless() -> None:
        endless()

    for body in (lambda: deep(200), endless):
        try:
            body()
        except Exception as caught:
            described = describe_exception(caught, skip_frames=0)
        assert len(described.traceback) <= FAILURE_TEXT
        assert described.traceback.rstrip().rpartition("\n")[2].startswith(described.kind)


def test_cycle_of_causes() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    try:
        raise one
    except ValueError as caught:
        assert describe_exception(caught, skip_frames=0).traceback.count("ValueError") == 2


def test_chain_group_and_notes_in_a_traceback() -> None:
    def body() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            group = ExceptionGroup("both", [ValueError("a"), TypeError("b")])
            group.add_note("and a note")
            raise group from error

    try:
        body()
    except ExceptionGroup as caught:
        described = describe_exception(caught, skip_frames=0)
    for part in ("KeyError: 'inner'", "direct cause", "ExceptionGroup: both (2 sub", "and a note", "| TypeError: b"):
        assert part in described.traceback


def test_no_traceback_of_mpreg_frames_alone() -> None:
    try:
        divmod(1, 0)
    except ZeroDivisionError as caught:
        assert describe_exception(caught) == Raised("ZeroDivisionError", "integer division or modulo by zero")
