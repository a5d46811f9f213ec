"""The cluster as one machine: who is there, what they offer, which links should be.

Inputs are handshakes, ends of links, messages about members, timers, and what this process offers. Outputs are the
actions of actions.py: messages to send, addresses to dial, and facts, such as a link to call over, a member lost,
offers that changed. `Parts` holds the machines that it is made of; they read each other only as that class shows.
`Changes` follows up what they find: a finding may lead to another, so it runs until nothing is left to follow, and each
member is `LinkSelected` or `MemberLost` in turn, never twice the same. It knows no bytes, requests or clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mpreg_proto.cluster.actions import (
    AbandonLink,
    CloseIfIdle,
    CloseLink,
    ClusterOutput,
    IdRetired,
    LinkSelected,
    MemberLost,
    OffersChanged,
    SendMessage,
)
from mpreg_proto.cluster.anti_entropy import AntiEntropy
from mpreg_proto.cluster.catalogue import LAST_VERSION, Applied, Catalogue, FunctionSpec
from mpreg_proto.cluster.detector import Detector, Findings
from mpreg_proto.cluster.dialer import YIELD_DELAY, Dialer
from mpreg_proto.cluster.gossip import Disseminator
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.peer_links import PeerLink, PeerLinks
from mpreg_proto.cluster.topology import Rings, Routes
from mpreg_proto.effects import Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import CardsDiffer, CatalogueChanged, MemberChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, TimerKind, Timers
from mpreg_proto.wire.messages import (
    BucketHashes,
    Delta,
    DialBack,
    Digest,
    Fetch,
    GoodbyeReason,
    Gossip,
    Head,
    IndirectAck,
    PingReq,
    Pull,
)

TICK = SECOND
REFUTE_TIMEOUT = SECOND
"""How long a linked member that others call DEAD may take to say that it is not, before its calls are lost."""


class Parts:
    """What is known (`members`, `catalogue`), what follows from it (`index`, `rings`, `routes`), which links stand
    (`peer_links`), and what acts on it: `gossip`, `anti_entropy`, `dialer` and `detector`.
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
        last_activity: Callable[[LinkId], int],
    ) -> None:
        """`last_activity`: when a link last moved a byte, either way, in nanoseconds."""
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
            last_activity=last_activity,
            timers=timers,
            rng=rng.child("detector"),
            closing=self.peer_links.closing,
        )

    def changed(self) -> None:
        """Members or catalogues are other than they were: what was derived from them is no longer true."""
        self.index.changed()
        self.routes.changed()
        self.anti_entropy.buckets.invalidate()


