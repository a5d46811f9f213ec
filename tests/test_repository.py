"""Checks of all files that are or would be tracked, which a maintainer would otherwise do before a release.

The tests read files and change none.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.helpers.repository_files import ROOT, by_walking, repository_files

# Joined here, so that this file does not contain the names that it looks for.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("golang", "org"),
        ("deb", "debian", "org"),
    )
]
MACHINE_PATH = re.compile(r"(?<![\w.~$})\]-])/(?:" + "|".join(("root", "work", "home/[a-z]+")) + ")" + "/")


FILES = repository_files()


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each text file."""
    for name in FILES:
        path = ROOT / name
        if path.is_file():  # git still lists a file that was removed but not yet committed
            content = path.read_bytes()
            if b"\0" not in content and not name.startswith("fuzz/corpus/"):  # inputs there are any bytes
                yield name, content.decode("utf-8")


def test_file_listing_is_of_this_repository() -> None:
    assert {"pyproject.toml", "tests/test_repository.py", "mpreg_proto/__init__.py"} <= set(FILES)


def test_directory_walk_finds_all_that_git_lists() -> None:
    existing = {name for name in FILES if (ROOT / name).is_file()}
    assert existing <= set(by_walking())


def test_no_lock_file_is_tracked() -> None:
    locks = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock*.toml", "package-lock.json")
    assert [name for name in FILES for lock in locks if fnmatch(Path(name).name, lock)] == []
    assert "uv.lock" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_package_registry_is_named(host: str) -> None:
    assert [name for name, text in texts() if host in text] == []


def test_no_path_of_a_machine_is_named() -> None:
    found = [(name, match[0]) for name, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_pattern_for_machine_paths() -> None:
    for text in ("/".join(("", "root", "x")), "open('" + "/".join(("", "work", "x")) + "')"):
        assert MACHINE_PATH.search(text), text
    for text in ("../work/x", "https://example.com/work/x", "$PYENV_ROOT/root/x", "~/work/x", "/workers/"):
        assert not MACHINE_PATH.search(text), text


def test_changelog_begins_with_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading), heading


def test_both_packages_are_typed_and_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["mpreg_proto", "mpreg_transports"]
    for package in packages:
        assert (ROOT / package / "py.typed").is_file()


def test_ci_run_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_unit_tests_mirror_the_core() -> None:
    core, tests = ROOT / "mpreg_proto", ROOT / "tests" / "unit" / "proto"
    modules = [path.relative_to(core) for path in sorted(core.rglob("*.py")) if path.stem != "__init__"]
    assert len(modules) > 40
    missing = [str(one) for one in modules if not (tests / one.parent / f"test_{one.name}").is_file()]
    assert missing == []
