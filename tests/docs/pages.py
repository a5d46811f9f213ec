"""README.md and docs/**/*.md as data: their fenced blocks, markers, links and names. It reads text and runs nothing.

A page's blocks, and what the harness (runner.py) does with each, by the language after the fence:

- `python`: run, in the page's order and in one namespace; `await` is allowed at the top. A `text` block right after
  it is its output.
- `python file=NAME`, `json file=NAME`, `toml file=NAME`: written to the page's own directory, for later blocks.
- `console`: a shell runs each `$ command` there; the text after it is its output. `...` stands for any text.
  `mpreg serve` and `mpreg dev` stay in the background until the page ends.
- `json`, `toml` must parse; `text`, `mermaid` and `bnf` are not checked.

Ports 9001 to 9009 in blocks are replaced by free ports, and `MPREG_URL` names the one in place of 9001: readers run
these commands on a machine where 9001 is free, tests may not. Comments with a meaning:

- `<!-- not run: reason -->` before a block: it is not run; test_pages.py counts them.
- `<!-- stop: TEXT -->`, `<!-- kill: TEXT -->`: Ctrl-C, or SIGKILL, for the background command that contains TEXT.
- `<!-- generated: NAME -->` to `<!-- end -->`: written by reference.py from the source, and compared with it.
- `<!-- part: FILE NAME -->` before a block: it is the part of FILE between `# [NAME]` and `# [/NAME]`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
LANGUAGES = ("python", "console", "json", "toml", "text", "mermaid", "bnf")

_FENCE = re.compile(r"^( *)```(.*)$")
_MARKER = re.compile(r"^ *<!-- (not run|stop|kill|part|generated): (.+?) -->\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is the number of its first text line, from 1; `marks` are the comments right before it."""

    language: str
    file: str | None
    text: str
    line: int
    marks: tuple[tuple[str, str], ...]

    @property
    def not_run(self) -> str | None:
        """The reason why it is not run."""
        return dict(self.marks).get("not run")


@dataclass(frozen=True)
class Signal:
    """A `stop` or `kill` marker on its own."""

    kind: str
    text: str


def steps(source: str) -> list[Block | Signal]:
    """Return the blocks and signals of a page, in order. Raises ValueError for a fence that is not closed."""
    found: list[Block | Signal] = []
    marks: list[tuple[str, str]] = []
    lines = source.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if marker := _MARKER.match(line):
            if marker[1] in ("stop", "kill"):
                found.append(Signal(marker[1], marker[2]))
            else:
                marks.append((marker[1], marker[2]))
        elif fence := _FENCE.match(line):
            start = number
            while number < len(lines) and lines[number].strip() != "```":
                number += 1
            if number == len(lines):
                raise ValueError(f"line {start}: a fence that is never closed")
            language, _, rest = fence[2].partition(" ")
            file = rest.removeprefix("file=") if rest.startswith("file=") else None
            text = textwrap.dedent("\n".join(lines[start:number]) + "\n")
            found.append(Block(language, file, text, start + 1, tuple(marks)))
            marks = []
            number += 1
        elif line.strip():
            marks = []
    return found


def blocks(source: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [step for step in steps(source) if isinstance(step, Block)]


def prose(source: str) -> str:
    """Return a page without its fenced blocks."""
    kept, inside = [], False
    for line in source.split("\n"):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def links(source: str) -> list[str]:
    """Return the targets of a page's links, as written."""
    return _LINK.findall(prose(source))


def spans(source: str) -> list[str]:
    """Return the texts between single backticks in a page's prose."""
    return _SPAN.findall(prose(source))


def anchors(source: str) -> list[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(source), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings]


def generated(source: str) -> dict[str, str]:
    """Return the generated regions of a page, by name."""
    pattern = re.compile(r"<!-- generated: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
    return dict(pattern.findall(source))


def part(file: str, name: str) -> str:
    """Return the lines of a file between `# [name]` and `# [/name]`, not indented, blank lines as in ruff."""
    text = (ROOT / file).read_text("utf-8")
    inside = re.search(rf"^ *# \[{name}\]\n(.*?)^ *# \[/{name}\]$", text, re.MULTILINE | re.DOTALL)
    if inside is None:
        raise ValueError(f"{file} has no part {name}")
    flat = textwrap.dedent(inside[1]).strip("\n") + "\n"
    return re.sub(r"\n\n+(?=\S)", "\n\n\n", flat)
