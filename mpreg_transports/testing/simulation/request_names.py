"""The name of a request, the same in events, stories and violations: its number in the script, and its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.requests.request_state import Execution
from mpreg_transports.testing.simulation.calls import SimCall

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import NodeHost, World


def request_name(label: int, node: str) -> str:
    """Return the name of the request with this number in the script, which `node` was asked."""
    return f"request {label} at {node}"


def name_of_call(sim: World, call: SimCall) -> str:
    """Return the name of a client's request."""
    return request_name(call.label, sim.clients[call.client].node)


def name_of_execution(host: NodeHost, execution: Execution) -> str:
    """Return the name of a request at its coordinator, by the client and the number that it came with.

    A request that came from no client of the simulation has the number that its node gave it, as "request #3 of n0".
    """
    found = host.wires.get(execution.link)
    if found is not None:
        wire, side = found
        name = name_by_number(host.sim, wire.ends[1 - side].host.name, execution.reply_id)
        if name:
            return name
    return f"request #{execution.id} of {host.name}"


def name_by_number(sim: World, client: str, number: int) -> str:
    """Return the name of the request with this number of a client, or an empty text."""
    for call in reversed(sim.calls):
        if (call.client, call.number) == (client, number):
            return name_of_call(sim, call)
    return ""
