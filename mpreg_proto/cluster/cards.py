"""What a member says about itself, as its owner alone writes it, and as others read it.

Cards come in claims, as their owner's bytes, and are passed on as those. Nothing here raises for what somebody wrote.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import VERSION

_CARD = 8 * 1024
_ADDRESSES = 16
_ADDRESS = 1024


class Card(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a member says about itself; fixed for one incarnation. Its owner encodes it, once."""

    name: str
    addresses: tuple[str, ...] = ()
    versions: tuple[int, int] = (VERSION, VERSION)
    """Lowest and highest protocol version that it speaks."""
    group: str = ""
    release: str = ""
    """The version of the distribution, for people."""


_decode_card = msgspec.msgpack.Decoder(Card).decode


def parse_card(data: bytes, limits: Limits) -> Card | None:
    """A card of somebody else's, or None if it cannot be read or is longer than any honest one."""
    if len(data) > _CARD:
        return None
    try:
        card = _decode_card(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    honest = (
        len(card.name) <= limits.name_length
        and len(card.addresses) <= _ADDRESSES
        and all(len(address) <= _ADDRESS for address in card.addresses)
    )
    return card if honest else None


def card_hash(data: bytes) -> bytes:
    """Decides between two cards for one key, the same way everywhere."""
    return blake2b(data, digest_size=16).digest()
