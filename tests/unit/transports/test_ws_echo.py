"""The echo endpoint as other programs start it: in its own process, with the `websockets` library as the client."""

import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).parents[3]
MEBI = 1024 * 1024


@contextmanager
def echo_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the URL that its one line shows."""
    command = [sys.executable, "-W", "error", "-m", "tests.helpers.ws_echo", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"ready (ws://127\.0\.0\.1:\d+)\n", line)
            assert match, line
            yield process, match[1]
        finally:
            process.kill()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_echo_and_end_without_output(backend: str) -> None:
    seed = 1
    large = random.Random(seed).randbytes(16 * MEBI)
    with echo_process("--backend", backend) as (process, url):
        with connect(url, max_size=None) as client:
            for message in ("", b"", "text é", b"binary", large, "x" * (16 * MEBI)):
                client.send(message)
                back = client.recv()
                assert type(back) is type(message)
                assert back == message, f"seed {seed}"
            client.send(iter(["frag", "ments"]))
            assert client.recv() == "fragments"
            client.send(large + b"!")
            with pytest.raises(ConnectionClosed) as caught:
                client.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009
        with connect(url, max_size=None) as client:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv()
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")


def test_interrupted_echo_ends_without_output() -> None:
    with echo_process() as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
