"""The conformance cases, and the comparison of an answer with its case: for every runner in this folder.

`requests.json` holds the requests and the expected answers; a runner passes the answer that it received. Values are
compared with their types: 1, 1.0 and true are three values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("requests.json").read_bytes())
REFUSED = frozenset({1000, 1001, 1004, 1005, 1010, 1011, 1012, 1013, 1014})
"""Codes of a request that is wrong as a whole. (A path that does not exist fails late, but echo may run twice.)"""

each_case = pytest.mark.parametrize("case", CASES, ids=[case["title"] for case in CASES])


def classic_request(case: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the case as a JSON client sends it."""
    return {"role": "rpc", "cmds": case["cmds"], **case["fields"], **more}


def same(left: object, right: object) -> bool:
    """Return whether both are equal and have the same types at every depth."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def judge(case: dict[str, Any], values: object, code: int | None) -> None:
    """Fail unless `values` (None: none came) and `code` (None: no error) are what the case expects."""
    expect = case["expect"]
    assert code == expect.get("code"), f"code {code}, values {values!r:.500}"
    assert same(values, expect["r"]), f"{values!r:.500} instead of {expect['r']!r:.500}"


def judge_json(case: dict[str, Any], answer: dict[str, Any], u: str) -> None:
    """Compare a classic answer with its case: its shape, its `u` and its content."""
    assert answer.keys() == {"r", "error", "u"}
    assert answer["u"] == u
    error = answer["error"]
    judge(case, answer["r"], None if error is None else error["code"])
    if error is not None:
        assert error.keys() == {"code", "message", "details"}
        assert type(error["message"]) is str and error["message"]
        executed = error["details"]["maybe_executed"]
        assert executed is False if error["code"] in REFUSED else type(executed) is bool
