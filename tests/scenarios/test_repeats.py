"""Requests that are sent again, in virtual time: after the loss of a node, in an overload, and while a node leaves."""

from __future__ import annotations

from mpreg_proto.errors import ErrorCode
from mpreg_proto.retries import CALLS_PER_REPEAT, RESERVE
from mpreg_proto.wire.messages import DrainReply
from mpreg_transports import sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants


async def ponder(value: int) -> int:
    """Sleep for a second."""
    await sleep(1)
    return value


def work(value: int) -> int:
    return value


def two_nodes(seed: int, **functions: Fn) -> Simulation:
    """Two nodes that offer the same functions, judged by all invariants."""
    sim = Simulation(seed=seed, nodes={name: Spec(functions=functions) for name in ("a", "b")}, watchers=invariants())
    sim.run(3)
    return sim


def code_of(call: object) -> int | None:
    result = getattr(call, "result", None)
    return None if result is None or result.fault is None else result.fault.code


def test_node_that_restarts_gets_idempotent_requests_again() -> None:
    sim = two_nodes(1, safe=Fn(ponder, idempotent=True), once=Fn(ponder))
    safe, once = sim.call("a", "safe", 5), sim.call("a", "once", 6)
    sim.run(0.3)
    sim.restart("a")
    sim.run(until=lambda: safe.done() and once.done(), limit=10)
    assert (safe.value, code_of(once)) == (5, ErrorCode.OUTCOME_UNKNOWN)
    sim.run(5)
    sim.judge()


def test_node_that_stays_away_for_more_than_a_second() -> None:
    sim = two_nodes(2, safe=Fn(ponder, idempotent=True))
    safe = sim.call("a", "safe", 5)
    sim.run(0.3)
    sim.crash("a")
    sim.run(until=safe.done, limit=10)
    assert code_of(safe) == ErrorCode.OUTCOME_UNKNOWN and sim.time < 5


def test_repeats_in_an_overload_stay_within_the_budget() -> None:
    """Twice the capacity for ten seconds: most calls are refused, and their repeats do not make it worse."""
    sim = two_nodes(3, work=Fn(work, duration=0.1, concurrency=4))
    retried, plain = ([], [])
    for number in range(1600):
        calls, retry = (retried, True) if number % 2 else (plain, False)
        name = "retry" if retry else "plain"

        def send(number: int = number, calls: list[object] = calls, retry: bool = retry, name: str = name) -> None:
            calls.append(
                sim.call("ab"[number % 4 // 2], "work", number, client=f"{name}@{'ab'[number % 4 // 2]}", retry=retry)
            )

        sim.schedule(number / 160, send)
    sim.run(60)
    assert len(retried) == len(plain) == 800 and all(call.done() for call in (*retried, *plain))
    refused = sum(1 for call in retried if code_of(call) == ErrorCode.OVERLOADED)
    repeated = [call for call in retried if call.result.fault is not None and "repeats" in call.result.fault.details]
    assert refused and repeated, "the budget is spent, and the last errors say so"
    spent = sum(call.result.fault.details["repeats"] for call in repeated)
    assert spent <= 2 * RESERVE + len(retried) // CALLS_PER_REPEAT


def test_client_drains_another_node() -> None:
    sim = two_nodes(4, safe=Fn(ponder, idempotent=True))
    running = sim.call("b", "safe", 5)
    sim.run(0.3)
    command = sim.drain("b", node="a")
    sim.run(until=command.done, limit=5)
    assert isinstance(command.reply, DrainReply) and command.reply.state == "sent"
    sim.run(until=running.done, limit=5)
    assert running.value == 5
    sim.run(until=lambda: not sim.nodes["b"].alive, limit=5)
    again = sim.drain("b", node="a")
    sim.run(until=again.done, limit=5)
    assert isinstance(again.reply, DrainReply) and again.reply.state == "left"
    assert sim.nodes["a"].alive
