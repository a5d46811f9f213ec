"""The progress reporter: which parameter gets it, what it accepts, and what is taken of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from mpreg_proto.effects import Report, Run
from mpreg_proto.ids import RunId
from mpreg_transports import Progress
from mpreg_transports.functions.execution import function
from mpreg_transports.functions.progress import RunReporter, injected_parameter

if TYPE_CHECKING:
    from somewhere import Unknown


def last(rows: int, progress: Progress) -> None: ...
def first(progress: Progress, rows: int, *more: int) -> None: ...
def keyword(rows: int, *, report: Progress) -> None: ...
def unresolved(rows: Unknown, progress: Progress) -> None: ...
def none(rows: int, progress: int = 0) -> None: ...
def two(one: Progress, other: Progress) -> None: ...
def many(*progress: Progress) -> None: ...


SILENT = Progress()


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        (last, [5], ([5, SILENT], {})),
        (last, [], ([], {"progress": SILENT})),
        (first, [5, 6, 7], ([SILENT, 5, 6, 7], {})),
        (first, [], ([SILENT], {})),
        (keyword, [5], ([5], {"report": SILENT})),
        (unresolved, [5], ([5, SILENT], {})),
    ],
)
def test_place_of_the_reporter(call: Any, args: list[int], expected: object) -> None:
    found = injected_parameter("f", call)
    assert found is not None and found.add(SILENT, args, {}) == expected


def test_functions_without_a_reporter() -> None:
    assert injected_parameter("f", none) is None and injected_parameter("f", print) is None


@pytest.mark.parametrize(("call", "why"), [(two, "two parameters"), (many, "one plain parameter")])
def test_parameters_that_cannot_get_a_reporter(call: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        function(call)


def test_executors_cannot_pass_on_progress() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="leave out executor="):
        function(last, executor=executor)


def test_signature_without_the_reporter() -> None:
    assert function(last).spec.signature == "(rows: 'int') -> 'None'"


def test_argument_of_that_name_is_refused() -> None:
    made = function(last, inline=True)
    run = Run(RunId(1), "last", [1], {"progress": 2}, 0)
    with pytest.raises(TypeError, match="'progress' is no argument"):
        made.arguments(run)


def test_reporter_keeps_the_newest_report_and_notifies_once() -> None:
    notified: list[int] = []
    reporter = RunReporter(lambda: notified.append(1))
    for done in range(5):
        reporter(done, 4, "step")
    assert (reporter.take(), reporter.take(), notified) == (Report(4, 4, "step"), None, [1])
    reporter(5)
    assert (reporter.take(), notified) == (Report(5), [1, 1])


def test_reporter_in_many_threads() -> None:
    waiting = threading.Semaphore(0)
    reporter = RunReporter(waiting.release)
    threads = [threading.Thread(target=lambda: [reporter(one) for one in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken: list[object] = []
    while any(thread.is_alive() for thread in threads):
        if waiting.acquire(timeout=0.001):
            taken.append(reporter.take())
    while waiting.acquire(blocking=False):
        taken.append(reporter.take())
    assert reporter.take() is None, "each report was announced"
    assert taken[-1] is None or taken[-1] == Report(499)


@pytest.mark.parametrize(
    ("arguments", "report"),
    [
        ((1, 2), Report(1, 2)),
        ((0.5, None, "x"), Report(0.5, None, "x")),
        ((Fraction(1, 2),), Report(0.5)),
        ((1 << 62,), Report(1 << 62)),
    ],
)
def test_numbers_of_a_report(arguments: Any, report: Report) -> None:
    reporter = RunReporter(lambda: None)
    reporter(*arguments)
    assert reporter.take() == report


@pytest.mark.parametrize("arguments", [("1",), (None,), (True,), (1, "2"), (1, 2, 3), (float("nan"),), (1 << 70,)])
def test_reports_that_cannot_be_sent(arguments: Any) -> None:
    for reporter in (SILENT, RunReporter(lambda: None)):
        with pytest.raises((TypeError, ValueError), match="progress: "):
            reporter(*arguments)
