"""Closed standard streams and pipes without a reader: no traceback, and the exit code of the command."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.test_cli import APP, MPREG, PATIENCE, Running, environment

REQUEST = '[{"name":"a","fun":"echo","args":[1]}]'


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams")
    (path / "app.py").write_text(APP, "utf-8")
    (path / "request.json").write_text(REQUEST, "utf-8")
    return path


@pytest.fixture(scope="module")
def url(here: Path) -> object:
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as node:
        yield node.said(r"ready at (\S+)")[1]


def finish(
    words: str, *, cwd: Path, url: str, stdout: int | None, before: Callable[[], None] | None
) -> tuple[int, str]:
    """Return the exit code and stderr of a command. A `stdout` of -1 is a pipe whose reader has closed."""
    writing = stdout
    if stdout == -1:
        reading, writing = os.pipe()
        os.close(reading)
    try:
        done = subprocess.run(
            [*MPREG, *words.split()],
            cwd=cwd,
            env=environment(MPREG_URL=url),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
            preexec_fn=before,
        )
    finally:
        if stdout == -1 and writing is not None:
            os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", ["nodes", "call echo 1", "run request.json --timeline", "--help"])
def test_stdout_without_a_reader_is_no_error(here: Path, url: str, words: str) -> None:
    assert finish(words, cwd=here, url=url, stdout=-1, before=None) == (0, "")


def close_stdout() -> None:
    os.close(1)


def close_all() -> None:
    for number in (0, 1, 2):
        with suppress(OSError):
            os.close(number)


def test_closed_streams_are_no_error(here: Path, url: str) -> None:
    assert finish("nodes", cwd=here, url=url, stdout=None, before=close_stdout) == (0, "")
    assert finish("call echo 1", cwd=here, url=url, stdout=None, before=close_all)[0] == 0


def test_failure_keeps_its_exit_code_without_streams(here: Path, url: str) -> None:
    assert finish("call nobody-offers-this", cwd=here, url=url, stdout=None, before=close_all)[0] == 4


def allow_no_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_full_disk_is_reported_in_one_line(here: Path, url: str) -> None:
    with open(here / "full", "w") as full:
        code, text = finish("call echo 1", cwd=here, url=url, stdout=full.fileno(), before=allow_no_files)
    assert (code, text) == (9, "mpreg: cannot write to stdout: file too large\n")


def test_node_survives_without_readers_of_its_streams(tmp_path: Path) -> None:
    program = APP + "\n@server.function\ndef say(text):\n    print(text, flush=True)\n    return 'said'\n"
    (tmp_path / "app.py").write_text(program, "utf-8")
    with Running("serve", "app.py:server", "--port", "0", cwd=tmp_path) as node:
        own = node.said(r"ready at (\S+)")[1]
        assert node.process.stdout is not None and node.process.stderr is not None
        node.process.stdout.close()
        node.process.stderr.close()
        for _ in range(2):
            assert finish("call say hello", cwd=tmp_path, url=own, stdout=subprocess.DEVNULL, before=None)[0] == 0
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE) == 0


def test_replay_steps_end_with_their_reader(tmp_path: Path) -> None:
    env = environment()
    make = [*MPREG, "simulate", "--nodes", "3", "--seconds", "20", "--trace", "run.jsonl"]
    subprocess.run(make, cwd=tmp_path, env=env, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    shown = subprocess.Popen(
        [*MPREG, "replay", "run.jsonl", "--steps"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert shown.stdout is not None and shown.stderr is not None
    assert shown.stdout.readline()
    shown.stdout.close()
    assert (shown.wait(PATIENCE), shown.stderr.read()) == (0, "")
    shown.stderr.close()


def test_streams_of_other_owners_are_unchanged() -> None:
    program = (
        "import io, sys; from mpreg_transports.cli.streams import tolerate_closed_streams\n"
        "mine = sys.stdout = io.StringIO()\n"
        "tolerate_closed_streams(); assert sys.stdout is mine; print('in it'); sys.__stdout__.write(mine.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "in it\n"
