"""`check_driver` passes a correct driver, and finds planted defects: docs/examples/embed_selectors.py with one change.

Not planted, as no peer can see them from outside: a driver that ignores `Cancel` or `Notify` (it may), that reports no
`progress` (optional for byte streams), that sends `Lane.CONTROL` in order (it may), that leaves sockets open in its
process after the end, or that calls the node from `Notify`; and a listener that an error of `accept` ends, because no
peer can cause that error on Linux. `KeepAlive` needs WebSocket: the drivers of test_server.py, test_starlette.py and
test_aiohttp.py have it.
"""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from docs.examples import embed_selectors
from mpreg_proto import NodeConfig
from mpreg_transports.testing import DriverCheck, DriverReport, DriverUnderTest, check_driver, driver_report
from mpreg_transports.testing.driver_checks import bench
from mpreg_transports.testing.driver_checks.checks import CHECKS
from tests.helpers.drivers import selector_driver

SOURCE = Path(embed_selectors.__file__).read_text("utf-8")


class Defect(NamedTuple):
    """A change of the source, and the check that finds it."""

    name: str
    check: str
    before: str
    after: str


FORGET = "self.watch(connection, 0); connection.sock.close(); del self.connections[connection.link]"
DEFECTS = [
    Defect("no link_closed after a reset", "vanishing_peers", 'data = b""\n', f"{FORGET}; return\n"),
    Defect(
        "no link_closed after EOF",
        "vanishing_peers",
        "if not data:\n                self.close(connection)",
        f"if not data:\n                {FORGET}",
    ),
    Defect(
        "link_closed twice",
        "vanishing_peers",
        "self.node.link_closed(connection.link, now=clock())",
        "[self.node.link_closed(connection.link, now=clock()) for _ in range(2)]",
    ),
    Defect(
        "receive after link_closed",
        "vanishing_peers",
        "self.close(connection)\n                return\n            self.node.receive",
        "self.close(connection)\n            self.node.receive",
    ),
    Defect("numbers of links reused", "vanishing_peers", "LinkId(self.last_link)", "LinkId(sock.fileno())"),
    Defect("one number for all links", "clients", "self.last_link += 1", "self.last_link = 1"),
    Defect("wrong framing", "start_and_leave", "framing=Framing.STREAM", "framing=Framing.NATIVE_MESSAGES"),
    Defect("dialled link as accepted", "closing_seed", "dialled=dialled, now", "dialled=None, now"),
    Defect("first chunk only", "start_and_leave", 'b"".join(chunks)', "chunks[0]"),
    Defect("effects in reverse order", "cut_bytes", "for effect in effects:", "for effect in reversed(effects):"),
    Defect("no flush after inputs", "start_and_leave", "self.node.wake(now=clock())\n        self.flush()", "pass"),
    Defect(
        "rest of a partial send lost",
        "slow_reader",
        "del connection.unsent[: connection.sock.send(connection.unsent)]",
        "connection.sock.send(connection.unsent); connection.unsent.clear()",
    ),
    Defect("not written on", "slow_reader", "EVENT_WRITE if connection.unsent else 0", "EVENT_WRITE if False else 0"),
    Defect("Pause ignored", "paused_client", "self.of(link).reading = False", "pass"),
    Defect("Resume ignored", "paused_client", "self.of(link).reading = True", "pass"),
    Defect("no backlog", "paused_client", "if left != connection.reported:", "if False:"),
    Defect("no backlog of a stalled peer", "stalled_peer", "if left != connection.reported:", "if False:"),
    Defect("backlog never 0", "paused_client", "if left != connection.reported:", "if left > connection.reported:"),
    Defect("HangUp ignored", "violation", "self.of(link).hang_up = effect", "pass"),
    Defect("closed before all is written", "leave_with_unsent_bytes", "hang_up is not None and not left:", "hang_up:"),
    Defect("within ignored", "half_open_link", "connection.close_at = clock() + hang_up.within", "pass"),
    Defect(
        "closed within though its peer takes bytes",
        "leave_with_a_slow_reader",
        "(connection.close_at is None or left < before)",
        "connection.close_at is None",
    ),
    Defect("arguments by name lost", "clients", "(*run.args, **run.kwargs)", "(*run.args)"),
    Defect(
        "finished by another clock",
        "clients",
        "self.call_from_thread(lambda: self.node.finished(run.run, outcome, now=clock()))",
        "self.call_from_thread(lambda: self.node.finished(run.run, outcome, now=2**61))",
    ),
    Defect(
        "ends with links open",
        "leave_with_unsent_bytes",
        "not self.node.left or self.connections",
        "not self.node.left",
    ),
    Defect(
        "no dial_failed",
        "refusing_seed",
        "self.flush()\n        while not self.node.left",
        "self.node.dial_failed = lambda *_, **now: None; self.flush()\n        while not self.node.left",
    ),
    Defect(
        "unreachable host ends the loop",
        "bad_addresses",
        "        except OSError:\n            if sock",
        "        except KeyError:\n            if sock",
    ),
    Defect(
        "no URL ends the loop",
        "bad_addresses",
        "threading.Thread(target=self.resolve, args=(address,), daemon=True).start()",
        "socket.getaddrinfo(urlsplit(address).hostname, 1); self.resolve(address)",
    ),
    Defect("blocking dial", "hanging_seed", "sock.setblocking(False)\n            with", "with"),
    Defect(
        "finished twice",
        "start_and_leave",
        "self.call_from_thread(lambda: self.node.finished(run.run, outcome, now=clock()))",
        "[self.call_from_thread(lambda: self.node.finished(run.run, outcome, now=clock())) for _ in range(2)]",
    ),
    Defect(
        "finished at Cancel and later",
        "late_end",
        "case Cancel():\n                pass",
        "case Cancel(run):\n                self.node.finished(run, Raised('', ''), now=clock())",
    ),
    Defect("exception of a function", "raising_function", "except Exception as error:", "except KeyError as error:"),
    Defect("functions in the loop", "late_end", "if run.function not in self.threaded:", "if True:"),
    Defect("sleeps past next_timeout", "late_end", "None if due is None else max(0, due - clock()) / 1e9", "None"),
    Defect("no wake", "silent_peer", "self.node.wake(now=clock())", "pass"),
    Defect("clock in microseconds", "late_end", "time.monotonic_ns\n", "lambda: time.monotonic_ns() // 1000\n"),
]
"""Defects, each with the check that finds it. `before` stands in the source once."""


