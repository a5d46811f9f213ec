"""The record on disk of each body that has started: one file for each process, one line for each body.

A line is written before the body does anything, with one `write` to a file in append mode, so it survives SIGKILL.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path


class Ledger:
    """The ledger of this process, for its functions."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(folder / f"{name}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def started(self, body: str) -> None:
        """Record that a body has started."""
        os.write(self._file, f"{body}\n".encode())


def starts(folder: Path) -> Counter[str]:
    """Return how often each body has started, by all ledgers of a folder."""
    return Counter(line for file in folder.iterdir() for line in file.read_text().splitlines())
