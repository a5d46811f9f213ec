"""The table of docs/explanation/membership.md: how often order matters, by rule set, and for `Members`."""

from itertools import permutations, product

import pytest

from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
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
