"""Who must be told what, at once (docs/explanation/membership.md): my neighbours on the rings, but where it came from.

Claims that rose and catalogues that grew come in from `Cluster`, with the link they came over; out go `News` and
`Fetch` for links. News is passed on at first receipt; what comes within `JOINED` after a telling is told together, what
is said of liveness before the rest. A head is told only by who can serve its content, so whoever hears one knows whom
to ask. What a broken link lost is mended by repair.py. With few neighbours linked everybody linked is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpreg_proto.cluster.catalogue import LAST_VERSION, Applied, Catalogue, weight
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.outputs import Tell
from mpreg_proto.cluster.repair import SMALL
from mpreg_proto.cluster.rings import Rings
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MILLISECOND
from mpreg_proto.notices import Standing
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Claim, Delta, Fetch, Head, News

JOINED = 50 * MILLISECOND
"""News that comes within so long after a telling waits for the next one."""
PATIENCE = 2
"""Ticks, of a second each, after which what was asked for is asked of another; doubled each time."""
LONGEST_PATIENCE = 64
_FEW = 3


class _Want:
    """A catalogue that is asked for: from which version on, and who said that they hold it, the one asked first."""

    __slots__ = ("links", "patience", "version", "waited")

    def __init__(self, version: int, link: LinkId) -> None:
        self.version = version
        self.links = [link]
        self.waited = 0
        """For how many ticks it has been waited for, and for how many it is before the next one is asked."""
        self.patience = PATIENCE


class _Item:
    """One thing to tell, and the links that told it."""

    __slots__ = ("claim", "delta", "head", "member", "tellers")

    def __init__(
        self,
        member: MemberId,
        tellers: list[LinkId],
        *,
        claim: Claim | None = None,
        delta: Delta | None = None,
        head: Head | None = None,
    ) -> None:
        self.member = member
        self.tellers = tellers
        self.claim = claim
        self.delta = delta
        self.head = head

    def short(self) -> _Item:
        """The same without content."""
        return _Item(self.member, self.tellers, claim=self.claim, head=self.head)


def _joined(items: Iterable[_Item]) -> News:
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
    return News(tuple(claims), tuple(deltas), tuple(heads))


class Gossip:
    """What each link is told, and which catalogues are being fetched. `links` is read, never written.

    Timer key: ("cluster", "news"), when the next telling is due.
    """

    __slots__ = (
        "_accusers",
        "_catalogue",
        "_claims",
        "_grown",
        "_links",
        "_members",
        "_next",
        "_rings",
        "_timers",
        "_wants",
        "slow",
    )

    def __init__(
        self, members: Members, catalogue: Catalogue, links: Mapping[MemberId, LinkId], *, rings: Rings, timers: Timers
    ) -> None:
        self._members = members
        self._catalogue = catalogue
        self._links = links
        self._rings = rings
        self._timers = timers
        self._wants: dict[MemberId, _Want] = {}
        self._claims: dict[MemberId, list[LinkId]] = {}
        """Of whom there is news, and who told it."""
        self._grown: dict[MemberId, tuple[int, list[LinkId]]] = {}
        """Whose catalogue grew, since which version, and who told it."""
        self._accusers: dict[LinkId, None] = {}
        """Who said something of me that is not so: whoever they are, they hear that."""
        self._next = 0
        self.slow: dict[LinkId, None] = {}
        """Links that do not drain: heads go over them, and no content."""

    # -- telling --------------------------------------------------------------------------------------------------

    def claims(self, risen: Iterable[Member], *, source: LinkId | None) -> None:
        """These rose, as `source` told (None: as I found out myself): to be told to the others."""
        for member in risen:
            tellers = self._claims.setdefault(member.id, [])
            if source is not None and member.id != self._members.me:
                tellers.append(source)
            elif source is not None:
                self._accusers[source] = None

    def grown(self, delta: Delta, *, source: LinkId | None) -> None:
        """A catalogue grew, as `source` told: to be told to the others."""
        member = MemberId(delta.head.member)
        since, tellers = self._grown.get(member, (delta.since, []))
        if source is not None:
            tellers.append(source)
        self._grown[member] = (min(since, delta.since), tellers)

    def hasten(self) -> None:
        """This process is leaving: what there is to tell is told with the next `flush`, however soon that is."""
        self._next = 0

    def wanted(self, member: MemberId) -> int:
        """The version of a member's catalogue that is asked for at the moment; 0 if none is."""
        want = self._wants.get(member)
        return 0 if want is None else want.version

    def flush(self, now: int) -> list[Tell]:
        """Tell what is to be told, unless that was just done: then it is due a little later."""
        if not self._claims and not self._grown:
            return []
        if now < self._next:
            self._timers.set(("cluster", "news"), self._next)
            return []
        self._next = now + JOINED
        claims, self._claims = self._claims, {}
        grown, self._grown = self._grown, {}
        items = self._items(claims, grown)
        accused = self._accused(claims)
        near = self._near()
        # Most links have told nothing of it, so most are sent the very same message.
        tellers = dict.fromkeys(link for item in items for link in item.tellers)
        whole = _joined(items)
        tells: list[Tell] = []
        for link in dict.fromkeys((*accused, *near)):
            if link not in near:
                own = [item for item in items if item.member in accused[link]]
            elif link in tellers or link in self.slow:
                own = [item for item in items if link not in item.tellers]
            else:
                tells.append(Tell(link, whole))
                continue
            if own:
                tells.append(Tell(link, _joined([item.short() for item in own] if link in self.slow else own)))
        return tells

    def _near(self) -> dict[LinkId, None]:
        """Who is told all: my neighbours, or everybody linked if there are few of these, or if I am leaving."""
        links = self._links
        near = [links[member] for member in self._rings.neighbours if member in links]
        few = len(near) < _FEW or self._members.own.standing is Standing.LEFT
        return dict.fromkeys(links.values() if few else near)

    def _accused(self, claims: Iterable[MemberId]) -> dict[LinkId, tuple[MemberId, ...]]:
        """Those of whom ill is said, where they are linked, hear it first; and those who said it of me, what is so."""
        found: dict[LinkId, tuple[MemberId, ...]] = dict.fromkeys(self._accusers, (self._members.me,))
        self._accusers.clear()
        for member in claims:
            link = self._links.get(member)
            if link is not None and self._members.standing(member) is not Standing.ALIVE:
                found[link] = (*found.get(link, ()), member)
        return found

    def _items(
        self, claims: Mapping[MemberId, list[LinkId]], grown: Mapping[MemberId, tuple[int, list[LinkId]]]
    ) -> list[_Item]:
        """Each thing as it is now."""
        items: list[_Item] = []
        for member, tellers in claims.items():
            claim = self._members.claim(member)
            if claim is not None:
                items.append(_Item(member, tellers, claim=claim))
        for member, (since, tellers) in grown.items():
            delta = self._catalogue.delta(member, since)
            if delta is not None:
                small = delta if weight(delta) <= SMALL else None
                items.append(_Item(member, tellers, delta=small, head=delta.head))
        return items

    def answer_fetch(self, link: LinkId, fetch: Fetch) -> list[Tell]:
        """A catalogue from where the asker holds it; nothing if it is not held here either."""
        delta = self._catalogue.delta(MemberId(fetch.member), fetch.have)
        return [] if delta is None else [Tell(link, News(deltas=(delta,)))]

    # -- learning catalogues --------------------------------------------------------------------------------------

    def learn(self, link: LinkId, delta: Delta) -> tuple[Applied, list[Tell]]:
        """Take in a delta: to be passed on if it was new, asked about if it did not fit."""
        member = MemberId(delta.head.member)
        version = self._catalogue.version(member)
        if delta.head.version <= version:  # most of what is heard is heard again
            tells = self._contradicted(link, delta.head)
            return Applied.OLD if self._catalogue.version(member) else Applied.MISMATCH, tells
        if not self._members.routable(member) or delta.head.version > LAST_VERSION:
            return Applied.REFUSED, []
        applied = self._catalogue.apply(delta)
        if applied is Applied.YES:
            self._settle(member)
            self.grown(delta, source=link)
            return applied, []
        if applied is Applied.GAP:
            return applied, self._ask(member, delta.head.version, link)
        if applied is Applied.MISMATCH:
            self._wants.pop(member, None)
            owner = self._links.get(member, link)
            # A whole copy that proves wrong from the owner's mouth stays wrong, however often it is asked for.
            return applied, [] if not version and owner == link else self._ask(member, delta.head.version, owner)
        if applied is Applied.REFUSED:
            self._wants.pop(member, None)
        return applied, []

    def heard(self, link: LinkId, head: Head) -> list[Tell]:
        """Somebody holds this version of a catalogue: ask for it if it is news. Drops a copy its owner calls wrong."""
        member = MemberId(head.member)
        if member == self._members.me or not self._members.routable(member) or head.version > LAST_VERSION:
            return []
        if head.version <= self._catalogue.version(member):
            return self._contradicted(link, head)
        return self._ask(member, head.version, link)

    def _contradicted(self, link: LinkId, head: Head) -> list[Tell]:
        """What is held is as new as `head`: if its owner says that on its own link, that tells more.

        A copy of the same version with another content is wrong, and dropped. A newer one than its owner has may be
        made up: the owner is told of it, and makes a version after that.
        """
        member = MemberId(head.member)
        held = self._catalogue.content(member)
        if held is None or self._links.get(member) != link or head == held.head:
            return []
        if head.version < held.version:
            return [Tell(link, News(heads=(held.head,)))]
        self._catalogue.drop(member)
        return self._ask(member, head.version, link)

    def revived(self, member: MemberId, link: LinkId) -> list[Tell]:
        """A member is known, or back, and nothing is held of its catalogue: ask whoever said so."""
        if self._catalogue.version(member) or member in self._wants:
            return []
        return self._ask(member, 0, link)

    def gone(self, member: MemberId) -> None:
        """A member is no more: neither is its catalogue."""
        self._wants.pop(member, None)
        self._grown.pop(member, None)
        self._catalogue.drop(member)

    def ended(self, link: LinkId) -> list[Tell]:
        """A link is gone: what was asked on it is asked of the next who said that they hold it."""
        self.slow.pop(link, None)
        self._accusers.pop(link, None)
        tells: list[Tell] = []
        for member, want in list(self._wants.items()):
            if link not in want.links:
                continue
            asked = want.links[0]
            want.links.remove(link)
            if not want.links:
                del self._wants[member]
                other = self._links.get(member, next(iter(self._links.values()), None))
                # It may not hold it either, so any head that is told from now on is asked about anew.
                tells += [] if other is None else self._ask(member, 0, other)
            elif asked == link:
                tells.append(self._fetch(member, want.links[0]))
        return tells

    def tick(self) -> list[Tell]:
        """A second has passed: what has not come is asked of the next who said that they hold it.

        Who was asked may have dropped it for a while, as it held its owner for dead; then it says nothing. What nobody
        gives is asked for no longer; if it is there, the next comparison of all that is known shows it.
        """
        tells: list[Tell] = []
        for member in list(self._wants):
            want = self._wants[member]
            want.waited += 1
            if want.waited >= want.patience == LONGEST_PATIENCE:
                del self._wants[member]
            elif want.waited >= want.patience:
                want.waited, want.patience = 0, min(2 * want.patience, LONGEST_PATIENCE)
                want.links.append(want.links.pop(0))
                tells.append(self._fetch(member, want.links[0]))
        return tells

    def _ask(self, member: MemberId, version: int, link: LinkId) -> list[Tell]:
        """Ask `link` for a catalogue, unless that version is asked of another already: then it is the next to be asked.

        Who was asked and says once more that it is held there may have dropped it in between, and is asked again.
        """
        want = self._wants.get(member)
        # Nobody knows better than its owner how far a catalogue is: what is beyond was made up.
        owner = version and want is not None and version < want.version and self._links.get(member) == link
        if want is not None and version <= want.version and link != want.links[0] and not owner:
            if link not in want.links:
                want.links.append(link)
            return []
        self._wants[member] = _Want(version, link)
        return [self._fetch(member, link)]

    def _fetch(self, member: MemberId, link: LinkId) -> Tell:
        return Tell(link, Fetch(member, self._catalogue.version(member)))

    def _settle(self, member: MemberId) -> None:
        want = self._wants.get(member)
        if want is not None and self._catalogue.version(member) >= want.version:
            del self._wants[member]
