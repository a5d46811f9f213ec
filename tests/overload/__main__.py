"""`python -m tests.overload`: each situation with fresh nodes; prints figures beside their targets."""

from __future__ import annotations

import argparse
import asyncio

from tests.overload.load import two_nodes
from tests.overload.situations import SITUATIONS


async def measure(names: list[str], seconds: float) -> None:
    """Measure these situations, one after another."""
    for name in names:
        situation = SITUATIONS[name]
        print(f"\n{name}: {(situation.__doc__ or '').strip()}", flush=True)
        async with two_nodes() as nodes:
            await situation(nodes, seconds)


def main() -> None:
    """Measure all situations, or those that were named."""
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description="Two real nodes under too much work.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each overload (default 30)")
    parser.add_argument("--only", action="append", choices=list(SITUATIONS), help="may be given several times")
    given = parser.parse_args()
    asyncio.run(measure(given.only or list(SITUATIONS), given.seconds))


if __name__ == "__main__":
    main()
