"""The fifteen invariants report nothing about a sound core, under any faults; liveness (13 to 15) can fail.

With one method of the core broken on purpose, that invariant reports a violation. The test files beside this one do the
same for 1 to 12.
"""

from typing import Any

import pytest

from mpreg_proto.cluster.actions import LinkSelected
from mpreg_proto.cluster.anti_entropy import AntiEntropy
from mpreg_proto.cluster.detector import Detector, Findings
from mpreg_proto.cluster.gossip import Disseminator
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.peer_links import PeerLinks
from mpreg_proto.requests.outstanding import Outstanding
from mpreg_proto.requests.scheduler import PendingCalls
from mpreg_proto.requests.worker import Worker
from mpreg_transports.graph import Graph
from mpreg_transports.testing.invariants.all import INVARIANTS, invariants
from mpreg_transports.testing.invariants.known_gaps import KNOWN_GAPS, table
from mpreg_transports.testing.invariants.tables import TableConsistency
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher
from tests.helpers.simulated import cluster, double, violated


@pytest.mark.parametrize("objects", [False, True])
def test_sound_core_keeps_all_invariants(objects: bool) -> None:
    sim = cluster(objects=objects)
    graph = Graph()
    first = graph.call("double", 4)
    graph.call("double", first, after=[graph.call("slow", 1, resources={"front"})], resources={"front"})
    calls = [sim.graph("front", graph), sim.call("left", "double", 3, resources={"right"})]
    calls += [sim.call("front", "again", 1), sim.call("front", "slow", 1)]
    sim.run(1)
    sim.crash("left")
    sim.restart("left", after=2)
    sim.partition({"front"}, {"right"})
    sim.run(8)
    sim.heal()
    sim.leave("right")
    sim.settle()
    assert all(call.done() for call in calls)
    assert calls[0].values == {"double-2": 16}


def test_fifteen_invariants_have_a_text() -> None:
    assert len(invariants()) >= len(INVARIANTS) == 15
    assert list(INVARIANTS) == list(range(1, 16))


def test_table_of_known_gaps() -> None:
    assert all(row.invariant in INVARIANTS for row in KNOWN_GAPS)
    assert len(table()) == len(KNOWN_GAPS)


# -- settled ----------------------------------------------------------------------------------------------------------


def test_13_crash_without_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "_declare", lambda *_: Findings())
    sim = cluster()
    sim.crash("left")
    assert "which is no more, as ALIVE" in violated(13, sim.settle)


def test_13_catalogue_change_that_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = cluster()
    monkeypatch.setattr(Disseminator, "catalogue_changed", lambda *_, **__: None)
    monkeypatch.setattr(AntiEntropy, "compare", lambda *_: [])
    sim.withdraw("left", "double")
    assert "holds the catalogue of left" in violated(13, sim.settle)


def test_13_wrong_preferred_link_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(self: PeerLinks, member: Any) -> Any:
        links = [made for made in self.to_member(member) if not made.closing]
        if not links:
            self.preferred.pop(member, None)
            return []
        best = max(links, key=lambda made: made.dialler)
        before, self.preferred[member] = self.preferred.get(member), best.link
        return [] if before == best.link else [LinkSelected(member, best.link)]

    monkeypatch.setattr(PeerLinks, "choose", choose)
    nodes = {"a": Spec(peers=("b",)), "b": Spec(peers=("a",))}  # each dials the other at the same time
    monkeypatch.setattr(TableConsistency, "node_event_handled", Watcher.node_event_handled)  # it would be the first
    sim = Simulation(seed=3, nodes=nodes, watchers=invariants())
    assert "which is to be kept" in violated(13, lambda: sim.run(10))


def test_14_node_that_ignores_its_own_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Index._providers
    others = lambda self, *args: [one for one in providers(self, *args) if one[0].id != self._members.me]  # noqa: E731
    monkeypatch.setattr(Index, "_providers", others)
    sim = Simulation(seed=1, nodes={"one": Spec(functions={"double": double})}, watchers=invariants())
    sim.call("one", "double", 1)
    assert "1001" in violated(14, lambda: sim.run(10))


def test_14_node_that_ignores_the_offers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Index._providers
    own = lambda self, *args: [one for one in providers(self, *args) if one[0].id == self._members.me]  # noqa: E731
    monkeypatch.setattr(Index, "_providers", own)
    sim = cluster()
    sim.run(20)
    sim.call("front", "double", 1, resources={"left"})
    assert "nothing was wrong" in violated(14, lambda: sim.run(10))


def test_14_offer_that_dispatches_no_pending_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingCalls, "matching", lambda *_: [])
    sim = Simulation(seed=1, nodes={"front": Spec(), "left": Spec()}, watchers=invariants())
    sim.run(2)
    sim.call("front", "double", 1, wait=30)
    sim.run(0.5)
    sim.offer("left", "double", double)
    assert "lets 'double' wait for a function that is offered" in violated(14, lambda: sim.run(1))


def test_15_slot_that_is_never_released(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Worker.finished

    def taken(self: Worker, run: Any, *args: Any, **more: Any) -> Any:
        self._busy[self._runs[run].call.function] += 1
        return finished(self, run, *args, **more)

    monkeypatch.setattr(Worker, "finished", taken)
    monkeypatch.setattr(TableConsistency, "sweep", Watcher.sweep)  # it would be the first
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"})
    assert "left#" in violated(15, sim.settle)


def test_15_outstanding_calls_that_are_never_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outstanding, "pop", lambda self, number, call, link: self._by_number[number][call])
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"})
    assert "is left with calls out [\"'double' of request 0 at front at left#" in violated(15, sim.settle)
