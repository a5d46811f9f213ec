"""Requests, also wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec.structs import replace

from mpreg_proto.errors import ErrorCode
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.strategies.graph import PATHS, Arguments, Paths, handles


def requests(
    cluster: Mapping[str, Spec],
    *,
    valid: bool | None = True,
    arguments: Arguments | None = None,
    paths: Paths = PATHS,
    max_calls: int = 6,
) -> SearchStrategy[Request]:
    """Return a strategy for requests: graphs of calls with the options of a request (see `graphs`).

    They call the functions of `cluster`, and `echo` and `echos`, which every node offers. With `valid=False` each has
    one to three defects, so that the node that is asked refuses it: no calls, empty, long or repeated names, unknown
    references, cycles, calls that fit no node. With `valid=None` also calls that fit no node under `partial` and
    `wait`, and requests of both kinds. All requests are traced, so that `Expected.check` compares where calls ran.
    """
    made = handles(cluster, arguments or {}, paths, max_calls, False)
    right = made.flatmap(_options)
    wrong = st.tuples(right, _defects()).map(lambda drawn: _with_defects(*drawn))
    if valid is not None:
        return right if valid else wrong
    late = handles(cluster, arguments or {}, paths, max_calls, True).flatmap(_options)
    return st.one_of(right, late, wrong)


@st.composite
def _options(draw: st.DrawFn, made: list[Any]) -> Request:
    """Return a strategy for requests of one graph."""
    names = [handle.name for handle in made]
    outputs = draw(st.lists(st.sampled_from(made), max_size=2))
    fields: dict[str, Any] = {
        "partial": draw(st.booleans()),
        "eager": draw(st.booleans()),
        "timeout": draw(st.sampled_from([None, 30 * SECOND])),
        "wait": draw(st.sampled_from([0, 0, SECOND])),
    }
    request: Request = made[0].graph.request(*outputs, trace=True, **fields)
    if not outputs and draw(st.booleans()):  # all calls are sent, and some results come back
        want = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        request = replace(request, want=tuple(want))
    return request


def _with_defects(request: Request, defects: list[tuple[Callable[[Request, int], Request], int]]) -> Request:
    for defect, number in defects:
        request = defect(request, number)
    return request


def _defects() -> SearchStrategy[list[tuple[Callable[[Request, int], Request], int]]]:
    """Return a strategy for defects: mostly one, of each code equally often, else up to three."""
    one = st.tuples(st.sampled_from(list(DEFECTS.values())).flatmap(st.sampled_from), st.integers(0, 99))
    single = one.map(lambda defect: [defect])
    return st.one_of(single, single, st.lists(one, min_size=2, max_size=3))


# -- defects: each returns a changed request; `number` selects the place ----------------------------------------------


def _changed(request: Request, number: int, change: Callable[[Call], Call]) -> Request:
    """Return a request with one call changed."""
    calls = list(request.calls)
    if calls:
        place = number % len(calls)
        calls[place] = change(calls[place])
    return replace(request, calls=tuple(calls))


def no_calls(request: Request, number: int) -> Request:
    return replace(request, calls=())


def empty_name(request: Request, number: int) -> Request:
    return _changed(request, number, lambda call: replace(call, name=""))


def empty_function(request: Request, number: int) -> Request:
    return _changed(request, number, lambda call: replace(call, function=""))


def empty_want(request: Request, number: int) -> Request:
    return replace(request, want=())


def repeated_want(request: Request, number: int) -> Request:
    name = request.calls[number % len(request.calls)].name if request.calls else "a"
    return replace(request, want=(name, *(request.want or ()), name))


def no_time(request: Request, number: int) -> Request:
    return replace(request, timeout=-(number % 2))


def negative_wait(request: Request, number: int) -> Request:
    return replace(request, wait=-1 - number)


_LONG = "x" * (DEFAULT.name_length + 1)


def long_name(request: Request, number: int) -> Request:
    """Make a text longer than a node accepts: the name, the function, the version, or a resource of a call."""
    fields: dict[str, Any] = {"name": _LONG, "function": _LONG, "version": _LONG, "resources": (_LONG,)}
    field = list(fields)[number % len(fields)]
    return _changed(request, number // len(fields), lambda call: replace(call, **{field: fields[field]}))


def duplicate_name(request: Request, number: int) -> Request:
    """Repeat a call, or give a call the name of another one."""
    if not request.calls:
        return request
    name = request.calls[number % len(request.calls)].name
    if number % 2 and len(request.calls) > 1:
        return _changed(request, number + 1, lambda call: replace(call, name=name))
    return replace(request, calls=(*request.calls, request.calls[number % len(request.calls)]))


def unknown_dependency(request: Request, number: int) -> Request:
    return _changed(request, number, lambda call: replace(call, dependencies=(*call.dependencies, "nobody")))


def unknown_want(request: Request, number: int) -> Request:
    return replace(request, want=(*(request.want or ()), "nobody"))


def cycle(request: Request, number: int) -> Request:
    """Let some calls depend on each other in a circle, or one call on itself."""
    calls = list(request.calls)
    size = 1 + number % max(len(calls), 1)
    for place, call in enumerate(calls[:size]):
        after = calls[(place + 1) % size].name
        calls[place] = replace(call, dependencies=(*call.dependencies, after))
    return replace(request, calls=tuple(calls))


def _at_once(request: Request) -> Request:
    """Return a request that a node refuses if a call fits no node."""
    return replace(request, wait=min(request.wait, 0), partial=False)


def unknown_function(request: Request, number: int) -> Request:
    return _changed(_at_once(request), number, lambda call: replace(call, function="nowhere"))


def unknown_resource(request: Request, number: int) -> Request:
    return _changed(_at_once(request), number, lambda call: replace(call, resources=(*call.resources, "unobtainable")))


def unknown_version(request: Request, number: int) -> Request:
    return _changed(_at_once(request), number, lambda call: replace(call, version="none"))


DEFECTS: dict[int, tuple[Callable[[Request, int], Request], ...]] = {
    ErrorCode.INVALID_REQUEST: (
        no_calls, empty_name, empty_function, empty_want, repeated_want, no_time, negative_wait,
    ),
    ErrorCode.LIMIT_EXCEEDED: (long_name,),
    ErrorCode.DUPLICATE_NAME: (duplicate_name,),
    ErrorCode.UNRESOLVED_REFERENCE: (unknown_dependency, unknown_want),
    ErrorCode.CYCLIC_REFERENCE: (cycle,),
    ErrorCode.COMMAND_NOT_FOUND: (unknown_function, unknown_resource, unknown_version),
}  # fmt: skip
"""The defects by the code with which a node refuses a request that has no other defect."""
