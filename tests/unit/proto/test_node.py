"""`Node` as a whole: commands of the process, draining, questions, a new identity. Far ends are spoken by hand."""

from collections.abc import Callable

import msgspec
import pytest

from mpreg_proto.effects import Framing, HangUp, Returned, Send
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.node import Node
from mpreg_proto.notices import Answered, Left, Standing
from mpreg_proto.view import NodeView
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    Ask,
    CancelRequest,
    Claim,
    Explain,
    Explanation,
    Failed,
    Goodbye,
    Message,
    News,
    Request,
    Result,
    Told,
)
from tests.helpers.pair import CODEC, Desk, Far, Member, call, done, refused, spec, value

READ_VIEW = msgspec.json.Decoder(NodeView).decode


def snapshot(desk: Desk) -> tuple[object, ...]:
    """All that a command could have changed, and the effects that it must not have left."""
    node = desk.node
    return (
        node.view(now=desk.now),
        node.next_timeout(),
        node.drain(),
        node.cluster.catalogue.heads(),
        node.cluster.index.generation,
        dict(node.links.sessions),
        (dict(node._offered), node._resources, node._addresses, node.left, node._draining),
        (dict(node.worker._slots), dict(node.worker._busy), list(node.worker._runs)),
    )


# -- the process's own requests ---------------------------------------------------------------------------------------


def test_the_process_asks_and_is_answered_by_a_notice() -> None:
    desk = Desk([spec("add")])
    number = desk.node.submit(Request(99, (call("x", "add", 1),), here=("x",)), now=desk.now)
    desk.flush()
    desk.finish(desk.running("add")[0])
    (answered,) = desk.noticed(Answered)
    assert answered.request == number != 99 and answered.result.last and value(answered.result, "x") == 1
    desk.idle()


def test_its_eager_results_come_one_by_one() -> None:
    desk = Desk([spec("add")])
    desk.node.submit(Request(0, (call("x", "add", 1), call("y", "add", 2)), eager=True), now=desk.now)
    desk.flush()
    for run in desk.running("add"):
        desk.finish(run)
    first, second = [notice.result for notice in desk.noticed(Answered)]
    assert (value(first, "x"), first.last, value(second, "y"), second.last) == (1, False, 2, True)


def test_it_cancels_what_it_asked() -> None:
    desk = Desk([spec("add")])
    number = desk.node.submit(Request(0, (call("x", "add", 1),)), now=desk.now)
    desk.flush()
    for _ in range(2):
        desk.node.cancel(number, now=desk.now)
    desk.flush()
    (answered,) = desk.noticed(Answered)
    assert answered.result.fault is not None and answered.result.fault.code == 1021
    desk.finish(desk.running("add")[0])
    desk.idle()


def test_a_bad_request_of_its_own_is_answered_like_any_other() -> None:
    desk = Desk()
    desk.node.submit(Request(0, ()), now=desk.now)
    desk.flush()
    (answered,) = desk.noticed(Answered)
    assert answered.result.fault is not None and answered.result.fault.code == 1010


# -- commands that raise change nothing -------------------------------------------------------------------------------

TIGHT = Limits(functions=2, resources=2, name_length=20)


@pytest.mark.parametrize(
    "command",
    [
        lambda node, now: node.offer(spec("third"), now=now),
        lambda node, now: node.offer(spec("first", resources=("a", "b", "c"), concurrency=9), now=now),
        lambda node, now: node.offer(spec("first", resources=("x" * 21,), concurrency=9), now=now),
        lambda node, now: node.withdraw("third", now=now),
        lambda node, now: node.hold(("a", "b", "c"), now=now),
        lambda node, now: node.hold(("x" * 21,), now=now),
        lambda node, now: node.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=now),
    ],
)
def test_a_command_that_raises_changes_nothing(command: Callable[[Node, int], None]) -> None:
    desk = Desk([spec("first", concurrency=1), spec("second")], resources=("a",), limits=TIGHT)
    far = desk.client()
    far.say(Request(1, (call("x", "first", 1), call("y", "first", 2))))
    before = snapshot(desk)
    with pytest.raises(LocalProtocolError) as raised:
        command(desk.node, desk.now)
    assert snapshot(desk) == before and raised.value.state_unchanged
    desk.finish(desk.running("first")[0])
    desk.finish(desk.running("first")[0])
    assert len(far.take(Result)[0].done) == 2


# -- what the door lets in --------------------------------------------------------------------------------------------


def test_a_client_cannot_say_where_its_calls_run_nor_whom_they_are_for() -> None:
    desk = Desk([spec("add")])
    far, alpha = desk.client(), desk.member("alpha", spec("sub"))
    far.say(Request(1, (call("x", "sub", 1),), here=("x",), hops=3, caller="root"))
    (request,) = alpha.take(Request)
    assert (request.here, request.hops, request.caller) == (("x",), 0, "")
    alpha.say(done(request, "x", 1))
    assert far.take(Result)[0].fault is None


