"""Part of invariant 4: the hashes by which nodes compare their state differ whenever the state does.

The oracle knows nothing of how a hash is computed: it compares the hashes of all views that a run has had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_Row = tuple[bytes, int, int, bool, int, int]
"""A member, its cell, whether its card is known, and the version and hash of its catalogue."""


class BucketDigests(Watcher):
    """Invariant 4: two views have the same bucket hashes exactly if they agree in cells, cards and catalogues."""

    def begin(self, sim: World) -> None:
        self._hashes: dict[frozenset[_Row], bytes] = {}
        self._views: dict[bytes, frozenset[_Row]] = {}
        self._verified: dict[str, tuple[object, object]] = {}
        """The tables of each host that were right when they were last compared."""

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive:
                now = sim.tables.members(host), sim.tables.catalogues(host)
                before = self._verified.get(host.name)
                if before is None or before[0] is not now[0] or before[1] is not now[1]:
                    self._look(host)
                    self._verified[host.name] = now

    def _look(self, host: NodeHost) -> None:
        view, hashes = _view(host), host.node.cluster._anti_entropy.buckets.hashes()
        if self._hashes.setdefault(view, hashes) != hashes:
            raise Violation(4, f"{stamp(host)} has other bucket hashes than an earlier view with the same content")
        other = self._views.setdefault(hashes, view)
        if other != view:
            rows = sorted(view ^ other)
            raise Violation(4, f"{stamp(host)} has the bucket hashes of another view: {rows[:4]}")


def _view(host: NodeHost) -> frozenset[_Row]:
    cluster = host.node.cluster
    rows: list[_Row] = []
    for record in cluster.members.all():
        content = cluster.catalogue.content(record.id)
        known = record.card_incarnation == record.incarnation
        version, total = (0, 0) if content is None else (content.version, content.hash)
        rows.append((record.id, record.incarnation, int(record.standing), known, version, total))
    return frozenset(rows)
