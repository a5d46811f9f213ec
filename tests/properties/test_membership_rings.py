"""Properties of clusters on rings, of a dozen nodes and more: P13, and P6 and P9 to P11 there."""

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.topology import MESH, Rings
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Claim, Gossip
from tests.helpers.cluster_network import Network, Peer, agree, drawn_network

# -- P13: the overlay stays connected without a few nodes --------------------------------------------------------------


def overlay(size: int, seed: int) -> list[list[int]]:
    """Return the neighbours of each node, by place, among ids of that seed."""
    draws = Rng(seed)
    ids = [MemberId(draws.below(1 << 52).to_bytes(16, "big")) for _ in range(size)]
    rings = Rings(ids[0])
    for one in ids:
        rings.enter(one)
    places = {one: place for place, one in enumerate(ids)}
    return [[places[other] for other in rings.observers_of(one)] for one in ids]


def connected(near: list[list[int]], lost: Sequence[int]) -> bool:
    """Return whether all remaining nodes reach each other."""
    seen = [False] * len(near)
    for place in lost:
        seen[place] = True
    start = seen.index(False)
    seen[start], waiting, count = True, [start], 1
    while waiting:
        for other in near[waiting.pop()]:
            if not seen[other]:
                seen[other] = True
                count += 1
                waiting.append(other)
    return count == len(near) - len(lost)


@pytest.mark.parametrize("seed", range(3))
def test_p13_30_nodes_stay_connected_without_any_3(seed: int) -> None:
    near = overlay(30, seed)
    assert all(connected(near, lost) for lost in combinations(range(30), 3))


@pytest.mark.parametrize(("size", "trials"), [(MESH, 300), (100, 1000), (1000, 100)])
def test_p13_larger_overlays_stay_connected_without_drawn_nodes(size: int, trials: int) -> None:
    near, draws = overlay(size, size), Rng(size).child("gone")
    for _ in range(trials):
        first = draws.below(size)
        lost = {first, draws.below(size), draws.choice(near[first])}
        assert connected(near, sorted(lost)), sorted(lost)


# -- clusters ---------------------------------------------------------------------------------------------------------


def grown(net: Network, size: int) -> list[Peer]:
    """Return `size` nodes, each with one function. Each joins through one of the nodes before it."""
    draws = Rng(size).child("seeds")
    for number in range(size):
        seeds = (f"n{draws.below(number)}",) if number else ()
        net.node(f"n{number}", seeds=seeds, functions=(f"of-{number}", "all"), identity=bytes([number * 7 % 251]) * 16)
    net.run(10)
    return list(net.peers.values())


sizes = st.integers(MESH, 20)
seeds = st.integers(0, 2**32)


@settings(max_examples=8)
@given(seeds, sizes, st.data())
def test_p6_reachable_suspect_ends_alive(seed: int, size: int, data: st.DataObject) -> None:
    net = drawn_network(seed, 100)
    peers = grown(net, size)
    agree(peers)
    accuser, suspect = data.draw(st.permutations(peers))[:2]
    standing = data.draw(st.sampled_from([Standing.SUSPECT, Standing.DEAD]))
    link = next(link for member, link in accuser.cluster.links.items() if member != suspect.me)
    net.do(accuser, accuser.cluster.received(link, Gossip((Claim(suspect.me, 0, int(standing)),)), net.now))
    net.run(10)
    agree(peers)
    assert {peer.cluster.members.get(suspect.me).incarnation for peer in peers} == {1}


@settings(max_examples=8)
@given(seeds, sizes, st.data())
def test_p9_crashed_node_is_dead_everywhere_within_the_bound(seed: int, size: int, data: st.DataObject) -> None:
    net = drawn_network(seed, 50)
    peers = grown(net, size)
    crashed = data.draw(st.lists(st.sampled_from(peers), min_size=1, max_size=size // 3, unique=True))
    for peer in crashed:
        net.crash(peer.cluster.members.own.name)
    net.run(8)
    left = [peer for peer in peers if peer not in crashed]
    for peer in left:
        assert {peer.cluster.members.standing(other.me) for other in crashed} == {Standing.DEAD}
    net.run(5)
    agree(left)


@settings(max_examples=8)
@given(
    seeds,
    sizes,
    st.lists(st.tuples(st.sampled_from(["offer", "close", "leave", "join"]), st.integers(0, 99)), max_size=8),
)
def test_p10_no_member_is_suspected_without_a_fault(seed: int, size: int, script: list[tuple[str, int]]) -> None:
    net = drawn_network(seed, 300)
    grown(net, size)
    for number, (kind, draw) in enumerate(script):
        running = [peer for peer in net.peers.values() if peer.running]
        peer = running[draw % len(running)]
        name = peer.cluster.members.own.name
        if kind == "offer":
            net.do(peer, peer.cluster.offer(FunctionSpec(name=f"new-{number}", doc="x" * draw * 30), net.now))
        elif kind == "close":
            other = next(iter(peer.cluster.links))
            net.close(name, next(one for one in running if one.me == other).cluster.members.own.name)
        elif kind == "leave":
            net.leave(name)
        else:
            net.node(f"new-{number}", seeds=(name,), functions=("all",), identity=bytes([200 + number]) * 16)
            net.run(3)  # else its only seed may leave before the new node learns of another one
        net.run(draw / 20)
    net.run(20)
    everybody = list(net.peers.values())
    assert [peer.suspected() for peer in everybody] == [[]] * len(everybody)
    agree([peer for peer in everybody if peer.running])


@settings(max_examples=6)
@given(seeds, sizes, st.integers(1, 10), st.sampled_from([20, 700]))
def test_p11_one_view_after_a_partition_heals(seed: int, size: int, cut: int, seconds: int) -> None:
    net = drawn_network(seed, 20)
    peers = grown(net, size)
    names = [peer.cluster.members.own.name for peer in peers]
    for one in names[:cut]:
        for other in names[cut:]:
            net.cut(one, other)
    net.run(seconds)
    if seconds > 60:  # few nodes cut off from many raise their local health multiplier first, and suspect later
        agree(peers[:cut])
        agree(peers[cut:])
    changed = peers[0]
    net.do(changed, changed.cluster.offer(FunctionSpec(name="meanwhile"), net.now))
    net.heal()
    net.run(15 if seconds < 600 else 40)
    agree(peers)
    for peer in peers:
        assert [row.member for row in peer.cluster.index.offers("meanwhile", (), None)] == [changed.me]
