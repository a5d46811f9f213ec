"""`mpreg serve --processes`: functions in processes that import them; no process outlives its node.

The processes inherit the stderr of their node. So its reader comes to the end only when all of them have ended.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpreg_transports import NotConnected, OutcomeUnknown, SyncClient
from tests.helpers.node_processes import ROOT

PATIENCE = 60.0
APP = """
import os, pathlib
from mpreg_transports import Server
server = Server(name="pool", port=0, processes=7)

@server.function
def who():
    return os.getpid()

@server.function
async def node():
    return os.getpid()

@server.function
def reads(path, started):
    pathlib.Path(started).write_text(str(os.getpid()))
    return pathlib.Path(path).read_text()

@server.function(idempotent=True)
def dies_once(flag):
    if not os.path.exists(flag):
        open(flag, "x").close()
        os.kill(os.getpid(), 9)
    return "done"
"""
SERVE = [sys.executable, "-W", "error", "-m", "mpreg_transports.cli", "serve"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MPREG_")}
    return kept | {"PYTHONPATH": str(ROOT), **more}


class Served:
    """A node in a session of its own, so that a signal to its group reaches its processes too."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = self.wait_for(r"ready at (\S+)")

    def wait_for(self, pattern: str) -> str:
        """Return what a line of the log holds that matches."""
        assert self.process.stderr is not None
        lines = (re.search(pattern, line) for line in self.process.stderr)
        return next(found[found.re.groups] for found in lines if found)

    def rest(self) -> str:
        """Return the rest of its log, when the node and all its processes have ended."""
        return self.process.communicate(timeout=PATIENCE)[1]

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


@contextmanager
def served(*command: str, cwd: Path, **env: str) -> Iterator[Served]:
    process = subprocess.Popen(
        command, cwd=cwd, env=environment(**env), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP, "utf-8")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "started")
    return tmp_path


@contextmanager
def running(url: str, here: Path) -> Iterator[tuple[int, Future[str]]]:
    """Call `reads`, which waits for a writer; yield the id of its process, and its result."""
    with ThreadPoolExecutor(1) as thread, SyncClient(url) as client:
        result = thread.submit(client.call, "reads", str(here / "pipe"), str(here / "started"))
        yield int((here / "started").read_text()), result


def test_def_functions_run_in_processes_and_dead_ones_are_replaced(here: Path) -> None:
    with served(*SERVE, "app.py:server", "--processes", "1", cwd=here) as node, SyncClient(node.url) as client:
        own = node.process.pid
        with running(node.url, here) as (pid, result):
            assert pid != own and client.call("node") == own
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(OutcomeUnknown, match="BrokenProcessPool"):
                result.result(PATIENCE)
        after = client.call("who")
        assert after not in (pid, own)
        os.kill(after, signal.SIGKILL)
        assert client.call("dies_once", str(here / "flag")) == "done"
        node.process.send_signal(signal.SIGTERM)
        assert "Traceback" not in node.rest() and node.process.returncode == 0


def test_signals_to_the_group_let_running_calls_finish(here: Path) -> None:
    (here / "app.py").rename(here / "my-app.py")
    with served(*SERVE, "my-app.py:server", cwd=here, MPREG_PROCESSES="2") as node:
        with running(node.url, here) as (_, result):
            node.signal_group(signal.SIGINT)
            (here / "pipe").write_text("done")
            assert result.result(PATIENCE) == "done"
        log = node.rest()
        assert node.process.returncode == 0 and "SIGINT: leaving" in log
        assert "KeyboardInterrupt" not in log and "Traceback" not in log and "leaked" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_node(here: Path, number: signal.Signals) -> None:
    (here / "mpreg.toml").write_text("processes = 1\n", "utf-8")
    with served(*SERVE, "app.py:server", cwd=here) as node:
        with running(node.url, here) as (_, result):
            node.process.send_signal(number)
            if number is signal.SIGTERM:
                node.wait_for("leaving")
                node.process.send_signal(number)
            with pytest.raises((OutcomeUnknown, NotConnected)):
                result.result(PATIENCE)
        log = node.rest()
        assert node.process.returncode == (0 if number is signal.SIGTERM else -number)
        assert "Traceback" not in log


def refused(*command: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stderr


def test_serve_refuses_functions_that_the_processes_cannot_import(here: Path) -> None:
    (here / "late.py").write_text(APP + "server.register('late', lambda: 1, replace=True)\n", "utf-8")
    text = (here / "late.py").read_text("utf-8").replace("processes=7", "processes=0")
    (here / "late.py").write_text(text, "utf-8")
    code, log = refused(*SERVE, "late.py:server", "--processes", "1", cwd=here)
    assert code == 2 and len(log.splitlines()) == 1
    assert "cannot import its functions: 'late' is defined within a function or is a lambda. Define such" in log
    code, log = refused(*SERVE, "app.py:server", "--processes", "two", cwd=here)
    assert code == 2 and "--processes must be a whole number from 0 to 1024, not 'two'" in log


PROGRAM = """
if __name__ == "__main__":
    server.run()
"""


def test_program_with_processes(here: Path) -> None:
    (here / "program.py").write_text(APP + PROGRAM, "utf-8")
    with served(sys.executable, "program.py", cwd=here) as node, SyncClient(node.url) as client:
        assert client.call("who") != client.call("node") == node.process.pid
        node.process.send_signal(signal.SIGTERM)
        assert "Traceback" not in node.rest() and node.process.returncode == 0
    (here / "loose.py").write_text(APP + "server.run()\n", "utf-8")
    code, log = refused(sys.executable, "loose.py", cwd=here)
    assert code == 1 and 'does so below `if __name__ == "__main__":`' in log.splitlines()[-1]
