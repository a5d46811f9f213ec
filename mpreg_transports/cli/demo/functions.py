"""The functions of `mpreg demo`: figures about one node's part of the sources of the standard library.

Two nodes share the sources of this Python: its top-level modules and packages are split into two disjoint lists of
about equal size, the same in each process. A `Shelf` reads only its own files, so a call must go where its data is.
`join` needs no files and combines the results. Tests that come with Python are left out.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

GROUPS = 3
"""The number of lists of about equal size into which a shelf's packages are packed. One call measures each list."""
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})


class Package(TypedDict):
    """One top-level module or package."""

    name: str
    files: int
    bytes: int


class ShelfContents(TypedDict):
    """The content of a shelf. `groups` are lists of names, of about equal size."""

    shelf: str
    packages: list[Package]
    groups: list[list[str]]


class Count(TypedDict):
    """The counts of a shelf."""

    shelf: str
    packages: int
    files: int
    lines: int
    bytes: int


class LongestFunction(TypedDict):
    """A function and its number of lines."""

    lines: int
    name: str
    file: str


class Measure(TypedDict):
    """The figures of the syntax trees of some packages. `imports`: module -> number of files that import it."""

    functions: int
    classes: int
    nodes: int
    longest: LongestFunction
    imports: dict[str, int]


class LibraryReport(TypedDict):
    """The figures of all shelves. `imports`: the most imported modules, with the number of files."""

    files: int
    lines: int
    bytes: int
    functions: int
    classes: int
    nodes: int
    longest: LongestFunction
    imports: list[tuple[str, int]]
    shelves: list[Count]


def sources(root: Path) -> dict[str, list[Path]]:
    """Return the Python files of each top-level module and package, by its name, in order."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_dir():
            files = [file for file in sorted(entry.rglob("*.py")) if not _LEFT_OUT.intersection(file.parts)]
        else:
            files = [entry] if entry.suffix == ".py" else []
        if files:
            found[entry.stem if entry.is_file() else entry.name] = files
    return found


def pack(sizes: dict[str, int], count: int) -> list[list[str]]:
    """Pack names into `count` lists of about equal size, the biggest first; equal input gives equal output."""
    packed: list[list[str]] = [[] for _ in range(count)]
    weights = [0] * count
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = weights.index(min(weights))
        packed[lightest].append(name)
        weights[lightest] += sizes[name]
    return packed


class Shelf:
    """One node's part of the sources: number `number` of `shelves`. It reads files on demand and keeps none."""

    def __init__(self, number: int, *, shelves: int = 2, root: Path | None = None) -> None:
        self.root: Path = root or Path(sysconfig.get_path("stdlib"))
        self.name = f"stdlib-{'abcdefgh'[number]}"
        files = sources(self.root)
        sizes = {name: sum(file.stat().st_size for file in of) for name, of in files.items()}
        self._files = {name: files[name] for name in pack(sizes, shelves)[number]}
        self._sizes = sizes

    def packages(self) -> ShelfContents:
        """The packages on this node's shelf, the biggest first."""
        rows = [Package(name=name, files=len(of), bytes=self._sizes[name]) for name, of in self._files.items()]
        groups = pack({name: self._sizes[name] for name in self._files}, GROUPS)
        return ShelfContents(shelf=self.name, packages=rows, groups=groups)

    def count(self, packages: list[Package]) -> Count:
        """Count files, lines and bytes of these packages."""
        lines = size = files = 0
        for package in packages:
            for text in self._read(package["name"]):
                files += 1
                size += len(text)
                lines += text.count(b"\n") + (not text.endswith(b"\n") and bool(text))
        return Count(shelf=self.name, packages=len(packages), files=files, lines=lines, bytes=size)

    def measure(self, names: list[str]) -> Measure:
        """Parse these packages and measure their syntax trees."""
        functions = classes = nodes = 0
        longest = LongestFunction(lines=0, name="", file="")
        imports: dict[str, int] = {}
        for name in names:
            for file in self._files_of(name):
                counted = _Visitor(str(file.relative_to(self.root).as_posix()))
                counted.visit(ast.parse(file.read_bytes()))
                functions += counted.functions
                classes += counted.classes
                nodes += counted.nodes
                longest = max(longest, counted.longest, key=lambda one: one["lines"])
                for module in counted.imports:
                    imports[module] = imports.get(module, 0) + 1
        return Measure(functions=functions, classes=classes, nodes=nodes, longest=longest, imports=imports)

    def _files_of(self, name: str) -> list[Path]:
        if name not in self._files:
            raise LookupError(f"{name!r} is not on shelf {self.name}")
        return self._files[name]

    def _read(self, name: str) -> Iterator[bytes]:
        for file in self._files_of(name):
            yield file.read_bytes()


def join(counts: list[Count], measures: list[Measure]) -> LibraryReport:
    """Put together what the shelves say."""
    imports: dict[str, int] = {}
    for measure in measures:
        for module, files in measure["imports"].items():
            imports[module] = imports.get(module, 0) + files
    return LibraryReport(
        files=sum(count["files"] for count in counts),
        lines=sum(count["lines"] for count in counts),
        bytes=sum(count["bytes"] for count in counts),
        functions=sum(measure["functions"] for measure in measures),
        classes=sum(measure["classes"] for measure in measures),
        nodes=sum(measure["nodes"] for measure in measures),
        longest=max((measure["longest"] for measure in measures), key=lambda one: one["lines"]),
        imports=sorted(imports.items(), key=lambda item: (-item[1], item[0]))[:5],
        shelves=counts,
    )


class _Visitor:
    """The figures of one file's syntax tree."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.functions = self.classes = self.nodes = 0
        self.longest = LongestFunction(lines=0, name="", file=file)
        self.imports: dict[str, None] = {}

    def visit(self, tree: ast.Module) -> None:
        """Walk the whole tree."""
        for node in ast.walk(tree):
            self.nodes += 1
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions += 1
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > self.longest["lines"]:
                    self.longest = LongestFunction(lines=lines, name=node.name, file=self.file)
            elif isinstance(node, ast.ClassDef):
                self.classes += 1
            elif isinstance(node, ast.Import):
                self.imports.update({alias.name.partition(".")[0]: None for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.imports[node.module.partition(".")[0]] = None
