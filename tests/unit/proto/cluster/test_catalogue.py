"""The catalogue: versions of the owner, deltas that a replica applies, and wrong hashes that it rejects."""

from collections.abc import Sequence

import msgspec
import pytest

from mpreg_proto.cluster.catalogue import Applied, Catalogue, Entry, FunctionSpec, entry_hash, wire_size
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import Change, Delta, Head

ME = MemberId(b"m" * 16)
SHE = MemberId(b"s" * 16)


def catalogue(me: MemberId = ME, **limits: int) -> Catalogue:
    return Catalogue(me, limits=Limits(**limits))


def offered(count: int, **limits: int) -> tuple[Catalogue, list[Delta]]:
    owner = catalogue(SHE, **limits)
    return owner, [owner.offer(FunctionSpec(name=f"f{number}")) for number in range(count)]


def same(one: Catalogue, other: Catalogue, member: MemberId = SHE) -> bool:
    here, there = one.content(member), other.content(member)
    return (here.head, here.functions, here.resources, here.draining) == (
        there.head,
        there.functions,
        there.resources,
        there.draining,
    )


def wrong(delta: Delta, **fields: object) -> Delta:
    return msgspec.structs.replace(delta, **fields)


def made(*changes: tuple[str, bytes], version: int | None = None) -> Delta:
    """Return a delta since version 0 with the right hash, for any changes."""
    rows = tuple(Change(number, key, entry) for number, (key, entry) in enumerate(changes, 1))
    total = 0
    for row in rows:
        total += entry_hash(row.key, row.entry)
    return Delta(Head(SHE, version or len(rows), (total % 2**128).to_bytes(16, "big")), 0, rows)


def test_one_version_for_each_change() -> None:
    owner = catalogue(SHE)
    deltas = [
        owner.offer(FunctionSpec(name="f", resources=("a", "b"), idempotent=True, signature="(x)", doc="F.")),
        owner.set_resources(["z", "a", "z"]),
        owner.offer(FunctionSpec(name="f", version="2")),
        owner.withdraw("f"),
        owner.drain(),
    ]
    assert [(delta.since, delta.head.version) for delta in deltas] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    replica = catalogue()
    expected: list[tuple[Sequence[str], bool]] = [
        (["a", "b"], False), (["a", "b"], False), ([], False), ([], False), ([], True),
    ]  # fmt: skip
    for delta, (resources, draining) in zip(deltas, expected, strict=True):
        assert replica.apply(delta) is Applied.YES
        content = replica.content(SHE)
        assert [tag for entry in content.functions.values() for tag in entry.resources] == resources
        assert content.draining is draining
    assert content.resources == ("a", "z")
    assert same(owner, replica)
    assert replica.offering == {}


@pytest.mark.parametrize(("version", "applied"), [("1" * 8, Applied.YES), ("1" * 9, Applied.REFUSED)])
def test_longest_version_that_is_allowed(version: str, applied: Applied) -> None:
    delta = catalogue(SHE).offer(FunctionSpec(name="f", version=version))
    assert catalogue(name_length=8).apply(delta) is applied


def test_functions_that_a_delta_affects() -> None:
    owner, deltas = offered(2)
    assert [list(owner.affected_functions(delta)) for delta in deltas] == [["f0"], ["f1"]]
    drained = owner.drain()
    assert list(owner.affected_functions(drained)) == ["f0", "f1"]
    owner.offer(FunctionSpec(name="f2"))
    assert list(owner.affected_functions(owner.delta(SHE, 2))) == ["f0", "f1", "f2"], "draining and a function"
    withdrawn = owner.withdraw("f0")
    assert list(owner.affected_functions(withdrawn)) == ["f0"], "it is not offered any more"
    assert list(catalogue().affected_functions(drained)) == [], "nothing is held of that member"


def test_index_of_members_by_function() -> None:
    owner, deltas = offered(2)
    replica = catalogue()
    replica.offer(FunctionSpec(name="f0"))
    for delta in deltas:
        replica.apply(delta)
    first, second = Entry("f0", capacity=2), Entry("f1", capacity=2)
    assert replica.offering == {"f0": {ME: first, SHE: first}, "f1": {SHE: second}}
    replica.drop(SHE)
    assert replica.offering == {"f0": {ME: first}}
    replica.drop(SHE)
    assert owner.offered == {"f0": FunctionSpec(name="f0"), "f1": FunctionSpec(name="f1")}


