"""The search for the part of a value that cannot be sent: its place, its type, and the reason."""

import enum
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone, tzinfo
from io import BytesIO
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest

from mpreg_proto.wire.encode_errors import (
    CONTAINS_ITSELF,
    REGISTER,
    UnsendableValue,
    find_self_reference,
    is_text,
    unknown,
)
from mpreg_proto.wire.value_limits import RECORD_AS_KEY, ValueTooLarge
from mpreg_proto.wire.values import Ref, ValueCodec

CODEC = ValueCodec()


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


class NoZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=1)


class Itself:
    __unsendable__ = "write its number instead"


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "path", "type_name", "why"),
    [
        (object(), "$", "object", "not registered"),
        ({"rows": [1, 2, {"x": object()}]}, "$.rows[2].x", "object", "not registered"),
        ([(1, {2: Word("x")})], "$[0][1][2]", "Word", "subclass of str"),
        ({"odd key": [Colour.RED]}, "$['odd key'][0]", "Colour", "send its .value"),
        ([Point(1, 2)], "$[0]", "Point", "named tuple"),
        ({"a": {1, object}}, "$.a{}", "type", "a class; only data"),
        ([Itself()], "$[0]", "Itself", "write its number"),
        ([BytesIO()], "$[0]", "BytesIO", "an open file; send what it holds"),
        ([iter(())], "$[0]", "tuple_iterator", "an iterator; send list(...)"),
        ([range(3)], "$[0]", "range", "send list(...)"),
        ([{1: 2}.values()], "$[0]", "dict_values", "send list(...)"),
        ([MappingProxyType({})], "$[0]", "mappingproxy", "send dict(...)"),
        ({"a": {Word("k"): 1}}, "$.a{", "Word", "subclass of str"),
        (OrderedDict(a=object()), "$.a", "object", "not registered"),
        (["ok", "\ud800"], "$[1]", "str", "half of a surrogate pair"),
        ({"\udfff": 1}, "$", "str", "half of a surrogate pair"),
        ([time(1, tzinfo=NoZone())], "$[0]", "time", "without a date"),
        ([datetime(1, 1, 1, tzinfo=timezone(timedelta(0, 0, 1)))], "$[0]", "datetime", "fractions of a second"),
        ([Ref(5)], "$[0]", "Ref", "name in a reference is text"),  # type: ignore[arg-type]
        ([Ref("a", (True,))], "$[0]", "Ref", "a step of a path"),
        ([Ref("a", (-1,))], "$[0]", "Ref", "a step of a path"),
        ([Ref("a", ("x",) * 65)], "$[0]", "Ref", "at most 64 steps"),
        ([{Ref("a")}], "$[0]", "set", "cannot be a member"),
        ([frozenset({Ref("a")})], "$[0]", "frozenset", "cannot be a member"),
        ([Ref("\ud800")], "$[0]", "Ref", "surrogates not allowed"),
    ],
)
def test_path_of_an_unsendable_value(value: object, path: str, type_name: str, why: str) -> None:
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode(value)
    assert caught.value.path.startswith(path)
    assert caught.value.type_name == type_name
    assert why in caught.value.reason
    assert caught.value.limit is None


def child_and_parent(make: Callable[..., Any]) -> Any:
    """Return a parent whose two children refer to it, so that each step along the references doubles the paths."""
    parent = make()
    children = [make(), make()]
    for each in children:
        each["parent" if isinstance(each, dict) else 0] = parent
    parent["children" if isinstance(parent, dict) else 0] = children
    return parent


@dataclass
class Tree:
    parent: object = None
    children: tuple[object, ...] = ()


def tree() -> Tree:
    root = Tree()
    root.children = (Tree(root), Tree(root))
    return root


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (child_and_parent(lambda: [None]), "$[0][0][0]"),
        (child_and_parent(dict), "$.children[0].parent"),
        (child_and_parent(OrderedDict), "$.children[0].parent"),
        (child_and_parent(lambda: defaultdict(int)), "$.children[0].parent"),
        (tree(), "$.children[0].parent"),
    ],
    ids=["list", "dict", "OrderedDict", "defaultdict", "dataclass"],
)
def test_path_of_a_value_that_contains_itself(value: object, path: str) -> None:
    with pytest.raises(UnsendableValue, match="contains itself") as caught:
        CODEC.encode(value)
    assert caught.value.path == path


def test_text_of_an_unsendable_value() -> None:
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode({"rows": [Word("x")]})
    error = caught.value
    assert str(error) == f"$.rows[0]: Word: {error.reason}"
    assert error.reason == f"a subclass of str, which it would become; send str(...), {REGISTER}"
    assert isinstance(error.__cause__, TypeError)


