"""Parts of invariant 13: the failure detector and the rings (docs/explanation/membership.md).

Other watchers check that crashed members are found after the cluster has settled. This module checks that no member is
suspected without a reason, that a node that was stalled suspects no member because of its own stall, and that the links
of the rings are open.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from mpreg_proto.ids import MemberId, show
from mpreg_proto.notices import MemberChanged, Notice, Standing
from mpreg_transports.testing.invariants.known_gaps import SETTLED_AFTER
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.stability import MESH, Stability, components, correct
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_LONG = 2 * SECOND
"""The duration of a stall in which a node misses at least one tick of its own by more than half a second."""
RINGS = 5


class SuspicionAccuracy(Watcher):
    """Invariant 13: no member is marked SUSPECT or DEAD without a reason.

    A cluster without faults marks no member so. A node that was stalled for long marks no member so at the moment at
    which it continues.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._stability = Stability(sim)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is not MemberChanged or notice.standing not in (Standing.SUSPECT, Standing.DEAD):
            return
        if host.sim.now == host.stalled_until and self._alone(host, notice) and self._long(host):
            raise Violation(13, f"{stamp(host)} stood still and calls {_accusation(notice)} for it")
        if self._sim.now - self._stability.since() < SETTLED_AFTER or not self._stability.prompt():
            return
        for other in correct(self._sim):
            if other.node.me == notice.member:
                text = f"{stamp(host)} calls {_accusation(notice)}, and nothing was wrong for long"
                raise Violation(13, text, pair=(host.name, other.name))

    def _alone(self, host: NodeHost, notice: MemberChanged) -> bool:
        """Return whether this node is the only accuser of the member."""
        record = host.node.cluster.members.get(notice.member)
        return record is not None and record.standing is Standing.SUSPECT and record.accusers == (host.node.me,)

    def _long(self, host: NodeHost) -> bool:
        """Return whether the stall that ends now was long."""
        for action in reversed(self._sim.trace.script):
            if action.name == "stall" and action.args["name"] == host.name:
                return bool(action.args["seconds"] * SECOND >= _LONG)
        return False


class RingConnectivity(Watcher):
    """Invariant 13: after the cluster has settled, neighbours on the five rings are linked.

    The check finds the neighbours by sorting all ids.
    """

    def begin(self, sim: World) -> None:
        self._stability = Stability(sim)

    def settled(self, sim: World) -> None:
        stable_for = sim.now - self._stability.since()
        if stable_for < SETTLED_AFTER:
            return
        for component in components(correct(sim), stable_for=stable_for):
            if len(component) >= MESH:
                self._look(component)

    def _look(self, component: list[NodeHost]) -> None:
        hosts = {host.node.me: host for host in component}
        for ring in range(RINGS):
            order = sorted(hosts, key=lambda member: (place(member, ring), member))
            for one, other in zip(order, (*order[1:], order[0]), strict=True):
                if other not in hosts[one].node.cluster.links:
                    text = f"{stamp(hosts[one])} has no link to {stamp(hosts[other])}, its neighbour on ring {ring}"
                    raise Violation(13, text, pair=(hosts[one].name, hosts[other].name))


def _accusation(notice: MemberChanged) -> str:
    return f"{show(notice.name, notice.member)} {notice.standing.name}"


def place(member: MemberId, ring: int) -> int:
    """Return the position of a member on a ring."""
    return int.from_bytes(blake2b(member, digest_size=8 * RINGS).digest()[8 * ring : 8 * ring + 8], "big")