class Changes:
    """Follow up findings until none is left. Timers that it sets: TICK, ANTI_ENTROPY, COLLECT, MEMBER_LOST (member)."""

    def __init__(self, parts: Parts, *, timers: Timers, rng: Rng, limits: Limits) -> None:
        self._parts = parts
        self._members = parts.members
        self._rings = parts.rings
        self._links = parts.links
        self._peer_links = parts.peer_links
        self._gossip = parts.gossip
        self._dialer = parts.dialer
        self._detector = parts.detector
        self._timers = timers
        self._rng = rng
        self._limits = limits
        self._routable: dict[MemberId, None] = {}
        """Who is known to be routable, myself left out: each is `MemberLost` once."""
        self.loss_deferred: dict[MemberId, None] = {}
        """Who is gone by the word of others and still has a link here: `MemberLost` when that closes, as its last
        results may be on the way there while gossip of it came faster over another; who is DEAD also when it does not
        refute."""
        self._seen_changes = 0
        self._id_retired_sent = False
        self._collection: int | None = None

    def follow_up(self, findings: Findings, now: int) -> list[ClusterOutput]:
        """What the detector wants done, and what follows from the members that it declared something of."""
        out: list[ClusterOutput] = [*findings.actions]
        return out + self.members_changed(findings.declared, source=None, now=now) if findings.declared else out

    def members_changed(self, raised: Iterable[Member], *, source: LinkId | None, now: int) -> list[ClusterOutput]:
        """What follows from members that rose: gossip to others, dials, and what is no longer or again there."""
        waiting = list(raised)
        if not waiting:
            return self.housekeeping()
        self._gossip.members_changed(waiting, source=source)
        out: list[ClusterOutput] = []
        concerned: dict[MemberId, None] = {}
        functions: dict[str, None] = {}
        while waiting:
            member = waiting.pop(0)
            concerned[member.id] = None
            if member.routable and member.id not in self._routable:
                functions.update(dict.fromkeys(self._parts.index.offered_by(member.id)))
            out.append(Notify(MemberChanged(member.id, member.name, member.standing, member.incarnation)))
            if member.id == self._members.me:
                if source is not None:
                    self._detector.refuted()
                continue
            out += self._update_view(member, source, now)
            findings = self._detector.member_changed(member, now)
            out += findings.actions
            for declared in findings.declared:
                waiting.append(declared)
                self._gossip.members_changed([declared], source=None)
            self._dialer.member_changed(member, now)
        self._parts.changed()
        return [
            *out,
            *self._update_neighbours(now),
            OffersChanged(tuple(functions), tuple(concerned)),
            *self.housekeeping(),
            *self._gossip.flush(now),
        ]

    def _update_view(self, member: Member, source: LinkId | None, now: int) -> list[ClusterOutput]:
        """A member is in the view, or is no longer."""
        if member.routable and member.id not in self._routable:
            link = self._links.get(member.id)
            self._routable[member.id] = None
            self.report_lost(member.id)
            self._rings.enter(member.id)
            self.begin_ticking(now)
            self._begin_anti_entropy(now)
            return [] if link is None else [LinkSelected(member.id, link)]
        if not member.routable and member.id in self._routable:
            del self._routable[member.id]
            self._rings.depart(member.id)
            self._gossip.forget(member.id)
            if source is None or not self._peer_links.to_member(member.id) or member.standing is Standing.RETIRED:
                return [MemberLost(member.id)]
            self.loss_deferred[member.id] = None
            if member.standing is Standing.DEAD:
                # Who is linked can refute in no time, as they all do when a partition heals.
                self._timers.set((TimerKind.MEMBER_LOST, member.id), now + REFUTE_TIMEOUT)
        return []

    def report_lost(self, member: MemberId) -> list[ClusterOutput]:
        """What was put off, if it was."""
        if member not in self.loss_deferred:
            return []
        del self.loss_deferred[member]
        self._timers.cancel((TimerKind.MEMBER_LOST, member))
        return [MemberLost(member)]

    def begin_ticking(self, now: int) -> None:
        """There is something to do now and then; and a tick that comes late is all that tells of standing still."""
        if (TimerKind.TICK,) not in self._timers and not self._dialer.stopped:
            # Whoever starts at the same moment shall not probe at the same moment for ever.
            first = now + int(TICK * (1 + self._rng.fraction()) / 2)
            self._timers.set((TimerKind.TICK,), first)
            self._detector.begin(first)

    def _begin_anti_entropy(self, now: int) -> None:
        """Somebody is there to compare with from now on."""
        if (TimerKind.ANTI_ENTROPY,) not in self._timers and not self._dialer.stopped:
            delay = int(self._limits.gossip_interval * (1 + self._rng.fraction()) / 2)
            self._timers.set((TimerKind.ANTI_ENTROPY,), now + delay)

    def _update_neighbours(self, now: int) -> list[ClusterOutput]:
        if self._rings.changes == self._seen_changes:
            return []
        self._seen_changes = self._rings.changes
        self._dialer.neighbours_changed(now)
        return self.follow_up(self._detector.neighbours_changed(now), now)

    def housekeeping(self) -> list[ClusterOutput]:
        """After members may have changed: forget who was evicted, set the time of the next collection."""
        for member in self._members.drain_evicted():
            self._dialer.forget(member)
        due = self._members.next_collection()
        if due != self._collection:
            self._collection = due
            if due is None:
                self._timers.cancel((TimerKind.COLLECT,))
            else:
                self._timers.set((TimerKind.COLLECT,), due)
        out: list[ClusterOutput] = []
        for member in self._members.drain_card_conflicts():
            current = self._members.get(member)
            out.append(Notify(CardsDiffer(member, "" if current is None else current.name)))
        if self._members.id_retired and not self._id_retired_sent:
            self._id_retired_sent = True
            out.append(IdRetired())
        return out

    def collect(self, now: int) -> list[ClusterOutput]:
        """Time to retire the long dead, and to forget the long retired."""
        self._collection = None
        for retired in self._members.collect(now):
            self._dialer.forget(retired.id)
        self._parts.anti_entropy.buckets.invalidate()
        return self.housekeeping()


