"""The fifteen invariants keep silent about a sound core, whatever is done to the cluster; liveness (13 to 15) can fail.

With one method of the core broken on purpose, that very invariant is the one that speaks; 1 to 12 are beside.
"""

import re
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
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from tests.helpers.simulated import cluster, double, violated


@pytest.mark.parametrize("objects", [False, True])
def test_a_sound_core_keeps_them_all(objects: bool) -> None:
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


def test_they_are_fifteen_and_each_has_its_words() -> None:
    assert len(invariants()) >= len(INVARIANTS) == 15
    assert list(INVARIANTS) == list(range(1, 16))


def test_what_is_pending_is_told() -> None:
    assert all(row.invariant in INVARIANTS for row in KNOWN_GAPS)
    assert len(table()) == len(KNOWN_GAPS)


# -- settled ----------------------------------------------------------------------------------------------------------


def test_13_a_crash_that_nobody_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "_declare", lambda *_: Findings())
    sim = cluster()
    sim.crash("left")
    assert "which is no more, as ALIVE" in violated(13, sim.settle)


def test_13_news_that_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disseminator, "catalogue_changed", lambda *_, **__: None)
    monkeypatch.setattr(AntiEntropy, "compare", lambda *_: [])
    sim = cluster()
    sim.withdraw("left", "double")
    assert "holds the catalogue of left" in violated(13, sim.settle)


def test_13_the_wrong_one_of_two_links(monkeypatch: pytest.MonkeyPatch) -> None:
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
    sim = Simulation(seed=3, nodes=nodes, watchers=invariants())
    assert "which is to be kept" in violated(13, lambda: sim.run(10))


def test_14_a_node_that_does_not_see_what_it_offers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Index._providers
    others = lambda self, *args: [one for one in providers(self, *args) if one[0].id != self._members.me]  # noqa: E731
    monkeypatch.setattr(Index, "_providers", others)
    sim = Simulation(seed=1, nodes={"one": Spec(functions={"double": double})}, watchers=invariants())
    sim.call("one", "double", 1)
    assert "1001" in violated(14, lambda: sim.run(10))


def test_14_a_node_that_does_not_see_what_others_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Index._providers
    own = lambda self, *args: [one for one in providers(self, *args) if one[0].id == self._members.me]  # noqa: E731
    monkeypatch.setattr(Index, "_providers", own)
    sim = cluster()
    sim.run(20)
    sim.call("front", "double", 1, resources={"left"})
    assert "nothing was wrong" in violated(14, lambda: sim.run(10))


def test_14_an_offer_that_lets_no_call_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingCalls, "matching", lambda *_: [])
    sim = Simulation(seed=1, nodes={"front": Spec(), "left": Spec()}, watchers=invariants())
    sim.run(2)
    sim.call("front", "double", 1, wait=30)
    sim.run(0.5)
    sim.offer("left", "double", double)
    assert "lets 'double' wait for a function that is offered" in violated(14, lambda: sim.run(1))


def test_15_a_slot_that_is_never_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Worker.finished

    def taken(self: Worker, run: Any, *args: Any, **more: Any) -> Any:
        self._busy[self._runs[run].call.function] += 1
        return finished(self, run, *args, **more)

    monkeypatch.setattr(Worker, "finished", taken)
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"})
    assert "left#" in violated(15, sim.settle)


def test_15_calls_that_are_never_taken_off_the_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outstanding, "pop", lambda self, number, call, link: self._by_number[number][call])
    sim = cluster()
    sim.call("front", "double", 1, resources={"left"})
    assert re.search(r"is left with calls out \[\(\d+, \['double'\]\)\]", violated(15, sim.settle))
