"""Replies: joined if they fit into one message, else sent one by one; 1014 for a result that does not fit alone."""

import msgspec
import pytest

from mpreg_proto.effects import Framing, HangUp, Notify, Outcome, Raised, Returned, Run, Send
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import LinkClosed
from mpreg_proto.view import NodeView
from mpreg_proto.wire import dialects
from mpreg_proto.wire.framing import prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Digest, Done, GetView, Gossip, Message, Request, Result, View
from tests.helpers.node_harness import NodeHarness, PeerStub, call, spec


class Wire:
    """A link of real bytes to the node: messages have lengths, which `Framing.OBJECTS` lacks."""

    def __init__(self, harness: NodeHarness, member: bytes) -> None:
        self.link = LinkId(len(harness.peers) + 1)
        harness.peers[self.link] = PeerStub(harness, self.link)
        self._harness = harness
        harness.node.link_opened(self.link, framing=Framing.STREAM, dialled=None, now=harness.now)
        self.send(hello(cluster="default-cluster", member=member, name="wire"))

    def send(self, message: Message) -> None:
        body = dialects.encode(message)
        self._harness.node.receive(self.link, prefix(len(body)) + body, now=self._harness.now)

    def results(self) -> list[Result]:
        """Return the results among the effects of the node for this link; drop all other effects."""
        sent = [
            effect for effect in self._harness.node.drain() if isinstance(effect, Send) and effect.link == self.link
        ]
        decoded = [dialects.decode(effect.chunks[1]) for effect in sent]
        return [message for message in decoded if isinstance(message, Result)]


def finish(harness: NodeHarness, function: str, length: int) -> None:
    """End all runs of one function in one wake-up, each with a value of `length` bytes."""
    for effect in harness.node.drain():
        if isinstance(effect, Run):
            harness.runs[effect.run] = effect
    for run in harness.running(function):
        del harness.runs[run.run]
        harness.node.finished(run.run, Returned(b"x" * length), now=harness.now)


@pytest.mark.parametrize("member", [b"", b"m" * 16])
def test_result_over_the_message_limit_is_1014(member: bytes) -> None:
    limits = Limits(message=1000, node_message=1000)
    harness = NodeHarness([spec("make")], limits=limits)
    wire = Wire(harness, member)
    wire.send(Request(1, (call("x", "make"),), here=("x",) if member else ()))
    finish(harness, "make", 1000)
    (result,) = wire.results()
    assert result.last and result.fault is not None and result.done == ()
    assert (result.fault.code, result.fault.details["limit"], result.fault.details["value"]) == (1014, "message", 1000)
    assert result.fault.details["came"] > 1000 and result.fault.details["maybe_executed"] is True
    harness.idle()


@pytest.mark.parametrize("eager", [False, True])
def test_results_split_over_several_messages(eager: bool) -> None:
    """A coordinator and an eager client receive results in several messages; any other client receives one message."""
    harness = NodeHarness([spec("make")], limits=Limits(message=1000, node_message=1000))
    wire = Wire(harness, b"" if eager else b"m" * 16)
    calls = tuple(call(name, "make") for name in "xyz")
    wire.send(Request(1, calls, here=() if eager else ("x", "y", "z"), eager=eager))
    finish(harness, "make", 600)
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "y", "z"]
    assert [result.last for result in results] == [False] * (len(results) - 1) + [True]
    assert all(result.fault is None for result in results)
    harness.idle()


def test_results_that_are_too_long_with_their_names_are_sent_in_halves() -> None:
    """The values alone would fit into one message."""
    harness = NodeHarness([spec("make")], limits=Limits(node_message=1000))
    wire = Wire(harness, b"m" * 16)
    wire.send(Request(1, (call("x", "make"), call("y", "make")), here=("x", "y")))
    finish(harness, "make", 490)
    results = wire.results()
    assert [[row.name for row in result.done] for result in results if result.done] == [["x"], ["y"]]
    assert [result.last for result in results] == [False] * (len(results) - 1) + [True]


