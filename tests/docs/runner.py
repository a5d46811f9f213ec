"""Runs a page as pages.py describes: its Python in this process, its commands in a shell, servers until the end.

Nothing is skipped here: a block that cannot be run fails, and one that must not be run has a marker, which
test_pages.py counts. `curl` is a replacement of a few lines that supports `-s`, `-d`, `-H` and a URL, because not every
machine has the real one.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import anyio.to_thread

from tests.docs.pages import ROOT, Block, Signal, steps

SECONDS = 30.0
"""The time limit of a command, and of a server to print what the page shows."""

_PORT = re.compile(r"\b(900[1-9])\b")
_SERVES = re.compile(r"^(uv run )?mpreg (serve|dev)\b")
_CURL = """#!{python}
import sys, urllib.error, urllib.request
arguments, body, url, headers = sys.argv[1:], None, None, {}
while arguments:
    argument = arguments.pop(0)
    if argument == "-d":
        body = arguments.pop(0)
        body = open(body[1:], "rb").read() if body[:1] == "@" else body.encode()
    elif argument == "-H":
        name, _, value = arguments.pop(0).partition(": ")
        headers[name] = value
    elif argument != "-s":
        assert not argument.startswith("-"), "this stand-in for curl knows -s, -d and -H only, not " + argument
        url = argument
try:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
        sys.stdout.write(response.read().decode())
except urllib.error.HTTPError as error:
    sys.stdout.write(error.read().decode())
