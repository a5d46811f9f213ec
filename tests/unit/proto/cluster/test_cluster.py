"""Several `Cluster` objects on a simulated network: standings, links and catalogues after each fault; lost members."""

from collections.abc import Sequence
from itertools import permutations

import msgspec
import pytest

from mpreg_proto.cluster.actions import IdRetired, LinkSelected, MemberLost, OffersChanged, SendMessage
from mpreg_proto.cluster.catalogue import LAST_VERSION, Entry, FunctionSpec, entry_hash
from mpreg_proto.cluster.cluster import REFUTE_TIMEOUT, Cluster
from mpreg_proto.cluster.members import Card
from mpreg_proto.effects import Notify
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.notices import CardsDiffer, MemberChanged, PeerUnreachable, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.view import member_views
from mpreg_proto.wire.messages import Change, Claim, Delta, DialBack, Digest, Fetch, Gossip, Head
from tests.helpers.cluster_network import Network, Peer, agree, at


def nodes_offering(peer: Peer, function: str, resources: tuple[str, ...] = (), version: str | None = None) -> list[str]:
    return [candidate.shown.partition("#")[0] for candidate in peer.cluster.index.offers(function, resources, version)]


def chain(order: Sequence[str] = "abc", **more: bytes) -> Network:
    """Return a network with the seeds A <- B <- C, started in `order`."""
    net = Network()
    seeds = {"a": (), "b": ("a",), "c": ("b",)}
    for name in order:
        net.node(name, seeds=seeds[name], functions=(f"of-{name}",), identity=more.get(name))
    net.run(5)
    return net


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("abc")])
def test_full_mesh_of_three_nodes_seeded_in_a_chain(order: str) -> None:
    net = chain(order)
    net.run(7)
    for peer in net.peers.values():
        assert peer.standings() == {"a": "alive", "b": "alive", "c": "alive"}
        assert [nodes_offering(peer, f"of-{name}") for name in "abc"] == [["a"], ["b"], ["c"]]
        assert len(peer.cluster.links) == 2
        assert peer.cluster.synced()
        assert peer.suspected() == []
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]


@pytest.mark.parametrize("ids", list(permutations((b"1" * 16, b"2" * 16, b"3" * 16))))
def test_mesh_independent_of_the_order_of_ids(ids: tuple[bytes, bytes, bytes]) -> None:
    net = chain(a=ids[0], b=ids[1], c=ids[2])
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]
    assert [nodes_offering(peer, "of-c") for peer in net.peers.values()] == [["c"]] * 3


def test_gossip_of_a_later_offer_within_two_hops() -> None:
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
    net.run(0.053)  # changes within 50 ms after gossip are joined
    assert [nodes_offering(peer, "late") for peer in net.peers.values()] == [[], [], []]


def test_one_fetch_of_a_large_change() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.do(c, c.cluster.offer(FunctionSpec(name="long", doc="x" * 5000), net.now))
    net.run(0.1)
    assert [nodes_offering(peer, "long") for peer in net.peers.values()] == [["c"]] * 3
    fetches = [out for _, out in a.outs if isinstance(out, Fetch) or isinstance(getattr(out, "message", None), Fetch)]
    assert len([out for out in fetches if out.message.member == c.me and out.message.have > 0]) == 1


def test_snapshot_of_600_functions_on_the_first_link() -> None:
    net = Network()
    a = net.node("a", functions=tuple(f"f{number}" for number in range(600)))
    b = net.node("b", seeds=("a",))
    net.run(1)
    assert b.cluster.catalogue.version(a.me) == 600
    assert nodes_offering(b, "f0") == nodes_offering(b, "f599") == ["a"]
    assert b.cluster.catalogue.content(a.me).head == a.cluster.catalogue.content(a.me).head


def test_crashed_member_suspect_at_once_and_dead_after_a_second() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.crash("c")
    assert a.standings()["c"] == "suspect"
    assert nodes_offering(a, "of-c") == ["c"]
    net.run(0.9)
    assert a.standings()["c"] == "suspect", "the end of a stream and a dial in vain are no death"
    net.run(0.2)
    for name in "ab":
        assert net.peers[name].standings()["c"] == "dead"
        assert nodes_offering(net.peers[name], "of-c") == []
        assert [out for _, out in net.peers[name].outs if isinstance(out, MemberLost)] == [MemberLost(c.me)]
        assert net.peers[name].cluster.catalogue.version(c.me) == 0


