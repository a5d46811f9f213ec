"""`call`, `run` and `explain` without a node: the meaning of arguments and files, the output of results."""

import io
import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mpreg_proto.errors import CyclicReference, ExecutionFailed, InvalidRequest, RequestError
from mpreg_proto.wire import classic
from mpreg_proto.wire.messages import Explained
from mpreg_transports.cli.commands.calls import (
    COMMAND_KEYS,
    REQUEST_KEYS,
    NegativeNumberCommand,
    argument,
    explain_table,
    failures,
    keyword,
    print_value,
    read_request,
    request_of,
    warn_about_invalid_json,
)
from mpreg_transports.cli.console import out
from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.client import GraphResult


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("1.0", 1.0),
        ("true", True),
        ("null", None),
        ('"1"', "1"),
        ('{"a": [1]}', {"a": [1]}),
        ("hi there!", "hi there!"),
        ("", ""),
        ("NaN", "NaN"),
        ("True", "True"),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ("-x", "-x"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_argument_is_strict_json_or_else_a_text(text: str, value: object) -> None:
    assert argument(text) == value
    assert type(argument(text)) is type(value)


def test_keyword_is_a_name_and_an_argument() -> None:
    assert keyword("deep=true") == ("deep", True)
    assert keyword("text=a=b") == ("text", "a=b")
    for wrong in ("deep", "=1"):
        with pytest.raises(CommandFailed, match="write it as --kw name=JSON"):
            keyword(wrong)


def parsed(*words: str) -> tuple[int, str]:
    """Return the exit code and the output of a command that prints its arguments as `mpreg call` takes them."""
    app = typer.Typer()

    @app.command(cls=NegativeNumberCommand)
    def show(args: list[str], timeout: float = 0) -> None:
        typer.echo(f"{[argument(text) for text in args]} {timeout}")

    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_negative_numbers_are_arguments_and_unknown_options_not() -> None:
    words = ("-1", "-2.5e3", "--timeout", "-5", "--", "--text", "-3")
    assert parsed(*words) == (0, "[-1, -2500.0, '--text', -3] -5.0\n")
    code, output = parsed("1", "--timout", "5")
    assert code == 2
    assert "--timout" in output and "--timeout" in output
    assert parsed("-Infinity")[0] == 2


def test_list_of_calls_is_a_whole_request() -> None:
    request = request_of('\n [{"name":"a","fun":"echo","args":[1]},{"name":"b","fun":"echo","args":["a"]}]', where="x")
    assert [(call.name, call.dependencies) for call in request.calls] == [("a", ()), ("b", ("a",))]


def test_classic_request_keeps_its_fields() -> None:
    text = '{"role":"rpc","cmds":[{"name":"a","fun":"f"}],"timeout":2,"want":["a"],"on_error":"partial","wait":1}'
    request = request_of(text, where="x")
    assert (request.timeout, request.want, request.partial, request.wait) == (2 * 10**9, ("a",), True, 10**9)


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("{", 1000, "x: not JSON that can be read: "),
        ("5", 1000, "x: a message is a JSON object"),
        ('{"cmds":[]}', 1004, "x: there is no role"),
        ('[{"name":"a","fun":"f","args":5}]', 1010, "x: $.cmds[0].args: "),
        ('{"role":"rpc","cmds":[],"timeout":0}', 1010, "x: $.timeout: "),
    ],
)
def test_error_of_a_bad_request_names_file_and_place(text: str, code: int, expected: str) -> None:
    with pytest.raises(RequestError) as error:
        request_of(text, where="x")
    assert error.value.code == code
    assert error.value.message.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"name":"a","fun":"f","loc":["gpu"]}]', "unknown key 'loc' at $.cmds[0] in x; did you mean 'locs'?"),
        ('{"role":"rpc","cmds":[],"timout":5}', "unknown key 'timout' in x; did you mean 'timeout'?"),
        ('{"role":"rpc","cmds":[],"zzz":5}', "unknown key 'zzz' in x; there are role, cmds, u, "),
    ],
)
def test_misspelt_key_is_refused_with_a_suggestion(text: str, expected: str) -> None:
    with pytest.raises(CommandFailed) as error:
        request_of(text, where="x")
    assert str(error.value).startswith(expected)


