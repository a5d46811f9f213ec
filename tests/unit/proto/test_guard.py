"""Misuse of a machine: refused with LocalProtocolError and a text that names the fix; nothing has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mpreg_proto.client import ClientSession
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Framing, Returned
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Request
from tests.helpers.node_harness import NodeHarness, call, spec


def node(**config: Any) -> Node:
    me, rng = MemberId(b"m" * 16), Rng(1)
    return Node(NodeConfig(**config), me=me, rng=rng, entropy=bytes, now=0)


def state(one: Node) -> object:
    """Return all that an input could change, as far as it can be compared."""
    view = one.view(now=0)
    return one.drain(), one.next_timeout(), view, list(one.links.sessions), one.worker.running, one.draining, one.left


def refused(one: Node, act: Callable[[], object], text: str) -> None:
    """Check that `act` is refused with this text, and that nothing has changed."""
    before = state(one)
    with pytest.raises(LocalProtocolError, match=text) as caught:
        act()
    assert state(one) == before and caught.value.state_unchanged


@pytest.mark.parametrize("now", [1.5, None, "1", True])
def test_time_that_is_no_int(now: Any) -> None:
    one = node()
    refused(one, lambda: one.wake(now=now), r"wake\(now=.*whole nanoseconds")
    session = ClientSession()
    with pytest.raises(LocalProtocolError, match=r"time.monotonic_ns\(\)"):
        session.wake(now=now)


@pytest.mark.parametrize("me", [b"", b"short", b"m" * 17, "m" * 16, bytearray(16), None])
def test_member_id_of_another_size(me: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"expected 16 bytes, such as os.urandom\(16\)"):
        Node(NodeConfig(), me=me, rng=Rng(1), entropy=bytes, now=0)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"resources": "gpu"}, r"config.resources='gpu': expected a tuple of texts, got one text; write \('gpu',\)"),
        ({"seeds": "ws://h:1"}, "config.seeds='ws://h:1': expected a tuple of texts, got one text"),
        ({"addresses": Address("ws://h:1")}, "config.addresses='ws://h:1': expected a tuple of texts"),
        ({"seeds": (1,)}, "config.seeds=.*expected a tuple of texts"),
        ({"resources": None}, "config.resources=None: expected a tuple"),
        ({"name": b"front"}, "config.name: expected str, got bytes"),
        ({"limits": None}, "config.limits: expected Limits, got NoneType"),
    ],
)
def test_configuration_of_wrong_kinds(config: dict[str, Any], text: str) -> None:
    with pytest.raises(LocalProtocolError, match=text):
        node(**config)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (FunctionSpec(name="f", concurrency=0), "'f': concurrency=0: expected 1 or more"),
        (FunctionSpec(name="f", concurrency=-1), "expected 1 or more"),
        (FunctionSpec(name="f", concurrency=1.5), "expected 1 or more"),  # type: ignore[arg-type]
        (FunctionSpec(name="f", concurrency=True), "expected 1 or more"),
        (FunctionSpec(name=""), "expected a text that is not empty"),
        (FunctionSpec(name=b"f"), "expected a text that is not empty"),  # type: ignore[arg-type]
        (FunctionSpec(name="f", resources="gpu"), r"got one text; write \('gpu',\)"),  # type: ignore[arg-type]
        ("f", "what is offered: expected FunctionSpec, got str"),
    ],
)
def test_offer_of_a_function_that_nobody_could_call(function: Any, text: str) -> None:
    one = node()
    refused(one, lambda: one.offer(function, now=1), text)


@pytest.mark.parametrize(
    ("command", "argument", "text"),
    [
        ("set_resources", "gpu", "expected a tuple of texts, got one text"),
        ("advertise", "ws://h:1", "expected a tuple of texts, got one text"),
        ("submit", {"cmds": []}, "what is submitted: expected Request, got dict"),
        ("withdraw", "never", "'never' is not offered here"),
    ],
)
def test_command_with_an_argument_of_another_kind(command: str, argument: Any, text: str) -> None:
    one = node()
    refused(one, lambda: getattr(one, command)(argument, now=1), text)


@pytest.mark.parametrize("link", ["1", None, 1.0])
def test_number_of_a_link_that_is_no_int(link: Any) -> None:
    one = node()
    refused(one, lambda: one.link_opened(link, framing=Framing.STREAM, dialled=None, now=1), "expected int")


def test_framing_that_is_none() -> None:
    one, framing = node(), "stream"
    refused(
        one,
        lambda: one.link_opened(LinkId(1), framing=framing, dialled=None, now=1),  # type: ignore[arg-type]
        "framing='stream': expected one of Framing",
    )


@pytest.mark.parametrize("outcome", [None, 5, {"value": 5}, Returned, ValueError("boom")])
def test_end_of_a_run_with_no_outcome(outcome: Any) -> None:
    harness = NodeHarness([spec("f")])
    harness.node.submit(Request(0, (call("x", "f"),)), now=harness.now)
    harness.flush()
    (run,) = harness.running("f")
    refused(harness.node, lambda: harness.node.finished(run.run, outcome, now=harness.now), "the outcome of a run")
    harness.finish(run)


def test_end_of_a_run_reported_twice() -> None:
    harness = NodeHarness([spec("f")])
    harness.node.submit(Request(0, (call("x", "f"),)), now=harness.now)
    harness.flush()
    (run,) = harness.running("f")
    harness.finish(run)
    for number in (run.run, RunId(99)):
        refused(
            harness.node,
            lambda number=number: harness.node.finished(number, Returned(1), now=harness.now),  # type: ignore[misc]
            f"run {number} does not run",
        )


@pytest.mark.parametrize(("command", "what"), [("submit", "submitted"), ("explain", "explained")])
def test_request_of_a_client_that_is_none(command: str, what: str) -> None:
    session = ClientSession()
    with pytest.raises(LocalProtocolError, match=f"what is {what}: expected Request, got dict"):
        getattr(session, command)({"cmds": []}, now=0)
    assert len(session) == 0 and session.next_timeout() is None


class Calling:
    """A tap that calls its node back."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.act: Callable[[], object] = lambda: None

    def input(self, name: str, now: int, args: tuple[Any, ...]) -> None:
        self.try_()

    def drained(self, effects: list[Any]) -> None:
        self.try_()

    def try_(self) -> None:
        try:
            self.act()
        except LocalProtocolError as error:
            self.errors.append(str(error))


