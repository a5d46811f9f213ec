"""Anti-entropy: two nodes compare their state and send each other what is missing (Demers et al., 1987).

The side that dialled begins. It sends its whole state in keys if that is small, else 256 hashes (`Buckets`); then only
the buckets that differ are compared in keys. At the end each side has sent the other all that the other lacks:

    dialler   Gossip of itself, BucketHashes  ->
              <-  Digest (of the buckets that differ), or an empty Gossip: no difference
              Gossip, Pull               ->      what the digest lacks; where the digest is ahead
              <-  Gossip

A node repeats this with one neighbour at intervals. A digest holds cells without their cards. It holds no RETIRED
members: nodes collect these at different times, so they are corrected separately. Nothing here waits; messages go back
to `Cluster`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from mpreg_proto.cluster.actions import SendMessage
from mpreg_proto.cluster.catalogue import LAST_VERSION, Catalogue, wire_size
from mpreg_proto.cluster.members import LAST_INCARNATION, Member, Members
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import BucketHashes, Claim, Delta, Digest, Gossip, Head, Pull

BUCKETS = 256
_HASH = 8
HASHES_SIZE = BUCKETS * _HASH
SCOPE_SIZE = BUCKETS // 8
EVERYTHING = b"\xff" * SCOPE_SIZE
_MODULUS = 1 << (8 * _HASH)
_MULTIPLIER = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""The factor of Fibonacci hashing (Knuth, 6.4): 2**128 divided by the golden ratio, so that all bits of an id count."""


def bucket(member: MemberId) -> int:
    """Return the number of the bucket that holds an id."""
    return (int.from_bytes(member, "big") * _MULTIPLIER & ((1 << 128) - 1)) >> 120


def within(scope: bytes, number: int) -> bool:
    """Return whether a scope contains a bucket; an empty scope contains all of them."""
    return not scope or bool(scope[number >> 3] & 0x80 >> (number & 7))


class Buckets:
    """The hashes of all buckets, computed on demand and kept until the next change."""

    __slots__ = ("_catalogue", "_hashes", "_members")

    def __init__(self, members: Members, catalogue: Catalogue) -> None:
        self._members = members
        self._catalogue = catalogue
        self._hashes = b""

    def invalidate(self) -> None:
        """Drop the hashes: a cell or a head has changed."""
        self._hashes = b""

    def hashes(self) -> bytes:
        """Return for each bucket the sum of its rows' hashes; the order in which members became known has no effect."""
        if not self._hashes:
            sums = [0] * BUCKETS
            for member in self._members.all():
                sums[bucket(member.id)] += self._row(member)
            self._hashes = b"".join([(total % _MODULUS).to_bytes(_HASH, "big") for total in sums])
        return self._hashes

    def differing(self, theirs: bytes) -> bytes:
        """Return the scope of the buckets in which a peer's hashes differ; all buckets if their length is wrong."""
        if len(theirs) != HASHES_SIZE:
            return EVERYTHING
        mine = self.hashes()
        scope = bytearray(SCOPE_SIZE)
        if mine != theirs:
            for number in range(BUCKETS):
                start = number * _HASH
                if mine[start : start + _HASH] != theirs[start : start + _HASH]:
                    scope[number >> 3] |= 0x80 >> (number & 7)
        return bytes(scope)

    def _row(self, member: Member) -> int:
        content = self._catalogue.content(member.id)
        hasher = blake2b(member.id, digest_size=_HASH)
        known = member.card_incarnation == member.incarnation
        hasher.update(bytes((member.standing, known)) + member.incarnation.to_bytes(4, "big"))
        if content is not None:
            hasher.update(content.version.to_bytes(8, "big") + content.hash.to_bytes(16, "big"))
        return int.from_bytes(hasher.digest(), "big")


NO_CARD = b"-"
"""In a digest: this member's card is not known here. These bytes cannot be parsed as a card."""


