"""Who is told what: first receipt only, never back, small changes whole and large ones by their head."""

import msgspec

from mpreg_proto.cluster.actions import SendMessage
from mpreg_proto.cluster.anti_entropy import INLINE_DELTA
from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec
from mpreg_proto.cluster.gossip import FLUSH_INTERVAL, Disseminator
from mpreg_proto.cluster.members import Card, Member, Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim, Delta, Fetch, Gossip, Head

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
        self.rings = Rings(ME)
        for member in (ANN, BOB, CAT):
            self.rings.enter(member)
        self.timers = Timers()
        self.now = 0
        self.gossip = Disseminator(self.members, self.catalogue, self.links, rings=self.rings, timers=self.timers)
        self.owners = {member: Catalogue(member, limits=limits) for member in (ANN, BOB, CAT)}
        self.catalogue.offer(FunctionSpec(name="mine"))
        self.catalogue.apply(self.offer(CAT))

    def told(self, risen: list[Member], source: LinkId | None) -> list[SendMessage]:
        """What is said of these, long after anything else was."""
        self.gossip.members_changed(risen, source=source)
        return self.flushed()

    def learnt(self, source: LinkId, delta: Delta) -> tuple[Applied, list[SendMessage]]:
        """What is asked about a delta at once, and what others are told of it."""
        applied, tells = self.gossip.delta_received(source, delta)
        return applied, [*tells, *self.flushed()]

    def flushed(self) -> list[SendMessage]:
        self.now += FLUSH_INTERVAL
        return self.gossip.flush(self.now)

    def offer(self, member: MemberId, name: str = "f", doc: str = "") -> Delta:
        return self.owners[member].offer(FunctionSpec(name=name, doc=doc))


def claim(member: MemberId, incarnation: int = 0, standing: Standing = Standing.ALIVE) -> Claim:
    return Claim(member, incarnation, int(standing), msgspec.msgpack.encode(Card(chr(member[0]))))


def test_what_rose_is_told_to_all_but_where_it_came_from() -> None:
    world = World()
    risen = world.members.merge([claim(CAT, 1)], 0)
    assert world.told(risen, A) == [SendMessage(B, Gossip((claim(CAT, 1),)))]
    assert [tell.link for tell in world.told(risen, None)] == [A, B]
    assert world.told([], None) == []


def test_a_refutation_goes_back_to_the_accuser_too() -> None:
    world = World()
    risen = world.members.merge([Claim(ME, 0, int(Standing.SUSPECT)), claim(CAT, 1)], 0)
    tells = {tell.link: [row.member for row in tell.message.claims] for tell in world.told(risen, A)}
    assert tells == {A: [ME], B: [ME, CAT]}


def test_a_small_change_travels_whole_and_a_large_one_by_its_head() -> None:
    world = World()
    small, large = world.offer(ANN), world.offer(ANN, "g", "x" * INLINE_DELTA)
    assert world.learnt(A, small) == (Applied.YES, [SendMessage(B, Gossip(deltas=(small,)))])
    assert world.learnt(A, large) == (Applied.YES, [SendMessage(B, Gossip(heads=(large.head,)))])
    assert world.learnt(B, small) == (Applied.OLD, [])


def test_a_gap_is_asked_about_once_for_each_version() -> None:
    world = World()
    first, second, third = (world.offer(ANN, name) for name in "fgh")
    assert world.gossip.delta_received(A, first)[0] is Applied.YES
    ask = SendMessage(B, Fetch(ANN, 1))
    assert world.gossip.delta_received(B, third) == (Applied.GAP, [ask])
    assert world.gossip.head_received(A, third.head) == [], "Bob is asked already"
    assert world.gossip.head_received(B, third.head) == [ask], "he says so again, so he is asked again"
    assert world.gossip.link_closed(B) == [SendMessage(A, Fetch(ANN, 1))], "now it is Ann's turn"
    answer = world.owners[ANN].delta(ANN, 1)
    assert world.gossip.delta_received(A, answer)[0] is Applied.YES
    assert world.gossip.link_closed(A) == []
    held = world.owners[ANN].content(ANN).head
    assert world.gossip.delta_received(B, second) == (Applied.OLD, [])
    assert world.gossip.delta_received(A, second) == (Applied.OLD, [SendMessage(A, Gossip(heads=(held,)))]), (
        "its owner may not know"
    )


def test_owner_who_says_less_than_is_wanted_is_asked_at_once() -> None:
    world = World()
    head = world.offer(ANN).head
    made_up = msgspec.structs.replace(head, version=10**9)
    assert world.gossip.head_received(B, made_up) == [SendMessage(B, Fetch(ANN, 0))]
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.gossip.fetching(ANN) == 1


