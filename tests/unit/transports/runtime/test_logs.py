"""Log lines that cannot be written: lost, counted, reported once, and no other effect."""

import io
import logging
import os
import re
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from mpreg_transports.runtime import logs
from mpreg_transports.runtime.logs import NodeLog, Writer, WriterHandler

PATIENCE = 30.0


class Gate(io.StringIO):
    """A stream without a file, whose writes wait until `reads` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        assert self.reads.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return super().write(text)


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        yield read, stream


def test_unread_log_lines_are_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_LINES", 3)
    stream = Gate()
    writer = Writer(lambda: stream)
    for number in range(10):
        writer.put(f"{number}\n")
    stream.reads.set()
    writer.flush()
    writer.put("after\n")
    writer.flush()
    lost_lines = re.findall(r"(\d+) log lines were lost: nobody reads them", stream.getvalue())
    assert sum(map(int, lost_lines)) == 7  # some before the thread took its first line, the others after
    assert stream.getvalue().endswith("2\nafter\n")


def test_flush_waits_for_a_stuck_reader_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_FLUSH_SECONDS", 0.01)
    stream = Gate()
    writer = Writer(lambda: stream)
    writer.put("1\n")
    writer.flush()
    monkeypatch.setattr(logs, "_FLUSH_SECONDS", 10 * PATIENCE)
    writer.flush()
    stream.reads.set()
    assert stream.getvalue() in ("", "1\n")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed"), RuntimeError("odd")])
def test_writing_continues_after_errors(error: Exception) -> None:
    stream = Gate()
    stream.reads.set()
    writer = Writer(lambda: stream)
    stream.error = error
    writer.put("1\n")
    writer.put("2\n")
    writer.flush()
    stream.error = None
    writer.put("3\n")
    writer.flush()
    what = "No space left on device" if isinstance(error, OSError) else type(error).__name__
    assert stream.getvalue() == f"2 log lines were lost: {what}\n3\n"


def test_lines_after_the_reader_closed_are_lost(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    writer = Writer(lambda: stream)
    writer.put("half \udcff of a pair\n")
    writer.flush()
    assert os.read(read, 100) == b"half \\udcff of a pair\n"
    os.close(read)
    writer.put("2\n")
    writer.flush()
    assert writer._lost == 1 and writer._reason == "Broken pipe"


def test_lines_without_a_stream_are_lost() -> None:
    writer = Writer(lambda: None)
    writer.put("1\n")
    writer.flush()
    assert writer._lost == 1


class Odd:
    def __str__(self) -> str:
        raise LookupError


def test_handler_never_raises() -> None:
    stream = Gate()
    stream.reads.set()
    writer = Writer(lambda: stream)
    handler = WriterHandler(writer)
    for text, *values in (("%s", Odd()), ("%d", "x"), ("well",)):
        handler.handle(logging.LogRecord("x", logging.INFO, "f", 1, text, tuple(values), None))
    handler.flush()
    assert stream.getvalue().splitlines() == ["a log record could not be formatted"] * 2 + ["well"]


class Raising(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is not None:
            raise self.error
        self.said.append(record.getMessage())


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), RecursionError()])
def test_lines_lost_by_handlers_and_filters_are_reported_once(error: BaseException) -> None:
    logger = logging.Logger("mine")
    handler = Raising()
    logger.addHandler(handler)
    log = NodeLog(logger)

    def filter_(record: logging.LogRecord) -> bool:
        raise error

    handler.error = error
    log.warning("one")
    handler.error = None
    handler.addFilter(filter_)
    log.exception("two")
    logger.addFilter(filter_)
    log.info("%s", Odd())
    handler.removeFilter(filter_)
    logger.removeFilter(filter_)
    log.warning("three")
    log.warning("four")
    lost = f"3 log lines were lost: a handler or filter raised {type(error).__name__}"
    assert handler.said == ["three", lost, "four"]


def test_record_has_the_function_that_logged_it(caplog: pytest.LogCaptureFixture) -> None:
    logs.get("mpreg.test").warning("here")
    assert caplog.records[0].funcName == "test_record_has_the_function_that_logged_it"