def test_old_delta_and_gap() -> None:
    owner, deltas = offered(4)
    replica = catalogue()
    assert replica.apply(deltas[1]) is Applied.GAP
    assert replica.content(SHE) is None
    assert [replica.apply(delta) for delta in (deltas[0], deltas[0], deltas[2], deltas[1], deltas[0])] == [
        Applied.YES, Applied.OLD, Applied.GAP, Applied.YES, Applied.OLD,
    ]  # fmt: skip
    assert replica.version(SHE) == 2
    assert replica.apply(owner.delta(SHE, 1)) is Applied.YES, "1 -> 4 fits on 2"
    assert same(owner, replica)


@pytest.mark.parametrize("have", [0, 1, 5, 6, 7, 8, 9, 30, 39, 40, 41])
def test_delta_from_the_change_log_or_snapshot(have: int) -> None:
    owner, deltas = offered(40, changes=32)
    delta = owner.delta(SHE, have)
    if have >= 40:
        assert delta is None
        return
    assert delta.since == (have if have >= 8 else 0)
    replica = catalogue()
    for earlier in deltas[:have]:
        replica.apply(earlier)
    assert replica.apply(delta) is Applied.YES
    assert same(owner, replica)


def test_deltas_from_a_replica() -> None:
    owner, _ = offered(40, changes=32)
    owner.withdraw("f3")
    second, third = catalogue(b"2" * 16), catalogue(b"3" * 16)
    second.apply(owner.delta(SHE, 0))
    late = owner.offer(FunctionSpec(name="late"))
    third.apply(second.delta(SHE, 0))
    assert second.apply(late) is Applied.YES
    assert second.delta(SHE, 41).since == 41
    assert second.delta(SHE, 40).since == 0, "what came before the snapshot is not known there"
    assert third.apply(second.delta(SHE, 41)) is Applied.YES
    assert same(owner, third)
    assert second.delta(b"?" * 16, 0) is None


def test_wrong_hash_drops_the_copy() -> None:
    owner, deltas = offered(3)
    replica = catalogue()
    replica.apply(deltas[0])
    assert replica.apply(wrong(deltas[1], head=Head(SHE, 2, bytes(16)))) is Applied.MISMATCH
    assert replica.version(SHE) == 0
    assert replica.offering == {}
    snapshot = wrong(owner.delta(SHE, 0), head=Head(SHE, 9, bytes(16)))
    assert replica.apply(snapshot) is Applied.MISMATCH
    assert replica.apply(owner.delta(SHE, 0)) is Applied.YES


ENTRY = msgspec.msgpack.encode(Entry("f"))


@pytest.mark.parametrize(
    "delta",
    [
        made(("f:f", b"\xc1")),
        made(("f:g", ENTRY)),
        made(("f:", msgspec.msgpack.encode(Entry("")))),
        made(("f:f", msgspec.msgpack.encode([1]))),
        made(("f:" + "n" * 257, msgspec.msgpack.encode(Entry("n" * 257)))),
        made(("f:f", msgspec.msgpack.encode(Entry("f", "v" * 257)))),
        made(("f:f", msgspec.msgpack.encode(Entry("f", "", ("t" * 257,))))),
        made(("f:f", msgspec.msgpack.encode(Entry("f", "", ("t",) * 12)))),
        made(("r", msgspec.msgpack.encode(["t"] * 12))),
        made(("r", msgspec.msgpack.encode([1]))),
        made(("d", msgspec.msgpack.encode("yes"))),
        made(("f:f", b"\x91" * 100_000)),
        made(*((f"f:{number}", msgspec.msgpack.encode(Entry(str(number)))) for number in range(9))),
        made(*((f"x{number}", b"1") for number in range(65))),
        made(("f:f", ENTRY), version=3),
        wrong(made(("f:f", ENTRY)), since=-1),
        made(("f:f", ENTRY), ("f:f", ENTRY), version=7),
        made(("f:f", ENTRY), ("g", b""), version=7),
    ],
)
def test_malformed_delta(delta: Delta) -> None:
    replica = catalogue(functions=8, resources=10)
    expected = Applied.YES if delta.head.version == 3 else Applied.REFUSED
    assert replica.apply(delta) is expected
    assert (replica.version(SHE) > 0) is (expected is Applied.YES)


