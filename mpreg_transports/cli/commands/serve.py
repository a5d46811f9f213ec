"""The command `mpreg serve`: one node in this process until Ctrl-C or SIGTERM.

Settings come from flags, environment, file and TARGET; the node is a `Server`. The log of the node goes to stderr, and
so does the one line that reports that it is ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mpreg_transports.cli.options import AppDir, Config, SecretFile, example, whole_number_option

if TYPE_CHECKING:
    from mpreg_transports.config.settings import Value
    from mpreg_transports.server import Server

Target = Annotated[
    str | None,
    typer.Argument(metavar="TARGET", help="The Server to run, with its functions: module:name or file.py:name."),
]

Port = Annotated[
    int | None,
    whole_number_option(
        "--port",
        metavar="PORT",
        least=0,
        most=65_535,
        example=9001,
        help="The port to listen on; 0 takes any free one (default 9001).",
    ),
]
OwnResources = Annotated[
    list[str] | None, typer.Option("--resource", metavar="R", help="A resource that this node holds; may be repeated.")
]
Peers = Annotated[
    list[str] | None, typer.Option("--peer", metavar="URL", help="A node of the cluster to join; may be repeated.")
]
Advertise = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The address at which others reach this node, if it listens at another."),
]
Transport = Annotated[
    str | None, typer.Option(metavar="auto|websocket", help="auto tries raw frames to peers first, websocket does not.")
]
OpenClients = Annotated[
    bool | None,
    typer.Option("--open-clients", help="With a secret: let clients call functions that do not prove it."),
]
Insecure = Annotated[bool | None, typer.Option("--insecure", help="Allow a non-loopback host without authentication.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="HOST", help="Another name that HTTP requests may use; may be repeated."),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin", metavar="ORIGIN", help="An origin whose web pages may use this node; may be repeated."
    ),
]
Processes = Annotated[
    int | None,
    whole_number_option(
        "--processes",
        metavar="N",
        least=0,
        most=1_024,
        example=4,
        help="Run the def functions that name no executor in N processes (default 0: in threads).",
    ),
]
Journal = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Record all inputs, with arguments and results, for mpreg replay."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "mpreg serve app.py:server --port 9001",
            "mpreg serve app.py:server --port 9002 --resource gpu --peer ws://127.0.0.1:9001",
            "mpreg serve app.py:server --host 0.0.0.0 --secret-file mpreg.secret --peer wss://10.0.0.5:9001",
        )
    )(serve)


def serve(
    target: Target = None,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="The host to listen on (default 127.0.0.1).")] = None,
    port: Port = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The node's name in logs and tables.")] = None,
    resource: OwnResources = None,
    peer: Peers = None,
    cluster_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The cluster's id: nodes of other ids cannot join.")
    ] = None,
    advertise: Advertise = None,
    transport: Transport = None,
    secret_file: SecretFile = None,
    open_clients: OpenClients = None,
    insecure: Insecure = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    processes: Processes = None,
    journal: Journal = None,
    app_dir: AppDir = None,
    config: Config = None,
) -> None:
    """Run a node until Ctrl-C.

    After Ctrl-C running calls have 10 s to finish; a second Ctrl-C ends the node at once. Settings may also come from
    variables such as MPREG_PORT, from a TOML file or from Server(...): mpreg config shows them.
    """
    flags: dict[str, Value] = {
        "host": host,
        "port": port,
        "name": name,
        "resource": tuple(resource) if resource else None,
        "peer": tuple(peer) if peer else None,
        "cluster-id": cluster_id,
        "advertise": advertise,
        "transport": transport,
        "secret-file": secret_file,
        "open-clients": open_clients,
        "insecure": insecure,
        "allow-host": tuple(allow_host) if allow_host else None,
        "allow-origin": tuple(allow_origin) if allow_origin else None,
        "processes": processes,
        "journal": journal,
        "app-dir": str(app_dir) if app_dir is not None else None,
    }
    from mpreg_transports.cli.log_handler import log_to_stderr
    from mpreg_transports.cli.node_process import end_process
    from mpreg_transports.cli.target import prepare

    server = prepare(target, flags, config)
    log_to_stderr()
    server.run_until_signal(lambda: log_ready_line(server))
    end_process()


def log_ready_line(server: Server) -> None:
    """Write the line that reports the address on which the node listens."""
    from mpreg_transports.cli.log_handler import write_log_line

    write_log_line(server.ready_line())
