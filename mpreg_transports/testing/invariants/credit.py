"""Parts of invariants 9, 12, 14 and 15: the credit of native clients.

The ledger is kept at both ends of a link: a request is in flight from its arrival at the node until its last reply has
arrived at the client. So it has at most as many as the client's own window, and more than the node's table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.ids import LinkId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message, Request, Result
from mpreg_proto.wire.session import PauseReason, Stage
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

_End = tuple[str, int, LinkId]
"""The node's end of a link: host, life, link."""


class ClientCredit(Watcher):
    """Invariants 9, 12, 14 and 15: native clients keep to their credit and use it; only JSON links are paused.

    Requests leave a client in the order of their submission, but for those that are sent again (9). Never more are in
    flight on a link than the node has announced, none is refused for that, and no native link is paused (12). None
    waits while credit is free (14). A request that has ended holds no credit (15).
    """

    message_types: ClassVar[tuple[type, ...]] = (Request, Result)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._open: dict[_End, dict[int, None]] = {}
        self._last: dict[_End, int] = {}
        """The newest request that has arrived over a link."""
        self._seen: dict[tuple[str, int], dict[int, None]] = {}
        """The requests of each life of a client that have arrived anywhere."""
        self._paused = 0

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(message, Result):
            if message.last and isinstance(host, ClientHost):
                peer = peer_of(host, link)
                self._open.get((peer.host.name, peer.life, peer.link), {}).pop(message.id, None)
        elif isinstance(message, Request) and isinstance(host, NodeHost):
            session = host.node.links.sessions[link]
            if session.member is None and not session.classic:
                client = peer_of(host, link)
                seen = self._seen.setdefault((client.host.name, client.life), {})
                self._arrived(
                    host, (host.name, host.life, link), message.id, repeat=message.again or message.id in seen
                )
                seen[message.id] = None

    def _arrived(self, host: NodeHost, end: _End, number: int, *, repeat: bool) -> None:
        limits = host.spec.limits
        open_, most = self._open.setdefault(end, {}), min(limits.client_requests, (limits.requests + 1) // 2)
        open_[number] = None
        if len(open_) > most:
            raise Violation(12, f"{stamp(host)} gets {len(open_)} requests of the client on link {end[2]}, for {most}")
        if repeat:
            return
        if number <= self._last.get(end, 0):
            raise Violation(9, f"{stamp(host)} gets request {number} of a client after {self._last[end]}")
        self._last[end] = number

    def replied(self, call: SimCall, reply: Reply) -> None:
        fault = reply.fault if isinstance(reply, Result) else None
        if fault is not None and fault.details.get("limit") in ("client_requests", "client_bytes"):
            raise Violation(12, f"{name_of_call(self._sim, call)} was refused, though its client keeps to its credit")

    def event_handled(self, host: Host) -> None:
        if isinstance(host, ClientHost) and host.session._unsent and host.session.ready:
            self._waiting(host)
        if self._sim.network.paused != self._paused:
            self._paused = self._sim.network.paused
            for node in self._sim.nodes.values():
                if node.alive:
                    self._only_json_paused(node)

    def _waiting(self, host: ClientHost) -> None:
        """Check that nothing is in flight for each request that could be sent."""
        window, limits = host.session._window, self._sim.nodes[host.node].spec.limits
        free = len(window) < min(limits.client_requests, (limits.requests + 1) // 2)
        if not len(window) or (free and limits.client_bytes == DEFAULT.client_bytes):
            numbers, pending = list(host.session._unsent), len(window)
            raise Violation(14, f"{host.name} lets {numbers[:5]} wait at {self._sim.time} s, with {pending} in flight")

    def _only_json_paused(self, host: NodeHost) -> None:
        for link, session in host.node.links.sessions.items():
            if session.paused and not session.classic:
                raise Violation(12, f"{stamp(host)} pauses link {link}, which is native")

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive:
                self._tables(host)

    def _tables(self, host: NodeHost) -> None:
        """Check what the node counts for its clients, and that JSON clients with very much in flight are paused."""
        node, (most, longest) = host.node, host.spec.limits.credit
        in_flight = node.coordinator.in_flight
        for link, numbers in in_flight.origins.items():
            session = node.links.sessions.get(link)
            size = sum(in_flight.requests[number].size for number in numbers.values())
            if link != 0 and size != in_flight.sizes.get(link, 0):
                raise Violation(12, f"{stamp(host)} counts {in_flight.sizes.get(link)} bytes of link {link}: {size}")
            native = session is not None and session.member is None and not session.classic
            if native and (len(numbers) > most or (len(numbers) > 1 and size > longest)):
                raise Violation(12, f"{stamp(host)} has {len(numbers)} requests of {size} bytes of link {link}")
        for link, session in node.links.sessions.items():
            count, size = session.in_flight
            full = session.classic and session.stage is not Stage.ENDED and (count >= most or size >= longest)
            if full and PauseReason.REQUESTS not in session.paused:
                raise Violation(12, f"{stamp(host)} reads link {link}, a JSON client with {count} requests in flight")

    def settled(self, sim: World) -> None:
        if sim.network.has_bandwidth_limit:  # answers may still wait on a path
            return
        for client in sim.clients.values():
            dead = any(wire.died is not None for wire, _ in client.wires.values())
            if client.alive and client.session.ready and not dead and not len(client.session):
                held = len(client.session._window)
                if held:
                    raise Violation(15, f"{client.name} waits for nothing, and {held} requests hold credit")
