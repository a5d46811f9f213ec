"""mpreg as a server process of the benchmarks: one node, ready when it prints its address.

`python -m tests.benchmarks.mpreg_nodes NAME [--websocket] [--secret TEXT] [--peer URL ...]`; it ends when its stdin
ends.
"""

import argparse
import sys
import time
from typing import Any

import anyio
import anyio.to_thread

from mpreg_transports import Server
from mpreg_transports.server import backend_options


def _plain(value: Any) -> Any:
    return value


async def _coroutine(value: Any) -> Any:
    return value


def node(name: str, *, peers: list[str], transport: str, secret: str | None = None) -> Server:
    """Return a node that offers the functions of `rows.NODES`, and `cpu_NAME`, its CPU time in seconds."""
    server = Server(name=name, port=0, peers=peers, transport=transport, secret=secret)
    server.register(f"echo_{name}", lambda value: value, inline=True, idempotent=True)
    server.register(f"echo_{name}_def", _plain, idempotent=True)
    server.register(f"echo_{name}_async", _coroutine, idempotent=True)
    server.register(f"make_{name}", bytes, inline=True, idempotent=True)
    server.register(f"measure_{name}", len, inline=True, idempotent=True)
    server.register(f"cpu_{name}", time.process_time, inline=True)
    return server


async def _serve(server: Server) -> None:
    async with server:
        print(f"ready {server.url}", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--secret")
    parser.add_argument("--peer", action="append", default=[])
    options = parser.parse_args()
    transport = "websocket" if options.websocket else "auto"
    server = node(options.name, peers=options.peer, transport=transport, secret=options.secret)
    anyio.run(_serve, server, backend_options=backend_options("asyncio"))


if __name__ == "__main__":
    main()
