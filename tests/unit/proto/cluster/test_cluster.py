"""Several clusters on a network of their own: who knows whom and what, after what happened."""

from collections.abc import Sequence
from itertools import permutations

import msgspec
import pytest

from mpreg_proto.cluster.actions import IdRetired, LinkSelected, MemberLost, OffersChanged, SendMessage
from mpreg_proto.cluster.catalogue import LAST_VERSION, Entry, FunctionSpec, entry_hash
from mpreg_proto.cluster.members import Card
from mpreg_proto.effects import Notify
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import CardsDiffer, PeerUnreachable, Standing
from mpreg_proto.view import member_views
from mpreg_proto.wire.messages import Change, Claim, Delta, DialBack, Digest, Fetch, Gossip, Head
from tests.helpers.cluster_network import Network, Peer, agree, at


def who(peer: Peer, function: str, resources: tuple[str, ...] = (), version: str | None = None) -> list[str]:
    return [candidate.shown.partition("#")[0] for candidate in peer.cluster.index.offers(function, resources, version)]


def chain(order: Sequence[str] = "abc", **more: bytes) -> Network:
    """A <- B <- C, started in `order`."""
    net = Network()
    seeds = {"a": (), "b": ("a",), "c": ("b",)}
    for name in order:
        net.node(name, seeds=seeds[name], functions=(f"of-{name}",), identity=more.get(name))
    net.run(5)
    return net


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("abc")])
def test_three_in_a_chain_learn_each_other_and_make_a_mesh(order: str) -> None:
    net = chain(order)
    net.run(7)
    for peer in net.peers.values():
        assert peer.standings() == {"a": "alive", "b": "alive", "c": "alive"}
        assert [who(peer, f"of-{name}") for name in "abc"] == [["a"], ["b"], ["c"]]
        assert len(peer.cluster.links) == 2
        assert peer.cluster.synced()
        assert peer.suspected() == []
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]


@pytest.mark.parametrize("ids", list(permutations((b"1" * 16, b"2" * 16, b"3" * 16))))
def test_the_mesh_does_not_depend_on_whose_id_is_smaller(ids: tuple[bytes, bytes, bytes]) -> None:
    net = chain(a=ids[0], b=ids[1], c=ids[2])
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]
    assert [who(peer, "of-c") for peer in net.peers.values()] == [["c"]] * 3


def test_what_is_offered_later_is_known_everywhere_within_two_hops() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    changes = len([out for _, out in a.outs if isinstance(out, OffersChanged)])
    net.do(c, c.cluster.offer(FunctionSpec(name="late", version="2", resources=("gpu",), idempotent=True), net.now))
    net.run(0.003)
    for peer in net.peers.values():
        (candidate,) = peer.cluster.index.offers("late", ("gpu",), None)
        assert (candidate.member, candidate.exact, candidate.idempotent, candidate.version) == (c.me, True, True, "2")
    assert len([out for _, out in a.outs if isinstance(out, OffersChanged)]) > changes
    net.do(c, c.cluster.withdraw("late", net.now))
    net.run(0.053)  # what comes so soon after other news is joined over 50 ms
    assert [who(peer, "late") for peer in net.peers.values()] == [[], [], []]


def test_a_large_change_is_fetched_and_only_once() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.do(c, c.cluster.offer(FunctionSpec(name="long", doc="x" * 5000), net.now))
    net.run(0.1)
    assert [who(peer, "long") for peer in net.peers.values()] == [["c"]] * 3
    fetches = [out for _, out in a.outs if isinstance(out, Fetch) or isinstance(getattr(out, "message", None), Fetch)]
    assert len([out for out in fetches if out.message.member == c.me and out.message.have > 0]) == 1


def test_hundreds_of_functions_offered_before_the_first_link_arrive_as_a_snapshot() -> None:
    net = Network()
    a = net.node("a", functions=tuple(f"f{number}" for number in range(600)))
    b = net.node("b", seeds=("a",))
    net.run(1)
    assert b.cluster.catalogue.version(a.me) == 600
    assert who(b, "f0") == who(b, "f599") == ["a"]
    assert b.cluster.catalogue.content(a.me).head == a.cluster.catalogue.content(a.me).head


