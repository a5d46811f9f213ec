"""The words that this project does not use are in none of its texts, names and docstrings (`python -m tests.words`)."""

from pathlib import Path

import pytest

from tests import words
from tests.helpers.repository_files import by_walking
from tests.words import files, found


def test_text_and_names_of_the_repository() -> None:
    assert len(files()) > 400
    assert [f"{one.file}:{one.line}: {one.text}" for one in found(files())] == []


def test_words_and_parts_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    lines = (
        "Who is told?",
        "def was_told() -> None:",
        "held for dead",
        "HEARD = 1",
        "hearing, retold, file.tell()",
        "",
    )
    (tmp_path / "x.py").write_text("\n".join(lines), "utf-8")
    assert [(one.line, one.word) for one in found(["x.py"])] == [
        (1, "told"),
        (2, "told"),
        (3, "held for dead"),
        (4, "heard"),
    ]


def test_question_words_of_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    lines = ('"""How long it takes."""', '"""However long."""', '"""The time that it takes. What else?"""', "Why not")
    (tmp_path / "x.py").write_text("\n".join(lines), "utf-8")
    assert [(one.line, one.word) for one in found(["x.py"])] == [(1, '"""how')]


def test_files_of_an_unpacked_archive() -> None:
    assert {"README.md", "mpreg_proto/node.py", "tests/words.py", "docs/explanation/glossary.md"} <= set(by_walking())
