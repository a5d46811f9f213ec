"""Keepalive of JSON links: a defect of one ends that one."""

import anyio
import pytest

from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import LinkId
from mpreg_transports.runtime.keepalive import Keepalive

pytestmark = pytest.mark.anyio


class Broken:
    """A link whose ping fails as none should."""

    peer, received_bytes = "peer", 0

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.over = anyio.Event()

    async def ping(self) -> None:
        raise ValueError("a defect")

    async def close(self, code: int) -> None:
        self.closed.append(code)
        self.over.set()


async def test_ping_that_fails_ends_its_link_alone() -> None:
    link = Broken()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            keepalive = Keepalive(
                tasks.start_soon, every=1_000_000, gone_after=10**15, progress=lambda link: 0, paused=()
            )
            keepalive.add(LinkId(1), link)  # type: ignore[arg-type]  # what it uses of a link
            await link.over.wait()
            keepalive.discard(LinkId(1))
    assert set(link.closed) == {CloseCode.INTERNAL_ERROR}