def test_crashed_member_without_addresses() -> None:
    net = Network()
    a = net.node("a")
    net.node("b", seeds=("a",), addresses=())
    net.run(6)
    net.crash("b")
    net.run(0.9)
    assert a.standings()["b"] == "suspect"
    net.run(0.2)
    assert a.standings()["b"] == "dead"


def test_leaving_member_is_left_without_suspicion() -> None:
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


def test_draining_member_is_alive_and_no_candidate() -> None:
    net = chain()
    c = net.peers["c"]
    net.do(c, c.cluster.drain(net.now))
    net.run(0.1)
    assert [nodes_offering(peer, "of-c") for peer in net.peers.values()] == [[], [], []]
    assert [peer.standings()["c"] for peer in net.peers.values()] == ["draining", "draining", "draining"]
    assert net.peers["a"].cluster.members.standing(c.me) is Standing.ALIVE


def test_restart_at_the_same_address_after_detection() -> None:
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
        selected_at = [when for when, out in peer.outs if isinstance(out, LinkSelected) and out.member == new.me]
        assert selected_at[0] - started <= 5 * SECOND
    # The address of the old id was dialled and the new id answered: evidence that retires the old id for good.
    standings = [net.peers[name].cluster.members.standing(old) for name in "ab"]
    assert standings == [Standing.RETIRED, Standing.RETIRED]


def test_restart_at_the_same_address_before_detection() -> None:
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
        assert nodes_offering(net.peers[name], "of-c") == ["c"]
    net.run(20)
    assert [net.between(*pair) for pair in ("ab", "ac", "bc")] == [1, 1, 1]


def test_rare_dials_to_an_alias_of_this_node() -> None:
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
    """A load balancer: another node may answer at this address the next time."""
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
    assert a.cluster.synced(), "there is no seed to ask, as far as it knows"
    net.run(3600)
    assert 100 <= len(a.dials) <= 140, "and it is asked for ever, once in half a minute"


def test_synced_with_itself_as_the_only_seed() -> None:
    net = Network()
    a = net.node("a", seeds=("a",))
    net.run(1)
    assert a.dials == []
    assert a.cluster.synced()


def test_reconnection_after_a_clean_close_without_suspicion() -> None:
    net = chain()
    for _ in range(5):
        net.close("a", "c")
        net.run(7)
        assert net.between("a", "c") == 1
    assert [peer.suspected() for peer in net.peers.values()] == [[], [], []]


def test_reconnection_and_refutation_after_a_broken_link() -> None:
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
def test_healed_partition(seconds: int) -> None:
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
        assert [nodes_offering(peer, name) for name in ("of-a", "of-b", "meanwhile")] == [["a"], ["b"], ["c"]]


def test_catalogue_of_a_member_that_refutes_dead() -> None:
    net = chain()
    a, b, c = (net.peers[name] for name in "abc")
    # The claim that c is DEAD reaches all nodes; it reaches c too, and c refutes it.
    net.do(b, b.cluster.received(b.cluster.links[a.me], Gossip((Claim(c.me, 0, int(Standing.DEAD)),)), net.now))
    assert nodes_offering(b, "of-c") == []
    net.run(0.1)
    for peer in (a, b):
        assert peer.standings()["c"] == "alive"
        assert nodes_offering(peer, "of-c") == ["c"]
        assert peer.outs[-1][1] == OffersChanged() or peer.cluster.links[c.me]
    assert c.cluster.members.own.incarnation == 1


def test_dial_pace_and_one_notice_for_a_silent_seed() -> None:
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


def test_limit_of_concurrent_dials() -> None:
    net = Network(delay=lambda: SECOND)
    a = net.node("a", seeds=tuple(f"s{number}" for number in range(30)), limits=Limits(dials=3))
    net.run(0.5)
    assert len(a.dials) == 3
    net.run(12)
    assert len({address for _, address in a.dials}) == 30
    times = sorted(when for when, _ in a.dials)
    assert all(later - earlier >= SECOND for earlier, later in zip(times, times[3:], strict=False))


def test_connect_dials_once() -> None:
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


