"""The options that several commands share, so that one name has one meaning in all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The node to ask (env MPREG_URL; default ws://127.0.0.1:9001)."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file with settings (env MPREG_CONFIG; else mpreg.toml here)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AppDir = Annotated[
    Path | None,
    typer.Option("--app-dir", metavar="DIR", help="Where TARGET and its packages are looked up (default: here)."),
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", metavar="R", help="A resource that the node must hold; may be repeated."),
]


def release() -> str:
    """Return the version in this program's package metadata."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mpreg")
    except PackageNotFoundError:
        return "of a source tree that is not installed"


def example(*lines: str) -> str:
    """Return the examples below a command's help, one on each line."""
    return "\n\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))
