"""Part of invariant 12: what a node keeps in several tables agrees, table by table.

A machine keeps some facts twice to be fast: a heap beside the deadlines, counts beside the rows, the best link beside
all links. Here each of them is computed again, slowly, from the table that it was made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

from mpreg_proto.cluster.peer_links import PeerLink
from mpreg_proto.ids import Address, LinkId, MemberId, show
from mpreg_proto.limits import SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.timers import TimerKind
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.stability import Stability, correct
from mpreg_transports.testing.simulation.hosts import ClientHost, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_Key = TypeVar("_Key", bound=Hashable)
_Row = TypeVar("_Row", int, tuple[int, str])

_RECOVERED = 60 * SECOND
"""The time without faults after which a node no longer takes itself for slow."""


class TableConsistency(Watcher):
    """Invariant 12: the tables of timers, links, members, dials, calls and the backlog agree with each other."""

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)

    def node_event_handled(self, host: NodeHost) -> None:
        table = host.node.cluster._peer_links
        if len(table._by_link) > len(table._by_member):  # two links to one member, usually for a moment
            self._peer_links(host)
        if host.node.cluster._changes.loss_deferred:
            self._deferred_losses(host)

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive:
                self._deadlines(host)
                self._peer_links(host)
                self._view(host)
                self._suspicions(host)
                self._detector(host)
                self._dialer(host)
                self._offers(host)
                self._outstanding(host)
                self._worker(host)
                self._relay(host)
        for client in sim.clients.values():
            if client.alive:
                self._client(client)

    def settled(self, sim: World) -> None:
        if sim.now - self._stability.since() < _RECOVERED or not self._stability.prompt():
            return
        for host in correct(sim):
            cluster = host.node.cluster
            if (
                cluster.rings.neighbours and (factor := cluster._detector.health_multiplier) != 1
            ):  # alone, it probes none
                self._wrong(host, f"timeouts that are {factor} times as long, as if it were slow")

    def _deadlines(self, host: NodeHost) -> None:
        timers = host.node._timers
        first = min((at for at, _ in timers._at.values()), default=None)
        if timers.next() != first:
            self._wrong(host, f"{timers.next()} as its next deadline, which is {first}")

    def _peer_links(self, host: NodeHost) -> None:
        """Check that calls use the right one of several links to a member.

        That is the one dialled by the smaller id, and of two by the same side the later.
        """
        table = host.node.cluster._peer_links
        by_link = {one.link: one for links in table._by_member.values() for one in links}
        if by_link != table._by_link or not all(table._by_member.values()):
            self._wrong(host, f"links {list(table._by_link)} by number and {list(by_link)} by member")
        best: dict[MemberId, PeerLink] = {}
        for member, links in table._by_member.items():
            for one in links:
                if not one.closing and (member not in best or one.dialler <= best[member].dialler):
                    best[member] = one
        chosen = {member: one.link for member, one in best.items()}
        if chosen != table.preferred:
            self._wrong(host, f"links {_shown(table.preferred)} for its calls, which are {_shown(chosen)}")
        gone = [link for link in by_link if link not in host.node.links.sessions]
        if gone:
            self._wrong(host, f"links {gone} to members, which are gone")

    def _deferred_losses(self, host: NodeHost) -> None:
        members = host.node.cluster.members
        well = [one for one in host.node.cluster._changes.loss_deferred if members.routable(one)]
        if well:
            self._wrong(host, f"{_names(well)} as about to be lost, which are well")

    def _view(self, host: NodeHost) -> None:
        """Check that the rings have the routable members, and that a node that knows others compares its state."""
        cluster = host.node.cluster
        routable = [one.id for one in cluster.members.all() if one.routable and one.id != cluster.me]
        for name, table in (("its view", cluster._changes._routable), ("the rings", cluster.rings.ids())):
            others = sorted(one for one in table if one != cluster.me)
            if others != sorted(routable):
                self._wrong(host, f"{_names(others)} in {name}, and these are routable: {_names(routable)}")
        if routable and not cluster._dialer.stopped and (TimerKind.ANTI_ENTROPY,) not in host.node._timers:
            self._wrong(host, "other members and no time for the next comparison with one")

    def _suspicions(self, host: NodeHost) -> None:
        """Check that each suspect has a timeout, and that a node observes its neighbours alone."""
        cluster = host.node.cluster
        detector, timers = cluster._detector, host.node._timers
        if detector._stopped:
            return
        suspects = [one.id for one in cluster.members.all() if one.standing is Standing.SUSPECT]
        known = detector._suspicions.all()
        if sorted(suspects) != sorted(known):
            self._wrong(host, f"suspicions of {_names(known)}, and these are SUSPECT: {_names(suspects)}")
        for member in known:
            if (TimerKind.SUSPICION, member) not in timers:
                self._wrong(host, f"a suspicion of {show('', member)} without an end")
        ignored = [one for one in detector._suspicions.unobserved() if one in cluster.rings.neighbours]
        if ignored:
            self._wrong(host, f"suspects {_names(ignored)} among its neighbours that it does not observe")

    def _detector(self, host: NodeHost) -> None:
        cluster = host.node.cluster
        detector, near = cluster._detector, cluster.rings.neighbours
        if detector._stopped:
            return
        tables: dict[str, Mapping[MemberId, object]] = {
            "unlinked": detector._unlinked,
            "lost": detector._broken_since,
            "deferred": detector._deferred,
        }
        for name, table in tables.items():
            if strange := [member for member in table if member not in near]:
                self._wrong(host, f"{_names(strange)} as {name}, which are no neighbours")
        linked = [member for member in (*detector._unlinked, *detector._broken_since) if member in cluster.links]
        if linked:
            self._wrong(host, f"a link to {_names(linked)}, which it counts as not linked")
        for member in detector._displaced:
            if cluster.members.standing(member) is not Standing.SUSPECT:
                self._wrong(host, f"{show('', member)} as displaced, which is not SUSPECT")

    def _dialer(self, host: NodeHost) -> None:
        """Check that no address that is needed is forgotten, and that none counts as failing that has answered last."""
        dialer, timers, sessions = host.node.cluster._dialer, host.node._timers, host.node.links.sessions
        if dialer.stopped:
            return
        queued = Counter(address for waiting in dialer._waiting.values() for address in waiting)
        for address, row in dialer._rows.items():
            planned = (TimerKind.DIAL, address) in timers
            if planned != (row.due is not None):
                self._wrong(host, f"a dial of {address} that is due at {row.due}, and a timer: {planned}")
            if queued[address] + (address in dialer._dialling) > 1:
                self._wrong(host, f"{address} more than once among its dials")
            idle = not (planned or queued[address] or address in dialer._dialling)
            lonely = row.seed and dialer._too_few_links  # the next tick dials it
            if idle and dialer._needed(address) and not lonely:
                self._wrong(host, f"{address} that it needs and never dials again")
            if row.reached > row.tried and (row.failures or row.own_hits or row.silent or row.rare):
                self._wrong(host, f"{row.failures} failures of {address}, which has answered since")
        handshakes = {session.dialled for session in sessions.values() if session.member is None}
        for address in dialer._dialling:
            if (TimerKind.DIAL_TIMEOUT, address) not in timers and address not in handshakes:
                self._wrong(host, f"a dial of {address} without an end")
        self._interest(host)

    def _interest(self, host: NodeHost) -> None:
        """Check that an address is kept for the members that name it, and for no others."""
        dialer = host.node.cluster._dialer
        wanted: dict[Address, list[MemberId]] = {}
        for member, addresses in dialer._addresses.items():
            for address in addresses:
                wanted.setdefault(Address(address), []).append(member)
        for address, row in dialer._rows.items():
            if sorted(row.interested) != sorted(wanted.pop(address, [])):
                self._wrong(host, f"{address} for {_names(row.interested)}, which others name")
            if not row.interested and not row.seed:
                self._wrong(host, f"{address} for nobody")
        if wanted:
            self._wrong(host, f"addresses {list(wanted)} without a row")

    def _offers(self, host: NodeHost) -> None:
        """Check that the answers kept by the index are those of the catalogues."""
        cluster = host.node.cluster
        for (function, resources, version), kept in cluster.index._cache.items():
            found: list[tuple[MemberId, bool, bool, str]] = []
            for record in sorted(cluster.members.all(), key=lambda one: one.id):
                content = cluster.catalogue.content(record.id)
                entry = None if content is None or content.draining else content.functions.get(function)
                if content is None or entry is None or record.standing > Standing.SUSPECT:
                    continue
                held = {*content.resources, *entry.resources}
                if held.issuperset(resources) and version in (None, entry.version):
                    exact, suspect = held == {*resources}, record.standing is Standing.SUSPECT
                    found.append((record.id, exact, suspect, entry.version))
            answers = [(one.member, one.exact, one.suspect, one.version) for one in kept]
            if answers != found:
                self._wrong(host, f"{answers} as the offers of {function} with {resources}, which are {found}")

    def _outstanding(self, host: NodeHost) -> None:
        table = host.node.coordinator.outstanding
        by_link: dict[LinkId, list[int]] = {}
        by_member: dict[MemberId, list[tuple[int, str]]] = {}
        for number, calls in table._by_number.items():
            for name, attempt in calls.items():
                by_member.setdefault(attempt.candidate.member, []).append((number, name))
                if number not in by_link.setdefault(attempt.link, []):
                    by_link[attempt.link].append(number)
        if {link: sorted(numbers) for link, numbers in table._by_link.items()} != _sorted(by_link):
            self._wrong(host, "dispatches by link that differ from those by number")
        if _sorted({one: list(calls) for one, calls in table._by_member.items() if calls}) != _sorted(by_member):
            self._wrong(host, "dispatches by member that differ from those by number")
        cluster = host.node.cluster
        kept = (host.node.me, *cluster._changes.loss_deferred)
        for member in table._by_member:
            if member not in kept and not cluster.members.routable(member):
                self._wrong(host, f"a row of calls for {show('', member)}, which is gone")

    def _worker(self, host: NodeHost) -> None:
        worker = host.node.worker
        queued = [job for queue in worker._queues.values() for job in queue]
        busy = Counter(job.call.function for job in worker._runs.values())
        memory = sum(job.memory for job in worker._runs.values())
        if worker.queued != len(queued) or any(len(queue) != len(list(queue)) for queue in worker._queues.values()):
            self._wrong(host, f"{worker.queued} queued calls, which are {len(queued)}")
        if busy != Counter({name: count for name, count in worker._busy.items() if count}):
            self._wrong(host, f"slots taken by {worker._busy}, and {dict(busy)} run")
        if memory != worker._memory_used:
            self._wrong(host, f"{worker._memory_used} bytes of memory in use, which are {memory}")
        by_link: dict[LinkId, list[int]] = {}
        for link, number in worker._dispatches:
            by_link.setdefault(link, []).append(number)
        if _sorted(by_link) != _sorted({link: list(numbers) for link, numbers in worker._by_link.items()}):
            self._wrong(host, "dispatches by link that differ from those by number")
        for name, table in (("items", worker._generated), ("reports", worker._reports)):
            if gone := [run for run in table if run not in worker._runs]:
                self._wrong(host, f"{name} of runs {gone}, which have ended")

    def _relay(self, host: NodeHost) -> None:
        relay, sessions = host.node.relay, host.node.links.sessions
        rows = {origin: key for key, origin in relay._origins.items() if origin in relay._forwarded}
        if rows != relay._forwarded or relay._expires.keys() != relay._origins.keys():
            self._wrong(host, f"{len(relay._forwarded)} relayed dispatches and {len(rows)} ways back")
        gone = [link for link, keys in relay._by_link.items() if link not in sessions or not keys]
        if gone:
            self._wrong(host, f"relayed dispatches of links {gone}, which are gone")
        for link, number in relay._origins:
            if (link, number) not in relay._by_link.get(link, ()):
                self._wrong(host, f"the relayed dispatch {number} without its link {link}")

    def _client(self, client: ClientHost) -> None:
        session = client.session
        strange = [number for number in session._unsent if session._pending.get(number) is not session._unsent[number]]
        if strange:
            raise Violation(12, f"{client.name} still wants to send requests {strange}, which have ended")
        sent = [number for number in session._unsent if session._unsent[number].link is not None]
        if sent:
            raise Violation(12, f"{client.name} still wants to send requests {sent}, which were sent")

    def _wrong(self, host: NodeHost, text: str) -> NoReturn:
        raise Violation(12, f"{stamp(host)} has {text}")


def _names(members: Mapping[MemberId, object] | list[MemberId]) -> list[str]:
    return [show("", member) for member in members]


def _shown(links: Mapping[MemberId, LinkId]) -> dict[str, LinkId]:
    return {show("", member): link for member, link in links.items()}


def _sorted(table: Mapping[_Key, list[_Row]]) -> dict[_Key, list[_Row]]:
    return {key: sorted(rows) for key, rows in table.items()}
