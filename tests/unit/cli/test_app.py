"""The command line as a whole: its commands, their help, and how little it imports to say so."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mpreg_transports.cli.app import build

COMMANDS = "serve dev demo call run explain nodes functions check simulate replay config".split()


def test_just_these_commands() -> None:
    names = [info.name or info.callback.__name__ for info in build().registered_commands if info.callback]
    assert names == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_has_help_with_an_example_in_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = CliRunner().invoke(build(), [command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"mpreg {command}" in result.output.partition("Example")[2]
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_json_wherever_data_is_printed() -> None:
    for command in ("call", "run", "explain", "nodes", "functions", "check", "config", "demo", "dev"):
        assert "--json" in CliRunner().invoke(build(), [command, "--help"]).output


def test_no_flag_whose_feature_does_not_exist() -> None:
    text = CliRunner().invoke(build(), ["serve", "--help"]).output
    for flag in ("--secret-file", "--tls", "--processes", "--gossip-interval", "--token-file"):
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


def test_an_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(build(), ["frobnicate"]).exit_code == 2
