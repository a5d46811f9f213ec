"""All that is known as 256 hashes, so that two nodes find out in 2 KiB in what they differ.

It reads members and catalogue; whoever changes a cell or a head calls `invalidate`. Retired ids are left out, as their
collection is not the same moment everywhere. Nothing here sends.
"""

from __future__ import annotations

from hashlib import blake2b

from mpreg_proto.cluster.catalogue import Catalogue
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.ids import MemberId

BUCKETS = 256
_HASH = 8
HASHES_SIZE = BUCKETS * _HASH
SCOPE_SIZE = BUCKETS // 8
EVERYTHING = b"\xff" * SCOPE_SIZE
_MODULUS = 1 << (8 * _HASH)
_MULTIPLIER = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Of Fibonacci hashing (Knuth, 6.4): 2**128 divided by the golden ratio, so that all bits of an id count."""


def bucket(member: MemberId) -> int:
    """Which bucket an id is in."""
    return (int.from_bytes(member, "big") * _MULTIPLIER & ((1 << 128) - 1)) >> 120


def within(scope: bytes, number: int) -> bool:
    """Whether a bucket is in a scope; an empty scope has all of them."""
    return not scope or bool(scope[number >> 3] & 0x80 >> (number & 7))


class Buckets:
    """The hashes, worked out anew when they are asked for and something changed since."""

    __slots__ = ("_catalogue", "_hashes", "_members")

    def __init__(self, members: Members, catalogue: Catalogue) -> None:
        self._members = members
        self._catalogue = catalogue
        self._hashes = b""

    def invalidate(self) -> None:
        """Some cell or head is other than it was."""
        self._hashes = b""

    def hashes(self) -> bytes:
        """Of each bucket the sum of its rows' hashes, so that the order in which members became known is nothing."""
        if not self._hashes:
            sums = [0] * BUCKETS
            for member in self._members.all():
                sums[bucket(member.id)] += self._row(member)
            self._hashes = b"".join([(total % _MODULUS).to_bytes(_HASH, "big") for total in sums])
        return self._hashes

    def differing(self, theirs: bytes) -> bytes:
        """The scope of the buckets in which another's summary is not mine; all of them if it cannot be read."""
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
