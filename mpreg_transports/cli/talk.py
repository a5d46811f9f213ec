"""What a node reports, as lines on stderr for people: a handler for the logger `mpreg`."""

from __future__ import annotations

import logging
import time

from rich.text import Text

from mpreg_transports.cli.terminal import say


class Talk(logging.Handler):
    """One line a record, with the time of day; colour says how bad it is. No tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        line = Text(time.strftime("%H:%M:%S ", time.localtime(record.created)), style="dim")
        line.append(record.getMessage(), style=style)
        if record.exc_info and record.exc_info[1] is not None:
            line.append(f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
        say(line)


def talk_by_log() -> None:
    """Let nodes of this process talk: what concerns people from `mpreg`, trouble from its adapters.

    Only loggers of mpreg are touched. Where the served program has said where its log goes, their records go there.
    """
    for name, level in (("mpreg", logging.INFO), ("mpreg_transports", logging.WARNING)):
        log = logging.getLogger(name)
        if not log.hasHandlers():
            log.addHandler(Talk())
        if log.level == logging.NOTSET:
            log.setLevel(level)
