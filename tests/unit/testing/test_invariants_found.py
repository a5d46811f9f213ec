"""Faults of the core that the invariants found, each as the smallest run that showed it."""

from mpreg_proto.notices import Standing
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation


def test_own_earlier_member_id_does_not_stay_alive() -> None:
    """13: `b` learns from `a` of its own earlier member id, and `a` crashes before it detects that death.

    The card of that id has the address of `b` itself, which no node dials, so no failed dial ever contradicted it.
    """
    sim = Simulation(seed=0, nodes={"a": Spec(), "b": Spec()}, watchers=invariants())
    sim.run(1)
    sim.crash("b", silent=True)
    sim.restart("b")
    sim.run(0.01)
    sim.crash("a")
    members = sim.nodes["b"].node.cluster.members
    assert [held.standing for held in members.all()] == [Standing.ALIVE] * 3
    sim.settle()
    assert [held.standing for held in members.all()] == [Standing.ALIVE, Standing.DEAD, Standing.DEAD]
