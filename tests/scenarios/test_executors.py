"""Executors in virtual time: what becomes of calls that an executor refuses, and of those in one that breaks."""

from __future__ import annotations

import pytest

from mpreg_proto.errors import ErrorCode, OutcomeUnknown
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants


def work(number: int) -> int:
    return number


def cluster(**workers: Fn) -> Simulation:
    """Return a cluster of `front` and these workers, which all offer `work`."""
    nodes = {"front": Spec(), **{name: Spec(functions={"work": fn}) for name, fn in workers.items()}}
    sim = Simulation(seed=9, nodes=nodes, watchers=invariants())
    sim.run(5)
    return sim


@pytest.mark.parametrize("idempotent", [False, True])
def test_submit_that_raises_is_a_refusal(idempotent: bool) -> None:
    """The calls go elsewhere, also those of a function that is not idempotent: nothing has started."""
    broken, sound = Fn(work, refuses=1.0, idempotent=idempotent), Fn(work, idempotent=idempotent)
    sim = cluster(broken=broken, sound=sound)
    calls = [sim.call("front", "work", number) for number in range(30)]
    sim.run(5)
    assert [call.value for call in calls] == list(range(30))
    sim.settle()


def test_submit_that_raises_at_each_node() -> None:
    sim = cluster(one=Fn(work, refuses=1.0), other=Fn(work, refuses=1.0))
    call = sim.call("front", "work", 1, timeout=5)
    assert sim.run(until=call.done, limit=10)
    assert call.error is not None and call.error.code == ErrorCode.OVERLOADED
    assert call.error.details["maybe_executed"] is False
    sim.settle()


def test_call_in_an_executor_that_breaks_may_have_started() -> None:
    sim = cluster(broken=Fn(work, loses=1.0), sound=Fn(work))
    calls = [sim.call("front", "work", number) for number in range(30)]
    sim.run(5)
    lost = [call for call in calls if isinstance(call.error, OutcomeUnknown)]
    assert lost and all(call.error is not None and call.error.details["maybe_executed"] for call in lost)
    assert all(call.value == number for number, call in enumerate(calls) if call not in lost)
    sim.settle()


def test_idempotent_call_in_an_executor_that_breaks_runs_again() -> None:
    sim = cluster(broken=Fn(work, loses=0.3, idempotent=True), sound=Fn(work, idempotent=True))
    calls = [sim.call("front", "work", number) for number in range(30)]
    sim.run(10)
    assert [call.value for call in calls] == list(range(30))
    sim.settle()


def test_functions_of_a_broken_executor_are_withdrawn() -> None:
    """The node withdraws them; calls that were queued there go to the node that still offers the function."""
    slow = Fn(work, duration=1, concurrency=1)
    sim = cluster(broken=slow, sound=slow)
    calls = [sim.call("front", "work", number, timeout=60) for number in range(8)]
    sim.run(0.5)
    sim.withdraw("broken", "work")
    sim.run(20)
    assert [call.value for call in calls] == list(range(8))
    late = sim.call("front", "work", 9)
    sim.run(2)
    assert late.value == 9
    sim.settle()
