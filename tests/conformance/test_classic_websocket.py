"""Every case in the classic dialect over WebSocket, with a third-party client that supports only JSON.

All cases use one connection, one after the other: a refused request must leave it usable.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.cases import classic_request, each_case, judge_json
from tests.helpers.conformance_cluster import serving
from tests.helpers.foreign_clients import ClassicWebSocketClient, ask, classic_websocket

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
async def peer(anyio_backend: str) -> AsyncIterator[ClassicWebSocketClient]:
    async with serving() as front, classic_websocket(front.port) as peer:
        yield peer


@each_case
async def test_case(case: dict[str, Any], peer: ClassicWebSocketClient) -> None:
    answer = await ask(peer, classic_request(case, u=case["title"]))
    judge_json(case, answer, case["title"])
