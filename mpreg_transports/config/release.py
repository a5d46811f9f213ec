"""The version of this installation, the same for users, commands and files."""

from __future__ import annotations

UNKNOWN = "0+unknown"
"""The version of a source tree that is not installed (a local version of PEP 440)."""


def installed_version() -> str:
    """Return the version in this distribution's metadata; UNKNOWN if there are none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mpreg")
    except PackageNotFoundError:
        return UNKNOWN
