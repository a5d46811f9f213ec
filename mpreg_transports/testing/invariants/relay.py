"""Parts of invariants 9 and 15: no dispatched call is lost, and a relay passes on the cancellations that it receives.

A link keeps the order of the messages sent over it, so a cancellation must arrive before each message sent after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.ids import LinkId
from mpreg_proto.requests.outstanding import dispatch_count
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CancelRequest, Message, Request
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.stability import Stability
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World
    from mpreg_transports.testing.simulation.network import WireEnd

_ON_ITS_WAY = 3 * SECOND
"""Longer than any small message is in transit where no bandwidth is limited."""
_Out = tuple[str, int, int, str]
_At = tuple[str, int, LinkId]


class RelayedCancellation(Watcher):
    """Invariant 15: a relay that receives a cancellation cancels the call on the node that it forwarded the call to."""

    message_types: ClassVar[tuple[type, ...]] = (CancelRequest, Request)

    def begin(self, sim: World) -> None:
        self._owed: dict[_At, dict[int, int]] = {}
        """The dispatches that must be cancelled at the end of a link, with the last dispatch number of its sender at
        that time."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if not isinstance(host, NodeHost):
            return
        owed = self._owed.get((host.name, host.life, link), {})
        if isinstance(message, CancelRequest):
            owed.pop(message.id, None)
            self._passes_on(host, link, message.id)
        elif isinstance(message, Request):
            for number, mark in owed.items():
                if dispatch_count(message.id) > mark:
                    raise Violation(
                        15, f"{stamp(host)} received no cancellation of {number} of link {link}, nor did its relay"
                    )

    def _passes_on(self, host: NodeHost, link: LinkId, number: int) -> None:
        onward = host.node.relay._forwarded.get((link, number))
        if onward is not None and onward[0] in host.wires:
            wire, side = host.wires[onward[0]]
            end = wire.ends[1 - side]
            owed = self._owed.setdefault((end.host.name, end.life, end.link), {})
            owed[onward[1]] = host.node.coordinator.outstanding.last_number


class DispatchTracking(Watcher):
    """Invariant 9: a dispatched call is known at the node that it was dispatched to, or its reply is in transit.

    A call that is missing once may be in transit to that node; missing a second time, its reply may be in transit. So a
    call is lost if it is missing three times, and no fault in the meantime could have delayed it.
    """

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)
        self._missing: dict[_Out, list[int]] = {}
        """The times at which an outstanding call was missing, each long after the one before."""

    def sweep(self, sim: World) -> None:
        missing: dict[_Out, list[int]] = {}
        stable_since = self._stability.since()
        for host in sim.nodes.values():
            for number, calls in host.node.coordinator.outstanding._by_number.items() if host.alive else ():
                for name, attempt in calls.items():
                    if attempt.link and self._nowhere(sim, host, attempt.link, number):
                        key = (host.name, host.life, number, name)
                        times = missing[key] = [at for at in self._missing.get(key, ()) if at >= stable_since]
                        if not times or sim.now - times[-1] > _ON_ITS_WAY:
                            times.append(sim.now)
                        if len(times) > 2:
                            raise Violation(9, f"{stamp(host)} waits for {name!r} of {number}, which is nowhere")
        self._missing = missing

    def _nowhere(self, sim: World, host: NodeHost, link: LinkId, number: int) -> bool:
        wire, side = host.wires[link]
        here, there = wire.ends[side], wire.ends[1 - side]
        if not isinstance(there.host, NodeHost):
            return False
        if max(wire.last) > sim.now + _ON_ITS_WAY:
            return False  # it is in transit behind much else, on a path that had a low bandwidth
        if wire.died is not None or there.closed or there.life != there.host.life:
            return False  # such a link is half-open, which the node will detect
        if not _sound(sim, here, there):
            return False
        node = there.host.node
        return not (node.worker.has(there.link, number) or node.relay.has(there.link, number))


def _sound(sim: World, here: WireEnd[Host], there: WireEnd[Host]) -> bool:
    """Return whether a message from one end reaches the other end without a fault or a bandwidth limit."""
    network, names = sim.network, (here.host.name, there.host.name)
    if network.is_cut(*names) or network.is_cut(*names[::-1]):
        return False
    if network.profile(*names).bandwidth or network.profile(*names[::-1]).bandwidth:
        return False
    return max(here.host.stalled_until, there.host.stalled_until) <= sim.now