def test_what_nobody_gives_is_asked_for_no_longer() -> None:
    world = World()
    assert world.gossip.head_received(B, msgspec.structs.replace(world.offer(ANN).head, version=10**9))
    asked = [tell for _ in range(200) for tell in world.gossip.tick()]
    assert 3 <= len(asked) <= 6 and world.gossip.fetching(ANN) == 0


def test_copy_that_differs_from_its_owners_delta_is_dropped() -> None:
    world = World()
    delta = world.offer(ANN)
    forged = msgspec.structs.replace(delta, head=msgspec.structs.replace(delta.head, version=1))
    other = Catalogue(ANN, limits=Limits()).offer(FunctionSpec(name="forged"))
    assert (
        world.gossip.delta_received(B, msgspec.structs.replace(forged, head=other.head, changes=other.changes))[0]
        is Applied.YES
    )
    assert world.gossip.delta_received(B, delta) == (Applied.OLD, []), "only its owner knows"
    assert world.gossip.delta_received(A, delta) == (Applied.MISMATCH, [SendMessage(A, Fetch(ANN, 0))])


def test_what_does_not_come_is_asked_of_the_next_who_holds_it_ever_more_patiently() -> None:
    world = World()
    head = world.offer(ANN).head
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.gossip.head_received(B, head) == []
    asked = [world.gossip.tick() for _ in range(14)]
    assert {tick: tells for tick, tells in enumerate(asked, 1) if tells} == {
        2: [SendMessage(B, Fetch(ANN, 0))],
        6: [SendMessage(A, Fetch(ANN, 0))],
        14: [SendMessage(B, Fetch(ANN, 0))],
    }
    world.learnt(B, world.owners[ANN].delta(ANN, 0))
    assert not any(world.gossip.tick() for _ in range(100))


def test_a_question_without_anybody_left_to_ask_goes_to_a_guess_that_any_head_replaces() -> None:
    world = World()
    world.offer(CAT, "g")
    third = world.offer(CAT, "h")
    assert world.gossip.head_received(A, third.head) == [SendMessage(A, Fetch(CAT, 1))]
    del world.links[ANN]
    assert world.gossip.link_closed(A) == [SendMessage(B, Fetch(CAT, 1))]
    world.links[CAT] = C
    assert world.gossip.head_received(C, third.head) == [SendMessage(C, Fetch(CAT, 1))]


def test_a_mismatch_is_asked_of_the_owner_and_of_nobody_again_who_is_wrong_as_a_whole() -> None:
    world = World()
    world.gossip.delta_received(A, world.offer(ANN))
    second = world.offer(ANN, "g")
    wrong = msgspec.structs.replace(second, head=Head(ANN, 2, bytes(16)))
    assert world.gossip.delta_received(B, wrong) == (Applied.MISMATCH, [SendMessage(A, Fetch(ANN, 0))])
    whole = msgspec.structs.replace(world.owners[ANN].delta(ANN, 0), head=Head(ANN, 2, bytes(16)))
    assert world.gossip.delta_received(A, whole) == (Applied.MISMATCH, [])
    assert world.gossip.delta_received(B, whole) == (Applied.MISMATCH, [SendMessage(A, Fetch(ANN, 0))])


def test_a_copy_that_its_owner_calls_wrong_is_dropped_and_fetched() -> None:
    world = World()
    world.gossip.delta_received(B, world.offer(ANN))
    other = Head(ANN, 1, bytes(16))
    assert world.gossip.head_received(B, other) == [], "hearsay"
    assert world.gossip.head_received(A, other) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.catalogue.version(ANN) == 0


def test_heads_and_deltas_of_members_unknown_or_gone_are_not_taken() -> None:
    world = World()
    unknown = MemberId(b"?" * 16)
    assert world.gossip.head_received(A, Head(unknown, 3, bytes(16))) == []
    assert world.gossip.head_received(A, Head(ME, 30, bytes(16))) == []
    world.members.declare(ANN, Standing.DEAD, 0)
    assert world.gossip.delta_received(A, world.offer(ANN)) == (Applied.REFUSED, [])
    world.gossip.forget(CAT)
    assert world.catalogue.version(CAT) == 0


