"""Where words and data go: data to stdout, all talk to stderr, colours only where a terminal shows them.

Commands hand over values and tables; nothing here asks a node or decides what to say.
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
"""Colours of nodes, in the order in which they are met."""


def out() -> Console:
    """The console for data. Where output is not a terminal it is 80 columns wide, or COLUMNS."""
    return Console(highlight=False, soft_wrap=False)


def ascii_only() -> bool:
    """Whether stdout takes no more than ASCII, so that bars are drawn with it."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")


def print_message(text: str | Text) -> None:
    """One line of talk. Only a terminal breaks it, between words; in a file a line is a line. Lost if stderr is."""
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(render_line(text))
        sys.stderr.flush()


def render_line(text: str | Text) -> str:
    """One line of talk as it is written to stderr, with its end."""
    shown = Console(stderr=True)
    made = Console(  # never the stream itself: rich flushes it, and ends the process when nobody reads it
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
    """Data for people."""
    console = out()
    for row in rows:
        console.print(row, markup=False)


def emit(text: str) -> None:
    """Data as it is, and a line's end."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def escape_controls(text: str, stream: TextIO | None = None) -> str:
    """What others have said, for `stream` (None: stdout): on a terminal its control characters are shown, not obeyed.

    Line ends and tabs stay. In a file or a pipe the text is as it is.
    """
    if not (stream or sys.stdout).isatty():
        return text
    return "".join(repr(one)[1:-1] if unicodedata.category(one) == "Cc" and one not in "\n\t" else one for one in text)


def emit_json(tree: object) -> None:
    """One JSON document: on one line if that is short, else indented."""
    emit(pretty(tree))


def pretty(tree: object) -> str:
    """JSON that people can read too. `tree` is of dicts, lists and scalars."""
    from mpreg_proto.wire.jsonvalues import dumps

    try:
        short = json.dumps(tree, ensure_ascii=False)
        return short if len(short) <= 78 else json.dumps(tree, ensure_ascii=False, indent=2)
    except ValueError:  # an integer of more digits than CPython writes
        return dumps(tree)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | RenderableType]]) -> Table:
    """A plain table whose cells fold rather than lose letters; it fits the console's width."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*[Text(escape_controls(cell)) if isinstance(cell, str) else cell for cell in row])
    return made


def format_duration(nanoseconds: int) -> str:
    """A length of time in at most seven characters, from microseconds to days."""
    for unit, name in ((86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "min")):
        if nanoseconds >= unit * 2:
            return f"{nanoseconds / unit:.0f} {name}"
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.2f} s" if nanoseconds < 10_000_000_000 else f"{nanoseconds / 1e9:.0f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 100_000_000 else f"{nanoseconds / 1e6:.0f} ms"
    return f"{max(0, nanoseconds) / 1e3:.0f} us"
