"""A forked child closes the sockets of the node, by number, and restores its signal handlers; no others."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpreg_transports.functions import fork_safety


class Holder:
    """A socket as event loops show it: it has a number, even after the socket is closed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_safety, "_sockets", type(fork_safety._sockets)())
    monkeypatch.setattr(fork_safety, "_replaced_handlers", {})


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def in_child(act: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if act() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def same(number: int, identity: tuple[int, int]) -> bool:
    try:
        return fork_safety._identity(number) == identity
    except OSError:
        return False


def test_child_closes_its_copy_and_the_parent_keeps_its_own() -> None:
    with listening() as sock:
        identity = fork_safety._identity(sock.fileno())
        fork_safety.close_on_fork(sock)
        assert in_child(lambda: not same(sock.fileno(), identity))
        assert same(sock.fileno(), identity)


def test_close_of_the_inherited_object_closes_nothing_else(tmp_path: Path) -> None:
    """The number of a socket that a child closes stays in use until the object with that number is closed too."""
    with listening() as sock:
        fork_safety.close_on_fork(sock)

        def use() -> bool:
            number = sock.fileno()
            with open(tmp_path / "file", "w", encoding="utf-8") as file:
                if file.fileno() == number:
                    return False
                sock.close()
                file.write("whole")
                file.flush()
            return True

        assert in_child(use) and (tmp_path / "file").read_text("utf-8") == "whole"


def test_reused_file_descriptor_is_not_closed(tmp_path: Path) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    holder = Holder(sock.fileno())
    fork_safety.close_on_fork(holder)
    sock.close()
    with open(tmp_path / "file", "w", encoding="utf-8") as file:  # gets the lowest free number
        assert file.fileno() == holder.number
        identity = fork_safety._identity(file.fileno())
        assert in_child(lambda: same(holder.number, identity))


def test_grandchild_closes_nothing(tmp_path: Path) -> None:
    with listening() as sock:
        fork_safety.close_on_fork(sock)

        def use() -> bool:
            number = sock.fileno()
            with open(tmp_path / "file", "w", encoding="utf-8") as file:
                os.dup2(file.fileno(), number)
                identity = fork_safety._identity(number)
                return in_child(lambda: same(number, identity))

        assert in_child(use)


def test_object_without_an_open_file_descriptor() -> None:
    with listening() as sock:
        fork_safety.close_on_fork(sock)
    fork_safety.close_on_fork(Holder(-1))
    assert in_child(lambda: True) and len(fork_safety._sockets) == 1


def test_on_fork_runs_once_in_each_child() -> None:
    class View:
        def __init__(self) -> None:
            self.times = 0

        def on_fork(self) -> None:
            self.times += 1

    view = View()
    fork_safety.notify_on_fork(view)
    assert in_child(lambda: view.times == 1 and in_child(lambda: view.times == 1))
    assert view.times == 0


# -- signal handlers --------------------------------------------------------------------------------------------------


def before(number: int, frame: object) -> None:
    """Stand for the handler of the program."""


def own(number: int, frame: object) -> None:
    """Stand for the handler of a node."""


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    former = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, former)


def handled_in_child(expected: object) -> bool:
    return in_child(lambda: signal.getsignal(signal.SIGUSR1) is expected)


def test_child_has_the_handlers_from_before_the_node() -> None:
    with handling(own), fork_safety.restore_signals_on_fork({signal.SIGUSR1: (before, own)}):
        assert handled_in_child(before)
        assert signal.getsignal(signal.SIGUSR1) is own, "the parent keeps its own"


def test_child_keeps_handlers_that_are_not_those_of_the_node() -> None:
    with handling(own):
        with fork_safety.restore_signals_on_fork({signal.SIGUSR1: (None, own)}):
            assert handled_in_child(own), "the one before was not installed by Python"
        with fork_safety.restore_signals_on_fork({signal.SIGUSR1: (before, own)}):
            pass
        assert handled_in_child(own), "the node has ended"
        with fork_safety.restore_signals_on_fork({signal.SIGUSR1: (before, in_child)}):
            assert handled_in_child(own), "the program has replaced it since"


def test_wakeup_socket_of_signals_in_a_child() -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        former = signal.set_wakeup_fd(writer.fileno())
        try:
            kept = -1 if sys.version_info >= (3, 12) else writer.fileno()  # from 3.12 on asyncio resets it itself
            assert in_child(lambda: signal.set_wakeup_fd(-1) == kept), "no node has installed it"
            with fork_safety.restore_signals_on_fork({signal.SIGUSR1: (before, own)}):
                assert in_child(lambda: signal.set_wakeup_fd(-1) == -1)
        finally:
            signal.set_wakeup_fd(former)