def test_one_result_of_several_over_the_message_limit() -> None:
    harness = NodeHarness([spec("make"), spec("huge")], limits=Limits(node_message=1000))
    wire = Wire(harness, b"m" * 16)
    wire.send(Request(1, (call("x", "make"), call("y", "huge"), call("z", "make")), here=("x", "y", "z")))
    for effect in harness.node.drain():
        if isinstance(effect, Run):
            harness.node.finished(
                effect.run, Returned(b"x" * (2000 if effect.function == "huge" else 600)), now=harness.now
            )
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "z"]
    assert [(row.name, row.fault.code) for result in results for row in result.failed] == [("y", 1014)]
    assert [result.last for result in results] == [False, False, True]


def outcomes(harness: NodeHarness, outcome: Outcome) -> None:
    """End all runs in one wake-up with the same outcome."""
    for effect in harness.node.drain():
        if isinstance(effect, Run):
            harness.node.finished(effect.run, outcome, now=harness.now)


def test_failures_with_shortened_texts() -> None:
    """Together the failures exceed the message limit; the reply is one message with the code of each error."""
    harness = NodeHarness([spec("bad")], limits=Limits(message=10_000))
    wire = Wire(harness, b"")
    wire.send(Request(1, tuple(call(str(number), "bad") for number in range(10)), partial=True))
    outcomes(harness, Raised("ValueError", "x" * 2_000))
    (result,) = wire.results()
    assert result.last and [(row.name, row.fault.code) for row in result.failed] == [(str(n), 1003) for n in range(10)]
    assert all(row.fault.details["type"] == "ValueError" for row in result.failed)
    harness.idle()


def test_results_with_failures_over_the_message_limit() -> None:
    harness = NodeHarness([spec("make"), spec("bad")], limits=Limits(message=4_000))
    wire = Wire(harness, b"")
    wire.send(Request(1, (call("x", "make"), call("y", "make"), call("z", "bad")), partial=True))
    for effect in harness.node.drain():
        if isinstance(effect, Run):
            outcome = Raised("ValueError", "no") if effect.function == "bad" else Returned(b"x" * 3_000)
            harness.node.finished(effect.run, outcome, now=harness.now)
    (result,) = wire.results()
    assert sorted((row.name, row.fault.code) for row in result.failed) == [("x", 1014), ("y", 1014), ("z", 1003)]
    assert result.done == () and result.fault is not None and result.fault.code == 1014
    harness.idle()


def test_untraced_rows_of_a_trace_over_the_message_limit() -> None:
    harness = NodeHarness([spec("make")], limits=Limits(message=2_000))
    wire = Wire(harness, b"")
    wire.send(Request(1, tuple(call(f"{number:0100}", "make") for number in range(10)), trace=True))
    finish(harness, "make", 1)
    (result,) = wire.results()
    assert len(result.done) == 10 and result.fault is None
    assert result.untraced > 0 and len(result.trace) == 10 - result.untraced
    harness.idle()


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("eager", [False, True])
def test_maybe_executed_of_a_result_over_the_message_limit(idempotent: bool, partial: bool, eager: bool) -> None:
    harness = NodeHarness([spec("make", idempotent=idempotent)], limits=Limits(message=1000))
    wire = Wire(harness, b"")
    wire.send(Request(1, (call("x", "make"), call("y", "none")), partial=partial, eager=eager))
    if not partial:  # before anything ran
        assert [one.fault.code for one in wire.results() if one.fault is not None] == [1001]
        wire.send(Request(2, (call("x", "make"), call("y", "make")), eager=eager))
    finish(harness, "make", 1200)
    last = wire.results()[-1]
    assert last.last and last.fault is not None and last.fault.code == (1001 if partial and eager else 1014)
    assert last.fault.details["maybe_executed"] is not idempotent
    harness.idle()


def test_reply_of_which_nothing_fits_ends_its_link() -> None:
    harness = NodeHarness([spec("make")], limits=Limits(message=90))
    wire = Wire(harness, b"")
    wire.send(Request(1 << 60, (call("x", "make"),)))
    finish(harness, "make", 200)
    effects = harness.node.drain()
    (notice,) = [one.notice for one in effects if isinstance(one, Notify) and isinstance(one.notice, LinkClosed)]
    assert "over the limit message" in notice.reason
    assert [one.code for one in effects if isinstance(one, HangUp)] == [1009]


