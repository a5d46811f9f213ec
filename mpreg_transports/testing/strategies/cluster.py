"""Clusters: nodes with drawn functions and resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec

Functions = Mapping[str, Callable[..., Any] | Fn]


def join(*values: Any) -> list[Any]:
    """Return all values as a list."""
    return list(values)


def record(*values: Any, **named: Any) -> dict[str, Any]:
    """Return all values as a dict."""
    return {"values": list(values), "named": named, "size": len(values) + len(named)}


def first(*values: Any) -> Any:
    """Return the first value. Raises IndexError if there is none."""
    return values[0]


def nothing(*values: Any) -> None:
    """Return None."""


async def slowly(*values: Any) -> tuple[Any, ...]:
    """Return all values as a tuple, after a while."""
    await sleep(0.01 * len(values))
    return values


FUNCTIONS: dict[str, Fn] = {
    "join": Fn(join, idempotent=True),
    "record": Fn(record, idempotent=True, version="2"),
    "first": Fn(first, concurrency=1),
    "nothing": Fn(nothing, inline=True),
    "slowly": Fn(slowly, concurrency=1),
}
"""The functions of `clusters()`: pure, for any arguments, of every kind. `first` raises without an argument."""


def clusters(
    functions: Functions = FUNCTIONS,
    *,
    resources: Sequence[str] = ("gpu", "disk", "eu"),
    min_nodes: int = 1,
    max_nodes: int = 4,
) -> SearchStrategy[dict[str, Spec]]:
    """Return a strategy for clusters, as `Simulation(nodes=...)` takes them: the spec of each node, by name.

    Each function is on one or several nodes. A node has some of `resources`, and a function adds some on each node.
    Raises ValueError for limits that no cluster fits.
    """
    if not 1 <= min_nodes <= max_nodes:
        raise ValueError(f"min_nodes={min_nodes}, max_nodes={max_nodes}: expected 1 <= min_nodes <= max_nodes")
    made = {name: one if isinstance(one, Fn) else Fn(one) for name, one in functions.items()}
    return _clusters(made, tuple(resources), min_nodes, max_nodes)


@st.composite
def _clusters(
    draw: st.DrawFn, functions: Mapping[str, Fn], resources: tuple[str, ...], min_nodes: int, max_nodes: int
) -> dict[str, Spec]:
    some = st.sets(st.sampled_from(resources)) if resources else st.just(set[str]())
    names = [f"n{number}" for number in range(draw(st.integers(min_nodes, max_nodes)))]
    offers: dict[str, dict[str, Fn]] = {name: {} for name in names}
    for function, fn in functions.items():
        for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
            added = draw(st.one_of(st.just(set[str]()), some))
            offers[name][function] = with_resources(fn, added)
    return {name: Spec(functions=offered, resources=draw(some)) for name, offered in offers.items()}


def with_resources(fn: Fn, resources: set[str]) -> Fn:
    """Return a copy of `fn` with further resources."""
    copy = Fn(fn.call)
    vars(copy).update(vars(fn))
    copy.resources = tuple(sorted({*fn.resources, *resources}))
    return copy
