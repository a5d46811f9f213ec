"""Gossip: passed on at first receipt only, never to its source; large changes are sent as heads only."""

import msgspec
import pytest

from mpreg_proto.cluster.actions import SendMessage
from mpreg_proto.cluster.anti_entropy import INLINE_DELTA
from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec, wire_size
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
    """ME with links to ANN and BOB; CAT is a member without a link. ME holds its own catalogue and that of CAT."""

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

    def spread(self, risen: list[Member], source: LinkId | None) -> list[SendMessage]:
        """Return the gossip about `risen`, a flush interval after the gossip before it."""
        self.gossip.members_changed(risen, source=source)
        return self.flushed()

    def receive_delta(self, source: LinkId, delta: Delta) -> tuple[Applied, list[SendMessage]]:
        """Return how a delta was applied, the fetch that it causes, and the gossip to other members."""
        applied, sends = self.gossip.delta_received(source, delta)
        return applied, [*sends, *self.flushed()]

    def flushed(self) -> list[SendMessage]:
        self.now += FLUSH_INTERVAL
        return self.gossip.flush(self.now)

    def offer(self, member: MemberId, name: str = "f", doc: str = "") -> Delta:
        return self.owners[member].offer(FunctionSpec(name=name, doc=doc))


def claim(member: MemberId, incarnation: int = 0, standing: Standing = Standing.ALIVE) -> Claim:
    return Claim(member, incarnation, int(standing), msgspec.msgpack.encode(Card(chr(member[0]))))


def test_gossip_to_all_links_but_its_source() -> None:
    world = World()
    risen = world.members.merge([claim(CAT, 1)], 0)
    assert world.spread(risen, A) == [SendMessage(B, Gossip((claim(CAT, 1),)))]
    assert [send.link for send in world.spread(risen, None)] == [A, B]
    assert world.spread([], None) == []


def test_refutation_of_an_accusation() -> None:
    world = World()
    risen = world.members.merge([Claim(ME, 0, int(Standing.SUSPECT)), claim(CAT, 1)], 0)
    sends = {send.link: [row.member for row in send.message.claims] for send in world.spread(risen, A)}
    assert sends == {A: [ME], B: [ME, CAT]}


def test_small_change_as_delta_and_large_change_as_head() -> None:
    world = World()
    small, large = world.offer(ANN), world.offer(ANN, "g", "x" * INLINE_DELTA)
    assert world.receive_delta(A, small) == (Applied.YES, [SendMessage(B, Gossip(deltas=(small,)))])
    assert world.receive_delta(A, large) == (Applied.YES, [SendMessage(B, Gossip(heads=(large.head,)))])
    assert world.receive_delta(B, small) == (Applied.OLD, [])


def test_longest_change_that_is_sent_as_a_delta() -> None:
    world = World()
    empty = wire_size(Catalogue(CAT, limits=Limits()).offer(FunctionSpec(name="f", doc="x" * 500)))
    for name, beyond in (("f", 0), ("g", 1)):
        delta = world.offer(ANN, name, "x" * (500 + INLINE_DELTA - empty + beyond))
        assert wire_size(delta) == INLINE_DELTA + beyond
        (send,) = world.receive_delta(A, delta)[1]
        assert (len(send.message.deltas), len(send.message.heads)) == ((0, 1) if beyond else (1, 0))


def test_one_fetch_for_each_version_after_a_gap() -> None:
    world = World()
    first, second, third = (world.offer(ANN, name) for name in "fgh")
    assert world.gossip.delta_received(A, first)[0] is Applied.YES
    fetch = SendMessage(B, Fetch(ANN, 1))
    assert world.gossip.delta_received(B, third) == (Applied.GAP, [fetch])
    assert world.gossip.head_received(A, third.head) == [], "Bob is asked already"
    assert world.gossip.head_received(B, third.head) == [fetch], "he says so again, so he is asked again"
    assert world.gossip.link_closed(B) == [SendMessage(A, Fetch(ANN, 1))], "now it is Ann's turn"
    answer = world.owners[ANN].delta(ANN, 1)
    assert world.gossip.delta_received(A, answer)[0] is Applied.YES
    assert world.gossip.link_closed(A) == []
    held = world.owners[ANN].content(ANN).head
    assert world.gossip.delta_received(B, second) == (Applied.OLD, [])
    assert world.gossip.delta_received(A, second) == (Applied.OLD, [SendMessage(A, Gossip(heads=(held,)))]), (
        "its owner may not know"
    )


