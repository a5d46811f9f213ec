"""One run of one target by random mutation: until its time is over or an input fails, which is written to a file."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from mpreg_transports.testing.fuzz import harness
from mpreg_transports.testing.fuzz.mutation import mutations

_CHECKED_EVERY = 32


class FuzzReport(NamedTuple):
    """The result of a run."""

    target: str
    mode: str
    seed: int
    executions: int
    seconds: float
    corpus: int
    crash: Path | None

    def describe(self, command: str) -> str:
        """Return the result as a text for people. `command` is the one that ran it."""
        rate = self.executions / self.seconds if self.seconds else 0.0
        text = (
            f"{self.target}: {self.executions:,} executions in {self.seconds:.1f} s ({rate:,.0f}/s), "
            f"corpus {self.corpus}, {self.mode}, seed {self.seed}"
        )
        if self.crash is not None:
            text += f"\nFAILED, input written to {self.crash}; again: {command} {self.target} --input {self.crash}"
        return text


def run(target: str, corpus: Sequence[bytes], *, seconds: float, seed: int, artifacts: Path) -> FuzzReport:
    """Run a target with the inputs of `corpus` and their mutations. A failing input goes to the folder `artifacts`."""
    function = harness(target)
    start = perf_counter()
    executions = 0
    crash: Path | None = None
    for data in mutations(corpus, seed):
        executions += 1
        try:
            function(data)
        except Exception:  # any exception is a defect
            traceback.print_exc()
            crash = artifacts / f"{target}-crash-{blake2b(data, digest_size=6).hexdigest()}"
            crash.write_bytes(data)
            break
        if executions % _CHECKED_EVERY == 0 and perf_counter() - start >= seconds:
            break
    return FuzzReport(target, "random mutation", seed, executions, perf_counter() - start, len(corpus), crash)
