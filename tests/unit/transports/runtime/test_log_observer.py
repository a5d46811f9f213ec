"""The log of a node: each fact once, without control characters for a terminal."""

import logging

import pytest

from mpreg_proto.effects import Raised
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.notices import CardsDiffer, LinkClosed, LinkEndCause, LinkOpened, MemberChanged, Standing
from mpreg_transports.runtime import log_observer as module
from mpreg_transports.runtime.log_observer import LogObserver, ready_line

ME, OTHER, FORMER = MemberId(b"m" * 16), MemberId(b"o" * 16), MemberId(b"g" * 16)


def test_refused_address_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver(ME)
    for number in range(5):
        observer.observe(LinkClosed(LinkId(number), "ws://h:1", "another cluster", LinkEndCause.REFUSED))
        observer.observe(LinkClosed(LinkId(number), "", "another cluster", LinkEndCause.REFUSED))
    assert [record.getMessage() for record in caplog.records] == [
        "link to ws://h:1 ended: another cluster",
        "an incoming link ended: another cluster",
    ]


def test_end_of_an_open_link_is_logged_each_time(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver(ME)
    for number in range(2):
        observer.observe(LinkOpened(LinkId(number), "other", MemberId(b"a" * 16)))
        observer.observe(LinkClosed(LinkId(number), "other", "silent for 20 s", LinkEndCause.SILENT))
    observer.observe(LinkOpened(LinkId(9), "", None))
    observer.observe(LinkClosed(LinkId(9), "", "silent for 20 s", LinkEndCause.SILENT))
    said = [record.getMessage() for record in caplog.records]
    assert said == ["link to other ended: silent for 20 s"] * 2 + ["link to a client ended: silent for 20 s"]


def test_cards_that_differ_are_logged_once_per_name(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver(ME)
    for name in ("one", "other", "one"):
        observer.observe(CardsDiffer(MemberId(b"a" * 16), name))
    assert [record.getMessage() for record in caplog.records] == [
        f"two cards of {name} came for one incarnation; one is not its own" for name in ("one", "other")
    ]


def test_member_is_logged_when_its_standing_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mpreg")
    observer = LogObserver(ME)
    changes = [
        (FORMER, "gone", Standing.DEAD, 0),  # before this node joined
        (OTHER, "other", Standing.ALIVE, 0),
        (OTHER, "other", Standing.ALIVE, 1),  # another card
        (OTHER, "other", Standing.SUSPECT, 1),
        (OTHER, "other", Standing.SUSPECT, 1),  # another accuser
        (OTHER, "other", Standing.DEAD, 1),
        (OTHER, "other", Standing.ALIVE, 2),
        (ME, "me", Standing.ALIVE, 1),  # after a suspicion of this node by others
        (OTHER, "other", Standing.LEFT, 2),
        (ME, "me", Standing.LEFT, 1),
    ]
    for change in changes:
        observer.observe(MemberChanged(*change))
    assert [record.getMessage() for record in caplog.records] == [
        "other is ALIVE",
        "other is suspected",
        "other is marked DEAD",
        "other is ALIVE",
        "other has left",
        "me has left",
    ]


def test_failed_function_logs_one_line_and_a_debug_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mpreg")
    LogObserver(ME).failed("f", Raised("ValueError", "a\n\x1b[2J", "Traceback: here"))
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [("WARNING", r"f failed: ValueError: a\n\x1b[2J"), ("DEBUG", "Traceback: here")]


def test_ready_line_without_a_name() -> None:
    assert ready_line("node", "ws://h:1", functions=2, resources=frozenset()) == (
        "the node is ready at ws://h:1 (2 functions)"
    )
    assert ready_line("a", "ws://h:1", functions=2, resources=frozenset("cb")) == (
        "node a is ready at ws://h:1 (2 functions, resources b, c)"
    )


def test_remembered_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMBERS", 10)
    observer = LogObserver(ME)
    for number in range(3_000):
        observer.observe(LinkClosed(LinkId(number), "x" * 10_000, f"{number} " + "y" * 10_000, LinkEndCause.REFUSED))
        observer.observe(MemberChanged(MemberId(number.to_bytes(16, "big")), "name", Standing.ALIVE, 0))
    assert len(observer._logged) <= 1_000 and max(len(who) + len(what) for who, what in observer._logged) <= 400
    assert len(observer._reachable) <= 10
