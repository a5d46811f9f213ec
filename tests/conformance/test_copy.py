"""Checks of the table of cases: what the runners read is complete, and is the table that the project agreed on.

`requests.json` is a copy of `shared/conformance/requests.json`, so that a clone alone can run every case. If the shared
folder lies beside the repository, the two files must have the same bytes. Every other check runs everywhere.
"""

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
COPY = HERE / "requests.json"
SHARED = HERE.parents[1].parent / "shared" / "conformance" / "requests.json"

CASES: list[dict[str, Any]] = json.loads(COPY.read_bytes())
FIELDS = {"refs", "want", "on_error", "timeout", "wait", "trace"}
CODES = {1001, 1003, 1010, 1011, 1012, 1013, 1014, 1020}


def test_copy_is_the_shared_table() -> None:
    if SHARED.exists():
        assert COPY.read_bytes() == SHARED.read_bytes(), f"copy {SHARED} over {COPY}"
    # The bytes that make.py writes: an edit by hand or by a formatter fails here without the original.
    assert COPY.read_text(encoding="utf-8") == json.dumps(CASES, indent=1, ensure_ascii=False) + "\n"


def test_titles_are_unique_and_cases_complete() -> None:
    titles = [case["title"] for case in CASES]
    assert len(titles) >= 68, "the table only grows"
    assert [title for title in titles if titles.count(title) > 1] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["title"])
def test_shape_of_a_case(case: dict[str, Any]) -> None:
    assert case.keys() == {"title", "cmds", "fields", "expect"}
    assert all(
        isinstance(call, dict) and call.keys() <= {"name", "fun", "args", "kwargs", "locs"} for call in case["cmds"]
    )
    assert case["fields"].keys() <= FIELDS
    expect = case["expect"]
    if "code" in expect:
        assert expect.keys() == {"code", "r"}
        assert expect["code"] in CODES
        partial = case["fields"].get("on_error") == "partial"
        assert isinstance(expect["r"], dict) or (expect["r"] is None and not partial)
    else:
        assert expect.keys() == {"r"}
        names = {call["name"] for call in case["cmds"]}
        assert expect["r"], "a request that succeeds has at least one leaf"
        assert expect["r"].keys() <= names
