"""Misuse of a machine: refused with LocalProtocolError and a text that names the fix; nothing has changed."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mpreg_proto.client import ClientSession
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Cancel, Framing, Lost, NotStarted, Raised, Returned
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire.handshake import Authentication
from mpreg_proto.wire.messages import Call, GetView, Request
from tests.helpers.deep_state import deep_state
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
    before, deep = state(one), deep_state(one)
    with pytest.raises(LocalProtocolError, match=text or None) as caught:
        act()
    assert deep_state(one) == deep and state(one) == before and caught.value.state_unchanged


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
        ("submit", {"cmds": []}, "a request: expected Request, got dict"),
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


@pytest.mark.parametrize("command", ["submit", "explain"])
def test_request_of_a_client_that_is_none(command: str) -> None:
    session = ClientSession()
    with pytest.raises(LocalProtocolError, match="a request: expected Request, got dict"):
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


# -- each argument of each method, of another type ---------------------------------------------------------------------


class Text(str):
    """A text of another type."""


class Number(int):
    """An int of another type."""


class Hostile:
    """A user's object without a hash, a comparison or a text."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


WRONG: list[Any] = [
    *(None, True, 1.0, float("nan"), b"x", bytearray(b"x"), memoryview(b"xxxx"), [], ["x"], {}, {"x"}, (1,), object()),
    *(
        Text("x"),
        Number(1),
        Hostile(),
        int,
        Framing,
        Framing.STREAM,
        ("\ud800",),
        (Text("x"),),
        "\ud800",
        "x",
        10**5000,
    ),
]


def wrong(*kinds: type, also: tuple[Any, ...] = ()) -> list[Any]:
    """Return values of no such type; of a text, also what UTF-8 cannot carry; of an int, also what no clock shows."""
    return [
        one
        for one in WRONG
        if not any(one is good for good in also)
        and (type(one) not in kinds or (type(one) is str and one == "\ud800") or (type(one) is int and one > 1 << 64))
    ]


REQUEST = Request(0, (call("x", "f"),))
SPEC = FunctionSpec(name="g")
MISUSES: dict[str, tuple[Callable[[Any, Any], object], list[Any]]] = {
    "link_opened link": (
        lambda n, w: n.link_opened(w, framing=Framing.STREAM, dialled=None, now=1),
        [*wrong(int), 0, -1],
    ),
    "link_opened framing": (lambda n, w: n.link_opened(9, framing=w, dialled=None, now=1), wrong(Framing)),
    "link_opened verdict": (
        lambda n, w: n.link_opened(9, framing=Framing.STREAM, dialled=None, now=1, verdict=w),
        wrong(Authentication),
    ),
    "link_opened dialled": (lambda n, w: n.link_opened(9, framing=Framing.STREAM, dialled=w, now=1), wrong(str)[1:]),
    "receive link": (lambda n, w: n.receive(w, b"", now=1), wrong(int)),
    "receive data": (
        lambda n, w: n.receive(1, w, now=1),
        [*wrong(bytes, bytearray, memoryview), memoryview(b"xxxx").cast("I"), memoryview(b"xxxx")[::2]],
    ),
    "receive objects": (lambda n, w: n.receive(2, w, now=1), [b"", b"x"]),
    "handle link": (lambda n, w: n.handle(w, GetView(1), now=1), wrong(int)),
    "handle message": (lambda n, w: n.handle(2, w, now=1), [*WRONG, GetView, call("x", "f")]),
    "handle bytes": (lambda n, w: n.handle(1, w, now=1), [GetView(1), REQUEST]),
    "link_closed": (lambda n, w: n.link_closed(w, now=1), wrong(int)),
    "dial_failed": (lambda n, w: n.dial_failed(w, now=1), wrong(str, also=("\ud800",))[:-1]),
    "progress": (lambda n, w: n.progress(w, now=1), wrong(int)),
    "backlog link": (lambda n, w: n.backlog(w, 1, now=1), wrong(int)),
    "backlog queued": (lambda n, w: n.backlog(1, w, now=1), [*wrong(int), -1, -(10**5000)]),
    "finished run": (lambda n, w: n.finished(w, Returned(1), now=1), wrong(int)),
    "finished outcome": (lambda n, w: n.finished(1, w, now=1), [*WRONG, Returned]),
    "finished Raised": (lambda n, w: n.finished(1, Raised(w, "m"), now=1), [*wrong(str, Text)[:-2], 10**5000]),
    "finished message": (lambda n, w: n.finished(1, Raised("k", w), now=1), [None, 5, b"x"]),
    "finished traceback": (lambda n, w: n.finished(1, Raised("k", "m", w), now=1), [None, 5, b"x"]),
    "finished reason": (lambda n, w: n.finished(1, Lost(w), now=1), [None, 5, b"x"]),
    "finished not started": (lambda n, w: n.finished(1, NotStarted(w), now=1), [None, 5, b"x"]),
    "finished began": (lambda n, w: n.finished(1, Returned(1), now=1, began=w), wrong(int)[1:]),
    "submit": (lambda n, w: n.submit(w, now=1), WRONG),
    "cancel": (lambda n, w: n.cancel(w, now=1), wrong(int)[:-1]),
    "offer": (lambda n, w: n.offer(w, now=1), WRONG),
    "withdraw": (lambda n, w: n.withdraw(w, now=1), WRONG),
    "set_resources": (lambda n, w: n.set_resources(w, now=1), wrong(list, set)),
    "advertise": (lambda n, w: n.advertise(w, now=1), wrong(list, set)),
    "view": (lambda n, w: n.view(now=w), wrong(int)),
    "wake": (lambda n, w: n.wake(now=w), [*wrong(int), 1 << 62, -(1 << 62)]),
}
for field, kind in (("version", str), ("signature", str), ("doc", str), ("idempotent", bool), ("inline", bool)):
    MISUSES[f"offer {field}"] = (
        lambda n, w, field=field: n.offer(msgspec.structs.replace(SPEC, **{field: w}), now=1),  # type: ignore[misc]
        wrong(kind),
    )
