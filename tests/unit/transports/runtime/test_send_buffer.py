"""Output of one link: control first, in few writes, for as long as the peer takes bytes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from mpreg_proto.client import ClientSession
from mpreg_proto.effects import Framing, Lane, Send
from mpreg_proto.errors import CloseCode
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_transports.links.base import Buffer, Link, LinkEnded
from mpreg_transports.runtime import send_buffer
from mpreg_transports.runtime.link_loop import LinkLoop
from mpreg_transports.runtime.send_buffer import (
    BATCH,
    CHECK_SECONDS,
    CONTROL_WRITES,
    SHORT,
    SMALLEST_BATCH,
    WRITE_SECONDS,
    ProgressMonitor,
    ReplySlot,
    SendBuffer,
)
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio


def unwatched(look: object) -> None:
    """Start no check: the test calls `check_progress`."""


class Reluctant(Link):
    """A link that takes short chunks at once if `ready`, and others once `go` is set; `sent` holds each write."""

    framing = Framing.STREAM
    peer = "the peer"

    def __init__(self) -> None:
        self.ready = False
        self.go = anyio.Event()
        self.began = anyio.Event()
        self.sent: list[bytes] = []
        self.closed: list[int] = []
        self.broken = False
        self.written = 0
        self.acked = 0
        self.unsent = 0
        self.paces: list[int] = []

    def pace(self, size: int) -> None:
        self.paces.append(size)

    @property
    def written_bytes(self) -> int:
        return self.written

    @property
    def acked_bytes(self) -> int:
        return self.acked

    @property
    def unsent_bytes(self) -> int:
        return self.unsent

    async def receive(self) -> Sequence[bytes]:
        raise NotImplementedError

    async def send(self, chunks: Sequence[Buffer]) -> None:
        self.began.set()
        await self.go.wait()
        if self.broken:
            raise LinkEnded("connection lost")
        self.sent.append(b"".join(chunks))

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        if self.ready:
            self.sent.append(b"".join(chunks))
        return self.ready

    async def close(self, code: int = 1000) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed.append(code)


@asynccontextmanager
async def running(box: SendBuffer) -> AsyncIterator[None]:
    """Run the writer beside, to its end."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(box.run)
            yield


async def passes(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


def looks(box: SendBuffer, count: int) -> None:
    for _ in range(count):
        box.check_progress()


STALLED = round(DEFAULT.stalled / SECOND / send_buffer.CHECK_SECONDS) + 1
CLOSING = round(DEFAULT.hang_up / SECOND / send_buffer.CHECK_SECONDS) + 1


async def test_short_messages_leave_at_once() -> None:
    link = Reluctant()
    link.ready = True
    SendBuffer(link, monitor=ProgressMonitor(unwatched)).put([(b"ab",), (b"c",)])
    assert link.sent == [b"abc"]


async def test_short_messages_do_not_overtake_long_ones() -> None:
    link, long = Reluctant(), b"x" * (SHORT + 1)
    link.ready = True
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    link.go.set()
    box.put([(long,)])
    box.put([(b"short",)])
    assert link.sent == []
    box.close(1000)
    async with running(box):
        pass
    assert link.sent == [long + b"short"]
    assert link.closed == [1000]


async def test_control_overtakes_content_between_messages() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    async with running(box):
        box.put([(b"head", b"x" * BATCH), (b"second", b"y" * BATCH)])
        await link.began.wait()
        box.put([(b"pi", b"ng")], Lane.CONTROL)
        box.put([(b"pong",)], Lane.CONTROL)
        link.go.set()
        box.close(1000)
    assert link.sent == [b"head" + b"x" * BATCH, b"pingpongsecond" + b"y" * BATCH]


async def test_content_leaves_between_control_messages_without_end() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    link.go.set()
    box.put([(b"c" * BATCH,)] * (2 * CONTROL_WRITES), Lane.CONTROL)
    box.put([(b"v" * BATCH,)] * 2)
    box.close(1000)
    async with running(box):
        pass
    assert [write[:1] for write in link.sent] == [b"c"] * CONTROL_WRITES + [b"v"] + [b"c"] * CONTROL_WRITES + [b"v"]


@pytest.mark.parametrize(("bandwidth", "batch"), [(4_000, SMALLEST_BATCH), (1_000_000, 50_000), (100_000_000, BATCH)])
async def test_length_of_a_write_by_the_measured_bandwidth(bandwidth: int, batch: int) -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"x" * 1_000,)] * 1_000)
    for check in range(1, 20):
        link.acked = round(check * bandwidth * CHECK_SECONDS)
        box.check_progress()
    assert link.paces == ([] if batch == BATCH else [batch])
    link.go.set()
    box.close(1000)
    async with running(box):
        pass
    assert {len(write) for write in link.sent[:-1]} <= {-(-batch // 1_000) * 1_000}
    assert batch in (BATCH, SMALLEST_BATCH) or batch / bandwidth == WRITE_SECONDS


async def test_bandwidth_is_not_measured_while_nothing_waits() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    for check in range(1, 20):
        link.written = link.acked = 100 * check
        box.check_progress()
    assert link.paces == []


async def test_gathered_messages_leave_in_one_write() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"first",)])
    async with running(box):
        await link.began.wait()
        link.ready = True  # a write is in progress, so no other may start beside it
        box.put([(b"a",)])
        box.put([(b"b",), (b"c",)])
        box.close(1001)
        link.go.set()
    assert link.sent == [b"first", b"abc"]
    assert link.closed == [1001]


