"""The application with all commands.

Each command is in the file of its family and imports what it needs when it runs.
"""

from __future__ import annotations

from inspect import getdoc
from typing import Annotated

import typer

import mpreg_transports.cli.commands.calls as calls
import mpreg_transports.cli.commands.cluster as cluster
import mpreg_transports.cli.commands.config as config
import mpreg_transports.cli.commands.dev as dev
import mpreg_transports.cli.commands.drain as drain
import mpreg_transports.cli.commands.replay as replay
import mpreg_transports.cli.commands.secret as secret
import mpreg_transports.cli.commands.serve as serve
import mpreg_transports.cli.commands.simulate as simulate
import mpreg_transports.cli.demo.command as demo
from mpreg_transports.config.release import installed_version

_OWN = "Send graphs of calls to any node of a cluster; each call runs where its function and its data are."


def build() -> typer.Typer:
    """Return the command line for typer. Errors of commands are raised, so that `main` reports them."""
    app = typer.Typer(
        name="mpreg",
        help=_OWN,
        epilog="First steps: [bold]mpreg demo[/bold] shows what it does; [bold]mpreg dev[/bold] starts a cluster here.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for family in (serve, dev, demo, calls, cluster, drain, secret, simulate, replay, config):
        family.add_to(app)
    nested = [group.typer_instance for group in app.registered_groups if group.typer_instance is not None]
    for command in [command for one in (app, *nested) for command in one.registered_commands]:
        command.help = _paragraphs(getdoc(command.callback) or "")
    return app


def _paragraphs(text: str) -> str:
    """Return a docstring with each paragraph on one line: typer would keep the line ends of the source."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"mpreg {installed_version()}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None: ...
