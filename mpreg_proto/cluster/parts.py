"""The parts of the cluster machine, put together; each has one idea and a module of its own.

`Cluster` gives them inputs and `Changes` follows up what they find; they read each other only as this page shows.
"""

from __future__ import annotations

from collections.abc import Callable

from mpreg_proto.cluster.anti_entropy import AntiEntropy
from mpreg_proto.cluster.catalogue import Catalogue
from mpreg_proto.cluster.detector import Detector
from mpreg_proto.cluster.dialer import Dialer
from mpreg_proto.cluster.gossip import Disseminator
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.cluster.peer_links import PeerLinks
from mpreg_proto.cluster.routes import Routes
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers


class Parts:
    """What is known (`members`, `catalogue`), what follows from it (`index`, `rings`, `routes`), which links stand
    (`peer_links`), and who acts on it: `gossip` tells, `anti_entropy` compares, `dialer` dials, `detector` doubts.
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
        last_received: Callable[[LinkId], int],
    ) -> None:
        """`last_received`: when a link last brought any byte, in nanoseconds."""
        self.members = Members(me, card, limits=limits, now=now)
        self.catalogue = Catalogue(me, limits=limits)
        self.index = Index(self.members, self.catalogue)
        self.rings = Rings(me)
        self.peer_links = PeerLinks()
        self.links = self.peer_links.preferred
        """The link that calls for a member go over."""
        self.routes = Routes(self.rings, self.links)
        self.gossip = Disseminator(self.members, self.catalogue, self.links, rings=self.rings, timers=timers)
        self.anti_entropy = AntiEntropy(self.members, self.catalogue)
        self.dialer = Dialer(self.members, self.rings, self.links, seeds=seeds, timers=timers, rng=rng, limits=limits)
        self.dialer.set_own_addresses(*map(Address, card.addresses))
        self.detector = Detector(
            self.members,
            self.rings,
            self.dialer,
            self.links,
            last_received=last_received,
            timers=timers,
            rng=rng.child("detector"),
            closing=self.peer_links.closing,
        )

    def changed(self) -> None:
        """Members or catalogues are other than they were: what was derived from them is no longer true."""
        self.index.changed()
        self.routes.changed()
        self.anti_entropy.buckets.invalidate()
