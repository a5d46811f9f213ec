"""The core's source keeps the rules of `core_rules`, and the rules catch each kind of breach.

Reads `mpreg_proto/**/*.py` as text and imports none of it. test_sealed.py tests that the core *runs* without I/O.
"""

import ast
from pathlib import Path

import pytest

from tests.purity.core_rules import SetNames, complaints

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in sorted(ROOT.glob("mpreg_proto/**/*.py"))
}


def declared_sets(sources: dict[str, str]) -> SetNames:
    attributes = SetNames()
    for source in sources.values():
        attributes.read(ast.parse(source))
    return attributes


SETS = declared_sets(MODULES)


def test_core_modules_are_found() -> None:
    assert "mpreg_proto/__init__.py" in MODULES


@pytest.mark.parametrize("path", MODULES)
def test_core_module_is_pure(path: str) -> None:
    assert complaints(path, MODULES[path], SETS) == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "import os.path",
        "from time import monotonic",
        "from mpreg_transports.runtime import driver",
        "import random",
        "def f():\n    import socket",
        "key = hash('x')",
        "first = sorted(things, key=id)",
        "open('file')",
        "from datetime import datetime\nstamp = datetime.now()",
        "for x in set(xs): pass",
        "for x in frozenset(xs): pass",
        "for x in {1, 2}: pass",
        "for x in set(a) | b: pass",
        "for x in a.keys() - b.keys(): pass",
        "for x in set(a).union(b): pass",
        "found = [x for x in set(xs)]",
        "found = list(set(xs))",
        "found = (*set(xs), 1)",
        "text = ','.join({str(x) for x in xs})",
        "def f():\n    yield from frozenset(xs)",
        "def f(tags: frozenset[str]):\n    return [tag for tag in tags]",
        "def f():\n    seen = set()\n    for x in seen: pass",
        "def f():\n    left: set[int] = set()\n    return left.pop()",
        "class C:\n    tags: frozenset[str]\n    def f(self):\n        for tag in self.tags: pass",
    ],
)
def test_breach_is_reported(source: str) -> None:
    assert len(complaints("mpreg_proto/example.py", source, declared_sets({"": source}))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nfrom collections.abc import Mapping\nimport msgpack, msgspec, heapq",
        "from mpreg_proto.wire import framing",
        "from . import errors",
        "for x in sorted(set(xs)): pass",
        "for x in dict.fromkeys(xs): pass",
        "both = set(a) & set(b)\nif 3 in both: pass",
        "count = len({x for x in xs})",
        "digest.hash()",
        "def f(tags: tuple[str, ...]):\n    return list(tags)",
        "class A:\n    tags: set[str]\nclass B:\n    tags: list[str]\ndef f(b):\n    for t in b.tags: pass",
        "def f(seen):\n    return seen.pop()\ndef g():\n    seen = set()\n    return 1 in seen",
        "stamp = datetime.fromisoformat(text)",
    ],
)
def test_allowed_line_is_not_reported(source: str) -> None:
    assert complaints("mpreg_proto/example.py", source, declared_sets({"": source})) == []


def test_random_is_allowed_only_in_rng_and_with_a_seed() -> None:
    seeded, loose = "import random\nr = random.Random(7)", "import random\nr = random.random()"
    assert complaints("mpreg_proto/rng.py", seeded, SetNames()) == []
    assert complaints("mpreg_proto/rng.py", loose, SetNames()) == ["mpreg_proto/rng.py:2: random.random is global"]
    assert complaints("mpreg_proto/node.py", seeded, SetNames()) == ["mpreg_proto/node.py:1: imports random"]