def test_a_member_may_ask_for_a_whole_graph() -> None:
    desk = Desk([spec("add")])
    alpha = desk.member("alpha", spec("sub"))
    alpha.say(Request(1, (call("x", "add", 1), call("y", "sub", 2))))
    (asked,) = alpha.take(Request)
    alpha.say(done(asked, "y", 2))
    desk.finish(desk.running("add")[0])
    (result,) = alpha.take(Result)
    assert result.id == 1 and {row.name for row in result.done} == {"x", "y"}


def test_a_call_that_must_run_here_is_never_placed_elsewhere() -> None:
    desk = Desk([spec("add")])
    alpha, beta = desk.member("alpha"), desk.member("beta", spec("add"), spec("sub"))
    alpha.say(Request(1, (call("x", "sub", 1), call("y", "add", 1)), here=("x",)))
    (result,) = alpha.take(Result)
    assert result.fault is not None and (result.fault.code, result.fault.details["call"]) == (1001, "x")
    assert [request.here for request in beta.take(Request)] in ([], [("y",)])


@pytest.mark.parametrize("given", [{}, {"given": {"a": CODEC.encode(5)}}])
def test_values_may_come_with_the_request(given: dict[str, dict[str, bytes]]) -> None:
    desk = Desk([spec("add")])
    far = desk.client()
    made = msgspec.structs.replace(call("x", "add", 1), needs=("a",))
    far.say(Request(1, (made,), **given))
    if not given:
        (result,) = far.take(Result)
        assert result.fault is not None and result.fault.code == 1013
    else:
        desk.finish(desk.running("add")[0])
        assert value(far.take(Result)[0], "x") == 1
    desk.idle()


def test_a_request_whose_id_alone_can_be_read_is_answered_and_the_link_goes_on() -> None:
    desk = Desk([spec("add")])
    link = LinkId(1)
    desk.node.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=desk.now)
    for body in (dialects.encode(hello(cluster="", member=b"", name="")), msgspec.msgpack.encode([10, 7, "calls?"])):
        desk.node.receive(link, body, now=desk.now)
    desk.node.receive(link, dialects.encode(Ask(8)), now=desk.now)
    _, bad, told = [dialects.decode(effect.chunks[0]) for effect in desk.node.drain() if isinstance(effect, Send)]
    assert isinstance(bad, Result) and bad.id == 7 and bad.fault is not None
    assert (bad.fault.code, bad.fault.details) == (1010, {"path": "$[2]", "maybe_executed": False})
    assert isinstance(told, Told) and told.id == 8


# -- questions --------------------------------------------------------------------------------------------------------


def test_the_view_is_told_as_json() -> None:
    desk = Desk([spec("add", resources=("f",), doc="Adds.")], resources=("r",))
    far, alpha = desk.client(), desk.member("alpha", spec("sub"))
    far.say(Request(1, (call("x", "add", 1), call("y", "sub", 1))), Ask(2))
    (told,) = far.take(Told)
    view = READ_VIEW(told.view)
    assert told.id == 2 and view == desk.node.view(now=desk.now)
    assert (view.requests, view.running, view.queued, view.links) == (1, 1, 0, 2)
    assert [(row.name, row.me, row.linked, row.waiting) for row in view.members] == [
        ("alpha", False, True, 1),
        ("desk", True, False, 1),
    ]
    assert [(row.function, row.node, row.resources) for row in view.functions] == [
        ("add", desk.node.shown, ("f", "r")),
        ("sub", view.members[0].shown, ()),
    ]
    assert alpha.take(Told) == []


def test_explain_runs_nothing_and_asks_nobody() -> None:
    desk = Desk([spec("add")])
    far, alpha = desk.client(), desk.member("alpha", spec("add"), spec("sub"))
    far.say(Explain(Request(3, (call("x", "add"), call("y", "sub")))))
    (told,) = far.take(Explanation)
    assert told.id == 3 and [len(row.nodes) for row in told.rows] == [2, 1]
    assert desk.runs == {} and alpha.take(Request) == []
    desk.idle()


# -- answers that are too long ----------------------------------------------------------------------------------------


class Wire:
    """A real link of bytes to the node, for what Framing.OBJECTS does not have: lengths."""

    def __init__(self, desk: Desk, member: bytes) -> None:
        self.link = LinkId(len(desk.fars) + 1)
        desk.fars[self.link] = Far(desk, self.link)
        self._desk = desk
        desk.node.link_opened(self.link, framing=Framing.STREAM, dialled=None, now=desk.now)
        self.say(hello(cluster="default-cluster", member=member, name="wire"))

    def say(self, message: Message) -> None:
        body = dialects.encode(message)
        self._desk.node.receive(self.link, prefix(len(body)) + body, now=self._desk.now)

    def results(self) -> list[Result]:
        """What the node's effects hold for this link, all other ones being dropped."""
        sent = [effect for effect in self._desk.node.drain() if isinstance(effect, Send) and effect.link == self.link]
        decoded = [dialects.decode(effect.chunks[1]) for effect in sent]
        return [message for message in decoded if isinstance(message, Result)]


