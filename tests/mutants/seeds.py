"""The script that hunting.py runs with a copy of the packages first on its path.

`seeds.py FIRST LAST SECONDS NODES SCENARIO` runs seeds of that scenario with all invariants until one fails, and prints
that as one line of JSON, or `null`. A run that does not end, or uses up the memory limit, has failed as well.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import mpreg_proto
from mpreg_transports.testing.runs.replay import run_case
from mpreg_transports.testing.runs.scenarios import case

LONGEST = 60.0
"""The limit of one run in seconds of processor time, so that a busy machine has no effect; a normal run needs one."""
MEMORY = 3 << 30


def main(first: int, last: int, seconds: float, nodes: int, scenario: str) -> None:
    """Print the first failure of the seeds from `first` up to `last`, without `last`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGVTALRM, _stuck)
    for seed in range(first, last):
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
        ran = run_case(case(scenario, seed=seed, nodes=nodes, seconds=seconds))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if ran.error is not None:
            print(json.dumps([seed, ran.invariant, ran.sim.violation]))
            return
    print("null")


def _stuck(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"a run was not over after {LONGEST:g} s")


if __name__ == "__main__":
    print(Path(mpreg_proto.__file__).parents[1])  # so that the caller can check which packages were run
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
