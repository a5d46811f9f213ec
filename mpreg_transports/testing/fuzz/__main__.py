"""`python -m mpreg_transports.testing.fuzz TARGET --seconds N [--seed S]`; see command.py."""

from __future__ import annotations

import sys

from mpreg_transports.testing.fuzz.command import execute, parser

if __name__ == "__main__":
    sys.exit(execute(parser("python -m mpreg_transports.testing.fuzz")))
