"""The options that several commands share, so that one name has one meaning in all commands, and options with numbers.

The numbers are parsed here and not by typer, whose errors do not say what was given.
"""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
SecretFile = Annotated[
    str | None,
    typer.Option("--secret-file", metavar="FILE", help="The secret of the cluster (env MPREG_SECRET_FILE)."),
]
ClusterId = Annotated[
    str | None,
    typer.Option(
        "--cluster-id", metavar="ID", help="The cluster of the secret, if it has an id (env MPREG_CLUSTER_ID)."
    ),
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


def whole_number_option(
    option: str, *, metavar: str, help: str, example: int, least: int | None = None, most: int | None = None
) -> Any:
    """Return an option with a whole number from `least` to `most`. Its parser raises CommandFailed."""
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

    return typer.Option(option, metavar=metavar, parser=parse, help=help)


def seconds_option(option: str, *, metavar: str, help: str, example: float, most: float | None = None) -> Any:
    """Return an option with seconds: more than 0 and at most `most`, or at least 0 without `most`.

    Its parser raises CommandFailed.
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

    return typer.Option(option, metavar=metavar, parser=parse, help=help)


def _wrong_value(option: str, expected: str, given: str, example: str) -> CommandFailed:
    from mpreg_proto.describe import cut
    from mpreg_transports.cli.errors import CommandFailed

    return CommandFailed(f"{option} must be {expected}, not {cut(repr(given), 80)}; write {option} {example}")


def refuse_unwritable(option: str, file: Path | None, *, example: str) -> None:
    """Raise CommandFailed for a file that is a folder or lies in no folder."""
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.system_errors import no_file_possible

    if file is not None and (reason := no_file_possible(file, example=example)) is not None:
        raise CommandFailed(f"{option} {file}: {reason}")


def example(*lines: str) -> str:
    """Return the examples below a command's help, one on each line."""
    return "\n\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))
