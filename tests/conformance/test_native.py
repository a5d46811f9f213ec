"""Every case in the native dialect: typed references by `Client` over raw TCP; JSON-only cases as messages by hand."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mpreg_transports import Client, RequestError, Server
from tests.conformance.cases import CASES, judge
from tests.conformance.typed import ONLY_JSON, native_request
from tests.helpers import foreign_clients
from tests.helpers.conformance_cluster import serving

pytestmark = pytest.mark.anyio

SAYABLE = [case for case in CASES if case["title"] not in ONLY_JSON]
BY_TITLE = {case["title"]: case for case in CASES}


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
async def front(anyio_backend: str) -> AsyncIterator[Server]:
    async with serving() as front:
        yield front


@pytest.fixture(scope="module")
async def client(front: Server) -> AsyncIterator[Client]:
    async with Client(f"tcp://127.0.0.1:{front.port}") as client:
        yield client


@pytest.fixture(scope="module")
async def by_hand(front: Server) -> AsyncIterator[foreign_clients.NativeClient]:
    async with foreign_clients.native(front.port) as peer:
        yield peer


@pytest.mark.parametrize("case", SAYABLE, ids=[case["title"] for case in SAYABLE])
async def test_case(case: dict[str, Any], client: Client) -> None:
    try:
        answer = await client.answer(native_request(case))
    except RequestError as error:
        judge(case, None, error.code)
    else:
        judge(case, answer.values, None if answer.error is None else answer.error.code)


@pytest.mark.parametrize("title", ONLY_JSON)
async def test_equivalent_fault_in_a_native_message(title: str, by_hand: foreign_clients.NativeClient) -> None:
    _why, fields = ONLY_JSON[title]
    number = 1 + list(ONLY_JSON).index(title)
    assert await by_hand.code(number, *fields) == BY_TITLE[title]["expect"]["code"]
    # The link stays open.
    assert await by_hand.code(100 + number, [["a", "echo", b"\x92\x91\x01\x80"]]) is None


def test_json_only_titles_are_in_the_table() -> None:
    assert [title for title in ONLY_JSON if title not in BY_TITLE] == []
