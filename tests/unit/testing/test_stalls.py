"""A host that stands still gets all that has come meanwhile, in the order in which it came, however stalls overlap."""

import pytest

from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CancelRequest, Message, Request
from mpreg_transports.testing import Simulation, Watcher
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.workload import standard_nodes


class Order(Watcher):
    """The numbers of requests and cancels that nodes have heard of, in order, with the time."""

    def __init__(self) -> None:
        self.heard_of: list[tuple[str, int]] = []
        self.times: list[float] = []

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(host, NodeHost) and isinstance(message, Request | CancelRequest):
            self.heard_of.append((type(message).__name__, message.id))
            self.times.append(host.sim.time)


def stalled(*, objects: bool) -> tuple[Simulation, Order]:
    """A node that is stalled from 1 s to 9 s, in two stalls of which the second begins within the first."""
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
def test_what_waited_twice_goes_before_what_came_in_between(objects: bool) -> None:
    sim, order = stalled(objects=objects)
    sim.call("n0", "same", 3)
    sim.run(10)
    assert order.heard_of == [("Request", 1), ("Request", 2), ("CancelRequest", 2), ("Request", 3), ("Request", 4)]
    assert order.times[1:] == [9.0] * 4
    assert all(call.done() for call in sim.calls)


@pytest.mark.parametrize("objects", [False, True])
def test_what_comes_when_stalls_are_called_off_goes_behind_what_waits(objects: bool) -> None:
    sim, order = stalled(objects=objects)
    sim.calm()
    sim.call("n0", "same", 3)
    sim.run(1)
    assert [number for _, number in order.heard_of] == [1, 2, 2, 3, 4]
    assert order.times[1:4] == [7.5] * 3


def test_a_crash_ends_the_waiting() -> None:
    sim, order = stalled(objects=True)
    sim.restart("n0")
    sim.run(1)
    sim.call("n0", "same", 3)
    sim.run(5)
    assert [number for _, number in order.heard_of] == [1, 4]
    assert sim.calls[-1].value == [3]
