"""Bars on stderr for the calls that report their progress; nothing where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Display

from mpreg_transports.cli.console import escape_controls

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mpreg_transports.client import OnProgress
    from mpreg_transports.functions.progress import ProgressReport


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[OnProgress | None]:
    """Give a callback that shows one bar for each call; None if `console` (by default stderr) is no terminal.

    The bars disappear at the end.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
    display = Display(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    try:
        yield _Bars(display).update
    finally:
        display.stop()


class _Bars:
    """The bars by call. A bar begins with the first report of its call."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def update(self, report: ProgressReport) -> None:
        """Show how far a call is."""
        stream = cast(TextIO, self._display.console.file)
        text = escape(escape_controls(report.text, stream))
        self._display.start()  # with the first report: a call without one writes nothing
        task = self._tasks.get(report.call)
        if task is None:
            name = escape(escape_controls(report.call, stream))
            task = self._tasks[report.call] = self._display.add_task(name, total=report.total, text=text)
        self._display.update(task, completed=report.done, total=report.total, text=text)