for field, kind in (
    ("timeout", int),
    ("wait", int),
    ("partial", bool),
    ("caller", str),
    ("to", bytes),
    ("inputs", dict),
):
    MISUSES[f"submit {field}"] = (
        lambda n, w, field=field: n.submit(msgspec.structs.replace(REQUEST, **{field: w}), now=1),  # type: ignore[misc]
        [one for one in wrong(kind) if type(one) is not int and not (one is None and field == "timeout")],
    )
for field, kind in (("name", str), ("function", str), ("args", bytes), ("dependencies", tuple), ("version", str)):
    MISUSES[f"submit call {field}"] = (
        lambda n, w, field=field: n.submit(  # type: ignore[misc]
            Request(0, (msgspec.structs.replace(REQUEST.calls[0], **{field: w}),)), now=1
        ),
        [one for one in wrong(kind) if not (one is None and field == "version")],
    )


@pytest.mark.parametrize("misuse", MISUSES)
def test_argument_of_another_type(misuse: str) -> None:
    """A call runs, and there are links of bytes and of objects: a wrong value could be taken for one of theirs."""
    one = node()
    one.offer(FunctionSpec(name="f"), now=0)
    one.link_opened(LinkId(1), framing=Framing.STREAM, dialled=None, now=0)
    one.link_opened(LinkId(2), framing=Framing.OBJECTS, dialled=None, now=0)
    one.submit(REQUEST, now=0)
    one.drain()
    act, values = MISUSES[misuse]
    for value in values:
        refused(one, lambda value=value: act(one, value), "")  # type: ignore[misc]
    one.finished(RunId(1), Returned(1), now=1)


