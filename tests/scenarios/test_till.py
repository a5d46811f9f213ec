"""`ClusterMachine` finds a planted bug of a user and shrinks its steps to a few."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from mpreg_transports.testing import ClusterMachine, Fn, Spec


class Till(ClusterMachine):
    """The planted bug: `sell` is declared idempotent, and so it runs again after a node is lost."""

    calls = st.tuples(st.just("sell"), st.tuples(st.integers(0, 3)))
    timeouts = (None,)
    watched = False
    settling = 25.0
    withdraw = offer = cancel = partition = heal = leave = None  # type: ignore[assignment]  # fewer rules, so it is found sooner

    def cluster(self) -> Mapping[str, Spec]:
        self.sold: list[int] = []  # empty at the start of each run

        def sell(order: int) -> int:
            self.sold.append(order)
            return order

        fn = Fn(sell, duration=20.0, idempotent=True)
        return {"front": Spec(), "one": Spec(functions={"sell": fn}), "two": Spec(functions={"sell": fn})}

    def settled(self) -> None:
        for order in self.sold:
            asked = sum(args == (order,) for _, _, args in self.asked)
            assert self.sold.count(order) <= asked, f"order {order} was sold more often than asked for"


BRIEF = settings(
    max_examples=1000,
    stateful_step_count=12,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
)


def steps(error: BaseException) -> list[str]:
    """Return the steps of the example that hypothesis found."""
    lines = "\n".join(error.__notes__).splitlines()
    return [line.partition(".")[2].partition("(")[0] for line in lines if line.startswith("state.")]


def test_planted_bug_is_found_and_shrunk() -> None:
    with pytest.raises(AssertionError, match="sold more often") as caught:
        run_state_machine_as_test(seed(5)(Till), settings=BRIEF)
    found = steps(caught.value)
    assert found[0] == "begin" and found[-1] == "teardown"
    assert any("crash" in step or step in ("disturb", "interrupt") for step in found) and len(found) <= 8, found
    text = "\n".join(caught.value.__notes__)
    assert "simulated with seed" in text and "how each node sees it:" in text
