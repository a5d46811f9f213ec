"""The requests of `mpreg demo`: those of the seed's README, and a pipeline over the standard library.

This module is only data; cli/demo/command.py sends it and prints the results.
"""

from __future__ import annotations

from mpreg_transports.graph import Graph, Handle

NODES = ("balancer", "shelf-a", "shelf-b")
HI = "hi there!"


def _call(name: str, function: str, *args: str) -> dict[str, object]:
    return {"name": name, "fun": function, "args": list(args), "kwargs": {}, "locs": []}


_FIRST = _call("|first", "echo", HI)
_SECOND = _call("|second", "echo", "|first")

README: tuple[tuple[str, list[dict[str, object]]], ...] = (
    ("one call", [_call("first", "echo", HI)]),
    ("a result as argument", [_call("first", "echo", HI), _call("second", "echo", "first")]),
    ("two leaves", [_FIRST, _SECOND, _call("|third", "echos", "|first", "AND ME TOO")]),
    ("three calls, one leaf", [_FIRST, _SECOND, _call("|third", "echos", "|first", "|second", "AND ME TOO")]),
    (
        "four calls, one leaf",
        [
            _FIRST,
            _SECOND,
            _call("|third", "echos", "|first", "|second", "AND ME TOO"),
            _call("|4th", "echo", "|third"),
        ],
    ),
)
"""Titles and classic `cmds`. A string that equals another call's name is replaced by that call's result."""


def pipeline(shelves: tuple[str, ...], groups: int) -> Graph:
    """Return a graph that counts and measures each shelf on its node, then joins: one leaf, `report`."""
    graph = Graph()
    counts: list[Handle] = []
    measures: list[Handle] = []
    for shelf in shelves:
        letter = shelf.rpartition("-")[2]
        found = graph.call("packages", resources={shelf}, name=f"packages-{letter}")
        counts.append(graph.call("count", found["packages"], resources={shelf}, name=f"count-{letter}"))
        for number in range(groups):
            name = f"measure-{letter}{number + 1}"
            measures.append(graph.call("measure", found["groups"][number], resources={shelf}, name=name))
    graph.call("join", counts, measures, name="report")
    return graph
