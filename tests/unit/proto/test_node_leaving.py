"""A leaving node: draining, grace and goodbyes; and a node that continues under a new id."""

import msgspec
import pytest

from mpreg_proto.notices import Left, RequestFinished, Standing
from mpreg_proto.wire.messages import Claim, Goodbye, Gossip, Request, Result
from tests.helpers.node_harness import NodeHarness, call, done, refused, spec, value

# -- leaving ----------------------------------------------------------------------------------------------------------


def test_idle_node_leaves_at_once_with_goodbyes() -> None:
    harness = NodeHarness([spec("add")])
    alpha, peer = harness.member("alpha"), harness.client()
    harness.node.leave(now=harness.now)
    harness.flush()
    assert harness.node.left and len(harness.noticed(Left)) == 1
    assert alpha.cluster.members.get(harness.node.me).standing is Standing.LEFT  # type: ignore[union-attr]
    assert (alpha.hung_up, peer.hung_up) == (1000, 1000)
    assert len(alpha.take(Goodbye)) == len(peer.take(Goodbye)) == 1
    harness.node.leave(now=harness.now)
    harness.flush()
    assert len(harness.noticed(Left)) == 1
    for end in (alpha, peer):
        end.drop()
    harness.advance(3600)
    harness.idle()


def test_draining_refuses_new_calls_and_finishes_accepted_ones() -> None:
    harness = NodeHarness([spec("add", concurrency=1)])
    alpha, peer = harness.member("alpha", spec("sub")), harness.client()
    peer.send(Request(1, (call("x", "add", 1),)))
    alpha.send(Request(1, (call("q", "add", 2),), here=("q",)))
    harness.node.leave(now=harness.now)
    harness.flush()
    assert alpha.cluster.index.offers("add", (), None) == ()
    peer.send(Request(2, (call("y", "sub", 1),)))
    alpha.send(Request(2, (call("z", "add", 1),), here=("z",)), Request(3, (call("w", "sub", 1),)))
    (result,) = peer.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1024, False)
    late = {result.id: result for result in alpha.take(Result)}
    assert late[2].failed[0].refused and late[2].failed[0].fault.code == 1024
    assert late[3].fault is not None and late[3].fault.code == 1024
    harness.node.submit(Request(0, (call("y", "sub", 1),)), now=harness.now)
    harness.flush()
    assert harness.noticed(RequestFinished)[0].result.fault.code == 1024  # type: ignore[union-attr]
    harness.finish(harness.running("add")[0])
    assert value(peer.take(Result)[0], "x") == 1 and not harness.node.left
    harness.finish(harness.running("add")[0])
    assert value(alpha.take(Result)[0], "q") == 2 and harness.node.left and alpha.hung_up == 1000


def test_draining_finishes_open_requests() -> None:
    harness = NodeHarness()
    alpha, peer = harness.member("alpha", spec("sub")), harness.client()
    peer.send(Request(1, (call("x", "sub", 1), msgspec.structs.replace(call("y", "sub", 1), dependencies=("x",)))))
    harness.node.leave(now=harness.now)
    harness.flush()
    for name in "xy":
        assert not harness.node.left
        alpha.send(done(alpha.take(Request)[0], name, name))
    assert value(peer.take(Result)[0], "y") == "y" and harness.node.left


@pytest.mark.parametrize("again", [False, True])
def test_open_requests_end_with_grace_or_a_second_leave(again: bool) -> None:
    harness = NodeHarness([spec("once", concurrency=1), spec("safe", idempotent=True, concurrency=1)])
    alpha, peer = harness.member("alpha"), harness.client()
    peer.send(Request(1, (call("x", "once"),)), Request(2, (call("x", "safe"),)), Request(3, (call("x", "safe"),)))
    alpha.send(Request(4, (call("q", "once"),), here=("q",)))
    harness.node.leave(now=harness.now)
    harness.advance(9.999)
    assert not harness.node.left and peer.take(Result) == []
    if again:
        harness.node.leave(now=harness.now)
        harness.flush()
    else:
        harness.advance(0.001)
    assert harness.node.left and len(harness.noticed(Left)) == 1
    faults = {result.id: result.fault for result in peer.take(Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {1: 1023, 2: 1024, 3: 1024}
    assert [fault.details["maybe_executed"] for fault in faults.values() if fault] == [True, False, False]
    (result,) = alpha.take(Result)
    assert [(row.name, row.refused, row.fault.code) for row in result.failed] == [("q", True, 1024)]
    assert list(dict.fromkeys(harness.cancelled)) == list(harness.runs) and (alpha.hung_up, peer.hung_up) == (
        1000,
        1000,
    )
    for end in (alpha, peer):
        end.drop()
    for run in list(harness.runs.values()):
        harness.finish(run)
    harness.idle()


def test_call_refused_by_a_leaving_node_runs_elsewhere() -> None:
    """The view of the coordinator: a refusal with 1024, then LEFT."""
    harness = NodeHarness()
    peer, alpha, beta = harness.client(), harness.member("alpha", spec("once")), harness.member("beta", spec("other"))
    peer.send(Request(1, (call("x", "once"),)))
    beta.offer(spec("once"))
    alpha.send(refused(alpha.take(Request)[0], 1024))
    alpha.leave()
    assert [request.here for request in beta.take(Request)] == [("x",)]


# -- a new id ---------------------------------------------------------------------------------------------------------


def test_new_id_after_the_old_one_is_retired() -> None:
    harness = NodeHarness([spec("add"), spec("slow")])
    alpha, peer = harness.member("alpha"), harness.client()
    old = harness.node.me
    peer.send(Request(1, (call("x", "slow", "old"),)))
    alpha.send(Gossip((Claim(old, 2, Standing.RETIRED),)))
    assert harness.node.me != old and alpha.hung_up == 1000 and peer.hung_up is None
    (result,) = peer.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1023, True)
    alpha.drop()
    back = harness.member("beta", spec("sub"))
    assert back.cluster.index.offers("add", (), None)[0].member == harness.node.me
    peer.send(Request(2, (call("x", "slow", "new"),)))
    first, second = harness.running("slow")
    harness.finish(first)
    assert peer.take(Result) == [], "the answer of the life before reaches nobody"
    harness.finish(second)
    assert value(peer.take(Result)[0], "x") == "new"
    harness.idle()


def test_grace_continues_after_a_new_id() -> None:
    harness = NodeHarness([spec("slow")])
    alpha, gamma = harness.member("alpha"), harness.client()
    alpha.send(Request(1, (call("x", "slow"),), here=("x",)))
    harness.node.leave(now=harness.now)
    alpha.send(Gossip((Claim(harness.node.me, 2, Standing.RETIRED),)))
    assert harness.node.cluster.index.offers("slow", (), None) == (), "still draining"
    harness.advance(10)
    assert harness.node.left and gamma.hung_up == 1000
