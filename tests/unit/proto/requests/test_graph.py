"""The plan of a request: its graph, or one fault with code and path, in the documented order of checks."""

import pytest

from mpreg_proto.errors import Fault, over_limit
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.requests.graph import Plan, check_shape, find_cycle, plan
from mpreg_proto.wire.messages import Call, Request


def calls(**needs: str) -> tuple[Call, ...]:
    """Return calls with their dependencies: `a="b c"` makes call a depend on b and c."""
    return tuple(Call(name, "f", b"", tuple(others.split())) for name, others in needs.items())


def good(request: Request) -> Plan:
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan), made
    return made


def bad(request: Request, limits: Limits = DEFAULT) -> Fault:
    made = plan(request, limits)
    assert isinstance(made, Fault)
    return made


def test_plan_of_one_call() -> None:
    made = good(Request(1, calls(x="")))
    assert (list(made.calls), made.leaves, list(made.wanted)) == (["x"], ("x",), ["x"])
    assert not made.dependencies and not made.dependents


def test_plan_of_a_diamond() -> None:
    made = good(Request(1, calls(d="b c b", b="a", a="", c="a")))
    assert made.dependencies == {"d": ("b", "c"), "b": ("a",), "c": ("a",)}
    assert made.dependents == {"b": ("d",), "c": ("d",), "a": ("b", "c")}
    assert made.leaves == ("d",) and list(made.calls) == ["d", "b", "a", "c"]


def test_order_of_leaves_and_of_wanted_calls() -> None:
    request = Request(1, calls(c="a", a="", b="", e=""), want=("e", "a"))
    made = good(request)
    assert made.leaves == ("c", "b", "e") and list(made.wanted) == ["e", "a"]


def test_input_is_no_dependency() -> None:
    made = good(Request(1, calls(x="g", y="g x"), inputs={"g": b""}))
    assert made.dependencies == {"y": ("x",)} and made.leaves == ("y",)


def test_call_before_an_input_of_the_same_name() -> None:
    made = good(Request(1, calls(x="g", g=""), inputs={"g": b""}))
    assert made.dependencies == {"x": ("g",)}


@pytest.mark.parametrize(
    ("request_", "code", "path"),
    [
        (Request(1, ()), 1010, "$.cmds"),
        (Request(1, (*calls(x=""), Call("", "f", b""))), 1010, "$.cmds[1].name"),
        (Request(1, (Call("x", "", b""),)), 1010, "$.cmds[0].fun"),
        (Request(1, calls(x=""), want=()), 1010, "$.want"),
        (Request(1, calls(x=""), want=("x", "x")), 1010, "$.want"),
        (Request(1, calls(x=""), timeout=0), 1010, "$.timeout"),
        (Request(1, calls(x=""), timeout=-1), 1010, "$.timeout"),
        (Request(1, calls(x=""), wait=-1), 1010, "$.wait"),
        (Request(1, calls(x=""), want=("y",)), 1013, "$.want"),
        (Request(1, calls(x="", y=""), want=("x", "z")), 1013, "$.want"),
    ],
)
def test_path_of_a_wrong_shape(request_: Request, code: int, path: str) -> None:
    found = bad(request_)
    assert (found.code, found.details["path"]) == (code, path)
    if code == 1010:
        assert found.message.startswith(path + ": ") and check_shape(request_) == found
    else:
        assert check_shape(request_) is None


def test_duplicate_call_name() -> None:
    found = bad(Request(1, calls(x="", y="") + calls(x="")))
    assert (found.code, found.details) == (1011, {"name": "x"})


def test_reference_to_no_call_and_no_input() -> None:
    found = bad(Request(1, calls(x="y z", y=""), inputs={"w": b""}))
    assert (found.code, found.details) == (1013, {"call": "x", "name": "z"})


@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        ({"a": "a"}, {"a"}),
        ({"a": "b", "b": "a"}, {"a", "b"}),
        ({"root": "", "a": "root c", "b": "a", "c": "b", "leaf": "c"}, {"a", "b", "c"}),
    ],
)
def test_cycle_in_its_order(needs: dict[str, str], cycle: set[str]) -> None:
    found = bad(Request(1, calls(**needs)))
    found_cycle = found.details["cycle"]
    assert found.code == 1012 and set(found_cycle) == cycle and len(found_cycle) == len(cycle)
    assert all(
        after in needs[before].split()
        for before, after in zip(found_cycle, found_cycle[1:] + found_cycle[:1], strict=True)
    )
    assert found.message.endswith(" -> ".join([*found_cycle, found_cycle[0]]))


def test_long_cycle_cut_in_the_message_and_whole_in_details() -> None:
    names = [f"n{number}" for number in range(50)]
    found = bad(Request(1, calls(**dict(zip(names, names[1:] + names[:1], strict=True)))))
    assert len(found.details["cycle"]) == 50 and found.message.endswith(" -> ...") and len(found.message) < 200


def test_find_cycle_without_a_cycle() -> None:
    assert find_cycle({}, {}) is None
    assert find_cycle({"b": ("a",)}, {"a": ("b",)}) is None


@pytest.mark.parametrize(
    ("request_", "limit", "came"),
    [
        (Request(1, calls(a="", b="", c="")), "calls", 3),
        (Request(1, calls(abcdef="")), "name_length", 6),
        (Request(1, (Call("x", "function", b""),)), "name_length", 8),
        (Request(1, (Call("x", "f", b"", (), ("ok", "resource")),)), "name_length", 8),
        (Request(1, (Call("x", "f", b"", version="version"),)), "name_length", 7),
        (Request(1, calls(a=""), want=("a", "a", "a")), "calls", 3),
        (Request(1, (Call("x", "f", b"", (), ("a", "b", "c", "d")),)), "resources", 4),
    ],
)
def test_request_over_a_limit(request_: Request, limit: str, came: int) -> None:
    limits = Limits(calls=2, name_length=5, resources=3)
    found = bad(request_, limits)
    assert found == over_limit(limit, getattr(limits, limit), came)
    assert found.code == 1014 and found.details == {"limit": limit, "value": getattr(limits, limit), "came": came}


def test_order_of_checks() -> None:
    """docs/explanation/requests.md: 1010, 1014, 1011, 1013, 1012; each request here has all faults from its code on."""
    limits, twice = Limits(calls=2), calls(x="y", y="x")
    assert bad(Request(1, (*twice, *calls(x="z"), Call("", "", b"")), want=("w",)), limits).code == 1010
    assert bad(Request(1, (*twice, *calls(x="z")), want=("w",)), limits).code == 1014
    assert bad(Request(1, (*twice, *calls(x="z")), want=("w",))).code == 1011
    assert bad(Request(1, twice + calls(q="z"))).code == 1013
    assert bad(Request(1, twice, want=("w",))).code == 1013
    assert bad(Request(1, twice)).code == 1012


def test_edges_over_their_limit() -> None:
    calls = (Call("a", "f", b""), Call("b", "f", b"", ("a",) * 3), Call("c", "f", b"", ("a", "b")))
    assert isinstance(plan(Request(1, calls), Limits(edges=5)), Plan)
    fault = plan(Request(1, calls), Limits(edges=4))
    assert isinstance(fault, Fault)
    assert (fault.code, fault.details) == (1014, {"limit": "edges", "value": 4, "came": 5})
