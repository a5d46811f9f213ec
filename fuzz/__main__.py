"""`python -m fuzz`: the command of `mpreg_transports.testing.fuzz` with the corpus of this folder, and with atheris.

Where atheris is installed it follows the coverage of the core; `--random` does without it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from fuzz import CORPUS
from mpreg_transports.testing.fuzz.command import corpus, execute, parser, run_randomly
from mpreg_transports.testing.fuzz.mutation import LONGEST
from mpreg_transports.testing.fuzz.running import FuzzReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of `execute`."""
    options = parser("python -m fuzz")
    options.set_defaults(corpus=CORPUS)
    options.add_argument("--random", action="store_true", help="random mutation, even where atheris is installed")
    options.add_argument("--keep", type=Path, metavar="DIR", help="with atheris: where the corpus grows")
    return execute(options, arguments, runner=_run)


def _run(target: str, options: argparse.Namespace) -> FuzzReport:
    if options.random or find_spec("atheris") is None:
        return run_randomly(target, options)
    return _run_guided(target, options)


def _run_guided(target: str, options: argparse.Namespace) -> FuzzReport:
    """Run a target with atheris in a process of its own, as libFuzzer ends the process that it runs in.

    New inputs of the corpus go to `--keep`, or are deleted.
    """
    artifacts, seed = options.artifacts, options.seed or 1
    with tempfile.TemporaryDirectory() as temporary:
        grown = options.keep or Path(temporary)
        before = sorted(artifacts.glob(f"{target}-*"))
        command = [
            *(sys.executable, "-m", "fuzz.guided", target),
            f"-max_total_time={max(1, round(options.seconds))}",
            f"-seed={seed}",
            f"-artifact_prefix={artifacts}/{target}-",
            "-print_final_stats=1",
            f"-max_len={LONGEST}",
            str(grown),
            str(options.corpus / target),
        ]
        start = perf_counter()
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        took = perf_counter() - start
        stats = dict(line[6:].split(":") for line in ended.stderr.splitlines() if line.startswith("stat::"))
        executions = int(stats.get("number_of_executed_units", 0))
        new = [file for file in sorted(artifacts.glob(f"{target}-*")) if file not in before]
        if ended.returncode:
            print(ended.stderr, file=sys.stderr)
        size = len(corpus(target, options.corpus)) + sum(1 for file in grown.iterdir() if file.is_file())
    crash = new[0] if new else None
    if ended.returncode and crash is None:
        raise RuntimeError(f"atheris ended with {ended.returncode} and no input")
    return FuzzReport(target, "guided by coverage", seed, executions, took, size, crash)


if __name__ == "__main__":
    sys.exit(main())
