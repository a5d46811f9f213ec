"""README.md and docs/ are correct: code runs, commands print what is shown, links and names have targets.

pages.py defines what a page may hold and runner.py runs it. The system chooses the ports; see there.
"""

import importlib
import json
import re
from pathlib import Path

import anyio
import pytest

import mpreg_transports
from tests.docs.pages import LANGUAGES, PAGES, ROOT, Block, Signal, anchors, blocks, links, part, prose, spans, steps
from tests.docs.reference import commands_of_mpreg
from tests.docs.runner import PageRun, commands, matches

NOT_RUN = {
    "README.md": 2,
    "docs/howto/dask.md": 1,
    "docs/howto/embed.md": 1,
    "docs/howto/two-hosts.md": 3,
    "docs/tutorial/first-cluster.md": 1,
}
"""The number of blocks of each page that are marked as not run. The page holds the reason of each."""


def to_run(page: str) -> bool:
    return any(block.file is not None or block.language in ("python", "console") for block in blocks(PAGES[page]))


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_page_runs_as_shown(page: str, tmp_path: Path) -> None:
    anyio.run(PageRun(page, PAGES[page], tmp_path).run)


def test_python_blocks_are_files_or_have_run_instructions() -> None:
    for page, source in PAGES.items():
        loose = [block for block in blocks(source) if block.language == "python" and block.file is None]
        loose = [block for block in loose if "part" not in dict(block.marks)]
        assert not (loose and page.startswith("docs/tutorial/")), f"{page}:{loose[0].line}: no whole file"
        if loose and page.startswith("docs/howto/"):
            assert "python -m asyncio" in prose(source), f"{page}: nothing says how its blocks are run"


def test_count_of_blocks_that_are_not_run() -> None:
    marked = {page: [block.not_run for block in blocks(source) if block.not_run] for page, source in PAGES.items()}
    assert {page: len(reasons) for page, reasons in marked.items() if reasons} == NOT_RUN
    for reason in (reason for reasons in marked.values() for reason in reasons):
        assert len(reason) > 20, f"a reason is a sentence, not {reason!r}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_known_language(page: str) -> None:
    for block in blocks(PAGES[page]):
        assert block.language in LANGUAGES, f"{page}:{block.line}: {block.language!r}"
        if block.language == "json":
            json.loads(block.text)
        if block.language == "console":
            assert commands(block.text), f"{page}:{block.line}: no command"


@pytest.mark.parametrize("page", PAGES)
def test_printed_parts_match_their_files(page: str) -> None:
    for block in blocks(PAGES[page]):
        for kind, where in block.marks:
            if kind == "part":
                assert block.text == part(*where.split()), f"{page}:{block.line}: not as in {where}"


@pytest.mark.parametrize("page", PAGES)
def test_link_targets_exist(page: str) -> None:
    for link in links(PAGES[page]):
        if re.match(r"https?://", link):
            continue
        target, _, fragment = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if fragment:
            source = PAGES[path.resolve().relative_to(ROOT).as_posix()]
            assert fragment in anchors(source), f"{page}: {link}"


def test_every_page_is_linked_from_the_readme() -> None:
    reached, waiting = {"README.md"}, ["README.md"]
    while waiting:
        page = waiting.pop()
        for link in links(PAGES[page]):
            target = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
            if name in PAGES and name not in reached:
                reached.add(name)
                waiting.append(name)
    assert sorted(reached) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_names_in_backticks_exist(page: str) -> None:
    for span in spans(PAGES[page]):
        assert _exists(span), f"{page}: `{span}`"


def test_every_public_name_is_in_the_reference() -> None:
    text = PAGES["docs/reference/python.md"] + PAGES["docs/reference/errors.md"]
    assert [name for name in mpreg_transports.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_shown_commands_and_options_exist() -> None:
    known = {
        name: {option for one in command.params for option in one.opts} for name, command in commands_of_mpreg().items()
    }
    for page, source in PAGES.items():
        consoles = [block for block in blocks(source) if block.language == "console"]
        shown = [command for block in consoles for command, _ in commands(block.text)]
        for line in [*shown, *spans(source)]:
            for words in re.findall(r"(?:^|[|&] *|uv run )mpreg ([a-z].*?)(?=[|&]|$)", line):
                name, *rest = words.split()
                if rest and f"{name} {rest[0]}" in known:  # a command of a group
                    name = f"{name} {rest[0]}"
                assert name in known, f"{page}: mpreg {words}"
                for word in rest:
                    if word.startswith("--"):
                        assert word.partition("=")[0] in known[name] | {"--help"}, f"{page}: mpreg {words}"


@pytest.mark.parametrize("page", PAGES)
def test_no_advertising_words(page: str) -> None:
    """No promises and no adjectives that sell (a rough check)."""
    selling = r"\b(blazing|seamless|effortless|powerful|simply|revolutionary|robust|easy)\w*"
    assert re.findall(selling, prose(PAGES[page]), re.IGNORECASE) == [], page


def test_page_parser() -> None:
    source = "<!-- not run: a reason -->\n```python\nx\n```\ntext\n\n```json file=a.json\n{}\n```\n<!-- kill: b -->\n"
    assert steps(source) == [
        Block("python", None, "x\n", 3, (("not run", "a reason"),)),
        Block("json", "a.json", "{}\n", 8, ()),
        Signal("kill", "b"),
    ]
    assert commands("$ a \\\n  b\nout\n$ c\n") == [("a   b", "out\n"), ("c", "\n")]
    assert commands("$ a 'b \\\nc' d\nout\n") == [("a 'b \\\nc' d", "out\n\n")]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a...c", "a\nb\nc\n", True),
        ("a", "a  \n\n", True),
        ("a", "ab", False),
        ("a.c", "abc", False),
        ("", "anything", True),
    ],
)
def test_output_comparison(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def _exists(span: str) -> bool:
    """Return whether a text in backticks exists, if it looks like a module, a file, or part of a public class."""
    if dotted := re.fullmatch(r"(mpreg_proto|mpreg_transports)((?:\.\w+)*)", span):
        return _importable(span) if dotted[2] else True
    if re.fullmatch(r"(docs|tests|mpreg_proto|mpreg_transports|fuzz)/[\w./-]*", span):
        return (ROOT / span).exists()
    if owned := re.match(r"(client|server|graph|Client|Server|Graph|SyncClient)\.(\w+)\b", span):
        owner = {"client": "Client", "server": "Server", "graph": "Graph"}.get(owned[1], owned[1])
        found = getattr(mpreg_transports, owner)
        return hasattr(found, owned[2]) or owned[2] in ("url", "urls", "node", "port", "name", "resources")
    return True


def _importable(name: str) -> bool:
    module, _, rest = name.partition(".")
    found: object = importlib.import_module(module)
    for step in rest.split("."):
        module = f"{module}.{step}"
        if not hasattr(found, step):
            try:
                importlib.import_module(module)
            except ImportError:
                return False
        found = getattr(found, step)
    return True