def test_a_crashed_member_is_suspect_at_once_and_dead_a_second_later() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.crash("c")
    assert a.standings()["c"] == "suspect"
    assert who(a, "of-c") == ["c"]
    net.run(0.9)
    assert a.standings()["c"] == "suspect", "the end of a stream and a dial in vain are no death"
    net.run(0.2)
    for name in "ab":
        assert net.peers[name].standings()["c"] == "dead"
        assert who(net.peers[name], "of-c") == []
        assert [out for _, out in net.peers[name].outs if isinstance(out, MemberLost)] == [MemberLost(c.me)]
        assert net.peers[name].cluster.catalogue.version(c.me) == 0


def test_a_member_that_nobody_can_dial_is_dead_as_soon() -> None:
    net = Network()
    a = net.node("a")
    net.node("b", seeds=("a",), addresses=())
    net.run(6)
    net.crash("b")
    net.run(0.9)
    assert a.standings()["b"] == "suspect"
    net.run(0.2)
    assert a.standings()["b"] == "dead"


def test_who_leaves_is_never_suspected_and_gone_at_once() -> None:
    net = chain()
    c = net.peers["c"]
    dials = len(net.peers["a"].dials)
    net.leave("c")
    net.run(20)
    for name in "ab":
        peer = net.peers[name]
        assert peer.standings()["c"] == "left"
        assert peer.suspected() == []
        assert MemberLost(c.me) in [out for _, out in peer.outs]
    assert len(net.peers["a"].dials) == dials
    assert c.cluster.connect(net.peers["a"].me, net.now) == []


def test_a_draining_member_is_no_candidate_and_still_alive() -> None:
    net = chain()
    c = net.peers["c"]
    net.do(c, c.cluster.drain(net.now))
    net.run(0.1)
    assert [who(peer, "of-c") for peer in net.peers.values()] == [[], [], []]
    assert [peer.standings()["c"] for peer in net.peers.values()] == ["draining", "draining", "draining"]
    assert net.peers["a"].cluster.members.standing(c.me) is Standing.ALIVE


def test_a_new_life_at_the_same_address_is_used_within_five_seconds() -> None:
    net = chain()
    old = net.peers["c"].me
    net.crash("c")
    net.run(2)
    new = net.node("c", identity=b"new life of c...", functions=("of-c",))
    started = net.now
    net.run(5)
    for name in "ab":
        peer = net.peers[name]
        assert [candidate.member for candidate in peer.cluster.index.offers("of-c", (), None)] == [new.me]
        heard = [when for when, out in peer.outs if isinstance(out, LinkSelected) and out.member == new.me]
        assert heard[0] - started <= 5 * SECOND
    # Where the old life was dialled and the new one answered, that is evidence: it retired, and cannot come back.
    standings = [net.peers[name].cluster.members.standing(old) for name in "ab"]
    assert standings == [Standing.RETIRED, Standing.RETIRED]


def test_a_new_life_that_is_there_before_anybody_noticed() -> None:
    net = chain()
    old = net.peers["c"].me
    net.run(10)
    net.crash("c")
    net.node("c", identity=b"new life of c...", functions=("of-c",), seeds=("b",))
    net.run(0.1)
    for name in "ab":
        assert net.peers[name].cluster.members.standing(old) is Standing.SUSPECT
        suspects = {row.member: row.suspect for row in net.peers[name].cluster.index.offers("of-c", (), None)}
        assert suspects == {old: True, net.peers["c"].me: False}
    net.run(1)
    for name in "ab":
        assert net.peers[name].cluster.members.standing(old) is Standing.RETIRED
        assert who(net.peers[name], "of-c") == ["c"]
    net.run(20)
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]


