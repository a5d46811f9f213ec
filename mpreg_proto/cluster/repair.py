"""What broken links have lost: two nodes compare what they know and tell each other the rest.

Who dialled begins: with all it knows in keys if that is little, else with 256 hashes, of which only those buckets are
opened that differ. Then each side has told the other all that it holds beyond it:

    dialler   News of itself, Summary  ->
              <-  Digest (of the buckets that differ), or an empty News: we are alike
              News, Lack               ->      what the digest lacks; what it is ahead in
              <-  News

The same is done now and then with one neighbour. Nothing here waits or keeps anything; messages go back to `Cluster`.
"""

from __future__ import annotations

from mpreg_proto.cluster.buckets import SCOPE, Buckets, bucket, within
from mpreg_proto.cluster.catalogue import LAST_VERSION, Catalogue, weight
from mpreg_proto.cluster.digests import digest, newer, older
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.outputs import Tell
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim, Delta, Digest, Head, Lack, News, Summary

FEW = 64
"""Up to so many members a digest of all is shorter than the hashes."""
SMALL = 1024
"""A change of at most so many bytes travels with its head; a longer one is asked for."""
_NOTHING = bytes(16)


class Repair:
    """Answers from what is known now. `buckets` is told of changes by `Cluster`."""

    __slots__ = ("_catalogue", "_members", "buckets")

    def __init__(self, members: Members, catalogue: Catalogue) -> None:
        self._members = members
        self._catalogue = catalogue
        self.buckets = Buckets(members, catalogue)

    def introduce(self, link: LinkId) -> list[Tell]:
        """Said first to a node just dialled: who I am and what I offer, so that it can be used after one way."""
        deltas: list[Delta] = []
        heads: list[Head] = []
        content = self._catalogue.content(self._members.me)
        if content is not None:
            self._offer(content.head, None, deltas, heads)
        return [Tell(link, News((self._members.own.claim(),), tuple(deltas), tuple(heads)))]

    def compare(self, link: LinkId) -> list[Tell]:
        """Begin: said to a node just dialled, and to one neighbour from time to time."""
        if len(self._members) <= FEW:
            return [Tell(link, Digest(digest(self._members), self._catalogue.heads()))]
        return [Tell(link, Summary(self.buckets.summary()))]

    def answer_summary(self, link: LinkId, summary: Summary) -> list[Tell]:
        """In which buckets we differ, and what I know of these; an empty News says that it is in none."""
        scope = self.buckets.differing(summary.hashes)
        if not any(scope):
            return [Tell(link, News(answer=True))]
        claims = tuple(claim for claim in digest(self._members) if within(scope, bucket(MemberId(claim.member))))
        heads = tuple(head for head in self._catalogue.heads() if within(scope, bucket(MemberId(head.member))))
        return [Tell(link, Digest(claims, heads, scope))]

    def answer_digest(self, link: LinkId, digest: Digest) -> list[Tell]:
        """Everything that is newer here, sent even if that is nothing, as it also says: now you know all I know.

        Then, if the digest is ahead in something, what I lack.
        """
        scope = digest.scope if len(digest.scope) == SCOPE else b""
        theirs = {head.member: head for head in digest.heads}
        deltas: list[Delta] = []
        heads: list[Head] = []
        for head in self._catalogue.heads():
            if within(scope, bucket(MemberId(head.member))):
                self._offer(head, theirs.get(head.member), deltas, heads)
        beyond = [member for member in self._members.all() if within(scope, bucket(member.id))]
        claims = tuple(newer(self._members, digest.claims, beyond=beyond))
        news = News(claims, tuple(deltas), tuple(heads), answer=True)
        lacking, behind = tuple(older(self._members, digest.claims)), self._behind(digest)
        lack = [Tell(link, Lack(lacking, behind))] if lacking or behind else []
        return [Tell(link, news), *lack]

    def answer_lack(self, link: LinkId, lack: Lack) -> list[Tell]:
        """What somebody lacks of what I said that I know; it may have changed meanwhile."""
        deltas: list[Delta] = []
        heads: list[Head] = []
        for their in lack.heads:
            content = self._catalogue.content(MemberId(their.member))
            if content is not None:
                self._offer(content.head, their, deltas, heads)
        claims = tuple(newer(self._members, lack.claims, beyond=()))
        return [Tell(link, News(claims, tuple(deltas), tuple(heads), answer=True))]

    def correct(self, link: LinkId, told: dict[MemberId, None]) -> list[Tell]:
        """Who speaks of the RETIRED as if they were not is told, as that is in no digest; `told`: once a link."""
        late, self._members.late = [member for member in self._members.late if member not in told], {}
        told.update(dict.fromkeys(late))
        retired = int(Standing.RETIRED)
        return [Tell(link, News(tuple(Claim(member, 0, retired) for member in late)))] if late else []

    def _offer(self, head: Head, their: Head | None, deltas: list[Delta], heads: list[Head]) -> None:
        """What to tell somebody who holds a catalogue at `their`, where I hold it at `head`."""
        have = 0 if their is None else their.version
        if have < head.version:
            delta = self._catalogue.delta(MemberId(head.member), have)
            if delta is not None and weight(delta) <= SMALL:
                deltas.append(delta)
            else:
                heads.append(head)
        elif their is not None and have == head.version and their.hash != head.hash and self._owned(head):
            heads.append(head)

    def _behind(self, digest: Digest) -> tuple[Head, ...]:
        """The heads of a digest that are ahead of what is held here, as held here."""
        behind: list[Head] = []
        for head in digest.heads:
            member = MemberId(head.member)
            if head.member != self._members.me and head.version <= LAST_VERSION and self._wanted(member):
                content = self._catalogue.content(member)
                if content is None:
                    behind.append(Head(member, 0, _NOTHING))
                elif content.version < head.version:
                    behind.append(content.head)
        return tuple(behind)

    def _wanted(self, member: MemberId) -> bool:
        """Whether the catalogue of a member is of any use: it is alive here, or is not known here yet."""
        held: Member | None = self._members.get(member)
        return held.routable if held is not None else self._members.standing(member) is None

    def _owned(self, head: Head) -> bool:
        return head.member == self._members.me
