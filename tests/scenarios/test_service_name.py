"""Nodes that all start with one service name, which leads to any of them, become one cluster."""

import pytest

from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.workload import standard_nodes


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_nodes_that_join_a_service_name(count: int, seed: int) -> None:
    sim = Simulation(seed=seed, nodes=standard_nodes(count, joins="service"), watchers=invariants())
    sim.run(until=lambda: all(len(host.node.cluster.rings) == count for host in sim.nodes.values()), limit=60)
    assert {len(host.node.cluster.rings) for host in sim.nodes.values()} == {count}
    sim.settle()


def test_separate_groups_behind_a_service_name_meet() -> None:
    """Seeds 3 and 7 of eight nodes begin as two groups."""
    for seed in (3, 7):
        sim = Simulation(seed=seed, nodes=standard_nodes(8, joins="service"), watchers=invariants())
        sim.run(2)
        assert {len(host.node.cluster.rings) for host in sim.nodes.values()} != {8}, "they are not one cluster yet"
        sim.run(until=lambda sim=sim: all(len(one.node.cluster.rings) == 8 for one in sim.nodes.values()), limit=60)  # type: ignore[misc]
        sim.settle()
