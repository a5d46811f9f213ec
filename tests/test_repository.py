"""What a maintainer would look for before a release, so that nobody has to, in all files that are or would be tracked.

Asks git which files those are; in an unpacked source archive, where there is no git, it walks and leaves out what
.gitignore names. It reads files and changes none.
"""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Put together here, so that this file does not hold what it looks for.
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


def by_git() -> list[str] | None:
    """The tracked files and those that `git add .` would add; None where this is no checkout of its own."""
    try:
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    # A copy that lies inside another project's checkout has that project's list, which says nothing about this one.
    return listing.split("\0")[:-1] if Path(top).resolve() == ROOT else None


def by_walking() -> list[str]:
    """The files below the root but what .gitignore names, and git's own."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()] + [".git"]

    def kept(name: str) -> bool:
        return not any(fnmatch(name, pattern) for pattern in ignored)

    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(filter(kept, folders))
        found += [(Path(folder) / file).relative_to(ROOT).as_posix() for file in sorted(files) if kept(file)]
    return found


FILES = by_git() or by_walking()


def texts() -> Iterator[tuple[str, str]]:
    """Each file that holds text, with its text."""
    for name in FILES:
        path = ROOT / name
        if path.is_file():  # a file that was removed but not yet committed is still listed
            content = path.read_bytes()
            if b"\0" not in content and not name.startswith("fuzz/corpus/"):  # inputs there are any bytes
                yield name, content.decode("utf-8")


def test_the_listing_is_this_repository() -> None:
    assert {"pyproject.toml", "tests/test_repository.py", "mpreg_proto/__init__.py"} <= set(FILES)


def test_walking_finds_no_less_than_git() -> None:
    existing = {name for name in FILES if (ROOT / name).is_file()}
    assert existing <= set(by_walking())


def test_no_lock_file_is_tracked() -> None:
    locks = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock*.toml", "package-lock.json")
    assert [name for name in FILES for lock in locks if fnmatch(Path(name).name, lock)] == []
    assert "uv.lock" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_package_registry_is_named(host: str) -> None:
    assert [name for name, text in texts() if host in text] == []


def test_no_path_of_somebodys_machine_is_named() -> None:
    found = [(name, match[0]) for name, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_the_rule_for_paths_sees_what_it_should() -> None:
    for text in ("/".join(("", "root", "x")), "open('" + "/".join(("", "work", "x")) + "')"):
        assert MACHINE_PATH.search(text), text
    for text in ("../work/x", "https://example.com/work/x", "$PYENV_ROOT/root/x", "~/work/x", "/workers/"):
        assert not MACHINE_PATH.search(text), text


def test_the_changelog_has_a_place_for_what_comes() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading), heading


def test_both_packages_say_that_they_are_typed_and_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["mpreg_proto", "mpreg_transports"]
    for package in packages:
        assert (ROOT / package / "py.typed").is_file()


def test_the_check_that_gates_a_change_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
