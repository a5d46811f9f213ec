"""Who is told what: first receipt only, never back, small changes whole and large ones by their head."""

import msgspec

from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec
from mpreg_proto.cluster.gossip import SMALL, Gossip
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.cluster.outputs import Tell
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim, Delta, Digest, Fetch, Head, News

ME, ANN, BOB, CAT = (MemberId(letter * 16) for letter in (b"m", b"a", b"b", b"c"))
A, B, C = LinkId(1), LinkId(2), LinkId(3)


class World:
    """Me with links to Ann and Bob; Cat is known and not linked. Each has one function, mine and Cat's are held."""

    def __init__(self) -> None:
        limits = Limits()
        self.members = Members(ME, Card("me"), limits=limits, now=0)
        self.members.merge([claim(member) for member in (ANN, BOB, CAT)], 0)
        self.catalogue = Catalogue(ME, limits=limits)
        self.links = {ANN: A, BOB: B}
        self.gossip = Gossip(self.members, self.catalogue, self.links)
        self.owners = {member: Catalogue(member, limits=limits) for member in (ANN, BOB, CAT)}
        self.catalogue.offer(FunctionSpec(name="mine"))
        self.catalogue.apply(self.offer(CAT))

    def offer(self, member: MemberId, name: str = "f", doc: str = "") -> Delta:
        return self.owners[member].offer(FunctionSpec(name=name, doc=doc))


def claim(member: MemberId, incarnation: int = 0, standing: Standing = Standing.ALIVE) -> Claim:
    return Claim(member, incarnation, int(standing), msgspec.msgpack.encode(Card(chr(member[0]))))


def test_what_rose_is_told_to_all_but_where_it_came_from() -> None:
    world = World()
    risen = world.members.merge([claim(CAT, 1)], 0)
    assert world.gossip.claims(risen, source=A) == [Tell(B, News((claim(CAT, 1),)))]
    assert [tell.link for tell in world.gossip.claims(risen, source=None)] == [A, B]
    assert world.gossip.claims([], source=None) == []


def test_a_refutation_goes_back_to_the_accuser_too() -> None:
    world = World()
    risen = world.members.merge([Claim(ME, 0, int(Standing.SUSPECT)), claim(CAT, 1)], 0)
    tells = {tell.link: [row.member for row in tell.message.claims] for tell in world.gossip.claims(risen, source=A)}
    assert tells == {A: [ME], B: [ME, CAT]}


def test_a_small_change_travels_whole_and_a_large_one_by_its_head() -> None:
    world = World()
    small, large = world.offer(ANN), world.offer(ANN, "g", "x" * SMALL)
    assert world.gossip.learn(A, small) == (Applied.YES, [Tell(B, News(deltas=(small,)))])
    assert world.gossip.learn(A, large) == (Applied.YES, [Tell(B, News(heads=(large.head,)))])
    assert world.gossip.learn(B, small) == (Applied.OLD, [])


def test_a_gap_is_asked_about_once_for_each_version() -> None:
    world = World()
    first, second, third = (world.offer(ANN, name) for name in "fgh")
    assert world.gossip.learn(A, first)[0] is Applied.YES
    ask = Tell(B, Fetch(ANN, 1))
    assert world.gossip.learn(B, third) == (Applied.GAP, [ask])
    assert world.gossip.heard(A, third.head) == [], "Bob is asked already"
    assert world.gossip.heard(B, third.head) == [ask], "he says so again, so he is asked again"
    assert world.gossip.ended(B) == [Tell(A, Fetch(ANN, 1))], "now it is Ann's turn"
    answer = world.owners[ANN].delta(ANN, 1)
    assert world.gossip.learn(A, answer)[0] is Applied.YES
    assert world.gossip.ended(A) == []
    assert world.gossip.learn(A, second) == (Applied.OLD, [])


def test_a_question_without_anybody_left_to_ask_goes_to_a_guess_that_any_head_replaces() -> None:
    world = World()
    world.offer(CAT, "g")
    third = world.offer(CAT, "h")
    assert world.gossip.heard(A, third.head) == [Tell(A, Fetch(CAT, 1))]
    del world.links[ANN]
    assert world.gossip.ended(A) == [Tell(B, Fetch(CAT, 1))]
    world.links[CAT] = C
    assert world.gossip.heard(C, third.head) == [Tell(C, Fetch(CAT, 1))]


