"""Many seeds and their results: failures in full, requests by outcome, and the situations that were reached.

A situation (coverage.py) that no seed of a long run reached is a failure of the generator: the run did not test it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mpreg_transports.testing.invariants.known_gaps import table
from mpreg_transports.testing.runs.runs import RunReport, run_seeds

LONG = 1000
"""The number of seeds from which every situation must be reached."""


def many(seeds: Sequence[int], *, jobs: int, most_failures: int, **options: Any) -> int:
    """Run the seeds; print failures as they come and a summary; return the exit code."""
    begun = time.perf_counter()
    failed: list[RunReport] = []
    requests: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    events = done = 0
    runs = run_seeds(seeds, jobs=jobs, **options)
    for report in runs:
        done += 1
        events += report.events
        requests.update(report.requests)
        reached.update(report.sometimes)
        if report.violation is not None:
            failed.append(report)
            print(f"\n{report.violation.report}\n", flush=True)
            if len(failed) >= most_failures:
                break
        if done % 100 == 0:
            rate = done / (time.perf_counter() - begun) * 60
            print(f"{done} seeds, {len(failed)} failed, {rate:.0f} a minute", flush=True)
    runs.close()  # type: ignore[attr-defined]  # a generator, whose processes end with it
    took = time.perf_counter() - begun
    rate = f"{done / took * 60:.0f} a minute on {max(1, jobs)} processes"
    print(f"\n{done} seeds from {seeds[0]} on in {took:.0f} s ({rate})")
    print(f"{events:,} events, {sum(requests.values()):,} requests: {_counts(requests)}")
    never = print_reached(reached)
    print("\n".join(table()))
    for report in failed:
        assert report.violation is not None, "only failing ones are kept"
        print(f"FAILED seed {report.seed}: {report.violation.text}")
    if done >= LONG and never:
        print(f"FAILED: never reached: {', '.join(never)}")
    return 1 if failed or (done >= LONG and never) else 0


def print_reached(reached: Counter[str]) -> list[str]:
    """Print how often each situation was reached; return those that never were."""
    if reached:
        print("\nreached:")
        for name, count in sorted(reached.items(), key=lambda item: (item[1], item[0])):
            print(f"  {count:>10,}  {name}")
    return [name for name, count in reached.items() if not count]


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counted.most_common())
