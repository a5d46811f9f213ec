"""Errors as people read them, and the exit codes of docs/reference/errors.md."""

import pytest

from mpreg_proto.errors import KINDS, CommandNotFound, ExecutionFailed, OutcomeUnknown, Overloaded, RequestError
from mpreg_transports.cli.errors import CommandFailed, ExitCode, error_lines, exit_code, innermost, report_error
from mpreg_transports.config.settings import SettingsError
from mpreg_transports.errors import NotConnected

# As docs/reference/errors.md has them: 1 a function raised, 2 wrong usage or request, 3 no node reachable,
# 4 no route, 5 deadline, 6 denied, 7 cancelled or outcome unknown, 8 try again, 9 other.
CODES = {
    1000: 2, 1001: 4, 1002: 9, 1003: 1, 1004: 2, 1005: 9, 1010: 2, 1011: 2, 1012: 2, 1013: 2, 1014: 2,
    1020: 5, 1021: 7, 1022: 8, 1023: 7, 1024: 8, 1030: 6, 1031: 6, 1040: 9,
}  # fmt: skip


def test_exit_code_of_each_error_code() -> None:
    assert {kind.default_code: int(exit_code(kind("x"))) for kind in KINDS} == CODES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("of a newer version", code=1999), 9),
        (NotConnected("gone"), 3),
        (SettingsError("typo"), 2),
        (CommandFailed("no"), 2),
        (CommandFailed("no", code=ExitCode.UNKNOWN), 7),
        (KeyboardInterrupt(), 7),
        (OSError("port in use"), 9),
        (ZeroDivisionError("defect"), 9),
    ],
)
def test_exit_code_of_other_errors(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_text_of_an_os_error() -> None:
    assert error_lines(IsADirectoryError(21, "Is a directory", "out")) == ["out: is a directory"]
    assert error_lines(OSError("port in use")) == ["port in use"]
    assert error_lines(OSError(22, "Cannot use URL ws://HOST/Path")) == ["cannot use URL ws://HOST/Path"]
    assert error_lines(OSError(18, "Invalid cross-device link", "A.part", None, "B")) == [
        "A.part -> B: invalid cross-device link"
    ]


def test_innermost_error_of_groups() -> None:
    cause = NotConnected("gone")
    assert innermost(BaseExceptionGroup("a", [ExceptionGroup("b", [cause]), KeyboardInterrupt()])) is cause


def test_error_of_an_unreachable_node_names_commands_to_type() -> None:
    tried = {"ws://h:1": "cannot connect to h:1: connection refused"}
    assert error_lines(NotConnected("long text", details={"tried": tried})) == [
        "cannot reach a node at ws://h:1: connection refused",
        "start one:     mpreg serve",
        "ask another:   --url ws://HOST:PORT, or MPREG_URL",
    ]


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("ws://127.0.0.1:9009", "mpreg serve --port 9009"),
        ("ws://127.0.0.1:9001", "mpreg serve"),
        ("ws://elsewhere:9009", "mpreg serve"),
        ("nonsense", "mpreg serve"),
    ],
)
def test_command_that_starts_a_node_at_the_address(url: str, command: str) -> None:
    assert f"start one:     {command}" in error_lines(NotConnected("long text", details={"tried": {url: "refused"}}))


def test_error_without_a_candidate_lists_what_exists() -> None:
    details = {"unknown": "resources", "function": "train", "exist": ["a", "b"]}
    assert error_lines(CommandNotFound("nobody holds 'x'", details=details)) == [
        "nobody holds 'x'",
        "train is offered with: a, b",
        "see who offers what:   mpreg functions",
    ]


def test_bound_of_the_listed_resources() -> None:
    details = {"unknown": "resources", "function": "train", "exist": [f"r{number}" for number in range(21)]}
    advice = error_lines(CommandNotFound("nobody holds 'x'", details=details))[1]
    assert advice.startswith("train is offered with: r0, r1, ") and advice.endswith(", r19, ...")


def test_overload_error_has_a_retry_time() -> None:
    assert error_lines(Overloaded("full", details={"retry_after": 2.5}))[1] == "nothing has run; try again in 2.5 s"


def test_hint_of_outcome_unknown() -> None:
    assert error_lines(OutcomeUnknown("lost"))[1:] == ["it may have run: look before you repeat it"]
    assert error_lines(OutcomeUnknown("lost", details={"maybe_executed": False}))[1:] == ["nothing has run; ask again"]


def test_defect_is_one_line_and_a_hint() -> None:
    first, second = error_lines(KeyError("a\nb"))
    assert "\n" not in first and first.startswith("a defect of mpreg: KeyError: ")
    assert "MPREG_DEBUG=1" in second


def test_traceback_only_with_mpreg_debug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    error = ExecutionFailed("f failed", details={"traceback": "Traceback: theirs"})
    monkeypatch.delenv("MPREG_DEBUG", raising=False)
    assert report_error(error) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "mpreg: f failed\n  MPREG_DEBUG=1 shows where it was raised\n"
    monkeypatch.setenv("MPREG_DEBUG", "1")
    report_error(error)
    assert "Traceback: theirs" in capsys.readouterr().err
