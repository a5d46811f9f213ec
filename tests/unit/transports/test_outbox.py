"""What is to be written to one link: in order, in few writes, and closed in bounded time whatever the peer does."""

from collections.abc import Sequence

import anyio
import pytest

from mpreg_proto.effects import Framing
from mpreg_transports import outbox
from mpreg_transports.links.base import Buffer, LinkEnded
from mpreg_transports.outbox import SHORT, TRY_AGAIN_LATER, Mailbox, Outbox
from tests.helpers.held import PATIENCE

pytestmark = pytest.mark.anyio


class Reluctant:
    """A link that takes short chunks at once if `ready`, and others once `go` is set; `sent` holds each write."""

    framing = Framing.STREAM
    peer = "the peer"
    local_host: str | None = None

    def __init__(self) -> None:
        self.ready = False
        self.go = anyio.Event()
        self.began = anyio.Event()
        self.sent: list[bytes] = []
        self.closed: list[int] = []
        self.broken = False

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


async def to_its_end(box: Outbox) -> None:
    with anyio.fail_after(PATIENCE):
        await box.run()


async def test_what_is_short_goes_at_once_and_needs_no_writer() -> None:
    link = Reluctant()
    link.ready = True
    Outbox(link).put([b"ab", b"c"])
    assert link.sent == [b"abc"]


async def test_what_is_long_is_left_to_the_writer_and_what_is_short_does_not_overtake_it() -> None:
    link, long = Reluctant(), b"x" * (SHORT + 1)
    link.ready = True
    box = Outbox(link)
    link.go.set()
    box.put([long])
    box.put([b"short"])
    assert link.sent == []
    box.close(1000)
    await to_its_end(box)
    assert link.sent == [long + b"short"]
    assert link.closed == [1000]


async def test_all_that_gathers_during_a_write_leaves_in_the_next_one_before_the_end() -> None:
    link = Reluctant()
    box = Outbox(link)
    box.put([b"first"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        await link.began.wait()
        link.ready = True  # a write is under way, so nothing may be written beside it
        box.put([b"a"])
        box.put([b"b", b"c"])
        box.close(1001)
        link.go.set()
    assert link.sent == [b"first", b"abc"]
    assert link.closed == [1001]


@pytest.mark.parametrize("ready", [True, False])
async def test_what_comes_after_close_is_dropped_and_the_first_code_counts(ready: bool) -> None:
    link = Reluctant()
    link.ready = ready
    link.go.set()
    box = Outbox(link)
    box.close(1008)
    box.put([b"late"])
    box.close(1000)
    await to_its_end(box)
    assert (link.sent, link.closed) == ([], [1008])


async def test_a_peer_that_does_not_read_holds_up_the_close_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CLOSING_SECONDS", 0.01)
    link = Reluctant()
    box = Outbox(link)
    box.put([b"never read"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        await link.began.wait()
        box.close(1001)
    assert (link.sent, link.closed) == ([], [1001])


async def test_a_peer_that_reads_in_time_gets_all() -> None:
    link = Reluctant()
    box = Outbox(link)
    box.put([b"slow"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        await link.began.wait()
        box.close(1000, within=PATIENCE)
        link.go.set()
    assert (link.sent, link.closed) == ([b"slow"], [1000])


async def test_unsent_bytes_are_bounded_by_hanging_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MOST", 100)
    link = Reluctant()
    box = Outbox(link)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        box.put([b"x" * 60])
        await link.began.wait()
        box.put([b"x" * 40])
        assert "does not read" not in caplog.text
        box.put([b"x"])
    assert link.closed == [TRY_AGAIN_LATER]
    assert "the peer: does not read, 101 bytes are unsent; hung up" in caplog.text


async def test_only_what_is_unsent_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 100)
    link = Reluctant()
    box = Outbox(link)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        link.go.set()
        for count in range(1, 6):
            box.put([b"x" * 60])
            with anyio.fail_after(PATIENCE):
                while len(link.sent) < count:
                    await anyio.lowlevel.checkpoint()
        box.close(1000)
    assert (len(link.sent), link.closed) == (5, [1000])


async def test_a_link_that_ends_ends_the_writer_and_is_left_to_its_reader() -> None:
    link = Reluctant()
    link.broken = True
    link.go.set()
    box = Outbox(link)
    box.put([b"x"])
    await to_its_end(box)
    assert (link.sent, link.closed) == ([], [])


async def test_a_mailbox_holds_one_answer() -> None:
    mailbox = Mailbox()
    mailbox.put([b"answer"])
    mailbox.close(1000)
    assert await mailbox.answer() == b"answer"


async def test_a_mailbox_that_is_closed_empty() -> None:
    mailbox = Mailbox()
    mailbox.close(1001)
    with pytest.raises(LinkEnded, match="the node is leaving"):
        await mailbox.answer()


async def test_much_that_is_unsent_is_said_once_and_so_is_its_end() -> None:
    link, said = Reluctant(), list[int]()
    box = Outbox(link, much=100, backlog=said.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_its_end, box)
        box.put([b"x" * 99])
        await link.began.wait()
        assert said == []
        box.put([b"x"])
        box.put([b"x" * 100])
        assert said == [100]
        link.go.set()
        with anyio.fail_after(PATIENCE):
            while len(said) < 2:
                await anyio.lowlevel.checkpoint()
        link.go = anyio.Event()
        box.put([b"x" * 101])
        assert said == [100, 0, 101]
        link.go.set()
        box.close(1000)
    assert said == [100, 0, 101, 0]
