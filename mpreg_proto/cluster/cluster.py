"""The cluster as one machine: who is there, what they offer, which links should be.

`Node` gives in handshakes, ends of links, messages of the kinds News, Digest and Fetch, due timers, and what its
own process offers; out come the things of outputs.py: messages to send, addresses to dial, and what became true,
such as a link to call over, a member gone, offers that changed. It composes members, catalogue, index, gossip,
overlay and detector, and decides itself only which of several links to one member is kept. It knows no bytes,
requests or clock.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec
from mpreg_proto.cluster.detector import Detector
from mpreg_proto.cluster.gossip import Gossip
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.outputs import CloseLink, Gone, MemberRow, OffersChanged, Out, TakeNewId, Tell, Usable
from mpreg_proto.cluster.overlay import YIELD, Overlay
from mpreg_proto.effects import Notify
from mpreg_proto.ids import Address, LinkId, MemberId, show
from mpreg_proto.limits import Limits
from mpreg_proto.notices import CatalogueChanged, MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, Timers
from mpreg_proto.wire.messages import Delta, Digest, Fetch, News

__all__ = [
    "CloseLink",
    "Cluster",
    "Gone",
    "MemberRow",
    "OffersChanged",
    "Out",
    "TakeNewId",
    "Tell",
    "Usable",
]


class _Link:
    """An open link to a node."""

    __slots__ = ("closing", "dialler", "link", "member", "name", "told_all")

    def __init__(self, link: LinkId, member: MemberId, name: str, *, dialler: MemberId) -> None:
        self.link = link
        self.member = member
        self.name = name
        self.dialler = dialler
        self.closing = False
        """One side said Goodbye, or is about to: nothing new goes over it."""
        self.told_all = False
        """The peer's digest has come, so its next news makes this node know what the peer knows."""


