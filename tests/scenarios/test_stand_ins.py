"""The measurements of `membership_figures` at 10,000 nodes with stand-ins, at a size that takes little time."""

import pytest

from mpreg_proto.limits import SECOND
from tests.membership_figures import large


@pytest.mark.parametrize(("silent", "bound"), [(False, 2.5), (True, 8.0)])
def test_time_to_dead_among_stand_ins(silent: bool, bound: float) -> None:
    spans = large.deaths(100, seed=2, count=5, silent=silent)
    assert all(1.0 <= span <= bound for span in spans), spans


def test_all_stand_ins_learn_of_a_dead_member() -> None:
    ids, near = large.view(100, seed=4)
    death = large.Death(ids, near, large.cards(ids), victim=7, seed=4)
    assert death.run(silent=True, after=0.3) is not None
    death._until(death.now + SECOND)
    assert sorted(death.dead) == [number for number in range(100) if number != 7]
