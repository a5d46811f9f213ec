"""Random draws: equal on every Python version, in independent streams."""

import pytest

from mpreg_proto.rng import Rng


def test_fixed_stream_of_a_seed() -> None:
    """The numbers are fixed, because an old journal or trace must replay on every later Python version."""
    rng = Rng(7)
    assert [rng.below(1000) for _ in range(8)] == [323, 150, 650, 72, 535, 365, 57, 507]
    child = Rng(7).child("placement")
    assert child.seed == 0x1AD921BFE73718DD0475EDDF46B6DFC2
    assert [child.below(1000) for _ in range(4)] == [523, 309, 922, 273]


def test_child_depends_on_seed_and_name_only() -> None:
    rng = Rng(1)
    before = [rng.child("a").below(2**40) for _ in range(2)]
    rng.fraction()
    assert [rng.child("a").below(2**40) for _ in range(2)] == before == [Rng(1).child("a").below(2**40)] * 2
    names = [rng.child(name).seed for name in ("a", "b", "", "a/b")]
    assert len({*names, Rng(2).child("a").seed}) == 5
    assert rng.child("a").child("b").seed != rng.child("b").child("a").seed


def test_draw_of_a_child_does_not_advance_its_parent() -> None:
    one, other = Rng(3), Rng(3)
    one.child("x").fraction()
    assert one.fraction() == other.fraction()


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 2**53])
def test_bounds_of_below(bound: int) -> None:
    rng = Rng(5)
    draws = [rng.below(bound) for _ in range(2000)]
    assert all(0 <= draw < bound for draw in draws)
    if bound <= 10:
        counts = [draws.count(number) for number in range(bound)]
        assert min(counts) > 0.7 * 2000 / bound, counts


def test_fraction_and_choice() -> None:
    rng = Rng(5)
    assert all(0 <= rng.fraction() < 1 for _ in range(1000))
    assert {rng.choice("abc") for _ in range(100)} == {"a", "b", "c"}
    assert Rng(9).choice([42]) == 42
