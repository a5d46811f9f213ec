"""Part of invariant 13: the observers of every member are its neighbours on the five rings.

The oracle sorts all ids of a view by their places on each ring (docs/explanation/membership.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.ids import MemberId, show
from mpreg_proto.notices import Standing
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.stability import MESH
from mpreg_transports.testing.invariants.suspicion import RINGS, place
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World


class RingObservers(Watcher):
    """Invariant 13: `observers_of` a member, in the view or not, are its neighbours on the rings of the view."""

    def begin(self, sim: World) -> None:
        self._verified: dict[str, object] = {}
        """The table of each host that was right when it was last compared."""
        self._places: dict[MemberId, tuple[int, ...]] = {}

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive and self._verified.get(host.name) is not (now := sim.tables.members(host)):
                self._look(host)
                self._verified[host.name] = now

    def _look(self, host: NodeHost) -> None:
        records, rings = host.node.cluster.members.all(), host.node.cluster.rings
        view = dict.fromkeys(record.id for record in records if record.standing <= Standing.SUSPECT)
        view[host.node.me] = None
        orders = [sorted(view, key=lambda one, ring=ring: (self._place(one)[ring], one)) for ring in range(RINGS)]  # type: ignore[misc]
        neighbours: dict[MemberId, None] = {}
        for record in records:
            expected = self._neighbours(record.id, view, orders)
            found = sorted(rings.observers_of(record.id))
            if found != expected:
                names = [show("", one) for one in found], [show("", one) for one in expected]
                what = f"the observers of {show('', record.id)} as {names[0]}, which are {names[1]}"
                raise Violation(13, f"{stamp(host)} computes {what}")
            if record.id == host.node.me:
                neighbours = dict.fromkeys(expected)
        if sorted(rings.neighbours) != sorted(neighbours):
            names = [show("", one) for one in rings.neighbours], [show("", one) for one in neighbours]
            raise Violation(13, f"{stamp(host)} has {names[0]} as its neighbours, which are {names[1]}")

    def _neighbours(self, member: MemberId, view: dict[MemberId, None], orders: list[list[MemberId]]) -> list[MemberId]:
        """Return the members before and after `member` on each ring, all others in a small view, sorted."""
        others = [one for one in view if one != member]
        if len(others) < MESH - 1:
            return sorted(others)
        found: dict[MemberId, None] = {}
        for ring, order in enumerate(orders):
            mine = (self._place(member)[ring], member)
            rest = [one for one in order if one != member]
            after = next((one for one in rest if (self._place(one)[ring], one) > mine), rest[0])
            found[after] = found[rest[rest.index(after) - 1]] = None
        return sorted(found)

    def _place(self, member: MemberId) -> tuple[int, ...]:
        places = self._places.get(member)
        if places is None:
            places = self._places[member] = tuple(place(member, ring) for ring in range(RINGS))
        return places
