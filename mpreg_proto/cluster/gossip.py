"""Who must be told what (MEMBERSHIP.md, Spreading news), in its first form: everybody who is linked, at once.

Claims that rose and catalogues that grew come in from `Cluster`, with the link they came over; out go `News`,
`Digest` and `Fetch` for links. News is passed on at first receipt, never back to where it came from; what a broken
link lost is mended by digests both ways on connect. A head is told only by who can serve its content, so whoever
hears one knows whom to ask.

It picks no neighbours: it tells all of `links`. An overlay of rings narrows that map and nothing else here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpreg_proto.cluster.catalogue import Applied, Catalogue, weight
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.outputs import Tell
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.wire.messages import Delta, Digest, Fetch, Head, News

SMALL = 1024
"""A change of at most so many bytes travels with its head; a longer one is asked for."""


class _Want:
    """A catalogue that is asked for: from which version on, and who said that they hold it, the one asked first."""

    __slots__ = ("links", "version")

    def __init__(self, version: int, link: LinkId) -> None:
        self.version = version
        self.links = [link]


class Gossip:
    """What each link is told, and which catalogues are being fetched. `links` is read, never written."""

    __slots__ = ("_catalogue", "_links", "_members", "_wants")

    def __init__(self, members: Members, catalogue: Catalogue, links: Mapping[MemberId, LinkId]) -> None:
        self._members = members
        self._catalogue = catalogue
        self._links = links
        self._wants: dict[MemberId, _Want] = {}

    # -- telling --------------------------------------------------------------------------------------------------

    def greet(self, link: LinkId) -> list[Tell]:
        """The first thing said to a node just met: all that is known here, in keys only."""
        return [Tell(link, Digest(self._members.digest(), self._catalogue.heads()))]

    def claims(self, risen: Iterable[Member], *, source: LinkId | None) -> list[Tell]:
        """Pass on what rose: not back to where it came from, but what I say about myself goes everywhere."""
        told = [member.claim() for member in risen]
        if not told:
            return []
        all_of_it = News(tuple(told))
        mine = News(tuple(claim for claim in told if claim.member == self._members.me))
        tells = [Tell(link, all_of_it) for link in self._links.values() if link != source]
        if source is not None and mine.claims:
            tells.append(Tell(source, mine))
        return tells

    def grown(self, delta: Delta, *, source: LinkId | None) -> list[Tell]:
        """Pass on a catalogue's change: with its content if that is small, else its head alone."""
        news = News(deltas=(delta,)) if weight(delta) <= SMALL else News(heads=(delta.head,))
        return [Tell(link, news) for link in self._links.values() if link != source]

    # -- answering ------------------------------------------------------------------------------------------------

    def answer_digest(self, link: LinkId, digest: Digest) -> list[Tell]:
        """Everything that is newer here; sent even if that is nothing, as it also says: now you know all I know."""
        deltas: list[Delta] = []
        heads: list[Head] = []
        theirs = {head.member: head for head in digest.heads}
        for head in self._catalogue.heads():
            their = theirs.get(head.member)
            have = 0 if their is None else their.version
            if have < head.version:
                delta = self._catalogue.delta(MemberId(head.member), have)
                if delta is not None and weight(delta) <= SMALL:
                    deltas.append(delta)
                else:
                    heads.append(head)
            elif their is not None and have == head.version and their.hash != head.hash and self._owned(head):
                heads.append(head)
        return [Tell(link, News(tuple(self._members.newer(digest.claims)), tuple(deltas), tuple(heads)))]

    def _owned(self, head: Head) -> bool:
        return head.member == self._members.me

    def answer_fetch(self, link: LinkId, fetch: Fetch) -> list[Tell]:
        """A catalogue from where the asker holds it; nothing if it is not held here either."""
        delta = self._catalogue.delta(MemberId(fetch.member), fetch.have)
        return [] if delta is None else [Tell(link, News(deltas=(delta,)))]

    # -- learning catalogues --------------------------------------------------------------------------------------

    def learn(self, link: LinkId, delta: Delta) -> tuple[Applied, list[Tell]]:
        """Take in a delta: passed on if it was new, asked about if it did not fit."""
        member = MemberId(delta.head.member)
        if not self._members.routable(member):
            return Applied.REFUSED, []
        fresh = not self._catalogue.version(member)
        applied = self._catalogue.apply(delta)
        if applied is Applied.YES:
            self._settle(member)
            return applied, self.grown(delta, source=link)
        if applied is Applied.GAP:
            return applied, self._ask(member, delta.head.version, link)
        if applied is Applied.MISMATCH:
            self._wants.pop(member, None)
            owner = self._links.get(member, link)
            # A whole copy that proves wrong from the owner's mouth stays wrong, however often it is asked for.
            return applied, [] if fresh and owner == link else self._ask(member, delta.head.version, owner)
        if applied is Applied.REFUSED:
            self._wants.pop(member, None)
        return applied, []

    def heard(self, link: LinkId, head: Head) -> list[Tell]:
        """Somebody holds this version of a catalogue: ask for it if it is news. Drops a copy its owner calls wrong."""
        member = MemberId(head.member)
        if member == self._members.me or not self._members.routable(member):
            return []
        held = self._catalogue.content(member)
        if held is not None and head.version <= held.version:
            if head.version < held.version or head.hash == held.head.hash or self._links.get(member) != link:
                return []
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
        self._catalogue.drop(member)

    def ended(self, link: LinkId) -> list[Tell]:
        """A link is gone: what was asked on it is asked of the next who said that they hold it."""
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

    def _ask(self, member: MemberId, version: int, link: LinkId) -> list[Tell]:
        """Ask `link` for a catalogue, unless that version is asked of another already: then it is the next to be asked.

        Who was asked and says once more that it is held there may have dropped it in between, and is asked again.
        """
        want = self._wants.get(member)
        if want is not None and version <= want.version and link != want.links[0]:
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
