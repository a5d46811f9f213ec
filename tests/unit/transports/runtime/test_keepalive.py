"""Keepalive of JSON links: a defect of one link ends that link; a link without keepalive stays open."""

from collections.abc import Sequence

import anyio
import pytest

from mpreg_proto.effects import Framing
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import LinkId
from mpreg_transports.links.base import Buffer, Link
from mpreg_transports.runtime.keepalive import Keepalive

pytestmark = pytest.mark.anyio

MILLISECOND = 1_000_000


class Silent(Link):
    """A link that receives nothing."""

    framing = Framing.CLASSIC_MESSAGES
    peer = "peer"

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.asked = 0
        self.over = anyio.Event()

    async def receive(self) -> Sequence[bytes]:
        raise NotImplementedError

    async def send(self, chunks: Sequence[Buffer]) -> None:
        raise NotImplementedError

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        self.closed.append(code)
        self.over.set()


class Broken(Silent):
    """A link whose keepalive raises an undeclared error."""

    async def keepalive(self) -> bool:
        raise ValueError("a defect")


class Pinged(Silent):
    """A link whose keepalives get no answer."""

    async def keepalive(self) -> bool:
        self.asked += 1
        return True


async def kept(link: Silent, *, gone_after: int) -> None:
    """Watch a link until it is closed, and beside it a link without keepalive."""
    mute = Silent()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            keepalive = Keepalive(
                tasks.start_soon,
                every=MILLISECOND,
                gone_after=gone_after,
                last_activity=lambda link: 0,
                paused=(),
            )
            keepalive.add(LinkId(1), mute)
            keepalive.add(LinkId(2), link)
            await link.over.wait()
            keepalive.discard(LinkId(1))
            keepalive.discard(LinkId(2))
    assert mute.closed == []


async def test_keepalive_that_raises_ends_its_link_alone() -> None:
    link = Broken()
    await kept(link, gone_after=10**15)
    assert set(link.closed) == {CloseCode.INTERNAL_ERROR}


async def test_silent_link_is_closed_after_keepalives() -> None:
    link = Pinged()
    await kept(link, gone_after=5 * MILLISECOND)
    assert link.closed == [CloseCode.GOING_AWAY]
    assert link.asked == 4
