"""The merge of claims is a maximum: order, repetition and batches do not matter (P1 to P5), nothing raises (P14).

Input: claims, then the order, repetition and batches in which a second node receives them. The rest is a sequence of
other changes of members in a third node, during which a cell still never decreases (P4).
"""

from __future__ import annotations

import msgspec

from mpreg_proto.cluster.anti_entropy import digest, newer
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import DEFAULT, HOUR, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim
from mpreg_transports.testing.fuzz.draws import Draws

ME = MemberId(b"m" * 16)
IDS = tuple(MemberId(letter * 16) for letter in (b"a", b"b", b"c"))
_CARDS = (b"", *(msgspec.msgpack.encode(Card(name, (f"ws://{name}:1",))) for name in ("one", "two")), b"\xc1")
_SMALL = Limits(members=2, dead_members=1, retired_members=2)
View = dict[MemberId, tuple[int, int, bytes]]


def harness(data: bytes) -> None:
    """Merge the same claims in three nodes."""
    draws = Draws(data)
    claims = [_claim(draws, IDS) for _ in range(1 + draws.below(8))]
    one = _fresh(Limits())
    for claim in claims:
        one.merge([claim], 0)
    other = _fresh(Limits())
    again = draws.order([*claims, *(draws.pick(claims) for _ in range(draws.below(4)))])
    while again:
        batch = 1 + draws.below(len(again))
        other.merge(again[:batch], 0)
        del again[:batch]
    assert view(one) == view(other), "P5: the same claims, another view"
    assert one.merge([*claims, *_said(other)], 1) == [], "P3: saying it again raises something"
    half = _fresh(Limits())
    half.merge(claims[: len(claims) // 2], 0)
    half.merge(_said(one), 0)
    assert view(half) == view(one), "P1, P2: a whole state merged into a part of it"
    _never_decreases(draws, _fresh(Limits()))
    _stays_small(claims)


def _never_decreases(draws: Draws, known: Members) -> None:
    now = 0
    retired: dict[MemberId, int] = {}
    while draws.more:
        before = {member: _height(known, member) for member in IDS}
        own = known.own.incarnation
        kind = draws.below(8)
        if kind < 4:
            known.merge([_claim(draws, (*IDS, ME))], now)
        elif kind < 6:
            known.declare(draws.pick(IDS), draws.pick((Standing.SUSPECT, Standing.DEAD, Standing.RETIRED)), now)
        elif kind == 6:
            known.update_card(Card("me", (str(draws.byte()),)), now)
        else:
            now += draws.below(60) * HOUR
            known.collect(now)
        assert known.own.incarnation >= own and known.own.standing is Standing.ALIVE, "P4: the own cell"
        assert known.living == sum(member.routable for member in known.all()), "the count of living members"
        for member in IDS:
            if member in retired and now >= retired[member] + DEFAULT.retired_for:
                del retired[member]
                continue
            assert _height(known, member) >= before[member], "P4: a cell decreases"
            if known.standing(member) is Standing.RETIRED:
                retired.setdefault(member, now)
            assert not (member in retired and known.routable(member)), "P7"


def _stays_small(claims: list[Claim]) -> None:
    known = _fresh(_SMALL)
    for claim in claims:
        known.merge([claim], 0)
        assert len(known) <= 1 + 2 + 1, "P12"
        known.drain_evicted()
    newer(known, claims)
    digest(known)


def _claim(draws: Draws, ids: tuple[MemberId, ...]) -> Claim:
    member: bytes = draws.pick(ids)
    if draws.chance(16):
        member = draws.piece(20)
    incarnation, standing = draws.integer(), draws.below(5)
    if draws.chance(32):
        standing = draws.integer()
    return Claim(member, incarnation, standing, draws.pick(_CARDS))


def _fresh(limits: Limits) -> Members:
    return Members(ME, Card("me"), limits=limits, now=0)


def view(known: Members) -> View:
    """Return all cells, each with the card of its incarnation."""
    found = ((member, known.claim(member)) for member in IDS)
    return {member: (claim.incarnation, claim.standing, claim.card) for member, claim in found if claim is not None}


def _said(known: Members) -> list[Claim]:
    return [claim for member in IDS if (claim := known.claim(member)) is not None]


def _height(known: Members, member: MemberId) -> tuple[bool, int, int]:
    claim = known.claim(member)
    if claim is None:
        return False, -1, -1
    return claim.standing == Standing.RETIRED, claim.incarnation, claim.standing