"""


class PageRun:
    """One run of one page, in `directory`, which is empty at the start."""

    def __init__(self, name: str, source: str, directory: Path) -> None:
        self.name = name
        self._steps = steps(source)
        self._directory = directory
        self._ports: dict[str, str] = {}
        self._namespace: dict[str, object] = {"__name__": "page"}
        self._background: list[Background] = []
        tools = directory / ".tools"
        tools.mkdir()
        curl = tools / "curl"
        curl.write_text(_CURL.replace("{python}", sys.executable))
        curl.chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MPREG_")}
        self._environment = kept | {
            "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTEST_ADDOPTS": "-p no:asyncio",  # it warns where it has no settings
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "110",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "MPREG_URL": f"ws://127.0.0.1:{self._port('9001')}",
        }

    async def run(self) -> None:
        """Run every step, in order. Raises AssertionError, with the place in the page, for a result that differs."""
        try:
            following = [*self._steps[1:], None]
            for step, after in zip(self._steps, following, strict=True):
                if isinstance(step, Signal):
                    await anyio.to_thread.run_sync(self._signal, step)
                elif step.not_run is None:
                    await self._block(step, after if isinstance(after, Block) else None)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._end)

    async def _block(self, block: Block, after: Block | None) -> None:
        text = _PORT.sub(lambda match: self._port(match[1]), block.text)
        if block.language == "json":
            json.loads(text)
        elif block.language == "toml":
            tomllib.loads(text)
        if block.file is not None:
            (self._directory / block.file).write_text(text, "utf-8")
        elif block.language == "python" and not any(kind == "part" for kind, _ in block.marks):
            printed = await self._python(text, block.line)
            if after is not None and after.language == "text" and after.not_run is None:
                expected = _PORT.sub(lambda match: self._port(match[1]), after.text)
                assert matches(expected, printed), f"{self.name}:{after.line}: printed\n{printed}"
        elif block.language == "console":
            for command, expected in commands(text):
                await anyio.to_thread.run_sync(self._command, command, expected, block.line)

    async def _python(self, source: str, line: int) -> str:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        padded = "\n" * (line - 1) + source  # so that a traceback has the line number of the page
        # In brackets, because pytest would otherwise read the page itself as Python to show the place.
        code = compile(padded, f"<{self.name}>", "exec", flags=flags, dont_inherit=True)
        output = io.StringIO()
        before = Path.cwd()
        os.chdir(self._directory)
        try:
            with contextlib.redirect_stdout(output):
                result = eval(code, self._namespace)
                if inspect.iscoroutine(result):
                    await result
        finally:
            os.chdir(before)
        return output.getvalue()

    def _command(self, command: str, expected: str, line: int) -> None:
        place = f"{self.name}:{line}: $ {command}"
        if _SERVES.match(command):
            self._background.append(Background(self._words(command), self._directory, self._environment))
            self._background[-1].wait_until(expected, place)
            return
        done = subprocess.run(
            self._words(command),
            shell=True,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert matches(expected, done.stdout), f"{place}\n{done.stdout}(exit {done.returncode})"

    def _words(self, command: str) -> str:
        """Return the command as it is run here: in the environment of these tests, whose files lie at the root."""
        command = re.sub(r"\buv run (?=mpreg|python|uvicorn)", "", command)
        command = re.sub(r"\bPATH/", f"{shlex.quote(str(ROOT))}/", command)
        return re.sub(r"(?<=python )docs/", f"{shlex.quote(str(ROOT))}/docs/", command)

    def _signal(self, step: Signal) -> None:
        for process in reversed(self._background):
            if step.text in process.command:
                self._background.remove(process)
                process.end(signal.SIGKILL if step.kind == "kill" else signal.SIGINT)
                return
        raise AssertionError(f"{self.name}: nothing runs that holds {step.text!r}")

    def _end(self) -> None:
        while self._background:
            self._background.pop().end(signal.SIGINT)

    def _port(self, shown: str) -> str:
        if shown not in self._ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[shown] = str(free.getsockname()[1])
        return self._ports[shown]


class Background:
    """A command that runs until a signal ends it."""

    def __init__(self, command: str, directory: Path, environment: dict[str, str]) -> None:
        self.command = command
        self._said: list[str] = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            shlex.split(command),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_until(self, expected: str, place: str) -> None:
        """Wait until it has printed what the page shows; at least one line."""
        pattern = _pattern(expected) if expected.strip() else r".+"
        limit = time.monotonic() + SECONDS
        with self._more:
            while not re.match(pattern, "".join(self._said), re.DOTALL):
                left = limit - time.monotonic()
                assert left > 0 and self._reader.is_alive(), f"{place}\n{''.join(self._said)}"
                self._more.wait(min(left, 0.5))

    def end(self, number: signal.Signals) -> None:
        """Send a signal. After a signal for an orderly end, the exit code must be 0."""
        self._process.send_signal(number)
        code = self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert number is signal.SIGKILL or code == 0, f"$ {self.command}\n{''.join(self._said)}(exit {code})"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                with self._more:
                    self._said.append(line)
                    self._more.notify_all()


def commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with its output.

    As in a shell, a line that ends in a backslash continues on the next line, and so does one with an open quote.
    Within single quotes a backslash is an ordinary character.
    """
    found: list[tuple[str, str]] = []
    unfinished = False
    for line in text.split("\n"):
        if unfinished:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
        elif line.startswith("$ "):
            found.append((line[2:].strip(), ""))
        elif found:
            command, expected = found[-1]
            found[-1] = (command, f"{expected}{line}\n")
        else:
            assert not line.strip(), f"output before any command: {line}"
            continue
        unfinished = not found[-1][1] and _goes_on(found[-1][0])
    return [(command.replace("\\\n", "") if "'" not in command else command, said) for command, said in found]


def _goes_on(command: str) -> bool:
    """Return whether a shell would wait for more: a quote is open, or the line's end is escaped."""
    quote = ""
    position = 0
    while position < len(command):
        letter = command[position]
        if letter == "\\" and quote != "'":
            position += 1
            if position == len(command):
                return True
        elif letter == quote:
            quote = ""
        elif letter in "'\"" and not quote:
            quote = letter
        position += 1
    return bool(quote)


def matches(expected: str, printed: str) -> bool:
    """Return whether `printed` matches the page: `...` stands for any text; trailing blanks and lines are ignored."""
    if not expected.strip():
        return True
    return re.fullmatch(_pattern(expected), _trimmed(printed), re.DOTALL) is not None


def _pattern(expected: str) -> str:
    return ".*".join(re.escape(piece) for piece in _trimmed(expected).split("..."))


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
