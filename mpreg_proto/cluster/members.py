"""Who is in the cluster: one liveness cell and one card for each member id, each a maximum.

Claims come from other nodes' `News` and from this node's own detector; what rose goes back to the caller, which
spreads it. Merging is the pointwise maximum of (incarnation, standing), with RETIRED above all, so neither order
nor repetition nor batching of claims can matter (a join-semilattice). Within one incarnation the owner's card is
fixed; relays pass on the owner's own bytes and never encode them anew. Nothing here dials, waits or raises for a
claim.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpreg_proto.cluster.cards import Card, card_hash, readable_card
from mpreg_proto.ids import MemberId, show
from mpreg_proto.limits import HOUR, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

__all__ = ["FORGOTTEN_AFTER", "LAST_INCARNATION", "RETIRES_AFTER", "Card", "Member", "Members"]

LAST_INCARNATION = 2**31 - 1
"""Claims beyond are dropped, so that nobody can spend a member's incarnations with one message."""
RETIRES_AFTER = 24 * HOUR
FORGOTTEN_AFTER = 7 * 24 * HOUR
ACCUSERS = 10
"""So many accusers of one incarnation are kept: those with the smallest ids, so that no order of claims matters."""
_ID = 16


class Member:
    """One member as this node sees it. Only `Members` writes to it."""

    __slots__ = (
        "accusers",
        "card",
        "card_bytes",
        "card_incarnation",
        "fell",
        "id",
        "incarnation",
        "since",
        "standing",
    )

    def __init__(self, member: MemberId, incarnation: int, standing: Standing, *, since: int) -> None:
        self.id = member
        self.incarnation = incarnation
        self.standing = standing
        self.since = since
        """When its standing last changed, in nanoseconds of this node's clock."""
        self.accusers: tuple[MemberId, ...] = ()
        """Who says SUSPECT of this incarnation, by id; empty in any other standing."""
        self.fell = False
        """Whether it was once DEAD or LEFT, and its catalogue dropped."""
        self.card: Card | None = None
        self.card_bytes = b""
        self.card_incarnation = -1

    @property
    def shown(self) -> str:
        """As people see it."""
        return show(self.name, self.id)

    @property
    def name(self) -> str:
        """Its name, or nothing while no card of it is known."""
        return "" if self.card is None else self.card.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its card says that it can be dialled."""
        return () if self.card is None else self.card.addresses

    @property
    def routable(self) -> bool:
        """Whether calls may go there: ALIVE, or SUSPECT and ranked last."""
        return self.standing <= Standing.SUSPECT

    @property
    def key(self) -> tuple[int, Standing]:
        """The liveness cell, in the order in which it grows; RETIRED is kept apart, above all of them."""
        return self.incarnation, self.standing

    def claim(self) -> Claim:
        """The cell as it travels; with the card, if that of this very incarnation is known."""
        card = self.card_bytes if self.card_incarnation == self.incarnation else b""
        return Claim(self.id, self.incarnation, int(self.standing), card, self.accusers)


class Members:
    """The map from member id to cell and card, myself included. No flood of claims makes it grow past its bounds."""

    def __init__(self, me: MemberId, card: Card, *, limits: Limits, now: int) -> None:
        self._limits = limits
        self.me = me
        self.disowned = False
        """Others hold this very id for LEFT or RETIRED, or it cannot refute any more: the process needs a new id."""
        self.violations: list[MemberId] = []
        """Whose key came with other card bytes than those known; whoever reads it empties it. At most 100."""
        self.evicted: list[MemberId] = []
        """Who was retired before its time to keep a bound; whoever reads it empties it."""
        self.agreed: dict[MemberId, Member] = {}
        """SUSPECT members of whom more accusers became known by `merge`; whoever reads it empties it."""
        self.late: dict[MemberId, None] = {}
        """RETIRED ids that `merge` heard of as something else; whoever reads it empties it."""
        own = Member(me, 0, Standing.ALIVE, since=now)
        self._members: dict[MemberId, Member] = {me: own}
        self._living = 1
        self._dead: dict[MemberId, int] = {}
        self._retired: dict[MemberId, int] = {}
        _hand(own, card, msgspec.msgpack.encode(card), 0)

    @property
    def own(self) -> Member:
        """Myself."""
        return self._members[self.me]

    def get(self, member: MemberId) -> Member | None:
        """What is known about a member; None for the unknown and the RETIRED, of which only the id is kept."""
        return self._members.get(member)

    def standing(self, member: MemberId) -> Standing | None:
        """How a member is, also if RETIRED; None if it is unknown."""
        held = self._members.get(member)
        if held is not None:
            return held.standing
        return Standing.RETIRED if member in self._retired else None

    def routable(self, member: MemberId) -> bool:
        """Whether calls may go there."""
        held = self._members.get(member)
        return held is not None and held.standing <= Standing.SUSPECT

    def all(self) -> list[Member]:
        """Everybody but the RETIRED, in the order in which they were first heard of."""
        return list(self._members.values())

    def retired(self, member: MemberId) -> bool:
        """Whether nothing but its id is kept, for good."""
        return member in self._retired

    def __len__(self) -> int:
        return len(self._members)

    @property
    def living(self) -> int:
        """How many are ALIVE or SUSPECT."""
        return self._living

    # -- claims ---------------------------------------------------------------------------------------------------

    def merge(self, claims: Iterable[Claim], now: int) -> list[Member]:
        """Take in what others believe; return those that rose, each once, to be passed on.

        Never raises: a claim that is malformed or beyond a bound changes nothing. A claim against this process itself
        is refuted at once: its own incarnation rises above the claim's, and it is among those returned.
        """
        risen: dict[MemberId, Member] = {}
        known = self._members
        for claim in claims:
            held = known.get(MemberId(claim.member))
            if (  # most of what is heard is heard again
                held is not None
                and held.incarnation == claim.incarnation
                and held.standing == claim.standing
                and held.card_bytes == claim.card
                and held.card_incarnation == held.incarnation
                and held.accusers == claim.accusers
            ):
                continue
            member = self._merge(claim, now)
            if member is not None:
                risen[member.id] = member
        return list(risen.values())

    def _merge(self, claim: Claim, now: int) -> Member | None:
        member = MemberId(claim.member)
        if len(member) != _ID or not 0 <= claim.incarnation <= LAST_INCARNATION or not 0 <= claim.standing <= 4:
            return None
        standing = Standing(claim.standing)
        card: Card | None = None
        if claim.card and standing is not Standing.RETIRED:
            card = readable_card(claim.card, self._limits)
            if card is None:
                return None
        if member == self.me:
            return self._answer(claim, standing)
        if member in self._retired:
            if standing is not Standing.RETIRED:
                self.late[member] = None
            return None
        if standing is Standing.RETIRED:
            return self._retire(member, now)
        held = self._members.get(member)
        if held is None:
            if standing <= Standing.SUSPECT and self._living >= self._limits.members:
                return None
            held = Member(member, claim.incarnation, standing, since=now)
            self._members[member] = held
            self._enter(held, now)
            rose = True
        else:
            rose = self._raise(held, claim.incarnation, standing, now)
        if card is not None and self._take_card(held, card, claim):
            rose = True
        if claim.accusers and self._accused_by(held, claim) and not rose:
            self.agreed[member] = held
        return held if rose else None

    def _accused_by(self, held: Member, claim: Claim) -> bool:
        """Join the accusers of a claim about this very cell to those that are known. Whether there are more now."""
        if held.standing is not Standing.SUSPECT or (claim.incarnation, claim.standing) != held.key:
            return False
        said = [MemberId(one) for one in claim.accusers[:ACCUSERS] if len(one) == _ID and one != held.id]
        joined = tuple(sorted(dict.fromkeys((*held.accusers, *said))))[:ACCUSERS]
        if joined == held.accusers:
            return False
        held.accusers = joined
        return True

    def _take_card(self, held: Member, card: Card, claim: Claim) -> bool:
        """The card's own maximum: of the later incarnation, and within one the larger hash. Whether others need it."""
        if claim.incarnation < held.card_incarnation:
            return False
        if claim.incarnation == held.card_incarnation:
            if claim.card == held.card_bytes:
                return False
            self._violated(held.id)
            if card_hash(claim.card) < card_hash(held.card_bytes):
                return False
        _hand(held, card, claim.card, claim.incarnation)
        # A card of an earlier incarnation than the cell's is better than none, but it is not this one's: not passed on.
        return held.card_incarnation == held.incarnation

    def _answer(self, claim: Claim, standing: Standing) -> Member | None:
        """A claim about myself: nobody but me raises my incarnation or writes my card (SWIM, section 4.2)."""
        own = self.own
        if own.standing is Standing.LEFT:
            return None
        ours = own.key
        theirs = (claim.incarnation, standing)
        forged = theirs[0] == ours[0] and bool(claim.card) and claim.card != own.card_bytes
        if standing is Standing.RETIRED or (standing is Standing.LEFT and theirs > ours):
            self.disowned = True
            return None
        if theirs <= ours and not forged:
            return None
        if forged:
            self._violated(self.me)
        if claim.incarnation >= LAST_INCARNATION:
            self.disowned = True
            return None
        own.incarnation = own.card_incarnation = claim.incarnation + 1
        return own

    def accuse(self, member: MemberId, standing: Standing, now: int) -> Member | None:
        """Raise somebody's standing at the incarnation held; None if that changes nothing.

        `standing` is SUSPECT, DEAD or RETIRED: only its owner says LEFT, and nobody accuses himself. Who says SUSPECT
        is among the accusers from then on, and so changes something the first time.
        """
        assert standing not in (Standing.ALIVE, Standing.LEFT) and member != self.me, "not for others to say"
        held = self._members.get(member)
        if held is None:
            return None
        if standing is Standing.RETIRED:
            return self._retire(member, now)
        rose = self._raise(held, held.incarnation, standing, now)
        mine = Claim(member, held.incarnation, int(standing), accusers=(self.me,))
        return held if self._accused_by(held, mine) or rose else None

    def announce(self, card: Card, now: int) -> Member:
        """Say something else about myself: my next incarnation, with that card."""
        own = self.own
        if own.incarnation >= LAST_INCARNATION:
            self.disowned = True
            return own
        own.incarnation += 1
        _hand(own, card, msgspec.msgpack.encode(card), own.incarnation)
        return own

    def leave(self, now: int) -> Member:
        """I am going: LEFT at my own incarnation. Nothing said about me is answered after that."""
        own = self.own
        if own.standing is not Standing.LEFT:
            own.standing, own.since = Standing.LEFT, now
        return own

    # -- what others are told -------------------------------------------------------------------------------------

    def claim(self, member: MemberId) -> Claim | None:
        """What is believed about one member, as it travels; a bare id if RETIRED, None if unknown."""
        held = self._members.get(member)
        if held is not None:
            return held.claim()
        return Claim(member, 0, int(Standing.RETIRED)) if member in self._retired else None

    # -- getting old ----------------------------------------------------------------------------------------------

    def collect(self, now: int) -> list[Member]:
        """Retire who has been DEAD or LEFT for a day, forget who was RETIRED for a week; return the newly RETIRED."""
        old = [member for member, since in self._dead.items() if since + RETIRES_AFTER <= now]
        retired = [self._retire(member, now) for member in old]
        for member in [member for member, since in self._retired.items() if since + FORGOTTEN_AFTER <= now]:
            del self._retired[member]
        return retired

    def next_collection(self) -> int | None:
        """When `collect` will have something to do, or None."""
        dead = next(iter(self._dead.values()), None)
        retired = next(iter(self._retired.values()), None)
        times = [
            *([] if dead is None else [dead + RETIRES_AFTER]),
            *([] if retired is None else [retired + FORGOTTEN_AFTER]),
        ]
        return min(times, default=None)

    def _raise(self, held: Member, incarnation: int, standing: Standing, now: int) -> bool:
        if (incarnation, standing) <= held.key:
            return False
        held.accusers = ()
        if standing is not held.standing:
            self._depart(held)
            held.standing, held.since = standing, now
            self._enter(held, now)
        held.incarnation = incarnation
        return True

    def _enter(self, held: Member, now: int) -> None:
        if held.standing <= Standing.SUSPECT:
            self._living += 1
            return
        self._dead[held.id] = now
        held.fell = True
        while len(self._dead) > self._limits.dead_members:
            oldest = next(iter(self._dead))
            self._retire(oldest, now)
            self.evicted.append(oldest)

    def _depart(self, held: Member) -> None:
        if held.standing <= Standing.SUSPECT:
            self._living -= 1
        else:
            del self._dead[held.id]

    def _retire(self, member: MemberId, now: int) -> Member:
        """Keep the bare id of a member, known or not, and nothing else of it."""
        held = self._members.pop(member, None)
        if held is None:
            held = Member(member, 0, Standing.RETIRED, since=now)
        else:
            self._depart(held)
            held.incarnation, held.standing, held.since = 0, Standing.RETIRED, now
        self._retired[member] = now
        while len(self._retired) > self._limits.retired_members:
            del self._retired[next(iter(self._retired))]
        return held

    def _violated(self, member: MemberId) -> None:
        if len(self.violations) < 100:
            self.violations.append(member)


def _hand(member: Member, card: Card, data: bytes, incarnation: int) -> None:
    member.card, member.card_bytes, member.card_incarnation = card, data, incarnation
