"""The example docs/examples/embed_twisted.py passes `check_driver`, and prints what it says.

A process has one reactor, which runs once: it runs in a thread until the last test has ended.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import blockingCallFromThread

from docs.examples.embed_twisted import TwistedNode, reactor
from mpreg_proto import NodeConfig
from mpreg_transports.testing import check_driver

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def running_reactor() -> Iterator[None]:
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    yield
    reactor.callFromThread(reactor.stop)
    thread.join(30)
    assert not thread.is_alive()


class Running:
    """A node in the reactor."""

    def __init__(self, config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.ended = threading.Event()
        self.node: TwistedNode = blockingCallFromThread(reactor, TwistedNode, config, functions)
        self.url = self.node.url
        reactor.callFromThread(self.node.ended.addBoth, lambda _: self.ended.set())

    def leave(self) -> None:
        """Let the node leave, unless it has left."""
        if not self.ended.is_set():
            reactor.callFromThread(self.node.leave)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the driver."""
        return self.ended.wait(seconds)


@pytest.mark.usefixtures("running_reactor")
def test_twisted_example_passes_check_driver() -> None:
    check_driver(Running)


def test_twisted_example_runs() -> None:
    command = [sys.executable, "docs/examples/embed_twisted.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "{'total': 42} None\n"