ClusterMessage = Gossip | Digest | Fetch | BucketHashes | Pull | DialBack | PingReq | IndirectAck
"""What nodes say to each other about members."""
_HOUSEKEEPING = 5
"""Every so many ticks links are looked through: too few, or some that nobody needs."""


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
        last_activity: Callable[[LinkId], int] | None = None,
    ) -> None:
        """`last_activity`: when a link last moved a byte, either way; by default, when it brought a message."""
        self.me = me
        self._limits = limits
        self._timers = timers
        self._rng = rng
        self._last_activity: dict[LinkId, int] = {}
        card, received = Card(name, addresses), last_activity or self._last_activity_at
        parts = Parts(me, card, seeds=seeds, timers=timers, rng=rng, limits=limits, now=now, last_activity=received)
        self.members = parts.members
        self.catalogue = parts.catalogue
        self.index = parts.index
        self.rings = parts.rings
        self.routes = parts.routes
        self.links = parts.links
        """The link that calls for a member go over; read it, don't write."""
        self._parts = parts
        self._peer_links = parts.peer_links
        self._gossip = parts.gossip
        self._anti_entropy = parts.anti_entropy
        self._dialer = parts.dialer
        self._detector = parts.detector
        self._changes = Changes(parts, timers=timers, rng=rng, limits=limits)
        self._ticks = 0
        self._synced = False
        if resources:
            self.catalogue.set_resources(resources)

    def start(self, now: int) -> list[ClusterOutput]:
        """Dial the seeds."""
        if self._dialer.seeds:
            self._changes.begin_ticking(now)
        return [*self._dialer.start(now)]

    # -- links ----------------------------------------------------------------------------------------------------

    def link_established(
        self, link: LinkId, member: MemberId, name: str, *, dialled: Address | None, now: int
    ) -> list[ClusterOutput]:
        """A handshake with a node is done. `dialled`: the address this side dialled, None if the other side did."""
        if member == self.me:
            return [] if dialled is None else self.reached_self(dialled, now)
        peer_link = PeerLink(link, member, name, dialler=member if dialled is None else self.me)
        self._last_activity[link] = now
        self.routes.changed()
        self._changes.begin_ticking(now)  # whoever stands still from now on shall know it, though it knows nobody yet
        out: list[ClusterOutput] = [*self._peer_links.add(peer_link)]
        for other in self._peer_links.to_member(member):
            if not other.closing and other.dialler == self.me and self.links[member] != other.link:
                other.closing = True
                out.append(CloseLink(other.link, GoodbyeReason.DUPLICATE))
        if not peer_link.closing:
            # Who dialled says who it is and compares what both know; a suspect is told at once what is said of it.
            out += (
                [*self._anti_entropy.introduce(link), *self._anti_entropy.compare(link)] if dialled is not None else []
            )
            current = self.members.get(member)
            if current is not None and current.standing in (Standing.SUSPECT, Standing.DEAD):
                out.append(SendMessage(link, Gossip((current.claim(),))))
        out += self._detector.link_established(member)
        if dialled is not None:
            displaced, effects = self._dialer.dial_succeeded(dialled, member, now)
            out += effects
            if displaced is not None:
                out += self._changes.follow_up(self._detector.displaced(displaced, now), now)
        self._dialer.link_established(member)
        return out

    def goodbye_received(self, link: LinkId, now: int) -> list[ClusterOutput]:
        """The peer said Goodbye on a link: calls go over another one, if there is one."""
        return self.start_closing(link)

    def link_closed(self, link: LinkId, *, clean: bool, now: int) -> list[ClusterOutput]:
        """A link is closed; `clean` if a Goodbye of either side came before. Unknown links are ignored."""
        peer_link = self._peer_links.remove(link)
        if peer_link is None:
            return []
        member = peer_link.member
        self._last_activity.pop(link, None)
        self.routes.changed()
        out: list[ClusterOutput] = [*self._peer_links.choose(member)]
        if not self._peer_links.to_member(member):
            out += self._changes.report_lost(member)
        out += self._gossip.link_closed(link)
        if member in self.links or self._dialer.stopped:
            return out
        if clean:
            self._detector.link_closed(member, now)
            return [*out, *self._dialer.link_lost(member, now, pause=0 if self.me < member else YIELD_DELAY)]
        out += self._changes.follow_up(self._detector.link_lost(member, now), now)
        return [*out, *self._dialer.link_lost(member, now)]

    def dial_failed(self, address: Address, now: int) -> list[ClusterOutput]:
        """A dial ended without a handshake: refused, silent, another cluster, or closed before its hello came."""
        members = self._dialer.dialled_for(address)
        return self._dial_ended(address, members, [*self._dialer.dial_failed(address, now)], now)

    def _dial_ended(
        self, address: Address, members: list[MemberId], out: list[ClusterOutput], now: int
    ) -> list[ClusterOutput]:
        """No link came of a dial; those whom it was for may dial me."""
        out += self._changes.follow_up(self._detector.dial_failed(address, now), now)
        for member in members:
            out += self._request_dial_back(member, now)
        return out

    def reached_self(self, address: Address | None, now: int) -> list[ClusterOutput]:
        """A handshake showed this process's own id; `address` is what was dialled, None on the side that accepted."""
        if address is None:
            return []
        members = self._dialer.dialled_for(address)
        return self._dial_ended(address, members, [*self._dialer.reached_self(address, now)], now)

    def connect(self, member: MemberId, now: int) -> list[ClusterOutput]:
        """A call waits for a link to that member: dial now, if nothing is under way."""
        return [*self._dialer.connect(member, now), *self._request_dial_back(member, now)]

    def start_closing(self, link: LinkId) -> list[ClusterOutput]:
        """This side says Goodbye on a link by itself (after `CloseIfIdle`): nothing new goes over it."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        peer_link.closing = True
        self.routes.changed()
        return [*self._peer_links.choose(peer_link.member)]

    def ack_received(self, link: LinkId, now: int) -> list[ClusterOutput]:
        """A `SendPing` on that link has its answer."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        self._last_activity[link] = now
        return [*self._detector.ack_received(peer_link.member, now)]

    def send_own_head(self, link: LinkId) -> list[ClusterOutput]:
        """Who sent a call that is not offered here is told which version of my catalogue says so."""
        content = self.catalogue.content(self.me)
        return [] if content is None else [SendMessage(link, Gossip(heads=(content.head,)))]

    def backlog(self, link: LinkId, queued: int) -> None:
        """So many bytes wait to leave on a link. One that does not drain is told of new content, and not sent it."""
        if self._peer_links.get(link) is not None:
            if queued < self._limits.slow_link:
                self._gossip.slow_links.pop(link, None)
            else:
                self._gossip.slow_links[link] = None

    def _request_dial_back(self, member: MemberId, now: int) -> list[ClusterOutput]:
        """Ask a member to dial me, over others, if I cannot dial it."""
        if not self._dialer.needs_dial_back(member, now):
            return []
        next_hop = self.routes.next_hop(member)
        return [] if next_hop is None else [SendMessage(next_hop, DialBack(member, self.me))]

    def _last_activity_at(self, link: LinkId) -> int:
        """When a link last brought a message about the cluster."""
        return self._last_activity.get(link, -TICK)

    # -- messages -------------------------------------------------------------------------------------------------

    def received(self, link: LinkId, message: ClusterMessage, now: int) -> list[ClusterOutput]:
        """A message about the cluster came in. One of an unknown link is ignored."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        self._last_activity[link] = now
        return _RECEIVERS[type(message)](self, peer_link, message, now)

    def _fetch_received(self, peer_link: PeerLink, fetch: Fetch, now: int) -> list[ClusterOutput]:
        return [*self._gossip.answer_fetch(peer_link.link, fetch)]

    def _digest_received(self, peer_link: PeerLink, digest: Digest, now: int) -> list[ClusterOutput]:
        # On a link that closes as a duplicate nothing: the digests go over the one that is kept.
        if peer_link.closing:
            return self._supersede_own(digest.heads, now)
        out, complete = self._anti_entropy.answer_digest(peer_link.link, digest)
        if complete:
            self._mark_synced(peer_link)
        return [*out, *self._supersede_own(digest.heads, now)]

    def _bucket_hashes_received(self, peer_link: PeerLink, message: BucketHashes, now: int) -> list[ClusterOutput]:
        if peer_link.closing:
            return []
        out, complete = self._anti_entropy.answer_bucket_hashes(peer_link.link, message)
        if complete:
            self._mark_synced(peer_link)
        return [*out]

    def _pull_received(self, peer_link: PeerLink, pull: Pull, now: int) -> list[ClusterOutput]:
        return [*self._anti_entropy.answer_pull(peer_link.link, pull)]

    def _dial_back_received(self, peer_link: PeerLink, message: DialBack, now: int) -> list[ClusterOutput]:
        if message.to == self.me:
            return [*self._dialer.connect(MemberId(message.member), now)]
        next_hop = (
            None
            if self.me in message.via
            else self.routes.next_hop(MemberId(message.to), via=(*message.via, peer_link.member))
        )
        if next_hop is None or message.to == message.member:
            return []
        return [SendMessage(next_hop, msgspec.structs.replace(message, via=(*message.via, self.me)))]

    def _ping_req_received(self, peer_link: PeerLink, message: PingReq, now: int) -> list[ClusterOutput]:
        return [*self._detector.ping_req_received(peer_link.link, MemberId(message.member), now)]

    def _indirect_ack_received(self, peer_link: PeerLink, message: IndirectAck, now: int) -> list[ClusterOutput]:
        out = self._detector.indirect_ack_received(MemberId(message.member), now)
        return [one for one in out if not (isinstance(one, AbandonLink) and one.link in self._gossip.slow_links)]

    def _gossip_received(self, peer_link: PeerLink, gossip: Gossip, now: int) -> list[ClusterOutput]:
        link = peer_link.link
        if gossip.answer:
            self._mark_synced(peer_link)
        raised = self.members.merge(gossip.claims, now)
        confirmed = self.members.drain_confirmed()
        out: list[ClusterOutput] = [
            *self._anti_entropy.correct_retired(link, peer_link.corrected),
            *self._changes.members_changed(raised, source=link, now=now),
        ]
        if confirmed:
            self._gossip.members_changed(confirmed, source=link)
            for current in confirmed:
                out += self._changes.follow_up(self._detector.member_changed(current, now), now)
        changed: dict[MemberId, None] = {}
        functions: dict[str, None] = {}
        for delta in gossip.deltas:
            applied, messages = self._gossip.delta_received(link, delta)
            out += messages
            member = MemberId(delta.head.member)
            if applied in (Applied.YES, Applied.MISMATCH):
                changed[member] = None
            if applied is Applied.YES:
                functions.update(dict.fromkeys(self.catalogue.affected_functions(delta)))
                out.append(Notify(CatalogueChanged(member, self.name_of(member), delta.head.version)))
        for head in gossip.heads:
            before = self.catalogue.version(MemberId(head.member))
            out += self._gossip.head_received(link, head)
            if self.catalogue.version(MemberId(head.member)) < before:
                changed[MemberId(head.member)] = None
        out += self._supersede_own((*gossip.heads, *(delta.head for delta in gossip.deltas)), now)
        for current in raised:
            if current.routable and current.was_dead and current.id != self.me:
                out += self._gossip.member_revived(current.id, link)
        if changed:
            self._parts.changed()
            out.append(OffersChanged(tuple(functions), tuple(changed)))
        return [*out, *self._gossip.flush(now)]

    def _supersede_own(self, heads: Iterable[Head], now: int) -> list[ClusterOutput]:
        """Nobody but this process writes its catalogue: a head of it that it never had is outbid, as a claim is."""
        own = self.catalogue.content(self.me)
        mine = (0, b"") if own is None else (own.version, own.head.hash)
        made_up = [
            head.version
            for head in heads
            if head.member == self.me
            and (head.version > mine[0] or (head.version == mine[0] and head.hash != mine[1]))
            and 0 < head.version <= LAST_VERSION
        ]
        if not made_up or self._dialer.stopped:
            return []
        if max(made_up) == LAST_VERSION:  # no version is left after that
            self.members.id_retired = True
            return self._changes.housekeeping()
        return self._catalogue_changed(self.catalogue.supersede(max(made_up)), now)

    def _mark_synced(self, peer_link: PeerLink) -> None:
        """What that member knows is now known here."""
        self._synced = self._synced or self._dialer.is_seed(peer_link.member)

    # -- time -----------------------------------------------------------------------------------------------------

    def wake(self, key: Key, now: int) -> list[ClusterOutput]:
        """A timer of the cluster came due."""
        match key[0]:
            case TimerKind.TICK:
                return self._tick(now)
            case TimerKind.PROBE | TimerKind.SUSPICION:
                member = MemberId(bytes(key[1])) if isinstance(key[1], bytes) else self.me
                due = (
                    self._detector.probe_timed_out if key[0] == TimerKind.PROBE else self._detector.suspicion_timed_out
                )
                return self._changes.follow_up(due(member, now), now)
            case TimerKind.GOSSIP:
                return [*self._gossip.flush(now)]
            case TimerKind.DIAL:
                return [*self._dialer.wake(key, now)]
            case TimerKind.ANTI_ENTROPY:
                return self._compare_with_neighbour(now)
            case TimerKind.MEMBER_LOST:
                return self._changes.report_lost(MemberId(bytes(key[1])) if isinstance(key[1], bytes) else self.me)
        return self._changes.collect(now)

    def _tick(self, now: int) -> list[ClusterOutput]:
        if self._dialer.stopped or not (len(self.rings) > 1 or len(self._peer_links) or self._dialer.seeds):
            return []
        self._timers.set((TimerKind.TICK,), now + TICK)
        out = [*self._changes.follow_up(self._detector.tick(now), now), *self._gossip.tick()]
        self._ticks += 1
        if self._ticks % _HOUSEKEEPING == 0:
            out += self._dialer.housekeeping(now)
            for member, link in self.links.items():
                peer_link = self._peer_links.get(link)
                if peer_link is not None and peer_link.dialler == self.me and self._dialer.is_surplus(member):
                    out.append(CloseIfIdle(member, link))
        return out

    def _compare_with_neighbour(self, now: int) -> list[ClusterOutput]:
        """Compare what is known with one neighbour."""
        if self._dialer.stopped or len(self.rings) == 1:
            return []
        self._timers.set((TimerKind.ANTI_ENTROPY,), now + self._limits.gossip_interval)
        near = [member for member in self.rings.neighbours if member in self.links]
        return [*self._anti_entropy.compare(self.links[self._rng.choice(near)])] if near else []

    # -- this process ---------------------------------------------------------------------------------------------

    def offer(self, spec: FunctionSpec, now: int) -> list[ClusterOutput]:
        """Offer a function, in place of an earlier one of that name.

        Raises LocalProtocolError (1014) beyond a limit; nothing has changed then.
        """
        return self._catalogue_changed(self.catalogue.offer(spec), now)

    def withdraw(self, name: str, now: int) -> list[ClusterOutput]:
        """Offer a function no longer. Raises LocalProtocolError if it is not offered; nothing has changed then."""
        return self._catalogue_changed(self.catalogue.withdraw(name), now)

    def set_resources(self, resources: Iterable[str], now: int) -> list[ClusterOutput]:
        """The node's own resources are now these. Raises LocalProtocolError (1014) beyond a limit."""
        return self._catalogue_changed(self.catalogue.set_resources(resources), now)

    def drain(self, now: int) -> list[ClusterOutput]:
        """Say that this node takes no new calls."""
        self._gossip.flush_now()
        return self._catalogue_changed(self.catalogue.drain(), now)

    def advertise(self, addresses: tuple[Address, ...], now: int) -> list[ClusterOutput]:
        """This node can be dialled at these addresses, and no longer at others."""
        self._dialer.set_own_addresses(*addresses)
        own = self.members.own
        if own.card is None or own.addresses == addresses:
            return []
        card = msgspec.structs.replace(own.card, addresses=addresses)
        return self._changes.members_changed([self.members.update_card(card, now)], source=None, now=now)

    def leave(self, now: int) -> list[ClusterOutput]:
        """Say LEFT to all; from now on nobody is dialled or suspected."""
        self._gossip.flush_now()
        out = self._changes.members_changed([self.members.leave(now)], source=None, now=now)
        self._dialer.stop()
        self._detector.stop()
        for kind in (TimerKind.TICK, TimerKind.ANTI_ENTROPY, TimerKind.GOSSIP):
            self._timers.cancel((kind,))
        return out

    def _catalogue_changed(self, delta: Delta, now: int) -> list[ClusterOutput]:
        self._parts.changed()
        self._gossip.catalogue_changed(delta, source=None)
        return [*self._gossip.flush(now), OffersChanged(tuple(self.catalogue.affected_functions(delta)), (self.me,))]

    # -- for people -----------------------------------------------------------------------------------------------

    def synced(self) -> bool:
        """Whether digests have been exchanged with one seed, or there is none to ask."""
        return self._synced or self._dialer.seedless

    def fetching(self, member: MemberId) -> int:
        """The newest version of a member's catalogue that is asked for; 0 for none."""
        return self._gossip.fetching(member)

    def name_of(self, member: MemberId) -> str:
        """A member's name, as its card or its link says; empty if neither does."""
        current = self.members.get(member)
        if current is not None and current.card is not None:
            return current.name
        return next((peer_link.name for peer_link in self._peer_links.to_member(member)), "")


_RECEIVERS: dict[type, Callable[[Cluster, PeerLink, Any, int], list[ClusterOutput]]] = {
    Gossip: Cluster._gossip_received,
    Digest: Cluster._digest_received,
    Fetch: Cluster._fetch_received,
    BucketHashes: Cluster._bucket_hashes_received,
    Pull: Cluster._pull_received,
    DialBack: Cluster._dial_back_received,
    PingReq: Cluster._ping_req_received,
    IndirectAck: Cluster._indirect_ack_received,
}
