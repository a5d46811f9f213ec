"""The three outcomes of sending a message; each caller handles them."""

import ast
from pathlib import Path

import pytest

import mpreg_proto
from mpreg_proto.effects import Framing, HangUp, Notify, Send
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.links import Links
from mpreg_proto.notices import LinkClosed
from mpreg_proto.sending import LINK_GONE, SENT, TooLong, shorten_fault
from mpreg_proto.timers import Timers
from mpreg_proto.wire import dialects
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import CancelRequest, Refused, Result
from mpreg_proto.wire.values import ValueCodec

LINK = LinkId(1)
_SENDERS = ("send", "_put_result")
CORE = Path(mpreg_proto.__file__).parent


def sends(tree: ast.AST) -> list[ast.Call]:
    """Return the calls that have an outcome of sending: of `Links.send`, and of functions that return its outcome."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SENDERS
    ]


def test_each_outcome_of_sending_is_handled() -> None:
    """Each outcome is matched, or returned to a caller that matches it; mypy checks that a match has all three."""
    seen = 0
    for path in sorted(CORE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        used: dict[int, None] = {}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.Return)) and isinstance(node.value, ast.Call):
                used[id(node.value)] = None
        for call in sends(tree):
            seen += 1
            assert id(call) in used, f"{path.name}:{call.lineno} drops what became of a message"
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                bound = [
                    target.id
                    for node in ast.walk(function)
                    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value in sends(node)
                    for target in node.targets
                    if isinstance(target, ast.Name)
                ]
                matched = [
                    node.subject.id
                    for node in ast.walk(function)
                    if isinstance(node, ast.Match)
                    and isinstance(node.subject, ast.Name)
                    and "assert_never" in ast.dump(node.cases[-1])
                ]
                assert set(bound) <= set(matched), f"{path.name}: {function.name} looks at no outcome"
    assert seen > 10


def open_links(log: list[object], *, name: str = "me", **limits: int) -> Links:
    def own_hello() -> object:
        return hello(cluster="c", member=b"m" * 16, name=name)

    links = Links(own_hello, codec=ValueCodec(), timers=Timers(), limits=Limits(**limits), log=log)  # type: ignore[arg-type]
    links.opened(LINK, framing=Framing.NATIVE_MESSAGES, dialled=Address("mem://a"), now=0)
    return links


def test_outcome_of_sending_for_each_state_of_a_link() -> None:
    log: list[object] = []
    links = open_links(log, message=100)
    assert links.send(LINK, CancelRequest(1)) is SENT and links.is_open(LINK)
    outcome = links.send(LINK, Result(1, fault=Fault(1003, "x" * 100)))
    assert isinstance(outcome, TooLong) and outcome.size > outcome.limit == 100
    assert outcome.fault(maybe_executed=True).details == {
        "limit": "message",
        "value": 100,
        "came": outcome.size,
        "maybe_executed": True,
    }
    links.hang_up(LINK)
    assert links.send(LINK, CancelRequest(1)) is LINK_GONE and not links.is_open(LINK), "closed by this node"
    assert links.release()[0].link == LINK and links.closed(LINK) is None
    assert links.send(LINK, CancelRequest(1)) is LINK_GONE and links.send(LinkId(9), CancelRequest(1)) is LINK_GONE


def test_hello_over_the_message_limit_ends_its_link() -> None:
    log: list[object] = []
    open_links(log, name="x" * 200, message=100)
    assert [effect.code for effect in log if isinstance(effect, HangUp)] == [1009]
    (notice,) = [effect.notice for effect in log if isinstance(effect, Notify)]
    assert isinstance(notice, LinkClosed) and "over the limit" in notice.reason


def test_refusal_over_the_message_limit_is_shortened() -> None:
    log: list[object] = []
    links = open_links(log, message=2000)
    links.refuse(LINK, Fault(1010, "y" * 5000, {"path": "$", "long": "z" * 5000}))
    messages = [dialects.decode(effect.chunks[0]) for effect in log if isinstance(effect, Send)]
    (refused,) = [message for message in messages if isinstance(message, Refused)]
    assert refused.fault.code == 1010 and refused.fault.details == {"path": "$", "shortened": True}
    assert "(5000 characters)" in refused.fault.message and isinstance(log[-1], HangUp)


@pytest.mark.parametrize("value", ["z" * 1000, 1 << 80, [1], {"a": 1}])
def test_shortened_fault_keeps_short_details(value: object) -> None:
    small = {"call": "x", "ran": True, "took": 1.5, "number": 3, "none": None}
    fault = shorten_fault(Fault(1003, "short", {**small, "big": value}))
    assert (fault.code, fault.message) == (1003, "short")
    assert fault.details == {**small, "shortened": True}