def finish(desk: Desk, function: str, length: int) -> None:
    """All bodies of one function end in one wake-up, with values of that length."""
    for effect in desk.node.drain():
        if hasattr(effect, "run"):
            desk.runs[effect.run] = effect
    for run in desk.running(function):
        del desk.runs[run.run]
        desk.node.finished(run.run, Returned(b"x" * length), now=desk.now)


@pytest.mark.parametrize("member", [b"", b"m" * 16])
def test_a_result_that_is_too_long_is_1014(member: bytes) -> None:
    limits = Limits(message=1000, node_message=1000)
    desk = Desk([spec("make")], limits=limits)
    wire = Wire(desk, member)
    wire.say(Request(1, (call("x", "make"),), here=("x",) if member else ()))
    finish(desk, "make", 1000)
    (result,) = wire.results()
    assert result.last and result.fault is not None and result.done == ()
    assert (result.fault.code, result.fault.details["limit"], result.fault.details["value"]) == (1014, "message", 1000)
    assert result.fault.details["came"] > 1000 and result.fault.details["maybe_executed"] is True
    desk.idle()


@pytest.mark.parametrize("eager", [False, True])
def test_results_that_fit_one_by_one_are_not_too_long_together(eager: bool) -> None:
    """To a coordinator, and to a client that takes them as they come; who wants one answer must have it in one."""
    desk = Desk([spec("make")], limits=Limits(message=1000, node_message=1000))
    wire = Wire(desk, b"" if eager else b"m" * 16)
    calls = tuple(call(name, "make") for name in "xyz")
    wire.say(Request(1, calls, here=() if eager else ("x", "y", "z"), eager=eager))
    finish(desk, "make", 600)
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "y", "z"]
    assert [result.last for result in results] == [False] * (len(results) - 1) + [True]
    assert all(result.fault is None for result in results)
    desk.idle()


def test_one_of_several_results_that_is_too_long_is_1014_alone() -> None:
    desk = Desk([spec("make"), spec("huge")], limits=Limits(node_message=1000))
    wire = Wire(desk, b"m" * 16)
    wire.say(Request(1, (call("x", "make"), call("y", "huge"), call("z", "make")), here=("x", "y", "z")))
    for effect in desk.node.drain():
        if hasattr(effect, "run"):
            desk.node.finished(
                effect.run, Returned(b"x" * (2000 if effect.function == "huge" else 600)), now=desk.now
            )
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "z"]
    assert [(row.name, row.fault.code) for result in results for row in result.failed] == [("y", 1014)]
    assert [result.last for result in results] == [False, False, True]


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


# -- nothing is left --------------------------------------------------------------------------------------------------


def test_after_much_of_everything_nothing_is_left() -> None:
    desk = Desk([spec("local", concurrency=2), spec("safe", idempotent=True)], seed=9)
    clients = [desk.client(f"c{n}") for n in range(3)]
    members = [desk.member(f"m{n}", spec("safe", idempotent=True), spec("once")) for n in range(3)]
    for number in range(60):
        far = clients[number % 3]
        calls = (call("a", "local", number), call("b", "safe"), call("c", "once"), call("d", "missing"))
        kind = number % 5
        far.say(
            Request(
                number + 1,
                calls[: 3 + (kind == 4)],
                wait=10**9 if kind == 4 else 0,
                timeout=3 * 10**9,
                partial=kind == 2,
                eager=kind == 1,
                trace=kind == 3,
            )
        )
        if number % 7 == 0:
            far.say(CancelRequest(number + 1))
    owed: list[tuple[Member, Request]] = []
    for position, member in enumerate(members):
        for asked in member.take(Request):
            if position == 0:
                member.say(refused(asked, 1022))
            elif asked.id % 2:
                member.say(Result(asked.id, failed=tuple(Failed(name, Fault(1003, "")) for name in asked.here)))
            else:
                owed.append((member, asked))
    members[1].drop()
    clients[0].drop()
    for run in list(desk.runs.values())[::2]:
        desk.finish(run)
    desk.advance(8)
    while desk.runs:
        desk.finish(next(iter(desk.runs.values())))
    for member, asked in (*owed, *[(member, asked) for member in members for asked in member.take(Request)]):
        member.say(refused(asked, 1021))
    desk.advance(5)
    answered = [result.id for far in clients[1:] for result in far.take(Result) if result.last]
    assert sorted(answered) == [number + 1 for number in range(60) if number % 3], "each once"
    desk.idle()


def test_a_member_id_is_sixteen_bytes_of_entropy() -> None:
    desk = Desk()
    alpha = desk.member("alpha")
    alpha.say(News((Claim(desk.node.me, 2, Standing.RETIRED),)))
    assert len(desk.node.me) == 16 and desk.node.me != MemberId(b"n" * 16)
    assert not any(isinstance(effect, HangUp) for effect in desk.node.drain())