def test_another_name_of_this_node_is_dialled_rarely() -> None:
    net = Network()
    a = net.node("a", seeds=("ws://alias:9001", "b"))
    a.addresses = (Address("ws://alias:9001"), *a.addresses)
    net.node("b")
    net.run(60)
    assert 1 <= [address for _, address in a.dials].count(Address("ws://alias:9001")) <= 3
    assert a.standings() == {"a": "alive", "b": "alive"}
    net.run(600)
    assert [address for _, address in a.dials].count(Address("ws://alias:9001")) <= 3 + 600 // 60


def test_seed_address_that_led_to_this_node_first() -> None:
    """A balancer: whoever answers there may be another one the next time."""
    net = Network()
    a = net.node("a", seeds=("ws://balancer:9001",))
    a.addresses = (*a.addresses, Address("ws://balancer:9001"))
    b = net.node("b")
    net.run(0.2)
    assert a.standings() == {"a": "alive"}
    assert not a.cluster.synced()
    a.addresses, b.addresses = a.addresses[:1], (*b.addresses, Address("ws://balancer:9001"))
    net.run(5)
    assert a.standings() == b.standings() == {"a": "alive", "b": "alive"}
    assert a.cluster.synced()


def test_lone_node_whose_seed_always_leads_to_itself() -> None:
    net = Network()
    a = net.node("a", seeds=("ws://alias:9001",))
    a.addresses = (*a.addresses, Address("ws://alias:9001"))
    net.run(10)
    assert a.cluster.synced(), "there is nobody to ask, as far as it can tell"
    net.run(3600)
    assert 100 <= len(a.dials) <= 140, "and it is asked for ever, once in half a minute"


def test_a_node_whose_only_seed_is_itself_has_nobody_to_wait_for() -> None:
    net = Network()
    a = net.node("a", seeds=("a",))
    net.run(1)
    assert a.dials == []
    assert a.cluster.synced()


def test_links_that_close_on_purpose_are_made_anew_without_suspicion() -> None:
    net = chain()
    for _ in range(5):
        net.close("a", "c")
        net.run(7)
        assert net.between("a", "c") == 1
    assert [peer.suspected() for peer in net.peers.values()] == [[], [], []]


def test_a_link_that_breaks_between_two_who_live_is_mended_and_the_accused_refutes() -> None:
    net = chain()
    net.run(10)
    a, c = net.peers["a"], net.peers["c"]
    net.cut("a", "c")
    net.heal()
    net.run(3)
    assert net.between("a", "c") == 1
    assert a.standings() == c.standings() == {"a": "alive", "b": "alive", "c": "alive"}
    assert c.cluster.members.own.incarnation == 1
    assert a.cluster.catalogue.version(c.me) == 1


@pytest.mark.parametrize("seconds", [5, 700])
def test_a_partition_heals_without_a_restart(seconds: int) -> None:
    net = chain()
    net.cut("a", "b")
    net.cut("a", "c")
    net.run(seconds)
    assert net.peers["a"].standings() == {"a": "alive", "b": "dead", "c": "dead"}
    c = net.peers["c"]
    net.do(c, c.cluster.offer(FunctionSpec(name="meanwhile"), net.now))
    net.heal()
    net.run(15 if seconds < 600 else 40)
    for peer in net.peers.values():
        assert peer.standings() == {"a": "alive", "b": "alive", "c": "alive"}
        assert [who(peer, name) for name in ("of-a", "of-b", "meanwhile")] == [["a"], ["b"], ["c"]]


def test_a_member_that_was_thought_dead_and_is_back_gets_its_catalogue_everywhere() -> None:
    net = chain()
    a, b, c = (net.peers[name] for name in "abc")
    # Everybody is told that c is DEAD; c itself hears it too, and refutes.
    net.do(b, b.cluster.received(b.cluster.links[a.me], Gossip((Claim(c.me, 0, int(Standing.DEAD)),)), net.now))
    assert who(b, "of-c") == []
    net.run(0.1)
    for peer in (a, b):
        assert peer.standings()["c"] == "alive"
        assert who(peer, "of-c") == ["c"]
        assert peer.outs[-1][1] == OffersChanged() or peer.cluster.links[c.me]
    assert c.cluster.members.own.incarnation == 1


