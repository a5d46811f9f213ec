"""One run of one target: until its time is over or an input fails; the failing input is written to a file.

`run` mutates the corpus itself. `guided` has atheris do it, which follows the coverage of `mpreg_proto`: in a process
of its own, as libFuzzer ends the process that it runs in.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import traceback
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from fuzz import CORPUS, corpus, harness
from fuzz.mutation import mutations

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

    def describe(self) -> str:
        """Return the result as a text for people."""
        rate = self.executions / self.seconds if self.seconds else 0.0
        text = (
            f"{self.target}: {self.executions:,} executions in {self.seconds:.1f} s ({rate:,.0f}/s), "
            f"corpus {self.corpus}, {self.mode}, seed {self.seed}"
        )
        if self.crash is not None:
            text += f"\nFAILED, input written to {self.crash}; again: python -m fuzz {self.target} --input {self.crash}"
        return text


def has_atheris() -> bool:
    """Return whether coverage can be followed."""
    return find_spec("atheris") is not None


def run(target: str, *, seconds: float, seed: int, artifacts: Path) -> FuzzReport:
    """Run a target with mutations of the corpus."""
    function, kept = harness(target), corpus(target)
    start = perf_counter()
    executions = 0
    crash: Path | None = None
    for data in mutations(kept, seed):
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
    return FuzzReport(target, "random mutation", seed, executions, perf_counter() - start, len(kept), crash)


def guided(target: str, *, seconds: float, seed: int, artifacts: Path, keep: Path | None) -> FuzzReport:
    """Run a target with atheris. New inputs of the corpus go to `keep`, or are deleted."""
    with tempfile.TemporaryDirectory() as temporary:
        grown = keep or Path(temporary)
        before = sorted(artifacts.glob(f"{target}-*"))
        command = [sys.executable, "-m", "fuzz.guided", target, f"-max_total_time={max(1, round(seconds))}"]
        command += [
            f"-seed={seed or 1}",
            f"-artifact_prefix={artifacts}/{target}-",
            "-print_final_stats=1",
            "-max_len=4096",
        ]
        start = perf_counter()
        ended = subprocess.run(
            [*command, str(grown), str(CORPUS / target)], stderr=subprocess.PIPE, text=True, check=False
        )
        took = perf_counter() - start
        stats = dict(line[6:].split(":") for line in ended.stderr.splitlines() if line.startswith("stat::"))
        executions = int(stats.get("number_of_executed_units", 0))
        new = [file for file in sorted(artifacts.glob(f"{target}-*")) if file not in before]
        if ended.returncode:
            print(ended.stderr, file=sys.stderr)
        size = len(corpus(target)) + sum(1 for file in grown.iterdir() if file.is_file())
    crash = new[0] if new else None
    if ended.returncode and crash is None:
        raise RuntimeError(f"atheris ended with {ended.returncode} and no input")
    return FuzzReport(target, "guided by coverage", seed or 1, executions, took, size, crash)