def test_one_id_retired_event() -> None:
    net = chain()
    a, b = net.peers["a"], net.peers["b"]
    retired = Gossip((Claim(a.me, 0, int(Standing.RETIRED)),))
    link = a.cluster.links[b.me]
    assert a.cluster.received(link, retired, net.now) == [IdRetired()]
    assert a.cluster.received(link, retired, net.now) == []
    assert IdRetired() not in a.cluster.received(link, Gossip((Claim(a.me, 0, int(Standing.DEAD)),)), net.now)
    assert a.cluster.members.own.incarnation == 1


def test_notice_of_what_follows_from_a_standing() -> None:
    """A displaced member that others declare DEAD is RETIRED here at once."""
    net = chain()
    cluster, b = net.peers["a"].cluster, net.peers["b"].me
    cluster._changes._detector.displaced(b, net.now)
    dead = cluster.members.declare(b, Standing.DEAD, net.now)
    assert dead is not None
    outs = cluster._changes.members_changed([dead], source=None, now=net.now)
    notices = [out.notice for out in outs if isinstance(out, Notify)]
    standings = [one.standing for one in notices if isinstance(one, MemberChanged)]
    assert standings == [Standing.DEAD, Standing.RETIRED]


def test_new_address_with_a_new_incarnation() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.do(a, a.cluster.advertise((Address("ws://elsewhere:1"),), net.now))
    net.run(0.1)
    row = next(row for row in member_views(c.cluster, now=0) if row.name == "a")
    assert (row.addresses, row.incarnation, row.standing, row.linked) == (("ws://elsewhere:1",), 1, "alive", True)
    assert a.cluster.advertise((Address("ws://elsewhere:1"),), net.now) == []


def test_node_resources_apply_to_all_its_functions() -> None:
    net = Network()
    net.node("a", functions=("f",), resources=("gpu", "fast"))
    b = net.node("b", seeds=("a",), functions=("f",))
    net.run(3)
    assert nodes_offering(b, "f") == ["a", "b"]
    assert nodes_offering(b, "f", ("gpu",)) == ["a"]
    a = net.peers["a"]
    net.do(a, a.cluster.set_resources(("slow",), net.now))
    net.run(0.1)
    assert nodes_offering(b, "f", ("gpu",)) == []
    assert next(row for row in member_views(b.cluster, now=0) if row.name == "a").resources == ("slow",)


def test_message_and_end_of_an_unknown_link() -> None:
    net = chain()
    a = net.peers["a"].cluster
    ghost = LinkId(10_000)
    assert a.received(ghost, Gossip(), net.now) == []
    assert a.link_closed(ghost, clean=False, now=net.now) == []
    assert a.goodbye_received(ghost, net.now) == []
    assert a.received(a.links[net.peers["b"].me], Fetch(b"?", 0), net.now) == []
    out = a.received(a.links[net.peers["b"].me], Digest((), ()), net.now)
    assert len(out) == 1


def test_withdrawal_of_a_function_not_offered() -> None:
    net = chain()
    a = net.peers["a"].cluster
    before = a.catalogue.content(a.me).head
    with pytest.raises(LocalProtocolError):
        a.withdraw("never", net.now)
    assert a.catalogue.content(a.me).head == before


def test_crash_of_a_member_and_of_its_only_observer() -> None:
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


def test_dial_back_from_an_undialable_member() -> None:
    net = Network()
    for number in range(24):
        seeds = ("n0",) if number else ()
        net.node(
            f"n{number}", seeds=seeds, identity=bytes([number * 37 % 251]) * 16, addresses=() if number == 5 else None
        )
    net.run(60)  # links used only to join are closed by now
    hidden = net.peers["n5"]
    far = next(peer for peer in net.peers.values() if hidden.me not in (peer.me, *peer.cluster.links))
    net.do(far, far.cluster.connect(hidden.me, net.now))
    net.run(0.05)
    assert hidden.me in far.cluster.links
    requested = [
        out.message for _, out in far.outs if isinstance(out, SendMessage) and isinstance(out.message, DialBack)
    ]
    assert requested == [DialBack(hidden.me, far.me)]
    assert far.cluster.connect(hidden.me, net.now) == []


