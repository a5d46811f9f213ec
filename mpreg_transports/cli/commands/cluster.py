"""The commands `mpreg nodes`, `functions` and `check`: the view that one node has of the cluster, and its reachability.

All three get the view of a node and change nothing there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mpreg_transports.cli.options import ClusterId, Config, Json, SecretFile, Url, example
from mpreg_transports.config.release import installed_version

if TYPE_CHECKING:
    from rich.table import Table

    from mpreg_proto.view import NodeView
    from mpreg_transports.cli.connect import NodeAccess
    from mpreg_transports.client import Client

_PINGS = 5


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of `check`. Times are nanoseconds; `problems` is empty if there are none."""

    url: str
    node: str
    cluster: str
    protocol: int
    release: str
    reached: int
    """The time from the first packet to the answered handshake."""
    rtt: int
    """The round-trip time: the shortest of five."""
    members: dict[str, int]
    """The number of members by standing."""
    functions: int
    synced: bool
    problems: tuple[str, ...]
    identity: str
    """The proof of who is who."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command(epilog=example("mpreg nodes --url ws://127.0.0.1:9001"))(nodes)
    app.command(epilog=example("mpreg functions --json"))(functions)
    app.command(epilog=example("mpreg check ws://127.0.0.1:9001"))(check)


def nodes(
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the nodes of the cluster and their state, in the view of one node."""
    from mpreg_transports.cli.connect import node_access
    from mpreg_transports.cli.console import emit_json, show

    view = _view(node_access(url, config, secret_file, cluster_id))
    if as_json:
        emit_json([_plain(row) for row in view.members])
    else:
        show(members_table(view), "", observers_table(view))


