"""Answers on their way out: joined where they fit, one by one where they don't, 1014 where one alone does not."""

import pytest

from mpreg_proto.effects import Framing, Returned, Run, Send
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Message, Request, Result
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