def test_unknown_keys_are_kept_hashed_and_served() -> None:
    owner = catalogue(SHE)
    owner.offer(FunctionSpec(name="f"))
    replica = catalogue()
    delta = made(("f:f", ENTRY), ("gateway", b"anything"))
    assert replica.apply(delta) is Applied.YES
    assert replica.delta(SHE, 0) == delta


def test_delta_about_the_own_catalogue() -> None:
    replica = catalogue(SHE)
    assert replica.apply(made(("f:f", ENTRY))) is Applied.OLD
    assert replica.version(SHE) == 0


def test_own_offer_over_a_limit() -> None:
    owner = catalogue(SHE, functions=2, resources=2)
    owner.offer(FunctionSpec(name="a"))
    owner.offer(FunctionSpec(name="b"))
    before = owner.content(SHE).head
    for refused in (
        lambda: owner.offer(FunctionSpec(name="c")),
        lambda: owner.offer(FunctionSpec(name="a", doc="x" * 17_000_000)),
        lambda: owner.offer(FunctionSpec(name="n" * 300)),
        lambda: owner.offer(FunctionSpec(name="")),
        lambda: owner.set_resources([str(number) for number in range(9)]),
    ):
        with pytest.raises(LocalProtocolError) as raised:
            refused()
        assert raised.value.code == 1014
    with pytest.raises(LocalProtocolError):
        owner.withdraw("c")
    assert owner.content(SHE).head == before
    assert sorted(owner.offered) == ["a", "b"]
    assert owner.offer(FunctionSpec(name="b", doc="replaced")).head.version == 3


def test_change_log_bounded_in_bytes() -> None:
    owner = catalogue(SHE)
    for number in range(30):
        owner.offer(FunctionSpec(name="f", doc=str(number) + "x" * 100_000))
    kept = owner.content(SHE).changes
    assert sum(len(change.entry) for change in kept) <= 1024 * 1024
    assert len(kept) >= 9
    assert owner.delta(SHE, 29).since == 29
    assert owner.delta(SHE, 5).since == 0


def test_wire_size_of_a_delta() -> None:
    owner, deltas = offered(50)
    for delta in (*deltas[:2], owner.delta(SHE, 0)):
        assert len(msgspec.msgpack.encode(delta)) <= wire_size(delta) * 1.3


def test_equal_entries_of_members_share_one_object() -> None:
    """Without this, each node of a cluster of 1,000 equal nodes would hold 1,000 copies of each entry."""
    here = catalogue()
    here.offer(FunctionSpec(name="f", doc="Does it."))
    other = catalogue(SHE)
    assert here.apply(other.offer(FunctionSpec(name="f", doc="Does it."))) is Applied.YES
    own, theirs = here.content(ME), here.content(SHE)
    assert own is not None
    assert theirs is not None
    assert theirs.functions["f"] is own.functions["f"]
    assert here.apply(other.offer(FunctionSpec(name="f", doc="Does it otherwise."))) is Applied.YES
    assert [entry.doc for entry in here.offering["f"].values()] == ["Does it.", "Does it otherwise."]
    assert theirs.functions["f"] is here.offering["f"][SHE]


def test_supersede_serves_no_changes_over_the_gap() -> None:
    owner, _ = offered(3)
    replica = catalogue()
    replica.apply(owner.delta(SHE, 0))
    whole = owner.supersede(1000)
    assert (whole.since, whole.head.version, len(whole.changes)) == (0, 1001, 3)
    assert owner.delta(SHE, 3).since == 0
    assert replica.apply(owner.delta(SHE, 3)) is Applied.YES
    assert same(owner, replica)
    later = owner.offer(FunctionSpec(name="later"))
    assert (later.since, later.head.version) == (1001, 1002) and replica.apply(later) is Applied.YES


def test_own_resources_in_order_without_repetition() -> None:
    owner = catalogue(SHE)
    owner.set_resources(["z", "a", "z"])
    assert owner.content(SHE).resources == ("a", "z")
    owner.set_resources([])
    assert owner.content(SHE).resources == ()
