"""`ClusterMachine`: a sound cluster survives its rules. Each run has its own seed, which is the same every time."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from mpreg_proto.effects import Run
from mpreg_proto.errors import RequestError
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing import CallKey, ClusterMachine, Fn, NodeHost, Spec, Violation, Watcher

BRIEF: dict[str, Any] = {"database": None, "deadline": None, "phases": [Phase.generate, Phase.shrink]}


def take(n: int) -> int:
    return n + 1


NODES = {name: Spec(functions={"take": Fn(take, idempotent=True)}) for name in ("a", "b", "c")}


class Shop(ClusterMachine):
    """Three nodes with a stateless function; all invariants are on."""

    nodes = NODES
    calls = st.tuples(st.sampled_from(["take", "echo"]), st.tuples(st.integers(0, 3)))

    def settled(self) -> None:
        assert not self.pending, "every call ends"
        for call, function, args in self.asked:
            if call.result is not None and call.error is None:
                assert call.value == (args[0] + 1 if function == "take" else args[0])


Shop.TestCase.settings = settings(max_examples=25, stateful_step_count=15, database=None, deadline=None)
TestShop = Shop.TestCase


def test_violation_in_a_step_is_not_hidden_by_settling() -> None:
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


def test_every_rule_runs_and_is_in_the_script() -> None:
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


def test_machine_needs_nodes_and_reports_errors_of_the_cluster() -> None:
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


# -- a function that is wrongly idempotent ----------------------------------------------------------------------------


class Counted(Watcher):
    """No call is counted twice."""

    def __init__(self) -> None:
        self.at: dict[CallKey, str] = {}

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        if run.function == "count":
            if key in self.at:
                raise Violation(0, f"counted at {self.at[key]} and again at {host.name}")
            self.at[key] = host.name


def count(n: int) -> int:
    return n


async def count_slowly(n: int) -> int:
    await sleep(2)
    return n


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("function", [count, count_slowly])
def test_wrongly_idempotent_function_is_found(function: Any, number: int) -> None:
    """Each hunt has 200 examples of 20 steps. Plain functions run for a millisecond."""
    counter = {"count": Fn(function, idempotent=True)}

    class Counting(ClusterMachine):
        nodes = MappingProxyType({"front": Spec(), "a": Spec(functions=counter), "b": Spec(functions=counter)})
        calls = st.tuples(st.just("count"), st.tuples(st.integers(0, 9)))
        watched = False

        def watchers(self) -> list[Watcher]:
            return [Counted()]

    hunt = settings(
        max_examples=200,
        stateful_step_count=20,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.target],
    )
    with pytest.raises(Violation, match="counted at"):
        run_state_machine_as_test(seed(number)(Counting), settings=hunt)


def test_idempotent_function_that_is_right_survives_interruptions() -> None:
    class Sound(Shop):
        watched = True

    hunt = settings(max_examples=10, stateful_step_count=20, **BRIEF)
    run_state_machine_as_test(seed(1)(Sound), settings=hunt)


def test_fault_at_a_node_that_runs_a_function() -> None:
    machine = Shop()
    machine.begin(seed=0, absent=0, pace=0.0)
    machine.crash_at_work(node="a", what=[("take", (1,))], silent=False)
    assert len(machine.up) == 2
    machine.teardown()
    assert machine.asked[0][0].done()