def variant(defect: Defect, directory: Path) -> ModuleType:
    """Return the example with one change, as a module."""
    assert SOURCE.count(defect.before) == 1, f"{defect.name}: {defect.before!r} is not in the example once"
    path = directory / "variant.py"
    path.write_text(SOURCE.replace(defect.before, defect.after), "utf-8")
    spec = importlib.util.spec_from_file_location("variant", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# A driver with a defect leaves sockets open, and its threads end with exceptions.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name.replace(" ", "-"))
def test_planted_defect_found(defect: Defect, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make = selector_driver(variant(defect, tmp_path), request.addfinalizer)
    (row,) = driver_report(make, only=[defect.check], seconds=1.0).rows
    assert not row.passed
    assert row.happened
    assert row.advice
    del make
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::ResourceWarning")
def test_check_that_never_ends_has_failed(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that reports progress for each ping that the system took keeps a silent peer for ever."""
    monkeypatch.setattr(bench, "WAITS", 2)
    before = "if left != connection.reported:"
    after = "if left < before: self.node.progress(connection.link, now=clock())\n        " + before
    make = selector_driver(
        variant(Defect("progress for short writes", "silent_peer", before, after), tmp_path), request.addfinalizer
    )
    (row,) = driver_report(make, only=["silent_peer"], seconds=1.0).rows
    assert row.happened.startswith("the check had not ended after 2 s: it still waited for the end of the link when ")
    assert "call progress for no ping" in row.advice
    del make
    gc.collect()


def test_report_text() -> None:
    rows = (DriverCheck("first", True, 0.5, "a"), DriverCheck("second", False, 1.0, "b", "c", "d"))
    assert str(DriverReport(rows)).splitlines() == [
        "1 of 2 checks of the driver have passed",
        "ok   first (0.50 s)",
        "FAIL second (1.00 s)",
        "     expected: b",
        "     happened: c",
        "     advice: d",
    ]


def test_report_text_of_a_driver_that_has_failed() -> None:
    error = 'File "driver.py", line 7, in flush\n    x()\nKeyError: 1'
    report = DriverReport((DriverCheck("second", False, 1.0, "b", "c", "d", error),))
    assert str(report).splitlines()[2:] == [
        "     expected: b",
        "     happened: c",
        '     File "driver.py", line 7, in flush',
        "         x()",
        "     KeyError: 1",
        "     advice: find the cause of this error first; d",
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::ResourceWarning")
def test_exception_that_has_ended_the_driver_is_reported_first(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    defect = Defect("", "clients", "case Send(link, chunks):", "case Send(link, chunks) if self.wrong(link):")
    make = selector_driver(variant(defect, tmp_path), request.addfinalizer)
    (row,) = driver_report(make, only=["clients"], seconds=1.0).rows
    assert row.happened.startswith("the driver has ended with AttributeError: ")
    assert "the connection of peer-1" in row.happened
    assert "in carry_out" in row.error
    assert row.error.splitlines()[-1].startswith("AttributeError: ")
    assert "driver_checks" not in row.error
    del make
    gc.collect()


@pytest.mark.parametrize(
    "make", [lambda: 1, lambda config: 1, 7, None], ids=["no parameter", "one parameter", "int", "None"]
)
def test_make_that_takes_no_config_and_functions(make: Any) -> None:
    with pytest.raises(TypeError, match=r"make.*expected a function.*make\(config, functions\)"):
        check_driver(make, only=["clients"])


class _NoUrl:
    url = "localhost"

    def leave(self) -> None: ...

    def wait(self, seconds: float) -> bool:
        return True


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (1, r"make returned int without url, leave, wait: expected a handle with url, leave\(\) and wait\(seconds\)"),
        (_NoUrl(), "the url of the handle that make returned is 'localhost': expected tcp://127.0.0.1:PORT"),
    ],
)
def test_make_that_returns_no_handle(made: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        check_driver(lambda config, functions: made, only=["clients"])


def test_failing_driver_raises_with_the_report() -> None:
    def make(config: NodeConfig, functions: object) -> DriverUnderTest:
        raise OSError("no port is free")

    with pytest.raises(AssertionError, match=r"FAIL clients(.|\n)*happened: OSError: no port is free"):
        check_driver(make, only=["clients"])


def test_unknown_check() -> None:
    with pytest.raises(ValueError, match="no check 'all'; there are start_and_leave, "):
        check_driver(selector_driver(embed_selectors), only=["all"])


def test_skipped_checks_have_no_row() -> None:
    names = [check.name for check in CHECKS]
    report = check_driver(selector_driver(embed_selectors), skip=names[2:])
    assert [row.name for row in report.rows] == names[:2]
    assert report.failed == ()


def test_every_check_finds_a_defect_but_those_named() -> None:
    found = {defect.check for defect in DEFECTS}
    others = "many_connections double_close silent_json_client simultaneous_dials".split()
    others += "leave_with_a_call leave_twice".split()
    assert sorted(check.name for check in CHECKS if check.name not in found) == sorted(others)
