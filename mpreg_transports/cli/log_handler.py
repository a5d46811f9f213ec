"""What a node reports, as lines on stderr for people: a handler for the logger `mpreg`."""

from __future__ import annotations

import logging
import time

from rich.text import Text

from mpreg_proto.describe import object_text, short_name
from mpreg_transports.cli.console import render_line
from mpreg_transports.runtime.logs import WriterHandler, stderr


class StderrHandler(WriterHandler):
    """One line a record, with the time of day; colour says how bad it is. No tracebacks. Never waits for its reader."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        line = Text(time.strftime("%H:%M:%S ", time.localtime(record.created)), style="dim")
        line.append(record.getMessage(), style=style)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line.append(f": {short_name(type(error))}: {object_text(error)}")
        return render_line(line).removesuffix("\n")


def log_to_stderr() -> None:
    """Let nodes of this process talk: what concerns people from `mpreg`, trouble from its adapters.

    Only loggers of mpreg are touched. Where the served program has said where its log goes, their records go there.
    """
    for name, level in (("mpreg", logging.INFO), ("mpreg_transports", logging.WARNING)):
        log = logging.getLogger(name)
        if not log.hasHandlers():
            log.addHandler(StderrHandler(stderr))
        if log.level == logging.NOTSET:
            log.setLevel(level)


def write_log_line(line: str) -> None:
    """Say one line that is always said; like the log, it never waits for its reader."""
    stderr.put(render_line(line))
