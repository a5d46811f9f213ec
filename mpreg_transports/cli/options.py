"""The options that several commands share, so that one name has one meaning in all commands, and options with numbers.

The numbers are parsed here and not by typer, whose errors do not say what was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mpreg_transports.cli.errors import CommandFailed

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
    typer.Option("--app-dir", metavar="DIR", help="The folder where TARGET and its packages are (default: this one)."),
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", metavar="R", help="A resource that the node must hold; may be repeated."),
]


def whole_number_parser(
    option: str, *, least: int | None = None, most: int | None = None, example: int
) -> Callable[..., int]:
    """Return the parser of an option with a whole number from `least` to `most`. The parser raises CommandFailed."""
    expected = "a whole number"
    if most is not None:
        expected += f" from {least} to {most}"
    elif least is not None:
        expected += f" of at least {least}"

    def parse(given: object) -> int:
        text = str(given)
        if re.fullmatch("-?[0-9]{1,100}", text):
            value = int(text)
            if (least is None or value >= least) and (most is None or value <= most):
                return value
        raise _wrong_value(option, expected, text, f"{example}")

    return parse


def seconds_parser(option: str, *, most: float | None = None, example: float) -> Callable[..., float]:
    """Return the parser of an option with seconds: more than 0 and at most `most`, or at least 0 without `most`.

    The parser raises CommandFailed.
    """
    expected = "at least 0 seconds" if most is None else f"more than 0 and at most {most:g} seconds"

    def parse(given: object) -> float:
        text = str(given)
        try:
            value = float(text) if text.isascii() and "_" not in text else -1.0
        except ValueError:
            value = -1.0
        if isfinite(value) and (value >= 0 if most is None else 0 < value <= most):
            return value
        raise _wrong_value(option, expected, text, f"{example:g}")

    return parse


def _wrong_value(option: str, expected: str, given: str, example: str) -> CommandFailed:
    from mpreg_proto.describe import cut
    from mpreg_transports.cli.errors import CommandFailed

    return CommandFailed(f"{option} must be {expected}, not {cut(repr(given), 80)}; write {option} {example}")


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
