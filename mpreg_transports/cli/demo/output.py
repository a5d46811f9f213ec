"""The output of `mpreg demo`: for people line by line, or one JSON document at the end.

Results and traces come from cli/demo/command.py. Lines go to stdout, progress goes to stderr. Each node keeps its
colour.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.rule import Rule
from rich.text import Text

from mpreg_transports.cli.commands.calls import json_tree, trace_row
from mpreg_transports.cli.console import (
    PALETTE,
    ascii_only,
    emit_json,
    format_duration,
    out,
    print_message,
    show,
    table,
)
from mpreg_transports.cli.waterfall import call_bar, cut, legend, waterfall

if TYPE_CHECKING:
    from mpreg_proto.view import NodeView
    from mpreg_proto.wire.messages import Traced
    from mpreg_transports.cli.children import Child
    from mpreg_transports.client import GraphResult

_CALL, _BAR = 36, 12
"""The columns of a call's text and of its bar."""


class DemoOutput:
    """The demo's output, in the order in which its methods are called."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._tree: dict[str, Any] = {"python": platform.python_version(), "nodes": [], "requests": []}

    def progress(self, text: str) -> None:
        """Print a line of progress."""
        print_message(Text(text, style="dim"))

    def nodes(self, nodes: Sequence[Child], view: NodeView) -> None:
        """Print the nodes, and the legend of the bars in all later drawings."""
        rows: list[tuple[str | Text, ...]] = []
        for node in nodes:
            row = next(row for row in view.members if row.name == node.name)
            self._tree["nodes"].append(
                {"name": node.name, "url": node.url, "pid": node.process.pid, "resources": list(row.resources)}
            )
            resources = ", ".join(row.resources) or "none: it only balances and joins"
            rows.append((Text(node.name, style=_colour(node.name)), str(node.process.pid), node.url, resources))
        if not self._as_json:
            show(table(("NODE", "PROCESS", "ADDRESS", "RESOURCES"), rows), "")
            show(Text("in the bars:   ", style="dim").append_text(legend(ascii_only=ascii_only())), "")

    def request(self, title: str, commands: Sequence[dict[str, Any]], answer: GraphResult) -> None:
        """Print one of the README's requests: its calls, where each ran, and its results."""
        self._add(title, answer)
        if self._as_json:
            return
        ran = {row.name: row for row in answer.trace}
        end = max(1, *(row.ended for row in answer.trace))
        rows = [_call_row(command, ran, end) for command in commands]
        show(Rule(Text(title, style="bold"), align="left", style="dim"), table(("", "", "", "", ""), rows))
        for name, value in answer.values.items():
            written = json.dumps(json_tree(value), ensure_ascii=False)
            show(Text.assemble("  -> ", (name, "bold"), " = ", written))
        show("")

    def pipeline(self, answer: GraphResult) -> None:
        """Print the report and the waterfall."""
        self._add("pipeline", answer)
        if self._as_json:
            return
        console = out()
        show(Rule(Text("the standard library, counted and measured where it lies", style="bold"), align="left"))
        show(*report_lines(answer.values["report"]), "")
        show(Text("where and when each call ran", style="bold"))
        show(*waterfall(answer.trace, width=min(console.width, 100), ascii_only=ascii_only()))

    def end(self) -> None:
        """Print the JSON document, if JSON is required."""
        if self._as_json:
            emit_json(self._tree)

    def kept(self, nodes: Sequence[Child]) -> None:
        """Print the addresses of the nodes that keep running."""
        if not self._as_json:
            show("", *[Text.assemble((f"{node.name:<10}", _colour(node.name)), node.url) for node in nodes])
        print_message(f"running until Ctrl-C. Try:  mpreg functions --url {nodes[0].url}")

    def _add(self, title: str, answer: GraphResult) -> None:
        trace = [trace_row(row) for row in answer.trace]
        self._tree["requests"].append({"title": title, "r": json_tree(answer.values), "trace": trace})


def report_lines(report: dict[str, Any]) -> list[Text]:
    """Return the figures of this Python's sources as lines."""
    longest = report["longest"]
    imports = ", ".join(f"{module} ({files})" for module, files in report["imports"])
    rows = [
        ("sources", f"Python {platform.python_version()}, without its tests"),
        *[
            (shelf["shelf"], f"{shelf['packages']} packages, {shelf['files']:,} files, {shelf['lines']:,} lines")
            for shelf in report["shelves"]
        ],
        ("together", f"{report['files']:,} files, {report['lines']:,} lines, {report['bytes'] / 1e6:.1f} MB"),
        ("in them", f"{report['functions']:,} functions, {report['classes']:,} classes"),
        ("", f"{report['nodes']:,} nodes in their syntax trees"),
        ("longest", f"{longest['name']}() in {longest['file']}, {longest['lines']:,} lines"),
        ("imported", f"{imports}"),
    ]
    return [Text.assemble((f"  {name:<10}", "dim"), text) for name, text in rows]


def _call_row(command: dict[str, Any], ran: dict[str, Traced], end: int) -> tuple[str | Text, ...]:
    """Return a row for a call: its text, the node on which it ran, its bar and its time.

    The time is from the arrival of the request to the end of the call.
    """
    row = ran[command["name"]]
    node = row.node.rpartition("#")[0]
    colour = _colour(node)
    args = ", ".join(arg if arg in ran else json.dumps(arg) for arg in command["args"])  # references without quotes
    bar = call_bar(row, end, width=_BAR, colour=colour, ascii_only=ascii_only())
    return (
        f"  {command['name']}",
        cut(f"{command['fun']}({args})", _CALL),
        Text(node, style=colour),
        bar,
        format_duration(row.ended),
    )


def _colour(name: str) -> str:
    """Return the waterfall's colour for one of the three nodes."""
    from mpreg_transports.cli.demo.requests import NODES

    return PALETTE[sorted(NODES).index(name) % len(PALETTE)]
