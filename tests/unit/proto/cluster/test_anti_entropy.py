"""Anti-entropy: two nodes send each other what they lack, in few bytes."""

import msgspec
import pytest

from mpreg_proto.cluster.actions import SendMessage
from mpreg_proto.cluster.anti_entropy import (
    BUCKETS,
    EVERYTHING,
    HASHES_SIZE,
    INLINE_DELTA,
    NO_CARD,
    SCOPE_SIZE,
    AntiEntropy,
    Buckets,
    bucket,
    digest,
    newer,
    older,
    within,
)
from mpreg_proto.cluster.catalogue import Catalogue, FunctionSpec, wire_size
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import BucketHashes, Claim, Digest, Gossip, Head, Pull

ANN, BOB = MemberId(b"a" * 16), MemberId(b"b" * 16)
LINK = LinkId(1)


def member(number: int) -> MemberId:
    return MemberId((number + 1).to_bytes(16, "big"))


def claim(member_id: MemberId, incarnation: int = 0, standing: Standing = Standing.ALIVE) -> Claim:
    return Claim(member_id, incarnation, int(standing), msgspec.msgpack.encode(Card("she")))


class Side:
    """The state of one node, with its anti-entropy."""

    def __init__(self, me: MemberId, known: int = 0) -> None:
        self.members = Members(me, Card("she"), limits=Limits(), now=0)
        self.catalogue = Catalogue(me, limits=Limits())
        self.anti_entropy = AntiEntropy(self.members, self.catalogue, DEFAULT)
        self.owners: dict[MemberId, Catalogue] = {}
        self.sent: list[object] = []
        self.merge([claim(member(number)) for number in range(known)])

    def merge(self, claims: list[Claim]) -> None:
        self.members.merge(claims, 0)
        self.anti_entropy.buckets.invalidate()

    def offer(self, owner: MemberId, name: str, doc: str = "") -> None:
        delta = self.owners.setdefault(owner, Catalogue(owner, limits=Limits())).offer(FunctionSpec(name=name, doc=doc))
        self.catalogue.apply(delta)
        self.anti_entropy.buckets.invalidate()

    def take(self, message: object) -> list[SendMessage]:
        self.sent.append(message)
        match message:
            case Digest():
                return self.anti_entropy.answer_digest(LINK, message)[0]
            case BucketHashes():
                return self.anti_entropy.answer_bucket_hashes(LINK, message)[0]
            case Pull():
                return self.anti_entropy.answer_pull(LINK, message)
            case Gossip(claims, deltas):
                self.merge(list(claims))
                for delta in deltas:
                    self.catalogue.apply(delta)
                self.anti_entropy.buckets.invalidate()
                return self.anti_entropy.correct_retired(LINK, {})
        return []

    def view(self) -> dict[MemberId, tuple[int, int, int]]:
        return {
            held.id: (held.incarnation, int(held.standing), self.catalogue.version(held.id))
            for held in self.members.all()
        }


def compare(one: Side, other: Side) -> list[str]:
    """Start a comparison from `one`, and return the types of all messages until neither node sends more."""
    waiting = [(other, send.message) for send in one.anti_entropy.compare(LINK)]
    sent_types = []
    while waiting:
        side, message = waiting.pop(0)
        sent_types.append(type(message).__name__)
        waiting += [(one if side is other else other, send.message) for send in side.take(message)]
        assert len(sent_types) < 10
    return sent_types


@pytest.mark.parametrize("known", [0, 10, DEFAULT.full_digest + 20])
def test_equal_state_of_two_nodes_after_anti_entropy(known: int) -> None:
    ann, bob = Side(ANN, known), Side(BOB, known)
    ann.merge([claim(member(100)), claim(member(3), 2), Claim(member(4), 0, int(Standing.DEAD))])
    bob.merge([claim(member(200)), claim(member(5), 1, Standing.SUSPECT)])
    ann.offer(member(100), "f")
    bob.offer(member(200), "g")
    bob.offer(member(200), "h")
    sent_types = compare(ann, bob)
    assert ann.view() == bob.view()
    assert sent_types == (
        ["Digest", "Gossip", "Pull", "Gossip"]
        if known < DEFAULT.full_digest
        else ["BucketHashes", "Digest", "Gossip", "Pull", "Gossip"]
    )
    assert compare(bob, ann) == (["Digest", "Gossip"] if known < DEFAULT.full_digest else ["BucketHashes", "Gossip"])


