"""A process with one small call at a time, so that the work of the other clients does not delay it.

Its arguments are the address of a node, a function and its arguments as JSON. For each line on stdin it prints the
figures of the calls since the last line, as one line of JSON: the seconds of the median and of the longest, and the
number of calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from mpreg_transports import Client


async def call(url: str, function: str, args: list[object], took: list[float]) -> None:
    """Call until cancelled."""
    async with Client(url) as client:
        while True:
            began = time.perf_counter()
            await client.call(function, *args, timeout=30)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)


async def main() -> None:
    """Call, and print the figures when asked."""
    took: list[float] = []
    url, function, args = sys.argv[1:]
    calls = asyncio.ensure_future(call(url, function, json.loads(args), took))
    while await asyncio.to_thread(sys.stdin.readline) and not calls.done():
        rows = sorted(took) or [0.0]
        took.clear()
        print(json.dumps([rows[len(rows) // 2], rows[-1], len(rows)]), flush=True)
    calls.cancel()


if __name__ == "__main__":
    asyncio.run(main())
