"""`python -m fuzz --list`, `python -m fuzz TARGET --seconds N [--seed S]`, `python -m fuzz TARGET --input FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz import TARGETS, corpus, harness
from fuzz.running import guided, has_atheris, run


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code. 0: no input failed; 1: an input failed or still fails; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name, proves in TARGETS.items():
            print(f"{name:<12}{len(corpus(name)):>4} inputs  {proves}")
        return 0
    if options.target is None:
        _parser().error("name a target, or --list")
    if not options.seconds > 0:
        _parser().error("--seconds: more than 0")
    if options.input is not None:
        harness(options.target)(options.input.read_bytes())  # raises the error of the input again
        print(f"{options.target}: this input passes")
        return 0
    found = False
    options.artifacts.mkdir(parents=True, exist_ok=True)
    for target in TARGETS if options.target == "all" else [options.target]:
        if has_atheris() and not options.random:
            report = guided(
                target, seconds=options.seconds, seed=options.seed, artifacts=options.artifacts, keep=options.keep
            )
        else:
            report = run(target, seconds=options.seconds, seed=options.seed, artifacts=options.artifacts)
        print(report.describe(), flush=True)
        found = found or report.crash is not None
    return int(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the core until an input fails.")
    parser.add_argument("target", nargs="?", choices=[*TARGETS, "all"], help="what to fuzz; all: one after the other")
    parser.add_argument("--list", action="store_true", help="the targets, and what each proves")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long, for each target (10)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs (0)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run one input again")
    parser.add_argument("--random", action="store_true", help="random mutation, even where atheris is installed")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with atheris: where the corpus grows")
    parser.add_argument("--artifacts", type=Path, default=Path(), metavar="DIR", help="where failing inputs go (here)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
