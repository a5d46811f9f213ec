"""The loop that drives a node, without sockets: failed dials, links that do not end, calls from within."""

import json
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mpreg_proto.effects import Dial, Framing
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_transports.functions.execution import Function, function
from mpreg_transports.links.base import Buffer, Link, LinkEnded
from mpreg_transports.runtime import driver as module
from mpreg_transports.runtime.clock import clock
from mpreg_transports.runtime.driver import Driver
from tests.helpers.blocking_functions import PATIENCE, BlockingCoroutine, BlockingThread

pytestmark = pytest.mark.anyio

caller: ContextVar[str] = ContextVar("caller", default="")
BODIES = (("first", lambda: 1), ("last", lambda: 3))
QUICK = Limits(dial_first=MILLISECOND, dial_longest=2 * MILLISECOND, hang_up=10 * MILLISECOND)


async def nobody(address: Address) -> Link:
    raise LinkEnded("nobody is there")


def driven(
    *functions: Function, dial: Callable[[Address], Awaitable[Link]] = nobody, seeds: tuple[str, ...] = ()
) -> Driver:
    """Return a driver of a new node."""
    config = NodeConfig(seeds=tuple(map(Address, seeds)), limits=QUICK)
    node = Node(config, me=MemberId(b"m" * 16), rng=Rng(1), entropy=os.urandom, now=clock())
    for one in functions:
        node.offer(one.spec, now=clock())
    return Driver(node, functions={one.spec.name: one for one in functions}, dial=dial, observe=lambda notice: None)


def leave(driver: Driver) -> None:
    driver.node.leave(now=clock())
    if not driver.node.left:
        driver.node.leave(now=clock())
    driver.flush()


class Deaf(Link):
    """A link whose peer neither reads nor writes. `given` is received first; `takes`: short writes never wait."""

    framing = Framing.STREAM
    peer = "deaf"

    def __init__(self, given: bytes = b"", *, takes: bool = False, closes: bool = True) -> None:
        self.sent: list[bytes] = []
        self.closed = anyio.Event()
        self.stuck = anyio.Event()
        self._given = given
        self._takes = takes
        self._closes = closes

    async def receive(self) -> Sequence[bytes]:
        await anyio.lowlevel.checkpoint()
        if self._given:
            given, self._given = self._given, b""
            return (given,)
        await self.closed.wait()
        raise LinkEnded("closed here", clean=True)

    async def send(self, chunks: Sequence[Buffer]) -> None:
        self.stuck.set()
        await anyio.sleep_forever()

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        if self._takes:
            self.sent.append(b"".join(chunks))
        return self._takes

    async def close(self, code: int = 1000) -> None:
        await anyio.lowlevel.checkpoint()
        if self._closes:
            self.closed.set()


def request(*calls: str) -> bytes:
    """Return one request per call, in the classic dialect on raw frames."""
    frames = b""
    for name in calls:
        body = json.dumps({"role": "rpc", "cmds": [{"name": "x", "fun": name}], "u": name}).encode()
        frames += struct.pack(">I", len(body)) + body
    return frames


# -- dials ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [LinkEnded("refused"), ValueError("bad address"), RuntimeError("a defect"), OSError()]
)
async def test_failed_dial_is_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    dialled: list[str] = []
    thrice = anyio.Event()

    async def dial(address: Address) -> Link:
        dialled.append(address)
        if len(dialled) == 3:
            thrice.set()
        raise error

    driver = driven(dial=dial, seeds=("somewhere",))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            await thrice.wait()
            leave(driver)
            await driver.ended.wait()
    assert set(dialled) == {"somewhere"}
    assert ("a defect while dialling it" in caplog.text) is not isinstance(error, LinkEnded)


# -- links that do not end ---------------------------------------------------------------------------------------------


async def test_leaving_node_closes_a_link_whose_peer_does_not_read() -> None:
    driver, link = driven(function(lambda: 1, name="f", inline=True)), Deaf(request("f"))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            await link.stuck.wait()
            leave(driver)
            await driver.ended.wait()
    assert link.closed.is_set()


async def test_leaving_node_ends_with_a_link_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 10 * MILLISECOND)
    driver, link = driven(function(lambda: 1, name="f", inline=True)), Deaf(request("f"), closes=False)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            await link.stuck.wait()
            leave(driver)
            await driver.ended.wait()
            tasks.cancel_scope.cancel()
    assert not link.closed.is_set()


# -- failures in an effect ---------------------------------------------------------------------------------------------


async def test_observers_that_raise(caplog: pytest.LogCaptureFixture) -> None:
    def raises(*_: object) -> None:
        raise LookupError("no")

    def fails() -> None:
        raise ValueError("body")

    link = Deaf(request("first", "fails", "last"), takes=True)
    driver = driven(*(function(call, name=name, inline=True) for name, call in (*BODIES, ("fails", fails))))
    driver._observe = driver.on_failure = driver.on_local_host = raises
    await carried_out(driver, link)
    assert [b'"u":"%s"' % name in link.sent[0] for name in (b"first", b"fails", b"last")] == [True] * 3
    assert "a defect while carrying out Notify" in caplog.text
    assert "a defect while reporting that fails failed" in caplog.text


