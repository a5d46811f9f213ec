"""Parts of invariants 9 and 15: what is handed on is somewhere, and a relay passes on what it is told.

Links keep the order of what is sent over them, so a cancellation must have come before whatever was sent after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
"""Longer than anything small is on its way where no way is narrow."""
_Out = tuple[str, int, int, str]
_At = tuple[str, int, LinkId]


class RelayedCancellation(Watcher):
    """15: what a relay hears called off it calls off where it has passed it on to."""

    message_types = (CancelRequest, Request)

    def begin(self, sim: World) -> None:
        self._owed: dict[_At, dict[int, int]] = {}
        """What must be called off at the end of a link, and the last number that its sender had given out by then."""

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
                    raise Violation(15, f"{stamp(host)} was not told to stop {number} of link {link}, nor its relay's")

    def _passes_on(self, host: NodeHost, link: LinkId, number: int) -> None:
        onward = host.node.relay._forwarded.get((link, number))
        if onward is not None and onward[0] in host.wires:
            wire, side = host.wires[onward[0]]
            end = wire.ends[1 - side]
            owed = self._owed.setdefault((end.host.name, end.life, end.link), {})
            owed[onward[1]] = host.node.coordinator.outstanding.last_number


class DispatchTracking(Watcher):
    """9: what a node has handed out is known where it was handed to, or the answer is on its way.

    Missed once, the call may be on its way there; once more, its answer on the way back. So it is nowhere when it is
    missed three times, and nothing was wrong meanwhile that could have held it up.
    """

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)
        self._missing: dict[_Out, list[int]] = {}
        """When what is out was nowhere to be found, each time long after the last."""

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
        if there.closed or there.life != there.host.life or not isinstance(there.host, NodeHost):
            return False  # it will be found out, as that a link is half-open
        if not _sound(sim, here, there):
            return False
        node = there.host.node
        return not (node.worker.has(there.link, number) or node.relay.has(there.link, number))


def _sound(sim: World, here: WireEnd[Host], there: WireEnd[Host]) -> bool:
    """Whether what one end sends is at the other in no time."""
    network, names = sim.network, (here.host.name, there.host.name)
    if network.is_cut(*names) or network.is_cut(*names[::-1]):
        return False
    if network.profile(*names).bandwidth or network.profile(*names[::-1]).bandwidth:
        return False
    return max(here.host.stalled_until, there.host.stalled_until) <= sim.now
