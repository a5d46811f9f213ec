"""Properties of one cluster, for any messages in any order (docs/explanation/membership.md).

P1-P5 and P7 about the merge alone, P1-P4 also exhaustively at small bounds; P8 about catalogues; P12 and P14 about
floods and invalid input. P6 and P9 to P11 are in test_membership_network.py.
"""

from collections.abc import Iterable
from itertools import combinations_with_replacement, permutations, product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import DEFAULT, HOUR, MILLISECOND, SECOND, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.view import member_views
from mpreg_proto.wire.messages import Change, Claim, Delta, Digest, Fetch, Gossip, Head
from tests.helpers.cluster_network import at

ME = MemberId(b"m" * 16)
IDS = [MemberId(letter * 16) for letter in (b"a", b"b", b"c")]
CARDS = [msgspec.msgpack.encode(Card(name, (f"ws://{name}:1",))) for name in ("one", "two")]

claims = st.builds(
    Claim,
    member=st.sampled_from(IDS),
    incarnation=st.integers(0, 3),
    standing=st.sampled_from([int(standing) for standing in Standing]),
    card=st.sampled_from([b"", *CARDS]),
)
batches = st.lists(claims, max_size=8)
View = dict[MemberId, tuple[int, int, bytes]]


def merged(*groups: Iterable[Claim]) -> Members:
    known = Members(ME, Card("me"), limits=Limits(), now=0)
    for group in groups:
        known.merge(group, 0)
    return known


def view(known: Members, ids: Iterable[MemberId] = IDS) -> View:
    """Return all cells: (incarnation, standing) and the card of that incarnation."""
    found = ((member, known.claim(member)) for member in ids)
    return {member: (claim.incarnation, claim.standing, claim.card) for member, claim in found if claim is not None}


def said(known: Members) -> list[Claim]:
    """Return a whole state as claims: merging them is merging the state."""
    return [claim for member in IDS if (claim := known.claim(member)) is not None]


# -- P1-P5: the merge is a maximum ------------------------------------------------------------------------------------


@given(batches, batches)
def test_p1_commutative(one: list[Claim], other: list[Claim]) -> None:
    assert view(merged(one, said(merged(other)))) == view(merged(other, said(merged(one))))


@given(batches, batches, batches)
def test_p2_associative(one: list[Claim], two: list[Claim], three: list[Claim]) -> None:
    left = merged(said(merged(one, said(merged(two)))), said(merged(three)))
    right = merged(one, said(merged(two, said(merged(three)))))
    assert view(left) == view(right)


@given(batches)
def test_p3_idempotent(one: list[Claim]) -> None:
    known = merged(one)
    before = view(known)
    assert known.merge([*one, *said(known)], 1) == []
    assert view(known) == before


steps = st.one_of(
    claims,
    st.tuples(st.sampled_from(IDS), st.sampled_from([Standing.SUSPECT, Standing.DEAD, Standing.RETIRED])),
    st.integers(1, 30).map(lambda hours: hours * HOUR),
)
Step = Claim | tuple[MemberId, Standing] | int


def height(known: Members, member: MemberId) -> tuple[bool, int, int]:
    """Return the place of a member in the order in which cells grow; the lowest if it is unknown."""
    claim = known.claim(member)
    if claim is None:
        return False, -1, -1
    return claim.standing == Standing.RETIRED, claim.incarnation, claim.standing


@given(st.lists(steps, max_size=40))
def test_p4_cells_never_decrease_and_p7_retired_is_not_routable(script: list[Step]) -> None:
    known, now = merged(), 0
    retired: dict[MemberId, int] = {}
    for step in script:
        before = {member: height(known, member) for member in IDS}
        if isinstance(step, Claim):
            known.merge([step], now)
        elif isinstance(step, tuple):
            known.declare(*step, now)
        else:
            now += step
            known.collect(now)
        for member in IDS:
            if member in retired and now >= retired[member] + DEFAULT.retired_for:
                del retired[member]
                continue
            assert height(known, member) >= before[member]
            if known.standing(member) is Standing.RETIRED:
                retired.setdefault(member, now)
            assert not (member in retired and known.routable(member))


