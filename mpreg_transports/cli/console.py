"""The output of commands: data to stdout, messages to stderr, colours only on a terminal.

Commands pass values and tables. This module contacts no node, and does not decide what to print.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PALETTE = ("cyan", "magenta", "yellow", "green", "blue", "red")
"""The colours of nodes, in the order in which they are assigned."""


def out() -> Console:
    """Return the console for data. If stdout is not a terminal it is 80 columns wide, or COLUMNS."""
    return Console(highlight=False, soft_wrap=False)


def ascii_only() -> bool:
    """Return whether stdout accepts only ASCII, so that bars are drawn with ASCII characters."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")


def print_message(text: str | Text) -> None:
    """Write one line of message to stderr. It is dropped if stderr is closed.

    Only on a terminal a line is wrapped, between words.
    """
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(render_line(text))
        sys.stderr.flush()


def render_line(text: str | Text) -> str:
    """Return one line of message as it is written to stderr, with its line end."""
    shown = Console(stderr=True)
    made = Console(  # not the stream itself: rich flushes it, and ends the process if it has no reader
        file=StringIO(),
        force_terminal=shown.is_terminal,
        color_system=cast(Any, shown.color_system),
        width=shown.width,
        highlight=False,
        legacy_windows=False,
    )
    made.print(text, markup=False, soft_wrap=not shown.is_terminal)
    return cast(StringIO, made.file).getvalue()


def show(*rows: RenderableType) -> None:
    """Print data for people."""
    console = out()
    for row in rows:
        console.print(row, markup=False)


def emit(text: str) -> None:
    """Write a text unchanged, with a line end."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def escape_controls(text: str, stream: TextIO | None = None) -> str:
    """Return foreign text for `stream` (None: stdout), with its control characters escaped on a terminal.

    Line ends and tabs stay. For a file or a pipe the text is unchanged.
    """
    if not (stream or sys.stdout).isatty():
        return text
    return "".join(repr(one)[1:-1] if unicodedata.category(one) == "Cc" and one not in "\n\t" else one for one in text)


def emit_json(tree: object) -> None:
    """Print one JSON document: on one line if that is short, else indented."""
    emit(pretty(tree))


def pretty(tree: object) -> str:
    """Return readable JSON. `tree` consists of dicts, lists and scalars."""
    from mpreg_proto.wire.jsonvalues import dumps

    try:
        short = json.dumps(tree, ensure_ascii=False)
        return short if len(short) <= 78 else json.dumps(tree, ensure_ascii=False, indent=2)
    except ValueError:  # an integer with more digits than CPython converts
        return dumps(tree)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | RenderableType]]) -> Table:
    """Return a plain table whose cells wrap without losing letters; it fits the console's width."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*[Text(escape_controls(cell)) if isinstance(cell, str) else cell for cell in row])
    return made


def format_duration(nanoseconds: int) -> str:
    """Return a duration in at most seven characters, with a unit from microseconds to days."""
    for unit, name in ((86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "min")):
        if nanoseconds >= unit * 2:
            return f"{nanoseconds / unit:.0f} {name}"
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.2f} s" if nanoseconds < 10_000_000_000 else f"{nanoseconds / 1e9:.0f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 100_000_000 else f"{nanoseconds / 1e6:.0f} ms"
    return f"{max(0, nanoseconds) / 1e3:.0f} us"
