"""Signals that end a process: the time that it has to end by itself."""

import signal

import pytest

from mpreg_proto.limits import SECOND
from mpreg_transports.runtime import signals
from mpreg_transports.runtime.signals import ForcedEnd, SignalExit


def test_forced_end_after_the_grace_and_soon_after_a_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the grace running calls may go on, so nothing ends the process by force."""
    armed: list[float] = []
    monkeypatch.setattr(ForcedEnd, "arm", lambda end, number, *, seconds: armed.append(seconds))
    left: list[None] = []
    exit_ = SignalExit(lambda: left.append(None), lambda: bool(left), grace=10 * SECOND)
    with exit_.forced():
        exit_._on_signal(signal.SIGTERM)
        exit_._on_signal(signal.SIGTERM)
    assert armed == [10 + signals._GRACEFUL_EXIT_SECONDS, signals._FORCED_EXIT_SECONDS]
    assert len(left) == 2