def test_a_silent_seed_is_dialled_at_the_agreed_pace_and_said_once() -> None:
    net = Network()
    a = net.node("a", seeds=("nowhere",))
    net.run(590)
    assert 590 / 5 <= len(a.dials) <= 590 / 2.5 + 10
    assert [out for _, out in a.outs if isinstance(out, Notify) and isinstance(out.notice, PeerUnreachable)] == [
        Notify(PeerUnreachable(Address(at("nowhere")[0])))
    ]
    net.run(60)
    before = len(a.dials)
    net.run(300)
    assert 9 <= len(a.dials) - before <= 11
    assert not a.cluster.synced()


def test_no_more_dials_at_once_than_allowed() -> None:
    net = Network(delay=lambda: SECOND)
    a = net.node("a", seeds=tuple(f"s{number}" for number in range(30)), limits=Limits(dials=3))
    net.run(0.5)
    assert len(a.dials) == 3
    net.run(12)
    assert len({address for _, address in a.dials}) == 30
    times = sorted(when for when, _ in a.dials)
    assert all(later - earlier >= SECOND for earlier, later in zip(times, times[3:], strict=False))


def test_a_call_that_waits_makes_a_dial_unless_one_is_under_way() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.cut("a", "c")
    net.run(0.001)
    before = len(a.dials)
    first = a.cluster.connect(c.me, net.now + SECOND)
    again = a.cluster.connect(c.me, net.now + SECOND)
    assert len(first) + len(again) <= 1
    assert len(a.dials) == before
    assert a.cluster.connect(MemberId(b"unknown" + bytes(9)), net.now) == []
    assert a.cluster.connect(net.peers["b"].me, net.now) == [], "it is linked"


def test_a_retired_process_is_told_once_to_take_a_new_id() -> None:
    net = chain()
    a, b = net.peers["a"], net.peers["b"]
    retired = Gossip((Claim(a.me, 0, int(Standing.RETIRED)),))
    link = a.cluster.links[b.me]
    assert a.cluster.received(link, retired, net.now) == [IdRetired()]
    assert a.cluster.received(link, retired, net.now) == []
    assert IdRetired() not in a.cluster.received(link, Gossip((Claim(a.me, 0, int(Standing.DEAD)),)), net.now)
    assert a.cluster.members.own.incarnation == 1


def test_a_new_address_is_told_as_a_new_incarnation() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.do(a, a.cluster.advertise((Address("ws://elsewhere:1"),), net.now))
    net.run(0.1)
    row = next(row for row in member_views(c.cluster, now=0) if row.name == "a")
    assert (row.addresses, row.incarnation, row.standing, row.linked) == (("ws://elsewhere:1",), 1, "alive", True)
    assert a.cluster.advertise((Address("ws://elsewhere:1"),), net.now) == []


def test_resources_of_a_node_count_for_all_its_functions() -> None:
    net = Network()
    net.node("a", functions=("f",), resources=("gpu", "fast"))
    b = net.node("b", seeds=("a",), functions=("f",))
    net.run(3)
    assert who(b, "f") == ["a", "b"]
    assert who(b, "f", ("gpu",)) == ["a"]
    a = net.peers["a"]
    net.do(a, a.cluster.set_resources(("slow",), net.now))
    net.run(0.1)
    assert who(b, "f", ("gpu",)) == []
    assert next(row for row in member_views(b.cluster, now=0) if row.name == "a").resources == ("slow",)


def test_messages_and_ends_of_unknown_links_are_ignored() -> None:
    net = chain()
    a = net.peers["a"].cluster
    ghost = LinkId(10_000)
    assert a.received(ghost, Gossip(), net.now) == []
    assert a.link_closed(ghost, clean=False, now=net.now) == []
    assert a.goodbye_received(ghost, net.now) == []
    assert a.received(a.links[net.peers["b"].me], Fetch(b"?", 0), net.now) == []
    out = a.received(a.links[net.peers["b"].me], Digest((), ()), net.now)
    assert len(out) == 1


