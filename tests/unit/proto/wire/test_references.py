"""References in classic arguments, in both notations, and their resolution."""

from typing import Any

import pytest

from mpreg_proto.wire.references import (
    BadReference,
    MissingReference,
    PathNotFound,
    Ref,
    resolve,
    scan_classic,
    scan_explicit,
)

NAMES = {"a": 1, "b": 1, "own": 1}


@pytest.mark.parametrize(
    ("value", "tree", "needs"),
    [
        ("a", Ref("a"), ("a",)),
        ([["a", "x", "a"], {"k": "b", "a": 1}], [[Ref("a"), "x", Ref("a")], {"k": Ref("b"), "a": 1}], ("a", "b")),
        ({"z": {"y": ["b"]}, "x": "a"}, {"z": {"y": [Ref("b")]}, "x": Ref("a")}, ("b", "a")),
        (["own", "b"], ["own", Ref("b")], ("b",)),
    ],
)
def test_classic_references(value: object, tree: object, needs: tuple[str, ...]) -> None:
    before = repr(value)
    assert scan_classic(value, NAMES, "own") == (tree, needs)
    assert repr(value) == before


@pytest.mark.parametrize(
    "value",
    ["own", "a ", "A", "", 5, None, [], {}, {"a": {"b": 1}}, ["own", ["x", {"a": 2.5}]], [1] * 50, ("a",), {"$ref": 5}],
)
def test_data_without_classic_references_is_not_copied(value: object) -> None:
    tree, needs = scan_classic(value, NAMES, "own")
    assert tree is value
    assert needs == ()


def test_partial_copy_with_classic_references() -> None:
    untouched: list[Any] = [1, {"x": "y"}]
    tree, _ = scan_classic([untouched, "a"], NAMES, "own")
    assert tree[0] is untouched  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "tree", "needs"),
    [
        ({"$ref": "a"}, Ref("a"), ("a",)),
        ([{"$ref": "b", "path": ["k", 0, ""]}, {"$ref": "a"}], [Ref("b", ("k", 0, "")), Ref("a")], ("b", "a")),
        ({"in": {"$ref": "a", "path": []}, "a": "a"}, {"in": Ref("a"), "a": "a"}, ("a",)),
        ({"$data": {"$ref": "a"}}, {"$ref": "a"}, ()),
        ([{"$data": {"$data": [{"$ref": 5}]}}], [{"$data": [{"$ref": 5}]}], ()),
        ({"$ref": ""}, Ref(""), ("",)),
    ],
)
def test_explicit_references(value: object, tree: object, needs: tuple[str, ...]) -> None:
    before = repr(value)
    assert scan_explicit(value) == (tree, needs)
    assert repr(value) == before


@pytest.mark.parametrize("value", ["a", ["a", {"ref": "a", "path": [True]}], {"$Ref": 1, "path": 5}, 5, {}])
def test_data_without_explicit_references_is_not_copied(value: object) -> None:
    tree, needs = scan_explicit(value)
    assert tree is value
    assert needs == ()


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({"$ref": 5}, '$["$ref"]', "text"),
        ({"$ref": None, "x": 1}, '$["$ref"]', "text"),
        ([0, {"x": {"$ref": "a", "y": 1}}], "$[1].x", "not 'y'"),
        ([{"$ref": "a", "path": [], "y": 1}], "$[0]", "not 'y'"),
        ({"odd key": {"$ref": "a", "path": "k"}}, "$['odd key'].path", "a list"),
        ({"$ref": "a", "path": None}, "$.path", "a list"),
        ({"$ref": "a", "path": [True]}, "$.path", "a step"),
        ({"$ref": "a", "path": [-1]}, "$.path", "a step"),
        ({"$ref": "a", "path": [1.0]}, "$.path", "a step"),
        ({"$ref": "a", "path": [2**63]}, "$.path", "a step"),
        ({"$ref": "a", "path": ["x"] * 65}, "$.path", "at most 64"),
        ([[{"$data": 1, "x": 2}]], "$[0][0]", "no other key"),
        ({"$data": 1, "$ref": "a"}, "$", "not '$data'"),
    ],
)
def test_malformed_explicit_references(value: object, path: str, text: str) -> None:
    with pytest.raises(BadReference) as caught:
        scan_explicit(value)
    assert caught.value.path == path
    assert text in caught.value.text
    assert str(caught.value) == f"{path}: {caught.value.text}"


def test_nesting_over_the_limit() -> None:
    value: object = "a"
    for _ in range(64):
        value = [value]
    assert scan_classic(value, NAMES, "own")[1] == ("a",)
    assert scan_explicit(value) == (value, ())
    for _ in range(5000):
        value = {"k": value}
    for scan in (lambda: scan_classic(value, NAMES, "own"), lambda: scan_explicit(value)):
        with pytest.raises(BadReference, match="nested deeper than 64 levels"):
            scan()


def test_resolved_reference_to_a_shared_result() -> None:
    given = {"a": {"k": [(1, 2)]}}
    assert resolve(Ref("a"), given) is given["a"]
    assert resolve(Ref("a", ("k", 0, 1)), given) == 2
    with pytest.raises(MissingReference, match="no value is given for 'b'"):
        resolve(Ref("b"), given)
    with pytest.raises(PathNotFound, match=r"the result of 'a' has no \.k\[1\]"):
        resolve(Ref("a", ("k", 1, 5)), given)