def test_dataclass_in_a_key() -> None:
    @dataclass(frozen=True)
    class Spot:
        x: int

    for value in ({"k": {Spot(1): 2}}, {"k": {(0, Spot(1)): 2}}, {"k": {Spot(1)}}):
        with pytest.raises(UnsendableValue) as caught:
            CODEC.encode(value)
        assert caught.value.path.startswith("$.k{")
        assert (caught.value.type_name, caught.value.reason) == ("Spot", RECORD_AS_KEY)


@pytest.mark.parametrize(("place", "path", "type_name"), [(1_000, "$[1000]", "object"), (100_000, "$", "list")])
def test_search_ends_after_many_objects(place: int, path: str, type_name: str) -> None:
    value: list[object] = ["text"] * place
    with pytest.raises(UnsendableValue, match="a type that is not registered") as caught:
        CODEC.encode([*value, object()])
    assert (caught.value.path, caught.value.type_name) == (path, type_name)


def test_error_of_encoding_when_the_search_finds_no_fault() -> None:
    for error, reason, limit in (
        (ValueError("odd"), "odd", None),
        (
            ValueTooLarge("nesting", 64, 65),
            "nested deeper than 64 levels",
            {"limit": "nesting", "value": 64, "came": 65},
        ),
        (
            ValueTooLarge("containers", 3, 4),
            "more than 3 lists, maps, tuples and sets in one value",
            {"limit": "containers", "value": 3, "came": 4},
        ),
    ):
        found = CODEC.search().find_error([1, {"k": "v"}], error)
        assert (found.path, found.type_name, found.reason, found.limit) == ("$", "list", reason, limit)


def test_object_that_raises_when_inspected() -> None:
    raised: list[BaseException] = [SystemExit(3)]

    def fail(value: object) -> object:
        raise raised[0]

    codec = ValueCodec()
    codec.register(32, Itself, fail, fail)
    with pytest.raises(UnsendableValue) as caught:
        codec.encode({"k": [Itself()]})
    assert (caught.value.path, caught.value.type_name, caught.value.reason) == ("$.k[0]", "Itself", "3")
    raised[0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        codec.encode({"k": [Itself()]})


# -- values that contain themselves -----------------------------------------------------------------------------------


def lists_only(value: object) -> object:
    return value if type(value) is list else None


def test_shared_value_is_no_self_reference() -> None:
    shared: list[object] = [1]
    for _ in range(100):
        shared = [shared, shared]
    assert find_self_reference(shared, lists_only) is None
    assert not CODEC.search().has_cycle({"a": shared, "b": [shared]})


def test_place_of_a_self_reference() -> None:
    inner: list[object] = [1, "text"]
    inner.append([inner])
    found = find_self_reference([[2], inner], lists_only)
    assert found is not None and found[0] == "$[1][2][0]" and found[1] is inner
    assert CODEC.search().has_cycle((inner,))


def test_self_reference_through_a_registered_type() -> None:
    codec = ValueCodec()
    codec.register(32, Tree, lambda tree: [*tree.children], lambda held: Tree(children=held))
    root = Tree()
    root.children = (1, {"up": root})
    with pytest.raises(UnsendableValue) as caught:
        codec.encode([root])
    assert caught.value.reason == CONTAINS_ITSELF and caught.value.path.startswith("$[0]")


# -- reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sendable"), [("", True), ("ascii", True), ("ž\U0001f40e", True), ("\ud800", False), ("a\udfffb", False)]
)
def test_text_that_utf8_can_encode(text: str, sendable: bool) -> None:
    assert is_text(text) is sendable


class Array:
    def tolist(self) -> list[object]:
        return []


class Model:
    def model_dump(self) -> dict[str, object]:
        return {}


class Mapped:
    def keys(self) -> list[object]:
        return []


class Names(set[str]):
    pass


class Inherits(Itself):
    pass


async def later() -> None:
    return None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "a type that is not registered; convert it to plain values"),
        (Colour, "a class; only data can be sent"),
        (Colour.RED, "send its .value"),
        (Point(1, 2), "send tuple(...) or ._asdict()"),
        (Array(), "send .tolist()"),
        (Model(), "send .model_dump()"),
        (Mapped(), "send dict(...)"),
        (PurePosixPath("a"), "send str(...)"),
        (lambda: None, "a function; only data can be sent"),
        (Names(), "a subclass of set, which it would become; send set(...)"),
        (range(3), "send list(...)"),
    ],
)
def test_reason_suggests_what_to_send(value: object, reason: str) -> None:
    found = unknown(value)
    assert reason in found and found.endswith(f", {REGISTER}")


def test_reason_of_a_value_that_is_not_awaited() -> None:
    coroutine = later()
    assert "not awaited yet; send what awaiting it gives" in unknown(coroutine)
    coroutine.close()


def test_reason_that_a_class_provides() -> None:
    assert unknown(Itself()) == unknown(Inherits()) == "write its number instead"
