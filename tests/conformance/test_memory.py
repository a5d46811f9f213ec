"""Every case that a native request can express, without sockets: nodes and drivers joined by memory links.

The caller is a pure `ClientSession` in a loop of ten lines. Its bytes and those of the nodes are cut into small chunks.
"""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from mpreg_transports.values import default_codec
from tests.conformance.cases import CASES, judge
from tests.conformance.typed import ONLY_JSON, native_request
from tests.helpers.conformance_cluster import PATIENCE, Caller, in_memory

pytestmark = pytest.mark.anyio

SAYABLE = [case for case in CASES if case["title"] not in ONLY_JSON]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def caller(anyio_backend: str) -> AsyncIterator[Caller]:
    async with in_memory() as cluster:
        yield Caller(cluster.connect())


@pytest.mark.parametrize("case", SAYABLE, ids=[case["title"] for case in SAYABLE])
async def test_case(case: dict[str, Any], caller: Caller) -> None:
    with anyio.fail_after(PATIENCE):
        result = await caller.ask(native_request(case))
    values = {row.name: default_codec().decode(row.value) for row in result.done}
    some = result.fault is None or result.done or result.failed
    judge(case, values if some else None, None if result.fault is None else result.fault.code)
