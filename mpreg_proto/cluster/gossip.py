"""Dissemination: what is new goes at once to my neighbours on the rings, not back to its source (membership.md).

Claims that rose and catalogues that grew come in from `Cluster`, with the link they came over; out go `Gossip` and
`Fetch` for links. Gossip is passed on at first receipt; what comes within `FLUSH_INTERVAL` of a flush is sent together,
liveness before the rest. A head is told only by who can serve its content, so whoever hears one knows whom
to ask. anti_entropy.py finds what a broken link lost. With few neighbours linked everybody linked is told.
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
"""Gossip that comes within so long after a flush waits for the next one."""
FETCH_RETRY = 2
"""Ticks, of a second each, after which what was asked for is asked of another; doubled each time."""
MAX_FETCH_RETRY = 64
_FEW = 3


class _PendingFetch:
    """A catalogue that is asked for: from which version on, and who said that they hold it, the one asked first."""

    __slots__ = ("links", "retry_after", "version", "waited")

    def __init__(self, version: int, link: LinkId) -> None:
        self.version = version
        self.links = [link]
        self.waited = 0
        """For how many ticks it has been waited for, and for how many it is before the next one is asked."""
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
        """The same without content."""
        return _Item(self.member, self.sources, claim=self.claim, head=self.head)


def _combined(items: Iterable[_Item]) -> Gossip:
    """All of it in one message, what is said of liveness first."""
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
    """What each link is told, and which catalogues are being fetched. `links` is read, never written.

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
        """Links that accused me: each gets my refutation, neighbour or not."""
        self._next = 0
        self.slow_links: dict[LinkId, None] = {}
        """Links that do not drain: heads go over them, and no content."""

    # -- dissemination --------------------------------------------------------------------------------------------

    def members_changed(self, raised: Iterable[Member], *, source: LinkId | None) -> None:
        """These rose, as `source` told (None: as I found out myself): to be told to the others."""
        for member in raised:
            sources = self._claims.setdefault(member.id, [])
            if source is not None and member.id != self._members.me:
                sources.append(source)
            elif source is not None:
                self._accusers[source] = None

    def catalogue_changed(self, delta: Delta, *, source: LinkId | None) -> None:
        """A catalogue grew, as `source` told: to be told to the others."""
        member = MemberId(delta.head.member)
        since, sources = self._changed_catalogues.get(member, (delta.since, []))
        if source is not None:
            sources.append(source)
        self._changed_catalogues[member] = (min(since, delta.since), sources)

    def flush_now(self) -> None:
        """This process is leaving: what there is to tell is told with the next `flush`, however soon that is."""
        self._next = 0

    def fetching(self, member: MemberId) -> int:
        """The version of a member's catalogue that is asked for at the moment; 0 if none is."""
        fetch = self._fetches.get(member)
        return 0 if fetch is None else fetch.version

    def flush(self, now: int) -> list[SendMessage]:
        """Tell what is to be told, unless that was just done: then it is due a little later."""
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
        # Most links have told nothing of it, so most are sent the very same message.
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
        """Who is told all: my neighbours, or everybody linked if there are few of these, or if I am leaving."""
        links = self._links
        targets = [links[member] for member in self._rings.neighbours if member in links]
        few = len(targets) < _FEW or self._members.own.standing is Standing.LEFT
        return dict.fromkeys(links.values() if few else targets)

    def _accused(self, claims: Iterable[MemberId]) -> dict[LinkId, tuple[MemberId, ...]]:
        """The claims that go first: an accusation to the accused if it is linked, my refutation to my accusers."""
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
        """Each thing as it is now."""
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
        """A catalogue from where the asker holds it; nothing if it is not held here either."""
        delta = self._catalogue.delta(MemberId(fetch.member), fetch.have)
        return [] if delta is None else [SendMessage(link, Gossip(deltas=(delta,)))]

    # -- fetching catalogues --------------------------------------------------------------------------------------

    def delta_received(self, link: LinkId, delta: Delta) -> tuple[Applied, list[SendMessage]]:
        """Take in a delta: to be passed on if it was new, asked about if it did not fit."""
        member = MemberId(delta.head.member)
        version = self._catalogue.version(member)
        if delta.head.version <= version:  # most of what is heard is heard again
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
            # A whole copy that proves wrong from the owner's mouth stays wrong, however often it is asked for.
            return applied, [] if not version and owner == link else self._request(member, delta.head.version, owner)
        if applied is Applied.REFUSED:
            self._fetches.pop(member, None)
        return applied, []

    def head_received(self, link: LinkId, head: Head) -> list[SendMessage]:
        """Somebody holds this version of a catalogue: ask for it if it is new. Drops a copy its owner calls wrong."""
        member = MemberId(head.member)
        if member == self._members.me or not self._members.routable(member) or head.version > LAST_VERSION:
            return []
        if head.version <= self._catalogue.version(member):
            return self._compare_with_owner(link, head)
        return self._request(member, head.version, link)

    def _compare_with_owner(self, link: LinkId, head: Head) -> list[SendMessage]:
        """What is held is as new as `head`: if its owner says that on its own link, that tells more.

        A copy of the same version with another content is wrong, and dropped. A newer one than its owner has may be
        made up: the owner is told of it, and makes a version after that.
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
        """A member is known, or back, and nothing is held of its catalogue: ask whoever said so."""
        if self._catalogue.version(member) or member in self._fetches:
            return []
        return self._request(member, 0, link)

    def forget(self, member: MemberId) -> None:
        """A member is no more: neither is its catalogue."""
        self._fetches.pop(member, None)
        self._changed_catalogues.pop(member, None)
        self._catalogue.drop(member)

    def link_closed(self, link: LinkId) -> list[SendMessage]:
        """A link is gone: what was asked on it is asked of the next who said that they hold it."""
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
                # It may not hold it either, so any head that is told from now on is asked about anew.
                messages += [] if other is None else self._request(member, 0, other)
            elif asked == link:
                messages.append(self._fetch(member, fetch.links[0]))
        return messages

    def tick(self) -> list[SendMessage]:
        """A second has passed: what has not come is asked of the next who said that they hold it.

        Who was asked may have dropped it for a while, as it marked its owner DEAD; then it says nothing. What nobody
        gives is asked for no longer; if it is there, the next comparison of all that is known shows it.
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
        """Ask `link` for a catalogue, unless that version is asked of another already: then it is the next to be asked.

        Who was asked and says once more that it is held there may have dropped it in between, and is asked again.
        """
        fetch = self._fetches.get(member)
        # Nobody knows better than its owner how far a catalogue is: what is beyond was made up.
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
