"""What is passed on for others, and how answers, refusals and ends find the way back."""

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS, Limits
from mpreg_proto.requests.relay import Forward, Relay
from mpreg_proto.wire.messages import Call, CancelRequest, Done, Request, Result

ME, SHE, FAR = (MemberId(letter * 16) for letter in (b"m", b"s", b"f"))
HER, ON, OTHER = LinkId(1), LinkId(2), LinkId(3)


def asked(number: int = 7, hops: int = 0, via: tuple[bytes, ...] = ()) -> Request:
    return Request(number, (Call("x", "f", b"\x92\x90\x80"),), timeout=5, here=("x",), hops=hops, to=FAR, via=via)


class World:
    """A relay whose numbers count from 100."""

    def __init__(self, **limits: int) -> None:
        self.number = 99
        self.relay = Relay(ME, number=self.next, limits=Limits(**limits))

    def next(self) -> int:
        self.number += 1
        return self.number

    def pass_on(self, request: Request, way: LinkId | None = ON, link: LinkId = HER) -> Request | Result:
        (forward,) = self.relay.request(link, request, sender=SHE, next_hop=way)
        assert not isinstance(forward.message, CancelRequest)
        assert forward.link == (way if isinstance(forward.message, Request) else link)
        return forward.message


def test_a_dispatch_goes_on_under_a_number_of_this_node_and_its_answers_come_back_under_theirs() -> None:
    world = World()
    sent = world.pass_on(asked())
    assert sent == Request(100, asked().calls, timeout=5, here=("x",), hops=1, to=FAR, via=(SHE, ME))
    assert world.relay.has(HER, 7) and world.relay.origin(ON, 100) == (HER, 7) and len(world.relay) == 1
    part = Result(100, (Done("x", b"\x01"),), last=False)
    assert world.relay.result(ON, part) == [Forward(HER, Result(7, part.done, last=False))]
    assert world.relay.busy_on(HER) and world.relay.busy_on(ON) and not world.relay.busy_on(OTHER)
    assert world.relay.result(ON, Result(100)) == [Forward(HER, Result(7))]
    assert world.relay.result(ON, Result(100)) is None, "it is over"
    assert len(world.relay) == 0 and not world.relay.busy_on(HER) and not world.relay.busy_on(ON)


def test_an_answer_over_another_link_is_none_of_it() -> None:
    world = World()
    world.pass_on(asked())
    assert world.relay.result(OTHER, Result(100)) is None
    assert world.relay.result(ON, Result(7)) is None


def test_without_a_way_and_after_four_hops_and_in_a_circle_it_is_refused() -> None:
    world = World(requests=2)
    for refused in (
        world.pass_on(asked(1), way=None),
        world.pass_on(asked(2, hops=MAX_HOPS)),
        world.pass_on(asked(3, hops=1, via=(ME,))),
    ):
        assert isinstance(refused, Result) and refused.fault is not None
        assert (refused.fault.code, refused.fault.details) == (1001, {"maybe_executed": False, "relayed": True})
    assert len(world.relay) == 0
    for number in (4, 5):
        assert isinstance(world.pass_on(asked(number, hops=MAX_HOPS - 1)), Request)
    assert isinstance(world.pass_on(asked(6)), Result), "no more than that are taken on"


def test_a_cancellation_follows_and_the_answer_still_comes() -> None:
    world = World()
    world.pass_on(asked())
    assert world.relay.cancel(HER, 7) == [Forward(ON, CancelRequest(100))]
    assert world.relay.cancel(HER, 8) == []
    cancelled = Result(100, fault=Fault(1021, "cancelled"))
    assert world.relay.result(ON, cancelled) == [Forward(HER, Result(7, fault=cancelled.fault))]


def test_who_asked_is_gone_so_it_is_called_off_and_its_answer_goes_nowhere() -> None:
    world = World()
    world.pass_on(asked())
    assert world.relay.link_lost(HER) == [Forward(ON, CancelRequest(100))]
    assert not world.relay.has(HER, 7)
    assert world.relay.busy_on(ON)
    assert world.relay.result(ON, Result(100, (Done("x", b"\x01"),))) == []
    assert not world.relay.busy_on(ON)


def test_the_next_link_is_lost_so_nobody_knows_whether_it_ran() -> None:
    world = World()
    world.pass_on(asked())
    ((link, message),) = [(forward.link, forward.message) for forward in world.relay.link_lost(ON)]
    assert link == HER and isinstance(message, Result) and message.id == 7
    assert message.fault is not None and message.fault.code == 1023 and message.fault.details["maybe_executed"] is True
    assert len(world.relay) == 0 and world.relay.link_lost(HER) == []


def test_the_end_of_a_link_concerns_its_own_rows_alone() -> None:
    world = World()
    world.pass_on(asked(7))
    world.pass_on(asked(8), link=OTHER)
    assert world.relay.link_lost(OTHER) == [Forward(ON, CancelRequest(101))]
    assert world.relay.has(HER, 7) and not world.relay.has(OTHER, 8) and not world.relay.busy_on(OTHER)
    assert world.relay.result(ON, Result(101)) == [] and world.relay.busy_on(ON)
    assert world.relay.result(ON, Result(100)) == [Forward(HER, Result(7))]
    assert not world.relay.busy_on(ON) and not world.relay.busy_on(HER) and not world.relay._expires


def test_a_full_table_refuses_until_what_nobody_can_want_is_forgotten() -> None:
    """What was called off counts while its answer is to come; the refusal speaks of the relay, not of the member."""
    world = World(requests=2, drain_grace=0)
    world.pass_on(asked(7))
    world.pass_on(asked(8), link=OTHER)
    world.relay.link_lost(OTHER)
    refused = world.pass_on(asked(9))
    assert isinstance(refused, Result) and refused.fault is not None
    assert (refused.fault.code, refused.fault.details["relayed"]) == (1022, True)
    assert refused.fault.details["maybe_executed"] is False
    (forward,) = world.relay.request(HER, asked(10), sender=SHE, next_hop=ON, now=5)  # after the timeout of both
    assert isinstance(forward.message, Request) and len(world.relay) == 1 and not world.relay.has(HER, 7)
