"""Several joined servers in this process: started one after the other, each with the first as peer."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio

from mpreg_transports import Client, Server
from tests.helpers.blocking_functions import PATIENCE


@asynccontextmanager
async def joined_servers(*servers: Server) -> AsyncIterator[Client]:
    """Yield a client of the first of `servers`, once that is linked to all others and lists all their functions.

    A test that hangs fails.
    """
    with anyio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            for server in servers:
                if server is not servers[0]:
                    server.peers = (servers[0].url,)
                await stack.enter_async_context(server)
            client = await stack.enter_async_context(Client(servers[0].url))
            await wait_until_meshed(client, servers)
            yield client


async def wait_until_meshed(client: Client, servers: tuple[Server, ...]) -> None:
    """Wait until the client's node is linked to all `servers` and lists their functions; poll its view."""
    wanted = sorted((server.name, function) for server in servers for function in server.functions)
    while True:
        view = await client.view()
        offered = sorted((row.node.rpartition("#")[0], row.function) for row in view.functions)
        linked = sum(member.linked or member.me for member in view.members)
        if offered == wanted and linked == len(servers):
            return


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that the system chooses, at which no process listens and none but the test will."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]
