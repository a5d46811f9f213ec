"""Strict JSON: accepted text is read as by `json`, refused text has a reason, and a tree is equal after a round trip.

Input: the text, UTF-8 or not. The oracle is the standard library's reader with the rules of
docs/howto/call-from-json.md around it.
"""

from __future__ import annotations

import json
from typing import Any

from mpreg_proto.wire import jsonvalues
from mpreg_proto.wire.jsonvalues import MalformedJson
from mpreg_proto.wire.value_limits import MAX_DEPTH, MAX_KEY
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.testing.equality import same

_CODEC = ValueCodec()
_DEEP = 200
"""The number of levels from which the oracle, which recurses, is not used."""


def harness(data: bytes) -> None:
    """Read, compare, write, read again."""
    try:
        tree = jsonvalues.loads(data)
    except MalformedJson as refusal:
        if data.count(b"[") + data.count(b"{") < _DEEP:
            assert oracle(data) is None, f"{data!r} is refused as {refusal}"
        return
    found = oracle(data)
    assert found is not None and same(found[0], tree), f"{data!r} is read as {tree!r}"
    said = jsonvalues.to_json(tree, _CODEC)
    assert same(said, tree), "what was JSON is JSON"
    assert same(jsonvalues.loads(jsonvalues.dumps(said)), tree), "a second journey changes the tree"
    assert same(_CODEC.decode(_CODEC.encode(tree)), tree), "what JSON says MessagePack can say"


def oracle(data: bytes) -> tuple[Any] | None:
    """Return the tree of a text in a tuple, or None if the rules refuse it."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        tree = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse, parse_float=_finite)
        json.dumps(tree, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return (tree,) if _fits(tree, 0) else None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _fits(tree: Any, above: int) -> bool:
    if isinstance(tree, dict):
        return above < MAX_DEPTH and all(len(key) <= MAX_KEY and _fits(tree[key], above + 1) for key in tree)
    return not isinstance(tree, list) or (above < MAX_DEPTH and all(_fits(item, above + 1) for item in tree))
