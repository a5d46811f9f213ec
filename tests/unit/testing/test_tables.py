"""A sweep skips a table that is unchanged since a sweep found it correct, and skips nothing else."""

from typing import Any

import pytest

from mpreg_proto.cluster.members import Member
from mpreg_proto.notices import MemberChanged
from mpreg_proto.wire.messages import Goodbye, Gossip, Request
from mpreg_transports.testing.invariants.membership import MonotonicCells
from mpreg_transports.testing.simulation.hosts import Host, NodeHost, Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Subscriptions, Watcher
from tests.helpers.simulated import FUNCTIONS, cluster, violated


def quiet(watcher: Watcher) -> Simulation:
    """Return two nodes that know each other, after two sweeps that found their tables correct."""
    sim = Simulation(seed=5, nodes={"one": Spec(functions=FUNCTIONS), "other": Spec()}, watchers=[watcher])
    sim.run(2)
    sim.sweep()
    return sim


def held(sim: Simulation, of: str, by: str) -> Member:
    """Return a row of a node's table."""
    found = sim.nodes[by].node.cluster.members.get(sim.nodes[of].node.me)
    assert found is not None
    return found


def test_unchanged_tables_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = cluster()
    sim.sweep()
    looked: list[str] = []
    for watcher in sim._engine.observers.watchers:
        for name in ("look", "_look", "_members"):
            if hasattr(watcher, name):
                monkeypatch.setattr(watcher, name, lambda *_: looked.append("looked"))
    sim.sweep()
    assert not looked
    held(sim, "left", by="right").incarnation = 1
    sim.sweep()
    assert looked


def test_unreported_change_of_a_cell_is_found() -> None:
    sim = cluster()
    sim.sweep()
    held(sim, "left", by="right").incarnation = 1
    assert "never went beyond 0" in violated(2, sim.sweep)


def test_unreported_change_of_a_card_is_found() -> None:
    sim = cluster()
    sim.sweep()
    held(sim, "left", by="right").card_bytes += b"?"
    assert "never wrote" in violated(3, sim.sweep)


def test_cell_that_rises_and_falls_between_sweeps_is_found() -> None:
    watcher = MonotonicCells()
    sim = quiet(watcher)
    right, row = sim.nodes["one"], held(sim, "other", by="one")
    row.incarnation = 1
    watcher.noticed(right, MemberChanged(row.id, row.name, row.standing, row.incarnation))
    watcher.node_event_handled(right)
    row.incarnation = 0  # without an event: the table is that of the last sweep
    assert "went from ALIVE 1 to ALIVE 0" in violated(1, sim.sweep)


def spoil_hash(content: Any, catalogue: Any) -> None:
    content.hash += 1


def spoil_log(content: Any, catalogue: Any) -> None:
    content.changes = content.changes[:1] + content.changes[2:]


def spoil_list(content: Any, catalogue: Any) -> None:
    catalogue.offering["ghost"] = {content.member: None}


@pytest.mark.parametrize(
    ("spoil", "number", "words"),
    [(spoil_hash, 4, "with hash"), (spoil_log, 4, "do not lead to"), (spoil_list, 12, "lists")],
)
def test_unreported_change_of_a_catalogue_is_found(spoil: Any, number: int, words: str) -> None:
    sim = cluster()
    sim.sweep()
    catalogue = sim.nodes["right"].node.cluster.catalogue
    spoil(catalogue.content(sim.nodes["left"].node.me), catalogue)
    assert words in violated(number, sim.sweep)


class Listener(Watcher):
    """Records which hook was called, by type of message or host."""

    message_types = (Request, Goodbye)

    def __init__(self) -> None:
        self.kinds: dict[type, None] = {}
        self.hosts: dict[str, None] = {}
        self.nodes: dict[str, None] = {}

    def message_received(self, host: Host, link: Any, message: Any) -> None:
        self.kinds[type(message)] = None

    def event_handled(self, host: Host) -> None:
        self.hosts[host.name] = None

    def node_event_handled(self, host: NodeHost) -> None:
        self.nodes[host.name] = None


def test_watcher_receives_its_message_types_and_node_events() -> None:
    listener = Listener()
    sim = quiet(listener)
    call = sim.call("other", "double", 2)
    assert sim.run(until=call.done, limit=10)
    sim.leave("one")
    sim.run(2)
    assert list(listener.kinds) == [Request, Goodbye]
    assert sorted(listener.hosts) == ["client@other", "one", "other"]
    assert sorted(listener.nodes) == ["one", "other"]


class All(Watcher):
    """Names no types."""

    def message_received(self, host: Host, link: Any, message: Any) -> None:
        raise AssertionError("no message is sent")


def test_watcher_without_message_types_receives_all() -> None:
    everything, some = All(), Listener()
    subscriptions = Subscriptions([everything, some, Watcher()])
    assert subscriptions.hooks_for(Gossip) == [everything.message_received]
    assert subscriptions.hooks_for(Goodbye) == [everything.message_received, some.message_received]
    assert subscriptions and not Subscriptions([Watcher()])
