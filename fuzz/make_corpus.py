"""Writes fuzz/corpus: the generated inputs of each target (`mpreg_transports.testing.fuzz.seeds`).

    python -m fuzz.make_corpus

It writes the same files every time and deletes those of an earlier version. Inputs that once failed are kept as
`found-*` and are not changed here. A name is the kind of input and its number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz import CORPUS
from mpreg_transports.testing.fuzz.seeds import seeds


def write(folder: Path, log: Callable[[str], None] = print) -> int:
    """Write all inputs below `folder`; return their size in bytes."""
    total = 0
    for target, inputs in seeds().items():
        place = folder / target
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob("seed-*"):
            old.unlink()
        for number, data in enumerate(inputs):
            (place / f"seed-{number:03}").write_bytes(data)
            total += len(data)
        log(f"{target:<12}{len(inputs):>4} inputs {sum(map(len, inputs)):>8} bytes")
    return total


if __name__ == "__main__":
    print(f"{write(CORPUS)} bytes in all")