def test_a_mismatch_is_asked_of_the_owner_and_of_nobody_again_who_is_wrong_as_a_whole() -> None:
    world = World()
    world.gossip.learn(A, world.offer(ANN))
    second = world.offer(ANN, "g")
    wrong = msgspec.structs.replace(second, head=Head(ANN, 2, bytes(16)))
    assert world.gossip.learn(B, wrong) == (Applied.MISMATCH, [Tell(A, Fetch(ANN, 0))])
    whole = msgspec.structs.replace(world.owners[ANN].delta(ANN, 0), head=Head(ANN, 2, bytes(16)))
    assert world.gossip.learn(A, whole) == (Applied.MISMATCH, [])
    assert world.gossip.learn(B, whole) == (Applied.MISMATCH, [Tell(A, Fetch(ANN, 0))])


def test_a_copy_that_its_owner_calls_wrong_is_dropped_and_fetched() -> None:
    world = World()
    world.gossip.learn(B, world.offer(ANN))
    other = Head(ANN, 1, bytes(16))
    assert world.gossip.heard(B, other) == [], "hearsay"
    assert world.gossip.heard(A, other) == [Tell(A, Fetch(ANN, 0))]
    assert world.catalogue.version(ANN) == 0


def test_heads_and_deltas_of_members_unknown_or_gone_are_not_taken() -> None:
    world = World()
    unknown = MemberId(b"?" * 16)
    assert world.gossip.heard(A, Head(unknown, 3, bytes(16))) == []
    assert world.gossip.heard(A, Head(ME, 30, bytes(16))) == []
    world.members.accuse(ANN, Standing.DEAD, 0)
    assert world.gossip.learn(A, world.offer(ANN)) == (Applied.REFUSED, [])
    world.gossip.gone(CAT)
    assert world.catalogue.version(CAT) == 0


def test_who_is_back_without_a_catalogue_is_asked_for_where_it_was_told() -> None:
    world = World()
    assert world.gossip.revived(ANN, B) == [Tell(B, Fetch(ANN, 0))]
    assert world.gossip.revived(ANN, A) == [], "asked for already"
    assert world.gossip.revived(CAT, A) == [], "held already"
    head = world.offer(ANN).head
    assert world.gossip.heard(A, head) == [Tell(A, Fetch(ANN, 0))], "who has it goes before who may"


def test_a_digest_is_answered_with_all_that_is_newer_and_always() -> None:
    world = World()
    (greeting,) = world.gossip.greet(A)
    assert greeting == Tell(A, Digest(world.members.digest(), world.catalogue.heads()))
    (nothing,) = world.gossip.answer_digest(A, greeting.message)
    assert nothing == Tell(A, News())
    large = world.catalogue.offer(FunctionSpec(name="large", doc="x" * SMALL))
    (answer,) = world.gossip.answer_digest(A, Digest((), ()))
    told = answer.message
    assert [row.member for row in told.claims] == [ME, ANN, BOB, CAT]
    assert [delta.head.member for delta in told.deltas] == [CAT]
    assert told.heads == (large.head,)


def test_a_peer_with_another_hash_for_my_version_is_told_my_head() -> None:
    world = World()
    head = world.catalogue.content(ME).head
    (answer,) = world.gossip.answer_digest(A, Digest((), (Head(ME, head.version, bytes(16)),)))
    assert head in answer.message.heads


def test_a_fetch_is_answered_with_changes_or_not_at_all() -> None:
    world = World()
    (answer,) = world.gossip.answer_fetch(A, Fetch(CAT, 0))
    assert answer == Tell(A, News(deltas=(world.owners[CAT].delta(CAT, 0),)))
    assert world.gossip.answer_fetch(A, Fetch(CAT, 1)) == []
    assert world.gossip.answer_fetch(A, Fetch(b"?", 0)) == []


def test_who_meets_a_node_that_holds_it_for_dead_is_told_so() -> None:
    world = World()
    dead = world.members.merge([claim(ANN, 0, Standing.DEAD)], 0)[0].claim()
    (answer,) = world.gossip.answer_digest(A, Digest((Claim(ANN, 0, int(Standing.ALIVE)),), ()))
    assert dead in answer.message.claims
