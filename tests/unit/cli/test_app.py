"""The command line as a whole: its commands, their help, and how few modules the help imports."""

import subprocess
import sys

import pytest
from typer.models import CommandInfo
from typer.testing import CliRunner

from mpreg_transports.cli.app import build

VERBS = "Run Show List Check Call Simulate Repeat Let".split()
COMMANDS = "serve dev demo call run explain nodes functions check drain simulate replay config".split()


def name_of(info: CommandInfo) -> str:
    return info.name or getattr(info.callback, "__name__", "")


def test_list_of_commands() -> None:
    assert [name_of(info) for info in build().registered_commands] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_fits_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = CliRunner().invoke(build(), [command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"mpreg {command}" in result.output.partition("Example")[2]
    assert all(len(line) <= 80 for line in result.output.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_a_sentence_in_the_imperative(command: str) -> None:
    (text,) = [info.help for info in build().registered_commands if info.help and name_of(info) == command]
    first, *rest = text.split("\n\n")
    assert first.endswith(".") and first.split()[0] in VERBS
    assert len(first) <= 100 and all("\n" not in paragraph for paragraph in rest)


@pytest.mark.parametrize("command", ["new", "ca"])
def test_help_of_the_secret_commands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    (group,) = [info for info in build().registered_groups if info.name == "secret"]
    assert group.typer_instance is not None
    assert [name_of(info) for info in group.typer_instance.registered_commands] == ["new", "ca"]
    result = CliRunner().invoke(build(), ["secret", command, "--help"])
    assert result.exit_code == 0 and f"mpreg secret {command}" in result.output.partition("Example")[2]
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_secret_option_of_commands_that_ask_a_node() -> None:
    for command in ("call", "run", "explain", "nodes", "functions", "check", "drain", "serve"):
        text = CliRunner().invoke(build(), [command, "--help"]).output
        assert "--secret-file" in text and "--cluster-id" in text


def test_json_option_of_commands_that_print_data() -> None:
    for command in ("call", "run", "explain", "nodes", "functions", "check", "config", "demo", "dev"):
        assert "--json" in CliRunner().invoke(build(), [command, "--help"]).output


def test_no_option_without_its_feature() -> None:
    text = CliRunner().invoke(build(), ["serve", "--help"]).output
    for flag in ("--tls", "--gossip-interval", "--token-file"):
        assert flag not in text


def test_help_imports_neither_the_core_nor_an_event_loop() -> None:
    code = (
        "import sys; sys.argv = ['mpreg', '--help']\n"
        "from mpreg_transports.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'anyio', 'asyncio', 'msgspec', 'msgpack', 'wsproto', 'h11', 'mpreg_proto'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(build(), ["frobnicate"]).exit_code == 2
