"""Every case in the seed's JSON on raw frames, written by hand: four bytes of length, then the object.

All cases go over one connection, the first of them telling by its `{` which dialect it is.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.cases import classic_request, each_case, judge_json
from tests.helpers.conformance_cluster import serving
from tests.helpers.speakers import OverFrames, ask, over_frames

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def speaker(anyio_backend: str) -> AsyncIterator[OverFrames]:
    async with serving() as front, over_frames(front.port) as speaker:
        yield speaker


@each_case
async def test_case(case: dict[str, Any], speaker: OverFrames) -> None:
    answer = await ask(speaker, classic_request(case, u=case["title"]))
    judge_json(case, answer, case["title"])
