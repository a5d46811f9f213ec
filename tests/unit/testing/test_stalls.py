"""A stalled host receives everything that came in the meantime, in order of arrival, also with overlapping stalls."""

import pytest

from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CancelRequest, Message, Request
from mpreg_transports.testing import Simulation, Watcher
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.workload import standard_nodes


class Order(Watcher):
    """The numbers of requests and cancels that nodes received, in order, with the time."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, int]] = []
        self.times: list[float] = []

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(host, NodeHost) and isinstance(message, Request | CancelRequest):
            self.arrived.append((type(message).__name__, message.id))
            self.times.append(host.sim.time)


def stalled(*, objects: bool) -> tuple[Simulation, Order]:
    """Return a node that is stalled from 1 s to 9 s, by two stalls; the second begins within the first."""
    order = Order()
    sim = Simulation(seed=1, nodes=standard_nodes(1), objects=objects, watchers=[order])
    sim.run(0.5)
    sim.call("n0", "same", 0)
    sim.run(0.5)
    sim.stall("n0", 7)
    first = sim.call("n0", "dawdle", 1)
    sim.run(1)
    sim.cancel(first)
    sim.run(5)
    sim.stall("n0", 2)
    sim.call("n0", "same", 2)
    sim.run(0.5)
    return sim, order


@pytest.mark.parametrize("objects", [False, True])
def test_messages_delayed_twice_keep_their_order(objects: bool) -> None:
    sim, order = stalled(objects=objects)
    sim.call("n0", "same", 3)
    sim.run(10)
    assert order.arrived == [("Request", 1), ("Request", 2), ("CancelRequest", 2), ("Request", 3), ("Request", 4)]
    assert order.times[1:] == [9.0] * 4
    assert all(call.done() for call in sim.calls)


@pytest.mark.parametrize("objects", [False, True])
def test_messages_after_calm_follow_delayed_ones(objects: bool) -> None:
    sim, order = stalled(objects=objects)
    sim.calm()
    sim.call("n0", "same", 3)
    sim.run(1)
    assert [number for _, number in order.arrived] == [1, 2, 2, 3, 4]
    assert order.times[1:4] == [7.5] * 3


def test_restart_drops_delayed_messages() -> None:
    sim, order = stalled(objects=True)
    sim.restart("n0")
    sim.run(1)
    sim.call("n0", "same", 3)
    sim.run(5)
    assert [number for _, number in order.arrived] == [1, 3, 4], "the third comes again: `same` is idempotent"
    assert sim.calls[-1].value == [3]
