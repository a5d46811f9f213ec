"""The parts of the cluster machine, put together; each has one idea and a module of its own.

`Cluster` gives them inputs and `Changes` follows up what they find; they read each other only as this page shows.
"""

from __future__ import annotations

from collections.abc import Callable

from mpreg_proto.cluster.catalogue import Catalogue
from mpreg_proto.cluster.detector import Detector
from mpreg_proto.cluster.gossip import Gossip
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.linked import Linked
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.cluster.overlay import Overlay
from mpreg_proto.cluster.repair import Repair
from mpreg_proto.cluster.rings import Rings
from mpreg_proto.cluster.routes import Routes
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers


class Parts:
    """What is known (`members`, `catalogue`), what follows from it (`index`, `rings`, `routes`), which links stand
    (`linked`), and who acts on it: `gossip` tells, `repair` compares, `overlay` dials, `detector` doubts.
    """

    def __init__(
        self,
        me: MemberId,
        card: Card,
        *,
        seeds: tuple[Address, ...],
        timers: Timers,
        rng: Rng,
        limits: Limits,
        now: int,
        heard: Callable[[LinkId], int],
    ) -> None:
        """`heard`: when a link last brought any byte, in nanoseconds."""
        self.members = Members(me, card, limits=limits, now=now)
        self.catalogue = Catalogue(me, limits=limits)
        self.index = Index(self.members, self.catalogue)
        self.rings = Rings(me)
        self.linked = Linked()
        self.links = self.linked.best
        """The link that calls for a member go over."""
        self.routes = Routes(self.rings, self.links)
        self.gossip = Gossip(self.members, self.catalogue, self.links, rings=self.rings, timers=timers)
        self.repair = Repair(self.members, self.catalogue)
        self.overlay = Overlay(self.members, self.rings, self.links, seeds=seeds, timers=timers, rng=rng, limits=limits)
        self.overlay.mine(*map(Address, card.addresses))
        self.detector = Detector(
            self.members,
            self.rings,
            self.overlay,
            self.links,
            heard=heard,
            timers=timers,
            rng=rng.child("detector"),
            closing=self.linked.closing,
        )

    def changed(self) -> None:
        """Members or catalogues are other than they were: what was derived from them is no longer true."""
        self.index.changed()
        self.routes.changed()
        self.repair.buckets.touch()
