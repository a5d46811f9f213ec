"""The cluster as one machine: the members, their offers, and the links that this node should hold.

Inputs are handshakes, ends of links, messages about members, timers, and the offers of this process. Outputs are the
actions and events of actions.py: messages to send, addresses to dial, and facts, such as a link to call over, a member
lost, offers that changed. `Parts` holds the machines that it is made of; they read each other only as that class shows.
`Changes` follows up their findings. A finding may lead to another, so it runs until none is left. Each member is
`LinkSelected` or `MemberLost` in turn, never twice the same. This machine handles no bytes and no requests, and reads
no clock.
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
"""The time in which a linked member that others mark DEAD may refute that, before its calls are lost."""


class Parts:
    """The machines of one cluster.

    State is in `members` and `catalogue`; `index`, `rings` and `routes` are derived from it; `peer_links` holds the
    open links; `gossip`, `anti_entropy`, `dialer` and `detector` act on all of these.
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
        """`last_activity` returns the time when a link last moved a byte, in either direction, in nanoseconds."""
        self.members: Members = Members(me, card, limits=limits, now=now)
        self.catalogue: Catalogue = Catalogue(me, limits=limits)
        self.index: Index = Index(self.members, self.catalogue)
        self.rings: Rings = Rings(me)
        self.peer_links: PeerLinks = PeerLinks()
        self.links: dict[MemberId, LinkId] = self.peer_links.preferred
        """The link that calls for a member use."""
        self.routes: Routes = Routes(self.rings, self.links)
        self.gossip: Disseminator = Disseminator(
            self.members, self.catalogue, self.links, rings=self.rings, timers=timers
        )
        self.anti_entropy: AntiEntropy = AntiEntropy(self.members, self.catalogue, limits)
        self.dialer: Dialer = Dialer(
            self.members, self.rings, self.links, seeds=seeds, timers=timers, rng=rng, limits=limits
        )
        self.dialer.set_own_addresses(*map(Address, card.addresses))
        self.detector: Detector = Detector(
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
        """Drop what was derived from members and catalogues: they have changed."""
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
        """The members known to be routable, without the local one: each is `MemberLost` once."""
        self.loss_deferred: dict[MemberId, None] = {}
        """The members that others report DEAD or LEFT and that still have a link here. They are `MemberLost` when it
        closes: their last results may still be in transit on it, as gossip can arrive faster over another link. A DEAD
        member is `MemberLost` also if it does not refute in time."""
        self._seen_changes = 0
        self._id_retired_sent = False
        self._collection: int | None = None

    def follow_up(self, findings: Findings, now: int) -> list[ClusterOutput]:
        """Return the detector's actions, and what follows from the standings that it declared."""
        out: list[ClusterOutput] = [*findings.actions]
        return out + self.members_changed(findings.declared, source=None, now=now) if findings.declared else out

    def members_changed(self, raised: Iterable[Member], *, source: LinkId | None, now: int) -> list[ClusterOutput]:
        """Return what follows from members that rose: gossip, dials, and members that enter or leave the view."""
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
        """Add a member to the view, or remove it."""
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
                # A linked member can refute at once, as all do when a partition heals.
                self._timers.set((TimerKind.MEMBER_LOST, member.id), now + REFUTE_TIMEOUT)
        return []

    def report_lost(self, member: MemberId) -> list[ClusterOutput]:
        """Return the deferred `MemberLost` of a member, if there is one."""
        if member not in self.loss_deferred:
            return []
        del self.loss_deferred[member]
        self._timers.cancel((TimerKind.MEMBER_LOST, member))
        return [MemberLost(member)]

    def begin_ticking(self, now: int) -> None:
        """Start the ticks. They drive periodic work, and only a late tick shows that this node was stalled."""
        if (TimerKind.TICK,) not in self._timers and not self._dialer.stopped:
            # Nodes that start at the same moment must not probe at the same moments from then on.
            first = now + int(TICK * (1 + self._rng.fraction()) / 2)
            self._timers.set((TimerKind.TICK,), first)
            self._detector.begin(first)

    def _begin_anti_entropy(self, now: int) -> None:
        """Start the comparisons with neighbours: there is a member to compare with."""
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
        """Forget evicted members, set the time of the next collection, report card conflicts and a retired own id."""
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
        """Retire the members that have been DEAD or LEFT for long, and forget those that have been RETIRED for long."""
        self._collection = None
        for retired in self._members.collect(now):
            self._dialer.forget(retired.id)
        self._parts.anti_entropy.buckets.invalidate()
        return self.housekeeping()


ClusterMessage = Gossip | Digest | Fetch | BucketHashes | Pull | DialBack | PingReq | IndirectAck
"""The messages between nodes about members."""
_HOUSEKEEPING = 5
"""The number of ticks between two checks of the links: are there too few, or some that are not needed."""


class Cluster:
    """The cluster machine. Inputs take `now` (nanoseconds), run to completion, and never raise for what a peer did."""

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
        """`last_activity` returns when a link last moved a byte, either way; by default, when it brought a message."""
        self.me = me
        self._limits = limits
        self._timers = timers
        self._rng = rng
        self._last_activity: dict[LinkId, int] = {}
        card, received = Card(name, addresses), last_activity or self._last_activity_at
        parts = Parts(me, card, seeds=seeds, timers=timers, rng=rng, limits=limits, now=now, last_activity=received)
        self.members: Members = parts.members
        self.catalogue: Catalogue = parts.catalogue
        self.index: Index = parts.index
        self.rings: Rings = parts.rings
        self.routes: Routes = parts.routes
        self.links: dict[MemberId, LinkId] = parts.links
        """The link that calls for a member use; read-only."""
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
        """Add a link after its handshake. `dialled` is the address this side dialled, None if the peer dialled."""
        if member == self.me:
            return [] if dialled is None else self.reached_self(dialled, now)
        peer_link = PeerLink(link, member, name, dialler=member if dialled is None else self.me)
        self._last_activity[link] = now
        self.routes.changed()
        self._changes.begin_ticking(now)  # a stall is detected from now on, even while no member is known
        out: list[ClusterOutput] = [*self._peer_links.add(peer_link)]
        for other in self._peer_links.to_member(member):
            if not other.closing and other.dialler == self.me and self.links[member] != other.link:
                other.closing = True
                out.append(CloseLink(other.link, GoodbyeReason.DUPLICATE))
        if not peer_link.closing:
            # The dialling side introduces itself and starts a comparison. A suspect receives its claim at once.
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
        """Handle a peer's Goodbye on a link: calls use another link, if there is one."""
        return self.start_closing(link)

    def link_closed(self, link: LinkId, *, clean: bool, now: int) -> list[ClusterOutput]:
        """Handle the end of a link; `clean` if a Goodbye of either side came before. Unknown links are ignored."""
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
        """Handle a dial without a handshake: refused, silent, another cluster, or closed before its hello came.

        An answer to a dial that has failed already is ignored.
        """
        members = self._dialer.dialled_for(address)
        effects = self._dialer.dial_failed(address, now)
        return [] if effects is None else self._dial_ended(address, members, [*effects], now)

    def dial_answered(self, address: Address) -> None:
        """Record that a dial has opened a transport: from now on the timer of its handshake decides."""
        self._dialer.dial_answered(address)

    def _dial_ended(
        self, address: Address, members: list[MemberId], out: list[ClusterOutput], now: int
    ) -> list[ClusterOutput]:
        """Follow up a dial that opened no link; request a dial back from the members that it was for."""
        out += self._changes.follow_up(self._detector.dial_failed(address, now), now)
        for member in members:
            out += self._request_dial_back(member, now)
        return out

    def reached_self(self, address: Address | None, now: int) -> list[ClusterOutput]:
        """Handle a handshake that showed this process's own id. `address` was dialled; None on the accepting side."""
        if address is None:
            return []
        members = self._dialer.dialled_for(address)
        return self._dial_ended(address, members, [*self._dialer.reached_self(address, now)], now)

    def connect(self, member: MemberId, now: int) -> list[ClusterOutput]:
        """Open a link to a member for a call: dial now unless a dial is in progress, or request a dial back."""
        return [*self._dialer.connect(member, now), *self._request_dial_back(member, now)]

    def start_closing(self, link: LinkId) -> list[ClusterOutput]:
        """Mark a link on which this side sends Goodbye itself (after `CloseIfIdle`): nothing new uses it."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        peer_link.closing = True
        self.routes.changed()
        return [*self._peer_links.choose(peer_link.member)]

    def ack_received(self, link: LinkId, now: int) -> list[ClusterOutput]:
        """Handle the answer to a `SendPing` on that link."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        self._last_activity[link] = now
        return [*self._detector.ack_received(peer_link.member, now)]

    def send_own_head(self, link: LinkId) -> list[ClusterOutput]:
        """Send the own head to a node that dispatched a call not offered here, so that it updates its copy."""
        content = self.catalogue.content(self.me)
        return [] if content is None else [SendMessage(link, Gossip(heads=(content.head,)))]

    def backlog(self, link: LinkId, queued: int) -> None:
        """Record the backlog of a link in bytes. A slow link carries only heads of new content, not the content."""
        if self._peer_links.get(link) is not None:
            if queued < self._limits.slow_link:
                self._gossip.slow_links.pop(link, None)
            else:
                self._gossip.slow_links[link] = None

    def _request_dial_back(self, member: MemberId, now: int) -> list[ClusterOutput]:
        """Request by relay that a member dials this node, if this node cannot dial it."""
        if not self._dialer.needs_dial_back(member, now):
            return []
        next_hop = self.routes.next_hop(member)
        return [] if next_hop is None else [SendMessage(next_hop, DialBack(member, self.me))]

    def _last_activity_at(self, link: LinkId) -> int:
        """Return when a link last brought a message about the cluster."""
        return self._last_activity.get(link, -TICK)

    # -- messages -------------------------------------------------------------------------------------------------

    def received(self, link: LinkId, message: ClusterMessage, now: int) -> list[ClusterOutput]:
        """Handle a message about the cluster. One from an unknown link is ignored."""
        peer_link = self._peer_links.get(link)
        if peer_link is None:
            return []
        self._last_activity[link] = now
        return _RECEIVERS[type(message)](self, peer_link, message, now)

    def _fetch_received(self, peer_link: PeerLink, fetch: Fetch, now: int) -> list[ClusterOutput]:
        return [*self._gossip.answer_fetch(peer_link.link, fetch)]

    def _digest_received(self, peer_link: PeerLink, digest: Digest, now: int) -> list[ClusterOutput]:
        # No answer on a link that closes as a duplicate: the digests use the link that is kept.
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

    def probe(self, member: MemberId, now: int) -> list[ClusterOutput]:
        """Probe a member out of turn, as its link brings nothing although an answer is expected on it."""
        return [*self._detector.probe(member, now)]

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
        """Publish the own catalogue again above any version that this process never made.

        Only this process writes its catalogue, so such a head is superseded, as a claim against it is refuted.
        """
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
        if max(made_up) == LAST_VERSION:  # no later version exists
            self.members.id_retired = True
            return self._changes.housekeeping()
        return self._catalogue_changed(self.catalogue.supersede(max(made_up)), now)

    def _mark_synced(self, peer_link: PeerLink) -> None:
        """Record that all the state of that member is here; if it is a seed, this node is synced."""
        self._synced = self._synced or self._dialer.is_seed(peer_link.member)

    # -- time -----------------------------------------------------------------------------------------------------

    def wake(self, key: Key, now: int) -> list[ClusterOutput]:
        """Handle a timer of the cluster that is due."""
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
            case TimerKind.DIAL_TIMEOUT:
                return self.dial_failed(Address(str(key[-1])), now)
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
        """Compare state with one neighbour."""
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
        """Stop offering a function. Raises LocalProtocolError if it is not offered; nothing has changed then."""
        return self._catalogue_changed(self.catalogue.withdraw(name), now)

    def set_resources(self, resources: Iterable[str], now: int) -> list[ClusterOutput]:
        """Replace the node's own resources. Raises LocalProtocolError (1014) beyond a limit."""
        return self._catalogue_changed(self.catalogue.set_resources(resources), now)

    def drain(self, now: int) -> list[ClusterOutput]:
        """Publish that this node takes no new calls."""
        self._gossip.flush_now()
        return self._catalogue_changed(self.catalogue.drain(), now)

    def advertise(self, addresses: tuple[Address, ...], now: int) -> list[ClusterOutput]:
        """Replace the addresses at which this node can be dialled."""
        self._dialer.set_own_addresses(*addresses)
        own = self.members.own
        if own.card is None or own.addresses == addresses:
            return []
        card = msgspec.structs.replace(own.card, addresses=addresses)
        return self._changes.members_changed([self.members.update_card(card, now)], source=None, now=now)

    def leave(self, now: int) -> list[ClusterOutput]:
        """Announce LEFT to all; from now on this node dials and suspects no member."""
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

    # -- for users ------------------------------------------------------------------------------------------------

    def synced(self) -> bool:
        """Return whether digests have been exchanged with one seed, or there is no seed."""
        return self._synced or self._dialer.seedless

    def fetching(self, member: MemberId) -> int:
        """Return the newest version of a member's catalogue that is being fetched; 0 for none."""
        return self._gossip.fetching(member)

    def name_of(self, member: MemberId) -> str:
        """Return a member's name from its card or its link; empty if there is neither."""
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
