"""The graph of a request: the dependencies of its calls, its leaves, and whether it has a cycle.

The input is a `Request` of any dialect: names and dependencies, never arguments. The output is a `Plan` or a `Fault` of
codes 1010 to 1014, in the order of docs/explanation/requests.md. Nothing recurses over the graph, so a chain of
10,000 calls and 9,999 calls into one cost the same. Topological order by counting (Kahn 1962); a circle is found by
walking back over what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mpreg_proto.errors import ErrorCode, Fault, over_limit
from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import Call, Request

_NO_NAMES: Mapping[str, tuple[str, ...]] = {}


class Plan(msgspec.Struct, frozen=True):
    """The graph of one request, built once when the request arrives."""

    calls: dict[str, Call]
    """The calls by name, in the request's order."""
    dependencies: Mapping[str, tuple[str, ...]]
    """The calls that a call depends on, each once; only calls with dependencies have a row."""
    dependents: Mapping[str, tuple[str, ...]]
    """The calls that depend on a call, in the request's order; only calls with dependents have a row."""
    leaves: tuple[str, ...]
    wanted: dict[str, None]
    """The calls whose results are returned: `want`, or the leaves; in this order."""


EMPTY_PLAN = Plan({}, {}, {}, (), {})
"""The plan of a request that has ended."""


def plan(request: Request, limits: Limits) -> Plan | Fault:
    """Check `request` and build its graph. It holds no state.

    A `Fault` says what is wrong with the request as a whole.
    """
    calls = request.calls
    if request.want is not None and len(request.want) > limits.calls:  # before each of them is looked at
        return over_limit("calls", limits.calls, len(request.want))
    if fault := check_shape(request) or _over_limit(calls, limits):
        return fault
    if len(calls) == 1 and not calls[0].dependencies:  # by far the most frequent request
        name = calls[0].name
        by_name = {name: calls[0]}
        if request.want and (fault := _unknown_want(request.want, by_name)):
            return fault
        return Plan(by_name, _NO_NAMES, _NO_NAMES, (name,), {name: None})
    by_name = {}
    for call in calls:
        if call.name in by_name:
            return Fault(
                ErrorCode.DUPLICATE_NAME,
                f"two calls are named {call.name!r}; names are unique in a request",
                {"name": call.name},
            )
        by_name[call.name] = call
    dependencies = _dependencies(by_name, request.inputs)
    if isinstance(dependencies, Fault):
        return dependencies
    if request.want and (fault := _unknown_want(request.want, by_name)):
        return fault
    dependents: dict[str, list[str]] = {}
    for name, others in dependencies.items():
        for other in others:
            dependents.setdefault(other, []).append(name)
    if circle := find_cycle(dependencies, dependents):
        shown = " -> ".join([*circle, circle[0]]) if len(circle) <= 10 else f"{' -> '.join(circle[:10])} -> ..."
        return Fault(ErrorCode.CYCLIC_REFERENCE, f"calls wait for each other in a circle: {shown}", {"cycle": circle})
    leaves = tuple(name for name in by_name if name not in dependents)
    frozen = {name: tuple(waiting) for name, waiting in dependents.items()}
    return Plan(by_name, dependencies, frozen, leaves, dict.fromkeys(request.want or leaves))


def check_shape(request: Request) -> Fault | None:
    """Return 1010 with the path to the place, or None: the checks that all dialects share."""
    if not request.calls:
        return Fault(ErrorCode.INVALID_REQUEST, "$.cmds: a request has at least one call", {"path": "$.cmds"})
    for position, call in enumerate(request.calls):
        if not call.name:
            return _bad(f"$.cmds[{position}].name", "a call's name is not empty")
        if not call.function:
            return _bad(f"$.cmds[{position}].fun", "a function's name is not empty")
    want = request.want
    if want is not None and (not want or len(dict.fromkeys(want)) < len(want)):
        return _bad("$.want", "names at least one call, and none twice")
    if request.timeout is not None and request.timeout <= 0:
        return _bad("$.timeout", "a timeout is more than 0 seconds")
    if request.wait < 0:
        return _bad("$.wait", "a wait is not negative")
    return None


def find_cycle(dependencies: Mapping[str, Sequence[str]], dependents: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return one cycle of calls, each of which depends on the next, or None."""
    waiting = {name: len(others) for name, others in dependencies.items()}
    ready = [name for name in dependents if name not in waiting]
    while ready:
        for dependent in dependents.get(ready.pop(), ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                del waiting[dependent]
                ready.append(dependent)
    if not waiting:
        return None
    # Whatever is left waits for something that is left too, so walking from dependency to dependency must come round.
    seen: dict[str, int] = {}
    path: list[str] = []
    name = next(iter(waiting))
    while name not in seen:
        seen[name] = len(path)
        path.append(name)
        name = next(other for other in dependencies[name] if other in waiting)
    return path[seen[name] :]


def _dependencies(calls: Mapping[str, Call], inputs: Mapping[str, bytes]) -> dict[str, tuple[str, ...]] | Fault:
    dependencies: dict[str, tuple[str, ...]] = {}
    for name, call in calls.items():
        if not call.dependencies:
            continue
        mine: dict[str, None] = {}
        for other in call.dependencies:
            if other in calls:
                mine[other] = None
            elif other not in inputs:
                return Fault(
                    ErrorCode.UNRESOLVED_REFERENCE,
                    f"call {name!r} refers to {other!r}, and no call has that name",
                    {"call": name, "name": other},
                )
        if mine:
            dependencies[name] = tuple(mine)
    return dependencies


def _unknown_want(want: Sequence[str], calls: Mapping[str, Call]) -> Fault | None:
    for name in want:
        if name not in calls:
            return Fault(
                ErrorCode.UNRESOLVED_REFERENCE,
                f"want names {name!r}, and no call has that name",
                {"path": "$.want", "name": name},
            )
    return None


def _over_limit(calls: Sequence[Call], limits: Limits) -> Fault | None:
    if len(calls) > limits.calls:
        return over_limit("calls", limits.calls, len(calls))
    longest = limits.name_length
    edges = 0
    for call in calls:
        edges += len(call.dependencies)
        if len(call.resources) > limits.resources:
            return over_limit("resources", limits.resources, len(call.resources))
        names = (call.name, call.function, call.version or "", *call.resources)
        if (came := max(map(len, names))) > longest:
            return over_limit("name_length", longest, came)
    if edges > limits.edges:
        return over_limit("edges", limits.edges, edges)
    return None


def _bad(path: str, text: str) -> Fault:
    return Fault(ErrorCode.INVALID_REQUEST, f"{path}: {text}", {"path": path})
