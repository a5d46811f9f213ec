"""A member that leaves while its last results are on their way: news of others must not take them for lost."""

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
    """Member A, linked to B and C."""
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


def gone(outs: list[object]) -> list[object]:
    return [out for out in outs if isinstance(out, MemberLost)]


def test_who_left_by_the_word_of_another_is_gone_when_its_own_links_are() -> None:
    a = cluster()
    a.link_established(TO_C_AGAIN, C, "c", dialled=None, now=1)
    assert gone(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.LEFT),)), now=1)) == []
    assert a.members.standing(C) is Standing.LEFT
    assert gone(a.link_closed(TO_C, clean=True, now=2)) == []
    assert gone(a.link_closed(TO_C_AGAIN, clean=True, now=2)) == [MemberLost(C)]


def test_who_is_dead_by_the_word_of_another_and_linked_here_has_a_second_to_say_that_it_is_not() -> None:
    for refutes in (False, True):
        a = cluster()
        assert gone(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.DEAD),)), now=1)) == []
        if refutes:
            assert gone(a.received(TO_C, Gossip(claims=(Claim(C, 1, Standing.ALIVE),)), now=2)) == []
        due = [key for key in a._timers.due(1 + REFUTE_TIMEOUT) if key[0] == TimerKind.MEMBER_LOST]
        assert [out for key in due for out in a.wake(key, 1 + REFUTE_TIMEOUT)] == ([] if refutes else [MemberLost(C)])


def test_who_is_dead_by_the_word_of_another_without_a_link_here_is_gone_at_once() -> None:
    a = cluster()
    a.link_closed(TO_C, clean=True, now=1)
    assert gone(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.DEAD),)), now=1)) == [MemberLost(C)]


def test_who_left_without_a_link_here_is_gone_at_once() -> None:
    a = cluster()
    a.link_closed(TO_C, clean=True, now=1)
    assert gone(a.received(TO_B, Gossip(claims=(Claim(C, 0, Standing.LEFT),)), now=1)) == [MemberLost(C)]
