"""The log of a node as lines on stderr for people: a handler for the logger `mpreg`."""

from __future__ import annotations

import logging
import time

from rich.text import Text

from mpreg_proto.describe import object_text, short_name
from mpreg_transports.cli.console import render_line
from mpreg_transports.runtime.logs import WriterHandler, stderr


class StderrHandler(WriterHandler):
    """A handler that writes one line for each record, with the time of day, without tracebacks.

    The colour shows the level. The handler never waits for the reader of stderr.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line end."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        line = Text(time.strftime("%H:%M:%S ", time.localtime(record.created)), style="dim")
        line.append(record.getMessage(), style=style)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line.append(f": {short_name(type(error))}: {object_text(error)}")
        return render_line(line).removesuffix("\n")


def log_to_stderr() -> None:
    """Log to stderr: records of `mpreg` from INFO, those of its adapters from WARNING.

    Only loggers of mpreg are changed. If the served program has configured handlers, the records go to those.
    """
    for name, level in (("mpreg", logging.INFO), ("mpreg_transports", logging.WARNING)):
        log = logging.getLogger(name)
        if not log.hasHandlers():
            log.addHandler(StderrHandler(stderr))
        if log.level == logging.NOTSET:
            log.setLevel(level)


def write_log_line(line: str) -> None:
    """Write one line independent of the log level. Like the log, it never waits for the reader of stderr."""
    stderr.put(render_line(line))
