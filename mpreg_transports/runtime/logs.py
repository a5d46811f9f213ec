"""The log of a node: a line that cannot be written is lost, and the node goes on.

All code in this package logs through `get(name)`, so an error in a user's handler, filter or record factory ends
nothing. The package itself writes to stderr through a `Writer`: a bounded queue and a thread. So a pipe without a
reader, a reader that has ended or a full disk delays nothing. Lost lines are counted, and one line reports them when
lines can be written again.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TextIO

from mpreg_proto.describe import short_name

MOST_LINES: Final = 1_000
"""The lines that may wait to be written; further ones are lost."""
MOST_BYTES: Final = 1024 * 1024
"""The characters that may wait to be written."""
_FLUSH_SECONDS: Final = 0.5
"""The seconds for which the end of a process waits for a line to be written."""


class NodeLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose handlers and filters may raise any exception."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, {})
        self._lost = 0
        self._reason = ""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line as `logging.Logger.log` does; never raises."""
        try:
            if not self.logger.isEnabledFor(level):
                return
            self.logger.log(level, msg, *args, **{"stacklevel": 2, **kwargs})
            if self._lost:
                lost, self._lost = self._lost, 0
                self.logger.warning("%d log lines were lost: a handler or filter raised %s", lost, self._reason)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # rich ends the process when its console has no reader
            self._lost += 1
            self._reason = short_name(type(error))


_logs: dict[str, NodeLog] = {}


def get(name: str) -> NodeLog:
    """Return the log of that name, as `logging.getLogger` does."""
    if name not in _logs:
        _logs[name] = NodeLog(logging.getLogger(name))
    return _logs[name]


class Writer:
    """A writer of text to a stream, in a thread of its own. `put` never waits and never raises."""

    def __init__(self, stream: Callable[[], TextIO | None]) -> None:
        """Create the writer. It calls `stream` for each text, as programs replace sys.stderr."""
        self._stream = stream
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._texts: deque[str] = deque()
        self._size = 0
        self._lost = 0
        self._reason = ""
        self._thread: threading.Thread | None = None
        self._stuck = False

    def put(self, text: str) -> None:
        """Queue `text` for writing; it is lost if too much text waits already."""
        if self._process != os.getpid():
            self._reset()  # a forked child does not have the thread, and the lock may be held
        with self._changed:
            if len(self._texts) >= MOST_LINES or self._size + len(text) > MOST_BYTES:
                self._lost += 1
                self._reason = "nobody reads them"
                return
            self._texts.append(text)
            self._size += len(text)
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, but not for a line that cannot be written."""
        if self._process != os.getpid() or threading.current_thread() is self._thread:
            return
        with self._changed:
            while self._texts and not self._stuck:
                before = len(self._texts), self._texts[0]
                if not self._changed.wait(_FLUSH_SECONDS) and before == (len(self._texts), self._texts[0]):
                    self._stuck = True  # the next flush does not wait for it again

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="mpreg log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads are possible: the next line tries again
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._texts:
                    self._changed.wait()
                text = self._texts[0]
                report = f"{self._lost} log lines were lost: {self._reason}\n" if self._lost else ""
                reported = self._lost
            reason = self._write(report + text)
            with self._changed:
                self._texts.popleft()
                self._size -= len(text)
                self._stuck = False
                if reason:
                    self._lost += 1
                    self._reason = reason
                else:
                    self._lost -= reported
                self._changed.notify_all()

    def _write(self, text: str) -> str:
        """Write `text`. Return the reason if it could not be written, else an empty string."""
        try:
            stream = self._stream()
            if stream is None:
                return "there is no stream"
            try:
                number = stream.fileno()
            except (OSError, ValueError, AttributeError):  # not a file: the stream of a test or a notebook
                stream.write(text)
                stream.flush()
                return ""
            # Bypass the stream: otherwise the end of the process could wait for the stream's lock for ever.
            data = text.encode(getattr(stream, "encoding", None) or "utf-8", "backslashreplace")
            while data:
                try:
                    data = data[os.write(number, data) :]
                except BlockingIOError:  # another program has made the shared file non-blocking
                    select.select((), (number,), ())
            return ""
        except OSError as error:
            return error.strerror or short_name(type(error))
        except Exception as error:
            return short_name(type(error))


class WriterHandler(logging.Handler):
    """A handler that formats records and passes them to a `Writer`."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record. Never waits, never raises."""
        try:
            self._writer.put(self.format(record) + "\n")
        except Exception:
            self._writer.put("a log record could not be formatted\n")

    def flush(self) -> None:
        """Wait a little until all is written."""
        self._writer.flush()


stderr: Writer = Writer(lambda: sys.stderr)
"""The writer of this process's stderr."""
