"""The demo's functions: a shelf counts and measures only its own files, and the parts make the whole."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_transports.cli.demo.functions import Shelf, join, pack, sources
from mpreg_transports.cli.demo.requests import README, pipeline


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small library: two modules, a package, and files that are left out."""
    (tmp_path / "one.py").write_text("import os, sys\nimport os.path\n\ndef f():\n    pass\n", "utf-8")
    (tmp_path / "two.py").write_text(
        "from one import f\nclass C:\n    async def long(self):\n        a\n        b", "utf-8"
    )
    for directory in ("pack/tests", "test", "site-packages", "__pycache__", "empty"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "no.txt").write_text("")
    for left_out in ("pack/tests/t.py", "test/t.py", "site-packages/s.py", "__pycache__/c.py"):
        (tmp_path / left_out).write_text("not python, not parsed", "utf-8")
    (tmp_path / "pack/__init__.py").write_text("from . import inner\n", "utf-8")
    (tmp_path / "pack/inner.py").write_text("", "utf-8")
    return tmp_path


def test_sources_of_the_library(tree: Path) -> None:
    found = {name: [file.name for file in files] for name, files in sources(tree).items()}
    assert found == {"one": ["one.py"], "pack": ["__init__.py", "inner.py"], "two": ["two.py"]}


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 10**6), max_size=40), st.integers(1, 5))
def test_packing_is_complete_and_even(sizes: dict[str, int], count: int) -> None:
    packed = pack(sizes, count)
    assert sorted(name for names in packed for name in names) == sorted(sizes)
    weights = [sum(sizes[name] for name in names) for names in packed]
    assert max(weights) - min(weights) <= max(sizes.values(), default=0)


def test_two_shelves_are_complete_and_disjoint(tree: Path) -> None:
    shelves = [Shelf(number, root=tree) for number in (0, 1)]
    catalogues = [shelf.packages() for shelf in shelves]
    names = [package["name"] for catalogue in catalogues for package in catalogue["packages"]]
    assert sorted(names) == ["one", "pack", "two"]
    counts = [shelf.count(catalogue["packages"]) for shelf, catalogue in zip(shelves, catalogues, strict=True)]
    measures = [
        shelf.measure(group)
        for shelf, catalogue in zip(shelves, catalogues, strict=True)
        for group in catalogue["groups"]
    ]
    report = join(counts, measures)
    assert (report["files"], report["lines"]) == (4, 5 + 5 + 1 + 0)
    assert (report["functions"], report["classes"]) == (2, 1)
    assert report["longest"] == {"lines": 3, "name": "long", "file": "two.py"}
    assert report["imports"] == [("one", 1), ("os", 1), ("sys", 1)]
    texts = [file.read_text("utf-8") for files in sources(tree).values() for file in files]
    assert report["nodes"] == sum(1 for text in texts for _ in ast.walk(ast.parse(text)))


def test_shelf_refuses_packages_of_another_shelf(tree: Path) -> None:
    shelf = Shelf(0, root=tree)
    own = {package["name"] for package in shelf.packages()["packages"]}
    (other, *_) = sorted({"one", "pack", "two"} - own)
    with pytest.raises(LookupError, match=f"{other!r} is not on shelf stdlib-a"):
        shelf.measure([other])


def test_real_library_is_split_evenly() -> None:
    first, second = Shelf(0), Shelf(1)
    sizes = [sum(package["bytes"] for package in shelf.packages()["packages"]) for shelf in (first, second)]
    assert min(sizes) > 1_000_000
    assert max(sizes) / min(sizes) < 1.5


def test_pipeline_calls_each_shelf_and_joins_once() -> None:
    request = pipeline(("stdlib-a", "stdlib-b"), 3).request()
    asked = {call.name: (call.function, call.resources) for call in request.calls}
    assert asked["report"] == ("join", ())
    assert {name for name, (_, resources) in asked.items() if resources == ("stdlib-b",)} == {
        "packages-b",
        "count-b",
        "measure-b1",
        "measure-b2",
        "measure-b3",
    }
    assert len(README) == 5