def test_idle_links_closed_by_their_dialler() -> None:
    net = Network()
    for number in range(30):
        net.node(f"n{number}", seeds=("n0",) if number else (), identity=bytes([number * 37 % 251]) * 16)
    net.run(1)
    assert len(net.peers["n0"].cluster.links) == 29
    net.run(60)
    for peer in net.peers.values():
        assert set(peer.cluster.links) == set(peer.cluster.rings.neighbours)
        assert peer.suspected() == []


def test_dials_beyond_unreachable_neighbours() -> None:
    net = Network()
    for number in range(30):
        net.node(f"n{number}", seeds=("n0",) if number else (), identity=bytes([number * 37 % 251]) * 16)
    net.run(60)
    isolated = net.peers["n7"]
    names = {peer.me: name for name, peer in net.peers.items()}
    for member in list(isolated.cluster.rings.neighbours):
        net.cut("n7", names[member])
    net.run(10)
    assert len(isolated.cluster.links) >= 3
    assert {peer.standings()["n7"] for peer in net.peers.values()} == {"alive"}, "others vouch for it, or it refutes"


def test_periodic_anti_entropy() -> None:
    net = chain()
    net.run(10)
    a, b = net.peers["a"], net.peers["b"]
    b.cluster.catalogue.offer(FunctionSpec(name="untold"))  # as if the link had lost the gossip
    b.cluster._anti_entropy.buckets.invalidate()
    net.run(65)
    assert nodes_offering(a, "untold") == ["b"]


def test_heads_only_on_a_link_with_a_backlog() -> None:
    net = chain()
    a, b = net.peers["a"].cluster, net.peers["b"]
    link = a.links[b.me]
    a.backlog(link, Limits().slow_link)
    a.backlog(LinkId(10_000), Limits().slow_link)
    net.run(1)
    (send,) = [
        out for out in a.offer(FunctionSpec(name="new"), net.now) if isinstance(out, SendMessage) and out.link == link
    ]
    assert (send.message.deltas, len(send.message.heads)) == ((), 1)
    a.backlog(link, Limits().slow_link - 1)
    net.run(1)
    sends = [
        out for out in a.offer(FunctionSpec(name="newer"), net.now) if isinstance(out, SendMessage) and out.link == link
    ]
    assert len(sends[0].message.deltas) == 1


def test_refutation_right_after_reconnection() -> None:
    net = chain()
    a, c = net.peers["a"], net.peers["c"]
    net.run(10)
    net.cut("a", "c")
    net.heal()
    assert a.standings()["c"] == "suspect"
    net.run(0.5)
    assert a.standings()["c"] == "alive"
    assert c.cluster.members.own.incarnation == 1


def test_notice_of_two_cards_for_one_incarnation() -> None:
    net = chain()
    a, c = net.peers["a"].cluster, net.peers["c"]
    forged = msgspec.msgpack.encode(Card("nobody"))
    out = a.received(a.links[net.peers["b"].me], Gossip((Claim(c.me, 0, 0, forged),)), net.now)
    assert [one.notice.member for one in out if isinstance(one, Notify) and isinstance(one.notice, CardsDiffer)] == [
        c.me
    ]
    assert a.members.drain_card_conflicts() == []


# -- forged versions --------------------------------------------------------------------------------------------------


def _poisoned(version: int, content: bool = True) -> tuple[Network, Peer, Peer, Peer]:
    """Return three nodes; the second has received a forged version of the catalogue of the first."""
    net = Network()
    a = net.node("a", functions=("all",))
    b, c = net.node("b", seeds=("a",), functions=("all",)), net.node("c", seeds=("a",), functions=("all",))
    net.run(5)
    agree([a, b, c])
    rows = (Change(1, "f:forged", msgspec.msgpack.encode(Entry("forged"))),)
    total = entry_hash(rows[0].key, rows[0].entry).to_bytes(16, "big")
    head = Head(a.me, version, total)
    gossip = Gossip(deltas=(Delta(head, 0, rows),)) if content else Gossip(heads=(head,))
    net.do(b, b.cluster.received(b.cluster.links[c.me], gossip, net.now))
    return net, a, b, c


@pytest.mark.parametrize("version", [2, 1000, 2**53, LAST_VERSION - 1])
@pytest.mark.parametrize("content", [True, False])
def test_owner_publishes_after_a_forged_version(version: int, content: bool) -> None:
    net, a, b, c = _poisoned(version, content)
    net.do(a, a.cluster.offer(FunctionSpec(name="later", doc="x" * 5000), net.now))
    net.run(1)
    agree([a, b, c])
    assert [row.member for row in b.cluster.index.offers("later", (), None)] == [a.me]
    assert b.cluster.index.offers("forged", (), None) == ()
    net.run(60)
    assert not b.cluster._gossip._fetches