def test_digest_of_the_buckets_that_differ_only() -> None:
    ann, bob = Side(ANN, 3000), Side(BOB, 3000)
    bob.merge([claim(ANN)])
    ann.merge([claim(BOB), claim(member(7), 1)])
    compare(ann, bob)
    sent_digest = next(message for message in ann.sent if isinstance(message, Digest))
    assert {bucket(MemberId(row.member)) for row in sent_digest.claims} == {bucket(member(7))}
    assert len(sent_digest.claims) < 40
    (newer_there,) = (message for message in bob.sent if isinstance(message, Gossip))
    assert newer_there.claims == (claim(member(7), 1),), "nothing of the buckets that are equal"
    assert ann.view() == bob.view()


def test_head_in_place_of_a_large_catalogue() -> None:
    ann, bob = Side(ANN), Side(BOB)
    ann.merge([claim(member(1))])
    ann.offer(member(1), "f", "x" * INLINE_DELTA)
    (send,) = bob.take(ann.anti_entropy.compare(LINK)[0].message)[1:]
    assert send.message == Pull((Claim(member(1), -1, 0), Claim(ANN, -1, 0)), (Head(member(1), 0, bytes(16)),)) or {
        row.member for row in send.message.claims
    } == {ANN, member(1)}
    gossip = ann.take(send.message)[0].message
    assert [head.member for head in gossip.heads] == [member(1)]
    assert gossip.deltas == ()


@pytest.mark.parametrize("beyond", [0, 1])
def test_longest_delta_that_is_sent_with_its_head(beyond: int) -> None:
    ann = Side(ANN)
    empty = wire_size(Catalogue(ANN, limits=Limits()).offer(FunctionSpec(name="f", doc="x" * 500)))
    delta = ann.catalogue.offer(FunctionSpec(name="f", doc="x" * (500 + INLINE_DELTA - empty + beyond)))
    assert wire_size(delta) == INLINE_DELTA + beyond
    (send,) = ann.anti_entropy.introduce(LINK)
    gossip = send.message
    assert isinstance(gossip, Gossip)
    assert (len(gossip.deltas), len(gossip.heads)) == ((0, 1) if beyond else (1, 0))


def test_reply_to_a_digest_that_lacks_nothing() -> None:
    ann = Side(ANN)
    (send,) = ann.anti_entropy.answer_digest(LINK, ann.anti_entropy.compare(LINK)[0].message)[0]
    assert send.message == Gossip(answer=True)


def test_own_head_sent_to_a_peer_with_another_hash() -> None:
    ann = Side(ANN)
    head = ann.catalogue.offer(FunctionSpec(name="mine")).head
    answer = ann.anti_entropy.answer_digest(LINK, Digest((), (Head(ANN, head.version, bytes(16)),)))[0][0].message
    assert head in answer.heads
    elses = ann.anti_entropy.answer_digest(LINK, Digest((), (Head(BOB, 1, bytes(16)),)))[0]
    assert elses[1].message.heads == (Head(BOB, 0, bytes(16)),)


def test_refutation_after_a_digest_that_marks_this_node_dead() -> None:
    ann, bob = Side(ANN), Side(BOB)
    ann.merge([Claim(BOB, 0, int(Standing.DEAD), msgspec.msgpack.encode(Card("she")))])
    compare(bob, ann)
    assert bob.members.own.incarnation == 1
    bob.anti_entropy.buckets.invalidate()
    compare(ann, bob)
    assert ann.members.standing(BOB) is Standing.ALIVE


def test_retired_members_in_no_hash_and_sent_where_missing() -> None:
    ann, bob = Side(ANN, DEFAULT.full_digest + 1), Side(BOB, DEFAULT.full_digest + 1)
    ann.merge([claim(BOB), claim(member(9), 0, Standing.RETIRED)])
    bob.merge([claim(ANN)])
    compare(bob, ann)
    assert bob.members.standing(member(9)) is Standing.RETIRED
    assert compare(ann, bob) == ["BucketHashes", "Gossip"]


def test_even_buckets_and_unreadable_hashes() -> None:
    counts = [0] * BUCKETS
    for number in range(256 * 40):
        counts[bucket(member(number))] += 1
    assert 20 <= min(counts) <= max(counts) <= 60
    ann = Side(ANN, 100)
    buckets = Buckets(ann.members, ann.catalogue)
    assert len(buckets.hashes()) == HASHES_SIZE
    assert buckets.differing(buckets.hashes()) == bytes(SCOPE_SIZE)
    assert buckets.differing(b"") == EVERYTHING
    other = Side(ANN, 100)
    other.merge([claim(member(5), 1)])
    scope = buckets.differing(other.anti_entropy.buckets.hashes())
    assert [number for number in range(BUCKETS) if within(scope, number)] == [bucket(member(5))]
    assert all(within(b"", number) for number in range(BUCKETS))


def test_hashes_independent_of_the_order_of_members() -> None:
    ann, other = Side(ANN), Side(ANN)
    claims = [claim(member(number), number % 3) for number in range(50)]
    ann.merge(claims)
    other.merge(claims[::-1])
    assert ann.anti_entropy.buckets.hashes() == other.anti_entropy.buckets.hashes()


