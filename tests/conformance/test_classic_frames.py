"""Every case in the classic dialect on raw frames, written by hand: four bytes of length, then the object.

All cases use one connection. The `{` of the first one selects the dialect.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.cases import classic_request, each_case, judge_json
from tests.helpers.conformance_cluster import serving
from tests.helpers.foreign_clients import ClassicFrameClient, ask, classic_frames

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def peer(anyio_backend: str) -> AsyncIterator[ClassicFrameClient]:
    async with serving() as front, classic_frames(front.port) as peer:
        yield peer


@each_case
async def test_case(case: dict[str, Any], peer: ClassicFrameClient) -> None:
    answer = await ask(peer, classic_request(case, u=case["title"]))
    judge_json(case, answer, case["title"])
