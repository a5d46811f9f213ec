"""The commands `mpreg secret new` and `mpreg secret ca`: make the secret of a cluster, and print its authority."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpreg_transports.cli.options import ClusterId, Config, SecretFile, example

_DEFAULT_FILE = Path("mpreg.secret")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Make the secret of a cluster, and print what is derived from it.")
    group.command(epilog=example("mpreg secret new", "mpreg secret new /etc/mpreg/shop.secret"))(new)
    group.command(epilog=example("mpreg secret ca --secret-file mpreg.secret > ca.pem"))(ca)
    app.add_typer(group, name="secret")


def new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The new file; - prints the secret.", show_default=True)
    ] = _DEFAULT_FILE,
) -> None:
    """Make a new secret and write it to a file that only you can read.

    Give the same file to each node of the cluster, on every host. All who have it can join the cluster and run its
    functions.
    """
    from mpreg_transports.cli.console import emit, print_message
    from mpreg_transports.security.secret import new_secret, write_secret

    secret = new_secret()
    if str(file) == "-":
        emit(secret.reveal())
        return
    write_secret(file, secret)
    print_message(f"{file} holds a new secret, readable for you alone. Copy its one line to each host of the cluster.")
    print_message(f"start a node:  mpreg serve --host 0.0.0.0 --secret-file {file}")


def ca(secret_file: SecretFile = None, cluster_id: ClusterId = None, config: Config = None) -> None:
    """Print the certificate of the cluster's authority, by which programs such as curl verify a node.

    It is public: it helps nobody to join.
    """
    from mpreg_transports.cli.connect import read_credentials
    from mpreg_transports.cli.console import emit
    from mpreg_transports.cli.errors import CommandFailed

    secret, cluster = read_credentials(secret_file, cluster_id, config)
    if secret is None:
        raise CommandFailed("there is no secret to print the authority of", "name its file:   --secret-file FILE")
    from mpreg_transports.security.contexts import authority_pem

    emit(authority_pem(secret, cluster).strip())
