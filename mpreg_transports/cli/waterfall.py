"""A drawing of where and when each call of a request ran, in the width of a terminal.

The input is the rows of a trace (nanoseconds since the request arrived). The output is lines of text, one for each call
in the order of their starts, with a colour for each node. The module prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mpreg_proto.wire.messages import Traced
from mpreg_transports.cli.console import PALETTE, format_duration

MOST_ROWS = 60
"""The maximum of drawn calls; if there are more, the longest ones are drawn."""
_NAME, _NODE, _TOOK = 22, 16, 8
"""The maximum widths of the call's name and the node's name, and the width of the run time."""
_AGAIN = 4
"""The width of the number of tries, if any call was tried more than once."""
_LEAST_BAR = 10


def waterfall(trace: Sequence[Traced], *, width: int, ascii_only: bool = False) -> list[Text]:
    """Return the lines: a scale, a line for each call (`·` waiting, `━` running), and the number of calls left out.

    Each line is at most `width` columns long (at least 60 is sensible). An empty trace gives no lines.
    """
    if not trace:
        return []
    rows = sorted(trace, key=lambda row: (row.queued, row.started, row.name))
    if len(rows) > MOST_ROWS:
        longest = sorted(rows, key=lambda row: row.started - row.ended)[:MOST_ROWS]
        kept = {row.name for row in longest}
        rows = [row for row in rows if row.name in kept]
    nodes = short_names([row.node for row in trace])
    names = min(_NAME, max(4, *(cell_len(row.name) for row in rows)))
    places = min(_NODE, max(4, *(cell_len(name) for name in nodes.values())))
    again = _AGAIN if any(row.tries > 1 for row in rows) else 0
    bar = max(_LEAST_BAR, width - names - places - _TOOK - 6 - again)
    end = max(1, *(row.ended for row in rows))
    colours = colours_of(nodes)
    ruler = f"0{format_duration(end):>{bar - 1}}"
    lines = [Text(f"{'CALL':<{names}}  {'NODE':<{places}}  {ruler}  {'RAN':>{_TOOK}}", style="bold")]
    for row in rows:
        colour = colours[row.node]
        line = Text(set_cell_size(cut(row.name, names), names) + "  ")
        line.append(set_cell_size(cut(nodes[row.node], places), places), style=colour)
        line.append("  ").append_text(call_bar(row, end, width=bar, colour=colour, ascii_only=ascii_only))
        line.append(f"  {format_duration(row.ended - row.started):>{_TOOK}}")
        if row.tries > 1:
            line.append(f" x{row.tries}", style="yellow")
        lines.append(line)
    if len(trace) > len(rows):
        lines.append(Text(f"and {len(trace) - len(rows)} shorter calls", style="dim"))
    return lines


def legend(*, ascii_only: bool = False) -> Text:
    """Return the line that explains the marks of `call_bar`."""
    waits, runs = _marks(ascii_only)
    return Text(f"{waits} ready, but not running yet   {runs} running", style="dim")


def _marks(ascii_only: bool) -> tuple[str, str]:
    """Return the marks of a waiting and of a running call."""
    return (".", "=") if ascii_only else ("·", "━")


def call_bar(row: Traced, end: int, *, width: int, colour: str, ascii_only: bool) -> Text:
    """Return one call's bar: `width` columns for the time from 0 to `end`."""
    waits, runs = _marks(ascii_only)
    before, waiting, running = _cells(row, end, width)
    bar = Text(" " * before + waits * waiting)
    bar.append(runs * running, style=colour)
    return bar.append(" " * (width - before - waiting - running))


def _cells(row: Traced, end: int, bar: int) -> tuple[int, int, int]:
    """Return the columns before the call was ready, while it waited or was in transit, and while it ran.

    The last number is at least one.
    """
    start = min(bar - 1, math.floor(row.started / end * bar))
    stop = min(bar, max(start + 1, math.ceil(row.ended / end * bar)))
    ready = min(start, math.floor(row.queued / end * bar))
    return ready, start - ready, stop - start


def short_names(nodes: Sequence[str]) -> dict[str, str]:
    """Return the name of each `name#a1b2`, or the whole text if two nodes have the same name."""
    whole = list(dict.fromkeys(nodes))
    plain = [node.rpartition("#")[0] or node for node in whole]
    return {node: name if plain.count(name) == 1 else node for node, name in zip(whole, plain, strict=True)}


def colours_of(nodes: Mapping[str, str]) -> dict[str, str]:
    """Return a colour for each node, by name, so that a node keeps its colour in later drawings."""
    ordered = sorted(nodes, key=lambda node: nodes[node])
    return {node: PALETTE[number % len(PALETTE)] for number, node in enumerate(ordered)}


def cut(text: str, width: int) -> str:
    """Return `text`, shortened at its end if it is longer than `width` columns."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
