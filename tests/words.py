"""Words and first words of docstrings that this project does not use, counted in its text and names.

    python -m tests.words [--list]

The glossary (docs/explanation/glossary.md) has the word of the field for each idea. These are words that stood for such
an idea, or that say of code what only people do. They are looked for in every text file of the repository, as words of
their own and as parts of names. A docstring begins with a noun phrase or an imperative, not with a question word.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers.repository_files import ROOT, repository_files

WORDS = tuple("told,tell,tells,heard,hear,hears,whom,held for dead,anew,dear,mend,mends,mended".split(","))
ALLOWED = ("tests/words.py", "tests/test_words.py")
"""The files that name the words."""
_ENDINGS = {".py", ".md", ".toml", ".js", ".html", ".css", ".yml", ".yaml"}
_PATTERNS = "|".join(word.replace(" ", "[ _]") for word in sorted(WORDS, key=len, reverse=True))
_FOUND = re.compile(rf"(?<![A-Za-z])(?<!\.)(?:{_PATTERNS})(?![A-Za-z])", re.IGNORECASE)
"""A word of its own or a part of a name; not a method of a file (`.tell()`)."""
_QUESTION = re.compile(r'"{3}(?:Who|What|Where|How|When|Why)\b')
"""The beginning of a docstring that begins with a question word."""


class Found(NamedTuple):
    """One use of a word."""

    file: str
    line: int
    word: str
    text: str


def files() -> list[str]:
    """Return the text files of the repository, without `ALLOWED`."""
    names = repository_files()
    return [name for name in names if (Path(name).suffix in _ENDINGS or name == ".ci/run") and name not in ALLOWED]


def found(names: list[str]) -> Iterator[Found]:
    """Each use in these files, in order."""
    for name in names:
        path = ROOT / name
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            for match in (*_FOUND.finditer(line), *_QUESTION.finditer(line)):
                yield Found(name, number, match.group().lower().replace("_", " "), line.strip())


def main() -> int:
    """Print the counts; 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.words", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="each use, with its line")
    listed = parser.parse_args().list
    uses = list(found(files()))
    if listed:
        for one in uses:
            print(f"{one.file}:{one.line}: {one.word}: {one.text}")
    for word, count in Counter(one.word for one in uses).most_common():
        print(f"{count:>6}  {word}")
    print(f"{len(uses):>6}  in {len({one.file for one in uses})} files")
    return 1 if uses else 0


if __name__ == "__main__":
    sys.exit(main())