class Cluster:
    """See the module. Inputs take `now` (nanoseconds), run to completion, and never raise for what a peer did."""

    def __init__(
        self,
        me: MemberId,
        *,
        name: str,
        addresses: tuple[Address, ...],
        seeds: tuple[Address, ...],
        resources: tuple[str, ...],
        timers: Timers,
        rng: Rng,
        limits: Limits,
        now: int,
        release: str = "",
    ) -> None:
        self.me = me
        self.links: dict[MemberId, LinkId] = {}
        """The link that calls for a member go over; read it, don't write."""
        self.members = Members(me, Card(name, addresses, release=release), limits=limits, now=now)
        self.catalogue = Catalogue(me, limits=limits)
        self.index = Index(self.members, self.catalogue)
        self._timers = timers
        self._gossip = Gossip(self.members, self.catalogue, self.links)
        self._overlay = Overlay(self.members, self.links, seeds=seeds, timers=timers, rng=rng, limits=limits)
        self._detector = Detector(self.members, self._overlay, self.links, timers=timers)
        self._links: dict[LinkId, _Link] = {}
        self._by_member: dict[MemberId, list[_Link]] = {}
        self._up: dict[MemberId, None] = {}
        """Who is known to be routable, myself left out: each is `Gone` once."""
        self._going: dict[MemberId, None] = {}
        """Who has left and still has a link here: `Gone` when that closes, as its last results may be on the way there
        while the news of it came faster over another."""
        self._synced = False
        self._said_disowned = False
        self._collection: int | None = None
        for address in addresses:
            self._overlay.mine(address)
        if resources:
            self.catalogue.hold(resources)

    def start(self, now: int) -> list[Out]:
        """Dial the seeds."""
        return [*self._overlay.start(now)]

    # -- links ----------------------------------------------------------------------------------------------------

    def linked(self, link: LinkId, member: MemberId, name: str, *, dialled: Address | None, now: int) -> list[Out]:
        """A handshake with a node is done. `dialled`: the address this side dialled, None if the other side did.

        Of two links to one member the one dialled by the smaller id is kept, of two by the same side the later; the
        other is closed by its dialler alone, so that both sides agree without asking.
        """
        if member == self.me:
            return [] if dialled is None else self.met_myself(dialled, now)
        made = _Link(link, member, name, dialler=member if dialled is None else self.me)
        self._links[link] = made
        self._by_member.setdefault(member, []).append(made)
        out = self._choose(member)
        for other in self._by_member[member]:
            if not other.closing and other.dialler == self.me and self.links[member] != other.link:
                other.closing = True
                out.append(CloseLink(other.link, "duplicate"))
        out += [] if made.closing else self._gossip.greet(link)
        self._detector.linked(member)
        if dialled is not None:
            displaced, effects = self._overlay.reached(dialled, member, now)
            out += effects
            if displaced is not None:
                out += self._rose(self._detector.displaced(displaced, now), source=None, now=now)
        self._overlay.linked(member)
        return out

    def goodbye(self, link: LinkId, now: int) -> list[Out]:
        """The peer said Goodbye on a link: calls go over another one, if there is one."""
        made = self._links.get(link)
        if made is None:
            return []
        made.closing = True
        return self._choose(made.member)

    def unlinked(self, link: LinkId, *, clean: bool, now: int) -> list[Out]:
        """A link is closed; `clean` if a Goodbye of either side came before. Unknown links are ignored."""
        made = self._links.pop(link, None)
        if made is None:
            return []
        member = made.member
        rest = self._by_member[member]
        rest.remove(made)
        if not rest:
            del self._by_member[member]
        out = self._choose(member)
        if not rest and member in self._going:
            del self._going[member]
            out.append(Gone(member))
        out += self._gossip.ended(link)
        if member in self.links or self._overlay.stopped:
            return out
        if clean or rest:
            self._detector.parted(member, now)
            return [*out, *self._overlay.lost(member, now, pause=0 if self.me < member else YIELD)]
        out += self._rose(self._detector.lost(member, now), source=None, now=now)
        return [*out, *self._overlay.lost(member, now)]

    def dial_failed(self, address: Address, now: int) -> list[Out]:
        """A dial ended without a handshake: refused, silent, another cluster, or closed before its hello came."""
        out: list[Out] = [*self._overlay.failed(address, now)]
        return out + self._rose(self._detector.failed(address, now), source=None, now=now)

    def met_myself(self, address: Address | None, now: int) -> list[Out]:
        """A handshake showed this process's own id; `address` is what was dialled, None on the side that accepted."""
        return [] if address is None else [*self._overlay.met_myself(address, now)]

    def want_link(self, member: MemberId, now: int) -> list[Out]:
        """A call waits for a link to that member: dial now, if nothing is under way."""
        return [*self._overlay.want(member, now)]

    def _choose(self, member: MemberId) -> list[Out]:
        """Let calls go over the best link that is not closing. Says so if that is another one than before."""
        best: _Link | None = None
        for made in self._by_member.get(member, ()):
            if not made.closing and (best is None or made.dialler <= best.dialler):
                best = made
        if best is None:
            self.links.pop(member, None)
            return []
        if self.links.get(member) == best.link:
            return []
        self.links[member] = best.link
        return [Usable(member, best.link)]

    # -- messages -------------------------------------------------------------------------------------------------

    def received(self, link: LinkId, message: News | Digest | Fetch, now: int) -> list[Out]:
        """A message about the cluster came in. One of an unknown link is ignored."""
        made = self._links.get(link)
        if made is None:
            return []
        if isinstance(message, Fetch):
            return [*self._gossip.answer_fetch(link, message)]
        if isinstance(message, Digest):
            made.told_all = True
            # On a link that closes as a duplicate nothing: the digests go over the one that is kept.
            return [] if made.closing else [*self._gossip.answer_digest(link, message)]
        if made.told_all and not self._synced:
            self._synced = self._overlay.sees_seed(made.member)
        return self._news(link, message, now)

    def _news(self, link: LinkId, news: News, now: int) -> list[Out]:
        risen = self.members.merge(news.claims, now)
        out = self._rose(risen, source=link, now=now)
        changed = False
        for delta in news.deltas:
            applied, tells = self._gossip.learn(link, delta)
            out += tells
            changed = changed or applied in (Applied.YES, Applied.MISMATCH)
            if applied is Applied.YES:
                member = MemberId(delta.head.member)
                notice = CatalogueChanged(member, self._name(member), delta.head.version)
                out.append(Notify(notice))
        for head in news.heads:
            out += self._gossip.heard(link, head)
        for held in risen:
            if held.routable and held.id != self.me:
                out += self._gossip.revived(held.id, link)
        if changed:
            self.index.changed()
            out.append(OffersChanged())
        return out

    def _rose(self, risen: Iterable[Member], *, source: LinkId | None, now: int) -> list[Out]:
        """What follows from members that rose: news to others, dials, and what is no longer or again there."""
        waiting = list(risen)
        out: list[Out] = [*self._gossip.claims(waiting, source=source)]
        changed = False
        while waiting:
            member = waiting.pop(0)
            out.append(Notify(MemberChanged(member.id, member.name, member.standing, member.incarnation)))
            more = self._detector.heard(member, now)
            out += self._gossip.claims(more, source=None)
            waiting += more
            self._overlay.learn(member, now)
            changed = True
            if member.id == self.me:
                continue
            if member.routable and member.id not in self._up:
                self._up[member.id] = None
                self._going.pop(member.id, None)
                link = self.links.get(member.id)
                out += [] if link is None else [Usable(member.id, link)]
            elif not member.routable and member.id in self._up:
                del self._up[member.id]
                self._gossip.gone(member.id)
                if member.standing is Standing.LEFT and member.id in self._by_member:
                    self._going[member.id] = None
                else:
                    out.append(Gone(member.id))
        if changed:
            self.index.changed()
            out.append(OffersChanged())
        return out + self._tidy()

    def _tidy(self) -> list[Out]:
        """After members may have changed: forget who was evicted, set the time of the next collection."""
        for member in self.members.evicted:
            self._overlay.forget(member)
        self.members.evicted.clear()
        due = self.members.next_collection()
        if due != self._collection:
            self._collection = due
            if due is None:
                self._timers.cancel(("cluster", "collect"))
            else:
                self._timers.set(("cluster", "collect"), due)
        if self.members.disowned and not self._said_disowned:
            self._said_disowned = True
            return [TakeNewId()]
        return []

    # -- time -----------------------------------------------------------------------------------------------------

    def wake(self, key: Key, now: int) -> list[Out]:
        """A key of `timers` that starts with "cluster" came due."""
        if key[1] == "dial":
            return [*self._overlay.wake(key, now)]
        if key[1] == "verdict":
            return self._rose(self._detector.wake(key, now), source=None, now=now)
        self._collection = None
        for member in self.members.collect(now):
            self._overlay.forget(member.id)
        return self._tidy()

    # -- this process ---------------------------------------------------------------------------------------------

    def offer(self, spec: FunctionSpec, now: int) -> list[Out]:
        """Offer a function, in place of an earlier one of that name.

        Raises LocalProtocolError (1014) beyond a limit; nothing has changed then.
        """
        return self._told(self.catalogue.offer(spec))

    def withdraw(self, name: str, now: int) -> list[Out]:
        """Offer a function no longer. Raises LocalProtocolError if it is not offered; nothing has changed then."""
        return self._told(self.catalogue.withdraw(name))

    def hold(self, resources: Iterable[str], now: int) -> list[Out]:
        """The node's own resources are now these. Raises LocalProtocolError (1014) beyond a limit."""
        return self._told(self.catalogue.hold(resources))

    def drain(self, now: int) -> list[Out]:
        """Say that this node takes no new calls."""
        return self._told(self.catalogue.drain())

    def advertise(self, addresses: tuple[Address, ...], now: int) -> list[Out]:
        """This node can be dialled at these addresses, and no longer at others."""
        for address in addresses:
            self._overlay.mine(address)
        own = self.members.own
        if own.card is None or own.addresses == addresses:
            return []
        card = msgspec.structs.replace(own.card, addresses=addresses)
        return self._rose([self.members.announce(card, now)], source=None, now=now)

    def leave(self, now: int) -> list[Out]:
        """Say LEFT to all; from now on nobody is dialled or judged."""
        out = self._rose([self.members.leave(now)], source=None, now=now)
        self._overlay.stop()
        self._detector.stop()
        return out

    def _told(self, delta: Delta) -> list[Out]:
        self.index.changed()
        return [*self._gossip.grown(delta, source=None), OffersChanged()]

    # -- for people -----------------------------------------------------------------------------------------------

    def synced(self) -> bool:
        """Whether digests have been exchanged with one seed, or there is none to ask."""
        return self._synced or self._overlay.seedless

    def shown(self, member: MemberId) -> str:
        """A member as people see it; before its card is there by the name that it gave in the handshake."""
        return show(self._name(member), member)

    def people(self) -> tuple[MemberRow, ...]:
        """Everybody but the RETIRED, by name and id."""
        rows = []
        for member in self.members.all():
            content = self.catalogue.content(member.id)
            rows.append(
                MemberRow(
                    id=member.id.hex(),
                    shown=self.shown(member.id),
                    name=self._name(member.id),
                    standing=member.standing.name.lower(),
                    incarnation=member.incarnation,
                    since=member.since,
                    addresses=member.addresses,
                    version=self.catalogue.version(member.id),
                    linked=member.id in self.links,
                    functions=0 if content is None else len(content.functions),
                    resources=() if content is None else content.resources,
                )
            )
        return tuple(sorted(rows, key=lambda row: (row.name, row.id)))

    def _name(self, member: MemberId) -> str:
        held = self.members.get(member)
        if held is not None and held.card is not None:
            return held.name
        return next((made.name for made in self._by_member.get(member, ())), "")
