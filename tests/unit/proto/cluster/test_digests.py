"""Digests of members: the members that are newer here, and those that are older and have to be pulled."""

import msgspec

from mpreg_proto.cluster.anti_entropy import NO_CARD, digest, newer, older
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

ME = MemberId(b"m" * 16)
SHE = MemberId(b"s" * 16)
ALIVE, SUSPECT, DEAD, LEFT, RETIRED = map(int, Standing)


def some(number: int) -> MemberId:
    return MemberId(number.to_bytes(16, "big"))


def card(name: str = "she") -> bytes:
    return msgspec.msgpack.encode(Card(name))


def members() -> Members:
    return Members(ME, Card("me"), limits=Limits(), now=0)


def test_members_newer_than_a_digest() -> None:
    known = members()
    known.merge([Claim(SHE, 2, SUSPECT, card()), Claim(some(1), 0, ALIVE, card()), Claim(some(2), 0, RETIRED)], 0)
    theirs = [Claim(SHE, 2, ALIVE), Claim(some(1), 1, ALIVE), Claim(some(2), 5, ALIVE), Claim(some(9), 0, ALIVE)]
    assert newer(known, theirs) == [known.own.claim(), Claim(SHE, 2, SUSPECT, card()), Claim(some(2), 0, RETIRED)]
    assert newer(known, digest(known)) == []


def test_newer_members_of_a_subset() -> None:
    known = members()
    known.merge([Claim(SHE, 0, ALIVE, card()), Claim(some(1), 0, ALIVE, card())], 0)
    assert newer(known, [], beyond=[known.get(SHE)]) == [Claim(SHE, 0, ALIVE, card())]
    assert newer(known, [], beyond=()) == []


def test_members_older_than_a_digest() -> None:
    known = members()
    known.merge([Claim(SHE, 2, SUSPECT, card()), Claim(some(1), 1, ALIVE), Claim(some(2), 0, RETIRED)], 0)
    theirs = [
        Claim(SHE, 2, DEAD),
        Claim(some(1), 1, ALIVE),
        Claim(some(2), 5, ALIVE),
        Claim(some(3), 0, ALIVE),
        Claim(some(4), 0, RETIRED),
    ]
    lacking = [Claim(SHE, 2, SUSPECT), Claim(some(1), -1, 0), Claim(some(3), -1, 0)]
    assert older(known, theirs) == lacking, "a higher cell, a card, a member; not the RETIRED"
    assert older(known, [Claim(some(1), 1, ALIVE, NO_CARD)]) == [], "the other has no card either"
    assert older(known, digest(known)) == []
