"""The cost of one input of the request core beside many other calls, as a count of interpreter operations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

from mpreg_proto.cluster.catalogue import Catalogue, FunctionSpec
from mpreg_proto.cluster.similar import most_alike
from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import Framing
from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_proto.node import Node
from mpreg_proto.requests.backlog import Credits
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.relay import Relay
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.requests.scheduler import PendingCalls
from mpreg_proto.requests.worker import Job
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire import dialects
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Call, CancelRequest, Request
from mpreg_proto.wire.values import ValueCodec
from tests.benchmarks.growth import Growth

ARGS = ValueCodec().encode([[], {}])
FEW, MANY = 50, 1_000


def operations(action: Callable[[], object]) -> int:
    """Count the bytecodes that `action` runs and the comparisons of calls (a scan in C makes them)."""
    done = 0

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal done
        frame.f_trace_opcodes = True
        done += event == "opcode"
        return step

    def compared(one: Job, other: object) -> bool:
        nonlocal done
        done += 1
        return one is other

    before, Job.__eq__ = sys.gettrace(), compared  # type: ignore[method-assign, assignment]
    Job.__hash__ = object.__hash__  # type: ignore[method-assign]
    try:
        sys.settrace(step)
        action()
    finally:
        sys.settrace(before)
        del Job.__eq__, Job.__hash__
    return done


class One:
    """A node with clients whose messages the measures make."""

    def __init__(self, *functions: str) -> None:
        me = MemberId(b"\x01" * 16)
        self.node = Node(NodeConfig(name="n"), me=me, rng=Rng(1), entropy=bytes, now=0)
        self._links = count(1)
        for function in functions:
            self.node.offer(FunctionSpec(name=function), now=0)
        self.node.drain()

    def client(self) -> LinkId:
        """Open a link on which requests may arrive."""
        return self.peer(b"")

    def peer(self, member: bytes) -> LinkId:
        """Open a link to a node, or to a client if `member` is empty."""
        link = LinkId(next(self._links))
        self.node.link_opened(link, framing=Framing.OBJECTS, dialled=None, now=0)
        self.node.handle(link, hello(cluster="default-cluster", member=member, name="c"), now=0)
        self.node.drain()
        return link

    def ask(self, link: LinkId, number: int, *functions: str, **fields: Any) -> None:
        """Send a request with a call of each function."""
        calls = tuple([Call(str(place), function, ARGS) for place, function in enumerate(functions)])
        self.node.handle(link, Request(number, calls, timeout=3600 * SECOND, **fields), now=0)
        self.node.drain()


def cancelling(others: int) -> int:
    """A request of queued calls is cancelled, behind so many queued calls of others."""
    one = One("slow")
    link = one.client()
    one.ask(link, 1, *["slow"] * (others + 1))
    one.ask(link, 2, *["slow"] * FEW)
    return operations(lambda: one.node.handle(link, CancelRequest(2), now=1))


def offering(others: int) -> int:
    """One function is offered, while so many calls are pending for other functions."""
    one = One()
    one.ask(one.client(), 1, *[f"later-{number}" for number in range(others)], wait=3600 * SECOND)
    return operations(lambda: one.node.offer(FunctionSpec(name="unrelated"), now=1))


def ending_of_a_client(others: int) -> int:
    """A client's link ends, while the node has so many calls of other clients."""
    one = One("slow")
    link = one.client()
    one.ask(link, 1, "slow")
    for _ in range(others):
        one.ask(one.client(), 1, "slow")
    return operations(lambda: one.node.link_closed(link, now=1))


def ending_of_a_coordinator(others: int) -> int:
    """The link of a node ends, while the worker has so many dispatches that came over another link."""
    one = One("slow")
    link, other = one.peer(b"\x02" * 16), one.peer(b"\x03" * 16)
    one.ask(link, 1, "slow", here=("0",))
    for number in range(others):
        one.ask(other, number + 2, "slow", here=("0",))
    return operations(lambda: one.node.link_closed(link, now=1))


def ending_at_a_relay(others: int) -> int:
    """A link ends, while so many dispatches are relayed over other links."""
    relay = Relay(MemberId(b"m"), number=count(1).__next__, limits=DEFAULT)
    for number in range(others + 1):
        link = LinkId(1 if number == others else 2)
        relay.request(link, Request(number, (), here=()), sender=MemberId(b"s"), next_hop=LinkId(3), now=0)
    return operations(lambda: (relay.busy_on(LinkId(1)), relay.link_lost(LinkId(1))))


def retrying(lost: int) -> float:
    """Pauses of so many lost calls of one request end at one moment, and the calls wait again: operations per call."""
    calls = tuple([Call(str(place), "f", ARGS) for place in range(lost)])
    request = Request(1, calls)
    planned = plan(request, DEFAULT)
    assert isinstance(planned, Plan)
    execution = Execution(RequestId(1), request, planned, link=LinkId(1), arrived=0, deadline=SECOND)
    pending = PendingCalls(Timers(), Credits())
    for call in calls:
        pending.retry_at(execution, call.name, 10)

    def wake() -> None:
        for call in calls:
            for name in pending.retries_due(execution, call.name, 10):
                pending.wait_for_offer(execution, name, SECOND)

    return operations(wake) / lost


def helping(others: int) -> int:
    """Names similar to an unknown name are found, among so many."""
    catalogue = Catalogue(MemberId(b"m"), limits=DEFAULT)
    for number in range(others):
        catalogue.offer(FunctionSpec(name=f"warehouse.orders.calculate_shipping_cost_{number}"))
    unknown = "warehouse.orders.calculate_shipping_costs_77x"
    return operations(lambda: most_alike(unknown, catalogue.names.near(unknown, catalogue.offering), 3))


def failing(calls: int) -> float:
    """One call of a partial request fails, of so many that fail."""
    one = One()
    link = one.client()
    functions = ["unknown"] * calls
    return operations(lambda: one.ask(link, 1, *functions, partial=True)) / calls


def accepting(calls: int) -> float:
    """One call of a dispatch is accepted, of so many that are marked idempotent."""
    one = One("slow")
    link = one.peer(b"\x02" * 16)
    names = tuple([str(place) for place in range(calls)])
    return operations(lambda: one.ask(link, 1, *["slow"] * calls, here=names, idempotent=names)) / calls


def too_many_edges(edges: int) -> int:
    """A request with too many references is refused."""
    needs = ("a",) * (DEFAULT.edges + edges)
    body = dialects.encode(Request(1, (Call("a", "f", ARGS), Call("b", "f", ARGS, needs))))
    return operations(lambda: dialects.decode(body))


MEASURES: tuple[tuple[Callable[[int], float], float], ...] = (
    (cancelling, 1.2),
    (offering, 1.1),
    (ending_of_a_client, 1.1),
    (ending_of_a_coordinator, 1.1),
    (ending_at_a_relay, 1.1),
    (retrying, 1.2),
    (helping, 2.0),
    (failing, 1.2),
    (accepting, 1.2),
    (too_many_edges, 1.1),
)
"""The measures, and the largest allowed ratio of the cost with `MANY` to that with `FEW`."""


def rows() -> list[Growth]:
    """Return each measure at both sizes."""
    return [
        Growth(measure.__name__, measure.__doc__ or "", measure(FEW), measure(MANY), most) for measure, most in MEASURES
    ]
