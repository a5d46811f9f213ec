"""The oracle of requests: what a request must end with in a cluster at rest, evaluated slowly in plain Python.

It follows docs/explanation/requests.md and shares no code with the parts that plan and place requests
(`mpreg_proto.requests`, `mpreg_proto.cluster`). "At rest" means that all nodes run and know each other, that no
deadline passes, and that no function is withdrawn, refused or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.wire.messages import Call, Done, Failed, Request
from mpreg_proto.wire.values import MalformedValue, Ref, ValueCodec
from mpreg_transports.graph import Graph, describe_call
from mpreg_transports.testing.equality import same
from mpreg_transports.testing.invariants.oracles import refusal_on_arrival, substituted
from mpreg_transports.testing.invariants.sequential import result_of, takes_items
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.functions import offered_functions
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.values import default_codec


class _Unknown:
    """The type of `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""The value of a call that the oracle did not compute, or that has no value."""


class Placement(msgspec.Struct, frozen=True):
    """The nodes on which a call may run."""

    nodes: frozenset[str]
    """All nodes that offer the function and hold a superset of the required resources."""
    equals: frozenset[str]
    """The best of `nodes`, among which placement draws: if the call requires resources, those that hold no others."""

    def __repr__(self) -> str:
        """Return both sets in the order of the names, so that the text of a failed assertion can be compared."""
        return f"Placement(nodes={sorted(self.nodes)}, equals={sorted(self.equals)})"


class ExpectedCall(msgspec.Struct, frozen=True):
    """The end of one call."""

    placement: Placement
    known: bool = False
    """True if the oracle computed the end; else `codes` and `value` mean nothing."""
    codes: frozenset[int] = frozenset()
    """The error codes with which the call may end; empty if it must have a result."""
    value: Any = UNKNOWN
    """The result, as it arrives."""
    idempotent: bool | None = None
    """Whether its function may run twice; None if that differs between its nodes, or there are none."""


class Expected(msgspec.Struct, frozen=True):
    """The end of a request, as returned by `oracle`."""

    code: int | None
    """The code with which the checks refuse the request; None if they accept it."""
    calls: dict[str, ExpectedCall]
    """The calls by name; empty if the request is refused before its names are known to be unique."""
    wanted: tuple[str, ...]
    """The calls whose results come back, in order."""

    @property
    def values(self) -> dict[str, Any]:
        """The results of the wanted calls that have one."""
        ends = {name: self.calls[name] for name in self.wanted}
        return {name: end.value for name, end in ends.items() if end.known and not end.codes}

    @property
    def failures(self) -> dict[str, frozenset[int]]:
        """The calls that fail by themselves, and not because a dependency failed, with their possible codes."""
        own = {name: end.codes - {ErrorCode.CANCELLED} for name, end in self.calls.items() if end.known}
        return {name: codes for name, codes in own.items() if codes}

    def check(self, call: SimCall) -> None:
        """Compare a request that has ended with this. Raises AssertionError with all differences.

        If the request has `trace=True`, the nodes are compared as well.
        """
        if differences := self.differences(call):
            calls = [describe_call(one, default_codec()) for one in call.request.calls]
            raise AssertionError("\n".join([*differences, "the calls:", *calls]))

    def differences(self, call: SimCall) -> list[str]:
        """Return in words in what a request that has ended differs from this."""
        if call.result is None:
            return ["it has not ended"]
        fault = call.result.fault
        done = {row.name: row for part in (*call.parts, call.result) for row in part.done}
        failed = {row.name: row for part in (*call.parts, call.result) for row in part.failed}
        if self.code is not None:
            return [*self._refused(fault, call.request), *(f"{name} has a result" for name in done)]
        found = self._partial(fault, done, failed) if call.request.partial else self._whole(fault, done)
        found += [text for row in done.values() if (text := self._value(row))]
        return found + self._nodes(call)

    def _refused(self, fault: Fault | None, request: Request) -> list[str]:
        if fault is None or fault.code != self.code:
            return [f"expected error {self.code}, got {_shown(fault)}"]
        found = ["maybe_executed is true"] if fault.details.get("maybe_executed") else []
        if self.code == ErrorCode.CYCLIC_REFERENCE and not is_cycle(fault.details["cycle"], request):
            found.append(f"{fault.details['cycle']} is no cycle")
        return found

    def _whole(self, fault: Fault | None, done: Mapping[str, Done]) -> list[str]:
        """Compare a request that the first failure ends."""
        if fault is None:
            return [*_different(done, self.wanted), *(f"{name} did not fail" for name in self.failures)]
        return self._failure(fault)

    def _partial(self, fault: Fault | None, done: Mapping[str, Done], failed: Mapping[str, Failed]) -> list[str]:
        """Compare a request that goes on after a failure."""
        found = _different([*done, *failed], self.wanted) + ([] if fault is None else self._failure(fault))
        if fault is None:
            found += [f"{name} did not fail" for name in self.failures]
        for name in self.wanted:
            end = self.calls[name]
            if not end.known:
                continue
            if name in failed and failed[name].fault.code not in end.codes:
                found.append(f"{name}: expected {_wanted(end)}, got {_shown(failed[name].fault)}")
            elif name in done and end.codes:
                found.append(f"{name}: expected {_wanted(end)}, got a result")
        return found

    def _failure(self, fault: Fault) -> list[str]:
        """Compare the error of a request with the calls that fail by themselves."""
        name = fault.details.get("call")
        end = self.calls.get(name) if isinstance(name, str) else None
        if end is None:
            return [f"expected the failure of a call, got {_shown(fault)}"]
        if end.known and fault.code not in end.codes - {ErrorCode.CANCELLED}:
            return [f"{name}: expected {_wanted(end)}, got {_shown(fault)}"]
        started = bool(fault.details.get("maybe_executed"))
        if started and all(one.idempotent for one in self.calls.values()):
            return ["maybe_executed is true, and all functions are idempotent"]
        if not started and fault.code == ErrorCode.EXECUTION_FAILED and end.idempotent is False:
            return [f"maybe_executed is false, and {name} has failed"]
        return []

    def _value(self, row: Done) -> str:
        end = self.calls.get(row.name)
        if end is None or not end.known or end.codes:
            return ""
        value = default_codec().decode(row.value)
        return "" if same(end.value, value) else f"{row.name}: expected {end.value!r}, got {value!r}"

    def _nodes(self, call: SimCall) -> list[str]:
        """Compare where the calls ran, if the request was traced."""
        assert call.result is not None
        found: list[str] = []
        for row in call.result.trace:
            node, equals = row.node.rpartition("#")[0], self.calls[row.name].placement.equals
            if node not in equals:
                found.append(f"{row.name}: expected to run on {' or '.join(sorted(equals))}, ran on {node}")
        return found


def oracle(
    graph: Graph | Request, cluster: Mapping[str, Spec], *, limits: Limits = DEFAULT, run: bool = True
) -> Expected:
    """Return what a request must end with in a cluster at rest. `limits` are those of the node that is asked.

    It calls the functions of the cluster itself, so they must be deterministic and without effects. With `run=False` it
    calls none, and the ends of the calls are not known. They are not known either where nodes offer different functions
    under one name.
    """
    request = graph.request() if isinstance(graph, Graph) else graph
    if code := refusal_on_arrival(request, limits):
        return Expected(code, {}, ())
    placements = {call.name: _placement(call, cluster) for call in request.calls}
    if not request.wait and not request.partial and not all(one.nodes for one in placements.values()):
        code = int(ErrorCode.COMMAND_NOT_FOUND)
    ends = _ends(request, placements, cluster) if run and code is None else {}
    calls = {
        call.name: replace(
            ends.get(call.name) or ExpectedCall(placements[call.name]),
            idempotent=_idempotent(call, placements[call.name], cluster),
        )
        for call in request.calls
    }
    used = {need for call in request.calls for need in call.dependencies}
    return Expected(code, calls, request.want or tuple(name for name in calls if name not in used))


# -- checks -----------------------------------------------------------------------------------------------------------


def is_cycle(names: Iterable[str], request: Request) -> bool:
    """Return whether each of these calls depends on the next one, the last on the first, and none is named twice."""
    cycle = list(names)
    needs = {call.name: call.dependencies for call in request.calls}
    following = [*cycle[1:], *cycle[:1]]
    return len(set(cycle)) == len(cycle) > 0 and all(
        after in needs.get(name, ()) for name, after in zip(cycle, following, strict=True)
    )


# -- placement --------------------------------------------------------------------------------------------------------


def _placement(call: Call, cluster: Mapping[str, Spec]) -> Placement:
    held: dict[str, set[str]] = {}
    for name, spec in cluster.items():
        fn = offered_functions(spec.functions).get(call.function)
        if fn is not None and call.version in (None, fn.version):
            held[name] = {*spec.resources, *fn.resources}
    nodes = {name for name, resources in held.items() if resources >= set(call.resources)}
    exact = {name for name in nodes if held[name] == set(call.resources)} if call.resources else set()
    return Placement(frozenset(nodes), frozenset(exact or nodes))


def _idempotent(call: Call, placement: Placement, cluster: Mapping[str, Spec]) -> bool | None:
    kinds = {offered_functions(cluster[name].functions)[call.function].idempotent for name in placement.nodes}
    return kinds.pop() if len(kinds) == 1 else None


# -- results ----------------------------------------------------------------------------------------------------------


def _ends(
    request: Request, placements: Mapping[str, Placement], cluster: Mapping[str, Spec]
) -> dict[str, ExpectedCall]:
    """Return the end of each call, computed one after the other; those that are not known are left out."""
    codec = default_codec()
    ends: dict[str, ExpectedCall] = {}
    unknown: set[str] = set()
    waiting = list(request.calls)
    inputs = {name: codec.decode(value) for name, value in request.inputs.items()}
    while waiting:  # no cycle: in each round at least one call has all its dependencies
        call = waiting.pop(0)
        needs = [need for need in call.dependencies if need in placements]
        if any(need not in ends and need not in unknown for need in needs):
            waiting.append(call)
        elif any(need in unknown for need in needs):
            unknown.add(call.name)
        else:
            values = {need: ends[need].value if need in ends else inputs[need] for need in call.dependencies}
            failed = any(ends[need].codes for need in needs)
            end = _end(call, placements[call.name], cluster, None if failed else values, request, codec)
            if end is None:
                unknown.add(call.name)
            else:
                ends[call.name] = end
    return ends


def _end(
    call: Call,
    placement: Placement,
    cluster: Mapping[str, Spec],
    values: Mapping[str, Any] | None,
    request: Request,
    codec: ValueCodec,
) -> ExpectedCall | None:
    """Return the end of a call, or None if it is not known. `values`: of its dependencies; None: one failed."""
    if not placement.nodes:
        codes = {ErrorCode.COMMAND_NOT_FOUND} if values is not None else {ErrorCode.CANCELLED}
        if not request.wait:  # it fails before anything runs, perhaps after a dependency of it has failed so
            codes.add(ErrorCode.COMMAND_NOT_FOUND)
        return _failed(placement, *codes)
    functions = {offered_functions(cluster[name].functions)[call.function].call for name in placement.nodes}
    if values is None:  # one that takes items may end before their generator fails
        return None if any(map(takes_items, functions)) else _failed(placement, ErrorCode.CANCELLED)
    if len(functions) > 1:
        return None
    return _outcome(call, placement, functions.pop(), values, codec)


def _outcome(
    call: Call, placement: Placement, function: Callable[..., Any], values: Mapping[str, Any], codec: ValueCodec
) -> ExpectedCall:
    """Call the function."""
    try:
        arguments: Any = codec.decode(call.args)
    except MalformedValue:
        return _failed(placement, ErrorCode.INVALID_REQUEST)
    if not _are_arguments(arguments) or not _references(arguments) <= set(values):
        return _failed(placement, ErrorCode.INVALID_REQUEST)
    try:
        # Values of their own for each call, which may change them.
        args, kwargs = substituted(arguments, codec.decode(codec.encode(dict(values))))  # type: ignore[arg-type]
    except LookupError:
        return _failed(placement, ErrorCode.UNRESOLVED_REFERENCE)
    try:
        value = codec.decode(codec.encode(result_of(function, args, kwargs)))
    except Exception:  # a function may raise anything, and what it returns may be impossible to send
        return _failed(placement, ErrorCode.EXECUTION_FAILED)
    return ExpectedCall(placement, True, value=value)


def _failed(placement: Placement, *codes: int) -> ExpectedCall:
    return ExpectedCall(placement, True, frozenset(map(int, codes)))


def _are_arguments(value: Any) -> bool:
    """Return whether a value is `[[positional, ...], {keyword: value}]`."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    args, kwargs = value
    return isinstance(args, list) and isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)


def _references(value: Any) -> set[str]:
    """Return the names of the calls that arguments refer to."""
    if isinstance(value, Ref):
        return {value.name}
    inside = [*value, *value.values()] if isinstance(value, dict) else value
    return set().union(*map(_references, inside)) if isinstance(value, list | tuple | dict) else set()


# -- differences in words ---------------------------------------------------------------------------------------------


def _different(came: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return a difference between the calls that came back and those that were wanted."""
    names, expected = sorted(came), sorted(wanted)
    return [] if names == expected else [f"expected the results of {expected}, got those of {names}"]


def _wanted(end: ExpectedCall) -> str:
    return f"error {' or '.join(map(str, sorted(end.codes)))}" if end.codes else f"the result {end.value!r}"


def _shown(fault: Fault | None) -> str:
    return "no error" if fault is None else f"error {fault.code}: {fault.message}"
