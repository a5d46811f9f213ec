"""Each strategy reaches every kind of what it draws, and draws only what it promises."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mpreg_proto.wire import dialects, jsonvalues
from mpreg_proto.wire.messages import Message, Request
from mpreg_proto.wire.values import Ref
from mpreg_transports.graph import Graph
from mpreg_transports.testing import Fn, Script, Simulation, Spec, Swarm, oracle
from mpreg_transports.testing.equality import same
from mpreg_transports.testing.faults.swarm import FAULTS
from mpreg_transports.testing.strategies import FUNCTIONS, clusters, faults, graphs, messages, requests, values
from mpreg_transports.testing.strategies.request import DEFECTS
from mpreg_transports.values import default_codec

CLUSTER = {
    "n0": Spec(functions={"join": FUNCTIONS["join"], "record": FUNCTIONS["record"]}, resources={"gpu"}),
    "n1": Spec(functions={name: FUNCTIONS[name] for name in ("first", "slowly", "nothing")}),
}


def drawn(strategy: SearchStrategy[Any], count: int = 200) -> list[Any]:
    """Return examples, always the same."""
    found: list[Any] = []

    @settings(max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def kinds(value: Any) -> set[str]:
    """Return the names of the types in a value, at any depth."""
    inside = [*value, *value.values()] if isinstance(value, dict) else value
    nested = map(kinds, inside) if isinstance(value, list | tuple | dict | set | frozenset) else ()
    return {type(value).__name__}.union(*nested)


# -- values -----------------------------------------------------------------------------------------------------------

JSON = set("NoneType bool int float str list dict".split())
SENDABLE = JSON | set("bytes complex Decimal UUID datetime date time timedelta tuple set frozenset".split())
CONVERTED = set("bytearray memoryview OrderedDict defaultdict Counter Pair".split())


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [(values(), SENDABLE), (values(json=True), JSON), (values(converted=True), SENDABLE | CONVERTED)],
    ids=["any", "json", "converted"],
)
def test_kinds_of_values(strategy: SearchStrategy[Any], expected: set[str]) -> None:
    assert set().union(*map(kinds, drawn(strategy, 600))) == expected


@given(values())
def test_values_arrive_equal(value: Any) -> None:
    codec = default_codec()
    assert same(value, codec.decode(codec.encode(value)))


@given(values(converted=True))
def test_converted_values_can_be_sent(value: Any) -> None:
    default_codec().encode(value)


@given(values(json=True))
def test_json_values_are_json(value: Any) -> None:
    assert same(jsonvalues.loads(jsonvalues.dumps(value)), value)


def test_json_and_converted_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        values(json=True, converted=True)


# -- clusters and graphs ----------------------------------------------------------------------------------------------


@given(clusters({"f": len, "g": Fn(max, resources={"own"}, version="1")}, resources=("a", "b"), max_nodes=3))
def test_functions_of_clusters(cluster: dict[str, Spec]) -> None:
    assert list(cluster) == [f"n{number}" for number in range(len(cluster))] and len(cluster) <= 3
    offers = [(name, fn) for spec in cluster.values() for name, fn in spec.functions.items()]
    assert {name for name, _ in offers} == {"f", "g"}
    for name, fn in offers:
        assert set(fn.resources) <= {"a", "b", "own"} and ("own" in fn.resources) is (name == "g")
        assert fn.version == ("1" if name == "g" else "")
    assert all(set(spec.resources) <= {"a", "b"} for spec in cluster.values())


def test_clusters_without_resources_or_functions() -> None:
    assert all(not spec.resources for one in drawn(clusters(resources=()), 20) for spec in one.values())
    assert all(not spec.functions for one in drawn(clusters({}), 20) for spec in one.values())


def test_clusters_of_no_nodes() -> None:
    with pytest.raises(ValueError, match="1 <= min_nodes <= max_nodes"):
        clusters(min_nodes=3, max_nodes=2)


def references(graph: Graph) -> list[tuple[Ref, int]]:
    """Return the references in a graph, with their depth in the arguments."""
    found: list[tuple[Ref, int]] = []

    def look(value: Any, depth: int) -> None:
        if isinstance(value, Ref):
            found.append((value, depth))
        elif isinstance(value, list | tuple | dict):
            for one in value.values() if isinstance(value, dict) else value:
                look(one, depth + 1)

    for call in graph.request().calls:
        look(default_codec().decode(call.args), -2)
    return found


def test_references_of_graphs() -> None:
    made = drawn(graphs(CLUSTER))
    used = [row for graph in made for row in references(graph)]
    assert {len(graph) for graph in made} == {1, 2, 3, 4, 5, 6}
    assert {0, 1} <= {depth for _, depth in used}
    assert {(), (0,), ("values",), ("values", 0), ("missing",)} <= {ref.path for ref, _ in used}
    waiting = [call for graph in made for call in graph.request().calls if call.dependencies]
    assert any(not kinds(default_codec().decode(call.args)) & {"Ref"} for call in waiting), "none waits by after="


def test_routes_of_graphs() -> None:
    assert all(oracle(graph, CLUSTER, run=False).code is None for graph in drawn(graphs(CLUSTER), 100))
    codes = Counter(oracle(graph, CLUSTER, run=False).code for graph in drawn(graphs(CLUSTER, unroutable=True), 150))
    assert set(codes) == {None, 1001} and min(codes.values()) > 20, codes


def test_arguments_of_own_functions() -> None:
    cluster = {"n0": Spec(functions={"half": lambda number: number / 2})}
    made = drawn(graphs(cluster, arguments={"half": st.tuples(st.integers(0, 9))}, paths={}))
    args = [
        default_codec().decode(call.args)[0]  # type: ignore[index]
        for graph in made
        for call in graph.request().calls
        if call.function == "half"
    ]
    assert all(len(one) == 1 and isinstance(one[0], int | Ref) for one in args)
    assert any(isinstance(one[0], Ref) for one in args) and any(isinstance(one[0], int) for one in args)


def test_graph_and_function_in_words() -> None:
    graph = Graph()
    graph.call("join", 1, graph.call("record", left=2)["left"], resources={"gpu", "eu"}, version="2")
    assert repr(graph) == (
        "Graph(record = record(left=2); "
        "join = join(1, Ref(name='record', path=('left',)), resources={'eu', 'gpu'}, version='2') after record)"
    )
    assert repr(FUNCTIONS["record"]) == "Fn(record, version='2', idempotent=True)"


# -- requests ---------------------------------------------------------------------------------------------------------


@given(requests(CLUSTER))
def test_valid_requests_are_accepted(request: Request) -> None:
    assert oracle(request, CLUSTER, run=False).code is None and request.trace


@given(requests(CLUSTER, valid=False))
def test_wrong_requests_are_refused(request: Request) -> None:
    assert oracle(request, CLUSTER, run=False).code is not None


@pytest.mark.parametrize(
    ("code", "defect"),
    [(code, defect) for code, some in DEFECTS.items() for defect in some],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_code_of_each_defect(code: int, defect: Callable[[Request, int], Request]) -> None:
    for number, request in enumerate(drawn(requests(CLUSTER), 40)):
        assert oracle(defect(request, number), CLUSTER, run=False).code == code


def test_codes_of_requests() -> None:
    made = drawn(requests(CLUSTER, valid=None), 400)
    codes = Counter(oracle(request, CLUSTER, run=False).code for request in made)
    assert set(codes) == {None, 1001, 1010, 1011, 1012, 1013, 1014}, codes
    options = [(request.partial, request.eager, request.want is None, request.wait > 0) for request in made]
    assert all(set(flags) == {True, False} for flags in zip(*options, strict=True))
    ends = {code for one in made if not oracle(one, CLUSTER).code for code in failures(one)}
    assert ends == {1001, 1003, 1013}


def failures(request: Request) -> set[int]:
    """Return the codes with which calls of a request fail."""
    return set().union(*oracle(request, CLUSTER).failures.values())


# -- messages and faults ----------------------------------------------------------------------------------------------


def test_kinds_of_messages() -> None:
    assert set(map(type, drawn(messages(), 400))) == set(get_args(Message))
    assert set(map(type, drawn(messages(Request), 20))) == {Request}


@given(messages(names=("a",), members=(b"m" * 16,)))
def test_messages_can_be_encoded(message: Message) -> None:
    assert dialects.encode(message)


def test_kinds_of_faults() -> None:
    made = drawn(faults(CLUSTER, seconds=5), 300)
    scripts = [one for one in made if isinstance(one, Script)]
    assert {len(one.actions) > 0 for one in scripts} == {True, False}
    assert all(0 <= action.at <= 5e9 for one in scripts for action in one.actions)
    assert {action.name for one in scripts for action in one.actions} >= {"crash", "restart", "partition", "stall"}
    swarms = [one for one in made if isinstance(one, Swarm)]
    assert len(scripts) > 40 and {kind for one in swarms for kind in one.kinds} == set(FAULTS)


def test_named_faults_only() -> None:
    made = drawn(faults(CLUSTER, seconds=5, kinds=["crash"]), 60)
    assert {kind for one in made if isinstance(one, Swarm) for kind in one.kinds} == {"crash"}
    names = {action.name for one in made if isinstance(one, Script) for action in one.actions}
    assert names <= {"crash", "restart"}


@settings(max_examples=15)
@given(st.data())
def test_faults_are_performed(data: st.DataObject) -> None:
    script = data.draw(faults(CLUSTER, seconds=5))
    sim = Simulation(nodes=CLUSTER, faults=script)
    sim.run(5)
    names = [action.name for action in sim.trace.script]
    if isinstance(script, Script):
        assert names == [action.name for action in script.actions]


def test_failing_fault_is_shrunk_to_itself() -> None:
    found = find(
        faults(CLUSTER, seconds=5, kinds=["crash", "stall"]),
        lambda one: isinstance(one, Script) and any(action.name == "stall" for action in one.actions),
        settings=settings(database=None, max_examples=100),
    )
    assert isinstance(found, Script) and [action.name for action in found.actions] == ["stall"]


def test_import_without_hypothesis() -> None:
    program = "import sys; sys.modules['hypothesis'] = None; import mpreg_transports.testing.strategies"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode and "pip install hypothesis" in ended.stderr
