"""The peers of `check_driver`: what they wait for, and for how long."""

import socket
import threading
import time
from contextlib import suppress
from itertools import count

import pytest

from mpreg_proto.wire.dialects import encode
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.messages import Ping
from mpreg_transports.testing.driver_checks import peers
from mpreg_transports.testing.driver_checks.peers import CheckTooLong, Peer, Unexpected


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
            with pytest.raises(Unexpected, match=r"the answer did not come within 0\.01 s"):
                peer.next("the answer")


def test_wait_that_gets_bytes_for_ever_ends_with_the_check() -> None:
    """A driver that pings a silent peer and never hangs up: each wait gets bytes in time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        peer = Peer(url, seconds=30.0, until=time.monotonic() + 0.3, answers_pings=False)
        driver, _ = listening.accept()
        over = threading.Event()

        def ping() -> None:
            body = encode(Ping(1))
            with suppress(OSError):
                while not over.wait(0.01):
                    driver.sendall(prefix(len(body)) + body)

        pinging = threading.Thread(target=ping)
        pinging.start()
        with peer.sock, driver:
            with pytest.raises(CheckTooLong, match=r"waited for the end of the link when \d+ pings had come"):
                peer.last_messages()
            over.set()
            pinging.join()


def test_last_wait_of_a_check_is_shortened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        peer = Peer(url, seconds=30.0, until=time.monotonic() + 0.1)
        with peer.sock, pytest.raises(CheckTooLong, match="the answer"):
            peer.next("the answer")
