"""Invariants 7 to 12 can fail: calls, ends, bounds.

With one method of the core broken on purpose, that invariant reports a violation.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.requests.coordinator import Coordinator, InFlight
from mpreg_proto.requests.replies import Replies
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.requests.scheduler import Scheduler
from mpreg_proto.requests.worker import Worker
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim, Done
from mpreg_transports.graph import Graph
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from tests.helpers.simulated import cluster, double, slow, violated


def chain() -> Graph:
    graph = Graph()
    graph.call("double", 1, after=[graph.call("slow", 1)])
    return graph


def test_7_calls_that_do_not_wait_for_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    def start_all(self: Execution, now: int) -> list[str]:
        ready = self.open
        for name in ready:
            self.move(name, CallState.READY, now)
        return ready

    monkeypatch.setattr(Execution, "start", start_all)
    monkeypatch.setattr(Execution, "inputs_of", lambda *_: {})
    sim = cluster()
    sim.graph("front", chain())
    assert "'slow', which it needs, has no result" in violated(7, lambda: sim.run(10))


def test_7_result_that_is_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Execution.done
    monkeypatch.setattr(Execution, "done", lambda self: 2 * done(self))
    sim = cluster()
    sim.call("front", "double", 1)
    assert "two answers for 'double'" in violated(7, lambda: sim.run(10))


def test_8_result_that_differs_from_the_returned_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Worker, job: Any, outcome: Any, now: int) -> Done:
        return Done(job.call.name, self._codec.encode("something else"), 0, 1)

    monkeypatch.setattr(Worker, "_row", wrong)
    sim = cluster()
    sim.call("front", "double", 1)
    assert "no body of this call returned that" in violated(8, lambda: sim.run(10))


def test_8_arguments_that_differ_from_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_arguments", lambda self, job: ([7], {}))
    sim = cluster()
    sim.call("front", "double", 1)
    assert "with [7] {}, not [1] {}" in violated(8, lambda: sim.run(10))


def test_8_function_that_differs_from_plain_python() -> None:
    """The evaluation in plain Python finds errors of the functions themselves."""
    nodes = {"one": Spec(functions={"double": lambda value: 3 * value})}
    sim = Simulation(seed=1, nodes=nodes, watchers=invariants(pure={"double": double}))
    sim.call("one", "double", 1)
    assert "is 3, not 2" in violated(8, lambda: sim.run(10))


def test_9_node_that_ignores_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InFlight, "deadline_exceeded", lambda *_: [])
    sim = cluster()
    sim.call("front", "slow", 1, timeout=1)
    sim.run(0.5)
    sim.partition({"client@front"}, {"front"})  # else the client would cancel it
    assert "still has request" in violated(9, lambda: sim.run(10))


def test_9_node_that_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timer = Timers.set
    late = lambda self, key, at: set_timer(self, key, at + 300_000_000 * (key[0] == TimerKind.DEADLINE))  # noqa: E731
    monkeypatch.setattr(Timers, "set", late)
    sim = cluster()
    sim.call("front", "slow", 1, timeout=1)
    sim.run(0.5)
    sim.partition({"client@front"}, {"front"})
    assert "still has request 1 0.3 s after its deadline" in violated(9, lambda: sim.run(10))


def test_9_node_that_replies_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Replies.finish

    def twice(self: Replies, link: Any, result: Any, *, started: bool) -> None:
        finish(self, link, result, started=started)
        finish(self, link, result, started=started)

    monkeypatch.setattr(Replies, "finish", twice)
    sim = cluster()
    sim.call("front", "double", 1)
    assert "another answer" in violated(9, lambda: sim.run(10))


def test_10_call_that_runs_twice_and_is_not_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(self: Coordinator, attempts: Any, now: int) -> Any:
        for attempt in attempts:
            self.outstanding.pop(attempt.number, attempt.call, attempt.link)
        return self._place_all({attempt.execution.id: [attempt.call] for attempt in attempts}, now)

    monkeypatch.setattr(Coordinator, "_lose", lose)
    sim = cluster()
    for value in range(9):
        sim.call("front", "slow", value)
    sim.run(1)
    sim.crash("left")
    assert "is not idempotent" in violated(10, lambda: sim.run(20))


def test_10_failovers_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    lose = Coordinator._lose

    def forgetful(self: Coordinator, attempts: Any, now: int) -> Any:
        for attempt in attempts:
            attempt.execution.history.losses.clear()
        return lose(self, attempts, now)

    monkeypatch.setattr(Coordinator, "_lose", forgetful)
    nodes = {name: Spec(functions={"again": Fn(slow, idempotent=True)} if name != "0" else {}) for name in "012345"}
    sim = Simulation(seed=1, nodes=nodes, watchers=invariants())
    sim.run(2)
    sim.call("0", "again", 1)

    def hunt() -> None:
        for _ in range(5):
            sim.run(0.5)
            busy = [name for name, host in sim.nodes.items() if host.running]
            sim.crash(busy[0])

    assert "started 4 times, at most 3" in violated(10, hunt)


def test_10_false_report_that_nothing_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Scheduler._add

    def forgetful(self: Scheduler, execution: Any, *args: Any) -> None:
        add(self, execution, *args)
        execution.possibly_started.clear()

    monkeypatch.setattr(Scheduler, "_add", forgetful)
    sim = cluster()
    sim.call("front", "slow", 1, timeout=1)
    assert "promised that nothing was done" in violated(10, lambda: sim.run(10))


def test_11_dispatch_with_more_time_than_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Scheduler._batch

    def generous(self: Scheduler, execution: Any, *args: Any, **fields: Any) -> Any:
        made = group(self, execution, *args, **fields)
        made.dispatch = msgspec.structs.replace(made.dispatch, deadline=execution.deadline + 10**9)
        return made

    monkeypatch.setattr(Scheduler, "_batch", generous)
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"}, timeout=5)
    assert "with 5.996 s left; it had 4.996 s" in violated(11, lambda: sim.run(10))


def test_11_run_that_starts_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Worker.accept

    def patient(self: Worker, *args: Any, deadline: int, **more: Any) -> Any:
        return accept(self, *args, deadline=deadline + 10**10, **more)

    monkeypatch.setattr(Worker, "accept", patient)
    monkeypatch.setattr(Worker, "cancel", lambda *_: [])
    sim = cluster()
    for _ in range(2):
        sim.call("front", "single", 1, resources={"front"}, timeout=2)
    assert "after its deadline" in violated(11, lambda: sim.run(10))


def test_12_more_runs_than_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    many = lambda self, function, slots, now, **more: self._slots.update({function: 9}) or []  # noqa: E731
    monkeypatch.setattr(Worker, "concurrency", many)
    sim = cluster()
    for _ in range(2):
        sim.call("front", "single", 1, resources={"front"})
    assert "2 bodies of single, at most 1" in violated(12, lambda: sim.run(10))


def test_12_timers_that_are_never_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Timers.cancel
    monkeypatch.setattr(Timers, "cancel", lambda self, key: None if key[0] == TimerKind.DEADLINE else cancel(self, key))
    sim = cluster()

    def ask() -> None:
        for _ in range(500):
            sim.call("front", "double", 1)
            sim.run(0.1)

    assert "a timer ('deadline', 1) of something that is no more" in violated(12, ask)


def test_12_requests_of_a_closed_link(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Coordinator.link_lost

    def careless(self: Coordinator, link: Any, now: int) -> Any:
        self.in_flight.forget(link)
        return lost(self, link, now)

    monkeypatch.setattr(Coordinator, "link_lost", careless)
    sim = cluster()
    sim.call("front", "slow", 1)
    sim.run(1)
    sim.vanish("client@front")
    sim.run(0.1)
    assert "of link" in violated(12, sim.sweep)


def test_12_calls_of_a_dead_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "link_lost", lambda *_: [])
    sim = cluster()
    sim.call("front", "slow", 1, resources={"left"})
    sim.run(1)
    sim.crash("front")
    sim.run(0.1)
    assert "not called off: ['slow']" in violated(12, sim.sweep)


def test_12_gossip_that_circulates_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Members.merge

    def as_if_new(self: Members, claims: Iterable[Claim], now: int) -> list[Member]:
        received = list(claims)
        rose = merge(self, received, now)
        known = [held for claim in received if (held := self.get(MemberId(claim.member))) is not None]
        return list({held.id: held for held in (*rose, *known)}.values())

    monkeypatch.setattr(Members, "merge", as_if_new)
    sim = Simulation(seed=1, nodes={name: Spec() for name in "abcd"}, watchers=invariants())
    assert "times over link" in violated(12, lambda: sim.run(5))
