"""Progress bars: one for each call on a terminal, nothing elsewhere."""

from io import StringIO

from rich.console import Console

from mpreg_transports import ProgressReport
from mpreg_transports.cli.progress_bars import progress_bars


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def report(done: float, total: float | None, text: str = "", call: str = "train") -> ProgressReport:
    return ProgressReport(done, total, text, call, "train", "node")


def test_one_bar_for_each_call() -> None:
    console = Console(file=Terminal(), force_terminal=True, width=80, color_system=None)
    with progress_bars(console) as update:
        assert update is not None
        update(report(1, 4))
        update(report(2, 4, "[bold]half\x1b"))
        update(report(7, None, call="train-2"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert " 50%" in text and "[bold]half\\x1b" in text and "train-2" in text


def test_nothing_without_progress_or_a_terminal() -> None:
    console = Console(file=Terminal(), force_terminal=True, width=80, color_system=None)
    with progress_bars(console) as update:
        assert update is not None
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    with progress_bars(Console(file=StringIO())) as update:
        assert update is None