def digest(members: Members) -> tuple[Claim, ...]:
    """Return all cells without their cards; `NO_CARD` marks a card that is not known here."""
    return tuple(
        [
            Claim(
                current.id,
                current.incarnation,
                int(current.standing),
                b"" if current.card_incarnation == current.incarnation else NO_CARD,
            )
            for current in members.all()
        ]
    )


def older(members: Members, theirs: Iterable[Claim]) -> list[Claim]:
    """Return the cells in which a peer's digest is ahead, as held here; incarnation -1 if cell or card is missing."""
    rows: list[Claim] = []
    for claim in theirs:
        member = MemberId(claim.member)
        current = members.get(member)
        if claim.incarnation > LAST_INCARNATION:
            continue
        if current is None:
            if not members.retired(member) and claim.standing != Standing.RETIRED:
                rows.append(Claim(member, -1, 0))
        elif claim.card != NO_CARD and current.card_incarnation != current.incarnation:
            rows.append(Claim(member, -1, 0))
        elif current.key < (claim.incarnation, claim.standing):
            rows.append(Claim(member, current.incarnation, int(current.standing)))
    return rows


def newer(members: Members, theirs: Iterable[Claim], *, beyond: Iterable[Member] | None = None) -> list[Claim]:
    """Return the cells that are newer here than in a peer's digest, and those that are not in it.

    With `beyond`, of the latter only those in `beyond`.
    """
    rest = {current.id: current for current in (members.all() if beyond is None else beyond)}
    found: list[Claim] = []
    for claim in theirs:
        member = MemberId(claim.member)
        rest.pop(member, None)
        current = members.get(member)
        if current is None:
            if members.retired(member):
                found.append(Claim(member, 0, int(Standing.RETIRED)))
        elif current.key > (claim.incarnation, claim.standing) or (
            claim.card == NO_CARD and current.card_incarnation == current.incarnation
        ):
            found.append(current.claim())
    return [*(current.claim() for current in rest.values()), *found]


INLINE_DELTA = 1024
"""A delta of at most this many bytes is sent with its head; a longer one is sent on request."""
_NOTHING = bytes(16)


