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


def raised_at(depth: int) -> str:
    """Return the traceback of an exception that is raised in so many nested calls."""

    def call(level: int) -> None:
        if level == 1:
            raise ValueError("at the end")
        call(level - 1)

    try:
        call(depth)
    except ValueError as caught:
        return describe_exception(caught).traceback
    raise AssertionError


@pytest.mark.parametrize(
    ("depth", "shown", "left_out"), [(1, 1, 0), (49, 49, 0), (50, 50, 0), (51, 50, 1), (60, 50, 10)]
)
def test_innermost_frames_of_a_traceback(depth: int, shown: int, left_out: int) -> None:
    first, *lines = raised_at(depth).splitlines()
    assert first == "Traceback (most recent call last):"
    assert [line for line in lines if "left out" in line] == (
        [f"  ({left_out} frames before these are left out)"] if left_out else []
    )
    assert lines[-1] == "ValueError: at the end" and any('raise ValueError("at the end")' in line for line in lines)
    repeated = next((line for line in lines if "more time" in line), "0")
    named = sum(line.lstrip().startswith("File ") for line in lines)
    assert named + int("".join(filter(str.isdigit, repeated))) == shown, "equal frames are counted, not repeated"


def chained(count: int, *, suppress: bool = False) -> str:
    """Return the traceback of the last of so many exceptions, each raised while the one before it was handled."""
    try:
        try:
            if count > 1:
                chained_raise(count - 1)
        except ValueError as earlier:
            raise ValueError(f"number {count}") from (None if suppress else earlier)
        raise ValueError("number 1")
    except ValueError as caught:
        return describe_exception(caught, skip_frames=0).traceback


def chained_raise(count: int) -> None:
    try:
        if count > 1:
            chained_raise(count - 1)
    except ValueError:
        raise ValueError(f"number {count}")  # noqa: B904 - its context is what is shown
    raise ValueError("number 1")


@pytest.mark.parametrize(("count", "first"), [(1, 1), (3, 1), (11, 1), (12, 2), (30, 20)])
def test_latest_exceptions_of_a_chain(count: int, first: int) -> None:
    shown = [line for line in chained(count).splitlines() if line.startswith("ValueError: ")]
    assert shown == [f"ValueError: number {number}" for number in range(first, count + 1)]


def test_kinds_of_links_in_a_chain() -> None:
    assert "direct cause" in chained(2) and "During handling" not in chained(2)
    assert chained(3).count("During handling") == 1
    assert "number 1" not in chained(2, suppress=True)


def test_shown_members_of_a_group() -> None:
    group = ExceptionGroup("outer", [ValueError(str(number)) for number in range(7)])
    nested = ExceptionGroup("a", [ExceptionGroup("b", [ExceptionGroup("c", [ValueError("deepest")])])])
    for error, parts, missing in (
        (group, ["- 5 -", "| ValueError: 4", "  (2 more)"], "ValueError: 5"),
        (nested, ["| ExceptionGroup: b", "| ExceptionGroup: c", "(1 more)"], "deepest"),
    ):
        try:
            raise error
        except ExceptionGroup as caught:
            found = describe_exception(caught, skip_frames=0).traceback
        assert all(part in found for part in parts) and missing not in found


def test_first_notes_of_an_exception() -> None:
    error = ValueError("x")
    for number in range(12):
        error.add_note(f"note {number}")
    try:
        raise error
    except ValueError as caught:
        lines = describe_exception(caught, skip_frames=0).traceback.splitlines()
    assert [line for line in lines if line.startswith("note")] == [f"note {number}" for number in range(10)]


def test_location_of_a_syntax_error() -> None:
    try:
        raise SyntaxError("bad", ("page.tmpl", 3, 1, "  some text "))
    except SyntaxError as caught:
        lines = describe_exception(caught, skip_frames=0).traceback.splitlines()
    assert lines[-3:] == ['  File "page.tmpl", line 3', "    some text", "SyntaxError: bad (page.tmpl, line 3)"]