SESSION_MISUSES: dict[str, tuple[Callable[[Any, Any], object], list[Any]]] = {
    "link_opened address": (lambda s, w: s.link_opened(9, framing=Framing.STREAM, address=w, now=1), wrong(str)),
    "link_opened link": (lambda s, w: s.link_opened(w, framing=Framing.STREAM, address="x", now=1), [*wrong(int), 0]),
    "receive": (lambda s, w: s.receive(w, b"", now=1), wrong(int)),
    "handle": (lambda s, w: s.handle(w, GetView(1), now=1), wrong(int)),
    "progress": (lambda s, w: s.progress(w, now=1), wrong(int)),
    "link_closed": (lambda s, w: s.link_closed(w, now=1), wrong(int)),
    "submit": (lambda s, w: s.submit(w, now=1), WRONG),
    "submit timeout": (lambda s, w: s.submit(Request(0, (), timeout=w), now=1), wrong(int)[1:-1]),
    "submit args": (lambda s, w: s.submit(Request(0, (Call("x", "f", w),)), now=1), wrong(bytes)),
    "explain": (lambda s, w: s.explain(w, now=1), WRONG),
    "cancel": (lambda s, w: s.cancel(w, now=1), wrong(int)[:-1]),
    "unreachable": (lambda s, w: s.unreachable(w), [None, 5, b"x", Text("x")]),
    "fail_all": (lambda s, w: s.fail_all(w), [*WRONG, Fault]),
    "wake": (lambda s, w: s.wake(now=w), wrong(int)),
}


@pytest.mark.parametrize("misuse", SESSION_MISUSES)
def test_argument_of_another_type_to_a_session(misuse: str) -> None:
    session = ClientSession()
    if not misuse.startswith("link_opened"):
        session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address("x"), now=0)
    session.submit(REQUEST, now=0)
    act, values = SESSION_MISUSES[misuse]
    for value in values:
        before = deep_state(session)
        with pytest.raises(LocalProtocolError):
            act(session, value)
        assert deep_state(session) == before


@pytest.mark.parametrize(
    "arguments",
    [{"rng": None}, {"rng": 1}, {"entropy": None}, {"now": 1.5}, {"now": 1 << 62}, {"codec": 5}],
)
def test_node_of_wrong_arguments(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"me": MemberId(b"m" * 16), "rng": Rng(1), "entropy": bytes, "now": 0}
    with pytest.raises(LocalProtocolError):
        Node(NodeConfig(), **{**good, **arguments})


@pytest.mark.parametrize(
    "arguments", [{"name": None}, {"cluster_id": 5}, {"limits": 5}, {"codec": 5}, {"alternatives": 1.5}]
)
def test_session_of_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        ClientSession(**arguments)


def test_list_that_its_caller_changes_later() -> None:
    resources = ["gpu"]
    one = node(seeds=["mem://a"], resources={"b", "a"})
    one.set_resources(resources, now=1)  # type: ignore[arg-type]
    one.offer(FunctionSpec(name="f", resources=resources), now=1)  # type: ignore[arg-type]
    resources.append("tpu")
    assert one.config.seeds == ("mem://a",) and one.config.resources == ("a", "b")
    assert one.view(now=1).members[0].resources == ("gpu",)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copy_of_a_machine(copied: Callable[[object], object]) -> None:
    for one in (node(), ClientSession()):
        with pytest.raises(TypeError, match="cannot copy or pickle"):
            copied(one)


def test_tap_that_raises_loses_no_effect() -> None:
    tap = Calling()
    one = Node(
        NodeConfig(seeds=(Address("mem://a"),)), me=MemberId(b"m" * 16), rng=Rng(1), entropy=bytes, now=0, tap=tap
    )
    tap.act = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        one.drain()
    tap.act = lambda: None
    assert one.drain()


def test_questions_from_a_callback() -> None:
    tap = Calling()
    one = Node(NodeConfig(), me=MemberId(b"m" * 16), rng=Rng(1), entropy=bytes, now=0, tap=tap)
    for act in (one.next_timeout, lambda: one.view(now=1)):
        tap.act = act
        one.wake(now=1)
    assert len(tap.errors) == 2


def test_run_is_cancelled_once() -> None:
    """asyncio.Task.cancel, called again, would end the clean-up that the first one has begun."""
    harness = NodeHarness([spec("f")])
    number = harness.node.submit(Request(0, (call("x", "f"),)), now=harness.now)
    harness.node.drain()
    harness.node.cancel(number, now=harness.now)
    harness.node.leave(now=harness.now)
    harness.node.leave(now=harness.now)
    assert [type(one) for one in harness.node.drain()].count(Cancel) == 1


def test_node_that_has_left_needs_no_timer() -> None:
    one = node(seeds=(Address("mem://a"),))
    one.leave(now=1)
    one.drain()
    assert one.left and one.next_timeout() is None