def functions(
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the functions of the cluster, with their nodes and resources, in the view of one node.

    WAITING is the number of calls of a function that wait at that node for a free place, here or elsewhere.
    """
    import msgspec

    from mpreg_transports.cli.connect import node_access
    from mpreg_transports.cli.console import emit_json, show

    view = _view(node_access(url, config, secret_file, cluster_id))
    if as_json:
        waiting = view.waiting
        emit_json([{**msgspec.to_builtins(row), "waiting": waiting.get(row.function, 0)} for row in view.functions])
    else:
        show(functions_table(view))


def check(
    target: Annotated[str | None, typer.Argument(metavar="URL", help="The node's address.")] = None,
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check the connection to a node: identity, version, rtt, clock and view.

    Without URL it checks the node that other commands ask (MPREG_URL, mpreg.toml). If they do not accept each other, it
    says why. The exit code is 9 if the node answers but has a problem.
    """
    from mpreg_transports.cli.connect import node_access, with_client
    from mpreg_transports.cli.console import emit_json, show
    from mpreg_transports.cli.errors import CommandFailed, ExitCode, print_error

    if target is not None and url is not None:
        raise CommandFailed(f"two addresses, {target} and --url {url}: give one")
    access = node_access(target or url, config, secret_file, cluster_id, given_as="URL" if target else "--url")
    started: list[int] = []

    async def operation(client: Client) -> CheckResult:
        reached = time.monotonic_ns() - started[0]
        rounds: list[int] = []
        view = await client.view()
        for _ in range(_PINGS):
            sent = time.monotonic_ns()
            view = await client.view()
            rounds.append(time.monotonic_ns() - sent)
        secret = access.secret is not None
        return assess(access.url, view, protocol=client.version, reached=reached, rtt=min(rounds), secret=secret)

    found = with_client(access, operation, before=lambda: started.append(time.monotonic_ns()))
    if as_json:
        emit_json(_plain(found))
    else:
        show(check_table(found))
    for problem in found.problems:
        print_error([problem])
    if found.problems:
        raise typer.Exit(ExitCode.OTHER)


# -- results and tables -----------------------------------------------------------------------------------------------


def assess(url: str, view: NodeView, *, protocol: int, reached: int, rtt: int, secret: bool = False) -> CheckResult:
    """Return the result of a check from a node's view and the measured times; `secret` if both proved one."""
    standings: dict[str, int] = {}
    for row in view.members:
        standings[row.standing] = standings.get(row.standing, 0) + 1
    return CheckResult(
        url=url,
        node=view.shown,
        cluster=view.cluster,
        protocol=protocol,
        release=installed_version(),
        reached=reached,
        rtt=rtt,
        members=standings,
        functions=len(dict.fromkeys(row.function for row in view.functions)),
        synced=view.synced,
        problems=tuple(_problems(view)),
        identity="proved by the secret of the cluster, on both sides" if secret else "a client without credentials",
    )


def _problems(view: NodeView) -> list[str]:
    found: list[str] = []
    if view.draining:
        found.append(f"{view.shown} is leaving the cluster and takes no new requests; ask another node")
    if not view.synced:
        found.append(f"{view.shown} has met none of its peers yet, so it knows only itself; are its --peer right?")
    for row in view.members:
        if row.standing == "suspect":
            found.append(f"{row.shown} does not answer {view.shown} at the moment")
        elif row.standing == "alive" and not row.me and not row.catalogue:
            found.append(f"{view.shown} does not know yet what {row.shown} offers")
    return found


def check_table(found: CheckResult) -> Table:
    """Return the result of `check` as a table, one line for each property."""
    from mpreg_transports.cli.console import format_duration, table

    members = ", ".join(f"{count} {standing}" for standing, count in found.members.items())
    peers = "has met its peers" if found.synced else "has met no peer yet"
    rows = [
        ("reachable", f"{found.url}, after {format_duration(found.reached)}"),
        ("node", f"{found.node} of cluster {found.cluster}"),
        ("identity", found.identity),
        ("version", f"protocol {found.protocol}; mpreg {found.release} here"),
        ("rtt", f"{format_duration(found.rtt)} (the shortest of {_PINGS})"),
        ("view", f"members: {members}; {found.functions} functions; {peers}"),
        ("clock", "not compared: nodes exchange spans, never times of day"),
    ]
    return table(("", ""), rows)


def members_table(view: NodeView) -> Table:
    """Return a table with a row for each member; a star marks the node that was asked.

    A node without resources is a BALANCER, any other a SERVER.
    """
    from rich.text import Text

    from mpreg_transports.cli.console import format_duration, table

    styles: Mapping[str, str] = {"alive": "green", "suspect": "yellow", "dead": "red", "draining": "yellow"}
    rows: list[tuple[str | Text, ...]] = []
    for row in view.members:
        standing = Text(row.standing, style=styles.get(row.standing, "dim"))
        name = row.shown + (" *" if row.me else "")
        role, resources = "SERVER" if row.resources else "BALANCER", ", ".join(row.resources) or "-"
        since, addresses = format_duration(row.since), "\n".join(row.addresses)
        rows.append((name, role, standing, since, resources, addresses))
    made = table(("NODE", "ROLE", "STATE", "SINCE", "RESOURCES", "ADDRESS"), rows)
    made.caption = f"* asked; cluster {view.cluster}"
    made.caption_justify = "left"
    made.columns[0].min_width = 10
    made.columns[5].no_wrap = True
    return made


def observers_table(view: NodeView) -> Table:
    """Return a table with the rtt of each member, the number of its functions, its catalogue, and its observers.

    The observers of a member are its neighbours on the rings.
    """
    from mpreg_transports.cli.console import format_duration, table

    alive = len([row for row in view.members if row.standing in ("alive", "draining", "suspect")])
    rows: list[tuple[str, ...]] = []
    for row in view.members:
        rtt = "-" if row.rtt is None else format_duration(row.rtt)
        catalogue = f"version {row.catalogue}" if row.catalogue else "unknown"
        catalogue += f", {row.lag} behind" if row.lag else ""
        observers = "all others" if 1 < alive <= len(row.observers) + 1 else ", ".join(row.observers) or "-"
        accusers = f" ({row.accusers} suspect it)" if row.accusers else ""
        rows.append((row.shown, rtt, str(row.functions), catalogue, observers + accusers))
    made = table(("NODE", "RTT", "OFFERS", "CATALOGUE", "OBSERVERS"), rows)
    made.columns[0].min_width = 10
    return made


def functions_table(view: NodeView) -> Table:
    """Return a table with one row for each function, the nodes that offer it, and how many of its calls wait.

    Beside each node are the resources that it holds for the function.
    """
    from rich.console import Group, RenderableType
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from mpreg_transports.cli.console import escape_controls, table

    groups: dict[tuple[str, ...], Table] = {}
    widest = max((len(row.node) for row in view.functions), default=0)
    for row in view.functions:
        marks = " ".join(word for word in (row.version, "idempotent" if row.idempotent else "") if word)
        key = (
            escape_controls(row.function),
            escape_controls(row.signature),
            escape_controls(row.doc),
            escape_controls(marks),
        )
        if key not in groups:
            groups[key] = Table.grid(padding=(0, 2, 0, 0))
            groups[key].add_column(no_wrap=True, min_width=widest)
            groups[key].add_column(overflow="fold", style="dim")
        groups[key].add_row(Text(row.node), Text(", ".join(row.resources)))
    cells: list[tuple[RenderableType, ...]] = []
    waiting = {escape_controls(function): count for function, count in view.waiting.items()}
    for (name, signature, *said), offered in groups.items():
        lines = [Padding(Text(line, style="dim"), (0, 0, 0, 2)) for line in said if line]
        head = Group(Text.assemble((name, "bold"), _unquoted(signature)), *lines)
        cells.append((head, offered, str(waiting.get(name, 0))))
    return table(("FUNCTION", "OFFERED BY, WITH RESOURCES", "WAITING"), cells)


def _unquoted(signature: str) -> str:
    """Return a signature without the quotes that annotations have under `from __future__ import annotations`."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)


def _view(access: NodeAccess) -> NodeView:
    from mpreg_transports.cli.connect import with_client

    async def operation(client: Client) -> NodeView:
        return await client.view()

    return with_client(access, operation)


def _plain(row: object) -> object:
    """Return a struct or dataclass as a tree for JSON."""
    import msgspec

    return msgspec.to_builtins(row)