def rows_differ(change: list[Claim], *offers: str) -> bool:
    """Return whether a change of one member, or an offer of it, changes its hash."""
    one, other = Side(ANN, 3), Side(ANN, 3)
    for side in (one, other):
        side.offer(member(0), "first")
    other.merge(change)
    for name in offers:
        other.offer(member(0), name)
    scope = one.anti_entropy.buckets.differing(other.anti_entropy.buckets.hashes())
    assert scope in (bytes(SCOPE_SIZE), scope_of(member(0)))
    return any(scope)


def scope_of(one: MemberId) -> bytes:
    scope = bytearray(SCOPE_SIZE)
    scope[bucket(one) >> 3] = 0x80 >> (bucket(one) & 7)
    return bytes(scope)


def test_each_part_of_a_cell_and_head_is_hashed() -> None:
    first = member(0)
    assert not rows_differ([claim(first)])
    assert rows_differ([claim(first, 0, Standing.SUSPECT)])
    assert rows_differ([claim(first, 1)])
    assert rows_differ([Claim(first, 1, 0)]) and rows_differ([Claim(first, 0, int(Standing.LEFT))])
    assert rows_differ([], "second")
    one, other = Side(ANN), Side(ANN)
    one.merge([claim(BOB, 1)])
    other.merge([Claim(BOB, 1, 0)])
    assert one.anti_entropy.buckets.differing(other.anti_entropy.buckets.hashes()) == scope_of(BOB), (
        "only one has a card"
    )
    other.merge([claim(BOB, 1)])
    one.offer(BOB, "f")
    other.offer(BOB, "g")
    assert one.anti_entropy.buckets.differing(other.anti_entropy.buckets.hashes()) == scope_of(BOB), "of one version"


def test_hashes_that_nodes_of_other_releases_compute() -> None:
    """They go over the wire: if a row were hashed in another way, each comparison would find all buckets different."""
    ann = Side(ANN)
    ann.merge([claim(BOB, 3, Standing.SUSPECT)])
    ann.offer(BOB, "f")
    hashes = ann.anti_entropy.buckets.hashes()
    rows = {number: hashes[8 * number : 8 * number + 8] for number in range(BUCKETS)}
    found = {number: row.hex() for number, row in rows.items() if any(row)}
    assert found == {bucket(ANN): "5af6eaff15dc77fd", bucket(BOB): "a6146bdd0b8c97fb"}


# -- digests: the members that are newer here, and those that are older and have to be pulled -------------------------

ME = MemberId(b"m" * 16)
SHE = MemberId(b"s" * 16)
CARD = msgspec.msgpack.encode(Card("she"))
ALIVE, SUSPECT, DEAD, LEFT, RETIRED = map(int, Standing)


def members() -> Members:
    return Members(ME, Card("me"), limits=Limits(), now=0)


def test_members_newer_than_a_digest() -> None:
    known = members()
    known.merge([Claim(SHE, 2, SUSPECT, CARD), Claim(member(1), 0, ALIVE, CARD), Claim(member(2), 0, RETIRED)], 0)
    theirs = [Claim(SHE, 2, ALIVE), Claim(member(1), 1, ALIVE), Claim(member(2), 5, ALIVE), Claim(member(9), 0, ALIVE)]
    assert newer(known, theirs) == [known.own.claim(), Claim(SHE, 2, SUSPECT, CARD), Claim(member(2), 0, RETIRED)]
    assert newer(known, digest(known)) == []


def test_newer_members_of_a_subset() -> None:
    known = members()
    known.merge([Claim(SHE, 0, ALIVE, CARD), Claim(member(1), 0, ALIVE, CARD)], 0)
    assert newer(known, [], beyond=[known.get(SHE)]) == [Claim(SHE, 0, ALIVE, CARD)]
    assert newer(known, [], beyond=()) == []


def test_members_older_than_a_digest() -> None:
    known = members()
    known.merge([Claim(SHE, 2, SUSPECT, CARD), Claim(member(1), 1, ALIVE), Claim(member(2), 0, RETIRED)], 0)
    theirs = [
        Claim(SHE, 2, DEAD),
        Claim(member(1), 1, ALIVE),
        Claim(member(2), 5, ALIVE),
        Claim(member(3), 0, ALIVE),
        Claim(member(4), 0, RETIRED),
    ]
    lacking = [Claim(SHE, 2, SUSPECT), Claim(member(1), -1, 0), Claim(member(3), -1, 0)]
    assert older(known, theirs) == lacking, "a higher cell, a card, a member; not the RETIRED"
    assert older(known, [Claim(member(1), 1, ALIVE, NO_CARD)]) == [], "the other has no card either"
    assert older(known, digest(known)) == []
