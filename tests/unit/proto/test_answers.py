"""Answers on their way out: joined where they fit, one by one where they don't, 1014 where one alone does not."""

import msgspec
import pytest

from mpreg_proto.effects import Framing, HangUp, Notify, Outcome, Raised, Returned, Run, Send
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import LinkEnded
from mpreg_proto.view import NodeView
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Ask, Digest, Done, Message, News, Request, Result, Told
from tests.helpers.pair import Desk, Far, call, spec


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
        if isinstance(effect, Run):
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
        if isinstance(effect, Run):
            desk.node.finished(effect.run, Returned(b"x" * (2000 if effect.function == "huge" else 600)), now=desk.now)
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "z"]
    assert [(row.name, row.fault.code) for result in results for row in result.failed] == [("y", 1014)]
    assert [result.last for result in results] == [False, False, True]


def outcomes(desk: Desk, outcome: Outcome) -> None:
    """All bodies that were begun end alike in one wake-up."""
    for effect in desk.node.drain():
        if isinstance(effect, Run):
            desk.node.finished(effect.run, outcome, now=desk.now)


def test_failures_with_long_texts_are_all_told_in_fewer_words() -> None:
    """Together they are longer than a message; the answer is one message all the same, with each error's code."""
    desk = Desk([spec("bad")], limits=Limits(message=10_000))
    wire = Wire(desk, b"")
    wire.say(Request(1, tuple(call(str(number), "bad") for number in range(10)), partial=True))
    outcomes(desk, Raised("ValueError", "x" * 2_000))
    (result,) = wire.results()
    assert result.last and [(row.name, row.fault.code) for row in result.failed] == [(str(n), 1003) for n in range(10)]
    assert all(row.fault.details["type"] == "ValueError" for row in result.failed)
    desk.idle()


def test_results_and_failures_that_are_too_long_together_are_1014_each() -> None:
    desk = Desk([spec("make"), spec("bad")], limits=Limits(message=4_000))
    wire = Wire(desk, b"")
    wire.say(Request(1, (call("x", "make"), call("y", "make"), call("z", "bad")), partial=True))
    for effect in desk.node.drain():
        if isinstance(effect, Run):
            outcome = Raised("ValueError", "no") if effect.function == "bad" else Returned(b"x" * 3_000)
            desk.node.finished(effect.run, outcome, now=desk.now)
    (result,) = wire.results()
    assert sorted((row.name, row.fault.code) for row in result.failed) == [("x", 1014), ("y", 1014), ("z", 1003)]
    assert result.done == () and result.fault is not None and result.fault.code == 1014
    desk.idle()


def test_a_trace_that_is_too_long_is_left_out_and_counted() -> None:
    desk = Desk([spec("make")], limits=Limits(message=2_000))
    wire = Wire(desk, b"")
    wire.say(Request(1, tuple(call(f"{number:0100}", "make") for number in range(10)), trace=True))
    finish(desk, "make", 1)
    (result,) = wire.results()
    assert len(result.done) == 10 and result.fault is None
    assert result.untraced > 0 and len(result.trace) == 10 - result.untraced
    desk.idle()


def test_an_answer_of_which_nothing_fits_ends_its_link() -> None:
    desk = Desk([spec("make")], limits=Limits(message=90))
    wire = Wire(desk, b"")
    wire.say(Request(1 << 60, (call("x", "make"),)))
    finish(desk, "make", 200)
    effects = desk.node.drain()
    (notice,) = [one.notice for one in effects if isinstance(one, Notify) and isinstance(one.notice, LinkEnded)]
    assert "over the limit message" in notice.why
    assert [one.code for one in effects if isinstance(one, HangUp)] == [1009]


@pytest.mark.parametrize("flushed", [False, True])
def test_a_stream_of_which_a_leaf_is_too_long_ends_with_an_error(flushed: bool) -> None:
    desk = Desk([spec("make"), spec("huge")], limits=Limits(message=1000))
    wire = Wire(desk, b"")
    wire.say(Request(1, (call("x", "huge"), call("y", "make")), eager=True))
    runs = [effect for effect in desk.node.drain() if isinstance(effect, Run)]
    results = []
    for run in runs:
        desk.node.finished(run.run, Returned(b"x" * (2000 if run.function == "huge" else 600)), now=desk.now)
        results += wire.results() if flushed else []
    results += wire.results()
    assert [row.name for result in results for row in result.done] == ["y"]
    assert [(row.name, row.fault.code) for result in results for row in result.failed] == [("x", 1014)]
    assert results[-1].last and results[-1].fault is not None and results[-1].fault.code == 1014
    desk.idle()
    assert not desk.node.answers._unsendable


@pytest.mark.parametrize("last", [False, True])
def test_an_answer_of_another_node_is_passed_on_in_parts(last: bool) -> None:
    desk = Desk(limits=Limits(message=1000))
    wire = Wire(desk, b"")
    rows = [Done(name, b"x" * 600) for name in "xy"]
    desk.node.answers.pass_on(wire.link, Result(7, (*rows, Done("z", b"x" * 2000)), last=last))
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "y"]
    assert [row.name for result in results for row in result.failed] == ["z"]
    assert [result.last for result in results].count(True) == last and results[-1].last is last
    desk.node.answers.forget(wire.link)
    assert not desk.node.answers._unsendable


def test_what_is_to_be_sent_is_known_by_link() -> None:
    desk = Desk()
    answers, one, other = desk.node.answers, LinkId(1), LinkId(2)
    for link in (one, other):
        answers.add(link, 1, Done("x", b""), last=False)
    answers.forget(one)
    assert not answers.pending(one) and answers.pending(other)
    answers.flush(0)
    assert not answers.pending(other) and not answers._rows


def test_a_view_that_is_too_long_comes_in_parts() -> None:
    desk = Desk([spec(f"function-{number}") for number in range(50)], limits=Limits(message=1000))
    wire = Wire(desk, b"")
    desk.node.drain()
    wire.say(Ask(7))
    sent = [effect.chunks for effect in desk.node.drain() if isinstance(effect, Send) and effect.link == wire.link]
    told = [dialects.decode(body) for _, body in sent]
    assert len(told) > 1 and all(len(body) <= 1000 for _, body in sent)
    assert all(isinstance(part, Told) and part.id == 7 for part in told)
    assert [part.last for part in told if isinstance(part, Told)] == [False] * (len(told) - 1) + [True]
    view = msgspec.json.decode(b"".join(part.view for part in told if isinstance(part, Told)), type=NodeView)
    assert len(view.functions) == 50


def test_news_that_is_too_long_comes_in_parts() -> None:
    """What a node tells another that has just dialled it, and is told apart, is all there."""
    desk = Desk(limits=Limits(node_message=600))
    members = [desk.member(f"member-{number:02}") for number in range(12)]
    wire = Wire(desk, b"w" * 16)
    desk.node.drain()
    wire.say(Digest((), ()))
    sent = [effect.chunks for effect in desk.node.drain() if isinstance(effect, Send) and effect.link == wire.link]
    told = [message for message in map(dialects.decode, [body for _, body in sent]) if isinstance(message, News)]
    assert len(told) > 1 and all(len(body) <= 600 for _, body in sent)
    known = {claim.member for news in told for claim in news.claims}
    assert {member.cluster.me for member in members} <= known
    assert [news.answer for news in told] == [False] * (len(told) - 1) + [True]
