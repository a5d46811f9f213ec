"""The oracle of invariant 8: which functions count as pure, and the evaluation of a request call after call."""

import math
from typing import Any

import pytest

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.graph import Graph
from mpreg_transports.testing.invariants.sequential import Failure, KnownPure, evaluate, stateless
from mpreg_transports.testing.simulation.functions import Fn, functions_of
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.values import default_codec

SCALE = 3
SEEN: list[int] = []


def scaled(value: int) -> int:
    return math.isqrt(value) * SCALE


def through(value: int) -> int:
    return sum(scaled(one) for one in range(value))


async def later(value: int) -> int:
    await sleep(5)
    return scaled(value)


def remembers(value: int) -> int:
    SEEN.append(value)
    return len(SEEN)


def indirectly(value: int) -> int:
    return remembers(value)


def with_default(value: int, kept: list[int] = []) -> int:  # noqa: B006  # not pure
    kept.append(value)
    return len(kept)


def nested(value: int) -> list[int]:
    return [len(SEEN) for _ in range(value)]


def evaluated(value: int) -> Any:
    return eval("value")


class Stock:
    count = 0


def takes(value: int) -> int:
    Stock.count += value
    return Stock.count


def countdown(value: int) -> int:
    return value and countdown(value - 1)


def closing_over() -> Any:
    count = 0

    def counted(value: int) -> int:
        nonlocal count
        count += value
        return count

    return counted


@pytest.mark.parametrize("function", [scaled, through, later, countdown])
def test_stateless_functions(function: Any) -> None:
    assert stateless(function)


@pytest.mark.parametrize(
    "function", [remembers, indirectly, with_default, nested, evaluated, takes, closing_over(), print, SEEN.append, Fn]
)
def test_functions_that_may_hold_state(function: Any) -> None:
    assert not stateless(function)


def pure_of(*specs: Spec) -> dict[str, Any]:
    """Return the functions of these nodes that are known to be pure."""
    known = KnownPure()
    for spec in specs:
        known.add(functions_of(spec.functions))
    return known.calls


def test_name_that_differs_between_nodes_is_left_out() -> None:
    one = Spec(functions={"scaled": scaled, "through": Fn(through), "remembers": remembers})
    other = Spec(functions={"scaled": through, "through": through})
    assert sorted(pure_of(one, other)) == ["echo", "echos", "through"]


def test_evaluation_does_not_depend_on_the_order_of_calls() -> None:
    graph = Graph()
    first = graph.call("scaled", 16, name="first")
    graph.call("echos", [first, {"deep": (first,)}], name="second")
    bad = graph.call("fail", first, name="bad")
    graph.call("scaled", bad, name="after bad")
    unknown = graph.call("remembers", 1, name="unknown")
    graph.call("echo", unknown, name="after unknown")
    graph.call("echo", first["no such key"], name="path")
    graph.call("later", 16, name="later")
    request = graph.request()
    backwards = type(request)(request.id, request.calls[::-1])

    def fail(value: int) -> int:
        raise ZeroDivisionError(value)

    pure = {**pure_of(Spec(functions={"scaled": scaled, "later": later})), "fail": fail}
    for asked in (request, backwards):
        results = evaluate(asked, pure, default_codec())
        values = {
            name: default_codec().decode(value) for name, value in results.items() if not isinstance(value, Failure)
        }
        assert values == {"first": 12, "second": [[12, {"deep": (12,)}]], "later": 12}
        failures = {name: value.kind for name, value in results.items() if isinstance(value, Failure)}
        assert failures == {"bad": "ZeroDivisionError", "after bad": "", "path": ""}
    assert SEEN == []
