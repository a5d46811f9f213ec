"""The test files for a module, nearest first, by their names and by the names that they use.

Recorded coverage would be exact, but to record it takes as long as all tests under a tracer. A file that is left out
costs a survivor that a person looks at, not a wrong verdict.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.mutation import PACKAGES, ROOT

FILES = 4
"""The most test files that are chosen by the names that they use."""
_CORE = ("tests/unit/proto",)
_ADAPTERS = ("tests/unit/transports", "tests/conformance", "tests/integration")
_END_TO_END = (
    "tests/conformance/test_native.py",
    "tests/conformance/test_http.py",
)
"""Files that every mutant of the adapters ends with: whole requests over each kind of link."""


def test_files(file: str) -> list[list[str]]:
    """Return the test files for a module in two groups: those of its name, and others, which a mutant meets later.

    The others are those that use its names most, and for the core those of the same folder.
    """
    package, _, rest = file.partition("/")
    folders = _CORE if package == PACKAGES[0] else _ADAPTERS
    name = f"test_{Path(rest).stem}"
    near = Path(folders[0], rest).parent
    pattern = _names(file)
    tests = _tests(folders)
    own = [one for one in tests if Path(one).stem == name or Path(one).stem.startswith(f"{name}_")]
    own.sort(key=lambda one: Path(one).parent != near)
    uses = {one: len(pattern.findall(_text(one))) for one in tests if one not in own}
    others = sorted((one for one in uses if uses[one]), key=lambda one: (Path(one).parent != near, -uses[one]))[:FILES]
    last = [one for one in tests if Path(one).parent == near] if folders is _CORE else _END_TO_END
    others += [one for one in last if one not in (*own, *others)]
    return [group for group in (own, others) if group]


def _names(file: str) -> re.Pattern[str]:
    """Return a pattern of the module and of what it defines for others."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    tree = ast.parse(_text(file))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = [one.name for one in tree.body if isinstance(one, kinds) and not one.name.startswith("_")]
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, (module, *defined)))})\b")


def _tests(folders: tuple[str, ...]) -> list[str]:
    return [str(path.relative_to(ROOT)) for one in folders for path in sorted((ROOT / one).rglob("test_*.py"))]


@cache
def _text(file: str) -> str:
    return (ROOT / file).read_text("utf-8")
