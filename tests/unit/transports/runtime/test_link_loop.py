"""The links of one core: one reader and one writer each, writes joined by lane, and links that end alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from mpreg_proto.effects import Framing, HangUp, KeepAlive, Lane, Pause, Resume, Send
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import LinkId
from mpreg_transports.links.base import Buffer, Link, LinkEnded
from mpreg_transports.runtime.link_loop import LinkLoop
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio


class Recorder:
    """A core that records its inputs."""

    def __init__(self) -> None:
        self.inputs: list[tuple[object, ...]] = []

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        self.inputs.append(("receive", link, data))

    def progress(self, link: LinkId, *, now: int) -> None:
        self.inputs.append(("progress", link))

    def link_closed(self, link: LinkId, *, now: int) -> None:
        self.inputs.append(("closed", link))


class Piped(Link):
    """A link whose incoming messages are put into `incoming`; None ends it. Short writes never wait."""

    framing = Framing.NATIVE_MESSAGES
    peer = "peer"

    def __init__(self, *, broken: bool = False) -> None:
        self.sender, self.receiver = anyio.create_memory_object_stream[bytes | None](10)
        self.written: list[bytes] = []
        self.codes: list[int] = []
        self.closed = anyio.Event()
        self._broken = broken

    async def receive(self) -> Sequence[bytes]:
        try:
            message = await self.receiver.receive()
        except (anyio.ClosedResourceError, anyio.EndOfStream):
            raise LinkEnded("closed here", clean=True) from None
        if message is None:
            raise LinkEnded("the peer has left", clean=True)
        return [message]

    async def send(self, chunks: Sequence[Buffer]) -> None:
        raise AssertionError("all writes here are short")

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        if self._broken:
            raise ValueError("a defect")
        self.written.append(b"|".join(bytes(chunk) for chunk in chunks))
        return True

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        self.codes.append(code)
        if not self.closed.is_set():
            self.closed.set()
            self.sender.close()
            self.receiver.close()


async def passes(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_link_from_its_beginning_to_its_end() -> None:
    core, link, steps = Recorder(), Piped(), list[str]()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        link.on_partial()
        await link.sender.send(b"one")
        await link.sender.send(None)
        await loop.run(number, link, begin=lambda: steps.append("begin"), end=lambda: steps.append("end"))
    assert (steps, len(loop)) == (["begin", "end"], 0)
    assert core.inputs == [("progress", 1), ("receive", 1, b"one"), ("closed", 1)]
    assert link.closed.is_set()


async def test_writes_of_one_wakeup_are_joined_by_lane() -> None:
    link = Piped()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(Recorder(), flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        for lane, text in ((Lane.CONTENT, b"a"), (Lane.CONTROL, b"ping"), (Lane.CONTENT, b"b")):
            loop.apply(Send(number, (text,), None, lane))
        loop.apply(Send(LinkId(9), (b"of no link",), None, Lane.CONTENT))
        assert link.written == []
        loop.write()
        assert link.written == [b"a|b", b"ping"]
        loop.apply(HangUp(number, CloseCode.GOING_AWAY))
        loop.write()
        tasks.start_soon(partial(loop.run, number, link, begin=lambda: None))
        await passes(link.closed.is_set)
        tasks.cancel_scope.cancel()
    assert link.codes[0] == CloseCode.GOING_AWAY


async def test_defect_while_writing_ends_one_link(caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = Piped(broken=True), Piped()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(Recorder(), flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        for link in (broken, sound):
            number = loop.attach(link)
            tasks.start_soon(partial(loop.run, number, link, begin=lambda: None))
            loop.apply(Send(number, (b"x",), None, Lane.CONTENT))
        loop.write()
        await passes(broken.closed.is_set)
        assert broken.codes[0] == CloseCode.INTERNAL_ERROR
        assert sound.written == [b"x"] and not sound.closed.is_set()
        tasks.cancel_scope.cancel()
    assert "a defect while writing to a link, which ends" in caplog.text


class Pinged(Piped):
    """A link with pings, which may be broken."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.broken_ping = broken

    async def keepalive(self) -> bool:
        self.asked.set()
        if self.broken_ping:
            raise ValueError("a defect")
        return True


async def test_silent_link_without_a_ping_counts_as_alive() -> None:
    core, link = Recorder(), Piped()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        loop.apply(KeepAlive(number))
        await passes(lambda: core.inputs == [("progress", number)])
    await link.close()


async def test_ping_of_a_silent_link() -> None:
    core, link = Recorder(), Pinged()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        loop.apply(KeepAlive(number))
        loop.apply(KeepAlive(LinkId(9)))
        await link.asked.wait()
    await link.close()
    assert core.inputs == [], "its pong will be the progress"


async def test_defect_of_a_ping_ends_that_link_alone(caplog: pytest.LogCaptureFixture) -> None:
    core, link = Recorder(), Pinged(broken=True)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
            number = loop.attach(link)
            tasks.start_soon(partial(loop.run, number, link, begin=lambda: None))
            loop.apply(KeepAlive(number))
    assert link.closed.is_set() and core.inputs[-1] == ("closed", number)
    assert "a defect while asking a link for a sign of life" in caplog.text


async def test_paused_link_is_read_once_it_is_resumed() -> None:
    core, link = Recorder(), Piped()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        loop.apply(Pause(number))
        tasks.start_soon(lambda: loop.run(number, link, begin=lambda: core.inputs.append(("begin",))))
        await link.sender.send(b"one")
        await passes(lambda: bool(core.inputs))
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert core.inputs == [("begin",)]
        loop.apply(Resume(number))
        await passes(lambda: len(core.inputs) == 2)
        assert core.inputs[1] == ("receive", number, b"one")
        tasks.cancel_scope.cancel()
    assert core.inputs[2:] == [("closed", number)]


async def test_reply_slot_is_a_link_without_a_transport() -> None:
    core = Recorder()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(core, flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        link, slot = loop.open_slot()
        loop.apply(Send(link, (b"answer",), None, Lane.CONTENT))
        loop.write()
        assert await slot.answer() == b"answer"
        loop.end(link)
    assert core.inputs == [("closed", link)] and len(loop) == 0


async def test_transport_is_closed_whatever_the_core_raises() -> None:
    class Failing(Recorder):
        def link_closed(self, link: LinkId, *, now: int) -> None:
            raise ValueError("a defect")

    link, ended = Piped(), list[bool]()
    async with anyio.create_task_group() as tasks:
        loop = LinkLoop(Failing(), flush=lambda: None, spawn=tasks.start_soon, clock=lambda: 0)
        number = loop.attach(link)
        await link.sender.send(None)
        with pytest.raises(ValueError, match="a defect"):
            await loop.run(number, link, begin=lambda: None, end=lambda: ended.append(True))
    assert link.closed.is_set() and ended == [True]
