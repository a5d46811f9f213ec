"""Properties of several clusters together (docs/explanation/membership.md): P6 and P9 to P11, with drawn delays.

test_membership_rings.py has P13, and the bounds of P9 and P11 at full strength, on the overlay of rings.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Claim, Gossip
from tests.helpers.cluster_network import Network, Peer, agree, drawn_network


def grown(net: Network, size: int) -> list[Peer]:
    """Return `size` nodes, each with one function. Each joins through one of the nodes before it."""
    draws = Rng(size).child("seeds")
    names = [chr(ord("a") + number) for number in range(size)]
    for number, name in enumerate(names):
        seeds = (names[draws.below(number)],) if number else ()
        net.node(name, seeds=seeds, functions=(f"of-{name}", "all"), identity=bytes([(number * 7) % 11]) * 16)
    return list(net.peers.values())


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(3, 6), st.data())
def test_p6_reachable_suspect_ends_alive_one_incarnation_later(seed: int, size: int, data: st.DataObject) -> None:
    net = drawn_network(seed, 300)
    peers = grown(net, size)
    net.run(15)
    agree(peers)
    suspect = data.draw(st.sampled_from(peers))
    standing = data.draw(st.sampled_from([Standing.SUSPECT, Standing.DEAD]))
    accusers = data.draw(st.lists(st.sampled_from([peer for peer in peers if peer is not suspect]), min_size=1))
    for accuser in accusers:
        # From a third member, as if another member had sent it; all at once, so that it is one accusation.
        link = next(link for member, link in accuser.cluster.links.items() if member != suspect.me)
        news = Gossip((Claim(suspect.me, 0, int(standing)),))
        net.do(accuser, accuser.cluster.received(link, news, net.now))
    net.run(15)
    agree(peers)
    assert {peer.cluster.members.get(suspect.me).incarnation for peer in peers} == {1}


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(3, 6), st.data())
def test_p9_crashed_node_is_dead_everywhere_within_the_bound(seed: int, size: int, data: st.DataObject) -> None:
    net = drawn_network(seed, 100)
    peers = grown(net, size)
    net.run(15)
    crashed = data.draw(st.lists(st.sampled_from(peers), min_size=1, max_size=size - 1, unique=True))
    for peer in crashed:
        net.crash(peer.cluster.members.own.name)
    left = [peer for peer in peers if peer not in crashed]
    net.run(3 if len(left) > 1 else 8)  # a member left alone has no other to confirm, so it suspects for 6 s
    for peer in left:
        assert {peer.cluster.members.standing(other.me) for other in crashed} == {Standing.DEAD}
    net.run(10)
    agree(left)


quiet_steps = st.lists(
    st.tuples(st.sampled_from(["offer", "withdraw", "close", "drain", "leave", "join", "wait"]), st.integers(0, 100)),
    max_size=12,
)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 5), quiet_steps)
def test_p10_no_member_is_suspected_without_a_fault(seed: int, size: int, script: list[tuple[str, int]]) -> None:
    net = drawn_network(seed, 400)
    grown(net, size)
    net.run(15)
    for number, (kind, draw) in enumerate(script):
        running = [peer for peer in net.peers.values() if peer.running]
        peer, other = running[draw % len(running)], running[(draw // 7) % len(running)]
        name, cluster = peer.cluster.members.own.name, peer.cluster
        if kind == "offer":
            net.do(peer, cluster.offer(FunctionSpec(name=f"new-{number}", doc="x" * draw * 30), net.now))
        elif kind == "withdraw" and len(cluster.catalogue.offered) > 1:
            net.do(peer, cluster.withdraw(next(iter(reversed(cluster.catalogue.offered))), net.now))
        elif kind == "close" and peer is not other:
            net.close(name, other.cluster.members.own.name)
        elif kind == "drain" and draw % 5 == 0:
            net.do(peer, cluster.drain(net.now))
        elif kind == "leave" and len(running) > 1:
            net.run(4)  # so that a member whose last link just closed can receive LEFT
            net.leave(name)
        elif kind == "join":
            net.node(f"n{number}", seeds=(name,), functions=("all",), identity=bytes([100 + number]) * 16)
            net.run(3)  # else its only seed may leave before the new node learns of another one
        net.run(draw / 20)
    net.run(20)
    everybody = list(net.peers.values())
    assert [peer.suspected() for peer in everybody] == [[]] * len(everybody)
    running = [peer for peer in everybody if peer.running]
    for peer in running:
        assert sorted(peer.cluster.links) == sorted(other.me for other in running if other is not peer)
        for other in running:
            assert peer is other or net.between(peer.cluster.members.own.name, other.cluster.members.own.name) == 1


fault_steps = st.lists(
    st.tuples(
        st.sampled_from(["offer", "close", "cut", "heal", "crash", "restart", "leave", "wait", "long"]),
        st.integers(0, 100),
    ),
    max_size=15,
)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 5), fault_steps)
def test_p11_survivors_agree_after_all_faults(seed: int, size: int, script: list[tuple[str, int]]) -> None:
    net = drawn_network(seed, 200)
    grown(net, size)
    net.run(10)
    lives = 0
    for number, (kind, draw) in enumerate(script):
        names = list(net.peers)
        name, other = names[draw % size], names[(draw // 7) % size]
        peer = net.peers[name]
        if kind == "heal":
            net.heal()
        elif kind == "restart" and not peer.running:
            lives += 1
            seeds = tuple(other for other in names if other != name)
            net.node(name, seeds=seeds, functions=("all",), identity=bytes([100 + lives]) * 16)
        elif not peer.running:
            continue
        elif kind == "offer":
            net.do(peer, peer.cluster.offer(FunctionSpec(name=f"new-{number}", doc="x" * draw * 30), net.now))
        elif kind in ("close", "cut") and name != other:
            getattr(net, kind)(name, other)
        elif kind in ("crash", "leave") and sum(known.running for known in net.peers.values()) > 1:
            getattr(net, kind)(name)
        net.run(700 if kind == "long" else draw / 30)
    net.heal()
    net.run(45)
    running = [peer for peer in net.peers.values() if peer.running]
    if reachable(net, running):
        agree(running)
        for peer in running:
            assert sorted(peer.cluster.links) == sorted(known.me for known in running if known is not peer)


def reachable(net: Network, running: list[Peer]) -> bool:
    """Return whether some node knows an address of every node, directly or through others.

    Otherwise no protocol can join them.
    """
    groups = {peer.me: {peer.me} for peer in running}
    for peer in running:
        addresses = {*peer.cluster._dialer.seeds}
        addresses.update(address for held in peer.cluster.members.all() for address in held.addresses)
        for other in running:
            if addresses.intersection(other.addresses):
                joined = groups[peer.me] | groups[other.me]
                for member in joined:
                    groups[member] = joined
    return all(len(group) == len(running) for group in groups.values())