def test_fetch_from_an_owner_with_a_lower_version() -> None:
    world = World()
    head = world.offer(ANN).head
    forged = msgspec.structs.replace(head, version=10**9)
    assert world.gossip.head_received(B, forged) == [SendMessage(B, Fetch(ANN, 0))]
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.gossip.fetching(ANN) == 1


def test_fetch_without_an_answer_ends() -> None:
    world = World()
    assert world.gossip.head_received(B, msgspec.structs.replace(world.offer(ANN).head, version=10**9))
    fetches = [send for _ in range(200) for send in world.gossip.tick()]
    assert 3 <= len(fetches) <= 6 and world.gossip.fetching(ANN) == 0


def test_copy_that_differs_from_the_delta_of_its_owner() -> None:
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


def test_fetch_backoff_over_the_holders() -> None:
    world = World()
    head = world.offer(ANN).head
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.gossip.head_received(B, head) == []
    fetches = [world.gossip.tick() for _ in range(14)]
    assert {tick: sends for tick, sends in enumerate(fetches, 1) if sends} == {
        2: [SendMessage(B, Fetch(ANN, 0))],
        6: [SendMessage(A, Fetch(ANN, 0))],
        14: [SendMessage(B, Fetch(ANN, 0))],
    }
    world.receive_delta(B, world.owners[ANN].delta(ANN, 0))
    assert not any(world.gossip.tick() for _ in range(100))


def test_fetch_from_a_guess_until_a_head_names_a_holder() -> None:
    world = World()
    world.offer(CAT, "g")
    third = world.offer(CAT, "h")
    assert world.gossip.head_received(A, third.head) == [SendMessage(A, Fetch(CAT, 1))]
    del world.links[ANN]
    assert world.gossip.link_closed(A) == [SendMessage(B, Fetch(CAT, 1))]
    world.links[CAT] = C
    assert world.gossip.head_received(C, third.head) == [SendMessage(C, Fetch(CAT, 1))]


def test_fetch_from_the_owner_after_a_mismatch() -> None:
    world = World()
    world.gossip.delta_received(A, world.offer(ANN))
    second = world.offer(ANN, "g")
    wrong = msgspec.structs.replace(second, head=Head(ANN, 2, bytes(16)))
    assert world.gossip.delta_received(B, wrong) == (Applied.MISMATCH, [SendMessage(A, Fetch(ANN, 0))])
    whole = msgspec.structs.replace(world.owners[ANN].delta(ANN, 0), head=Head(ANN, 2, bytes(16)))
    assert world.gossip.delta_received(A, whole) == (Applied.MISMATCH, [])
    assert world.gossip.delta_received(B, whole) == (Applied.MISMATCH, [SendMessage(A, Fetch(ANN, 0))])


def test_copy_with_another_hash_than_its_owner() -> None:
    world = World()
    world.gossip.delta_received(B, world.offer(ANN))
    other = Head(ANN, 1, bytes(16))
    assert world.gossip.head_received(B, other) == [], "hearsay"
    assert world.gossip.head_received(A, other) == [SendMessage(A, Fetch(ANN, 0))]
    assert world.catalogue.version(ANN) == 0


def test_head_or_delta_of_an_unknown_or_dead_member() -> None:
    world = World()
    unknown = MemberId(b"?" * 16)
    assert world.gossip.head_received(A, Head(unknown, 3, bytes(16))) == []
    assert world.gossip.head_received(A, Head(ME, 30, bytes(16))) == []
    world.members.declare(ANN, Standing.DEAD, 0)
    assert world.gossip.delta_received(A, world.offer(ANN)) == (Applied.REFUSED, [])
    world.gossip.forget(CAT)
    assert world.catalogue.version(CAT) == 0


