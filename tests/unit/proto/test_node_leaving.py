"""How a node goes: draining, grace, what is told to whom; and how it goes on as another member."""

import msgspec
import pytest

from mpreg_proto.notices import Answered, Left, Standing
from mpreg_proto.wire.messages import Claim, Goodbye, News, Request, Result
from tests.helpers.pair import Desk, call, done, refused, spec, value

# -- leaving ----------------------------------------------------------------------------------------------------------


def test_an_idle_node_leaves_at_once_and_says_so_to_all() -> None:
    desk = Desk([spec("add")])
    alpha, far = desk.member("alpha"), desk.client()
    desk.node.leave(now=desk.now)
    desk.flush()
    assert desk.node.left and len(desk.noticed(Left)) == 1
    assert alpha.cluster.members.get(desk.node.me).standing is Standing.LEFT  # type: ignore[union-attr]
    assert (alpha.hung_up, far.hung_up) == (1000, 1000)
    assert len(alpha.take(Goodbye)) == len(far.take(Goodbye)) == 1
    desk.node.leave(now=desk.now)
    desk.flush()
    assert len(desk.noticed(Left)) == 1
    for end in (alpha, far):
        end.drop()
    desk.advance(3600)
    desk.idle()


def test_draining_refuses_what_is_new_and_finishes_what_runs_and_what_is_queued() -> None:
    desk = Desk([spec("add", concurrency=1)])
    alpha, far = desk.member("alpha", spec("sub")), desk.client()
    far.say(Request(1, (call("x", "add", 1),)))
    alpha.say(Request(1, (call("q", "add", 2),), here=("q",)))
    desk.node.leave(now=desk.now)
    desk.flush()
    assert alpha.cluster.index.offers("add", (), None) == ()
    far.say(Request(2, (call("y", "sub", 1),)))
    alpha.say(Request(2, (call("z", "add", 1),), here=("z",)), Request(3, (call("w", "sub", 1),)))
    (result,) = far.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1024, False)
    late = {result.id: result for result in alpha.take(Result)}
    assert late[2].failed[0].refused and late[2].failed[0].fault.code == 1024
    assert late[3].fault is not None and late[3].fault.code == 1024
    desk.node.submit(Request(0, (call("y", "sub", 1),)), now=desk.now)
    desk.flush()
    assert desk.noticed(Answered)[0].result.fault.code == 1024  # type: ignore[union-attr]
    desk.finish(desk.running("add")[0])
    assert value(far.take(Result)[0], "x") == 1 and not desk.node.left
    desk.finish(desk.running("add")[0])
    assert value(alpha.take(Result)[0], "q") == 2 and desk.node.left and alpha.hung_up == 1000


def test_draining_goes_on_with_the_requests_it_has() -> None:
    desk = Desk()
    alpha, far = desk.member("alpha", spec("sub")), desk.client()
    far.say(Request(1, (call("x", "sub", 1), msgspec.structs.replace(call("y", "sub", 1), needs=("x",)))))
    desk.node.leave(now=desk.now)
    desk.flush()
    for name in "xy":
        assert not desk.node.left
        alpha.say(done(alpha.take(Request)[0], name, name))
    assert value(far.take(Result)[0], "y") == "y" and desk.node.left


@pytest.mark.parametrize("again", [False, True])
def test_at_the_end_of_grace_or_when_told_again_what_is_open_ends(again: bool) -> None:
    desk = Desk([spec("once", concurrency=1), spec("safe", idempotent=True, concurrency=1)])
    alpha, far = desk.member("alpha"), desk.client()
    far.say(Request(1, (call("x", "once"),)), Request(2, (call("x", "safe"),)), Request(3, (call("x", "safe"),)))
    alpha.say(Request(4, (call("q", "once"),), here=("q",)))
    desk.node.leave(now=desk.now)
    desk.advance(9.999)
    assert not desk.node.left and far.take(Result) == []
    if again:
        desk.node.leave(now=desk.now)
        desk.flush()
    else:
        desk.advance(0.001)
    assert desk.node.left and len(desk.noticed(Left)) == 1
    faults = {result.id: result.fault for result in far.take(Result)}
    assert {number: fault.code for number, fault in faults.items() if fault} == {1: 1023, 2: 1024, 3: 1024}
    assert [fault.details["maybe_executed"] for fault in faults.values() if fault] == [True, False, False]
    (result,) = alpha.take(Result)
    assert [(row.name, row.refused, row.fault.code) for row in result.failed] == [("q", True, 1024)]
    assert list(dict.fromkeys(desk.cancelled)) == list(desk.runs) and (alpha.hung_up, far.hung_up) == (1000, 1000)
    for end in (alpha, far):
        end.drop()
    for run in list(desk.runs.values()):
        desk.finish(run)
    desk.idle()


def test_what_a_leaving_nodes_queue_gives_back_runs_elsewhere() -> None:
    """The other side of it: a refusal with 1024, then LEFT."""
    desk = Desk()
    far, alpha, beta = desk.client(), desk.member("alpha", spec("once")), desk.member("beta", spec("other"))
    far.say(Request(1, (call("x", "once"),)))
    beta.offer(spec("once"))
    alpha.say(refused(alpha.take(Request)[0], 1024))
    alpha.leave()
    assert [request.here for request in beta.take(Request)] == [("x",)]


# -- another identity -------------------------------------------------------------------------------------------------


def test_whose_id_is_taken_for_gone_goes_on_as_another_member() -> None:
    desk = Desk([spec("add"), spec("slow")])
    alpha, far = desk.member("alpha"), desk.client()
    old = desk.node.me
    far.say(Request(1, (call("x", "slow", "old"),)))
    alpha.say(News((Claim(old, 2, Standing.RETIRED),)))
    assert desk.node.me != old and alpha.hung_up == 1000 and far.hung_up is None
    (result,) = far.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["maybe_executed"]) == (1023, True)
    alpha.drop()
    back = desk.member("beta", spec("sub"))
    assert back.cluster.index.offers("add", (), None)[0].member == desk.node.me
    far.say(Request(2, (call("x", "slow", "new"),)))
    first, second = desk.running("slow")
    desk.finish(first)
    assert far.take(Result) == [], "the answer of the life before reaches nobody"
    desk.finish(second)
    assert value(far.take(Result)[0], "x") == "new"
    desk.idle()


def test_grace_outlives_a_change_of_identity() -> None:
    desk = Desk([spec("slow")])
    alpha, gamma = desk.member("alpha"), desk.client()
    alpha.say(Request(1, (call("x", "slow"),), here=("x",)))
    desk.node.leave(now=desk.now)
    alpha.say(News((Claim(desk.node.me, 2, Standing.RETIRED),)))
    assert desk.node.cluster.index.offers("slow", (), None) == (), "still draining"
    desk.advance(10)
    assert desk.node.left and gamma.hung_up == 1000
