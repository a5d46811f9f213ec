"""The in-memory link: a byte stream with backpressure that can re-chunk and break."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_transports.links.base import Framing, Link, LinkEnded
from mpreg_transports.links.memory import BUFFERED, MemoryLink, pair

pytestmark = pytest.mark.anyio


async def everything(link: Link) -> list[bytes]:
    """Return all chunks until the end."""
    chunks = []
    try:
        while True:
            for chunk in await link.receive():
                assert not isinstance(chunk, str)
                chunks.append(bytes(chunk))
    except LinkEnded as end:
        assert end.clean
    return chunks


async def test_carries_bytes_both_ways() -> None:
    here: Link
    here, there = pair(names=("a", "b"))
    assert here.framing is there.framing is Framing.STREAM
    assert (here.peer, there.peer, here.local_host) == ("b", "a", None)
    await here.send([b"ab", memoryview(b"cd"), b""])
    assert list(await there.receive()) == [b"abcd"]
    await there.send([b"e"])
    assert list(await here.receive()) == [b"e"]


async def test_only_mutable_chunks_are_copied() -> None:
    here, there = pair()
    data = b"x" * 100_000
    await here.send([data])
    assert (await there.receive())[0] is data
    mutable = bytearray(b"before")
    await here.send([mutable])
    mutable[:] = b"after!"
    assert bytes((await there.receive())[0]) == b"before"


async def test_send_waits_above_the_buffer_limit() -> None:
    here, there = pair()
    done = anyio.Event()

    async def send() -> None:
        await here.send([b"x" * (BUFFERED + 1)])
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert not done.is_set()
        await there.receive()
        with anyio.fail_after(10):
            await done.wait()


async def test_send_does_not_wait_up_to_the_buffer_limit() -> None:
    here, _ = pair()
    with anyio.fail_after(10):
        await here.send([b"x" * BUFFERED])


async def test_close_keeps_sent_bytes_readable_and_is_idempotent() -> None:
    here, there = pair()
    await here.send([b"last"])
    await there.send([b"never read"])
    await here.close()
    await here.close(1001)
    assert await everything(there) == [b"last"]
    for use in (here.receive(), here.send([b"x"]), there.send([b"x"])):
        with pytest.raises(LinkEnded) as caught:
            await use
        assert caught.value.clean


@pytest.mark.parametrize("breaker", [0, 1])
async def test_break_ends_both_sides_at_once(breaker: int) -> None:
    links = pair()
    await links[0].send([b"lost"])
    links[breaker].break_()
    for link in links:
        for use in (link.receive(), link.send([b"x"])):
            with pytest.raises(LinkEnded) as caught:
                await use
            assert not caught.value.clean


async def test_break_after_a_close() -> None:
    here, there = pair()
    await here.close()
    here.break_()
    for link in (here, there):
        with pytest.raises(LinkEnded) as caught:
            await link.receive()
        assert not caught.value.clean


@pytest.mark.parametrize("end", ["break", "close"])
async def test_end_of_a_link_wakes_waiting_tasks(end: str) -> None:
    here, there = pair()
    ended: list[LinkEnded] = []

    async def wait_for(link: MemoryLink, data: bytes | None) -> None:
        try:
            await (link.receive() if data is None else link.send([data]))
        except LinkEnded as reason:
            ended.append(reason)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for, here, None)
        tasks.start_soon(wait_for, here, b"x" * (BUFFERED + 1))
        await anyio.wait_all_tasks_blocked()
        if end == "break":
            there.break_()
        else:
            await there.close()
    assert [reason.clean for reason in ended] == [end == "close"] * 2


def test_chunk_size_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pair(chunk=0)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 50) | st.none())
def test_any_chunking_carries_the_same_bytes(sent: list[bytes], chunk: int | None) -> None:
    async def run() -> list[bytes]:
        here, there = pair(chunk=chunk)
        await here.send(sent)
        await here.close()
        return await everything(there)

    received = anyio.run(run)
    assert b"".join(received) == b"".join(sent)
    if chunk is not None:
        assert [len(one) for one in received[:-1]] == [chunk] * (len(received) - 1)
        assert all(len(one) <= chunk for one in received)
