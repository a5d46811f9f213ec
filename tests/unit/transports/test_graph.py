"""Graphs: names, handles, references, the request and its saved form, and errors before anything is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpreg_proto.wire.messages import Request
from mpreg_proto.wire.value_limits import MAX_DEPTH
from mpreg_transports import Client, DuplicateName, Graph, Handle, InvalidRequest
from mpreg_transports.values import default_codec

codec = default_codec()
UNKNOWN = "convert it to plain values, or register the type in a ValueCodec and pass codec="


def arguments(request: Request, name: str, **results: Any) -> Any:
    """Return the arguments of a call as its node decodes them, with these results as inputs."""
    call = next(call for call in request.calls if call.name == name)
    return codec.decode(call.args, inputs=results)


def names(request: Request) -> list[str]:
    return [call.name for call in request.calls]


# -- names ------------------------------------------------------------------------------------------------------------


def test_automatic_call_names_are_numbered() -> None:
    graph = Graph()
    for function in ("echo", "echo", "other", "echo"):
        graph.call(function)
    assert names(graph.request()) == ["echo", "echo-2", "other", "echo-3"]
    assert len(graph) == 4


def test_automatic_call_names_avoid_given_names() -> None:
    graph = Graph()
    graph.call("echo", name="echo-2")
    graph.call("other", name="echo")
    assert [graph.call("echo").name, graph.call("echo").name] == ["echo-3", "echo-4"]
    graph.call("echo", name="echo-6")
    assert [graph.call("echo").name, graph.call("echo").name] == ["echo-5", "echo-7"]


def test_duplicate_name() -> None:
    graph = Graph()
    graph.call("echo")
    with pytest.raises(DuplicateName, match="two calls are named 'echo'") as caught:
        graph.call("other", name="echo")
    assert caught.value.code == 1011
    assert caught.value.details == {"name": "echo"}
    assert len(graph) == 1


@pytest.mark.parametrize("name", ["", 1, b"echo"])
def test_invalid_call_name(name: Any) -> None:
    with pytest.raises(InvalidRequest, match="a call's name is a non-empty text"):
        Graph().call("echo", name=name)


@pytest.mark.parametrize("function", ["", 1, None, print])
def test_invalid_function_name(function: Any) -> None:
    with pytest.raises(TypeError, match="a function is named by its name"):
        Graph().call(function)


# -- handles ----------------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Handle], object]] = {
    "iteration": list,  # type: ignore[call-overload]
    "unpacking": lambda handle: [*handle],  # type: ignore[misc]
    "truth": bool,
    "if": lambda handle: 1 if handle else 2,
    "in": lambda handle: 1 in handle,  # type: ignore[operator]
    "less": lambda handle: handle < 1,  # type: ignore[operator]
    "not less": lambda handle: handle >= handle,  # type: ignore[operator]
    "sorting": lambda handle: sorted([handle, handle]),  # type: ignore[type-var]
    "formatting": lambda handle: f"{handle}",
    "formatting by width": lambda handle: f"{handle:>5}",
    "text": str,
    "length": len,  # type: ignore[arg-type]
    "number": int,  # type: ignore[call-overload]
    "float": float,  # type: ignore[arg-type]
    "index": lambda handle: [1][handle],  # type: ignore[call-overload]
}


@pytest.mark.parametrize("use", USES)
def test_handle_cannot_be_used_as_a_value(use: str) -> None:
    with pytest.raises(
        TypeError, match="the result of 'echo' is not computed yet: pass the handle to another call, or"
    ):
        USES[use](Graph().call("echo"))


def test_repr_and_equality_of_a_handle() -> None:
    handle = Graph().call("echo")
    assert repr(handle) == "<result of echo, not computed yet>"
    assert repr(handle["key"][0]) == "<result of echo['key'][0], not computed yet>"
    assert {handle: 1}[handle] == 1
    assert handle == handle
    assert handle != handle["key"]


@pytest.mark.parametrize("key", [-1, 1.0, None, True, b"x", slice(1), (1, 2)])
def test_invalid_key_of_a_result_part(key: Any) -> None:
    with pytest.raises(TypeError, match="a part of a result is named by text or a position from 0 on"):
        Graph().call("echo")[key]


# -- references -------------------------------------------------------------------------------------------------------


def test_handles_at_any_depth_are_references() -> None:
    graph = Graph()
    one, two = graph.call("one"), graph.call("two")
    graph.call("use", one, ["one", one["a"][0], (two, {"k": [two[1]]})], "two", key={"deep": {"er": one}})
    request = graph.request()
    assert request.calls[2].dependencies == ("one", "two")
    one_is, two_is = {"a": ["A"]}, ["x", "y"]
    assert arguments(request, "use", one=one_is, two=two_is) == [
        [one_is, ["one", "A", (two_is, {"k": ["y"]})], "two"],
        {"key": {"deep": {"er": one_is}}},
    ]


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: (value,), lambda value: {"k": value}])
def test_handle_in_the_deepest_container_that_can_be_sent(wrap: Callable[[Any], Any]) -> None:
    graph = Graph()
    deepest: Any = graph.call("f")
    for _ in range(MAX_DEPTH - 2):  # the list of all arguments, and that of the positional ones
        deepest = wrap(deepest)
    graph.call("g", deepest)
    made = graph.request()
    assert made.calls[1].dependencies == ("f",)
    (found,), _ = arguments(made, "g", f=1)
    while not isinstance(found, int):
        found = found["k" if isinstance(found, dict) else 0]
    assert found == 1
    with pytest.raises(TypeError, match="nested"):
        graph.call("h", wrap(deepest))


def test_containers_of_the_user_are_not_changed() -> None:
    graph = Graph()
    one = graph.call("one")
    mine = {"a": [one, {"b": one}], "c": [1]}
    graph.call("use", mine)
    assert mine["a"][0] is one
    assert mine["a"][1] == {"b": one}
    mine["c"].append(2)  # the request has the value of that time
    assert arguments(graph.request(), "use", one=7)[0] == [{"a": [7, {"b": 7}], "c": [1]}]


def test_handle_as_a_key_or_in_a_set_is_refused() -> None:
    graph = Graph()
    one = graph.call("one")
    for wrong in ({one: 1}, {one}, frozenset([one])):
        with pytest.raises(TypeError, match="call 'use': "):
            graph.call("use", wrong)
    assert names(graph.request()) == ["one"]


def test_handles_of_another_graph_are_refused() -> None:
    graph, other = Graph(), Graph()
    theirs = other.call("echo")
    graph.call("echo")
    for attempt in (
        lambda: graph.call("use", theirs),
        lambda: graph.call("use", deep=[theirs["x"]]),
        lambda: graph.call("use", after=[theirs]),
        lambda: graph.request(theirs),
    ):
        with pytest.raises(InvalidRequest, match="the handle of 'echo' belongs to another graph"):
            attempt()
    assert names(graph.request()) == ["echo"]


def test_after_is_a_dependency_without_a_reference() -> None:
    graph = Graph()
    one, two, three = graph.call("one"), graph.call("two"), graph.call("three")
    graph.call("all", one, after=[two, three, two, one])
    graph.call("single", after=two)
    request = graph.request()
    assert request.calls[3].dependencies == ("one", "two", "three")
    assert request.calls[4].dependencies == ("two",)
    assert arguments(request, "all", one=7) == [[7], {}]
    for wrong in (["one"], [1]):
        with pytest.raises(TypeError, match="expected a handle of this graph, got"):
            graph.call("wrong", after=wrong)  # type: ignore[arg-type]


def test_chain_of_10000_calls_needs_no_recursion() -> None:
    graph = Graph()
    last = graph.call("echo")
    for _ in range(9_999):
        last = graph.call("echo", last)
    assert len(graph.request(last).calls) == 10_000


# -- arguments --------------------------------------------------------------------------------------------------------


def test_reserved_keywords_go_by_kwargs() -> None:
    graph = Graph()
    own = {"name": 1, "resources": 2, "after": 3, "kwargs": 4, "version": 5, "function": 6}
    graph.call("use", kwargs=own, function=7, other=8)
    assert arguments(graph.request(), "use") == [[], {**own, "function": 7, "other": 8}]


@pytest.mark.parametrize(
    ("build", "place"),
    [
        (lambda graph: graph.call("use", 1, object()), "args[1]"),
        (lambda graph: graph.call("use", key={"a": [1, object()]}), "kwargs.key.a[1]"),
    ],
)
def test_error_of_an_unsendable_argument_names_its_place(build: Callable[[Graph], object], place: str) -> None:
    graph = Graph()
    with pytest.raises(TypeError) as caught:
        build(graph)
    assert str(caught.value) == f"call 'use': {place}: object: a type that is not registered; {UNKNOWN}"
    assert len(graph) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_handle_as_an_argument_of_a_plain_call() -> None:
    handle = Graph().call("use")
    with pytest.raises(TypeError) as caught:
        await Client().call("use", 1, [handle])
    assert str(caught.value) == (
        "call 'use': args[1][0]: Handle: the result of a call that has not run; "
        "run the graph first, or add this call to it by graph.call"
    )


def test_resources_of_a_call() -> None:
    graph = Graph()
    graph.call("use", resources=["b", "a", "b"], version="1")
    call = graph.request().calls[0]
    assert (call.resources, call.version) == (("a", "b"), "1")
    with pytest.raises(TypeError, match=r'resources="gpu" is a bare string; write resources=\{"gpu"\}'):
        graph.call("use", resources="gpu")
    with pytest.raises(TypeError, match="a resource is a non-empty string"):
        graph.call("use", resources=["gpu", ""])
    assert len(graph) == 1


# -- the request -------------------------------------------------------------------------------------------------------


def test_only_needed_calls_are_sent() -> None:
    graph = Graph()
    top = graph.call("top")
    left, right = graph.call("left", top), graph.call("right", top["x"])
    graph.call("unused", left)
    side = graph.call("side", after=right)
    request = graph.request(left)
    assert (names(request), request.want) == (["top", "left"], ("left",))
    request = graph.request(side, left["part"], left)
    assert (names(request), request.want) == (["top", "left", "right", "side"], ("side", "left"))
    request = graph.request()
    assert (len(request.calls), request.want) == (5, None)


def test_empty_graph_and_stream_without_a_client() -> None:
    with pytest.raises(InvalidRequest, match="this graph has no calls yet; add one with graph"):
        Graph().request()
    graph = Graph()
    graph.call("echo")
    with pytest.raises(TypeError, match=r"this graph knows no client: use client\.run\(graph\), or make it with"):
        graph.stream()


@pytest.mark.anyio
async def test_run_of_a_graph_without_a_client() -> None:
    graph = Graph()
    graph.call("echo")
    for attempt in (graph.run, graph.explain):
        with pytest.raises(TypeError, match="this graph knows no client"):
            await attempt()


# -- saving -----------------------------------------------------------------------------------------------------------


def test_saved_graph_has_the_same_meaning(tmp_path: Path) -> None:
    graph = Graph()
    one = graph.call("one", {"$ref": "not one"}, {"$data": 1}, "one", "gr\u00fcn")
    graph.call("two", one["a"][0], [one, (1, 2)], key={"k": one}, resources={"b", "a"})
    file = tmp_path / "graph.json"
    graph.save(file)
    saved = json.loads(file.read_text("utf-8"))
    assert saved == {
        "role": "rpc",
        "refs": "explicit",
        "cmds": [
            {
                "name": "one",
                "fun": "one",
                "args": [{"$data": {"$ref": "not one"}}, {"$data": {"$data": 1}}, "one", "gr\u00fcn"],
                "kwargs": {},
                "locs": [],
            },
            {
                "name": "two",
                "fun": "two",
                "args": [{"$ref": "one", "path": ["a", 0]}, [{"$ref": "one"}, [1, 2]]],
                "kwargs": {"key": {"k": {"$ref": "one"}}},
                "locs": ["a", "b"],
            },
        ],
    }
    assert "gr\u00fcn" in file.read_text("utf-8")
    assert file.read_text("utf-8").endswith("}\n")


def test_error_of_a_value_without_a_json_form_names_its_call(tmp_path: Path) -> None:
    graph = Graph()
    graph.call("fine")
    graph.call("use", [1, float("nan")])
    file = tmp_path / "graph.json"
    with pytest.raises(TypeError, match=r"call 'use': args\[0\]\[1\]: float: .*cannot be sent as JSON"):
        graph.save(file)
    assert not file.exists()


def test_place_of_a_keyword_without_a_json_form() -> None:
    graph = Graph()
    graph.call("use", key=[{"rows": (1, {"$ref": [1j]})}])
    with pytest.raises(TypeError, match=r"call 'use': kwargs\.key\[0\]\.rows\[1\]\['\$ref'\]\[0\]: complex: "):
        graph.commands()


@pytest.mark.parametrize("word", ["after=", "version="])
def test_options_without_a_json_form_are_refused(tmp_path: Path, word: str) -> None:
    graph = Graph()
    first = graph.call("first")
    if word == "after=":
        graph.call("use", first, after=first)  # the reference implies this order already
        graph.commands()
        graph.call("bad", after=first)
    else:
        graph.call("bad", version="1")
    file = tmp_path / "graph.json"
    with pytest.raises(TypeError, match=f"call 'bad': {word} has no form in a JSON request"):
        graph.save(file)
    assert not file.exists()


# -- values that contain themselves ------------------------------------------------------------------------------------


def family(make: Callable[[], Any], *, handle: object = None) -> Any:
    """Return a parent and two children that refer to it; a walk doubles at each step."""
    parent = make()
    for place in (0, 1):
        child = {"parent": parent, "handle": handle}
        parent.append(child) if isinstance(parent, list) else parent.update({place: child})
    return parent


@pytest.mark.parametrize("make", [list, dict])
@pytest.mark.parametrize("with_handle", [False, True])
def test_argument_that_contains_itself(make: Callable[[], Any], with_handle: bool) -> None:
    graph = Graph()
    handle = graph.call("echo") if with_handle else None
    with pytest.raises(TypeError, match=r"call 'use': args\[0\]\[0\]\[0\]\.parent: (list|dict): contains itself"):
        graph.call("use", [family(make, handle=handle)])
    with pytest.raises(TypeError, match=r"call 'use': kwargs\.key\[0\]\.parent: (list|dict): contains itself"):
        graph.call("use", key=family(make, handle=handle))
    assert len(graph) == with_handle


def test_argument_nested_too_deep_or_shared_too_often() -> None:
    graph = Graph()
    deep: Any = [graph.call("echo")]
    for _ in range(100_000):
        deep = [deep]
    shared: Any = [graph.call("echo")]
    for _ in range(40):
        shared = [shared, shared]
    for value, why in ((deep, "nested deeper than 64 levels"), (shared, "more than 1048576 lists")):
        with pytest.raises(TypeError, match=why):
            graph.call("use", value)
    assert len(graph) == 2


def test_handle_in_a_shared_container() -> None:
    graph = Graph()
    first = graph.call("echo")
    row = [first, 1]
    graph.call("use", row, {"a": row, "b": (row,)})
    assert arguments(graph.request(), "use", echo=7) == [[[7, 1], {"a": [7, 1], "b": ([7, 1],)}], {}]


def test_later_changes_of_an_argument_have_no_effect() -> None:
    graph = Graph()
    row: list[Any] = [1]
    graph.call("use", row)
    row.append(row)
    assert graph.commands()[0]["args"] == [[1]]
