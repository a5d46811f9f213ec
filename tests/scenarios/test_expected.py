"""The oracle of requests: against cases by hand, against the real resolver, and against planted bugs of it."""

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mpreg_proto.cluster.index import Index
from mpreg_proto.errors import Fault
from mpreg_proto.limits import Limits
from mpreg_proto.requests import coordinator, placement, scheduler
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import Ref
from mpreg_transports.graph import Graph
from mpreg_transports.testing import Expected, Fn, SimCall, Simulation, Spec, oracle, place
from mpreg_transports.testing.expected import UNKNOWN, Placement
from mpreg_transports.testing.strategies import clusters, graphs, requests
from mpreg_transports.values import default_codec


def encoded(*args: Any, **named: Any) -> bytes:
    return default_codec().encode([list(args), named])


def call(name: str, *args: Any, needs: tuple[str, ...] = (), function: str = "echos", **fields: Any) -> Call:
    return Call(name, function, encoded(*args), needs, **fields)


def halve(number: int) -> float:
    return number / 2


def lists(value: Any) -> list[Any]:
    value.append(1)
    return value


CLUSTER = {
    "small": Spec(functions={"halve": halve, "old": Fn(halve, version="1")}, resources={"gpu"}),
    "large": Spec(functions={"halve": Fn(halve, resources={"disk"}), "grow": lists}, resources={"gpu", "eu"}),
}


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        (1010, Request(0, ())),
        (1010, Request(0, (call(""),))),
        (1010, Request(0, (call("a", function=""),))),
        (1010, Request(0, (call("a"),), want=())),
        (1010, Request(0, (call("a"),), want=("a", "a"))),
        (1010, Request(0, (call("a"),), timeout=0)),
        (1010, Request(0, (call("a"),), wait=-1)),
        (1014, Request(0, (call("a" * 257), call("a" * 257)))),
        (1014, Request(0, (call("a", version="v" * 257),))),
        (1014, Request(0, tuple(call(name) for name in "abcdef"))),
        (1014, Request(0, (call("a"), call("b", needs=("a",) * 4)))),
        (1011, Request(0, (call("a"), call("a", needs=("x",))))),
        (1013, Request(0, (call("a", needs=("a", "x")),))),
        (1013, Request(0, (call("a"),), want=("b",))),
        (1012, Request(0, (call("a", needs=("b",)), call("b", needs=("a",), function="nowhere")))),
        (1012, Request(0, (call("a", needs=("a",)),))),
        (1001, Request(0, (call("a", function="nowhere"),))),
        (1001, Request(0, (call("a", resources=("gpu", "tape")),))),
        (1001, Request(0, (call("a", 1, function="old", version="2"),))),
        (None, Request(0, (call("a", function="nowhere"),), wait=1)),
        (None, Request(0, (call("a", function="nowhere"),), partial=True)),
        (None, Request(0, (call("a", needs=("x",)),), inputs={"x": encoded()})),
    ],
)
def test_code_of_the_checks(code: int | None, request_: Request) -> None:
    assert oracle(request_, CLUSTER, limits=Limits(calls=5, edges=3)).code == code


@pytest.mark.parametrize(
    ("made", "nodes", "equals"),
    [
        (call("a", function="halve"), "small large", "small large"),
        (call("a", function="halve", resources=("gpu",)), "small large", "small"),
        (call("a", function="halve", resources=("disk",)), "large", "large"),
        (call("a", function="halve", resources=("disk", "eu", "gpu")), "large", "large"),
        (call("a", function="old", version="1"), "small", "small"),
        (call("a", function="old", version=""), "", ""),
        (call("a", resources=("eu",)), "large", "large"),
    ],
)
def test_nodes_of_a_call(made: Call, nodes: str, equals: str) -> None:
    expected = Placement(frozenset(nodes.split()), frozenset(equals.split()))
    assert oracle(Request(0, (made,)), CLUSTER).calls["a"].placement == expected == place(made, CLUSTER)


def test_values_and_failures_of_calls() -> None:
    graph = Graph()
    seven = graph.call("echo", 7, name="seven")
    graph.call("echos", graph.call("halve", seven, name="half"), {"k": (seven,)}, name="both")
    graph.call("echo", graph.call("halve", "x", name="raises"), name="skipped")
    graph.call("echo", seven[0], name="no part")
    expected = oracle(graph, CLUSTER)
    assert expected.wanted == ("both", "skipped", "no part")
    assert expected.values == {"both": [3.5, {"k": (7,)}]}
    assert expected.failures == {"raises": {1003}, "no part": {1013}}
    assert expected.calls["skipped"].codes == {1021}
    assert oracle(graph, CLUSTER, run=False).calls["both"].value is UNKNOWN


def test_function_that_changes_its_argument() -> None:
    graph = Graph()
    start = graph.call("echo", [], name="start")
    graph.call("echos", graph.call("grow", start), graph.call("grow", start), start, name="end")
    assert oracle(graph, CLUSTER).values == {"end": [[1], [1], []]}


def test_functions_that_differ_between_nodes() -> None:
    cluster = {"n0": Spec(functions={"f": len}), "n1": Spec(functions={"f": sum})}
    graph = Graph()
    graph.call("echo", graph.call("f", [1]))
    assert [end.known for end in oracle(graph, cluster).calls.values()] == [False, False]


