"""Every order of events of two and three nodes, within small bounds; and the faults that the explorer must find.

`python -m mpreg_transports.testing.explore.explorer` goes as deep as the time allows.
"""

import msgspec
import pytest

from mpreg_proto.cluster import index
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.notices import Standing
from mpreg_transports.testing.explore import explorer as explore
from mpreg_transports.testing.explore.world import Bounds, ClusterState
from mpreg_transports.testing.simulation.watchers import Violation


@pytest.mark.parametrize(("nodes", "depth"), [(2, 8), (3, 4)])
def test_all_orders_keep_the_invariants(nodes: int, depth: int) -> None:
    explored = explore.explore(Bounds(nodes=nodes), depth=depth)
    assert explored.states > 300
    assert {"crash", "deliver", "dial", "reset", "submit", "tick"} <= set(explored.steps)
    assert not explored.exhausted


def test_all_orders_without_faults_end_in_one_view_and_answers() -> None:
    """Two nodes join while two requests come: in any order, all members and all answers are there at the end."""
    bounds = Bounds(nodes=2, resets=0, crashes=0, ticks=0)
    explored = explore.explore(bounds, depth=60)
    assert explored.exhausted
    assert explored.ends
    for path in explored.ends:
        world = explore.reached(bounds, path)
        assert len(world.answered) == 2
        nodes = [host.node for host in world.hosts]
        for node in nodes:
            known = node.cluster.members
            assert sorted((one.id, one.key) for one in known.all()) == [(one.me, (0, Standing.ALIVE)) for one in nodes]
            for other in nodes:
                held, own = (one.cluster.catalogue.content(other.me) for one in (node, other))
                assert held is not None and own is not None and held.head == own.head
            assert not node.coordinator.requests and not node.worker.running and not node.worker.queued


def test_cluster_state_is_deterministic() -> None:
    bounds = Bounds(nodes=2)
    one, other = ClusterState(bounds), ClusterState(bounds)
    for number in range(12):
        choices = one.enabled()
        assert choices == other.enabled()
        if choices:
            one.do(choices[number % len(choices)])
            other.do(choices[number % len(choices)])
        assert one.state() == other.state()


def test_explorer_finds_a_cell_that_decreases(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Members._raise

    def wrong(self: Members, held: Member, incarnation: int, standing: Standing, now: int) -> bool:
        rose = real(self, held, incarnation, standing, now)
        if rose and standing is Standing.SUSPECT:
            held.incarnation -= 1
        return rose

    monkeypatch.setattr(Members, "_raise", wrong)
    with pytest.raises(Violation) as found:
        explore.explore(Bounds(nodes=2, crashes=0, requests=0), depth=12)
    assert found.value.invariant == 1
    assert "1. " in found.value.text, "the steps that lead there"


def test_explorer_finds_a_false_idempotence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = index.Provider

    def all_idempotent(*args: object) -> index.Provider:
        return msgspec.structs.replace(real(*args), idempotent=True)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "Provider", all_idempotent)
    with pytest.raises(Violation) as found:
        explore.explore(Bounds(nodes=2, crashes=0, ticks=0, requests=1), depth=16)
    assert found.value.invariant == 10


def test_explorer_prints_a_row_per_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert explore.main(["--nodes", "2", "--depth", "3", "--crashes", "0"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + 4 + 1
    assert "every one within all invariants" in out
