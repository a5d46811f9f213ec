"""Invariant 12 compares tables that are kept twice: each kind of damage to one of them is reported."""

from collections.abc import Callable

import pytest

from mpreg_proto.cluster.dialer import AddressRow
from mpreg_proto.ids import Address, LinkId, RunId
from mpreg_proto.limits import SECOND
from mpreg_proto.node import Node
from mpreg_proto.notices import Standing
from mpreg_proto.timers import TimerKind
from mpreg_transports.testing.invariants.tables import TableConsistency
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from tests.helpers.simulated import FUNCTIONS, violated


def heap_out_of_order(node: Node) -> None:
    node._timers._heap.reverse()


def wrong_link_for_calls(node: Node) -> None:
    node.cluster.links.clear()


def link_without_a_session(node: Node) -> None:
    node.links.sessions.pop(next(iter(node.cluster.links.values())))


def suspicion_of_a_member_that_is_well(node: Node) -> None:
    member = node.cluster.members.get(next(iter(node.cluster.rings.neighbours)))
    assert member is not None
    node.cluster._detector._suspicions.add_unobserved(member, 0, health_multiplier=1)


def suspicion_without_an_end(node: Node) -> None:
    member = next(iter(node.cluster.rings.neighbours))
    suspect = node.cluster.members.declare(member, Standing.SUSPECT, 0)
    assert suspect is not None
    node.cluster._detector._suspicions.observe(suspect, (member,), 0, health_multiplier=1)
    node._timers.cancel((TimerKind.SUSPICION, member))


def unobserved_neighbour(node: Node) -> None:
    suspect = node.cluster.members.declare(next(iter(node.cluster.rings.neighbours)), Standing.SUSPECT, 0)
    assert suspect is not None
    node.cluster._detector._suspicions.add_unobserved(suspect, 0, health_multiplier=1)


def linked_and_lost(node: Node) -> None:
    node.cluster._detector._broken_since[next(iter(node.cluster.links))] = 0


def displaced_and_well(node: Node) -> None:
    node.cluster._detector._displaced[next(iter(node.cluster.links))] = 0


def row(node: Node) -> tuple[Address, AddressRow]:
    return next(iter(node.cluster._dialer._rows.items()))


def dial_without_a_timer(node: Node) -> None:
    row(node)[1].due = SECOND


def failures_before_the_last_answer(node: Node) -> None:
    one = row(node)[1]
    one.failures, one.reached, one.tried = 2, 2 * SECOND, SECOND


def dial_without_an_end(node: Node) -> None:
    dialler = node.cluster._dialer
    dialler._dialling[row(node)[0]] = (None, next(iter(dialler._waiting)))


def address_for_another(node: Node) -> None:
    row(node)[1].interested[node.me] = None


def forgotten_address(node: Node) -> None:
    node.cluster.links.clear()
    node.cluster._peer_links._by_member.clear()
    node.cluster._peer_links._by_link.clear()


def offer_of_nobody(node: Node) -> None:
    node.cluster.index._cache["nothing", (), None] = node.cluster.index.offers("double", (), None)


def queued_by_count_alone(node: Node) -> None:
    node.worker.queued += 1


def busy_without_a_run(node: Node) -> None:
    node.worker._busy["double"] = 1


def memory_of_nothing(node: Node) -> None:
    node.worker._memory_used = 8


def items_of_an_ended_run(node: Node) -> None:
    node.worker._reports[RunId(99)] = None


def dispatch_of_no_link(node: Node) -> None:
    node.worker._by_link[LinkId(99)] = {1: None}


def way_back_of_nothing(node: Node) -> None:
    node.relay._forwarded[LinkId(1), 2] = (LinkId(3), 4)


def call_of_a_stranger(node: Node) -> None:
    node.coordinator.outstanding._by_member[node.me[::-1]] = {}  # type: ignore[index]


DAMAGES: dict[str, Callable[[Node], None]] = {
    "as its next deadline": heap_out_of_order,
    "for its calls, which are": wrong_link_for_calls,
    "to members, which are gone": link_without_a_session,
    "and these are SUSPECT": suspicion_of_a_member_that_is_well,
    "without an end": suspicion_without_an_end,
    "that it does not observe": unobserved_neighbour,
    "counts as not linked": linked_and_lost,
    "as displaced": displaced_and_well,
    "and a timer: False": dial_without_a_timer,
    "which has answered since": failures_before_the_last_answer,
    "a dial of": dial_without_an_end,
    "which others name": address_for_another,
    "never dials again": forgotten_address,
    "as the offers of": offer_of_nobody,
    "queued calls, which are": queued_by_count_alone,
    "slots taken by": busy_without_a_run,
    "bytes of memory in use": memory_of_nothing,
    "which have ended": items_of_an_ended_run,
    "by link that differ": dispatch_of_no_link,
    "and 0 ways back": way_back_of_nothing,
    "a row of calls for": call_of_a_stranger,
}


def joined() -> Simulation:
    """Return three joined nodes, of which only the tables are watched."""
    nodes = {name: Spec(functions=FUNCTIONS, resources={name}) for name in ("front", "left", "right")}
    sim = Simulation(seed=5, nodes=nodes, watchers=[TableConsistency()])
    sim.run(5)
    return sim


@pytest.mark.parametrize(("text", "damage"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES.values()])
def test_12_damaged_table(text: str, damage: Callable[[Node], None]) -> None:
    sim = joined()
    sim.sweep()
    damage(sim.nodes["left"].node)
    assert text in violated(12, sim.sweep)


def test_12_node_that_takes_itself_for_slow_for_ever() -> None:
    sim = joined()
    detector = sim.nodes["left"].node.cluster._detector
    detector.health_multiplier = 3
    sim.judge()
    sim.run(70)
    assert detector.health_multiplier == 1
    sim.judge()
    detector.health_multiplier = 3
    assert "as if it were slow" in violated(12, sim.judge)


def test_12_results_that_nobody_needs() -> None:
    sim = joined()
    sim.call("front", "slow", 1, client="a")
    sim.run(1)
    (execution,) = [one for host in sim.nodes.values() for one in host.node.coordinator.requests.values()]
    execution.validate()
    execution.values_size = 5
    with pytest.raises(AssertionError, match="counted wrong"):
        execution.validate()
    execution.values["slow"] = b"12345"
    with pytest.raises(AssertionError, match="has a result"):
        execution.validate()
