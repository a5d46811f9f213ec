"""docs/explanation/glossary.md against the code: each class that it names exists once, as does every other class."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "glossary.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| term"))
]
CLASSES = Counter(
    node.name
    for package in ("mpreg_proto", "mpreg_transports")
    for file in sorted((ROOT / package).rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text("utf-8")))
    if isinstance(node, ast.ClassDef)
)


def test_glossary_terms_are_unique() -> None:
    assert len(ROWS) >= 40
    assert all(len(row) == 4 and row[0] and row[1] for row in ROWS)
    terms = Counter(row[0] for row in ROWS)
    assert [term for term, count in terms.items() if count > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_glossary_classes_exist_once(row: list[str]) -> None:
    names = re.findall(r"`([A-Z]\w+)`", row[2])
    assert {name: CLASSES[name] for name in names} == dict.fromkeys(names, 1)


def test_class_names_are_unique() -> None:
    assert [name for name, count in CLASSES.items() if count > 1] == []
