"""A node that cannot reach another one calls its functions over nodes that can."""

import pytest

from mpreg_proto.errors import OutcomeUnknown, RequestError
from mpreg_transports import sleep
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants


def double(value: int) -> int:
    return 2 * value


async def slow(value: int) -> int:
    await sleep(3)
    return value


def wrong() -> None:
    raise ValueError("no")


FUNCTIONS = {"double": double, "slow": slow, "again": Fn(slow, idempotent=True), "wrong": wrong}


def apart(*, relays: int = 1, objects: bool = False) -> Simulation:
    """Return a cluster of `front` and `back`, which never reach each other, and of relays that reach both."""
    between = {f"relay-{number}": Spec(peers=("relay-0",) if number else ()) for number in range(relays)}
    ends = {"front": Spec(peers=("relay-0",)), "back": Spec(peers=("relay-0",), functions=FUNCTIONS)}
    sim = Simulation(seed=3, nodes={**between, **ends}, watchers=invariants(), objects=objects)
    sim.partition({"front"}, {"back"})
    sim.run(5)
    front, back = sim.nodes["front"].node, sim.nodes["back"].node
    assert back.me not in front.cluster.links
    assert front.cluster.members.routable(back.me), "others vouch for it"
    return sim


@pytest.mark.parametrize("objects", [False, True])
def test_call_is_relayed_when_no_link_can_be_opened(objects: bool) -> None:
    sim = apart(objects=objects)
    call = sim.call("front", "double", 4)
    assert sim.run(until=call.done, limit=10)
    assert call.value == 8
    assert call.ended is not None and 0.9 < (call.ended - call.sent) / 1e9 < 1.5, "a second is given to a link"
    again = [sim.call("front", "double", value) for value in range(5)]
    assert sim.run(until=lambda: all(one.done() for one in again), limit=0.1), "and then it is known for a while"
    assert [one.value for one in again] == [0, 2, 4, 6, 8]
    failed = sim.call("front", "wrong")
    sim.run(1)
    assert failed.error is not None and failed.error.code == 1003 and "back" in failed.error.details["node"]
    sim.settle()
    call = sim.call("front", "double", 1)
    assert sim.run(until=call.done, limit=1)
    assert sim.nodes["relay-0"].node.relay is not None and len(sim.nodes["relay-0"].node.relay) == 0


def test_cancel_of_a_relayed_call() -> None:
    sim = apart()
    call = sim.call("front", "slow", 1)
    sim.run(2)
    assert sim.nodes["back"].running
    sim.cancel(call)
    sim.run(0.1)
    assert not sim.nodes["back"].running
    sim.settle()


def test_relay_death_is_outcome_unknown_or_retry_if_idempotent() -> None:
    sim = apart(relays=3)
    once, again = sim.call("front", "slow", 1), sim.call("front", "again", 2)
    sim.run(2)
    busy = [name for name in ("relay-0", "relay-1", "relay-2") if len(sim.nodes[name].node.relay)]
    assert busy
    for name in busy:
        sim.crash(name)
    sim.run(8)
    assert isinstance(once.error, OutcomeUnknown)
    assert again.value == 2
    sim.settle()


def test_call_without_a_route_is_1001_and_did_not_run() -> None:
    sim = apart()
    sim.crash("relay-0")
    call = sim.call("front", "double", 1)
    sim.run(1.5)
    assert isinstance(call.error, RequestError)
    assert (call.error.code, call.error.details["maybe_executed"]) == (1001, False)


def test_relayed_call_is_lost_when_its_worker_is_dead() -> None:
    sim = apart()
    sim.partition({"relay-0"}, {"back"})
    call = sim.call("front", "double", 1)
    sim.run(8)
    assert isinstance(call.error, OutcomeUnknown)
    sim.settle()
