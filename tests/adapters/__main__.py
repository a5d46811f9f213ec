"""`python -m tests.adapters [--seeds N] [--start N] [--jobs N] [--loop asyncio|trio|both|alternate]`."""

import argparse
import sys

from tests.adapters.seeds import cases, many


def main() -> int:
    """Return the exit code: 0 if all is well, 1 if a run failed or a situation was never reached."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.adapters", description="Real servers and clients in virtual time, from seeds."
    )
    parser.add_argument("--seeds", type=int, default=2000, metavar="N", help="number of seeds (default 2000)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--loop", choices=("asyncio", "trio", "both", "alternate"), default="both")
    parser.add_argument("--failures", type=int, default=20, metavar="N", help="stop after this many (default 20)")
    given = parser.parse_args()
    if given.seeds < 1 or given.jobs < 1:
        parser.error("at least one seed and one process")
    full = given.seeds == 1
    return many(
        cases(given.start, given.seeds, given.loop), jobs=1 if full else given.jobs, full=full, most=given.failures
    )


if __name__ == "__main__":
    sys.exit(main())
