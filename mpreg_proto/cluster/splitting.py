"""A message about members that is too long for its link, as two shorter ones with the same effect together.

The receiver handles them like any two messages: claims come before catalogues, as these are useless without them, and
what a digest leaves out is outside of its scope. A message with a single item is not split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from mpreg_proto.cluster.anti_entropy import BUCKETS, SCOPE_SIZE, bucket, within
from mpreg_proto.ids import MemberId
from mpreg_proto.wire.messages import Claim, Delta, Digest, Gossip, Head, Message, Pull


def halves(message: Message) -> list[Message]:
    """Return two messages in place of one, in the order in which to send them; none if it cannot be split."""
    split = _SPLITTERS.get(type(message))
    return [] if split is None else split(message)


def _split_gossip(gossip: Gossip) -> list[Message]:
    """Split a Gossip. Only the last part is marked as the answer: with it the receiver has everything."""
    items: tuple[Claim | Delta | Head, ...] = (*gossip.claims, *gossip.deltas, *gossip.heads)
    if len(items) < 2:
        return []
    first, second = items[: len(items) // 2], items[len(items) // 2 :]
    return [_gossip(first, answer=False), _gossip(second, answer=gossip.answer)]


def _gossip(items: tuple[Claim | Delta | Head, ...], *, answer: bool) -> Gossip:
    return Gossip(
        tuple([item for item in items if isinstance(item, Claim)]),
        tuple([item for item in items if isinstance(item, Delta)]),
        tuple([item for item in items if isinstance(item, Head)]),
        answer,
    )


def _split_digest(digest: Digest) -> list[Message]:
    """Split a Digest: each half covers about half of the buckets."""
    scope = digest.scope if len(digest.scope) == SCOPE_SIZE else b""
    places = [place for place in range(BUCKETS) if within(scope, place)]
    if len(places) < 2:
        return []
    parts: list[Message] = []
    for half in (places[: len(places) // 2], places[len(places) // 2 :]):
        mask = _scope(half)
        claims = tuple([one for one in digest.claims if within(mask, bucket(MemberId(one.member)))])
        heads = tuple([one for one in digest.heads if within(mask, bucket(MemberId(one.member)))])
        parts.append(Digest(claims, heads, mask))
    return parts


def _scope(places: list[int]) -> bytes:
    mask = bytearray(SCOPE_SIZE)
    for place in places:
        mask[place >> 3] |= 0x80 >> (place & 7)
    return bytes(mask)


def _split_pull(pull: Pull) -> list[Message]:
    items: tuple[Claim | Head, ...] = (*pull.claims, *pull.heads)
    if len(items) < 2:
        return []
    return [
        msgspec.structs.replace(
            pull,
            claims=tuple([item for item in half if isinstance(item, Claim)]),
            heads=tuple([item for item in half if isinstance(item, Head)]),
        )
        for half in (items[: len(items) // 2], items[len(items) // 2 :])
    ]


_SPLITTERS: Final[dict[type, Callable[[Any], list[Message]]]] = {
    Gossip: _split_gossip,
    Digest: _split_digest,
    Pull: _split_pull,
}
