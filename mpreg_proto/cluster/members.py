"""Membership: one liveness cell and one card for each member id; both only grow.

Claims come from other nodes' `Gossip` and from this node's own detector; what rose goes back to the caller, which
spreads it. Merging is the pointwise maximum of (incarnation, standing), with RETIRED above all, so order, repetition
and batching of claims have no effect (a join-semilattice). A `Card` is what a member publishes about itself. Within one
incarnation it is fixed; members pass on its owner's own bytes and never encode them again. Nothing here dials, waits,
or raises for a claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from mpreg_proto.ids import MEMBER_ID_BYTES, MemberId, show
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import VERSION, Claim

__all__ = ["LAST_INCARNATION", "Card", "Member", "Members"]

_CARD = 8 * 1024
_ADDRESSES = 16
_ADDRESS = 1024


class Card(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The data that a member publishes about itself; fixed for one incarnation. Its owner encodes it, once."""

    name: str
    addresses: tuple[str, ...] = ()
    versions: tuple[int, int] = (VERSION, VERSION)
    """The lowest and the highest protocol version that it supports."""
    group: str = ""
    release: str = ""
    """The version of the distribution, to show to users."""


_decode_card = msgspec.msgpack.Decoder(Card).decode


def parse_card(data: bytes, limits: Limits) -> Card | None:
    """Return the card of another member, or None if it cannot be decoded or is longer than any honest one."""
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
    """Return the hash that decides between two cards for one key, with the same result on every node."""
    return blake2b(data, digest_size=16).digest()


LAST_INCARNATION = 2**31 - 1
"""Claims beyond it are dropped, so that one message cannot use up a member's incarnations."""
MAX_ACCUSERS = 10
"""The number of accusers kept of one incarnation: those with the smallest ids, so that the order of claims is
irrelevant."""