async def test_function_that_cannot_be_started_is_an_error_of_its_call(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Function):
        def start(self, *args: object, **kwargs: object) -> Any:  # type: ignore[override]
            raise LookupError("no")

    odd = function(lambda: 1, name="odd")
    link = Deaf(request("first", "odd"), takes=True)
    driver = driven(function(lambda: 1, name="first", inline=True), Odd(odd.call, odd.spec, mode=odd.mode))
    await carried_out(driver, link)
    sent = b"".join(link.sent)
    assert b'"code":1003' in sent and b'"u":"odd"' in sent and b'"u":"first"' in sent
    assert driver.node.worker.running == 0
    assert "a defect while carrying out Run" in caplog.text


async def test_dial_that_cannot_be_started_has_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver, failed = driven(), list[str]()

    def refuse(*given: object) -> None:
        raise RuntimeError("no task")

    def record(address: Address, *, now: int) -> None:
        failed.append(address)

    monkeypatch.setattr(driver, "_spawn", refuse)
    monkeypatch.setattr(driver.node, "drain", iter([[Dial(Address("ws://a:1"))], []]).__next__)
    monkeypatch.setattr(driver.node, "dial_failed", record)
    driver.flush()
    assert failed == ["ws://a:1"]
    assert "a defect while carrying out Dial" in caplog.text


async def test_link_that_cannot_be_written_to_ends_alone() -> None:
    class Odd(Deaf):
        def send_now(self, chunks: Sequence[Buffer]) -> bool:
            raise LookupError("no")

    odd, link = Odd(request("f")), Deaf(request("f"), takes=True)
    driver = driven(function(lambda: 1, name="f", inline=True))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, odd)
            await odd.closed.wait()
            tasks.start_soon(driver.pump, link)
            while not link.sent:
                await anyio.lowlevel.checkpoint()
            leave(driver)
            await driver.ended.wait()


async def test_call_of_a_function_withdrawn_before_its_start() -> None:
    link = Deaf(request("f"), takes=True)
    driver = driven(function(lambda: 1, name="f", inline=True))
    driver._functions.clear()
    await carried_out(driver, link)
    assert b'"code":1022' in link.sent[0] and b"withdrawn" in link.sent[0]


async def carried_out(driver: Driver, link: Deaf) -> None:
    """Let the driver answer the requests of the link, and leave."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            while not link.sent:
                await anyio.lowlevel.checkpoint()
            leave(driver)
            await driver.ended.wait()


# -- calls from within -------------------------------------------------------------------------------------------------


async def test_effects_caused_within_an_effect_come_after_it() -> None:
    seen: list[int] = []
    done = anyio.Event()

    def inner() -> None:
        driver.flush()
        seen.append(len(link.sent))
        done.set()

    link = Deaf(request("first", "inner", "last"), takes=True)
    driver = driven(*(function(call, name=name, inline=True) for name, call in BODIES), function(inner, inline=True))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            await done.wait()
            while not link.sent:
                await anyio.lowlevel.checkpoint()
            leave(driver)
            await driver.ended.wait()
    assert seen == [0]
    (answers,) = link.sent
    places = [answers.index(b'"u":"%s"' % name) for name in (b"first", b"inner", b"last")]
    assert places == sorted(places)


async def test_effects_run_outside_the_context_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def body() -> None:
        caller.set("a call")
        driver.flush()
        raise ValueError

    driver = driven(function(body, name="f"))
    carry_out = driver._apply_effects
    monkeypatch.setattr(driver, "_apply_effects", lambda: (seen.append(caller.get()), carry_out()))
    driver.on_failure = lambda function, raised: seen.append(function + caller.get())
    await carried_out(driver, Deaf(request("f"), takes=True))
    assert set(seen) == {"", "f"}


async def test_hook_for_local_hosts_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def fails(host: str, dialled: Address | None) -> None:
        raise ValueError("a defect")

    driver, link = driven(function(lambda: 1, name="f", inline=True)), Deaf(request("f"), takes=True)
    link.local_host = "127.0.0.1"
    driver.on_local_host = fails
    await carried_out(driver, link)
    assert "a defect while reporting an address of this machine" in caplog.text


# -- the end ----------------------------------------------------------------------------------------------------------


async def test_waits_for_links_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has left waits for its links with a few checks a second; it does not wake without a pause."""
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 500 * MILLISECOND)
    driver, link = driven(function(lambda: 1, name="f", inline=True)), Deaf(request("f"), closes=False)
    wakes = 0
    wake = driver.node.wake

    def counted(*, now: int) -> None:
        nonlocal wakes
        wakes += 1
        wake(now=now)

    monkeypatch.setattr(driver.node, "wake", counted)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            await link.stuck.wait()
            leave(driver)
            wakes = 0
            await driver.ended.wait()
            tasks.cancel_scope.cancel()
    assert 0 < wakes < 20


