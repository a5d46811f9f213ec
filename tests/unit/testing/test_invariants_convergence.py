"""Invariants 9, 13 and 15 can fail: lost dispatches, suspicion without a reason, views and links after settling.

With one method of the core broken on purpose, that invariant reports a violation.
"""

import pytest

from mpreg_proto.cluster.detector import Detector, Findings
from mpreg_proto.cluster.members import Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.limits import SECOND
from mpreg_proto.links import Links
from mpreg_proto.notices import Standing
from mpreg_proto.requests.worker import Worker
from mpreg_transports.testing.invariants.convergence import StateCleanup
from mpreg_transports.testing.invariants.suspicion import RingConnectivity
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from tests.helpers.simulated import cluster, double, violated


def test_9_dispatch_that_no_worker_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "accept", lambda *_, **__: [])
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"})
    for _ in range(2):
        sim.run(4)
        sim.sweep()
    sim.run(4)
    assert "waits for 'double'" in violated(9, sim.sweep)


def test_13_suspicion_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    recheck = Detector._recheck

    def accuse(self: Detector, now: int) -> Findings:
        found = recheck(self, now)
        for member in list(self._rings.neighbours) if now > 30 * SECOND else ():
            found.add(self._declare(member, Standing.SUSPECT, now))
        return found

    monkeypatch.setattr(Detector, "_recheck", accuse)
    sim = cluster()
    assert "nothing was wrong for long" in violated(13, lambda: sim.run(3000))


def test_13_stalled_node_that_suspects_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "_locally_stalled", lambda *_: False)
    sim = cluster()
    sim.stall("front", 4)
    sim.run(1)
    sim.crash("left")
    assert "stood still and calls left#" in violated(13, lambda: sim.run(10))


def test_13_views_that_differ_in_a_dead_member() -> None:
    sim = cluster()
    sim.crash("left")
    sim.run(20)
    host = sim.nodes["front"]
    members: Members = host.node.cluster.members
    (dead,) = (held for held in members.all() if held.standing is Standing.DEAD)
    members.declare(dead.id, Standing.RETIRED, host.local)
    assert "as DEAD 0" in violated(13, sim.judge)


def test_13_ring_neighbours_without_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Rings._take
    monkeypatch.setattr(Rings, "_take", lambda self, members: take(self, list(members)[:4]))
    names = [f"n{number}" for number in range(16)]
    sim = Simulation(seed=5, nodes={name: Spec() for name in names}, watchers=[RingConnectivity()])
    assert "its neighbour on ring" in violated(13, lambda: sim.settle(70))


def test_15_link_to_a_crashed_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Links, "start_keepalive", lambda *_: None)
    nodes = {name: Spec(functions={"double": double}) for name in ("front", "left", "right")}
    sim = Simulation(seed=5, nodes=nodes, watchers=[StateCleanup()])
    sim.run(2)
    sim.call("left", "double", 1)
    sim.run(1)
    sim.crash("left", silent=True)
    sim.restart("left", after=0.5)
    assert "is left with link 1 to left, which is no more" in violated(15, lambda: sim.settle(60))
