"""Dissemination: new claims and changes go at once to the own ring neighbours, not back to their source
(membership.md).

Claims that rose and catalogues that grew come in from `Cluster`, with the link they came over; out go `Gossip` and
`Fetch` for links. Gossip is passed on at first receipt. What comes within `FLUSH_INTERVAL` after a flush is sent
together, liveness first. Only a node that can serve a content sends its head, so the sender of a head is the one to
fetch from. anti_entropy.py finds what a broken link lost. With few neighbours linked, all linked members get gossip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpreg_proto.cluster.actions import SendMessage
from mpreg_proto.cluster.anti_entropy import INLINE_DELTA
from mpreg_proto.cluster.catalogue import LAST_VERSION, Applied, Catalogue, wire_size
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MILLISECOND
from mpreg_proto.notices import Standing
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim, Delta, Fetch, Gossip, Head

FLUSH_INTERVAL = 50 * MILLISECOND
"""Gossip that comes within this time after a flush waits for the next one."""
FETCH_RETRY = 2
"""The number of ticks, of a second each, after which a fetch goes to the next link; doubled each time."""
MAX_FETCH_RETRY = 64
_FEW = 3


class _PendingFetch:
    """A catalogue being fetched: the version needed, and the links that offer it, the one in use first."""

    __slots__ = ("links", "retry_after", "version", "waited")

    def __init__(self, version: int, link: LinkId) -> None:
        self.version = version
        self.links = [link]
        self.waited = 0
        """The ticks since the last Fetch; after `retry_after` ticks the next link is used."""
        self.retry_after = FETCH_RETRY


class _Item:
    """One item to send, and the links that it came from."""

    __slots__ = ("claim", "delta", "head", "member", "sources")

    def __init__(
        self,
        member: MemberId,
        sources: list[LinkId],
        *,
        claim: Claim | None = None,
        delta: Delta | None = None,
        head: Head | None = None,
    ) -> None:
        self.member = member
        self.sources = sources
        self.claim = claim
        self.delta = delta
        self.head = head

    def without_content(self) -> _Item:
        """Return the same item without content."""
        return _Item(self.member, self.sources, claim=self.claim, head=self.head)


def _combined(items: Iterable[_Item]) -> Gossip:
    """Return all items in one message, claims first."""
    claims: list[Claim] = []
    deltas: list[Delta] = []
    heads: list[Head] = []
    for item in items:
        if item.claim is not None:
            claims.append(item.claim)
        elif item.delta is not None:
            deltas.append(item.delta)
        elif item.head is not None:
            heads.append(item.head)
    return Gossip(tuple(claims), tuple(deltas), tuple(heads))


class Disseminator:
    """The gossip for each link, and the catalogues being fetched. `links` is read, never written.

    Timer key: (TimerKind.GOSSIP,), when the next flush is due.
    """

    __slots__ = (
        "_accusers",
        "_catalogue",
        "_changed_catalogues",
        "_claims",
        "_fetches",
        "_links",
        "_members",
        "_next",
        "_rings",
        "_timers",
        "slow_links",
    )

    def __init__(
        self, members: Members, catalogue: Catalogue, links: Mapping[MemberId, LinkId], *, rings: Rings, timers: Timers
    ) -> None:
        self._members = members
        self._catalogue = catalogue
        self._links = links
        self._rings = rings
        self._timers = timers
        self._fetches: dict[MemberId, _PendingFetch] = {}
        self._claims: dict[MemberId, list[LinkId]] = {}
        """Members whose claim rose, and the links that it came from."""
        self._changed_catalogues: dict[MemberId, tuple[int, list[LinkId]]] = {}
        """Catalogues that grew, since which version, and the links that they came from."""
        self._accusers: dict[LinkId, None] = {}
        """The links that accused this node: each gets its refutation, neighbour or not."""
        self._next = 0
        self.slow_links: dict[LinkId, None] = {}
        """Slow links: only heads go over them, no content."""

    # -- dissemination --------------------------------------------------------------------------------------------

    def members_changed(self, raised: Iterable[Member], *, source: LinkId | None) -> None:
        """Queue members that rose for the next flush. `source` is the link of the claim, None for an own finding."""
        for member in raised:
            sources = self._claims.setdefault(member.id, [])
            if source is not None and member.id != self._members.me:
                sources.append(source)
            elif source is not None:
                self._accusers[source] = None

    def catalogue_changed(self, delta: Delta, *, source: LinkId | None) -> None:
        """Queue a catalogue that grew for the next flush. `source` is the link that the delta came over."""
        member = MemberId(delta.head.member)
        since, sources = self._changed_catalogues.get(member, (delta.since, []))
        if source is not None:
            sources.append(source)
        self._changed_catalogues[member] = (min(since, delta.since), sources)

    def flush_now(self) -> None:
        """Let the next `flush` send at once, however soon it comes: this process is leaving."""
        self._next = 0

    def fetching(self, member: MemberId) -> int:
        """Return the version of a member's catalogue that is being fetched; 0 if none is."""
        fetch = self._fetches.get(member)
        return 0 if fetch is None else fetch.version

    def flush(self, now: int) -> list[SendMessage]:
        """Send what is queued, unless the last flush was within `FLUSH_INTERVAL`: then set a timer."""
        if not self._claims and not self._changed_catalogues:
            return []
        if now < self._next:
            self._timers.set((TimerKind.GOSSIP,), self._next)
            return []
        self._next = now + FLUSH_INTERVAL
        claims, self._claims = self._claims, {}
        changed, self._changed_catalogues = self._changed_catalogues, {}
        items = self._items(claims, changed)
        accused = self._accused(claims)
        targets = self._targets()
        # Most links are no source of any item, so they get the same message object.
        sources = dict.fromkeys(link for item in items for link in item.sources)
        whole = _combined(items)
        messages: list[SendMessage] = []
        for link in dict.fromkeys((*accused, *targets)):
            if link not in targets:
                own = [item for item in items if item.member in accused[link]]
            elif link in sources or link in self.slow_links:
                own = [item for item in items if link not in item.sources]
            else:
                messages.append(SendMessage(link, whole))
                continue
            if own:
                messages.append(
                    SendMessage(
                        link, _combined([item.without_content() for item in own] if link in self.slow_links else own)
                    )
                )
        return messages

    def _targets(self) -> dict[LinkId, None]:
        """Return the links that get everything: those to neighbours; all, if these are few or this node is leaving."""
        links = self._links
        targets = [links[member] for member in self._rings.neighbours if member in links]
        few = len(targets) < _FEW or self._members.own.standing is Standing.LEFT
        return dict.fromkeys(links.values() if few else targets)

    def _accused(self, claims: Iterable[MemberId]) -> dict[LinkId, tuple[MemberId, ...]]:
        """Return claims for certain links: an accusation to the accused, and the own refutation to the accusers."""
        found: dict[LinkId, tuple[MemberId, ...]] = dict.fromkeys(self._accusers, (self._members.me,))
        self._accusers.clear()
        for member in claims:
            link = self._links.get(member)
            if link is not None and self._members.standing(member) is not Standing.ALIVE:
                found[link] = (*found.get(link, ()), member)
        return found

    def _items(
        self, claims: Mapping[MemberId, list[LinkId]], changed: Mapping[MemberId, tuple[int, list[LinkId]]]
    ) -> list[_Item]:
        """Return the items with their present content."""
        items: list[_Item] = []
        for member, sources in claims.items():
            claim = self._members.claim(member)
            if claim is not None:
                items.append(_Item(member, sources, claim=claim))
        for member, (since, sources) in changed.items():
            delta = self._catalogue.delta(member, since)
            if delta is not None:
                small = delta if wire_size(delta) <= INLINE_DELTA else None
                items.append(_Item(member, sources, delta=small, head=delta.head))
        return items

    def answer_fetch(self, link: LinkId, fetch: Fetch) -> list[SendMessage]:
        """Answer with a catalogue from the version that the sender has; nothing if it is not held here."""
        delta = self._catalogue.delta(MemberId(fetch.member), fetch.have)
        return [] if delta is None else [SendMessage(link, Gossip(deltas=(delta,)))]

    # -- fetching catalogues --------------------------------------------------------------------------------------

    def delta_received(self, link: LinkId, delta: Delta) -> tuple[Applied, list[SendMessage]]:
        """Apply a delta: queue it if it was new, fetch the catalogue if it did not fit."""
        member = MemberId(delta.head.member)
        version = self._catalogue.version(member)
        if delta.head.version <= version:  # most gossip received is a repetition
            messages = self._compare_with_owner(link, delta.head)
            return Applied.OLD if self._catalogue.version(member) else Applied.MISMATCH, messages
        if not self._members.routable(member) or delta.head.version > LAST_VERSION:
            return Applied.REFUSED, []
        applied = self._catalogue.apply(delta)
        if applied is Applied.YES:
            self._fetch_done(member)
            self.catalogue_changed(delta, source=link)
            return applied, []
        if applied is Applied.GAP:
            return applied, self._request(member, delta.head.version, link)
        if applied is Applied.MISMATCH:
            self._fetches.pop(member, None)
            owner = self._links.get(member, link)
            # A whole copy from its owner that does not match its hash stays wrong, however often it is fetched.
            return applied, [] if not version and owner == link else self._request(member, delta.head.version, owner)
        if applied is Applied.REFUSED:
            self._fetches.pop(member, None)
        return applied, []

    def head_received(self, link: LinkId, head: Head) -> list[SendMessage]:
        """Handle a head: fetch its catalogue if it is new. Drops a copy that its owner's own head contradicts."""
        member = MemberId(head.member)
        if member == self._members.me or not self._members.routable(member) or head.version > LAST_VERSION:
            return []
        if head.version <= self._catalogue.version(member):
            return self._compare_with_owner(link, head)
        return self._request(member, head.version, link)

    def _compare_with_owner(self, link: LinkId, head: Head) -> list[SendMessage]:
        """Compare a copy at least as new as `head` with the owner's, if `head` came on the owner's own link.

        A copy of the same version with another content is wrong, and dropped. A version that is newer than the owner's
        may be made up: the owner receives its head, and publishes a version after it.
        """
        member = MemberId(head.member)
        current = self._catalogue.content(member)
        if current is None or self._links.get(member) != link or head == current.head:
            return []
        if head.version < current.version:
            return [SendMessage(link, Gossip(heads=(current.head,)))]
        self._catalogue.drop(member)
        return self._request(member, head.version, link)

    def member_revived(self, member: MemberId, link: LinkId) -> list[SendMessage]:
        """Fetch the catalogue of a new or returned member, if none is held, from the link of its claim."""
        if self._catalogue.version(member) or member in self._fetches:
            return []
        return self._request(member, 0, link)

    def forget(self, member: MemberId) -> None:
        """Forget a member that is no longer in the view, and its catalogue."""
        self._fetches.pop(member, None)
        self._changed_catalogues.pop(member, None)
        self._catalogue.drop(member)

    def link_closed(self, link: LinkId) -> list[SendMessage]:
        """Handle the end of a link: its fetches go to the next link that offers the catalogue."""
        self.slow_links.pop(link, None)
        self._accusers.pop(link, None)
        messages: list[SendMessage] = []
        for member, fetch in list(self._fetches.items()):
            if link not in fetch.links:
                continue
            asked = fetch.links[0]
            fetch.links.remove(link)
            if not fetch.links:
                del self._fetches[member]
                other = self._links.get(member, next(iter(self._links.values()), None))
                # It may not hold the catalogue either. With version 0, any later head starts the fetch again.
                messages += [] if other is None else self._request(member, 0, other)
            elif asked == link:
                messages.append(self._fetch(member, fetch.links[0]))
        return messages

    def tick(self) -> list[SendMessage]:
        """Count a second for each fetch: after `retry_after` ticks it goes to the next link that offers the catalogue.

        The peer may have dropped its copy for a while, as it marked the owner DEAD; then it does not answer. A fetch
        that no peer answers is given up; if the catalogue exists, the next anti-entropy comparison shows it.
        """
        messages: list[SendMessage] = []
        for member in list(self._fetches):
            fetch = self._fetches[member]
            fetch.waited += 1
            if fetch.waited >= fetch.retry_after == MAX_FETCH_RETRY:
                del self._fetches[member]
            elif fetch.waited >= fetch.retry_after:
                fetch.waited, fetch.retry_after = 0, min(2 * fetch.retry_after, MAX_FETCH_RETRY)
                fetch.links.append(fetch.links.pop(0))
                messages.append(self._fetch(member, fetch.links[0]))
        return messages

    def _request(self, member: MemberId, version: int, link: LinkId) -> list[SendMessage]:
        """Fetch a catalogue from `link`, or add it as the next link if that version is being fetched from another.

        A peer in use that sends the head again may have dropped its copy in between, so it gets the Fetch again.
        """
        fetch = self._fetches.get(member)
        # Only the owner decides how far its catalogue goes: a version beyond its own was made up.
        owner = version and fetch is not None and version < fetch.version and self._links.get(member) == link
        if fetch is not None and version <= fetch.version and link != fetch.links[0] and not owner:
            if link not in fetch.links:
                fetch.links.append(link)
            return []
        self._fetches[member] = _PendingFetch(version, link)
        return [self._fetch(member, link)]

    def _fetch(self, member: MemberId, link: LinkId) -> SendMessage:
        return SendMessage(link, Fetch(member, self._catalogue.version(member)))

    def _fetch_done(self, member: MemberId) -> None:
        fetch = self._fetches.get(member)
        if fetch is not None and self._catalogue.version(member) >= fetch.version:
            del self._fetches[member]
