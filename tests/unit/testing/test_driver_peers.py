"""The peers of `check_driver`: what they wait for, and for how long."""

import socket
from itertools import count

import pytest

from mpreg_proto.wire.framing import prefix
from mpreg_transports.testing.driver_checks import peers
from mpreg_transports.testing.driver_checks.peers import Peer, Unexpected


def test_long_message_may_take_longer_than_the_limit_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each look is a minute later: the bytes come all the time, the message takes longer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = Peer(f"tcp://127.0.0.1:{listening.getsockname()[1]}", seconds=30.0)
        driver, _ = listening.accept()
        clock = count(step=60)
        monkeypatch.setattr(peers.time, "monotonic", lambda: next(clock))
        with peer.sock, driver:
            driver.sendall(prefix(300_000) + bytes(300_000))
            assert peer.next() == bytes(300_000)


def test_message_that_does_not_come_is_unexpected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = Peer(f"tcp://127.0.0.1:{listening.getsockname()[1]}", seconds=0.01)
        driver, _ = listening.accept()
        with peer.sock, driver:
            driver.sendall(prefix(2) + b"x")
            with pytest.raises(Unexpected, match="the answer did not come within 0.01 s"):
                peer.next("the answer")
