"""The command `mpreg dev`: a cluster of N processes on this machine until Ctrl-C.

The ports are chosen and printed. Each process is a node with TARGET's functions and has all others as peers. With
`--reload` all are restarted, on the same ports, when the file of TARGET changes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpreg_transports.cli.commands.serve import Target
from mpreg_transports.cli.options import AppDir, Config, Json, example, whole_number_option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio import CancelScope

    from mpreg_transports.cli.children import Child, Children
    from mpreg_transports.config.settings import Value

POLL_SECONDS = 0.3
"""Seconds between two reads of the file's time."""
MOST_NODES = 64
SHARED = ("resource", "cluster-id", "transport", "secret-file", "open-clients", "allow-host", "allow-origin", "app-dir")
"""The settings of the file and the environment that all nodes get."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("mpreg dev", "mpreg dev app.py:server --nodes 3 --reload"))(dev)


def dev(
    target: Target = None,
    nodes: Annotated[
        int,
        whole_number_option(
            "--nodes",
            metavar="N",
            least=1,
            most=MOST_NODES,
            example=3,
            help=f"The number of nodes, each a process of its own, at most {MOST_NODES}.",
        ),
    ] = 3,
    reload: Annotated[bool, typer.Option("--reload", help="Restart all nodes when TARGET's file changes.")] = False,
    app_dir: AppDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a cluster of several nodes on this machine until Ctrl-C.

    Each node gets a free port; the addresses are printed.
    """
    import anyio

    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.cli.target import app_dir_of, source_of
    from mpreg_transports.config.settings import resolve

    flags: dict[str, Value] = {"app-dir": str(app_dir) if app_dir is not None else None}
    found = resolve(flags=flags, environ=os.environ, config=config)
    watched = source_of(target, app_dir_of(found)) if target is not None else None
    if reload and watched is None:
        raise CommandFailed("--reload watches the file of TARGET: name one, such as mpreg dev app.py:server --reload")
    shared = {name: found[name].value for name in SHARED if found[name].value}
    if found["resource"].source == "default":
        shared.pop("resource", None)
    cluster = DevCluster(target, nodes, shared, watched=watched if reload else None, as_json=as_json)
    anyio.run(cluster.run)


class DevCluster:
    """The processes of one `mpreg dev`.

    `shared` are settings that all nodes get; `watched` is the file whose change restarts them.
    """

    def __init__(
        self, target: str | None, count: int, shared: dict[str, Value], *, watched: Path | None, as_json: bool
    ) -> None:
        self._target = target
        self._shared = shared
        self._watched = watched
        self._as_json = as_json
        self._nodes: list[Child | None] = [None] * count
        self._ports = [0] * count

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM."""
        import anyio

        from mpreg_transports.cli.children import Children

        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_on_signal, signals, tasks.cancel_scope)
                async with Children(_print_line) as children:
                    await self._start(children)
                    self._print_nodes()
                    await (self._restart_on_change(children) if self._watched else self._until_all_ended(children))
                tasks.cancel_scope.cancel()

    async def _start(self, children: Children) -> None:
        """Start each node on its earlier port, with the nodes before it as peers; later nodes connect to it."""
        for number in range(len(self._nodes)):
            scheme = "wss" if self._shared.get("secret-file") else "ws"
            peers = tuple(f"{scheme}://127.0.0.1:{port}" for port in self._ports[:number])
            settings: dict[str, Value] = {
                **self._shared,
                "host": "127.0.0.1",
                "port": self._ports[number],
                "name": f"node-{number + 1}",
                "peer": peers,
            }
            child = self._nodes[number] = await children.start(self._target, settings)
            self._ports[number] = child.port

    def _print_nodes(self) -> None:
        from mpreg_transports.cli.console import emit, emit_json, print_message

        nodes = [(child.name, child.url) for child in self._nodes if child is not None]
        if self._as_json:
            emit_json([{"name": name, "url": url} for name, url in nodes])
        else:
            emit("\n".join(f"{name}  {url}" for name, url in nodes))
        print_message(f"ready; Ctrl-C ends it. Try:  mpreg functions --url {nodes[0][1]}")

    async def _until_all_ended(self, children: Children) -> None:
        import anyio

        from mpreg_transports.cli.console import print_message
        from mpreg_transports.cli.errors import CommandFailed, ExitCode

        async def follow(child: Child) -> None:
            code = await child.process.wait()
            print_message(f"{child.name} has ended ({code})")

        async with anyio.create_task_group() as tasks:
            for child in self._nodes:
                if child is not None:
                    tasks.start_soon(follow, child)
        raise CommandFailed("all nodes have ended", code=ExitCode.OTHER)

    async def _restart_on_change(self, children: Children) -> None:
        import anyio

        from mpreg_transports.cli.console import print_message
        from mpreg_transports.cli.errors import CommandFailed

        assert self._watched is not None
        seen = _stamp(self._watched)
        while True:
            await anyio.sleep(POLL_SECONDS)
            now = _stamp(self._watched)
            if now is None or now == seen:
                continue
            seen = now
            print_message(f"{self._watched.name} has changed: restarting")
            await children.end()
            try:
                await self._start(children)
                print_message("ready again")
            except CommandFailed as error:
                await children.end()
                print_message(f"{error}; waiting for the next change")


async def cancel_on_signal(signals: AsyncIterator[signal.Signals], scope: CancelScope) -> None:
    """Cancel `scope` at the first signal."""
    async for _ in signals:
        scope.cancel()
        return


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return the time and size of a file, to detect a change; None while an editor replaces the file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _print_line(name: str, line: str) -> None:
    from mpreg_transports.cli.console import print_message

    print_message(f"[{name}] {line}")
