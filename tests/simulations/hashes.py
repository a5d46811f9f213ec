"""Hashes of short runs of the swarm by seed, with which a test checks "the same seed, the same run".

    uv run python -m tests.simulations hashes > tests/scenarios/hashes.json

writes new ones. Run it when the core, the simulator or the standard workload change their behaviour on purpose.
"""

import json

from mpreg_transports.testing.runs.runs import run_seed

SEEDS = 20
SECONDS = 8.0


def hashes() -> dict[str, str]:
    """Return the hash of each seed."""
    return {
        str(seed): run_seed(seed, seconds=SECONDS, objects=seed % 5 == 4, watchers=list).trace_hash
        for seed in range(SEEDS)
    }


def print_them() -> int:
    """Print the hashes as JSON on stdout; return 0."""
    print(json.dumps(hashes(), indent=1))
    return 0
