"""The errors of requests and calls in words: what was expected, what is there, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.limits import SECOND
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.messages import Call
from mpreg_proto.wire.value_limits import ValueTooLarge

_NAMED: Final = 20
"""The most names that one sentence lists."""
_STARTED: Final = 50
"""The most calls that 1021 lists."""
CANCELLED: Final = Fault(ErrorCode.CANCELLED, "cancelled by the caller")
DRAINING: Final = Fault(ErrorCode.DRAINING, "this node is leaving the cluster; ask another one")
LOST: Final = ErrorCode.OUTCOME_UNKNOWN
"""The code of a call whose body may have started and whose outcome is unknown."""
LOST_BY_LEAVING: Final = Fault(
    ErrorCode.OUTCOME_UNKNOWN, "this node left the cluster while calls of this request may have been running"
)
ID_RETIRED: Final = Fault(
    ErrorCode.DRAINING, "the cluster has retired the id of this node, which joins again with a new one; ask again"
)
LOST_WITH_ID: Final = Fault(
    ErrorCode.OUTCOME_UNKNOWN,
    "the cluster has retired the id of this node while calls of this request may have been running",
)


def too_many_requests(mine: int, total: int, limit: int) -> Fault:
    """1022 for a request of a client that has as many in flight as this node has room for more."""
    text = f"over the limit requests: {total} of {limit} are in flight, {mine} of them of this client"
    return Fault(ErrorCode.OVERLOADED, text, {"limit": "requests", "value": limit, "came": mine, "retry_after": 1.0})


def over_credit(limit: str, value: int, came: int) -> Fault:
    """1022 for a request of a native client beyond its credit."""
    text = (
        f"over the limit {limit}: with this request {came} would be in flight on this link, and its credit is {value}"
    )
    return Fault(ErrorCode.OVERLOADED, text, {"limit": limit, "value": value, "came": came, "retry_after": 1.0})


def unread_answers(limit: int, backlog: int) -> Fault:
    """1022 for a request or query of a native client that leaves too much unread."""
    text = f"over the limit client_answers: {backlog} bytes of earlier answers wait until this client takes them"
    details = {"limit": "client_answers", "value": limit, "came": backlog, "retry_after": 1.0}
    return Fault(ErrorCode.OVERLOADED, text, details)


def cancelled(execution: Execution) -> Fault:
    """1021 for a request that its caller has cancelled, with the calls that a node had: `started` and `ended` ones."""
    rows = [
        {"call": name, "function": execution.plan.calls[name].function, "node": node, "ended": ended}
        for name, node, ended in execution.given_out()
    ]
    return CANCELLED.with_details(
        started=rows[:_STARTED], **({"more": len(rows) - _STARTED} if rows[_STARTED:] else {})
    )


def deadline(execution: Execution) -> Fault:
    """1020, with the deadline, whether it is the default, and the calls that were open."""
    span = (execution.deadline - execution.arrived) / SECOND
    whose = "" if execution.request.timeout is not None else " (the default; set another with timeout)"
    still = list(execution.open)
    names = ", ".join(still[:5]) + (", ..." if len(still) > 5 else "")
    text = f"not done within {span:g} s{whose}; still open: {names}"
    return Fault(ErrorCode.DEADLINE_EXCEEDED, text, {"timeout": span, "open": still[:20]})


def lost(call: str, node: str) -> Fault:
    """1023 for a call whose node was lost: its body may have run."""
    text = f"{node} was lost while call {call!r} may have been running there, so it was not started again"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"node": node})


def lost_amid_items(call: str, node: str) -> Fault:
    """1023 for a call whose first items have been passed on: its generator cannot start again."""
    text = f"{node} was lost after the first items of call {call!r}, so it was not started again"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"node": node})


def lost_with_items(call: str, node: str) -> Fault:
    """1023 for a call that has taken items of a generator: they are gone with its node."""
    text = f"{node} was lost after call {call!r} had taken items of a generator, so it was not started again"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"node": node})


def failover_limit_reached(call: str, nodes: Sequence[str], failovers: int) -> Fault:
    """1023 for an idempotent call that has used up its failovers."""
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    text = f"call {call!r} was started on {count}, and each was lost: {', '.join(nodes)}; at most {failovers} may be"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"node": nodes[-1], "nodes": list(nodes), "failovers": failovers})


def no_place(call: Call, node: str) -> Fault:
    """1022 from a worker that has as many calls of a function as it takes; its coordinator keeps the call."""
    details = {"call": call.name, "function": call.function, "node": node, "full": True, "retry_after": 0.1}
    return Fault(ErrorCode.OVERLOADED, f"{node} has as many calls of {call.function!r} as it takes", details)


def has_no_place(fault: Fault) -> bool:
    """Return whether `fault` is `no_place`."""
    return fault.code == ErrorCode.OVERLOADED and bool(fault.details.get("full"))


def not_admitted(function: str, *, waited: int, retry_after: int) -> Fault:
    """1022 for a request whose first calls would wait for too long."""
    seconds = max(0.05, round(retry_after / SECOND, 2))
    text = f"{function!r} gets more calls than it can run: the oldest has waited for {waited / SECOND:.2g} s"
    details = {"function": function, "waited": waited / SECOND, "retry_after": seconds}
    return Fault(ErrorCode.OVERLOADED, f"{text}; try again after {seconds:g} s", details)


def too_late(call: Call, left: int, median: int) -> Fault:
    """1020 for a call that has waited for its turn until its runtime no longer fits."""
    text = f"call {call.name!r} got its turn {max(0, left) / SECOND:.2g} s before its deadline"
    details = {"call": call.name, "function": call.function}
    usual = f"{call.function!r} usually takes {median / SECOND:.2g} s"
    return Fault(ErrorCode.DEADLINE_EXCEEDED, f"{text} and was not started: {usual}", details)


def not_started(call: Call, node: str, reason: str) -> Fault:
    """1022 for a function whose body the node cannot start now."""
    text = f"{node} cannot start {call.function!r}: {reason}"
    return Fault(
        ErrorCode.OVERLOADED, text, {"call": call.name, "function": call.function, "node": node, "retry_after": 1.0}
    )


def lost_on_node(call: Call, node: str, reason: str) -> Fault:
    """1023 for a call whose executor ended while its node lives."""
    text = f"call {call.name!r} was lost on {node} while it may have been running, and was not started again: {reason}"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"call": call.name, "function": call.function, "node": node})


def not_idempotent(call: Call) -> Fault:
    """1001 from a worker whose function is not idempotent, though the coordinator takes it for that."""
    text = f"{call.function!r} is not idempotent here, as it was when the call was placed"
    return Fault(ErrorCode.COMMAND_NOT_FOUND, text, {"call": call.name, "function": call.function})


def takes_no_items(call: Call, node: str) -> Fault:
    """1001 from a worker whose function takes no items one by one, though it did when the call was placed."""
    text = f"{call.function!r} takes no items one by one on {node}, as it did when the call was placed"
    return Fault(ErrorCode.COMMAND_NOT_FOUND, text, {"call": call.name, "function": call.function})


def list_too_large(generator: str, error: ValueTooLarge) -> Fault:
    """1014 for the list of the items of a generator."""
    text = f"the list of the items of call {generator!r} is over a limit: {error}"
    return Fault(ErrorCode.LIMIT_EXCEEDED, text, error.details)


def not_repeatable(call: Call) -> Fault:
    """1023 for a request that is sent again after a lost link, with a function that must not be started twice."""
    text = f"the link was lost while call {call.name!r} may have been running"
    details = {"call": call.name, "function": call.function, "maybe_executed": True}
    return Fault(
        ErrorCode.OUTCOME_UNKNOWN, f"{text}, and it is not repeated, as {call.function!r} is not idempotent", details
    )


LOST_IN_RELAY: Final = Fault(
    ErrorCode.OUTCOME_UNKNOWN,
    "a link on the route to that node was lost while calls may have been running there",
    {"maybe_executed": True, "relayed": True},
)
"""1023 from a relay that has lost its next hop: the bodies may have run."""


def lost_in_relay(fault: Fault | None) -> bool:
    """Return whether `fault` is `LOST_IN_RELAY`."""
    return fault is not None and fault.code == LOST_IN_RELAY.code and bool(fault.details.get("relayed"))


def no_route() -> Fault:
    """1001 from a relay. It concerns this route alone, not the member at its end."""
    return Fault(ErrorCode.COMMAND_NOT_FOUND, "no route to that node", {"maybe_executed": False, "relayed": True})


def relay_full(limit: int) -> Fault:
    """1022 from a relay. It concerns the relay alone, not the member that the calls are for."""
    details = {"limit": "requests", "retry_after": 1.0, "maybe_executed": False, "relayed": True}
    return Fault(ErrorCode.OVERLOADED, f"over the limit requests: {limit} are relayed already", details)


def not_found(call: Call, details: Mapping[str, object]) -> Fault:
    """1001 with what the catalogue lacks; it names the call if that has a name of its own."""
    lacks = details.get("lacks")
    if details.get("unknown") == "function":
        text = f"no node offers {call.function!r}" + _alternatives(call, details)
    elif lacks is not None and not lacks:
        text = f"no node that offers {call.function!r} is left to run it"
    else:
        text = f"no node that offers {call.function!r} holds {_listed(call.resources)}"
        if isinstance(lacks, (list, tuple)):
            text += f"; the nearest, {details.get('node')}, lacks {_listed(lacks)}"
            text += _did_you_mean(details.get("close")) if len(lacks) == 1 else _corrected(details.get("corrections"))
    named = f"call {call.name!r}: " if call.name != call.function else ""
    return Fault(ErrorCode.COMMAND_NOT_FOUND, named + text, {"call": call.name, "function": call.function, **details})


def _listed(names: Sequence[object]) -> str:
    """Return the first names as a list in words."""
    return ", ".join([repr(name) for name in names[:_NAMED]]) + (", ..." if len(names) > _NAMED else "")


def _alternatives(call: Call, details: Mapping[str, object]) -> str:
    """Return the other versions of an unknown function, or similar names, in words."""
    version = f" in version {call.version!r}" if call.version is not None else ""
    versions, close = details.get("versions"), details.get("close")
    if isinstance(versions, (list, tuple)) and versions:
        return f"{version}; there is " + ", ".join(repr(one) if one else "one without a version" for one in versions)
    return version + _did_you_mean(close)


def _did_you_mean(close: object) -> str:
    """Return the first similar names as a clause."""
    if not isinstance(close, (list, tuple)) or not close:
        return ""
    return "; did you mean " + " or ".join([repr(name) for name in close[:3]]) + "?"


def _corrected(corrections: object) -> str:
    """Return the first corrections, by the names that they replace, as a clause."""
    if not isinstance(corrections, Mapping) or not corrections:
        return ""
    pairs = [f"{name!r} for {misspelt!r}" for misspelt, name in list(corrections.items())[:3]]
    return "; did you mean " + " and ".join(pairs) + "?"
