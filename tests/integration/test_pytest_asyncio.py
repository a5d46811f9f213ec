"""Servers and clients in fixtures of pytest-asyncio, which enters and leaves them in tasks of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mpreg_transports import Client, Server

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(port=0) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as connected:
        yield connected


@pytest_asyncio.fixture
async def opened(server: Server) -> AsyncIterator[Client]:
    client = Client(server.url)
    await client.connect()
    yield client
    await client.close()


async def test_client_in_a_fixture(client: Client, opened: Client) -> None:
    assert await client.call("echo", 1) == 1
    assert await opened.call("echo", 2) == 2


async def test_function_registered_in_a_test(server: Server, client: Client) -> None:
    @server.function
    async def double(value: int) -> int:
        return 2 * value

    assert await client.call("double", 4, wait=5) == 8


async def test_client_closed_by_the_test(opened: Client) -> None:
    await opened.close()
    assert not opened.is_open


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[Client]:
    async with Server(port=0) as server, Client(server.url) as client:
        yield client


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("value", [1, 2])
async def test_client_shared_by_the_tests_of_a_module(shared: Client, value: int) -> None:
    assert await shared.call("echo", value) == value
