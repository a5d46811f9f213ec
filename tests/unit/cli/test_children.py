"""Processes that `mpreg dev` and `demo` start: the error of a process that does not start."""

import sys

import pytest

from mpreg_transports.cli import children
from mpreg_transports.cli.errors import CommandFailed, ExitCode

ENDS_AFTER_ITS_STDOUT = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("mpreg: no such file", file=sys.stderr, flush=True)
os.close(1)
sys.exit(9 if signal.sigtimedwait([signal.SIGTERM], 0.5) else 2)
"""
"""Half a second passes between the end of its stdout and its own end. A signal in it would change the exit code."""


@pytest.mark.anyio
async def test_exit_code_of_a_child_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "command", lambda *_: [sys.executable, "-c", ENDS_AFTER_ITS_STDOUT])
    lines: list[tuple[str, str]] = []
    async with children.Children(lambda *line: lines.append(line)) as started:
        with pytest.raises(CommandFailed, match="node one did not start: no such file") as raised:
            await started.start(None, {"name": "one"})
    assert raised.value.code is ExitCode.WRONG_USAGE
    assert lines == [("one", "mpreg: no such file")]


PRINTS_BEFORE_IT_LISTENS = """
import json, sys
print("loading the model", json.dumps({"loss": 1}), sep="\\n")
print(json.dumps({"name": "one", "url": "ws://127.0.0.1:4321"}), flush=True)
sys.stdin.read()
"""


@pytest.mark.anyio
async def test_lines_that_a_module_prints_before_its_node_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "command", lambda *_: [sys.executable, "-c", PRINTS_BEFORE_IT_LISTENS])
    async with children.Children(lambda *line: None) as started:
        child = await started.start(None, {"name": "one"})
        assert (child.name, child.port) == ("one", 4321)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise RuntimeError('no model')", "RuntimeError: no model"),
        ("import sys; sys.stderr.write('no line end')", "no line end"),
        ("import sys; print('mpreg: this one\\nnot this one', file=sys.stderr)", "this one"),
    ],
)
async def test_reason_of_a_child_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(children, "command", lambda *_: [sys.executable, "-c", program])
    async with children.Children(lambda *line: None) as started:
        with pytest.raises(CommandFailed) as raised:
            await started.start(None, {"name": "one"})
    assert str(raised.value) == f"node one did not start: {reason}"
