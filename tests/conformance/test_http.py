"""Every case by `POST /rpc`, with the HTTP client of the standard library. The status must match the answer."""

import http.client
import json
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.conformance.cases import classic_request, each_case, judge_json
from tests.helpers.conformance_cluster import PATIENCE, serving

pytestmark = pytest.mark.anyio

STATUS = {1001: 404, 1003: 500, 1020: 504} | dict.fromkeys((1000, 1004, 1005, 1010, 1011, 1012, 1013, 1014), 400)
"""docs/howto/call-from-json.md: the statuses of answers whose `r` is null."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def connection(anyio_backend: str) -> AsyncIterator[http.client.HTTPConnection]:
    async with serving() as front:
        with closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE)) as connection:
            yield connection


@each_case
async def test_case(case: dict[str, Any], connection: http.client.HTTPConnection) -> None:
    def post() -> tuple[int, str, bytes]:
        connection.request("POST", "/rpc", json.dumps(classic_request(case, u=case["title"])))
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read()

    with anyio.fail_after(PATIENCE):
        status, content_type, body = await anyio.to_thread.run_sync(post)
    answer = json.loads(body)
    judge_json(case, answer, case["title"])
    assert status == (200 if answer["r"] is not None else STATUS[answer["error"]["code"]])
    assert content_type == "application/json"
