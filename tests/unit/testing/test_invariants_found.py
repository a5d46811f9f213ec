"""What the invariants have found in the core, each as the smallest run that showed it."""

from mpreg_proto.notices import Standing
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation


def test_an_earlier_life_of_ones_own_is_not_alive_for_ever() -> None:
    """13: `b` hears from `a` of its own earlier life, and `a` is gone before it finds out.

    That life is said to be at the address of `b` itself, which nobody dials, so no dial in vain ever spoke against it.
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
