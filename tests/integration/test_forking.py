"""A server whose functions run in forked processes: a dead worker process ends no node, and none keeps the port."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpreg_transports import DeadlineExceeded, OutcomeUnknown, SyncClient

PROGRAM = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from mpreg_transports import Server
pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
server = Server(name="forks", port=0)
def square(x): return x * x
def die(): os._exit(1)
def who(): return os.getpid()
for one in (square, die, who):
    server.register(None, one, executor=pool)
"""


def serving(folder: Path) -> tuple[subprocess.Popen[str], str]:
    (folder / "forks.py").write_text(PROGRAM, "utf-8")
    command = [sys.executable, "-m", "mpreg_transports.cli", "serve", "forks.py:server"]
    node = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert node.stderr is not None
    return node, next(line for line in node.stderr if "ready at" in line).split("ready at ")[1].split()[0]


def test_dead_worker_process_does_not_end_the_node(tmp_path: Path) -> None:
    node, url = serving(tmp_path)
    try:
        with SyncClient(url) as client:
            assert client.call("square", 3) == 9
            with pytest.raises(OutcomeUnknown, match="BrokenProcessPool"):
                client.call("die")
            assert client.call("echo", 1) == 1
            assert node.poll() is None
    finally:
        node.terminate()
        node.communicate(timeout=20)
    assert node.returncode == 0


def test_orphaned_workers_keep_neither_port_nor_links(tmp_path: Path) -> None:
    node, url = serving(tmp_path)
    worker = None
    try:
        with SyncClient(url) as client:
            worker = client.call("who")
            os.kill(worker, signal.SIGSTOP)  # so that it does not notice the end of its parent
            os.kill(node.pid, signal.SIGKILL)
            node.wait(timeout=20)
            # The client sees the end of the link, before it sends the call or after, and nothing listens at the port.
            with pytest.raises((DeadlineExceeded, OutcomeUnknown)):
                client.call("echo", 1, timeout=0.5)
        again = subprocess.run(
            [sys.executable, "-c", f"import socket; socket.create_server(('127.0.0.1', {url.rsplit(':', 1)[1]}))"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 0, again.stderr
    finally:
        if worker is not None:
            os.kill(worker, signal.SIGKILL)
        assert node.stderr is not None
        node.stderr.close()
