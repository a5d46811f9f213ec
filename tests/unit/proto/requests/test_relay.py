"""The relay: dispatches passed on for other nodes, and the results, refusals and link ends passed back."""

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS, Limits
from mpreg_proto.requests.relay import Forward, Relay
from mpreg_proto.wire.messages import (
    Call,
    CallProgress,
    CancelRequest,
    Done,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Request,
    Result,
)

ME, SHE, FAR = (MemberId(letter * 16) for letter in (b"m", b"s", b"f"))
HER, ON, OTHER = LinkId(1), LinkId(2), LinkId(3)


def relayed_request(number: int = 7, hops: int = 0, via: tuple[bytes, ...] = ()) -> Request:
    return Request(number, (Call("x", "f", b"\x92\x90\x80"),), timeout=5, here=("x",), hops=hops, to=FAR, via=via)


class World:
    """A relay with request numbers from 100 on."""

    def __init__(self, **limits: int) -> None:
        self.number = 99
        self.relay = Relay(ME, number=self.next, limits=Limits(**limits))

    def next(self) -> int:
        self.number += 1
        return self.number

    def pass_on(self, request: Request, next_hop: LinkId | None = ON, link: LinkId = HER) -> Request | Result:
        (forward,) = self.relay.request(link, request, sender=SHE, next_hop=next_hop)
        assert isinstance(forward.message, (Request, Result))
        assert forward.link == (next_hop if isinstance(forward.message, Request) else link)
        return forward.message


def test_relayed_dispatch_and_its_results() -> None:
    world = World()
    sent = world.pass_on(relayed_request())
    assert sent == Request(100, relayed_request().calls, timeout=5, here=("x",), hops=1, to=FAR, via=(SHE, ME))
    assert world.relay.has(HER, 7) and world.relay.origin(ON, 100) == (HER, 7) and len(world.relay) == 1
    part = Result(100, (Done("x", b"\x01"),), last=False)
    assert world.relay.result(ON, part) == [Forward(HER, Result(7, part.done, last=False))]
    assert world.relay.busy_on(HER) and world.relay.busy_on(ON) and not world.relay.busy_on(OTHER)
    assert world.relay.result(ON, Result(100)) == [Forward(HER, Result(7))]
    assert world.relay.result(ON, Result(100)) is None, "it is over"
    assert len(world.relay) == 0 and not world.relay.busy_on(HER) and not world.relay.busy_on(ON)


def test_progress_items_and_credit_are_relayed() -> None:
    world = World()
    world.pass_on(relayed_request())
    progress = CallProgress(100, "x", "f", "far", 1, 2)
    assert world.relay.update(ON, progress) == [Forward(HER, CallProgress(7, "x", "f", "far", 1, 2))]
    assert world.relay.update(OTHER, progress) is None
    assert world.relay.update(ON, Items(100, "x", (b"\x01",))) == [Forward(HER, Items(7, "x", (b"\x01",)))]
    assert world.relay.onward(HER, ItemsTaken(7, "x", 3)) == [Forward(ON, ItemsTaken(100, "x", 3))]
    assert world.relay.onward(HER, ItemsTaken(100, "x", 3)) == []
    items = InputItems(7, "x", (b"\x01",), last=True)
    assert world.relay.onward(HER, items) == [Forward(ON, InputItems(100, "x", (b"\x01",), last=True))]
    assert world.relay.onward(OTHER, items) == []
    assert world.relay.update(ON, InputTaken(100, "x", 2)) == [Forward(HER, InputTaken(7, "x", 2))]
    world.relay.link_lost(HER)
    assert world.relay.update(ON, progress) == [], "its sender is gone"


def test_result_over_another_link_is_not_relayed() -> None:
    world = World()
    world.pass_on(relayed_request())
    assert world.relay.result(OTHER, Result(100)) is None
    assert world.relay.result(ON, Result(7)) is None


def test_refusal_without_route_past_max_hops_or_in_a_loop() -> None:
    world = World(requests=2)
    for refused in (
        world.pass_on(relayed_request(1), next_hop=None),
        world.pass_on(relayed_request(2, hops=MAX_HOPS)),
        world.pass_on(relayed_request(3, hops=1, via=(ME,))),
    ):
        assert isinstance(refused, Result) and refused.fault is not None
        assert (refused.fault.code, refused.fault.details) == (1001, {"maybe_executed": False, "relayed": True})
    assert len(world.relay) == 0
    for number in (4, 5):
        assert isinstance(world.pass_on(relayed_request(number, hops=MAX_HOPS - 1)), Request)
    assert isinstance(world.pass_on(relayed_request(6)), Result), "no more than that are taken on"


def test_relayed_cancellation() -> None:
    world = World()
    world.pass_on(relayed_request())
    assert world.relay.cancel(HER, 7) == [Forward(ON, CancelRequest(100))]
    assert world.relay.cancel(HER, 8) == []
    cancelled = Result(100, fault=Fault(1021, "cancelled"))
    assert world.relay.result(ON, cancelled) == [Forward(HER, Result(7, fault=cancelled.fault))]


def test_lost_link_of_the_sender_cancels_the_dispatch() -> None:
    world = World()
    world.pass_on(relayed_request())
    assert world.relay.link_lost(HER) == [Forward(ON, CancelRequest(100))]
    assert not world.relay.has(HER, 7)
    assert world.relay.busy_on(ON)
    assert world.relay.result(ON, Result(100, (Done("x", b"\x01"),))) == []
    assert not world.relay.busy_on(ON)


def test_lost_link_of_the_next_hop_ends_in_1023() -> None:
    world = World()
    world.pass_on(relayed_request())
    ((link, message),) = [(forward.link, forward.message) for forward in world.relay.link_lost(ON)]
    assert link == HER and isinstance(message, Result) and message.id == 7
    assert message.fault is not None and message.fault.code == 1023 and message.fault.details["maybe_executed"] is True
    assert len(world.relay) == 0 and world.relay.link_lost(HER) == []


def test_lost_link_ends_its_own_dispatches_only() -> None:
    world = World()
    world.pass_on(relayed_request(7))
    world.pass_on(relayed_request(8), link=OTHER)
    assert world.relay.link_lost(OTHER) == [Forward(ON, CancelRequest(101))]
    assert world.relay.has(HER, 7) and not world.relay.has(OTHER, 8) and not world.relay.busy_on(OTHER)
    assert world.relay.result(ON, Result(101)) == [] and world.relay.busy_on(ON)
    assert world.relay.result(ON, Result(100)) == [Forward(HER, Result(7))]
    assert not world.relay.busy_on(ON) and not world.relay.busy_on(HER) and not world.relay._expires


def test_full_relay_refuses_until_expired_rows_are_dropped() -> None:
    """A cancelled dispatch counts until its result arrives; the refusal is marked as one of the relay."""
    world = World(requests=2, drain_grace=0)
    world.pass_on(relayed_request(7))
    world.pass_on(relayed_request(8), link=OTHER)
    world.relay.link_lost(OTHER)
    refused = world.pass_on(relayed_request(9))
    assert isinstance(refused, Result) and refused.fault is not None
    assert (refused.fault.code, refused.fault.details["relayed"]) == (1022, True)
    assert refused.fault.details["maybe_executed"] is False
    # The timeouts of both are over at 5 ns.
    (forward,) = world.relay.request(HER, relayed_request(10), sender=SHE, next_hop=ON, now=5)
    assert isinstance(forward.message, Request) and len(world.relay) == 1 and not world.relay.has(HER, 7)
