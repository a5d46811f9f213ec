"""The command `mpreg config`: each setting, its value, and where it came from.

It reads what `serve` would read, and starts nothing.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mpreg_transports.cli.options import Config, Json, example


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("config", epilog=example("mpreg config", "MPREG_PORT=9005 mpreg config app.py:server --json"))(settings)


def settings(
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="A Server whose arguments are also read, as by mpreg serve.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show each setting, its value and its source.

    The sources from the highest precedence: flag, environment, file, Server(...), default.
    """
    from rich.text import Text

    from mpreg_transports.cli.console import emit_json, print_message, show, table
    from mpreg_transports.cli.target import app_dir_of, load, own_settings
    from mpreg_transports.config.settings import kubernetes, misspelt, node_here, resolve

    app_dir = app_dir_of(resolve(flags={}, environ=os.environ, config=config))
    server = load(target, app_dir) if target is not None else None
    own = own_settings(server) if server is not None else {}
    found = resolve(flags={}, environ=os.environ, config=config, server=own)
    if found["url"].source == "default":
        found["url"] = node_here(found)
    for sentence in (kubernetes(os.environ), *misspelt(os.environ)):
        if sentence is not None:
            print_message(sentence)
    if as_json:
        emit_json({name: {"value": one.value, "from": one.source} for name, one in found.items()})
        return
    rows: list[tuple[str | Text, ...]] = []
    for name, one in found.items():
        value = "\n".join(one.value) if isinstance(one.value, tuple) else one.value
        shown = "-" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)
        style = "dim" if one.source == "default" else ""
        rows.append((Text(name, style="bold"), shown, Text(one.source, style=style), Text(one.setting.variable)))
    show(table(("SETTING", "VALUE", "FROM", "VARIABLE"), rows))