def test_fetch_for_a_revived_member_without_a_catalogue() -> None:
    world = World()
    assert world.gossip.member_revived(ANN, B) == [SendMessage(B, Fetch(ANN, 0))]
    assert world.gossip.member_revived(ANN, A) == [], "asked for already"
    assert world.gossip.member_revived(CAT, A) == [], "held already"
    head = world.offer(ANN).head
    assert world.gossip.head_received(A, head) == [SendMessage(A, Fetch(ANN, 0))], "who has it goes before who may"


def test_answer_to_a_fetch() -> None:
    world = World()
    (answer,) = world.gossip.answer_fetch(A, Fetch(CAT, 0))
    assert answer == SendMessage(A, Gossip(deltas=(world.owners[CAT].delta(CAT, 0),)))
    assert world.gossip.answer_fetch(A, Fetch(CAT, 1)) == []
    assert world.gossip.answer_fetch(A, Fetch(b"?", 0)) == []


def test_flush_interval_joins_gossip() -> None:
    world = World()
    first, second = world.offer(ANN), world.offer(ANN, "g")
    assert len(world.receive_delta(A, first)[1]) == 1
    world.gossip.delta_received(A, second)
    world.gossip.members_changed(world.members.merge([claim(CAT, 1)], 0), source=A)
    world.gossip.members_changed(world.members.merge([claim(CAT, 2)], 0), source=A)
    assert world.gossip.flush(world.now + FLUSH_INTERVAL - 1) == []
    assert world.timers.due(world.now + FLUSH_INTERVAL) == [(TimerKind.GOSSIP,)]
    assert world.flushed() == [SendMessage(B, Gossip((claim(CAT, 2),), (second,)))]
    assert world.flushed() == []


def test_joined_changes_as_one_delta() -> None:
    world = World()
    deltas = [world.offer(ANN, name) for name in "fgh"]
    for delta in deltas:
        world.gossip.delta_received(A, delta)
    (send,) = world.flushed()
    (delta,) = send.message.deltas
    assert (delta.since, delta.head) == (0, deltas[-1].head)


def test_no_gossip_back_to_any_source() -> None:
    world = World()
    world.links[CAT] = C
    delta = world.offer(ANN)
    world.gossip.delta_received(A, delta)
    risen = world.members.merge([claim(CAT, 1)], 0)
    world.gossip.members_changed(risen, source=B)
    counts = {send.link: (len(send.message.claims), len(send.message.deltas)) for send in world.flushed()}
    assert counts == {A: (1, 0), B: (0, 1), C: (1, 1)}


@pytest.mark.parametrize(("standing", "accusers"), [(Standing.SUSPECT, (ME,)), (Standing.DEAD, ())])
def test_accused_member_receives_the_accusation_first(standing: Standing, accusers: tuple[MemberId, ...]) -> None:
    world = World()
    for number in range(1, 60):
        world.rings.enter(MemberId(bytes([number]) * 16))
    near = list(world.rings.neighbours)[:4]
    world.links.clear()
    world.links.update({member: LinkId(10 + place) for place, member in enumerate(near)})
    far = next(member for member in (ANN, BOB, CAT) if member not in world.rings.neighbours)
    world.links[far] = C
    world.members.declare(far, standing, 0)
    sends = world.spread([world.members.get(far)], None)
    assert [send.link for send in sends] == [C, *(world.links[member] for member in near)]
    (accusation,) = sends[0].message.claims
    assert (accusation.member, accusation.standing, accusation.accusers) == (far, standing, accusers)
    assert world.receive_delta(C, world.offer(ANN))[1][0].link != C


def test_gossip_to_neighbours_unless_they_are_few() -> None:
    world = World()
    for number in range(1, 60):
        world.rings.enter(MemberId(bytes([number]) * 16))
    ids = list(world.rings.ids())[1:]
    world.links.clear()
    world.links.update({member: LinkId(number) for number, member in enumerate(ids)})
    sends = world.spread(world.members.merge([claim(CAT, 1)], 0), None)
    assert [send.link for send in sends] == [world.links[member] for member in world.rings.neighbours]
    assert all(send.message is sends[0].message for send in sends), "one message, so that it is encoded once"
    for member in list(world.rings.neighbours)[2:]:
        del world.links[member]
    assert len(world.spread(world.members.merge([claim(CAT, 2)], 0), None)) == len(world.links)


