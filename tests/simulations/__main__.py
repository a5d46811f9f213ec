"""`python -m tests.simulations [--seeds N] [--start N] [--jobs N]`, `... figures`, `... hashes`."""

import argparse
import sys
from pathlib import Path

from mpreg_transports.testing.runs.scenarios import case
from tests.simulations import figures, hashes, seeds

WHAT = "seeds: many runs and the situations reached; figures: speed; hashes: hashes of the fixed runs"


def main() -> int:
    """Return the exit code: 0 if all is well, 1 if an invariant does not hold or a situation was never reached."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulations", description="Many seeds, the figures, or hashes."
    )
    parser.add_argument("what", nargs="?", choices=("seeds", "figures", "hashes"), default="seeds", help=WHAT)
    parser.add_argument("--seeds", type=int, default=2000, metavar="N", help="number of seeds (default 2000)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="nodes of each cluster (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="simulated, of work and faults (default 60)"
    )
    parser.add_argument("--scenario", default="swarm", metavar="NAME", help="as in mpreg simulate (default swarm)")
    parser.add_argument("--objects", action="store_true", help="without framing and codec")
    parser.add_argument("--keep", type=Path, default=Path("build/simulations"), help="where failing runs are saved")
    parser.add_argument("--failures", type=int, default=5, metavar="N", help="stop after this many (default 5)")
    given = parser.parse_args()
    if given.what == "figures":
        return figures.measure()
    if given.what == "hashes":
        return hashes.print_them()
    try:
        case(given.scenario, seed=given.start, nodes=given.nodes, seconds=given.seconds, objects=given.objects)
    except ValueError as error:
        parser.error(str(error))
    if given.seeds < 1 or given.jobs < 1:
        parser.error("at least one seed and one process")
    return seeds.many(
        range(given.start, given.start + given.seeds),
        jobs=given.jobs,
        most_failures=given.failures,
        nodes=given.nodes,
        seconds=given.seconds,
        scenario=given.scenario,
        objects=given.objects,
        keep=given.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