def test_arguments_that_cannot_be_read() -> None:
    wrong = (b"\xc1", default_codec().encode(5), encoded(Ref("b")), default_codec().encode([{}, []]))
    made = [Call(f"c{number}", "echo", args) for number, args in enumerate(wrong)]
    expected = oracle(Request(0, (*made, call("b"))), CLUSTER)
    assert expected.failures == {f"c{number}": {1010} for number in range(4)}


def test_call_that_fits_no_node_among_others() -> None:
    calls = (call("a", function="nowhere"), call("b", needs=("a",), function="nowhere"), call("c"))
    partial = oracle(Request(0, calls, partial=True), CLUSTER)
    assert {name: end.codes for name, end in partial.calls.items()} == {"a": {1001}, "b": {1001, 1021}, "c": set()}
    waiting = oracle(Request(0, calls, wait=1), CLUSTER)
    assert {name: end.codes for name, end in waiting.calls.items()} == {"a": {1001}, "b": {1021}, "c": set()}


def ended(cluster: dict[str, Spec], request: Request) -> SimCall:
    """Return a request that has run in a simulation."""
    sim = Simulation(nodes=cluster)
    sim.run(1)
    made = sim.submit(next(iter(cluster)), request)
    assert sim.run(until=made.done, limit=100), "it never ends"
    return made


def test_differences_in_words() -> None:
    cluster = {"n0": Spec(functions={"f": halve})}
    made = ended(cluster, Request(0, (call("a", 2, function="f"), call("b", needs=("a",))), trace=True))
    oracle(made.request, cluster).check(made)
    elsewhere = {"n1": Spec(functions={"f": abs})}
    assert oracle(made.request, elsewhere).differences(made) == [
        "a: expected to run on n1, ran on n0",
        "b: expected to run on n1, ran on n0",
    ]
    other = Request(0, (call("a", -2, function="f"), call("b", 1, needs=("a",))))
    with pytest.raises(AssertionError, match=r"b: expected \[1\], got \[\]"):
        oracle(other, cluster).check(made)
    refused = Request(0, ())
    assert oracle(refused, cluster).differences(made) == ["expected error 1010, got no error", "b has a result"]
    failing = Request(0, (call("a", "x", function="f"), call("b", needs=("a",))))
    assert oracle(failing, cluster).differences(made) == ["a did not fail"]
    assert Expected(None, {}, ()).differences(SimCall("c", 1, refused, sent=0, codec=default_codec())) == [
        "it has not ended"
    ]


# -- against the real resolver ----------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data())
def test_agreement_with_the_resolver(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    request = data.draw(requests(cluster, valid=None))
    oracle(request, cluster).check(ended(cluster, request))


@given(st.data())
def test_agreement_with_placement(data: st.DataObject) -> None:
    cluster = data.draw(clusters(max_nodes=6))
    graph = data.draw(graphs(cluster, unroutable=True))
    expected = oracle(graph, cluster, run=False)
    for made in graph.request().calls:
        assert place(made, cluster) == expected.calls[made.name].placement


# -- against planted bugs ---------------------------------------------------------------------------------------------


@settings(max_examples=300, phases=[Phase.generate], report_multiple_bugs=False)
@given(st.data())
def resolver_test(data: st.DataObject) -> None:
    """The test of docs/howto/fuzz.md."""
    cluster = data.draw(clusters())
    request = data.draw(requests(cluster, valid=None))
    oracle(request, cluster).check(ended(cluster, request))


def plan_with(change: Any) -> Any:
    """Return `plan` with its result changed."""

    def changed(request: Request, limits: Limits) -> Any:
        made = plan(request, limits)
        return change(request, made) if isinstance(made, Plan) else made

    return changed


def want_ignored(request: Request, made: Plan) -> Plan:
    return Plan(made.calls, made.dependencies, made.dependents, made.leaves, dict.fromkeys(made.leaves))


def all_wanted(request: Request, made: Plan) -> Plan:
    return Plan(made.calls, made.dependencies, made.dependents, made.leaves, dict.fromkeys(made.calls))


def superset_reversed(index: Index, function: str, resources: tuple[str, ...], version: str | None) -> Any:
    found = offers(index, function, (), version)
    able = offers(index, function, resources, version)
    return tuple(one for one in found if one not in able) or found


def version_ignored(index: Index, function: str, resources: tuple[str, ...], version: str | None) -> Any:
    return offers(index, function, resources, None)


def resources_ignored(index: Index, function: str, resources: tuple[str, ...], version: str | None) -> Any:
    return offers(index, function, (), version)


offers = Index.offers
rank = placement.rank


def nothing_started(fault: Fault, **details: object) -> Fault:
    return with_details(fault, **(details | {"maybe_executed": False}))


with_details = Fault.with_details


def supersets_equal(candidates: Any, loads: Any, *, resources: Any, now: int) -> Any:
    return rank(candidates, loads, resources=(), now=now)


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (coordinator, "plan", plan_with(want_ignored)),
        (coordinator, "plan", plan_with(all_wanted)),
        (Index, "offers", superset_reversed),
        (Index, "offers", resources_ignored),
        (Index, "offers", version_ignored),
        (scheduler, "rank", supersets_equal),
        (Fault, "with_details", nothing_started),
    ],
    ids="want all_wanted reversed resources version supersets maybe_executed".split(),
)
def test_planted_bug_is_found(owner: object, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, bug)
    with pytest.raises(AssertionError):
        resolver_test()