def test_withdrawing_what_is_not_offered_changes_nothing() -> None:
    net = chain()
    a = net.peers["a"].cluster
    before = a.catalogue.content(a.me).head
    with pytest.raises(LocalProtocolError):
        a.withdraw("never", net.now)
    assert a.catalogue.content(a.me).head == before


def test_a_crash_of_a_member_and_of_its_only_witness_is_noticed_in_the_end() -> None:
    net = Network()
    a = net.node("a")
    net.node("b", seeds=("a",))
    net.run(5)
    c = net.node("c", seeds=("b",))
    net.cut("a", "c")
    net.run(1)
    assert a.standings()["c"] == "alive"
    net.crash("c")
    net.crash("b")
    net.run(40)
    assert a.standings() == {"a": "alive", "b": "dead", "c": "dead"}
    assert a.cluster.members.standing(c.me) is Standing.DEAD


def test_who_cannot_be_dialled_is_asked_over_others_to_dial() -> None:
    net = Network()
    for number in range(24):
        seeds = ("n0",) if number else ()
        net.node(
            f"n{number}", seeds=seeds, identity=bytes([number * 37 % 251]) * 16, addresses=() if number == 5 else None
        )
    net.run(60)  # links that were needed to join have been closed
    hidden = net.peers["n5"]
    far = next(peer for peer in net.peers.values() if hidden.me not in (peer.me, *peer.cluster.links))
    net.do(far, far.cluster.connect(hidden.me, net.now))
    net.run(0.05)
    assert hidden.me in far.cluster.links
    asked = [out.message for _, out in far.outs if isinstance(out, SendMessage) and isinstance(out.message, DialBack)]
    assert asked == [DialBack(hidden.me, far.me)]
    assert far.cluster.connect(hidden.me, net.now) == []


def test_links_that_nobody_needs_are_offered_to_be_closed_by_who_dialled_them() -> None:
    net = Network()
    for number in range(30):
        net.node(f"n{number}", seeds=("n0",) if number else (), identity=bytes([number * 37 % 251]) * 16)
    net.run(1)
    assert len(net.peers["n0"].cluster.links) == 29
    net.run(60)
    for peer in net.peers.values():
        assert set(peer.cluster.links) == set(peer.cluster.rings.neighbours)
        assert peer.suspected() == []


def test_a_node_that_is_cut_off_from_its_neighbours_dials_anybody() -> None:
    net = Network()
    for number in range(30):
        net.node(f"n{number}", seeds=("n0",) if number else (), identity=bytes([number * 37 % 251]) * 16)
    net.run(60)
    lonely = net.peers["n7"]
    names = {peer.me: name for name, peer in net.peers.items()}
    for member in list(lonely.cluster.rings.neighbours):
        net.cut("n7", names[member])
    net.run(10)
    assert len(lonely.cluster.links) >= 3
    assert {peer.standings()["n7"] for peer in net.peers.values()} == {"alive"}, "others vouch for it, or it refutes"


def test_what_two_nodes_know_is_compared_now_and_then_and_mended() -> None:
    net = chain()
    net.run(10)
    a, b = net.peers["a"], net.peers["b"]
    b.cluster.catalogue.offer(FunctionSpec(name="untold"))  # as if the link had lost the news
    b.cluster._anti_entropy.buckets.invalidate()
    net.run(65)
    assert who(a, "untold") == ["b"]


def test_a_link_that_does_not_drain_gets_no_content_until_it_does() -> None:
    net = chain()
    a, b = net.peers["a"].cluster, net.peers["b"]
    link = a.links[b.me]
    a.backlog(link, Limits().slow_link)
    a.backlog(LinkId(10_000), Limits().slow_link)
    net.run(1)
    (tell,) = [
        out for out in a.offer(FunctionSpec(name="new"), net.now) if isinstance(out, SendMessage) and out.link == link
    ]
    assert (tell.message.deltas, len(tell.message.heads)) == ((), 1)
    a.backlog(link, Limits().slow_link - 1)
    net.run(1)
    told = [
        out for out in a.offer(FunctionSpec(name="newer"), net.now) if isinstance(out, SendMessage) and out.link == link
    ]
    assert len(told[0].message.deltas) == 1


