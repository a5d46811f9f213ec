"""Rings and routes: neighbours are symmetric, depend on the set of members only, and change rarely."""

import pytest

from mpreg_proto.cluster.topology import MESH, RINGS, Rings, Routes
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS
from mpreg_proto.rng import Rng


def ids(count: int, seed: int = 0) -> list[MemberId]:
    draws = Rng(seed)
    return [MemberId(draws.below(1 << 52).to_bytes(16, "big")) for _ in range(count)]


def rings(me: MemberId, others: list[MemberId]) -> Rings:
    made = Rings(me)
    for other in others:
        made.enter(other)
    return made


@pytest.mark.parametrize("count", [2, MESH - 1])
def test_full_mesh_below_twelve_members(count: int) -> None:
    members = ids(count)
    made = rings(members[0], members)
    assert list(made.neighbours) == members[1:]
    assert all(set(made.observers_of(one)) == set(members) - {one} for one in members)


@pytest.mark.parametrize("count", [MESH, 13, 40, 300])
def test_symmetric_neighbours_on_each_ring(count: int) -> None:
    members = ids(count, count)
    views = {me: rings(me, members) for me in members}
    for me, made in views.items():
        assert 2 < len(made.neighbours) <= 2 * RINGS
        assert set(made.neighbours) == set(made.observers_of(me))
        for other in made.neighbours:
            assert me in views[other].neighbours, "observers are mutual"
        assert all(set(made.observers_of(other)) == set(views[other].neighbours) for other in members[:20])
    degrees = [len(made.neighbours) for made in views.values()]
    assert sum(degrees) / count > (2 * RINGS - 1 if count >= 100 else 5)


def test_neighbours_independent_of_the_order_of_changes() -> None:
    members = ids(60)
    me, rest = members[0], members[1:]
    draws = Rng(5)
    made, there = Rings(me), []
    for step in range(600):
        if there and draws.below(5) < 2:
            departed = there.pop(draws.below(len(there)))
            made.depart(departed)
        else:
            new = draws.choice(rest)
            made.enter(new)
            there = list(dict.fromkeys((*there, new)))
        assert len(made) == len(there) + 1
        fresh = rings(me, there)
        assert set(made.neighbours) == set(fresh.neighbours), step
    assert made.changes < 600


def test_ring_changes_count_only_near_this_node() -> None:
    members = ids(400)
    made = rings(members[0], members[:300])
    before, changes = dict(made.neighbours), made.changes
    for other in members[300:]:
        made.enter(other)
        if other not in made.neighbours:
            assert (made.neighbours, made.changes) == (before, changes)
        before, changes = dict(made.neighbours), made.changes
    assert made.changes < 100
    made.enter(members[5])
    made.depart(members[0])
    made.depart(MemberId(b"unknown" + bytes(9)))
    assert len(made) == 400


def test_observers_of_a_member_that_is_not_in_the_rings() -> None:
    members = ids(50)
    made = rings(members[0], members[:49])
    expected = made.observers_of(members[49])
    made.enter(members[49])
    assert made.observers_of(members[49]) == expected
    assert members[49] in made


@pytest.mark.parametrize("count", [5, 30, 500])
def test_next_hop_is_an_observer_of_the_target_if_linked(count: int) -> None:
    members = ids(count, 3)
    me = members[0]
    made = rings(me, members)
    links = {member: LinkId(number) for number, member in enumerate(made.neighbours, 1)}
    routes = Routes(made, links)
    for target in members[1:]:
        hop = routes.next_hop(target)
        if target in links:
            assert hop == links[target]
            continue
        assert hop is not None
        relay = next(member for member, link in links.items() if link == hop)
        near = [other for other in made.observers_of(target) if other in links]
        assert not near or relay in near
        assert routes.next_hop(target, via=[relay]) != hop


def test_no_next_hop_to_itself_past_max_hops_or_without_links() -> None:
    members = ids(30)
    made = rings(members[0], members)
    routes = Routes(made, {})
    assert routes.next_hop(members[5]) is None
    links = {member: LinkId(number) for number, member in enumerate(members[1:20], 1)}
    routes = Routes(made, links)
    assert routes.next_hop(members[0]) is None
    assert routes.next_hop(members[25]) is not None
    assert routes.next_hop(members[25], via=[bytes(16)] * MAX_HOPS) is None
    links.clear()
    assert routes.next_hop(members[25]) is not None, "kept until a change is reported"
    routes.changed()
    assert routes.next_hop(members[25]) is None


def walk(members: list[MemberId], start: MemberId, target: MemberId) -> int:
    """Return the number of nodes that relay a message, each by its own neighbours; -1 if it does not arrive."""
    via: list[bytes] = []
    at = start
    while at != target:
        made = rings(at, members)
        links = {member: LinkId(number) for number, member in enumerate(made.neighbours, 1)}
        hop = Routes(made, links).next_hop(target, via=via)
        if hop is None:
            return -1
        via.append(at)
        at = next(member for member, link in links.items() if link == hop)
    return len(via) - 1


def test_four_hops_suffice_for_a_hundred_nodes() -> None:
    members = ids(100)
    assert max(walk(members, members[0], target) for target in members[1:40]) <= MAX_HOPS
    assert all(walk(members, members[0], target) >= 0 for target in members[1:40])
