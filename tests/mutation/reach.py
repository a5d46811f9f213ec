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
"""The most test files for one mutant."""
_CORE = ("tests/unit/proto",)
_ADAPTERS = ("tests/unit/transports", "tests/conformance", "tests/integration")
_END_TO_END = (
    "tests/conformance/test_native.py",
    "tests/conformance/test_http.py",
)
"""Files that every mutant of the adapters ends with: whole requests over each kind of link."""


def test_files(file: str) -> list[str]:
    """Return the test files for a module: those of its name first, then those that use its names most."""
    package, _, rest = file.partition("/")
    folders = _CORE if package == PACKAGES[0] else _ADAPTERS
    stem = Path(rest).stem
    near = str(Path(folders[0], rest).parent)
    pattern = _names(file)
    ranked = []
    for test in _tests(folders):
        own = Path(test).stem == f"test_{stem}" or Path(test).stem.startswith(f"test_{stem}_")
        uses = len(pattern.findall(_text(test)))
        if own or uses:
            same_folder = str(Path(test).parent) == near
            ranked.append((not (own and same_folder), not own, not same_folder, -uses, test))
    chosen = [test for *_, test in sorted(ranked)][:FILES]
    ends = () if folders is _CORE else _END_TO_END
    return [*chosen, *(one for one in ends if one not in chosen)]


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