def test_a_suspect_that_is_met_is_told_at_once() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.run(10)
    net.cut("a", "c")
    net.heal()
    assert a.standings()["c"] == "suspect"
    net.run(0.5)
    assert a.standings()["c"] == "alive"
    assert c.cluster.members.own.incarnation == 1


def test_two_cards_for_one_incarnation_are_reported() -> None:
    net = chain()
    a, c = net.peers["a"].cluster, net.peers["c"]
    forged = msgspec.msgpack.encode(Card("nobody"))
    out = a.received(a.links[net.peers["b"].me], Gossip((Claim(c.me, 0, 0, forged),)), net.now)
    assert [one.notice.member for one in out if isinstance(one, Notify) and isinstance(one.notice, CardsDiffer)] == [
        c.me
    ]
    assert a.members.drain_card_conflicts() == []


# -- numbers that somebody made up ------------------------------------------------------------------------------------


def _poisoned(version: int, content: bool = True) -> tuple[Network, Peer, Peer, Peer]:
    """Three nodes; the second is told by somebody of a catalogue of the first's that this one never had."""
    net = Network()
    a = net.node("a", functions=("all",))
    b, c = net.node("b", seeds=("a",), functions=("all",)), net.node("c", seeds=("a",), functions=("all",))
    net.run(5)
    agree([a, b, c])
    rows = (Change(1, "f:forged", msgspec.msgpack.encode(Entry("forged"))),)
    total = entry_hash(rows[0].key, rows[0].entry).to_bytes(16, "big")
    head = Head(a.me, version, total)
    news = Gossip(deltas=(Delta(head, 0, rows),)) if content else Gossip(heads=(head,))
    net.do(b, b.cluster.received(b.cluster.links[c.me], news, net.now))
    return net, a, b, c


@pytest.mark.parametrize("version", [2, 1000, 2**53, LAST_VERSION - 1])
@pytest.mark.parametrize("content", [True, False])
def test_owner_publishes_after_a_made_up_version(version: int, content: bool) -> None:
    net, a, b, c = _poisoned(version, content)
    net.do(a, a.cluster.offer(FunctionSpec(name="later", doc="x" * 5000), net.now))
    net.run(1)
    agree([a, b, c])
    assert [row.member for row in b.cluster.index.offers("later", (), None)] == [a.me]
    assert b.cluster.index.offers("forged", (), None) == ()
    net.run(60)
    assert not b.cluster._gossip._fetches


def test_owner_outbids_a_made_up_version_without_publishing() -> None:
    net, a, b, c = _poisoned(1000)
    net.run(2 * 30 + 5)  # what is known is compared once in 30 s
    agree([a, b, c])
    assert a.cluster.catalogue.version(a.me) == 1001


@pytest.mark.parametrize("version", [LAST_VERSION + 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("content", [True, False])
def test_version_at_the_edge_of_64_bits_is_dropped(version: int, content: bool) -> None:
    net, a, b, c = _poisoned(version, content)
    assert b.cluster.catalogue.version(a.me) == 1
    assert not b.cluster._gossip._fetches
    net.do(a, a.cluster.offer(FunctionSpec(name="later"), net.now))
    digest = Digest((Claim(a.me, 2**64 - 1, 0), Claim(b"x" * 16, 2**64 - 1, 0)), (Head(a.me, version, bytes(16)),))
    net.do(b, b.cluster.received(b.cluster.links[c.me], digest, net.now))
    net.do(a, a.cluster.received(a.cluster.links[c.me], digest, net.now))
    net.run(40)
    agree([a, b, c])
    assert a.cluster.catalogue.version(a.me) == 2


def test_owner_of_the_last_version_takes_a_new_id() -> None:
    net, a, _, _ = _poisoned(LAST_VERSION)
    net.do(a, a.cluster.offer(FunctionSpec(name="later"), net.now))
    net.run(1)
    assert [out for _, out in a.outs if isinstance(out, IdRetired)] == [IdRetired()]