def test_keys_match_the_classic_dialect() -> None:
    fields = (*classic._Rpc.__struct_fields__, *classic._Command.__struct_fields__)
    assert sorted((*REQUEST_KEYS, *COMMAND_KEYS)) == sorted(("role", *fields))


def test_warning_about_invalid_json(capsys: pytest.CaptureFixture[str]) -> None:
    warn_about_invalid_json([argument(text) for text in ("[[1,2],[3", "[1]", "hi [", '{"a"}')])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("mpreg: '[[1,2],[3' is not JSON (") and said[0].endswith("), so it is sent as a text")


def test_control_characters_are_escaped_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_value("a\x1b[2Jb\n\x9b", as_json=False)
    assert capsys.readouterr().out == "a\x1b[2Jb\n\x9b\n"  # unchanged in a pipe
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_value("a\x1b[2Jb\n\tž\x9b", as_json=False)
    assert capsys.readouterr().out == "a\\x1b[2Jb\n\tž\\x9b\n"


def test_request_from_stdin_and_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('[{"name":"a","fun":"f"}]'))
    assert read_request("-").calls[0].function == "f"
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        marked = '[{"name":"a","fun":"f"}]'.encode(encoding)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(marked), "utf-8"))
        assert read_request("-").calls[0].function == "f"
        (tmp_path / "marked").write_bytes(marked)
        assert read_request(str(tmp_path / "marked")).calls[0].function == "f"
    with pytest.raises(CommandFailed, match=r"cannot read .*none: no such file"):
        read_request(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(CommandFailed, match="is not UTF-8 text"):
        read_request(str(tmp_path / "bytes"))


@pytest.mark.parametrize(
    ("value", "plain", "as_json"),
    [
        ("text", "text\n", '"text"\n'),
        ("ž 🐎", "ž 🐎\n", '"ž 🐎"\n'),
        (1.0, "1.0\n", "1.0\n"),
        (None, "null\n", "null\n"),
        ({"a": (1, 2)}, '{"a": [1, 2]}\n', '{"a": [1, 2]}\n'),
        (b"ab", '"YWI="\n', '"YWI="\n'),
    ],
)
def test_results_plain_and_as_json(capsys: pytest.CaptureFixture[str], value: object, plain: str, as_json: str) -> None:
    print_value(value, as_json=False)
    assert capsys.readouterr().out == plain
    print_value(value, as_json=True)
    assert capsys.readouterr().out == as_json


def test_long_results_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    print_value(list(range(100)), as_json=False)
    text = capsys.readouterr().out
    assert json.loads(text) == list(range(100))
    assert len(text.splitlines()) == 102


def test_result_integer_of_5000_digits(capsys: pytest.CaptureFixture[str]) -> None:
    print_value([10**5000], as_json=True)
    assert capsys.readouterr().out == f"[1{'0' * 5000}]\n"


def test_result_without_a_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    print_value([1j], as_json=False)
    assert capsys.readouterr().out == "[1j]\n"
    with pytest.raises(ExecutionFailed, match=r"\$\[0\]: complex: cannot be sent as JSON"):
        print_value([1j], as_json=True)


def test_cause_of_a_partial_answer_comes_first_and_once() -> None:
    cause, other = CyclicReference("cause"), InvalidRequest("other")
    answer = GraphResult({}, {"b": other, "a": CyclicReference("cause")}, (), cause)
    assert [error.message for error in failures(answer)] == ["cause", "other"]


def test_explain_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        Explained("a" * 40, "f" * 40, ("node#1111", "other#2222"), "drawn among 2 equals"),
        Explained("b", "g", ("node#1111",), "the best of 2", (("other#2222", "holds more resources than asked for"),)),
        Explained("c", "h", (), "no node offers 'h'; did you mean 'g'?"),
    ]
    for drawn in explain_table(rows):
        out().print(drawn)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for part in ("other#2222", "drawn among 2 equals", "not other#2222:", "nowhere"):
        assert part in text
