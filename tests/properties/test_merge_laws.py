"""The table of docs/explanation/membership.md: how often order matters, by rule set, and for `Members`."""

from itertools import combinations, permutations, product

import pytest

from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim
from tests.merge_laws import KNOWN, MESSAGES, RULES, Cell, count, foca, maximum, memberlist, sets, table

ME, OTHER = MemberId(b"m" * 16), MemberId(b"a" * 16)


def test_published_figures_of_order_dependence() -> None:
    """Sets of two different messages about a known member: 38 %, 20 % and none; 10 %, 0 % and none."""
    assert count(memberlist, 2, KNOWN) == (120, 46, 12)
    assert count(foca, 2, KNOWN) == (120, 24, 0)
    assert count(maximum, 2, KNOWN) == (120, 0, 0)


@pytest.mark.parametrize("start", [KNOWN, None])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_maximum_does_not_depend_on_order(start: Cell | None, size: int) -> None:
    assert count(maximum, size, start).differing == 0


def test_table_has_a_row_for_each_rule_set() -> None:
    text = table()
    for name in RULES:
        assert text.count(name) == 4


def really(start: Cell | None, messages: tuple[Cell, ...]) -> Cell | None:
    """Return the cell of the real `Members` after these messages, one by one."""
    known = Members(ME, Card("me"), limits=Limits(), now=0)
    for said in (*([] if start is None else [start]), *messages):
        known.merge([Claim(OTHER, said.incarnation, int(said.standing))], 0)
    held = known.get(OTHER)
    return None if held is None else Cell(held.incarnation, held.standing)


@pytest.mark.parametrize("start", [KNOWN, None])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_members_equal_the_maximum_in_every_order(start: Cell | None, size: int) -> None:
    for messages in sets(size):
        expected = start
        for said in messages:
            expected = maximum(expected, said)
        for order in permutations(messages):
            assert really(start, order) == expected, order


def test_repeated_messages_change_nothing() -> None:
    for one, other in product(MESSAGES, MESSAGES):
        assert really(None, (one, other, one, other)) == max(one, other)


ACCUSERS = tuple(MemberId(letter * 16) for letter in (b"p", b"q", b"r"))
ACCUSED = tuple(
    Claim(OTHER, incarnation, int(standing), accusers=accusers)
    for incarnation, standing in product(range(2), (Standing.ALIVE, Standing.SUSPECT, Standing.DEAD))
    for accusers in ((), ACCUSERS[:1], ACCUSERS[1:])
    if standing is Standing.SUSPECT or not accusers
)


def accused(claims: tuple[Claim, ...]) -> tuple[tuple[int, int] | None, tuple[MemberId, ...]]:
    """Return the cell and the accusers that the real `Members` hold after these claims, one by one."""
    known = Members(ME, Card("me"), limits=Limits(), now=0)
    for claim in claims:
        known.merge([claim], 0)
    held = known.get(OTHER)
    return (None, ()) if held is None else ((held.incarnation, int(held.standing)), held.accusers)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_accusers_are_those_of_the_greatest_claims_in_every_order(size: int) -> None:
    for claims in combinations(ACCUSED, size):
        cell = max((claim.incarnation, claim.standing) for claim in claims)
        named = {one for claim in claims if (claim.incarnation, claim.standing) == cell for one in claim.accusers}
        for order in permutations(claims):
            assert accused(order) == (cell, tuple(sorted(named))), order
            assert accused((*order, *order)) == (cell, tuple(sorted(named))), order
