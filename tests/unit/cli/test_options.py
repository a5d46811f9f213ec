"""Options with numbers: their parsers, and their errors in all commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from mpreg_transports.cli.app import build
from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.cli.options import refuse_unwritable, seconds_option, whole_number_option


def whole_number(option: str, **fields: Any) -> Callable[[str], int]:
    parser: Callable[[str], int] = whole_number_option(option, metavar="N", help="", **fields).parser
    return parser


def seconds(option: str, **fields: Any) -> Callable[[str], float]:
    parser: Callable[[str], float] = seconds_option(option, metavar="S", help="", **fields).parser
    return parser


@pytest.mark.parametrize("text", ["0", "12", "-3", str(10**40)])
def test_whole_number(text: str) -> None:
    assert whole_number("--seed", example=7)(text) == int(text)


@pytest.mark.parametrize("text", ["", "abc", "1.0", "1_0", "+1", " 1", "٣", "0x1", "1" * 5000])
def test_error_of_a_whole_number(text: str) -> None:
    with pytest.raises(CommandFailed) as error:
        whole_number("--seed", example=7)(text)
    assert str(error.value).startswith("--seed must be a whole number, not '")
    assert str(error.value).endswith("; write --seed 7") and len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("least", "most", "text", "expected"),
    [
        (1, 64, "0", "a whole number from 1 to 64"),
        (1, 64, "65", "a whole number from 1 to 64"),
        (1, None, "-1", "a whole number of at least 1"),
    ],
)
def test_range_of_a_whole_number(least: int, most: int | None, text: str, expected: str) -> None:
    with pytest.raises(CommandFailed, match=f"^--nodes must be {expected}, not '{text}'; write --nodes 3$"):
        whole_number("--nodes", least=least, most=most, example=3)(text)


def test_seconds() -> None:
    timeout, since = seconds("--timeout", most=60, example=5), seconds("--since", example=10)
    assert [timeout("0.5"), timeout("60"), timeout("1e1"), since("0"), since("1e9")] == [0.5, 60, 10, 0, 1e9]


@pytest.mark.parametrize("text", ["", "abc", "5s", "0", "-1", "61", "nan", "inf", "1_0", "٣"])
def test_error_of_seconds(text: str) -> None:
    with pytest.raises(CommandFailed) as error:
        seconds("--timeout", most=60, example=5)(text)
    expected = "--timeout must be more than 0 and at most 60 seconds"
    assert str(error.value) == f"{expected}, not {text!r}; write --timeout 5"


def test_error_of_seconds_without_a_maximum() -> None:
    with pytest.raises(CommandFailed, match=r"^--since must be at least 0 seconds, not '-1'; write --since 10$"):
        seconds("--since", example=10)("-1")


NUMBERS = [
    ("call", "--timeout"),
    ("drain", "--timeout"),
    ("serve", "--port"),
    ("serve", "--processes"),
    ("dev", "--nodes"),
    ("simulate", "--nodes"),
    ("simulate", "--seed"),
    ("simulate", "--seconds"),
    ("replay", "--stop-at"),
    ("replay", "--since"),
]


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_command_with_a_text_for_a_number(command: str, option: str) -> None:
    error = CliRunner().invoke(
        build(), [command, "x", option, "abc"] if command != "simulate" else [command, option, "abc"]
    )
    assert isinstance(error.exception, CommandFailed)
    assert str(error.exception).startswith(f"{option} must be ") and "not 'abc'; write " in str(error.exception)


def test_numeric_options_have_a_parser() -> None:
    """Typer's own error for a wrong number does not say what was given."""
    numeric = []
    for info in build().registered_commands:
        assert info.callback is not None
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            option = next((one for one in getattr(hint, "__metadata__", ()) if hasattr(one, "parser")), None)
            if option is not None and {int, float} & {hint.__origin__, *get_args(hint.__origin__)}:
                assert option.parser is not None, (info.callback, name)
                numeric.append(name)
    assert len(numeric) == len(NUMBERS)


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    refuse_unwritable("--plot", None, example="run.svg")
    refuse_unwritable("--plot", tmp_path / "new.svg", example="run.svg")
    with pytest.raises(CommandFailed) as error:
        refuse_unwritable("--plot", tmp_path, example="run.svg")
    assert str(error.value) == f"--plot {tmp_path}: it is a folder; name a file in it, such as {tmp_path / 'run.svg'}"
    with pytest.raises(CommandFailed) as error:
        refuse_unwritable("--plot", tmp_path / "none" / "x", example="run.svg")
    assert (
        str(error.value) == f"--plot {tmp_path / 'none' / 'x'}: there is no folder {tmp_path / 'none'}; make it first"
    )
