"""Defects of the past, one function each: the defect, and the right behaviour. They run with all invariants on."""

from __future__ import annotations

import msgspec

from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import Ref, ValueCodec
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.runs.replay import standard_watchers

_SECOND = 1_000_000_000


def _simulation(nodes: dict[str, Spec], *, seed: int = 1) -> Simulation:
    sim = Simulation(seed=seed, nodes=nodes, watchers=standard_watchers())
    sim.run(2)
    return sim


def _call(name: str, function: str, *args: object, dependencies: tuple[str, ...] = ()) -> Call:
    return Call(name, function, ValueCodec().encode([list(args), {}]), dependencies)


def _standing(sim: Simulation, of: str, *, at: str) -> str:
    """Return the standing of a member in the view of another."""
    host = sim.nodes[at]
    return next(row.standing for row in host.node.view(now=host.local).members if row.name == of)


def _same(value: object = None, *more: object) -> object:
    return value


def no_dispatch_for_a_request_that_ends() -> None:
    """Two calls became ready together and one had no node left; the other was dispatched all the same, and ran."""
    ran: list[object] = []
    second = Fn(ran.append, duration=0.01)
    nodes = {
        "front": Spec(functions={"first": Fn(_same, duration=1.0)}),
        "back": Spec(functions={"second": second, "third": Fn(_same)}),
    }
    sim = _simulation(nodes)
    calls = (
        _call("a", "first", 1),
        _call("b", "second", Ref("a"), dependencies=("a",)),
        _call("c", "third", Ref("a"), dependencies=("a",)),
    )
    sent = sim.submit("front", Request(0, calls))
    sim.run(0.5)
    sim.withdraw("back", "third")
    assert sim.run(until=sent.done, limit=10)
    assert sent.error is not None and sent.error.code == 1001
    sim.run(5)
    assert ran == []
    sim.settle()


def results_of_a_partial_request_at_its_deadline() -> None:
    """At the deadline a partial request was answered with the error alone, and the finished results were lost."""
    nodes = {"front": Spec(functions={"quick": Fn(_same), "slow": Fn(_same, duration=20.0)})}
    sim = _simulation(nodes)
    request = Request(0, (_call("a", "quick", 7), _call("b", "slow", 8)), partial=True, timeout=3 * _SECOND)
    sent = sim.submit("front", request)
    assert sim.run(until=sent.done, limit=10)
    result = sent.result
    assert result is not None and result.fault is not None and result.fault.code == 1020
    assert [row.name for row in result.done] == ["a"]
    assert [(row.name, row.fault.code) for row in result.failed] == [("b", 1020)]
    sim.settle()


def results_of_a_member_that_leaves_in_order() -> None:
    """The gossip that a worker had left came over another node, before its last result over its own slow link: 1023."""
    nodes = {
        "front": Spec(),
        "middle": Spec(),
        "worker": Spec(functions={"job": Fn(_same, duration=1.0)}),
    }
    sim = _simulation(nodes)
    sent = sim.call("front", "job", 5, timeout=30)
    sim.run(0.5)
    sim.link("front", "worker").set(delay=2.0)
    sim.leave("worker")
    assert sim.run(until=sent.done, limit=20)
    assert sent.error is None and sent.value == 5
    sim.settle()


def leave_reaches_members_that_are_seen_as_dead() -> None:
    """The last gossip of a leaving member went only to those that it saw as ALIVE; a slow peer missed it."""
    sim = _simulation({f"n{number}": Spec() for number in range(5)})
    sim.stall("n2", 6.2)
    sim.run(5)
    assert _standing(sim, "n2", at="n0") == "dead"
    sim.leave("n0")
    sim.settle()
    assert _standing(sim, "n0", at="n2") == "left"


def error_details_beyond_the_depth_limit_are_refused() -> None:
    """A node could read an error whose details were as deep as a value may be, but could not pass it on."""
    from mpreg_proto.errors import Fault, RemoteProtocolError
    from mpreg_proto.wire import dialects
    from mpreg_proto.wire.messages import Result

    tree: object = 1
    for _ in range(70):
        tree = [tree]
    body = msgspec.msgpack.encode(Result(1, fault=Fault(1003, "boom", {"tree": tree})))
    try:
        dialects.decode(body)
    except RemoteProtocolError as refusal:
        assert refusal.code == 1014
    else:
        raise AssertionError("it was taken")
