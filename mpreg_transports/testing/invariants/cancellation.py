"""Parts of invariants 6, 13, 14 and 15: cancelled calls stop, and a node leaves in order.

A link keeps the order of the messages sent over it. So a message that arrives proves that each cancellation sent before
it on this link must have arrived too; no time has to be guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.notices import Left, Notice, Standing
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CancelRequest, Goodbye, GoodbyeReason, Message, Request
from mpreg_transports.testing.invariants.oracles import attempt_of, cell, show_cell, stamp
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_Life = tuple[str, int]


class CancelledCallsStop(Watcher):
    """Invariant 15: a node that receives a cancellation stops the calls that it names."""

    message_types: ClassVar[tuple[type, ...]] = (CancelRequest,)

    def begin(self, sim: World) -> None:
        self._cancels: dict[str, list[tuple[LinkId, int]]] = {}

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(message, CancelRequest) and isinstance(host, NodeHost):
            self._cancels.setdefault(host.name, []).append((link, message.id))

    def node_event_handled(self, host: NodeHost) -> None:
        cancels = self._cancels.pop(host.name, None) if self._cancels else None
        if cancels is None:
            return
        worker, origins = host.node.worker, host.node.coordinator.in_flight.origins
        for link, number in cancels:
            jobs = worker._dispatches.get((link, number), {}).values()
            going = [job.call.name for job in jobs if job.run is None or job.cancelled is None]
            if going or number in origins.get(link, {}):
                raise Violation(
                    15, f"{stamp(host)} received a cancellation of {number} of link {link} and goes on: {going}"
                )


class CancelPropagation(Watcher):
    """Invariant 15: cancellations are propagated.

    The outstanding calls of an ended request are cancelled, and so are the requests that a client has cancelled.
    """

    message_types: ClassVar[tuple[type, ...]] = (CancelRequest, Request)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._out: dict[_Life, dict[int, tuple[LinkId, Execution]]] = {}
        """The dispatches to other nodes whose requests were open at the last check, by coordinator and number."""
        self._marks: dict[_Life, tuple[int, int]] = {}
        self._over: dict[tuple[str, int, LinkId], dict[int, None]] = {}
        """The dispatches that were outstanding when their request ended, by the coordinator's end of the link."""
        self._asked: dict[_Life, dict[int, SimCall]] = {}
        self._owed: dict[tuple[str, int, int], list[int]] = {}
        """The dispatches that must be cancelled before a request is sent, by the sender, its life and the number of the
        request."""
        self._cancelled: dict[tuple[str, int, LinkId, int], None] = {}

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is None or attempt.link == 0:
            return
        self._out.setdefault((host.name, host.life), {})[number] = attempt.link, attempt.execution
        over = self._over.get((host.name, host.life, attempt.link))
        if over:
            self._owed[host.name, host.life, number] = list(over)

    def node_event_handled(self, host: NodeHost) -> None:
        life = (host.name, host.life)
        out = self._out.get(life)
        if not out:
            return
        coordinator = host.node.coordinator
        mark = (len(coordinator.requests), coordinator.in_flight.last_id)
        if self._marks.get(life) == mark:  # no request has ended since
            return
        self._marks[life] = mark
        for number, (link, execution) in list(out.items()):
            if coordinator.requests.get(execution.id) is not execution:
                del out[number]
                if number in coordinator.outstanding._by_number:
                    self._over.setdefault((*life, link), {})[number] = None

    def submitted(self, call: SimCall) -> None:
        client = self._sim.clients[call.client]
        asked = self._asked.setdefault((call.client, client.life), {})
        cancelled = [number for number, one in asked.items() if one.cancelled]
        if cancelled:
            self._owed[call.client, client.life, call.number] = cancelled
        asked[call.number] = call

    def replied(self, call: SimCall, reply: Reply) -> None:
        if call.done():
            self._asked.get((call.client, self._sim.clients[call.client].life), {}).pop(call.number, None)

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        kind = type(message)
        if kind is CancelRequest:
            self._cancelled[host.name, host.life, link, message.id] = None  # type: ignore[union-attr]
        elif kind is Request and self._owed and isinstance(host, NodeHost):
            assert isinstance(message, Request)
            peer = peer_of(host, link)
            for number in self._owed.pop((peer.host.name, peer.life, message.id), ()):
                node = host.node
                known = node.worker.has(link, number) or number in node.coordinator.in_flight.origins.get(link, ())
                if known and (host.name, host.life, link, number) not in self._cancelled:
                    what = f"{number} of {peer.host.name} goes on, which was over when {message.id} was sent"
                    raise Violation(15, f"{stamp(host)}: {what}, and nobody called it off")


class GracefulLeave(Watcher):
    """Invariants 6, 13 and 14: a node leaves in order.

    A draining node takes no new requests (6), finishes running calls (14), and announces LEFT before it ends (13).
    """

    message_types: ClassVar[tuple[type, ...]] = (Goodbye,)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._script = sim.trace.script
        self._born: dict[str, int] = {}
        """The length of the script when a life began, by host."""
        self._since: dict[_Life, int] = {}
        self._announced_over_one_link: dict[tuple[bytes, bytes], None] = {}
        """Pairs of a member that has left and a member to which it had only one link, over which it must have announced
        LEFT."""
        self._due: dict[str, list[MemberId]] = {}

    def node_started(self, host: NodeHost) -> None:
        self._born[host.name] = len(self._script)

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        since = self._since.get((host.name, host.life))
        if since is not None:
            attempt = attempt_of(host.node.coordinator, number, key.call)
            if attempt is not None and attempt.execution.arrived > since:
                raise Violation(6, f"{stamp(host)} places {key.call!r} of a request that came while it was draining")

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is not Left:
            return
        cluster = host.node.cluster
        for member, ties in cluster._peer_links._by_member.items():
            if [tie.link for tie in ties] == [cluster.links.get(member)]:
                self._announced_over_one_link[host.node.me, member] = None
        mine = [action for action in self._script[self._born[host.name] :] if action.args.get("name") == host.name]
        leaves = [action for action in mine if action.name == "leave"]
        grace = self._since.get((host.name, host.life), host.local) + host.spec.limits.drain_grace
        drained = [one for one in self._sim.drained if one[:2] == (host.name, host.life)]
        if host.running and len(leaves) + len(drained) == 1 and host.local < grace:
            running = [body.run.function for body in host.running.values()]
            raise Violation(14, f"{stamp(host)} goes before its time, while {running} are running")

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Goodbye and message.reason == GoodbyeReason.LEAVING and isinstance(host, NodeHost):
            member = host.node.links.sessions[link].member
            if member is not None and (member, host.node.me) in self._announced_over_one_link:
                self._due.setdefault(host.name, []).append(member)

    def node_event_handled(self, host: NodeHost) -> None:
        if host.node.draining:
            self._since.setdefault((host.name, host.life), host.local)
        for member in self._due.pop(host.name, ()) if self._due else ():
            now = cell(host.node.cluster.members, member)
            if now[1] < Standing.LEFT and not host.node.left:
                raise Violation(13, f"{stamp(host)} was left by {show('', member)}, which it sees as {show_cell(now)}")
