"""A part of invariant 13: a crash in a calm cluster is known in time (P9 of docs/explanation/membership.md).

Other watchers check that the views are one 15 s after the faults, which leaves room for suspicion that is far too slow.
Here a cluster was calm before a single crash and is calm after it, so the bound is that of the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mpreg_proto.ids import MemberId, show
from mpreg_proto.notices import Standing
from mpreg_transports.testing.invariants.known_gaps import SETTLED_AFTER
from mpreg_transports.testing.invariants.oracles import cell, show_cell, stamp
from mpreg_transports.testing.invariants.stability import Stability, correct
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_CRASH = 8 * SECOND + SECOND // 2
"""The bound of P9, and half a second for gossip and clocks with a drift."""


class _Death(NamedTuple):
    """A crash, and the lives of the nodes that saw the member ALIVE before it."""

    at: int
    name: str
    member: MemberId
    witnesses: dict[str, int]


class FailureDetection(Watcher):
    """Invariant 13: a member that crashes in a calm cluster is DEAD within 8 s at every correct connected member.

    Only crashes 15 s after the last fault, with no fault after them, on links that are prompt.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._stability = Stability(sim)
        self._open: list[_Death] = []

    def crashed(self, host: NodeHost) -> None:
        now = self._sim.now
        calm = now - self._stability.before(now) >= SETTLED_AFTER
        if host.node.left or host.node.draining or not calm or not self._stability.prompt():
            return
        member = host.node.me
        witnesses = {
            other.name: other.life
            for other in correct(self._sim)
            if other is not host and cell(other.node.cluster.members, member)[1] == Standing.ALIVE
        }
        self._open.append(_Death(now, host.name, member, witnesses))

    def node_event_handled(self, host: NodeHost) -> None:
        if self._open and self._sim.now >= self._open[0].at + _CRASH:
            death = self._open.pop(0)
            if self._stability.last() <= death.at:
                self._check(death)

    def _check(self, death: _Death) -> None:
        for other in correct(self._sim):
            if death.witnesses.get(other.name) != other.life:
                continue
            seen = cell(other.node.cluster.members, death.member)
            if seen[1] in (Standing.ALIVE, Standing.SUSPECT):
                late = f"{(self._sim.now - death.at) / SECOND:.1f} s after its crash in a calm cluster"
                text = f"{stamp(other)} sees {show(death.name, death.member)} as {show_cell(seen)} {late}"
                raise Violation(13, text, pair=(other.name, death.name))
