"""The command `mpreg demo`: the main use case on real input, in three processes on this machine.

All requests go to a balancer without resources: the requests of the seed's README, then a pipeline over the sources of
the standard library, of which two nodes hold one part each. The output shows each result, and where and when each call
ran.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from mpreg_transports.cli.options import Json, example

if TYPE_CHECKING:
    from mpreg_transports.cli.demo.output import DemoOutput
    from mpreg_transports.client import Client

SHELVES = ("stdlib-a", "stdlib-b")
JOIN_SECONDS = 20.0
"""The time in which the three nodes find each other."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("mpreg demo", "mpreg demo --keep"))(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the nodes running until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show a cluster of three nodes at work, each a process on this machine.

    It runs some small requests, then a pipeline over the sources of Python's standard library, and prints each result
    and where each call ran.
    """
    import anyio

    from mpreg_transports.cli.demo.output import DemoOutput
    from mpreg_transports.cli.errors import CommandFailed, ExitCode

    output = DemoOutput(as_json)
    if not anyio.run(_run_demo, output, keep):
        raise CommandFailed("interrupted; its nodes have ended", code=ExitCode.UNKNOWN)


async def _run_demo(output: DemoOutput, keep: bool) -> bool:
    """Run the demo. Return True if it ran to its end, False after Ctrl-C."""
    import anyio

    from mpreg_transports.cli.children import Children
    from mpreg_transports.cli.commands.dev import cancel_on_signal
    from mpreg_transports.cli.demo.requests import NODES
    from mpreg_transports.client import Client

    finished = False
    lines: list[str] = []
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, signals, tasks.cancel_scope)
            async with Children(lambda name, line: lines.append(f"[{name}] {line}")) as children:
                output.progress("starting three nodes, each in a process of its own ...")
                nodes = [await children.start(_target(NODES[0]), {"name": NODES[0], "port": 0})]
                for name in NODES[1:]:
                    peers = tuple(node.url for node in nodes)
                    nodes.append(await children.start(_target(name), {"name": name, "port": 0, "peer": peers}))
                async with Client(nodes[0].url) as client:
                    await _wait_until_joined(client)
                    output.nodes(nodes, await client.view())
                    await _run_requests(client, output)
                output.end()
                finished = True
                if keep:
                    output.kept(nodes)
                    await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
    return finished


def _target(name: str) -> str:
    return f"mpreg_transports.cli.demo.nodes:{name.replace('-', '_')}"


async def _wait_until_joined(client: Client) -> None:
    """Wait until the balancer has the other nodes and their offers in its view. Raises CommandFailed."""
    import anyio

    from mpreg_transports.cli.errors import CommandFailed, ExitCode

    with anyio.move_on_after(JOIN_SECONDS):
        while True:
            view = await client.view()
            if sum(row.standing == "alive" and row.linked | row.me and row.catalogue > 0 for row in view.members) == 3:
                return
            await anyio.sleep(0.02)
    raise CommandFailed("the three nodes did not find each other; is loopback filtered here?", code=ExitCode.OTHER)


async def _run_requests(client: Client, output: DemoOutput) -> None:
    import msgspec

    from mpreg_transports.cli.commands.calls import request_of
    from mpreg_transports.cli.demo.functions import GROUPS
    from mpreg_transports.cli.demo.requests import README, pipeline

    for title, commands in README:
        request = msgspec.structs.replace(request_of(json.dumps(commands), where=title), trace=True)
        output.request(title, commands, await client.answer(request))
    output.progress("reading and parsing the standard library, each part where it is ...")
    output.pipeline(await client.answer(pipeline(SHELVES, GROUPS), timeout=120, trace=True))