@given(st.data(), batches)
def test_p5_same_claims_give_the_same_view(data: st.DataObject, said_once: list[Claim]) -> None:
    again = data.draw(st.permutations([*said_once, *data.draw(st.lists(st.sampled_from(said_once or [None])))]))
    order = [claim for claim in again if claim is not None]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    groups = [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    assert view(merged(*groups)) == view(merged(said_once))


MESSAGES = [
    Claim(IDS[0], incarnation, int(standing))
    for incarnation, standing in product(range(4), (Standing.ALIVE, Standing.SUSPECT, Standing.DEAD, Standing.LEFT))
]


def test_p1_to_p4_for_all_sets_of_up_to_three_messages() -> None:
    differing = 0
    for size in (1, 2, 3):
        for chosen in combinations_with_replacement(MESSAGES, size):
            ends: list[View] = []
            for order in permutations(chosen):
                known, lowest = merged(), height(merged(), IDS[0])
                for claim in order:
                    known.merge([claim], 0)
                    assert height(known, IDS[0]) >= lowest, "P4"
                    lowest = height(known, IDS[0])
                ends.append(view(known))
                known.merge(order, 0)
                assert view(known) == ends[-1], "P3"
                # P2: there are two ways to group three sets: the first with the second, or the second with the third.
                assert view(merged([order[0]], said(merged(order[1:])))) == ends[-1]
            differing += any(end != ends[0] for end in ends)
    assert differing == 0, "P1"


# -- P8: a replica at (id, v) equals its owner at v --------------------------------------------------------------------

changes = st.one_of(
    st.tuples(st.just("offer"), st.sampled_from("fgh"), st.integers(0, 3)),
    st.tuples(st.just("withdraw"), st.sampled_from("fgh"), st.just(0)),
    st.tuples(st.just("hold"), st.sampled_from(["", "x", "xy"]), st.just(0)),
)


@given(st.data(), st.lists(changes, max_size=25), st.integers(1, 8))
def test_p8_replica_equals_its_owner_at_that_version(
    data: st.DataObject, script: list[tuple[str, str, int]], kept: int
) -> None:
    limits = Limits(changes=kept)
    owner, near, far = (Catalogue(member, limits=limits) for member in IDS)
    states: dict[int, tuple[Head, dict[str, bytes]]] = {}
    served: list[Delta] = []
    for kind, name, number in script:
        if kind == "offer":
            served.append(owner.offer(FunctionSpec(name=name, version=str(number), resources=(name,) * number)))
        elif kind == "hold":
            served.append(owner.set_resources(name))
        elif name in owner.offered:
            served.append(owner.withdraw(name))
        states[owner.version(IDS[0])] = now_held(owner)
        have = data.draw(st.integers(0, owner.version(IDS[0])))
        for source in (owner, near):
            delta = source.delta(IDS[0], have)
            served += [] if delta is None else [delta]
        if served:
            near.apply(data.draw(st.sampled_from(served)))
            far.apply(data.draw(st.sampled_from(served)))
        for replica in (near, far):
            version = replica.version(IDS[0])
            assert version == 0 or now_held(replica) == states[version]
    last = owner.delta(IDS[0], far.version(IDS[0]))
    assert last is None or far.apply(last) is Applied.YES
    assert now_held(far) == now_held(owner)


def now_held(catalogue: Catalogue) -> tuple[Head, dict[str, bytes]]:
    content = catalogue.content(IDS[0])
    if content is None:
        return Head(IDS[0], 0, bytes(16)), {}
    assert sorted(content.functions) == sorted(key[2:] for key in content.entries if key.startswith("f:"))
    assert sorted(content.functions) == sorted(name for name, by in catalogue.offering.items() if IDS[0] in by)
    return content.head, {key: content.entries[key].entry for key in sorted(content.entries)}


# -- P12, P14: floods and invalid input --------------------------------------------------------------------------------


def lonely(limits: Limits) -> tuple[Cluster, LinkId]:
    """A cluster with one link, which may receive anything."""
    cluster = Cluster(
        ME,
        name="me",
        addresses=(Address("ws://me:1"),),
        seeds=(),
        resources=("gpu",),
        timers=Timers(),
        rng=Rng(0),
        limits=limits,
        now=0,
    )
    link = LinkId(1)
    cluster.link_established(link, IDS[0], "a", dialled=None, now=0)
    return cluster, link


def held_things(thing: object, seen: dict[int, object]) -> int:
    """Return the number of entries of all containers that are reachable from a machine of the core."""
    if isinstance(thing, str | bytes | int | float | None | type) or id(thing) in seen:
        return 0
    seen[id(thing)] = thing
    count = 0
    if isinstance(thing, dict):
        count += len(thing) + sum(held_things(value, seen) for pair in thing.items() for value in pair)
    elif hasattr(thing, "__iter__") and hasattr(thing, "__len__"):
        count += len(thing) + sum(held_things(value, seen) for value in thing)
    elif type(thing).__module__.startswith("mpreg_proto"):
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [getattr(thing, name, None) for name in names] + list(getattr(thing, "__dict__", {}).values())
        count += sum(held_things(part, seen) for part in parts)
    return count


@pytest.mark.parametrize("standing", list(Standing))
def test_p12_memory_stays_bounded_under_floods_of_unknown_ids(standing: Standing) -> None:
    limits = Limits(members=20, dead_members=15, retired_members=30, changes=4)
    cluster, link = lonely(limits)
    sizes = []
    now = 0
    for number in range(3000):
        member = (number + 1).to_bytes(16, "big")
        card = msgspec.msgpack.encode(Card(f"n{number}", (f"ws://n{number}:1", f"ws://n{number}:2")))
        owner = Catalogue(MemberId(member), limits=limits)
        delta = owner.offer(FunctionSpec(name=f"f{number}"))
        news = Gossip((Claim(member, number, int(standing), card),), (delta,), (Head(member, 9, bytes(16)),))
        now += 5 * MILLISECOND
        cluster.received(link, news, now)
        cluster.received(link, Fetch(member, 0), now)
        cluster.received(link, Digest(news.claims, news.heads), now)
        for key in cluster._timers.due(now):
            cluster.wake(key, now)
        if number % 1000 == 999:
            sizes.append(held_things(cluster, {}))
    # If one entry of each unknown id were kept, there would be 2,000. The heap of timers may hold some stale rows.
    assert max(sizes) <= sizes[0] + 1000, sizes
    assert len(cluster.members) <= 20 + 15 + 1


whole = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3)
ids = st.sampled_from([*IDS, ME]) | st.binary(max_size=20)
keys = st.sampled_from(["r", "d", "f:f", "f:g", "", "x"]) | st.text(max_size=5)
entries = st.binary(max_size=12) | st.sampled_from(
    [b"", b"\xc3", b"\x91\xa1x", b"\x97\xa1f\xa0\x90\xc2\xc2\xa0\xa0", b"\x91" * 2000]
)
wild_claims = st.builds(Claim, ids, whole, whole, st.binary(max_size=8) | st.sampled_from(CARDS))
heads = st.builds(Head, ids, whole, st.binary(max_size=18) | st.just(bytes(16)))
deltas = st.builds(Delta, heads, whole, st.lists(st.builds(Change, whole, keys, entries), max_size=3).map(tuple))
wild = st.one_of(
    st.builds(Gossip, st.lists(wild_claims).map(tuple), st.lists(deltas).map(tuple), st.lists(heads).map(tuple)),
    st.builds(Digest, st.lists(wild_claims).map(tuple), st.lists(heads).map(tuple)),
    st.builds(Fetch, ids, whole),
)