@pytest.mark.parametrize("ready", [True, False])
async def test_messages_after_close_are_dropped(ready: bool) -> None:
    link = Reluctant()
    link.ready = ready
    link.go.set()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.close(1008)
    box.put([(b"late",)])
    box.close(1000)
    async with running(box):
        pass
    assert (link.sent, link.closed) == ([], [1008])


async def test_close_ends_when_the_peer_takes_nothing() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"never read",)])
    async with running(box):
        await link.began.wait()
        box.close(1001)
        looks(box, CLOSING + 1)
    assert (link.sent, link.closed) == ([], [1001])


async def test_silence_before_a_close_does_not_count_after_it() -> None:
    """A peer that stands still when its node leaves has as long as any other to go on."""
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"read late",)])
    async with running(box):
        await link.began.wait()
        looks(box, STALLED - 3)
        box.close(1000)
        looks(box, CLOSING - 2)
        await anyio.wait_all_tasks_blocked()
        assert link.closed == []
        link.go.set()
    assert (link.sent, link.closed) == ([b"read late"], [1000])


async def test_close_waits_while_the_peer_takes_bytes() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"slow",)])
    async with running(box):
        await link.began.wait()
        box.close(1000)
        for _ in range(10):
            looks(box, CLOSING - 2)
            link.acked += 1
            looks(box, 1)
            assert box.moving
        link.unsent = 4
        link.go.set()
        await passes(lambda: link.sent != [])
        assert link.closed == [], "the system has not taken all of it"
        link.unsent = 0
    assert (link.sent, link.closed) == ([b"slow"], [1000])


async def test_slow_consumer_is_closed_without_progress(caplog: pytest.LogCaptureFixture) -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    async with running(box):
        box.put([(b"x" * 100,)])
        await link.began.wait()
        looks(box, STALLED - 2)
        link.acked = 1
        looks(box, STALLED - 1)
        assert link.closed == []
        looks(box, 2)
    assert link.closed == [CloseCode.TRY_AGAIN_LATER]
    assert "the peer: takes nothing, 100 bytes are unsent; hung up" in caplog.text


async def test_progress_of_a_link_that_reports_only_its_writes() -> None:
    class OnlyWrites(Reluctant):
        acked_bytes = None  # type: ignore[assignment]

    link, progress = OnlyWrites(), list[int]()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched), progress=lambda: progress.append(len(link.sent)))
    async with running(box):
        box.put([(b"x" * 100,)])
        await link.began.wait()
        looks(box, 1)
        link.go.set()
        await passes(lambda: link.sent != [])
        looks(box, 1)
        assert progress == [1]
        box.close(1000)


async def test_backlog_size_alone_closes_no_link() -> None:
    link = Reluctant()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    async with running(box):
        chunk = bytes(1024 * 1024)
        for count in range(1, 1000):
            box.put([(chunk,)])
            link.acked = count
            looks(box, 1)
        assert link.closed == []
        link.broken = True
        link.go.set()


