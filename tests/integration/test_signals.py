"""A process that is a node, and the signals that it receives; the effects on its program and its child processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mpreg_transports import SyncClient

PATIENCE = 30.0
HEAD = """
import asyncio, os, signal, sys, threading, time
import mpreg_transports
from mpreg_transports import Server
"""
PROGRAM = """
server = Server(port=0)

@server.function
def handlers():
    reading, writing = os.pipe()
    if os.fork() == 0:
        seen = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        os.write(writing, repr([getattr(one, "__name__", one) for one in seen]).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    with os.fdopen(reading) as came:
        return came.read()

@server.function
async def stubborn():
    while True:
        try:
            await asyncio.sleep(0.05)
        except BaseException:
            pass

def mine(number, frame): print("mine", number, flush=True)
"""


@contextmanager
def node(folder: Path, code: str, *, prepare: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that runs a server, and its address."""
    app = folder / "app.py"
    app.write_text(HEAD + PROGRAM + prepare + "\n" + code, "utf-8")
    process = subprocess.Popen(
        [sys.executable, str(app)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stderr is not None and process.stdout is not None
    try:
        url = next(line for line in process.stderr if "ready at" in line).split("ready at ")[1].split()[0]
        yield process, url
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "backend"), [(signal.SIGTERM, "asyncio"), (signal.SIGINT, "trio"), (signal.SIGHUP, "asyncio")]
)
def test_signal_leaves_in_order_and_the_program_continues(number: signal.Signals, backend: str, tmp_path: Path) -> None:
    code = f"server.run(backend={backend!r})\nprint('after', signal.getsignal(signal.SIGTERM) is mine)"
    with node(tmp_path, code, prepare="signal.signal(signal.SIGTERM, mine)") as (process, url):
        with SyncClient(url) as client:
            assert client.call("echo", 1) == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "after True\n")
    assert f"{number.name}: leaving the cluster" in err


def test_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    prepare = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as `nohup` does
    with node(tmp_path, "server.run()", prepare=prepare) as (process, url):
        process.send_signal(signal.SIGHUP)
        with SyncClient(url) as client:
            assert client.call("echo", 1) == 1
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_forked_child_has_the_previous_handlers(tmp_path: Path) -> None:
    prepare = "signal.signal(signal.SIGINT, mine)\nsignal.signal(signal.SIGHUP, mine)"
    with node(tmp_path, "server.run()", prepare=prepare) as (process, url), SyncClient(url) as client:
        found = client.call("handlers")
        assert found.endswith("'mine', 'mine']") and "SIG_DFL" in found
        process.terminate()


def test_import_changes_no_handler_of_children() -> None:
    program = (
        HEAD
        + """
def mine(number, frame): pass
for one in (signal.SIGTERM, signal.SIGINT):
    signal.signal(one, mine)
ours, theirs = os.pipe()
os.set_blocking(theirs, False)
signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
import mpreg_transports.server, mpreg_transports.sync
if os.fork() == 0:
    same = all(signal.getsignal(one) is mine for one in (signal.SIGTERM, signal.SIGINT))
    kept = theirs if sys.version_info < (3, 12) else -1  # since then importing asyncio lets go of it in children
    os._exit(0 if same and signal.set_wakeup_fd(-1) == kept else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE, check=False).returncode == 0


@pytest.mark.parametrize("signals", [2, 1])
def test_suppressed_cancellation_does_not_block_the_exit(signals: int, tmp_path: Path) -> None:
    prepare = """
from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports.runtime import signals as module
server._limits = Limits(drain_grace=100 * MILLISECOND)
server._signals._grace = 100 * MILLISECOND
module._GRACEFUL_EXIT_SECONDS = module._FORCED_EXIT_SECONDS = 0.3
"""
    with node(tmp_path, "server.run()", prepare=prepare) as (process, url):
        with SyncClient(url) as client, pytest.raises(TimeoutError):
            client.call("stubborn", timeout=0.2)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            next(line for line in process.stderr if "leaving the cluster" in line)
        process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 128 + signal.SIGTERM)


def test_second_signal_ends_a_blocked_process(tmp_path: Path) -> None:
    prepare = """
@server.function(inline=True)
def block():
    print("blocked", flush=True)
    time.sleep(3600)
"""
    with node(tmp_path, "server.run()", prepare=prepare) as (process, url):
        caller = subprocess.Popen(
            [sys.executable, "-m", "mpreg_transports.cli", "call", "block", "--url", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "blocked\n"
            for _ in range(round(PATIENCE)):  # a signal just before the sleep begins does not interrupt it
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    break
            assert process.returncode == 128 + signal.SIGTERM
        finally:
            caller.kill()
            caller.wait()


def test_handler_of_the_program_may_call_leave(tmp_path: Path) -> None:
    code = """
async def main():
    signal.signal(signal.SIGUSR1, lambda *_: server.leave())
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        while not server.url:
            await asyncio.sleep(0)
        print(server.ready_line(), file=sys.stderr, flush=True)
asyncio.run(main())
print("over")
"""
    with node(tmp_path, code) as (process, url):
        with SyncClient(url) as client:
            assert client.call("echo", 1) == 1
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=PATIENCE)[0] == "over\n"
    assert process.returncode == 0


def test_event_loop_without_signal_support(tmp_path: Path) -> None:
    """As on Windows: the node uses Python's own signal handlers."""
    prepare = """
class Loop(asyncio.SelectorEventLoop):
    def add_signal_handler(self, *args):
        raise NotImplementedError
    def remove_signal_handler(self, *args):
        raise NotImplementedError
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return Loop()
asyncio.set_event_loop_policy(Policy())
"""
    with node(tmp_path, "server.run()", prepare=prepare) as (process, url):
        with SyncClient(url) as client:
            assert client.call("echo", 1) == 1
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "SIGTERM: leaving the cluster" in err
