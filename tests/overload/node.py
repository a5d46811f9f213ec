"""A node of the overload figures as a process, configured by one JSON argument. It ends when its stdin ends."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from tests.helpers.nodes.child import Announced, end_with_parent


async def tenth() -> None:
    """Take 100 ms."""
    await anyio.sleep(0.1)


async def fiftieth() -> None:
    """Take 20 ms."""
    await anyio.sleep(0.02)


def make(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(size)


def main() -> None:
    """Run that node until a signal."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    end_with_parent()
    server = Announced(name=arguments["name"], port=0, peers=arguments["peers"])
    for function in (tenth, fiftieth):
        server.register(function.__name__, function, concurrency=4, idempotent=True)
    server.register("make", make, inline=True, idempotent=True)
    server.register(f"ready-{server.name}", make, inline=True)
    server.run()


if __name__ == "__main__":
    main()
