"""Graphs of calls that a cluster offers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mpreg_transports.graph import Graph, Handle
from mpreg_transports.testing.simulation.functions import Fn, offered_functions
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.strategies.value import values

Arguments = Mapping[str, SearchStrategy[tuple[Any, ...]]]
Paths = Mapping[str, Sequence[tuple[str | int, ...]]]
_Draw = Callable[[SearchStrategy[Any]], Any]

PATHS: Paths = {
    "join": ((0,), (1,)),
    "slowly": ((0,),),
    "record": (("values",), ("values", 0), ("size",), ("named", "left"), ("missing",)),
    "echos": ((0,),),
}
"""The parts of results of `FUNCTIONS` to which graphs refer. Some are not in every result."""
_KEYWORDS = ("left", "right")


def graphs(
    cluster: Mapping[str, Spec],
    *,
    arguments: Arguments | None = None,
    paths: Paths = PATHS,
    max_calls: int = 6,
    unroutable: bool = False,
) -> SearchStrategy[Graph]:
    """Return a strategy for graphs of one to `max_calls` calls, each of a function that a node of `cluster` offers.

    These include `echo` and `echos`, which every node offers although no `Spec` names them. A call requires resources
    that some node holds. With `unroutable` some calls fit no node. The arguments are values and references to earlier
    calls, also inside containers and to the parts of results that `paths` names by function. `arguments` are strategies
    for the positional arguments of functions that do not take any value; references replace some of them.
    """
    return handles(cluster, arguments or {}, paths, max_calls, unroutable).map(lambda made: made[0].graph)


@st.composite
def handles(
    draw: st.DrawFn,
    cluster: Mapping[str, Spec],
    arguments: Arguments,
    paths: Paths,
    max_calls: int,
    unroutable: bool,
) -> list[Handle]:
    """Return a strategy for graphs, as the handles of all of its calls, in order."""
    graph = Graph()
    made: list[Handle] = []
    parts: list[Handle] = []
    offers = _offers(cluster)
    for _ in range(draw(st.integers(1, max_calls))):
        function, fn, held = draw(st.sampled_from(offers))
        resources = draw(st.sets(st.sampled_from(held))) if held else set()
        version = fn.version if draw(_RARELY) else None
        misfit = draw(_MISFITS) if unroutable else ""
        waits: bool = bool(made) and draw(_RARELY)
        kwargs: dict[str, Any] = {}
        if function in arguments:
            args = _replaced(draw, draw(arguments[function]), parts)
        else:
            args, kwargs = _arguments(draw, fn, parts)
        handle = graph.call(
            "nowhere" if misfit == "function" else function,
            *args,
            kwargs=kwargs,
            resources={*resources, "unobtainable"} if misfit == "resource" else resources,
            version="none" if misfit == "version" else version,
            after=[draw(st.sampled_from(made))] if waits else (),
        )
        made.append(handle)
        parts += [handle, *(reduce(Handle.__getitem__, part, handle) for part in paths.get(function, ()))]
    return made


_RARELY = st.sampled_from([False, False, False, True])
_MISFITS = st.sampled_from(["", "", "", "", "", "function", "resource", "version"])
"""The reasons why a call fits no node; most calls do."""


def _offers(cluster: Mapping[str, Spec]) -> list[tuple[str, Fn, list[str]]]:
    """Return each function of each node, with all resources that it has there."""
    offers: list[tuple[str, Fn, list[str]]] = []
    for spec in cluster.values():
        for name, fn in offered_functions(spec.functions).items():
            offers.append((name, fn, sorted({*spec.resources, *fn.resources})))
    return offers


# -- arguments --------------------------------------------------------------------------------------------------------


def _replaced(draw: _Draw, args: Sequence[Any], parts: Sequence[Handle]) -> list[Any]:
    """Return arguments, some of them replaced by references to `parts` of earlier results."""
    return [draw(st.sampled_from(parts)) if parts and draw(st.booleans()) else one for one in args]


def _arguments(draw: _Draw, fn: Fn, parts: Sequence[Handle]) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments of any type, as many as the function takes."""
    least, most, keywords = _arity(fn)
    args = [_argument(draw, parts) for _ in range(draw(st.integers(least, most)))]
    return args, {key: _argument(draw, parts) for key in keywords if draw(_RARELY)}


def _argument(draw: _Draw, parts: Sequence[Handle]) -> Any:
    """Return a value, a reference, or both in a container."""
    shape = draw(_SHAPES) if parts else "value"
    if shape == "value":
        return draw(_VALUES)
    reference = draw(st.sampled_from(parts))
    if shape == "list":
        return [draw(_VALUES), reference]
    return {"a": (reference,), "b": draw(_VALUES)} if shape == "dict" else reference


_SHAPES = st.sampled_from(["reference", "reference", "value", "value", "list", "dict"])
_VALUES = values(max_leaves=4)


def _arity(fn: Fn) -> tuple[int, int, tuple[str, ...]]:
    """Return the least and the most positional arguments of a function, and keywords that it takes."""
    try:
        parameters = inspect.signature(fn.call).parameters.values()
    except (TypeError, ValueError):
        return 0, 3, ()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    least = sum(one.default is one.empty for one in positional)
    most = len(positional) + (3 if any(one.kind is one.VAR_POSITIONAL for one in parameters) else 0)
    return least, most, _KEYWORDS if any(one.kind is one.VAR_KEYWORD for one in parameters) else ()