@settings(max_examples=120)
@given(st.lists(st.tuples(wild, st.integers(0, 20 * SECOND)), max_size=10))
def test_p14_wrong_claims_raise_nothing(script: list[tuple[Gossip | Digest | Fetch, int]]) -> None:
    cluster, link = lonely(Limits(members=3, dead_members=2, retired_members=2, functions=2))
    now = 0
    for message, wait in script:
        cluster.received(link, message, now)
        now += wait
        for key in cluster._timers.due(now):
            cluster.wake(key, now)
    cluster.link_closed(link, clean=False, now=now)
    own = cluster.members.own
    assert (own.name, own.standing) == ("me", Standing.ALIVE)
    assert cluster.catalogue.content(ME).resources == ("gpu",)
    cluster.offer(FunctionSpec(name="f"), now)
    assert ME in [row.member for row in cluster.index.offers("f", ("gpu",), None)]
    cluster.index.explain_no_match("g", (), None)
    cluster.index.table()
    member_views(cluster, now=0)


@given(st.lists(st.tuples(wild, st.integers(0, 3 * DEFAULT.dead_for)), max_size=6))
def test_p14_wrong_claims_raise_nothing_after_days(script: list[tuple[Gossip | Digest | Fetch, int]]) -> None:
    cluster, link = lonely(Limits())
    now = 0
    for message, wait in script:
        cluster.received(link, message, now)
        now += wait
        for key in cluster._timers.due(now):
            cluster.wake(key, now)
        for address in at("n"):
            cluster.dial_failed(Address(address), now)
    assert cluster.members.standing(ME) is Standing.ALIVE