class AntiEntropy:
    """Answers comparisons from the current state. `Cluster` invalidates `buckets` after each change."""

    __slots__ = ("_catalogue", "_limits", "_members", "buckets")

    def __init__(self, members: Members, catalogue: Catalogue, limits: Limits) -> None:
        self._members = members
        self._limits = limits
        self._catalogue = catalogue
        self.buckets: Buckets = Buckets(members, catalogue)

    def introduce(self, link: LinkId) -> list[SendMessage]:
        """Return the first message to a node just dialled: the own cell and offers.

        So the peer can use this node after a single one-way trip.
        """
        deltas: list[Delta] = []
        heads: list[Head] = []
        content = self._catalogue.content(self._members.me)
        if content is not None:
            self._offer(content.head, None, deltas, heads)
        return [SendMessage(link, Gossip((self._members.own.claim(),), tuple(deltas), tuple(heads)))]

    def compare(self, link: LinkId) -> list[SendMessage]:
        """Begin a comparison: with a node just dialled, and with one neighbour at intervals."""
        if len(self._members) <= self._limits.full_digest:
            return [SendMessage(link, Digest(digest(self._members), self._catalogue.heads()))]
        return [SendMessage(link, BucketHashes(self.buckets.hashes()))]

    def answer_bucket_hashes(self, link: LinkId, message: BucketHashes) -> tuple[list[SendMessage], bool]:
        """Answer with the cells and heads of the buckets that differ, or with an empty Gossip if none does.

        Returns also True if none does.
        """
        scope = self.buckets.differing(message.hashes)
        if not any(scope):
            return [SendMessage(link, Gossip(answer=True))], True
        claims = tuple(claim for claim in digest(self._members) if within(scope, bucket(MemberId(claim.member))))
        heads = tuple(head for head in self._catalogue.heads() if within(scope, bucket(MemberId(head.member))))
        return [SendMessage(link, Digest(claims, heads, scope))], False

    def answer_digest(self, link: LinkId, digest: Digest) -> tuple[list[SendMessage], bool]:
        """Answer with everything that is newer here, and a Pull for what the digest has newer.

        The Gossip is sent even if it is empty: it also marks that the peer now has the whole state of this node.
        Returns also whether the digest has nothing newer.
        """
        scope = digest.scope if len(digest.scope) == SCOPE_SIZE else b""
        theirs = {head.member: head for head in digest.heads}
        deltas: list[Delta] = []
        heads: list[Head] = []
        for head in self._catalogue.heads():
            if within(scope, bucket(MemberId(head.member))):
                self._offer(head, theirs.get(head.member), deltas, heads)
        beyond = [member for member in self._members.all() if within(scope, bucket(member.id))]
        claims = tuple(newer(self._members, digest.claims, beyond=beyond))
        gossip = Gossip(claims, tuple(deltas), tuple(heads), answer=True)
        missing, behind = tuple(older(self._members, digest.claims)), self._behind(digest)
        if missing or behind:
            return [SendMessage(link, gossip), SendMessage(link, Pull(missing, behind))], False
        return [SendMessage(link, gossip)], True

    def answer_pull(self, link: LinkId, pull: Pull) -> list[SendMessage]:
        """Answer with what the peer lacks, as it is now: it may have changed since the digest."""
        deltas: list[Delta] = []
        heads: list[Head] = []
        for their in pull.heads:
            content = self._catalogue.content(MemberId(their.member))
            if content is not None:
                self._offer(content.head, their, deltas, heads)
        claims = tuple(newer(self._members, pull.claims, beyond=()))
        return [SendMessage(link, Gossip(claims, tuple(deltas), tuple(heads), answer=True))]

    def correct_retired(self, link: LinkId, corrected: dict[MemberId, None]) -> list[SendMessage]:
        """Send the RETIRED ids that a peer sent with another standing, as no digest holds them.

        `corrected` holds the ids already sent on this link: each is sent once a link.
        """
        late = [member for member in self._members.drain_stale_ids() if member not in corrected]
        corrected.update(dict.fromkeys(late))
        retired = int(Standing.RETIRED)
        return [SendMessage(link, Gossip(tuple(Claim(member, 0, retired) for member in late)))] if late else []

    def _offer(self, head: Head, their: Head | None, deltas: list[Delta], heads: list[Head]) -> None:
        """Add the delta or the head of a catalogue held here at `head`, for a peer that holds it at `their`."""
        have = 0 if their is None else their.version
        if have < head.version:
            delta = self._catalogue.delta(MemberId(head.member), have)
            if delta is not None and wire_size(delta) <= INLINE_DELTA:
                deltas.append(delta)
            else:
                heads.append(head)
        elif their is not None and have == head.version and their.hash != head.hash and self._owned(head):
            heads.append(head)

    def _behind(self, digest: Digest) -> tuple[Head, ...]:
        """Return the heads that the digest has newer, each as it is held here."""
        behind: list[Head] = []
        for head in digest.heads:
            member = MemberId(head.member)
            if head.member != self._members.me and head.version <= LAST_VERSION and self._is_useful(member):
                content = self._catalogue.content(member)
                if content is None:
                    behind.append(Head(member, 0, _NOTHING))
                elif content.version < head.version:
                    behind.append(content.head)
        return tuple(behind)

    def _is_useful(self, member: MemberId) -> bool:
        """Return whether a member's catalogue is of use: the member is routable here, or not known here yet."""
        current: Member | None = self._members.get(member)
        return current.routable if current is not None else self._members.standing(member) is None

    def _owned(self, head: Head) -> bool:
        return head.member == self._members.me
