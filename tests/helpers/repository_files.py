"""The files of this repository, for the checks that read all of them.

The list comes from git. In an unpacked source archive without git, it comes from a directory walk without the files
that .gitignore names.
"""

from __future__ import annotations

import os
import subprocess
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def repository_files() -> list[str]:
    """Return the files that are or would be tracked, as paths from the root; a file may be removed already."""
    return by_git() or by_walking()


def by_git() -> list[str] | None:
    """Return the tracked files and those that `git add .` would add; None if this is not its own checkout."""
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
    # A copy inside another project's checkout would get that project's list, which has nothing to do with this one.
    return listing.split("\0")[:-1] if Path(top).resolve() == ROOT else None


def by_walking() -> list[str]:
    """Return the files below the root except git's own and those that .gitignore names."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()] + [".git"]

    def kept(name: str) -> bool:
        return not any(fnmatch(name, pattern) for pattern in ignored)

    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(filter(kept, folders))
        found += [(Path(folder) / file).relative_to(ROOT).as_posix() for file in sorted(files) if kept(file)]
    return found
