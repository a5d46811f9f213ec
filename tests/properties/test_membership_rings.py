"""What must hold of clusters on rings, of a dozen nodes and more: P13, and P6 and P9 to P11 there."""

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

# -- P13: no few nodes hold the overlay together ----------------------------------------------------------------------


def overlay(size: int, seed: int) -> list[list[int]]:
    """Who is whose neighbour, by place, among ids of that seed."""
    draws = Rng(seed)
    ids = [MemberId(draws.below(1 << 52).to_bytes(16, "big")) for _ in range(size)]
    rings = Rings(ids[0])
    for one in ids:
        rings.enter(one)
    places = {one: place for place, one in enumerate(ids)}
    return [[places[other] for other in rings.observers_of(one)] for one in ids]


def connected(near: list[list[int]], gone: Sequence[int]) -> bool:
    """Whether all that are left reach each other."""
    seen = [False] * len(near)
    for place in gone:
        seen[place] = True
    start = seen.index(False)
    seen[start], waiting, count = True, [start], 1
    while waiting:
        for other in near[waiting.pop()]:
            if not seen[other]:
                seen[other] = True
                count += 1
                waiting.append(other)
    return count == len(near) - len(gone)


@pytest.mark.parametrize("seed", range(3))
def test_p13_of_30_nodes_any_3_may_go(seed: int) -> None:
    near = overlay(30, seed)
    assert all(connected(near, gone) for gone in combinations(range(30), 3))


@pytest.mark.parametrize(("size", "trials"), [(MESH, 300), (100, 1000), (1000, 100)])
def test_p13_sampled_in_others(size: int, trials: int) -> None:
    near, draws = overlay(size, size), Rng(size).child("gone")
    for _ in range(trials):
        first = draws.below(size)
        gone = {first, draws.below(size), draws.choice(near[first])}
        assert connected(near, sorted(gone)), sorted(gone)


# -- clusters ---------------------------------------------------------------------------------------------------------


def grown(net: Network, size: int) -> list[Peer]:
    """`size` nodes, each with one function, each joined by one that was there before."""
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
def test_p6_who_is_accused_and_can_be_heard_is_alive_in_the_end(seed: int, size: int, data: st.DataObject) -> None:
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
def test_p9_who_crashes_is_dead_everywhere_within_the_bound(seed: int, size: int, data: st.DataObject) -> None:
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
def test_p10_without_a_fault_nobody_is_ever_suspected(seed: int, size: int, script: list[tuple[str, int]]) -> None:
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
            net.run(3)  # or its only seed may leave before it has heard of anybody else
        net.run(draw / 20)
    net.run(20)
    everybody = list(net.peers.values())
    assert [peer.suspected() for peer in everybody] == [[]] * len(everybody)
    agree([peer for peer in everybody if peer.running])


@settings(max_examples=6)
@given(seeds, sizes, st.integers(1, 10), st.sampled_from([20, 700]))
def test_p11_after_a_partition_heals_there_is_one_view(seed: int, size: int, cut: int, seconds: int) -> None:
    net = drawn_network(seed, 20)
    peers = grown(net, size)
    names = [peer.cluster.members.own.name for peer in peers]
    for one in names[:cut]:
        for other in names[cut:]:
            net.cut(one, other)
    net.run(seconds)
    if seconds > 60:  # a few that are cut off from many first doubt themselves, and take their time
        agree(peers[:cut])
        agree(peers[cut:])
    changed = peers[0]
    net.do(changed, changed.cluster.offer(FunctionSpec(name="meanwhile"), net.now))
    net.heal()
    net.run(15 if seconds < 600 else 40)
    agree(peers)
    for peer in peers:
        assert [row.member for row in peer.cluster.index.offers("meanwhile", (), None)] == [changed.me]
