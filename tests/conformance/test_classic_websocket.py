"""Every case in the seed's JSON over WebSocket, by a client of other people's making that only knows JSON.

All cases go over one connection, one after the other: whatever is refused must leave it usable.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.cases import classic_request, each_case, judge_json
from tests.helpers.conformance_cluster import serving
from tests.helpers.speakers import OverWebSocket, ask, over_websocket

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
async def speaker(anyio_backend: str) -> AsyncIterator[OverWebSocket]:
    async with serving() as front, over_websocket(front.port) as speaker:
        yield speaker


@each_case
async def test_case(case: dict[str, Any], speaker: OverWebSocket) -> None:
    answer = await ask(speaker, classic_request(case, u=case["title"]))
    judge_json(case, answer, case["title"])