def test_who_is_back_without_a_catalogue_is_asked_for_where_it_was_told() -> None:
    world = World()
    assert world.gossip.member_revived(ANN, B) == [SendMessage(B, Fetch(ANN, 0))]
    assert world.gossip.member_revived(ANN, A) == [], "asked for already"
    assert world.gossip.member_revived(CAT, A) == [], "held already"
    head = world.offer(ANN).head
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))], "who has it goes before who may"


def test_a_fetch_is_answered_with_changes_or_not_at_all() -> None:
    world = World()
    (answer,) = world.gossip.answer_fetch(A, Fetch(CAT, 0))
    assert answer == SendMessage(A, Gossip(deltas=(world.owners[CAT].delta(CAT, 0),)))
    assert world.gossip.answer_fetch(A, Fetch(CAT, 1)) == []
    assert world.gossip.answer_fetch(A, Fetch(b"?", 0)) == []


def test_what_comes_within_50_ms_after_a_telling_is_told_together_liveness_first() -> None:
    world = World()
    first, second = world.offer(ANN), world.offer(ANN, "g")
    assert len(world.learnt(A, first)[1]) == 1
    world.gossip.delta_received(A, second)
    world.gossip.members_changed(world.members.merge([claim(CAT, 1)], 0), source=A)
    world.gossip.members_changed(world.members.merge([claim(CAT, 2)], 0), source=A)
    assert world.gossip.flush(world.now + FLUSH_INTERVAL - 1) == []
    assert world.timers.due(world.now + FLUSH_INTERVAL) == [(TimerKind.GOSSIP,)]
    assert world.flushed() == [SendMessage(B, Gossip((claim(CAT, 2),), (second,)))]
    assert world.flushed() == []


def test_changes_that_are_joined_travel_as_one_delta() -> None:
    world = World()
    deltas = [world.offer(ANN, name) for name in "fgh"]
    for delta in deltas:
        world.gossip.delta_received(A, delta)
    (tell,) = world.flushed()
    (delta,) = tell.message.deltas
    assert (delta.since, delta.head) == (0, deltas[-1].head)


def test_who_told_it_too_is_not_told_again() -> None:
    world = World()
    world.links[CAT] = C
    delta = world.offer(ANN)
    world.gossip.delta_received(A, delta)
    risen = world.members.merge([claim(CAT, 1)], 0)
    world.gossip.members_changed(risen, source=B)
    told = {tell.link: (len(tell.message.claims), len(tell.message.deltas)) for tell in world.flushed()}
    assert told == {A: (1, 0), B: (0, 1), C: (1, 1)}


def test_the_accused_hears_it_first_even_if_it_is_no_neighbour() -> None:
    world = World()
    for number in range(1, 60):
        world.rings.enter(MemberId(bytes([number]) * 16))
    near = list(world.rings.neighbours)[:4]
    world.links.clear()
    world.links.update({member: LinkId(10 + place) for place, member in enumerate(near)})
    far = next(member for member in (ANN, BOB, CAT) if member not in world.rings.neighbours)
    world.links[far] = C
    world.members.declare(far, Standing.SUSPECT, 0)
    tells = world.told([world.members.get(far)], None)
    assert [tell.link for tell in tells] == [C, *(world.links[member] for member in near)]
    assert tells[0].message.claims[0].accusers == (ME,)
    assert world.learnt(C, world.offer(ANN))[1][0].link != C


def test_only_neighbours_are_told_unless_they_are_few() -> None:
    world = World()
    for number in range(1, 60):
        world.rings.enter(MemberId(bytes([number]) * 16))
    ids = list(world.rings.ids())[1:]
    world.links.clear()
    world.links.update({member: LinkId(number) for number, member in enumerate(ids)})
    tells = world.told(world.members.merge([claim(CAT, 1)], 0), None)
    assert [tell.link for tell in tells] == [world.links[member] for member in world.rings.neighbours]
    assert all(tell.message is tells[0].message for tell in tells), "one message, so that it is encoded once"
    for member in list(world.rings.neighbours)[2:]:
        del world.links[member]
    assert len(world.told(world.members.merge([claim(CAT, 2)], 0), None)) == len(world.links)


def test_a_link_that_does_not_drain_gets_heads_alone() -> None:
    world = World()
    world.gossip.slow_links[B] = None
    delta = world.offer(ANN)
    assert world.learnt(A, delta)[1] == [SendMessage(B, Gossip(heads=(delta.head,)))]


def test_who_leaves_says_so_at_once() -> None:
    world = World()
    assert world.told(world.members.merge([claim(CAT, 1)], 0), None)
    world.gossip.members_changed([world.members.leave(0)], source=None)
    world.gossip.flush_now()
    assert len(world.gossip.flush(world.now)) == 2