def test_input_from_a_callback() -> None:
    tap = Calling()
    one = Node(NodeConfig(), me=MemberId(b"m" * 16), rng=Rng(1), entropy=bytes, now=0, tap=tap)
    tap.act = lambda: one.wake(now=1)
    one.wake(now=1)
    one.drain()
    assert len(tap.errors) == 2 and all(
        "wake() was called while another call of this Node runs" in e for e in tap.errors
    )
    tap.act = one.drain
    one.wake(now=2)
    assert len(tap.errors) == 3, "the node goes on after a refused call"


def test_input_from_another_thread() -> None:
    """The entropy of a submit runs in the middle of it; another thread calls the node there."""
    errors: list[str] = []

    def other() -> None:
        try:
            one.wake(now=1)
        except LocalProtocolError as error:
            errors.append(str(error))

    def entropy(size: int) -> bytes:
        if armed:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(30)
        return bytes(size)

    armed = False
    one = Node(NodeConfig(), me=MemberId(b"m" * 16), rng=Rng(1), entropy=entropy, now=0)
    armed = True
    one.submit(Request(0, (call("x", "f"),)), now=1)
    assert errors and "or in another thread" in errors[0]


def test_input_after_one_that_raised() -> None:
    one = node()
    with pytest.raises(LocalProtocolError):
        one.link_closed(LinkId(1), now=1)
    one.wake(now=1)


def test_types_of_outcomes() -> None:
    from typing import get_args

    from mpreg_proto.effects import OUTCOMES, Outcome

    assert get_args(Outcome) == OUTCOMES and all(issubclass(one, msgspec.Struct) for one in OUTCOMES)
