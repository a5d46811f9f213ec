"""The cluster as one machine: who is there, what they offer, which links should be.

`Node` gives in handshakes, ends of links, messages about members, due timers, and what its own process offers; out come
the things of outputs.py: messages to send, addresses to dial, and what became true, such as a link to call over, a
member gone, offers that changed. Each input goes to the parts (parts.py) that it concerns; what their findings mean
for the others is followed up in changes.py. It knows no bytes, requests or clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mpreg_proto.cluster.catalogue import LAST_VERSION, Applied, FunctionSpec
from mpreg_proto.cluster.changes import TICK, Changes
from mpreg_proto.cluster.linked import Tie
from mpreg_proto.cluster.members import Card
from mpreg_proto.cluster.outputs import Abandon, CloseLink, MemberRow, OffersChanged, Out, Surplus, Tell
from mpreg_proto.cluster.overlay import YIELD
from mpreg_proto.cluster.parts import Parts
from mpreg_proto.cluster.people import rows
from mpreg_proto.effects import Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import CatalogueChanged, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Key, Timers
from mpreg_proto.wire.messages import Check, Delta, DialMe, Digest, Fetch, Head, Lack, News, Summary, Vouch

Said = News | Digest | Fetch | Summary | Lack | DialMe | Check | Vouch
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
        heard: Callable[[LinkId], int] | None = None,
    ) -> None:
        """`heard`: when a link last brought any byte; by default, when it brought what `received` was given."""
        self.me = me
        self._limits = limits
        self._timers = timers
        self._rng = rng
        self._last_heard: dict[LinkId, int] = {}
        card, told = Card(name, addresses), heard or self._heard
        parts = Parts(me, card, seeds=seeds, timers=timers, rng=rng, limits=limits, now=now, heard=told)
        self.members = parts.members
        self.catalogue = parts.catalogue
        self.index = parts.index
        self.rings = parts.rings
        self.routes = parts.routes
        self.links = parts.links
        """The link that calls for a member go over; read it, don't write."""
        self._parts = parts
        self._linked = parts.linked
        self._gossip = parts.gossip
        self._repair = parts.repair
        self._overlay = parts.overlay
        self._detector = parts.detector
        self._changes = Changes(parts, timers=timers, rng=rng, limits=limits)
        self._ticks = 0
        self._synced = False
        if resources:
            self.catalogue.hold(resources)

    def start(self, now: int) -> list[Out]:
        """Dial the seeds."""
        if self._overlay.seeds:
            self._changes.begin_ticking(now)
        return [*self._overlay.start(now)]

    # -- links ----------------------------------------------------------------------------------------------------

    def linked(self, link: LinkId, member: MemberId, name: str, *, dialled: Address | None, now: int) -> list[Out]:
        """A handshake with a node is done. `dialled`: the address this side dialled, None if the other side did."""
        if member == self.me:
            return [] if dialled is None else self.met_myself(dialled, now)
        made = Tie(link, member, name, dialler=member if dialled is None else self.me)
        self._last_heard[link] = now
        self.routes.changed()
        self._changes.begin_ticking(now)  # whoever stands still from now on shall know it, though it knows nobody yet
        out: list[Out] = [*self._linked.add(made)]
        for other in self._linked.of(member):
            if not other.closing and other.dialler == self.me and self.links[member] != other.link:
                other.closing = True
                out.append(CloseLink(other.link, "duplicate"))
        if not made.closing:
            # Who dialled says who it is and compares what both know; a suspect is told at once what is said of it.
            out += [*self._repair.introduce(link), *self._repair.compare(link)] if dialled is not None else []
            held = self.members.get(member)
            if held is not None and held.standing in (Standing.SUSPECT, Standing.DEAD):
                out.append(Tell(link, News((held.claim(),))))
        out += self._detector.linked(member)
        if dialled is not None:
            displaced, effects = self._overlay.reached(dialled, member, now)
            out += effects
            if displaced is not None:
                out += self._changes.found(self._detector.displaced(displaced, now), now)
        self._overlay.linked(member)
        return out

    def goodbye(self, link: LinkId, now: int) -> list[Out]:
        """The peer said Goodbye on a link: calls go over another one, if there is one."""
        return self.closing(link)

    def unlinked(self, link: LinkId, *, clean: bool, now: int) -> list[Out]:
        """A link is closed; `clean` if a Goodbye of either side came before. Unknown links are ignored."""
        made = self._linked.remove(link)
        if made is None:
            return []
        member = made.member
        self._last_heard.pop(link, None)
        self.routes.changed()
        out: list[Out] = [*self._linked.choose(member)]
        if not self._linked.of(member):
            out += self._changes.gone(member)
        out += self._gossip.ended(link)
        if member in self.links or self._overlay.stopped:
            return out
        if clean:
            self._detector.parted(member, now)
            return [*out, *self._overlay.lost(member, now, pause=0 if self.me < member else YIELD)]
        out += self._changes.found(self._detector.lost(member, now), now)
        return [*out, *self._overlay.lost(member, now)]

    def dial_failed(self, address: Address, now: int) -> list[Out]:
        """A dial ended without a handshake: refused, silent, another cluster, or closed before its hello came."""
        awaited = self._overlay.awaited(address)
        return self._in_vain(address, awaited, [*self._overlay.failed(address, now)], now)

    def _in_vain(self, address: Address, awaited: list[MemberId], out: list[Out], now: int) -> list[Out]:
        """No link came of a dial; those whom it was for may dial me."""
        out += self._changes.found(self._detector.failed(address, now), now)
        for member in awaited:
            out += self._beg(member, now)
        return out

    def met_myself(self, address: Address | None, now: int) -> list[Out]:
        """A handshake showed this process's own id; `address` is what was dialled, None on the side that accepted."""
        if address is None:
            return []
        awaited = self._overlay.awaited(address)
        return self._in_vain(address, awaited, [*self._overlay.met_myself(address, now)], now)

    def want_link(self, member: MemberId, now: int) -> list[Out]:
        """A call waits for a link to that member: dial now, if nothing is under way."""
        return [*self._overlay.want(member, now), *self._beg(member, now)]

    def closing(self, link: LinkId) -> list[Out]:
        """This side says Goodbye on a link by itself (after `Surplus`): nothing new goes over it."""
        made = self._linked.get(link)
        if made is None:
            return []
        made.closing = True
        self.routes.changed()
        return [*self._linked.choose(made.member)]

    def answered(self, link: LinkId, now: int) -> list[Out]:
        """A `Probe` on that link has its answer."""
        made = self._linked.get(link)
        if made is None:
            return []
        self._last_heard[link] = now
        return self._detector.answered(made.member, now)

    def remind(self, link: LinkId) -> list[Out]:
        """Who sent a call that is not offered here is told which version of my catalogue says so."""
        content = self.catalogue.content(self.me)
        return [] if content is None else [Tell(link, News(heads=(content.head,)))]

    def backlog(self, link: LinkId, queued: int) -> None:
        """So many bytes wait to leave on a link. One that does not drain is told of new content, and not sent it."""
        if self._linked.get(link) is not None:
            if queued < self._limits.slow_link:
                self._gossip.slow.pop(link, None)
            else:
                self._gossip.slow[link] = None

    def _beg(self, member: MemberId, now: int) -> list[Out]:
        """Ask a member to dial me, over others, if I cannot dial it."""
        if not self._overlay.helpless(member, now):
            return []
        way = self.routes.way(member)
        return [] if way is None else [Tell(way, DialMe(member, self.me))]

    def _heard(self, link: LinkId) -> int:
        """When a link last brought a message about the cluster."""
        return self._last_heard.get(link, -TICK)

    # -- messages -------------------------------------------------------------------------------------------------

    def received(self, link: LinkId, message: Said, now: int) -> list[Out]:
        """A message about the cluster came in. One of an unknown link is ignored."""
        made = self._linked.get(link)
        if made is None:
            return []
        self._last_heard[link] = now
        return _RECEIVERS[type(message)](self, made, message, now)

    def _fetch_came(self, made: Tie, fetch: Fetch, now: int) -> list[Out]:
        return [*self._gossip.answer_fetch(made.link, fetch)]

    def _digest_came(self, made: Tie, digest: Digest, now: int) -> list[Out]:
        # On a link that closes as a duplicate nothing: the digests go over the one that is kept.
        out = [] if made.closing else self._repair.answer_digest(made.link, digest)
        if len(out) == 1:
            self._told_all(made)
        return [*out, *self._outbid(digest.heads, now)]

    def _summary_came(self, made: Tie, summary: Summary, now: int) -> list[Out]:
        out = [] if made.closing else self._repair.answer_summary(made.link, summary)
        if out and isinstance(out[0].message, News):
            self._told_all(made)
        return [*out]

    def _lack_came(self, made: Tie, lack: Lack, now: int) -> list[Out]:
        return [*self._repair.answer_lack(made.link, lack)]

    def _dial_me_came(self, made: Tie, message: DialMe, now: int) -> list[Out]:
        if message.to == self.me:
            return [*self._overlay.want(MemberId(message.member), now)]
        way = None if self.me in message.via else self.routes.way(MemberId(message.to), via=(*message.via, made.member))
        if way is None or message.to == message.member:
            return []
        return [Tell(way, msgspec.structs.replace(message, via=(*message.via, self.me)))]

    def _check_came(self, made: Tie, message: Check, now: int) -> list[Out]:
        return self._detector.check(made.link, MemberId(message.member), now)

    def _vouch_came(self, made: Tie, message: Vouch, now: int) -> list[Out]:
        out = self._detector.vouched(MemberId(message.member), now)
        return [one for one in out if not (isinstance(one, Abandon) and one.link in self._gossip.slow)]

    def _news_came(self, made: Tie, news: News, now: int) -> list[Out]:
        link = made.link
        if news.answer:
            self._told_all(made)
        risen = self.members.merge(news.claims, now)
        agreed, self.members.agreed = self.members.agreed, {}
        out: list[Out] = [*self._repair.correct(link, made.corrected), *self._changes.rose(risen, source=link, now=now)]
        if agreed:
            self._gossip.claims(agreed.values(), source=link)
            for held in agreed.values():
                out += self._changes.found(self._detector.heard(held, now), now)
        changed: dict[MemberId, None] = {}
        functions: dict[str, None] = {}
        for delta in news.deltas:
            applied, tells = self._gossip.learn(link, delta)
            out += tells
            member = MemberId(delta.head.member)
            if applied in (Applied.YES, Applied.MISMATCH):
                changed[member] = None
            if applied is Applied.YES:
                functions.update(dict.fromkeys(self.catalogue.concerned(delta)))
                out.append(Notify(CatalogueChanged(member, self._name(member), delta.head.version)))
        for head in news.heads:
            before = self.catalogue.version(MemberId(head.member))
            out += self._gossip.heard(link, head)
            if self.catalogue.version(MemberId(head.member)) < before:
                changed[MemberId(head.member)] = None
        out += self._outbid((*news.heads, *(delta.head for delta in news.deltas)), now)
        for held in risen:
            if held.routable and held.fell and held.id != self.me:
                out += self._gossip.revived(held.id, link)
        if changed:
            self._parts.changed()
            out.append(OffersChanged(tuple(functions), tuple(changed)))
        return [*out, *self._gossip.flush(now)]

    def _outbid(self, heads: Iterable[Head], now: int) -> list[Out]:
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
        if not made_up or self._overlay.stopped:
            return []
        if max(made_up) == LAST_VERSION:  # no version is left after that
            self.members.disowned = True
            return self._changes.tidy()
        return self._told(self.catalogue.outbid(max(made_up)), now)

    def _told_all(self, made: Tie) -> None:
        """What that member knows is now known here."""
        self._synced = self._synced or self._overlay.sees_seed(made.member)

    # -- time -----------------------------------------------------------------------------------------------------

    def wake(self, key: Key, now: int) -> list[Out]:
        """A key of `timers` that starts with "cluster" came due."""
        match key[1]:
            case "tick":
                return self._tick(now)
            case "answer" | "verdict":
                member = MemberId(bytes(key[2])) if isinstance(key[2], bytes) else self.me
                due = self._detector.answer_due if key[1] == "answer" else self._detector.verdict_due
                return self._changes.found(due(member, now), now)
            case "news":
                return [*self._gossip.flush(now)]
            case "dial":
                return [*self._overlay.wake(key, now)]
            case "repair":
                return self._mend(now)
            case "gone":
                return self._changes.gone(MemberId(bytes(key[2])) if isinstance(key[2], bytes) else self.me)
        return self._changes.collect(now)

    def _tick(self, now: int) -> list[Out]:
        if self._overlay.stopped or not (len(self.rings) > 1 or len(self._linked) or self._overlay.seeds):
            return []
        self._timers.set(("cluster", "tick"), now + TICK)
        out = [*self._changes.found(self._detector.tick(now), now), *self._gossip.tick()]
        self._ticks += 1
        if self._ticks % _HOUSEKEEPING == 0:
            out += self._overlay.tidy(now)
            for member, link in self.links.items():
                made = self._linked.get(link)
                if made is not None and made.dialler == self.me and self._overlay.surplus(member):
                    out.append(Surplus(member, link))
        return out

    def _mend(self, now: int) -> list[Out]:
        """Compare what is known with one neighbour."""
        if self._overlay.stopped or len(self.rings) == 1:
            return []
        self._timers.set(("cluster", "repair"), now + self._limits.gossip_interval)
        near = [member for member in self.rings.neighbours if member in self.links]
        return [*self._repair.compare(self.links[self._rng.choice(near)])] if near else []

    # -- this process ---------------------------------------------------------------------------------------------

    def offer(self, spec: FunctionSpec, now: int) -> list[Out]:
        """Offer a function, in place of an earlier one of that name.

        Raises LocalProtocolError (1014) beyond a limit; nothing has changed then.
        """
        return self._told(self.catalogue.offer(spec), now)

    def withdraw(self, name: str, now: int) -> list[Out]:
        """Offer a function no longer. Raises LocalProtocolError if it is not offered; nothing has changed then."""
        return self._told(self.catalogue.withdraw(name), now)

    def hold(self, resources: Iterable[str], now: int) -> list[Out]:
        """The node's own resources are now these. Raises LocalProtocolError (1014) beyond a limit."""
        return self._told(self.catalogue.hold(resources), now)

    def drain(self, now: int) -> list[Out]:
        """Say that this node takes no new calls."""
        self._gossip.hasten()
        return self._told(self.catalogue.drain(), now)

    def advertise(self, addresses: tuple[Address, ...], now: int) -> list[Out]:
        """This node can be dialled at these addresses, and no longer at others."""
        self._overlay.mine(*addresses)
        own = self.members.own
        if own.card is None or own.addresses == addresses:
            return []
        card = msgspec.structs.replace(own.card, addresses=addresses)
        return self._changes.rose([self.members.announce(card, now)], source=None, now=now)

    def leave(self, now: int) -> list[Out]:
        """Say LEFT to all; from now on nobody is dialled or judged."""
        self._gossip.hasten()
        out = self._changes.rose([self.members.leave(now)], source=None, now=now)
        self._overlay.stop()
        self._detector.stop()
        for name in ("tick", "repair", "news"):
            self._timers.cancel(("cluster", name))
        return out

    def _told(self, delta: Delta, now: int) -> list[Out]:
        self._parts.changed()
        self._gossip.grown(delta, source=None)
        return [*self._gossip.flush(now), OffersChanged(tuple(self.catalogue.concerned(delta)), (self.me,))]

    # -- for people -----------------------------------------------------------------------------------------------

    def synced(self) -> bool:
        """Whether digests have been exchanged with one seed, or there is none to ask."""
        return self._synced or self._overlay.seedless

    def people(self) -> tuple[MemberRow, ...]:
        """Everybody but the RETIRED, by name and id."""
        return rows(self.members, self.catalogue, self.rings, self.links, name=self._name, want=self._gossip.wanted)

    def _name(self, member: MemberId) -> str:
        held = self.members.get(member)
        if held is not None and held.card is not None:
            return held.name
        return next((made.name for made in self._linked.of(member)), "")


_RECEIVERS: dict[type, Callable[[Cluster, Tie, Any, int], list[Out]]] = {
    News: Cluster._news_came,
    Digest: Cluster._digest_came,
    Fetch: Cluster._fetch_came,
    Summary: Cluster._summary_came,
    Lack: Cluster._lack_came,
    DialMe: Cluster._dial_me_came,
    Check: Cluster._check_came,
    Vouch: Cluster._vouch_came,
}