class Member:
    """One member in this node's view. Only `Members` writes to it."""

    __slots__ = (
        "accusers",
        "card",
        "card_bytes",
        "card_incarnation",
        "id",
        "incarnation",
        "since",
        "standing",
        "was_dead",
    )

    def __init__(self, member: MemberId, incarnation: int, standing: Standing, *, since: int) -> None:
        self.id: MemberId = member
        self.incarnation: int = incarnation
        self.standing: Standing = standing
        self.since: int = since
        """The time of the last change of its standing, in nanoseconds of this node's clock."""
        self.accusers: tuple[MemberId, ...] = ()
        """The members that claim SUSPECT of this incarnation, by id; empty in any other standing."""
        self.was_dead: bool = False
        """True if it was once DEAD or LEFT, and its catalogue was dropped."""
        self.card: Card | None = None
        self.card_bytes: bytes = b""
        self.card_incarnation: int = -1

    @property
    def shown(self) -> str:
        """The name and id to show to users."""
        return show(self.name, self.id)

    @property
    def name(self) -> str:
        """Its name; empty while no card of it is known."""
        return "" if self.card is None else self.card.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that its card names."""
        return () if self.card is None else self.card.addresses

    @property
    def routable(self) -> bool:
        """True if calls may go there: ALIVE, or SUSPECT and ranked last."""
        return self.standing <= Standing.SUSPECT

    @property
    def key(self) -> tuple[int, Standing]:
        """The liveness cell, in the order in which it grows; RETIRED is kept apart, above all others."""
        return self.incarnation, self.standing

    def claim(self) -> Claim:
        """Return the cell as it is sent; with the card, if the card of this incarnation is known."""
        card = self.card_bytes if self.card_incarnation == self.incarnation else b""
        return Claim(self.id, self.incarnation, int(self.standing), card, self.accusers)


class Members:
    """The map from member id to cell and card, the local member included. No claims make it grow past its limits."""

    def __init__(self, me: MemberId, card: Card, *, limits: Limits, now: int) -> None:
        self._limits = limits
        self.me = me
        self.id_retired: bool = False
        """True if others mark this id LEFT or RETIRED, or it cannot refute any more: the process needs a new id."""
        self._card_conflicts: list[MemberId] = []
        self._evicted: list[MemberId] = []
        self._confirmed: dict[MemberId, Member] = {}
        self._stale_ids: dict[MemberId, None] = {}
        own = Member(me, 0, Standing.ALIVE, since=now)
        self._members: dict[MemberId, Member] = {me: own}
        self._living = 1
        self._dead: dict[MemberId, int] = {}
        self._retired: dict[MemberId, int] = {}
        _set_card(own, card, msgspec.msgpack.encode(card), 0)

    @property
    def own(self) -> Member:
        """The local member."""
        return self._members[self.me]

    def get(self, member: MemberId) -> Member | None:
        """Return the record of a member; None if it is unknown or RETIRED, as only the id of a RETIRED one is kept."""
        return self._members.get(member)

    def standing(self, member: MemberId) -> Standing | None:
        """Return the standing of a member, RETIRED included; None if it is unknown."""
        current = self._members.get(member)
        if current is not None:
            return current.standing
        return Standing.RETIRED if member in self._retired else None

    def routable(self, member: MemberId) -> bool:
        """Return whether calls may go to a member."""
        current = self._members.get(member)
        return current is not None and current.standing <= Standing.SUSPECT

    def all(self) -> list[Member]:
        """Return all members except the RETIRED, in the order in which they became known."""
        return list(self._members.values())

    def retired(self, member: MemberId) -> bool:
        """Return whether a member is RETIRED, so that only its id is kept."""
        return member in self._retired

    def __len__(self) -> int:
        return len(self._members)

    @property
    def living(self) -> int:
        """The number of members that are ALIVE or SUSPECT."""
        return self._living

    # -- claims ---------------------------------------------------------------------------------------------------

    def merge(self, claims: Iterable[Claim], now: int) -> list[Member]:
        """Merge the claims of others; return the members that rose, each once, to be passed on.

        Never raises: a claim that is malformed or beyond a limit changes nothing. A claim against this process itself
        is refuted at once: its own incarnation rises above the claim's, and it is among the members returned.
        """
        raised: dict[MemberId, Member] = {}
        known = self._members
        for claim in claims:
            current = known.get(MemberId(claim.member))
            if (  # most claims received are repetitions
                current is not None
                and current.incarnation == claim.incarnation
                and current.standing == claim.standing
                and current.card_bytes == claim.card
                and current.card_incarnation == current.incarnation
                and current.accusers == claim.accusers
            ):
                continue
            member = self._merge(claim, now)
            if member is not None:
                raised[member.id] = member
        return list(raised.values())

    def _merge(self, claim: Claim, now: int) -> Member | None:
        member = MemberId(claim.member)
        if (
            len(member) != MEMBER_ID_BYTES
            or not 0 <= claim.incarnation <= LAST_INCARNATION
            or not 0 <= claim.standing <= 4
        ):
            return None
        standing = Standing(claim.standing)
        card: Card | None = None
        if claim.card and standing is not Standing.RETIRED:
            card = parse_card(claim.card, self._limits)
            if card is None:
                return None
        if member == self.me:
            return self._refute(claim, standing)
        if member in self._retired:
            if standing is not Standing.RETIRED:
                self._stale_ids[member] = None
            return None
        if standing is Standing.RETIRED:
            return self._retire(member, now)
        current = self._members.get(member)
        if current is None:
            if standing <= Standing.SUSPECT and self._living >= self._limits.members:
                return None
            current = Member(member, claim.incarnation, standing, since=now)
            self._members[member] = current
            self._count_in(current, now)
            rose = True
        else:
            rose = self._raise(current, claim.incarnation, standing, now)
        if card is not None and self._merge_card(current, card, claim):
            rose = True
        if claim.accusers and self._add_accusers(current, claim) and not rose:
            self._confirmed[member] = current
        return current if rose else None

    def _add_accusers(self, current: Member, claim: Claim) -> bool:
        """Add the accusers of a claim about exactly this cell to those known. Return whether there are more now."""
        if current.standing is not Standing.SUSPECT or (claim.incarnation, claim.standing) != current.key:
            return False
        named = [
            MemberId(one) for one in claim.accusers[:MAX_ACCUSERS] if len(one) == MEMBER_ID_BYTES and one != current.id
        ]
        joined = tuple(sorted(dict.fromkeys((*current.accusers, *named))))[:MAX_ACCUSERS]
        if joined == current.accusers:
            return False
        current.accusers = joined
        return True

    def _merge_card(self, current: Member, card: Card, claim: Claim) -> bool:
        """Merge a card: the later incarnation wins, within one the larger hash. Return whether others need it."""
        if claim.incarnation < current.card_incarnation:
            return False
        if claim.incarnation == current.card_incarnation:
            if claim.card == current.card_bytes:
                return False
            self._card_conflict(current.id)
            if card_hash(claim.card) < card_hash(current.card_bytes):
                return False
        _set_card(current, card, claim.card, claim.incarnation)
        # A card of an earlier incarnation than the cell's is kept, as better than none, but not passed on.
        return current.card_incarnation == current.incarnation

    def _refute(self, claim: Claim, standing: Standing) -> Member | None:
        """Refute a claim: only the local member raises its incarnation and writes its card (SWIM, section 4.2)."""
        own = self.own
        if own.standing is Standing.LEFT:
            return None
        ours = own.key
        theirs = (claim.incarnation, standing)
        forged = theirs[0] == ours[0] and bool(claim.card) and claim.card != own.card_bytes
        if standing is Standing.RETIRED or (standing is Standing.LEFT and theirs > ours):
            self.id_retired = True
            return None
        if theirs <= ours and not forged:
            return None
        if forged:
            self._card_conflict(self.me)
        if claim.incarnation >= LAST_INCARNATION:
            self.id_retired = True
            return None
        own.incarnation = own.card_incarnation = claim.incarnation + 1
        return own

    def declare(self, member: MemberId, standing: Standing, now: int) -> Member | None:
        """Raise another member's standing at the incarnation held; None if that changes nothing.

        `standing` is SUSPECT, DEAD or RETIRED: only the member itself declares LEFT, and no member accuses itself. With
        SUSPECT this node becomes one of the accusers; the first time that is a change.
        """
        assert standing not in (Standing.ALIVE, Standing.LEFT) and member != self.me, "not for others to say"
        current = self._members.get(member)
        if current is None:
            return None
        if standing is Standing.RETIRED:
            return self._retire(member, now)
        rose = self._raise(current, current.incarnation, standing, now)
        mine = Claim(member, current.incarnation, int(standing), accusers=(self.me,))
        return current if self._add_accusers(current, mine) or rose else None

    def update_card(self, card: Card, now: int) -> Member:
        """Replace the own card, with the next incarnation."""
        own = self.own
        if own.incarnation >= LAST_INCARNATION:
            self.id_retired = True
            return own
        own.incarnation += 1
        _set_card(own, card, msgspec.msgpack.encode(card), own.incarnation)
        return own

    def leave(self, now: int) -> Member:
        """Mark the local member LEFT at its own incarnation. It refutes no claim after that."""
        own = self.own
        if own.standing is not Standing.LEFT:
            own.standing, own.since = Standing.LEFT, now
        return own

    # -- findings: each is returned once ----------------------------------------------------------------------------

    def drain_card_conflicts(self) -> list[MemberId]:
        """Return the members whose card came with other bytes than those known, since the last call; at most 100."""
        drained, self._card_conflicts = self._card_conflicts, []
        return drained

    def drain_evicted(self) -> list[MemberId]:
        """Return the members that were retired early to keep a limit, since the last call."""
        drained, self._evicted = self._evicted, []
        return drained

    def drain_confirmed(self) -> list[Member]:
        """Return the SUSPECT members of which `merge` learnt more accusers, since the last call."""
        drained, self._confirmed = self._confirmed, {}
        return list(drained.values())

    def drain_stale_ids(self) -> list[MemberId]:
        """Return the RETIRED ids that `merge` received with another standing, since the last call."""
        drained, self._stale_ids = self._stale_ids, {}
        return list(drained)

    # -- outgoing claims ------------------------------------------------------------------------------------------

    def claim(self, member: MemberId) -> Claim | None:
        """Return the claim about one member to send; a bare id if RETIRED, None if unknown."""
        current = self._members.get(member)
        if current is not None:
            return current.claim()
        return Claim(member, 0, int(Standing.RETIRED)) if member in self._retired else None

    # -- retiring and forgetting ----------------------------------------------------------------------------------

    def collect(self, now: int) -> list[Member]:
        """Retire members after `Limits.dead_for`, forget ids after `Limits.retired_for`; return the newly RETIRED."""
        old = [member for member, since in self._dead.items() if since + self._limits.dead_for <= now]
        retired = [self._retire(member, now) for member in old]
        for member in [member for member, since in self._retired.items() if since + self._limits.retired_for <= now]:
            del self._retired[member]
        return retired

    def next_collection(self) -> int | None:
        """Return the time of the next work for `collect`, or None."""
        dead = next(iter(self._dead.values()), None)
        retired = next(iter(self._retired.values()), None)
        times = [
            *([] if dead is None else [dead + self._limits.dead_for]),
            *([] if retired is None else [retired + self._limits.retired_for]),
        ]
        return min(times, default=None)

    def _raise(self, current: Member, incarnation: int, standing: Standing, now: int) -> bool:
        if (incarnation, standing) <= current.key:
            return False
        current.accusers = ()
        if standing is not current.standing:
            self._count_out(current)
            current.standing, current.since = standing, now
            self._count_in(current, now)
        current.incarnation = incarnation
        return True

    def _count_in(self, current: Member, now: int) -> None:
        if current.standing <= Standing.SUSPECT:
            self._living += 1
            return
        self._dead[current.id] = now
        current.was_dead = True
        while len(self._dead) > self._limits.dead_members:
            oldest = next(iter(self._dead))
            self._retire(oldest, now)
            self._evicted.append(oldest)

    def _count_out(self, current: Member) -> None:
        if current.standing <= Standing.SUSPECT:
            self._living -= 1
        else:
            del self._dead[current.id]

    def _retire(self, member: MemberId, now: int) -> Member:
        """Keep only the bare id of a member, known or not."""
        current = self._members.pop(member, None)
        if current is None:
            current = Member(member, 0, Standing.RETIRED, since=now)
        else:
            self._count_out(current)
            current.incarnation, current.standing, current.since = 0, Standing.RETIRED, now
        self._retired[member] = now
        while len(self._retired) > self._limits.retired_members:
            del self._retired[next(iter(self._retired))]
        return current

    def _card_conflict(self, member: MemberId) -> None:
        if len(self._card_conflicts) < 100:
            self._card_conflicts.append(member)


def _set_card(member: Member, card: Card, data: bytes, incarnation: int) -> None:
    member.card, member.card_bytes, member.card_incarnation = card, data, incarnation
