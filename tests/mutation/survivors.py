"""The mutants of the sample that no test and no seed had found, and what was decided about each (survivors.toml)."""

from __future__ import annotations

import tomllib
from typing import Literal

import msgspec

from tests.mutation import ROOT

FILE = ROOT / "tests" / "mutation" / "survivors.toml"


class Survivor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One survivor. An equivalent one has a reason; for a fixed one, a test was added that finds it."""

    key: str
    file: str
    line: int
    where: str
    operator: str
    diff: str
    verdict: Literal["equivalent", "fixed"]
    reason: str = ""
    test: str = ""
    """The id of the test, as pytest names it."""


class _Survivors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    survivor: tuple[Survivor, ...]


def survivors() -> tuple[Survivor, ...]:
    """Return the survivors. Raises msgspec.ValidationError for data that is no list of survivors."""
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), _Survivors).survivor


def table() -> list[str]:
    """Return the table in Markdown, as in docs/explanation/testing.md."""
    rows = [
        f"| `{one.file}` | {one.where} | {one.operator}: `{_escaped(one.diff)}` | {_decision(one)} |"
        for one in survivors()
    ]
    return ["| file | where | mutant | decision |", "|---|---|---|---|", *rows]


def _decision(one: Survivor) -> str:
    if one.verdict == "equivalent":
        return f"equivalent: {one.reason}"
    return f"found by `{one.test.rpartition('::')[2]}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
