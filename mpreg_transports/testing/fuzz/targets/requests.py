"""The classic JSON dialect against a node: each message has exactly one answer, in strict JSON, with its `u`.

Input: messages, one a line, as text if they are UTF-8 and as bytes if not. A naive reader predicts the codes 1000 and
1004, which are compared. When time has passed, no state of any request is left.
"""

from __future__ import annotations

import json
from typing import Any

from mpreg_proto.effects import HangUp, Send
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.node import Node
from mpreg_transports.testing.fuzz.targets.json import oracle
from mpreg_transports.testing.fuzz.world import Framing, LinkId, drained, make_node

_LINK = LinkId(1)
_MOST = 12
_BOUND = 86_500 * SECOND
_LIMITS = Limits(message=65_536, calls=50, ping_every=_BOUND, gone_after=2 * _BOUND)
"""The link is never silent for too long: its requests may wait for a day."""


def harness(data: bytes) -> None:
    """Send each line, let time pass, count the answers."""
    node = make_node(limits=_LIMITS)
    node.link_opened(_LINK, framing=Framing.CLASSIC_MESSAGES, dialled=None, now=0)
    lines = [line for line in data.split(b"\n")[:_MOST] if line]
    answers: list[dict[str, Any]] = []
    for line in lines:
        before = len(answers)
        node.receive(_LINK, _as_text(line), now=0)
        answers += _answers(node, 0)
        _is_as_expected(line, answers[before:])
    now = 0
    while (due := node.next_timeout()) is not None and due <= _BOUND:
        now = due
        node.wake(now=now)
        answers += _answers(node, now)
    assert len(answers) == len(lines), f"{len(lines)} messages have {len(answers)} answers: {answers}"
    assert not node.coordinator.requests and not node.worker.running and not node.worker.queued, "something is left"


def _as_text(line: bytes) -> str | bytes:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line


def _answers(node: Node, now: int) -> list[dict[str, Any]]:
    found = []
    for effect in drained(node, now):
        assert not isinstance(effect, HangUp), "a JSON link is kept, whatever is said"
        if isinstance(effect, Send):
            (text,) = effect.chunks
            found.append(_checked(text))
    return found


def _checked(text: bytes) -> dict[str, Any]:
    tree = oracle(text)
    assert tree is not None, f"an answer that is no strict JSON: {text!r}"
    answer: dict[str, Any] = tree[0]
    assert set(answer) - {"trace"} == {"r", "error", "u"} and isinstance(answer["u"], str), answer
    error = answer["error"]
    if error is None:
        assert isinstance(answer["r"], dict) and answer["r"], answer
    else:
        assert set(error) == {"code", "message", "details"} and isinstance(error["message"], str), answer
        assert isinstance(error["details"]["maybe_executed"], bool), answer
    return answer


def _is_as_expected(line: bytes, answers: list[dict[str, Any]]) -> None:
    """Compare the immediate answer to a message, if there is one, with the prediction of a naive reader."""
    tree = oracle(line)
    if tree is None or not isinstance(tree[0], dict):
        code = answers[0]["error"]["code"] if answers else None
        # A limit (1014), or an error with precedence over it, where the naive reader only detects a refusal.
        assert code == 1000 or (tree is None and code in (1004, 1010, 1014)), f"{line!r} is {answers}"
        return
    message = tree[0]
    if message.get("role") != "rpc":
        assert answers[0]["error"]["code"] == 1004, f"{line!r} is {answers}"
    u = message.get("u", "")
    for answer in answers:
        assert answer["u"] == (u if isinstance(u, str) else ""), f"{json.dumps(message)} is {answer}"
