"""Seeds that have failed before, so that they run first: in pytest's cache, and in a file that a project keeps.

The file is JSON, `{test id: [seed, ...]}`, sorted, so that it reads well in a diff. A seed dies with the next change of
the code or the test; it costs one run, and the list of a test is bounded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol, TypeGuard

KEPT = 20
"""Seeds that are remembered for one test; the oldest go first."""
_KEY = "mpreg/seeds"


class Cache(Protocol):
    """What is used of pytest's cache."""

    def get(self, key: str, default: object) -> object: ...
    def set(self, key: str, value: object) -> None: ...


class Corpus:
    """Failures of all tests. `cache` and `file` may be absent."""

    def __init__(self, cache: Cache | None, file: Path | None) -> None:
        self._cache = cache
        self._file = file

    def seeds(self, test: str) -> list[int]:
        """Those of one test, the file's first. Raises ValueError for a file that is no such thing."""
        return list(dict.fromkeys([*self._read_file().get(test, []), *self._read_cache().get(test, [])]))

    def add(self, test: str, seed: int) -> None:
        """Remember a failure. The file is replaced, never half written."""
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
        return found if _sound(found) else {}  # a cache may be lost, so a broken one is

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
    """The last seed to fail stands at the end, and is the last to be forgotten."""
    seeds = [one for one in known.get(test, []) if one != seed]
    return {**known, test: [*seeds, seed][-KEPT:]}


def _sound(found: object) -> TypeGuard[dict[str, list[int]]]:
    return isinstance(found, dict) and all(
        isinstance(seeds, list) and all(type(seed) is int for seed in seeds) for seeds in found.values()
    )