async def test_exchange_ends_with_the_node() -> None:
    """An application may await `exchange` in a task of its own, which a cancelled driver does not cancel."""
    body, ended = BlockingCoroutine(), anyio.Event()
    driver = driven(function(body.body, name="held"))
    asks = b'{"role":"rpc","cmds":[{"name":"x","fun":"held"}]}'

    async def exchanged() -> None:
        with suppress(LinkEnded):  # or the answer that its call was cancelled
            await driver.exchange(asks)
        ended.set()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as outside, anyio.create_task_group() as tasks:
            await tasks.start(driver.run)
            outside.start_soon(exchanged)
            await body.until(started=1)
            tasks.cancel_scope.cancel()
        await ended.wait()
        with pytest.raises(LinkEnded, match="the node has ended"):
            await driver.exchange(asks)


async def test_messages_of_one_host_take_turns_as_one_client() -> None:
    body = BlockingCoroutine()
    driver = driven(function(body.body, name="held"))
    asks = b'{"role":"rpc","cmds":[{"name":"x","fun":"held"}]}'
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(driver.run)
            for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "", ""):
                tasks.start_soon(driver.exchange, asks, host)
            await body.until(started=5)
            clients = [one.client for one in driver.node.coordinator.requests.values()]
            assert len(clients) == 5 and len(set(clients)) == 4
            body.release()
            await body.until(ended=5)
            tasks.cancel_scope.cancel()


async def test_hosts_that_are_remembered_are_bounded() -> None:
    driver = driven(function(BlockingCoroutine().body, name="held"))
    for number in range(2000):
        assert driver._client_at("first", LinkId(1 + number)) == 1
        driver._client_at(f"host {number}", LinkId(1 + number))
    assert len(driver._hosts) == 1024


async def test_end_does_not_wait_for_links_that_come_now() -> None:
    driver, late = driven(), Deaf(closes=False)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            stuck = Deaf(closes=False)
            tasks.start_soon(driver.pump, stuck)
            await stuck.stuck.wait()
            leave(driver)
            await driver.pump(late)
            assert late.sent == []
            tasks.cancel_scope.cancel()


async def test_outcomes_of_one_turn_are_one_write() -> None:
    go = anyio.Event()

    async def at_once() -> int:
        return 1

    async def later() -> int:
        await go.wait()
        return 1

    names = [f"{kind} {number}" for kind in ("at once", "later") for number in range(3)]
    bodies = [function(at_once if name.startswith("at") else later, name=name) for name in names]
    driver, link = driven(*bodies), Deaf(request(*names), takes=True)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, link)
            while not link.sent:
                await anyio.lowlevel.checkpoint()
            go.set()
            while len(link.sent) < 2:
                await anyio.lowlevel.checkpoint()
            leave(driver)
            await driver.ended.wait()
    first, last = link.sent[:2]
    assert [first.count(b'"u":"at once'), first.count(b'"u":"later')] == [3, 0]
    assert [last.count(b'"u":"at once'), last.count(b'"u":"later')] == [0, 3]


async def test_coroutine_that_ends_with_the_node_is_not_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    body = BlockingCoroutine()
    driver = driven(function(body.body, name="held"))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, Deaf(request("held"), takes=True))
            await body.until(started=1)
            body.release()
            await body.until(ended=1)
            tasks.cancel_scope.cancel()
    assert driver._running == {}
    assert driver._ended_runs == []
    assert caplog.messages == []


async def test_queued_body_does_not_start_at_the_end_of_the_node() -> None:
    """The end of a cancelled body makes its slot free, but nothing would end the next one."""
    body = BlockingCoroutine()
    driver = driven(function(body.body, name="held", concurrency=1))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, Deaf(request("held", "held"), takes=True))
            await body.until(started=1)
            tasks.cancel_scope.cancel()
        body.release()
        await anyio.wait_all_tasks_blocked()
    assert (body.started, driver._ended_runs) == (1, [])


async def test_outcome_of_a_thread_after_the_end_is_not_kept() -> None:
    """Whoever keeps the driver of an ended node does not keep results that came later."""
    body = BlockingThread()
    driver = driven(function(body.body, name="held"))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            tasks.start_soon(driver.pump, Deaf(request("held"), takes=True))
            await body.next_start()
            tasks.cancel_scope.cancel()
        body.release()
        with anyio.move_on_after(0.05):
            while not driver._ended_runs:  # noqa: ASYNC110 - nothing should come
                await anyio.sleep(0.001)
    assert driver._ended_runs == []