def test_heads_only_on_a_slow_link() -> None:
    world = World()
    world.gossip.slow_links[B] = None
    delta = world.offer(ANN)
    assert world.receive_delta(A, delta)[1] == [SendMessage(B, Gossip(heads=(delta.head,)))]


def test_immediate_flush_when_leaving() -> None:
    world = World()
    assert world.spread(world.members.merge([claim(CAT, 1)], 0), None)
    world.gossip.members_changed([world.members.leave(0)], source=None)
    world.gossip.flush_now()
    assert len(world.gossip.flush(world.now)) == 2


def far_world() -> tuple[World, MemberId]:
    """Return a world of many members, with links to four neighbours and to one member (over C) that is none."""
    world = World()
    for number in range(1, 60):
        world.rings.enter(MemberId(bytes([number]) * 16))
    world.links.clear()
    world.links.update({member: LinkId(10 + place) for place, member in enumerate(list(world.rings.neighbours)[:4])})
    far = next(member for member in (ANN, BOB, CAT) if member not in world.rings.neighbours)
    world.links[far] = C
    return world, far


def test_refutation_reaches_an_accuser_that_is_no_neighbour() -> None:
    world, far = far_world()
    other = next(member for member in (ANN, BOB, CAT) if member != far)
    risen = world.members.merge([Claim(ME, 0, int(Standing.DEAD)), claim(other, 1)], 0)
    sends = {send.link: [row.member for row in send.message.claims] for send in world.spread(risen, C)}
    assert sends.pop(C) == [ME], "only the refutation"
    assert list(sends.values()) == [[ME, other]] * 4
    assert C not in [send.link for send in world.spread(world.members.merge([claim(other, 2)], 0), C)]


def test_ended_link_of_an_accuser() -> None:
    world, far = far_world()
    world.gossip.members_changed(world.members.merge([Claim(ME, 0, int(Standing.SUSPECT))], 0), source=C)
    del world.links[far]
    world.gossip.link_closed(C)
    assert C not in [send.link for send in world.flushed()]


def test_no_claim_to_an_alive_member_that_is_no_neighbour() -> None:
    world, far = far_world()
    assert C not in [send.link for send in world.spread(world.members.merge([claim(far, 1)], 0), None)]


def test_claims_without_catalogues_to_an_accused_member() -> None:
    world, far = far_world()
    world.members.declare(far, Standing.DEAD, 0)
    world.gossip.members_changed([world.members.get(far)], source=None)
    world.gossip.catalogue_changed(world.catalogue.offer(FunctionSpec(name="new")), source=None)
    first, *others = world.flushed()
    assert (first.link, len(first.message.claims), first.message.deltas) == (C, 1, ())
    assert [len(send.message.deltas) for send in others] == [1] * 4


def test_leaving_node_sends_to_all_links() -> None:
    world, _ = far_world()
    world.gossip.members_changed([world.members.leave(0)], source=None)
    assert [send.link for send in world.flushed()] == list(world.links.values())


def test_link_that_is_no_longer_slow() -> None:
    world = World()
    world.gossip.slow_links[B] = None
    world.gossip.link_closed(B)
    delta = world.offer(ANN)
    assert world.receive_delta(A, delta)[1] == [SendMessage(B, Gossip(deltas=(delta,)))]


def test_forgotten_member_is_not_fetched_or_passed_on() -> None:
    world = World()
    world.gossip.delta_received(A, world.offer(ANN))
    world.gossip.head_received(B, world.offer(CAT, "g").head)
    for member in (ANN, CAT):
        world.gossip.forget(member)
    assert world.gossip.fetching(CAT) == 0 and world.flushed() == []
    assert not any(world.gossip.tick() for _ in range(100))


def test_head_of_a_newer_version_than_the_one_being_fetched() -> None:
    world = World()
    first, second = world.offer(CAT, "g").head, world.offer(CAT, "h").head
    assert world.gossip.head_received(A, first) == [SendMessage(A, Fetch(CAT, 1))]
    assert world.gossip.head_received(B, second) == [SendMessage(B, Fetch(CAT, 1))]
    assert world.gossip.fetching(CAT) == 3
