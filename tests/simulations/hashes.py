"""Hashes of short runs of the swarm by seed: what makes "the same seed, the same run" something that can be tested.

    uv run python -m tests.simulations hashes > tests/scenarios/hashes.json

writes them anew, which is due whenever the core, the simulator or the standard workload behave differently on purpose.
"""

import json

from mpreg_transports.testing.runs.runs import run_seed

SEEDS = 20
SECONDS = 8.0


def hashes() -> dict[str, str]:
    """The hash of each seed."""
    return {
        str(seed): run_seed(seed, seconds=SECONDS, objects=seed % 5 == 4, watchers=list).trace_hash
        for seed in range(SEEDS)
    }


def print_them() -> int:
    """As JSON on stdout; 0."""
    print(json.dumps(hashes(), indent=1))
    return 0
