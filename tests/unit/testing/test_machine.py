"""`ClusterMachine`: a sound cluster survives what it does, and a planted bug is found and shortened to a few steps.

Both take a seed of their own, so that they are the same everywhere and every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from mpreg_proto.errors import RequestError
from mpreg_transports.testing import ClusterMachine, Fn, Spec, Violation, Watcher

BRIEF: dict[str, Any] = {"database": None, "deadline": None, "phases": [Phase.generate, Phase.shrink]}


def take(n: int) -> int:
    return n + 1


NODES = {name: Spec(functions={"take": Fn(take, idempotent=True)}) for name in ("a", "b", "c")}


class Shop(ClusterMachine):
    """Three nodes with a function that holds no state; all invariants are on."""

    nodes = NODES
    calls = st.tuples(st.sampled_from(["take", "echo"]), st.tuples(st.integers(0, 3)))

    def settled(self) -> None:
        assert not self.pending, "every call ends"
        for call, function, args in self.asked:
            if call.result is not None and call.error is None:
                assert call.value == (args[0] + 1 if function == "take" else args[0])


Shop.TestCase.settings = settings(max_examples=25, stateful_step_count=15, database=None, deadline=None)
TestShop = Shop.TestCase


class Till(ClusterMachine):
    """The planted bug: selling is said to be idempotent, and so it is done again where a node was lost."""

    calls = st.tuples(st.just("sell"), st.tuples(st.integers(0, 3)))
    timeouts = (None,)
    watched = False
    settling = 25.0
    withdraw = offer = cancel = partition = heal = leave = None  # type: ignore[assignment]  # less to do, so it is found sooner

    def cluster(self) -> Mapping[str, Spec]:
        self.sold: list[int] = []  # begins anew for each run

        def sell(order: int) -> int:
            self.sold.append(order)
            return order

        fn = Fn(sell, duration=20.0, idempotent=True)
        return {"front": Spec(), "one": Spec(functions={"sell": fn}), "two": Spec(functions={"sell": fn})}

    def settled(self) -> None:
        for order in self.sold:
            asked = sum(args == (order,) for _, _, args in self.asked)
            assert self.sold.count(order) <= asked, f"order {order} was sold more often than asked for"


def steps(error: BaseException) -> list[str]:
    """What hypothesis has come to, step by step."""
    lines = "\n".join(error.__notes__).splitlines()
    return [line.partition(".")[2].partition("(")[0] for line in lines if line.startswith("state.")]


def test_a_planted_bug_is_found_and_shortened() -> None:
    with pytest.raises(AssertionError, match="sold more often") as caught:
        run_state_machine_as_test(seed(5)(Till), settings=settings(max_examples=1000, stateful_step_count=12, **BRIEF))
    found = steps(caught.value)
    assert found[0] == "begin" and found[-1] == "teardown"
    assert set(found) >= {"call", "crash"} and len(found) <= 8, found
    text = "\n".join(caught.value.__notes__)
    assert "simulated with seed" in text and "how each node sees it:" in text


def test_what_breaks_in_a_step_is_not_hidden_by_settling() -> None:
    class Jealous(Watcher):
        asked = False

        def submitted(self, call: object) -> None:
            self.asked = True
            raise Violation(0, "nobody may ask")

    class Alone(ClusterMachine):
        nodes = NODES

        def watchers(self) -> list[Watcher]:
            self.jealous = Jealous()
            return [self.jealous]

        def settled(self) -> None:
            assert not self.jealous.asked, "a run that has failed does not settle"

    with pytest.raises(Violation, match="nobody may ask"):
        run_state_machine_as_test(seed(1)(Alone), settings=settings(max_examples=20, stateful_step_count=5, **BRIEF))


def test_every_rule_happens_and_is_written_into_the_script() -> None:
    done: dict[str, int] = {}

    class Counted(Shop):
        watched = False

        def settled(self) -> None:
            super().settled()
            for action in self.sim.trace.script:
                done[action.name] = done.get(action.name, 0) + 1

    run_state_machine_as_test(seed(1)(Counted), settings=settings(max_examples=30, stateful_step_count=20, **BRIEF))
    wanted = {"crash", "restart", "leave", "partition", "heal", "submit", "cancel", "withdraw", "offer", "calm"}
    assert wanted <= set(done), done


def test_nodes_are_needed_and_errors_are_those_of_the_cluster() -> None:
    with pytest.raises(ValueError, match=r"ClusterMachine\.nodes names no nodes"):
        ClusterMachine()
    machine = Shop()
    machine.begin(seed=0, absent=1, pace=0.0)
    assert machine.up == ["a", "b"] and machine.down == []
    machine.join(node="c")
    machine.crash(node="a", silent=False)
    assert machine.up == ["b", "c"] and machine.down == ["a"]
    machine.withdraw(what=("b", "take"))
    machine.withdraw(what=("c", "take"))
    machine.call(node="b", what=[("take", (1,))], timeout=None)
    machine.advance(seconds=2.0)  # "a" offers it too, until it is DEAD
    ((call, _, _),) = machine.asked
    assert isinstance(call.error, RequestError) and call.error.code == 1001
    machine.teardown()