def test_owner_raises_its_version_above_a_forged_one() -> None:
    net, a, b, c = _poisoned(1000)
    net.run(2 * 30 + 5)  # anti-entropy runs once in 30 s
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


# -- a member that leaves while its last results are in transit: gossip from others must not mark its calls lost ------

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


# -- a member that returns, and state that a link has lost ------------------------------------------------------------

D = MemberId(b"d" * 16)


def fetches(outs: Sequence[object]) -> list[SendMessage]:
    return [out for out in outs if isinstance(out, SendMessage) and isinstance(out.message, Fetch)]


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.LEFT])
def test_catalogue_of_a_revived_member_is_fetched_from_the_link_of_its_claim(standing: Standing) -> None:
    a = cluster()
    assert fetches(a.received(TO_B, Gossip(claims=(Claim(D, 0, Standing.ALIVE),)), now=1)) == [], "its head follows"
    assert fetches(a.received(TO_B, Gossip(claims=(Claim(D, 0, standing),)), now=2)) == []
    revived = a.received(TO_C, Gossip(claims=(Claim(D, 1, Standing.ALIVE),)), now=3)
    assert fetches(revived) == [SendMessage(TO_C, Fetch(D, 0))]
    assert fetches(a.received(TO_B, Gossip(claims=(Claim(D, 2, Standing.ALIVE),)), now=4)) == [], "under way"


def test_anti_entropy_continues_after_a_round_without_links() -> None:
    a = cluster()
    for link in (TO_B, TO_C):
        a.link_closed(link, clean=True, now=1)
    key, interval = (TimerKind.ANTI_ENTROPY,), Limits().gossip_interval
    assert key in a._timers
    a._timers.cancel(key)
    assert a.wake(key, interval) == []
    assert a._timers._at[key][0] == 2 * interval
    a.link_established(TO_C_AGAIN, C, "them", dialled=None, now=interval + 1)
    (send,) = a.wake(key, 2 * interval)
    assert isinstance(send, SendMessage) and send.link == TO_C_AGAIN
    assert a._timers._at[key][0] == 3 * interval


def test_anti_entropy_begins_again_with_the_next_member() -> None:
    a = cluster()
    for link, member in ((TO_B, B), (TO_C, C)):
        a.received(link, Gossip(claims=(Claim(member, 0, Standing.LEFT),)), now=1)
        a.link_closed(link, clean=True, now=1)
    key = (TimerKind.ANTI_ENTROPY,)
    a._timers.cancel(key)
    assert a.wake(key, SECOND) == [] and key not in a._timers, "nobody is left"
    a.link_established(LinkId(9), D, "them", dialled=None, now=2 * SECOND)
    a.received(LinkId(9), Gossip(claims=(Claim(D, 0, Standing.ALIVE),)), now=2 * SECOND)
    assert key in a._timers


def test_ticks_continue_while_a_link_or_a_member_exists() -> None:
    a = cluster()
    key = (TimerKind.TICK,)
    a._timers.cancel(key)
    a.wake(key, SECOND)
    assert a._timers._at[key][0] == 2 * SECOND
    for link in (TO_B, TO_C):
        a.link_closed(link, clean=True, now=SECOND)
    a._timers.cancel(key)
    a.wake(key, 2 * SECOND)
    assert a._timers._at[key][0] == 3 * SECOND


def test_no_timer_of_the_cluster_after_leaving() -> None:
    a = cluster()
    a.leave(1)
    assert not {TimerKind.TICK, TimerKind.ANTI_ENTROPY, TimerKind.GOSSIP} & {key[0] for key in a._timers._at}
    a.received(TO_B, Gossip(claims=(Claim(D, 0, Standing.ALIVE),)), now=2)
    assert not {TimerKind.TICK, TimerKind.ANTI_ENTROPY} & {key[0] for key in a._timers._at}
    assert a.wake((TimerKind.TICK,), SECOND) == [] and a.wake((TimerKind.ANTI_ENTROPY,), SECOND) == []
