"""The seeds that failed before, so that they run first: in pytest's cache, and in a file of the project.

The file is JSON, `{test id: [seed, ...]}`, sorted, so that a diff of it is readable. A seed loses its value with the
next change of the code or the test. It costs one run, and the list of each test is bounded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol, TypeGuard

KEPT = 20
"""The number of seeds kept for one test; the oldest are removed first."""
_KEY = "mpreg/seeds"


class Cache(Protocol):
    """The used methods of pytest's cache."""

    def get(self, key: str, default: object) -> object: ...
    def set(self, key: str, value: object) -> None: ...


class Corpus:
    """The failed seeds of all tests. `cache` and `file` may be absent."""

    def __init__(self, cache: Cache | None, file: Path | None) -> None:
        self._cache = cache
        self._file = file

    def seeds(self, test: str) -> list[int]:
        """Return the seeds of one test, those of the file first. Raises ValueError for an invalid file."""
        return list(dict.fromkeys([*self._read_file().get(test, []), *self._read_cache().get(test, [])]))

    def add(self, test: str, seed: int) -> None:
        """Add a failed seed. The file is replaced atomically."""
        if self._cache is not None:
            self._cache.set(_KEY, _with(self._read_cache(), test, seed))
        if self._file is not None:
            text = json.dumps(_with(self._read_file(), test, seed), indent=1, sort_keys=True) + "\n"
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
            beside.write_text(text, "utf-8")
            beside.replace(self._file)

    def _read_cache(self) -> dict[str, list[int]]:
        found = {} if self._cache is None else self._cache.get(_KEY, {})
        return found if _sound(found) else {}  # a cache may be lost, so an invalid one counts as empty

    def _read_file(self) -> dict[str, list[int]]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._file} (sim_corpus) is not JSON: {error}") from None
        if not _sound(found):
            raise ValueError(f"{self._file} (sim_corpus) does not map tests to lists of seeds")
        return found


def _with(known: dict[str, list[int]], test: str, seed: int) -> dict[str, list[int]]:
    """Return the seeds with this one last, so that it is removed last."""
    seeds = [one for one in known.get(test, []) if one != seed]
    return {**known, test: [*seeds, seed][-KEPT:]}


def _sound(found: object) -> TypeGuard[dict[str, list[int]]]:
    return isinstance(found, dict) and all(
        isinstance(seeds, list) and all(type(seed) is int for seed in seeds) for seeds in found.values()
    )
