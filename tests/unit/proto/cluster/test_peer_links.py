"""Peer links: both nodes keep the same one of several links, without suspicion."""

from collections.abc import Sequence

import pytest

from mpreg_proto.cluster.actions import CloseLink, LinkSelected, SendMessage, SendPing
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire.messages import Claim, Digest, Gossip
from tests.helpers.cluster_network import Network, Peer


@pytest.mark.parametrize("delays", [(1, 1, 1, 1), (1, 5, 2, 9), (9, 1, 1, 7), (3, 30, 1, 2), (30, 1, 60, 1)])
@pytest.mark.parametrize("first", [b"a", b"z"])
def test_one_link_after_two_nodes_dial_each_other(delays: tuple[int, ...], first: bytes) -> None:
    waits = iter(delays * 10_000)
    net = Network(delay=lambda: next(waits) * 1_000_000)
    a = net.node("a", seeds=("b",), identity=first * 16)
    b = net.node("b", seeds=("a",), identity=b"m" * 16)
    net.run(5)
    assert net.between("a", "b") == 1
    standing = {end.link for end in net.ends.values()}
    assert {a.cluster.links[b.me], b.cluster.links[a.me]} == standing
    seen = count_outputs(a), count_outputs(b)
    closed = [out for peer in (a, b) for _, out in peer.outs if isinstance(out, CloseLink)]
    assert len(closed) <= 1
    net.run(60)
    assert (count_outputs(a), count_outputs(b)) == seen, "quiet once it is settled"
    assert a.suspected() == b.suspected() == []


def count_outputs(peer: Peer) -> int:
    """Return the number of outputs of a node without probes and anti-entropy."""
    routine = (Digest, Gossip)
    outs = [out for _, out in peer.outs if not isinstance(out, SendPing)]
    return sum(not (isinstance(out, SendMessage) and isinstance(out.message, routine)) for out in outs)


def lone(identity: bytes) -> Cluster:
    return Network().node("me", identity=identity).cluster


def closes(outs: Sequence[object]) -> list[LinkId]:
    return [out.link for out in outs if isinstance(out, CloseLink)]


def selected(outs: Sequence[object]) -> list[LinkId]:
    return [out.link for out in outs if isinstance(out, LinkSelected)]


SHE = MemberId(b"s" * 16)
HER_ADDRESS = Address("ws://she:1")


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize(("me", "kept"), [(b"a" * 16, 1), (b"z" * 16, 2)])
def test_preferred_link_is_the_one_of_the_smaller_id(order: tuple[int, int], me: bytes, kept: int) -> None:
    cluster = lone(me)
    outs: list[object] = []
    for number in order:  # this node dialled link 1, the peer dialled link 2
        outs += cluster.link_established(
            LinkId(number), SHE, "she", dialled=HER_ADDRESS if number == 1 else None, now=0
        )
    assert cluster.links == {SHE: LinkId(kept)}
    assert selected(outs)[-1] == LinkId(kept)
    assert closes(outs) == ([] if kept == 1 else [LinkId(1)]), "only its dialler closes a link"


def test_preferred_link_of_two_from_one_dialler() -> None:
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=HER_ADDRESS, now=0)
    assert closes(cluster.link_established(LinkId(2), SHE, "she", dialled=Address("ws://other:1"), now=1)) == [
        LinkId(1)
    ]
    assert cluster.link_closed(LinkId(1), clean=True, now=2) == []
    theirs = lone(b"a" * 16)
    theirs.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    out = theirs.link_established(LinkId(2), SHE, "she", dialled=None, now=1)
    assert (selected(out), closes(out)) == ([LinkId(2)], [])


def test_other_link_selected_after_goodbye() -> None:
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    cluster.link_established(LinkId(2), SHE, "she", dialled=None, now=1)
    assert selected(cluster.goodbye_received(LinkId(2), 2)) == [LinkId(1)]
    assert cluster.goodbye_received(LinkId(1), 3) == []
    assert cluster.links == {}


def test_no_suspicion_after_the_end_of_a_duplicate_link() -> None:
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    cluster.received(LinkId(1), Gossip((Claim(SHE, 0, 0),)), 1)
    cluster.link_established(LinkId(2), SHE, "she", dialled=None, now=1)
    assert selected(cluster.link_closed(LinkId(2), clean=False, now=2)) == [LinkId(1)]
    assert cluster.members.standing(SHE) is Standing.ALIVE
    cluster.link_closed(LinkId(1), clean=False, now=3)
    assert cluster.members.standing(SHE) is Standing.SUSPECT


def test_link_end_beside_a_closing_link() -> None:
    """A closing link can stay open for hours; it must not hide that the other link broke."""
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    cluster.received(LinkId(1), Gossip((Claim(SHE, 0, 0),)), 1)
    cluster.link_established(LinkId(2), SHE, "she", dialled=None, now=1)
    cluster.goodbye_received(LinkId(1), 2)
    cluster.link_closed(LinkId(2), clean=False, now=3)
    assert cluster.members.standing(SHE) is Standing.SUSPECT
    cluster.received(LinkId(1), Gossip(), SECOND // 2)
    cluster.wake((TimerKind.SUSPICION, SHE), SECOND)
    assert cluster.members.standing(SHE) is Standing.SUSPECT, "bytes come over the link that closes"


def test_stall_while_joining() -> None:
    """The node stalls after the handshake, then handles all other input at once, up to the end of the link."""
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    cluster.received(LinkId(1), Gossip((Claim(SHE, 0, 0),)), 8 * SECOND)
    cluster.link_closed(LinkId(1), clean=False, now=8 * SECOND)
    assert cluster.members.standing(SHE) is Standing.ALIVE
    cluster.wake((TimerKind.TICK,), 8 * SECOND)
    assert cluster.members.standing(SHE) is Standing.ALIVE
    cluster.wake((TimerKind.TICK,), 9 * SECOND)
    assert cluster.members.standing(SHE) is Standing.SUSPECT, "a second later it is gone still"


def test_link_end_right_after_joining() -> None:
    cluster = lone(b"a" * 16)
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    cluster.received(LinkId(1), Gossip((Claim(SHE, 0, 0),)), 1)
    cluster.link_closed(LinkId(1), clean=False, now=2)
    assert cluster.members.standing(SHE) is Standing.SUSPECT


def test_ticks_of_a_lone_node() -> None:
    cluster = lone(b"a" * 16)
    cluster.start(0)
    assert cluster._timers.next() is None, "a node that knows nobody sleeps"
    cluster.link_established(LinkId(1), SHE, "she", dialled=None, now=0)
    assert cluster._timers.next() is not None


def test_no_flapping_of_a_seed_with_two_addresses() -> None:
    net = Network()
    a = net.node("a")
    a.addresses = (*a.addresses, Address("ws://alias:9001"))
    b = net.node("b", seeds=("ws://alias:9001",))
    net.run(400)
    dials = len(b.dials)
    assert dials < 10, "whether the name leads to others too is tried a few times"
    net.run(1200)
    assert net.between("a", "b") == 1
    assert len(b.dials) == dials
