"""The command `mpreg drain`: a node leaves the cluster in order, at the command of any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mpreg_transports.cli.options import ClusterId, Config, Json, SecretFile, Url, example, seconds_option

if TYPE_CHECKING:
    from mpreg_proto.wire.messages import DrainReply
    from mpreg_transports.client import Client

_LOOK_SECONDS = 0.2
"""The seconds between two looks at how far the node is; each one repeats the command."""
_LOST_SECONDS = 3.0
"""The seconds without an answer after which the node that was asked counts as gone, if it is the one that leaves."""
_PROGRESS = {
    "connecting": "{} has no link to the node that was asked yet",
    "sent": "{} was commanded to leave",
    "draining": "{} takes no new calls, and ends those that run",
    "left": "{} has left",
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("mpreg drain gpu-1", "mpreg drain ws://10.0.0.7:9001 --url ws://10.0.0.5:9001"))(drain)


def drain(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="The node: its name, the beginning of its id, or its address.")
    ],
    timeout: Annotated[
        float,
        seconds_option(
            "--timeout", metavar="S", most=86_400, example=60, help="The most seconds to wait until it has left."
        ),
    ] = 60.0,
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a node leave the cluster in order, as SIGTERM does, and wait until it has left.

    It takes no new calls, and ends once those that run are done, or after its grace of 10 seconds. The node that is
    asked passes the command on; it may be the one that leaves. Every client that a node serves may drain all of them:
    with a secret those who have it, without one everybody who can connect.
    """
    from mpreg_transports.cli.connect import node_access, with_client
    from mpreg_transports.cli.console import emit_json

    async def operation(client: Client) -> DrainReply:
        return await _drained(client, normal_address(node), timeout)

    leaves = "interrupted; a node that was commanded to leave does so all the same"
    reply = with_client(node_access(url, config, secret_file, cluster_id), operation, interrupted=leaves)
    if as_json:
        emit_json({"node": reply.shown, "id": reply.member.hex(), "state": "left"})


def normal_address(node: str) -> str:
    """Return an address as nodes write it, with its port; a name or id as it is. Raises CommandFailed."""
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.addresses import parse_address

    if "://" not in node:
        return node
    try:
        return str(parse_address(node))
    except ValueError as error:
        raise CommandFailed(f"{error} (NODE)") from None


async def _drained(client: Client, node: str, timeout: float) -> DrainReply:
    """Drain a node, and return its reply once it has left. Raises CommandFailed after `timeout` seconds."""
    import anyio

    from mpreg_transports.cli.errors import CommandFailed, ExitCode

    asked = (await client.view()).id
    reply = await client._drain_node(node)
    state = _report(reply, "")
    with anyio.move_on_after(timeout):
        while state != "left":
            await anyio.sleep(_LOOK_SECONDS)
            latest = await _look(client, reply, own=reply.member.hex() == asked)
            if latest is None:
                _report(reply, state, now="left")
                return reply
            state = _report(latest, state)
    if state != "left":
        text = f"{reply.shown} has not left within {timeout:g} s: " + _PROGRESS.get(state, "{}").format("it")
        raise CommandFailed(text, code=ExitCode.DEADLINE)
    return reply


async def _look(client: Client, reply: DrainReply, *, own: bool) -> DrainReply | None:
    """Repeat the command; return how far the node is, None if it was the node that was asked and does not answer.

    Raises CommandFailed if the node has died instead.
    """
    import anyio

    from mpreg_proto.errors import InvalidRequest, MpregError
    from mpreg_transports.cli.errors import CommandFailed, ExitCode

    try:
        if not own:
            return await client._drain_node(reply.member.hex())
        with anyio.move_on_after(_LOST_SECONDS):
            return await client._drain_node(reply.member.hex())
    except InvalidRequest as error:  # a node that has just started at that address does not know it
        if not own:
            raise CommandFailed(f"{reply.shown} has not left in order: {error.message}", code=ExitCode.OTHER) from None
    except MpregError:
        if not own:
            raise
    return None


def _report(reply: DrainReply, before: str, *, now: str = "") -> str:
    """Print a new state on stderr, and return it."""
    from mpreg_transports.cli.console import print_message

    state = now or reply.state
    if state != before:
        print_message("mpreg: " + _PROGRESS.get(state, "{} is " + state).format(reply.shown))
    return state
