"""Placement: the order of the criteria, the draw among equals, and the reason for a choice."""

from collections import Counter

import msgspec
import pytest

from mpreg_proto.ids import MemberId
from mpreg_proto.requests.placement import NOISE, choice_reason, draw, rank, rejected
from mpreg_proto.rng import Rng


class One(msgspec.Struct, frozen=True):
    """A candidate and its load."""

    name: str
    exact: bool = True
    suspect: bool = False
    full: bool = False
    linked: bool = True
    delay: int = 0
    idempotent: bool = False
    version: str = ""

    @property
    def member(self) -> MemberId:
        return MemberId(self.name.encode())

    @property
    def shown(self) -> str:
        return self.name


class Table:
    """The candidates as `Loads`."""

    def __init__(self, *ones: One) -> None:
        self._ones = {one.member: one for one in ones}

    def waiting(self, member: MemberId, now: int) -> int:
        return self._ones[member].delay

    def delay(self, member: MemberId, now: int) -> int:
        return self._ones[member].delay

    def full(self, member: MemberId) -> bool:
        return self._ones[member].full

    def reachable(self, member: MemberId, now: int) -> bool:
        return self._ones[member].linked


def names(*ones: One, resources: tuple[str, ...] = ("r",)) -> str:
    return "".join(one.shown for one in rank(ones, Table(*ones), resources=resources, now=0))


def test_rank_of_no_candidate_and_of_one() -> None:
    assert names() == ""
    assert names(One("a", suspect=True, full=True, linked=False, exact=False)) == "a"


@pytest.mark.parametrize("worse", [{"suspect": True}, {"full": True}, {"linked": False}, {"exact": False}])
def test_each_criterion_alone_decides(worse: dict[str, bool]) -> None:
    assert names(One("a", **worse), One("b"), One("c", **worse), One("d")) == "bd"
    assert names(One("a", **worse), One("b", **worse)) == "ab"


CRITERIA = ({"suspect": True}, {"full": True}, {"linked": False}, {"exact": False})
"""The worse value of each criterion, the most important one first."""


@pytest.mark.parametrize("place", range(len(CRITERIA)))
def test_order_of_criteria(place: int) -> None:
    """The order: routable before SUSPECT, not full before full, linked before not linked, exact before superset."""
    only_this = One("w", **CRITERIA[place])
    later: dict[str, bool] = {}
    for worse in CRITERIA[place + 1 :]:
        assert names(only_this, One("b", **worse)) == "b"
        later |= worse
    assert names(only_this, One("b", **later)) == "b", "all that count less together"


def test_exact_match_counts_only_with_required_resources() -> None:
    assert names(One("a", exact=False), One("b")) == "b"
    assert names(One("a", exact=False), One("b"), resources=()) == "ab"


def test_even_draw_among_equals() -> None:
    ones = [One(name) for name in "abcde"]
    rng, table = Rng(3), Table(*ones)
    counts = Counter(draw(ones, table, rng, 0).shown for _ in range(5000))
    assert all(850 <= counts[name] <= 1150 for name in "abcde"), counts


def test_draw_of_the_better_of_two_never_of_the_worst() -> None:
    ones = [One(name, delay=2 * delay * NOISE) for name, delay in (("a", 5), ("b", 1), ("c", 9), ("d", 3))]
    rng, table = Rng(3), Table(*ones)
    counts = Counter(draw(ones, table, rng, 0).shown for _ in range(6000))
    assert "c" not in counts, "it is never the better of two different ones"
    assert counts["b"] > counts["d"] > counts["a"] > 0, counts
    assert abs(counts["b"] - 3000) < 250, "each pair of four holds b with probability one half"


def test_delay_difference_within_noise() -> None:
    ones = [One("near", delay=0), One("far", delay=NOISE)]
    rng, table = Rng(5), Table(*ones)
    counts = Counter(draw(ones, table, rng, 0).shown for _ in range(4000))
    assert abs(counts["near"] - 2000) < 200, counts


def test_no_draw_for_one_candidate() -> None:
    rng = Rng(3)
    before = rng.below(10**9)
    rng = Rng(3)
    assert draw([One("a")], Table(One("a")), rng, 0).shown == "a"
    assert rng.below(10**9) == before


def test_choice_reasons() -> None:
    ones = [One("a"), One("b"), One("c", full=True)]
    assert choice_reason(ones[:1], ones[:1]) == "the only node that can"
    assert choice_reason(ones[:1], ones) == "the best of 3"
    assert choice_reason(ones[:2], ones) == "drawn among 2 equals"


def test_rejected_candidates_with_reasons() -> None:
    best = One("a")
    ones = [
        best,
        One("s", suspect=True, full=True),
        One("f", full=True, linked=False),
        One("u", linked=False, exact=False),
        One("x", exact=False),
    ]
    table = Table(*ones)
    equals = rank(ones, table, resources=("r",), now=0)
    assert list(equals) == [best]
    assert rejected(ones, equals, table, 0) == (
        ("s", "does not answer at the moment"),
        ("f", "has as many calls as it may have"),
        ("u", "no link to it yet"),
        ("x", "holds more resources than asked for"),
    )
    assert rejected(ones, ones, table, 0) == ()


@pytest.mark.parametrize(
    ("worse", "drawback"),
    [
        ({"suspect": True}, "does not answer at the moment"),
        ({"full": True}, "has as many calls as it may have"),
        ({"linked": False}, "no link to it yet"),
        ({"exact": False}, "holds more resources than asked for"),
    ],
)
def test_drawback_that_the_chosen_candidate_does_not_share(worse: dict[str, bool], drawback: str) -> None:
    shared = {"suspect": True, "full": True, "linked": False}
    for same in ({}, {key: held for key, held in shared.items() if key not in worse}):
        best, other = One("a", **same), One("b", **{**same, **worse})
        assert rejected([best, other], [best], Table(best, other), 0) == (("b", drawback),)
