"""A reader of a node's stderr stops reading or closes: the node continues, and ends when it must."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpreg_transports import ExecutionFailed, SyncClient

PATIENCE = 30.0
PROGRAM = """
import sys
from mpreg_transports import Server

server = Server(port=0)
server.register("fails", lambda text: int(text), inline=True)
server.register("where", lambda: server.url, inline=True)

if __name__ == "__main__":
    server.run()
"""
ENOUGH = 450
"""Warnings that are longer together than the capacity of a pipe."""
WAYS = {"serve": ["-m", "mpreg_transports.cli", "serve", "app.py:server"], "run": ["app.py"]}


@contextmanager
def node(folder: Path, way: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "app.py").write_text(PROGRAM, "utf-8")
    process = subprocess.Popen([sys.executable, *WAYS[way]], cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline().split(" at ")[1].split()[0]


def fail(client: SyncClient, times: int) -> None:
    graph = client.graph()
    for number in range(times):
        graph.call("fails", "x" * 150, name=str(number))
    errors = client.answer(graph, on_error="partial", timeout=PATIENCE).errors
    assert {type(error) for error in errors.values()} == {ExecutionFailed}
    assert client.call("echo", 1, timeout=PATIENCE) == 1


@pytest.mark.parametrize("way", list(WAYS))
def test_pipe_without_reads_blocks_nothing(way: str, tmp_path: Path) -> None:
    with node(tmp_path, way) as process:
        with SyncClient(url(process)) as client:
            fail(client, ENOUGH)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("way", list(WAYS))
def test_closed_reader_ends_nothing(way: str, tmp_path: Path) -> None:
    with node(tmp_path, way) as process:
        where = url(process)
        assert process.stderr is not None
        process.stderr.close()
        with SyncClient(where) as client:
            fail(client, 10)
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_lines_lost_without_a_reader_are_counted(tmp_path: Path) -> None:
    with node(tmp_path, "run") as process:
        with SyncClient(url(process)) as client:
            fail(client, 4 * ENOUGH)
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    assert said.count("log lines were lost: nobody reads them") >= 1
