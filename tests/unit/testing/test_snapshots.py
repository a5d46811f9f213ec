"""The names that a snapshot leaves out or takes relative to the clock are attributes that the core has."""

import ast
from pathlib import Path

import pytest

from mpreg_transports.testing.runs import snapshots

ROOT = Path(__file__).resolve().parents[3]
ATTRIBUTES = {
    node.attr
    for file in sorted((ROOT / "mpreg_proto").rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text("utf-8")))
    if isinstance(node, ast.Attribute)
}


@pytest.mark.parametrize("name", sorted(snapshots._LEFT_OUT | snapshots._TIMES))
def test_snapshot_names_are_attributes_of_the_core(name: str) -> None:
    assert name in ATTRIBUTES