async def test_progress_is_reported_while_the_peer_takes_bytes() -> None:
    link, progress_at = Reluctant(), list[int]()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched), progress=lambda: progress_at.append(link.acked))
    async with running(box):
        box.put([(b"x" * 100,)])
        await link.began.wait()
        link.written, link.acked = 100, 10
        looks(box, 2)
        assert progress_at == [], "the first look only sees where it stands"
        link.acked = 30
        looks(box, 2)
        assert progress_at == [30]
        link.go.set()
        await passes(lambda: link.sent != [])
        assert box.check_progress(), "what the system holds is not taken yet"
        link.acked = 100
        assert box.check_progress()
        assert progress_at == [30, 100]
        assert not box.check_progress()
        box.close(1000)


async def test_monitor_checks_until_all_bytes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_buffer, "CHECK_SECONDS", 1e-9)
    link, progress_at = Reluctant(), list[int]()
    async with anyio.create_task_group() as tasks:
        monitor = ProgressMonitor(tasks.start_soon)
        monitor.start()
        box = SendBuffer(link, monitor=monitor, progress=lambda: progress_at.append(link.acked))
        tasks.start_soon(box.run)
        box.put([(b"x" * 100,)])
        link.written = 100
        while not progress_at:
            link.acked = min(100, link.acked + 1)
            await anyio.lowlevel.checkpoint()
        link.go.set()
        link.acked = 100
        await passes(lambda: box not in monitor._waiting)
        box.close(1000)
        await passes(lambda: bool(link.closed))
        tasks.cancel_scope.cancel()


async def test_link_end_ends_the_writer() -> None:
    link = Reluctant()
    link.broken = True
    link.go.set()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched))
    box.put([(b"x",)])
    async with running(box):
        pass
    assert (link.sent, link.closed) == ([], [])


async def test_reply_slot_holds_one_answer() -> None:
    reply_slot = ReplySlot()
    reply_slot.put([(b"answer",)])
    reply_slot.close(1000)
    assert await reply_slot.answer() == b"answer"


async def test_reply_slot_closed_empty() -> None:
    reply_slot = ReplySlot()
    reply_slot.close(1001)
    with pytest.raises(LinkEnded, match="the node is leaving"):
        await reply_slot.answer()


async def test_backlog_and_its_end_are_reported_once() -> None:
    link, said = Reluctant(), list[int]()
    box = SendBuffer(link, monitor=ProgressMonitor(unwatched), high_water=100, backlog=said.append)
    async with running(box):
        box.put([(b"x" * 99,)])
        await link.began.wait()
        assert said == []
        box.put([(b"x",)])
        box.put([(b"x" * 99,)])
        assert said == [100], "no further multiple of 100"
        box.put([(b"x",)])
        assert said == [100, 200]
        link.go.set()
        await passes(lambda: said[-1] == 0)
        assert said == [100, 200, 101, 0]
        link.go = anyio.Event()
        box.put([(b"x" * 101,)])
        assert said[4:] == [101]
        link.go.set()
        box.close(1000)
    assert said[4:] == [101, 0]


async def test_defect_of_one_link_ends_that_link_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(send_buffer, "CHECK_SECONDS", 0.001)

    class Defective(Reluctant):
        @property
        def acked_bytes(self) -> int:
            raise ValueError("a defect")

    broken, sound = Defective(), Reluctant()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            monitor = ProgressMonitor(tasks.start_soon)
            monitor.start()
            boxes = [SendBuffer(link, monitor=monitor) for link in (broken, sound)]
            for box in boxes:
                tasks.start_soon(box.run)
                box.put([(b"x",)])
            await passes(lambda: bool(broken.closed))
            assert broken.closed == [CloseCode.INTERNAL_ERROR] and not sound.closed
            tasks.cancel_scope.cancel()
    assert "a defect while checking what a link has written" in caplog.text


async def test_waiting_bytes_start_one_task_for_all() -> None:
    """A task that is cancelled before its first step, as at the end of asyncio.run, leaves an unawaited coroutine."""
    spawned: list[object] = []
    links = LinkLoop(ClientSession(), flush=list, spawn=spawned.append, clock=int)
    links.start(idle=False)
    link = links.attach(Reluctant())
    assert not spawned
    for _ in range(2):
        links.apply(Send(link, (b"x",)))
        links.write()
    assert len(spawned) == 1