@pytest.mark.parametrize("flushed", [False, True])
def test_stream_with_a_leaf_over_the_message_limit(flushed: bool) -> None:
    harness = NodeHarness([spec("make"), spec("huge")], limits=Limits(message=1000))
    wire = Wire(harness, b"")
    wire.send(Request(1, (call("x", "huge"), call("y", "make")), eager=True))
    runs = [effect for effect in harness.node.drain() if isinstance(effect, Run)]
    results = []
    for run in runs:
        harness.node.finished(run.run, Returned(b"x" * (2000 if run.function == "huge" else 600)), now=harness.now)
        results += wire.results() if flushed else []
    results += wire.results()
    assert [row.name for result in results for row in result.done] == ["y"]
    assert [(row.name, row.fault.code) for result in results for row in result.failed] == [("x", 1014)]
    assert results[-1].last and results[-1].fault is not None and results[-1].fault.code == 1014
    harness.idle()
    assert not harness.node.replies._unsendable


@pytest.mark.parametrize("last", [False, True])
def test_relayed_result_in_parts(last: bool) -> None:
    harness = NodeHarness(limits=Limits(message=1000))
    wire = Wire(harness, b"")
    rows = [Done(name, b"x" * 600) for name in "xy"]
    harness.node.replies.forward(wire.link, Result(7, (*rows, Done("z", b"x" * 2000)), last=last))
    results = wire.results()
    assert [row.name for result in results for row in result.done] == ["x", "y"]
    assert [row.name for result in results for row in result.failed] == ["z"]
    assert [result.last for result in results].count(True) == last and results[-1].last is last
    harness.node.replies.forget(wire.link)
    assert not harness.node.replies._unsendable


def test_pending_replies_by_link() -> None:
    harness = NodeHarness()
    answers, one, other = harness.node.replies, LinkId(1), LinkId(2)
    for link in (one, other):
        answers.add(link, 1, Done("x", b""), last=False)
    answers.forget(one)
    assert not answers.busy_on(one) and answers.busy_on(other)
    answers.flush(0)
    assert not answers.busy_on(other) and not answers._rows


def test_view_in_parts() -> None:
    harness = NodeHarness([spec(f"function-{number}") for number in range(50)], limits=Limits(message=1000))
    wire = Wire(harness, b"")
    harness.node.drain()
    wire.send(GetView(7))
    sent = [effect.chunks for effect in harness.node.drain() if isinstance(effect, Send) and effect.link == wire.link]
    parts = [dialects.decode(body) for _, body in sent]
    assert len(parts) > 1 and all(len(body) <= 1000 for _, body in sent)
    assert all(isinstance(part, View) and part.id == 7 for part in parts)
    assert [part.last for part in parts if isinstance(part, View)] == [False] * (len(parts) - 1) + [True]
    view = msgspec.json.decode(b"".join(part.view for part in parts if isinstance(part, View)), type=NodeView)
    assert len(view.functions) == 50


def test_gossip_in_parts() -> None:
    """The first anti-entropy with a new peer is split into parts; together they are complete."""
    harness = NodeHarness(limits=Limits(node_message=600))
    members = [harness.member(f"member-{number:02}") for number in range(12)]
    wire = Wire(harness, b"w" * 16)
    harness.node.drain()
    wire.send(Digest((), ()))
    sent = [effect.chunks for effect in harness.node.drain() if isinstance(effect, Send) and effect.link == wire.link]
    parts = [message for message in map(dialects.decode, [body for _, body in sent]) if isinstance(message, Gossip)]
    assert len(parts) > 1 and all(len(body) <= 600 for _, body in sent)
    known = {claim.member for part in parts for claim in part.claims}
    assert {member.cluster.me for member in members} <= known
    assert [part.answer for part in parts] == [False] * (len(parts) - 1) + [True]
