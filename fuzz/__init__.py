"""The corpus of the fuzzer, and its runs with atheris (README.md). The targets: `mpreg_transports.testing.fuzz`."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
