"""Placement against brute force: every pair compared, every draw among the equals, every rejection justified."""

from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.index import Provider
from mpreg_proto.ids import MemberId
from mpreg_proto.requests.placement import NOISE, choice_reason, draw, rank, rejected
from mpreg_proto.rng import Rng
from tests.helpers.node_harness import NodeHarness, spec


class Facts:
    """The state of members, from tables."""

    def __init__(self, full: set[MemberId], unlinked: set[MemberId], delays: dict[MemberId, int]) -> None:
        self._full, self._unlinked, self._delays = full, unlinked, delays

    def waiting(self, member: MemberId, now: int) -> int:
        return self._delays[member]

    def delay(self, member: MemberId, now: int) -> int:
        return self._delays[member]

    def full(self, member: MemberId) -> bool:
        return member in self._full

    def reachable(self, member: MemberId, now: int) -> bool:
        return member not in self._unlinked


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Provider], Facts, tuple[str, ...]]:
    size = draw(st.integers(1, 7))
    members = [MemberId(bytes([number])) for number in range(size)]
    flags = st.booleans()
    candidates = [
        Provider(member, member.hex(), draw(flags), draw(flags), draw(flags), draw(st.sampled_from(["", "2"])))
        for member in members
    ]
    chosen = st.sets(st.sampled_from(members))
    facts = Facts(draw(chosen), draw(chosen), {member: draw(st.integers(0, 3)) for member in members})
    return candidates, facts, draw(st.sampled_from([(), ("r",)]))


def better(one: Provider, other: Provider, facts: Facts, resources: tuple[str, ...]) -> bool:
    """Return whether one outranks the other, by the rules of docs/explanation/architecture.md."""
    if one.suspect != other.suspect:
        return other.suspect
    if facts.full(one.member) != facts.full(other.member):
        return facts.full(other.member)
    if facts.reachable(one.member, 0) != facts.reachable(other.member, 0):
        return facts.reachable(one.member, 0)
    return bool(resources) and one.exact and not other.exact


@given(situations(), st.integers(0, 2**32))
def test_equals_are_those_without_a_better_candidate(
    situation: tuple[list[Provider], Facts, tuple[str, ...]], seed: int
) -> None:
    candidates, facts, resources = situation
    equals = rank(candidates, facts, resources=resources, now=0)
    assert list(equals) == [
        one for one in candidates if not any(better(other, one, facts, resources) for other in candidates)
    ]
    drawn = draw(equals, facts, Rng(seed), 0)
    assert drawn in equals
    if len(equals) > 1:
        delay = facts.delay(drawn.member, 0)
        others = [facts.delay(one.member, 0) for one in equals if one != drawn]
        assert any(other + NOISE >= delay for other in others), "of two different ones it is never clearly the worse"


@given(situations())
def test_reason_of_a_rejection_is_true(
    situation: tuple[list[Provider], Facts, tuple[str, ...]],
) -> None:
    candidates, facts, resources = situation
    equals = rank(candidates, facts, resources=resources, now=0)
    rows = rejected(candidates, equals, facts, 0)
    assert [shown for shown, _ in rows] == [one.shown for one in candidates if one not in equals]
    best = equals[0]
    for one in [one for one in candidates if one not in equals]:
        why = dict(rows)[one.shown]
        if "answer" in why:
            assert one.suspect and not best.suspect
        elif "as many" in why:
            assert facts.full(one.member) and not facts.full(best.member) and one.suspect == best.suspect
        elif "link" in why:
            assert not facts.reachable(one.member, 0) and facts.reachable(best.member, 0)
        else:
            assert resources and best.exact and not one.exact
    assert choice_reason(equals, candidates)


tags = st.sets(st.sampled_from("abcd")).map(lambda held: tuple(sorted(held)))


@given(st.lists(st.tuples(tags, tags, st.booleans()), min_size=1, max_size=5), tags)
def test_candidates_offer_the_function_and_hold_all_resources(
    nodes: list[tuple[tuple[str, ...], tuple[str, ...], bool]], asked: tuple[str, ...]
) -> None:
    harness = NodeHarness()
    for number, (own, functions, offers) in enumerate(nodes):
        made: FunctionSpec = spec("f", resources=functions) if offers else spec("g", resources=functions)
        harness.member(f"m{number}", made, resources=own)
    found = {one.shown.split("#")[0]: one.exact for one in harness.node.cluster.index.offers("f", asked, None)}
    held = {f"m{n}": {*own, *functions} for n, (own, functions, offers) in enumerate(nodes) if offers}
    assert found == {name: having == set(asked) for name, having in held.items() if having >= set(asked)}
