"""The command line of the fuzzer: `--list`; `TARGET --seconds N [--seed S]`; `TARGET --input FILE`.

It starts from the generated inputs (seeds.py), or from those of a folder that has one subfolder for each target.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mpreg_transports.testing.fuzz import TARGETS, harness
from mpreg_transports.testing.fuzz.running import FuzzReport, run
from mpreg_transports.testing.fuzz.seeds import seeds

Runner = Callable[[str, argparse.Namespace], FuzzReport]
"""A function that fuzzes one target with the parsed options."""


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = argparse.ArgumentParser(prog=prog, description="Fuzz the core until an input fails.")
    made.add_argument("target", nargs="?", choices=[*TARGETS, "all"], help="what to fuzz; all: one after the other")
    made.add_argument("--list", action="store_true", help="the targets, and what each proves")
    made.add_argument("--seconds", type=float, default=10.0, help="how long, for each target (10)")
    made.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs (0)")
    made.add_argument("--input", type=Path, metavar="FILE", help="run one input again")
    made.add_argument("--corpus", type=Path, metavar="DIR", help="start from the inputs in DIR/TARGET (generated ones)")
    made.add_argument("--artifacts", type=Path, default=Path(), metavar="DIR", help="where failing inputs go (here)")
    return made


def corpus(target: str, folder: Path | None) -> list[bytes]:
    """Return the first inputs of one target: the files in `folder`, by name, or generated ones if it is None."""
    if folder is None:
        return seeds()[target]
    return [file.read_bytes() for file in sorted((folder / target).glob("*"))]


def execute(
    options_of: argparse.ArgumentParser, arguments: Sequence[str] | None = None, *, runner: Runner | None = None
) -> int:
    """Parse the arguments and do what they ask for. `runner` replaces the random mutation.

    Return the exit code. 0: no input failed; 1: an input failed or still fails; 2: wrong usage.
    """
    options = options_of.parse_args(arguments)
    if options.list:
        for name, proves in TARGETS.items():
            print(f"{name:<12}{len(corpus(name, options.corpus)):>4} inputs  {proves}")
        return 0
    if options.target is None:
        options_of.error("name a target, or --list")
    if not options.seconds > 0:
        options_of.error("--seconds: more than 0")
    if options.input is not None:
        harness(options.target)(options.input.read_bytes())  # raises the error of the input again
        print(f"{options.target}: this input passes")
        return 0
    options.artifacts.mkdir(parents=True, exist_ok=True)
    found = False
    for target in TARGETS if options.target == "all" else [options.target]:
        report = (runner or run_randomly)(target, options)
        print(report.describe(options_of.prog), flush=True)
        found = found or report.crash is not None
    return int(found)


def run_randomly(target: str, options: argparse.Namespace) -> FuzzReport:
    """Fuzz one target by random mutation, with the parsed options."""
    inputs = corpus(target, options.corpus)
    return run(target, inputs, seconds=options.seconds, seed=options.seed, artifacts=options.artifacts)
