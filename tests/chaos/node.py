"""A node of the chaos tests as a process, configured by one JSON argument. It ends when its stdin ends.

Each node offers `safe-N` (idempotent) and `once-N` for the numbers that it gets, and bodies of a given length.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from tests.chaos.ledger import Ledger
from tests.helpers.nodes.child import Announced, end_with_parent


def body(ledger: Ledger, seconds: float) -> Callable[..., Coroutine[object, object, str]]:
    """Return a function that records its id, works for some time, and returns the id."""

    async def work(id: str, *inputs: str) -> str:
        ledger.started(id)
        await anyio.sleep(seconds)
        return id

    return work


def long_body(ledger: Ledger) -> Callable[..., Coroutine[object, object, str]]:
    """Return a function that records its id, works for that many seconds, and returns the id."""

    async def work(id: str, seconds: float) -> str:
        ledger.started(id)
        await anyio.sleep(seconds)
        return id

    return work


def blocking_body(ledger: Ledger) -> Callable[..., str]:
    """Return the same as a plain function, for threads."""

    def work(id: str, *inputs: str) -> str:
        ledger.started(id)
        return id

    return work


def main() -> None:
    """Run that node until a signal."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    end_with_parent()
    ledger = Ledger(Path(arguments["ledger"]), arguments["name"])
    server = Announced(
        name=arguments["name"], port=arguments["port"], peers=arguments["peers"], advertise=arguments["advertise"]
    )
    for number in arguments["offers"]:
        server.register(f"safe-{number}", body(ledger, 0.002), idempotent=True)
        server.register(f"plain-{number}", blocking_body(ledger), idempotent=True)
        server.register(f"once-{number}", body(ledger, 0.002))
        server.register(f"long-safe-{number}", long_body(ledger), idempotent=True)
        server.register(f"long-once-{number}", long_body(ledger))
    server.run()


if __name__ == "__main__":
    main()
