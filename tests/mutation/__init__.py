"""Mutation testing: small changes of the code, drawn at random, which the tests must find.

`python -m tests.mutation` draws mutants of both packages (operators.py, sample.py), runs the tests that execute the
changed lines (reach.py) and then seeds of the swarm with each, in a copy of the repository (running.py), and appends
each result to a file. survivors.toml holds the mutants that were not found, and why or by which new test they are.
Bugs that a person planted are in tests/mutants.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mpreg_proto", "mpreg_transports")
LEFT_OUT = ("mpreg_transports/testing/", "mpreg_transports/cli/")
"""The folders without mutants: testing is test code itself, which tests/mutants examines, and most of cli is output,
whose tests start processes that take seconds each."""
