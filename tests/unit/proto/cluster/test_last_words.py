"""A member that leaves while its last results are in transit: gossip from others must not mark its calls lost."""

from mpreg_proto.cluster.actions import MemberLost
from mpreg_proto.cluster.cluster import REFUTE_TIMEOUT, Cluster
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim, Gossip

B, C = MemberId(b"b" * 16), MemberId(b"c" * 16)
TO_B, TO_C, TO_C_AGAIN = LinkId(1), LinkId(2), LinkId(3)


def cluster() -> Cluster:
    """Return the cluster of member A, linked to B and C."""
    made = Cluster(
        MemberId(b"a" * 16),
        name="a",
        addresses=(),
        seeds=(),
        resources=(),
        timers=Timers(),
        rng=Rng(0),
        limits=Limits(),
        now=0,
    )
    for member, link in ((B, TO_B), (C, TO_C)):
        made.link_established(link, member, "them", dialled=None, now=0)
        made.received(link, Gossip(claims=(Claim(member, 0, Standing.ALIVE),)), now=0)
    return made


def lost(outs: list[object]) -> list[object]:
    return [out for out in outs if isinstance(out, MemberLost)]


def test_member_left_by_gossip_is_lost_when_its_links_end() -> None:
    a = cluster()
    a.link_established(TO_C_AGAIN, C, "c", dialled=None, now=1)
    assert lost(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.LEFT),)), now=1)) == []
    assert a.members.standing(C) is Standing.LEFT
    assert lost(a.link_closed(TO_C, clean=True, now=2)) == []
    assert lost(a.link_closed(TO_C_AGAIN, clean=True, now=2)) == [MemberLost(C)]


def test_linked_member_dead_by_gossip_has_a_second_to_refute() -> None:
    for refutes in (False, True):
        a = cluster()
        assert lost(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.DEAD),)), now=1)) == []
        if refutes:
            assert lost(a.received(TO_C, Gossip(claims=(Claim(C, 1, Standing.ALIVE),)), now=2)) == []
        due = [key for key in a._timers.due(1 + REFUTE_TIMEOUT) if key[0] == TimerKind.MEMBER_LOST]
        assert [out for key in due for out in a.wake(key, 1 + REFUTE_TIMEOUT)] == ([] if refutes else [MemberLost(C)])


def test_unlinked_member_dead_by_gossip_is_lost_at_once() -> None:
    a = cluster()
    a.link_closed(TO_C, clean=True, now=1)
    assert lost(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.DEAD),)), now=1)) == [MemberLost(C)]


def test_unlinked_member_left_by_gossip_is_lost_at_once() -> None:
    a = cluster()
    a.link_closed(TO_C, clean=True, now=1)
    assert lost(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.LEFT),)), now=1)) == [MemberLost(C)]
