"""Invariants 13 and 15: the state that must hold when faults have stopped long ago.

Bounds that this version cannot keep yet are in known_gaps.py. The checks are skipped if `judge` is called earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.effects import Framing
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.limits import DEFAULT
from mpreg_proto.notices import Standing
from mpreg_proto.requests.outstanding import Attempt
from mpreg_proto.requests.worker import Job
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Goodbye, GoodbyeReason, Message
from mpreg_transports.testing.invariants.known_gaps import SETTLED_AFTER
from mpreg_transports.testing.invariants.oracles import TOP, UNKNOWN, cell, entries, offers, show_cell, stamp
from mpreg_transports.testing.invariants.stability import MESH, Stability, components, correct
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.network import Wire
from mpreg_transports.testing.simulation.request_names import name_by_number, name_of_execution
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_PERIODIC = (
    TimerKind.PING,
    TimerKind.DIAL,
    TimerKind.DIAL_TIMEOUT,  # invariant 12 checks that the dial is in progress
    TimerKind.HANDSHAKE,  # of such a dial; invariant 12 checks that the link is open
    TimerKind.COLLECT,
    TimerKind.TICK,
    TimerKind.PROBE,
    TimerKind.ANTI_ENTROPY,
)
"""Timers that may always be set."""


class ViewConvergence(Watcher):
    """Invariant 13: all correct members have the same view.

    They see each other ALIVE and crashed members DEAD or not at all, and they hold the same catalogues.
    """

    message_types: ClassVar[tuple[type, ...]] = (Goodbye,)

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)
        self._born: dict[bytes, str] = {}
        """Every member id there ever was, with the name of its host."""

    def node_started(self, host: NodeHost) -> None:
        self._born[host.node.me] = host.name

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        """Check which link of a pair is closed as a duplicate.

        Of two links to one member, the link that the member with the smaller id dialled is kept; of two links that the
        same member dialled, the one whose handshake ended later there. So the member that closes a link of its own as
        a duplicate has the larger id, or has dialled twice.
        """
        if type(message) is not Goodbye or message.reason != GoodbyeReason.DUPLICATE or not isinstance(host, NodeHost):
            return
        member, peer = host.node.links.sessions[link].member, host.wires[link][0].ends[0].host
        again = any(
            other != link and side == 1 and wire.ends[0].host is peer for other, (wire, side) in host.wires.items()
        )
        if member is not None and member < host.node.me and not again:
            raise Violation(13, f"{show(peer.name, member)} closes its link to {stamp(host)}, which is to be kept")

    def settled(self, sim: World) -> None:
        stable_for = sim.now - self._stability.since()
        if stable_for < SETTLED_AFTER:
            return
        nodes = correct(sim)
        self._born.update((host.node.me, host.name) for host in nodes)
        living = {host.node.me: host for host in sim.nodes.values() if host.alive and not host.node.left}
        for component in components(nodes, stable_for=stable_for):
            for host in component:
                for other in component:
                    self._sees(host, other)
                    if other is not host and len(component) < MESH and other.node.me not in host.node.cluster.links:
                        text = f"{stamp(host)} has no link to {show(other.name, other.node.me)}"
                        raise Violation(13, text, pair=(host.name, other.name))
                self._sees_no_ghosts(host, living)
                self._one_link_a_pair(host)
            self._one_view(component)

    def _sees(self, host: NodeHost, other: NodeHost) -> None:
        cluster, member, pair = host.node.cluster, other.node.me, (host.name, other.name)
        now = cell(cluster.members, member)
        if now[1] != Standing.ALIVE:
            text = f"{stamp(host)} sees {show(other.name, member)}, which is well, as {show_cell(now)}"
            raise Violation(13, text, pair=pair)
        theirs = cell(other.node.cluster.members, member)
        if now != theirs:
            raise Violation(
                13,
                f"{stamp(host)} sees {show(other.name, member)} as {show_cell(now)}, not {show_cell(theirs)}",
                pair=pair,
            )
        replica, own = cluster.catalogue.content(member), other.node.cluster.catalogue.content(member)
        mine = {} if replica is None else entries(replica)
        right = {} if own is None else entries(own)
        if mine != right:
            raise Violation(
                13,
                f"{stamp(host)} holds the catalogue of {show(other.name, member)} at "
                f"{0 if replica is None else replica.version}, not {0 if own is None else own.version}",
                pair=pair,
            )
        functions = dict.fromkeys(name for name in other.offers if f"f:{name}" in right)
        if sorted(offers(right).functions) != sorted(functions):
            raise Violation(13, f"{stamp(other)} offers {sorted(offers(right).functions)}, which is not what it runs")

    def _one_view(self, component: list[NodeHost]) -> None:
        """Check that all nodes hold the same cells, also of members that no longer exist."""
        first = component[0]
        for other in component[1:]:
            for one, two in ((first, other), (other, first)):
                for record in one.node.cluster.members.all():
                    here, there = cell(one.node.cluster.members, record.id), cell(two.node.cluster.members, record.id)
                    if here != there and not (_retires_soon(one) and here[1] > Standing.SUSPECT and there in _RETIRED):
                        gone = show(self._born.get(record.id, "nobody"), record.id)
                        seen = f"{show_cell(here)}, {stamp(two)} as {show_cell(there)}"
                        raise Violation(13, f"{stamp(one)} sees {gone} as {seen}", pair=(one.name, two.name))

    def _one_link_a_pair(self, host: NodeHost) -> None:
        """Check that a node has one link to each member, of those that are open at both ends.

        A seed that may lead to several members is dialled again now and then. If a known one answers, the second link
        is open at this end until the other end closes it.
        """
        linked: dict[MemberId, int] = {}
        for link, session in host.node.links.sessions.items():
            if session.member is not None and not session.closing and _open_there(host, link):
                if session.member in linked:
                    pair = f"{linked[session.member]} and {link}"
                    raise Violation(13, f"{stamp(host)} has two links to {show('', session.member)}: {pair}")
                linked[session.member] = link

    def _sees_no_ghosts(self, host: NodeHost, living: dict[MemberId, NodeHost]) -> None:
        for record in host.node.cluster.members.all():
            if record.standing <= Standing.SUSPECT and record.id not in living:
                gone = show(self._born.get(record.id, "nobody"), record.id)
                text = f"{stamp(host)} sees {gone}, which is no more, as {record.standing.name}"
                raise Violation(13, text, pair=(host.name, self._born.get(record.id, "nobody")))


_RETIRED = (TOP, UNKNOWN)
"""The cells of a member that is retired, or forgotten after that."""


def _retires_soon(host: NodeHost) -> bool:
    """Return whether a node retires members before anti-entropy has made the views one.

    Each node does so by its own clock and its own limits. Another one that still has the member as DEAD or LEFT learns
    it when the two compare their states (`Limits.gossip_interval`).
    """
    limits = host.spec.limits
    return limits.dead_for < DEFAULT.dead_for or limits.dead_members < DEFAULT.dead_members


class StateCleanup(Watcher):
    """Invariant 15: after all requests and bodies have ended, nothing of them is left, and only periodic timers run."""

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)

    def settled(self, sim: World) -> None:
        busy = any(not call.done() for call in sim.calls) or any(host.running for host in sim.nodes.values())
        busy = busy or any(not query.done() for query in sim.queries) or _in_progress(sim)
        waits = sim.network.has_backlog(sim.hosts, sim.now)
        if busy or waits or sim.now - self._stability.since() < SETTLED_AFTER:
            return
        nodes = correct(sim)
        rings = len(nodes) >= MESH
        found_out = sim.now - self._stability.since() > DEFAULT.gone_after + SECOND
        for host in nodes:
            self._calls(host, unnoticed=[] if found_out else _half_open(host))
            self._links(host, closing=rings)
            self._timers(host, closing=rings)
            wants = host.node.cluster._gossip._fetches
            if wants:
                self._left(host, f"catalogues of {[show('', member) for member in wants]} asked for")
        for client in sim.clients.values():
            if client.alive:
                self._client(client)
        if found_out:
            for one in (*correct(sim), *sim.clients.values()):
                for link in _half_open(one):
                    wire, side = one.wires[link]
                    if wire.last[1 - side] > sim.now - DEFAULT.gone_after - SECOND:  # it still got what was on its way
                        continue
                    gone = wire.ends[1 - side].host.name
                    text = f"{one.name} is left with link {link} to {gone}, which is no more"
                    raise Violation(15, text, pair=(one.name, gone))

    def _calls(self, host: NodeHost, *, unnoticed: list[LinkId]) -> None:
        """Check that no request, call or run is left.

        `unnoticed` are half-open links that a node may still use; calls on them may still count as outstanding.
        """
        coordinator, worker = host.node.coordinator, host.node.worker
        attempts = [one for calls in coordinator.outstanding._by_number.values() for one in calls.values()]
        by_member = [one for calls in coordinator.outstanding._by_member.values() for one in calls.values()]
        for what, left in (
            ("requests", [name_of_execution(host, one) for one in coordinator.requests.values()]),
            ("calls out", [_attempt(host, one) for one in attempts if one.link not in unnoticed]),
            ("calls out by member", [_attempt(host, one) for one in by_member if one.link not in unnoticed]),
            (
                "requests by link",
                [f"{list(theirs)} of link {link}" for link, theirs in coordinator.in_flight.origins.items() if theirs],
            ),
            ("calls waiting", [f"{name} of request #{request}" for request, name in coordinator.pending_calls.calls]),
            ("runs", [_job(job) for job in worker._runs.values()]),
            ("dispatches", [_job(job) for jobs in worker._dispatches.values() for job in jobs.values()]),
            ("dispatches by link", [f"{list(numbers)} of link {link}" for link, numbers in worker._by_link.items()]),
            ("queues", [_job(job) for queue in worker._queues.values() for job in queue]),
            ("busy slots", [function for function, busy in worker._busy.items() if busy]),
            ("unsent answers", list(host.node.replies._rows)),
        ):
            if left:
                self._left(host, f"{what} {left[:5]}")

    def _links(self, host: NodeHost, *, closing: bool) -> None:
        """Check that no link is closing.

        With rings, a link that was needed only for calls may be closing at this moment; it has a timer until it is
        closed.
        """
        timers = host.node._timers._at
        left = [link for link in host.node.links.closing if not closing or (TimerKind.GOODBYE, link) not in timers]
        if left:
            self._left(host, f"links closing {left[:5]}")

    def _timers(self, host: NodeHost, *, closing: bool) -> None:
        links = host.node.links.sessions
        for key in host.node._timers._at:
            periodic = key[0] in _PERIODIC or (closing and key[0] == TimerKind.GOODBYE)
            if not periodic or (key[0] == TimerKind.PING and key[1] not in links):
                self._left(host, f"a timer {str(key[0])!r} of {', '.join(map(str, key[1:])) or 'the node'}")

    def _client(self, client: ClientHost) -> None:
        session = client.session
        timers = [key for key in session._timers._at if key[0] != TimerKind.PING]
        if session._pending or session._unsent or timers:
            names = [name_by_number(client.sim, client.name, number) for number in session._pending]
            raise Violation(15, f"{client.name} is left with {names}, unsent {session._unsent}, timers {timers}")

    def _left(self, host: NodeHost, text: str) -> None:
        raise Violation(15, f"{stamp(host)} is left with {text}")


def _in_progress(sim: World) -> bool:
    """Return whether a node has a request of its own process or of a JSON client, whose timeouts may end later."""
    for host in sim.nodes.values():
        for execution in host.node.coordinator.requests.values() if host.alive else ():
            session = host.node.links.sessions.get(execution.link)
            own_or_json = session is None or session.framing is Framing.CLASSIC_MESSAGES
            if own_or_json and host.local < execution.deadline + SECOND:
                return True
    return False


def _attempt(host: NodeHost, attempt: Attempt) -> str:
    """Return a dispatched call as text."""
    where = f"link {attempt.link}" if attempt.link else "itself"
    request = name_of_execution(host, attempt.execution)
    return f"{attempt.call!r} of {request} at {attempt.candidate.shown} over {where}"


def _job(job: Job) -> str:
    """Return a call of a worker as text."""
    state = "queued" if job.run is None else "running" if job.cancelled is None else "cancelled"
    return f"{job.call.name!r} ({job.call.function}, {state}) of dispatch {job.request} of link {job.link}"


def _open_there(host: NodeHost, link: LinkId) -> bool:
    """Return whether the other end of a link holds it too, with its handshake complete, and does not close it."""
    wire, side = host.wires[link]
    other = wire.ends[1 - side]
    if _is_half_open(wire, side) or not isinstance(other.host, NodeHost):
        return False
    session = other.host.node.links.sessions.get(other.link)
    return session is not None and session.member is not None and not session.closing


def _half_open(host: Host) -> list[LinkId]:
    """Return the half-open links of a host; of one that has ended none."""
    return [link for link, (wire, side) in host.wires.items() if _is_half_open(wire, side)] if host.alive else []


def _is_half_open(wire: Wire[Host], side: int) -> bool:
    """Return whether the other end has ended without a notification, or the connection has died without one."""
    other = wire.ends[1 - side]
    return wire.died is not None or other.life != other.host.life or not other.host.alive
