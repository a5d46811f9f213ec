"""Two dozen real nodes on loopback, measured: the time to find each other and DEAD members, and the idle costs.

    uv run python -m tests.membership_processes [--nodes 24] [--killed 8] [--idle 20]

tests/integration/test_membership.py asserts what this prints, except the costs of an idle node.
The nodes log to stderr: `2>/dev/null` leaves the figures.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time

import anyio

from mpreg_proto.view import NodeView
from tests.helpers.node_processes import Load, NodeProcesses, node_processes


def row(name: str, value: str, target: str = "") -> None:
    """Print one line of the table."""
    print(f"  {name:<66}{value:>14}   {target}", flush=True)


async def measure(nodes: int, killed: int, idle: float) -> None:
    """Measure everything, in one cluster."""
    async with node_processes() as made, anyio.create_task_group() as tasks:
        began = time.monotonic()
        await made.start(["n0"])
        await made.start([f"n{number}" for number in range(1, nodes)], peers=[made.nodes["n0"].url])
        row(f"{nodes} processes listening", f"{time.monotonic() - began:.1f} s")
        took = await made.all_see(made.knows_all)
        row("all know all and their functions, after the last one listens", f"{took:.2f} s", "5 s")
        await at_rest(made, idle)
        load = Load(made.nodes["n0"].url)
        tasks.start_soon(load.run)
        await load.more(500)
        await lose(made, load, nodes, killed)
        await pause(made)
        tasks.cancel_scope.cancel()


async def at_rest(made: NodeProcesses, seconds: float) -> None:
    """Measure the costs of a node without requests."""
    await anyio.sleep(35)  # by then the links that only joining needed are closed
    before = {name: node.processor_time() for name, node in made.nodes.items()}
    await anyio.sleep(seconds)
    used = [(node.processor_time() - before[name]) / seconds * 100 for name, node in made.nodes.items()]
    links = [(await made.view(name)).links for name in made.nodes]
    row("idle: share of a core, mean", f"{statistics.mean(used):.2f} %", "1 %")
    row("idle: share of a core, maximum", f"{max(used):.2f} %", "1 %")
    row("idle: links, mean", f"{statistics.mean(links) - 1:.1f}", "10")


async def lose(made: NodeProcesses, load: Load, nodes: int, killed: int) -> None:
    """Send SIGKILL to many nodes at once, and start new nodes on their ports."""
    victims = [made.forget(f"n{number}") for number in range(nodes - killed, nodes)]
    survivors = list(made.nodes)
    for victim in victims:
        victim.process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    for victim in victims:
        victim.kill()
    names = {victim.name for victim in victims}

    def missed(view: NodeView) -> bool:
        return not any(one.name in names and one.standing in ("alive", "suspect") for one in view.members)

    await made.all_see(missed, by=survivors)
    row(f"{killed} killed at once: DEAD in all views", f"{time.monotonic() - began:.2f} s", "3 s")
    await made.start(
        [f"new{number}" for number in range(killed)], ports=[one.port for one in victims], peers=[made.nodes["n0"].url]
    )
    took = await made.all_see(made.knows_all)
    row(f"{killed} new on the same ports: known by all, after they listen", f"{took:.2f} s", "5 s")
    await load.more(500)
    late = [at - began for at, node in load.answers if node in names and at > began]
    wrong = [at - began for at, _ in load.errors]
    row("last call that a dead node answered, after its death", f"{max(late, default=0):.2f} s", "0 s")
    row(f"last of {len(wrong)} calls that failed, after the kill", f"{max(wrong, default=0):.2f} s", "8 s")


async def pause(made: NodeProcesses) -> None:
    """Send SIGSTOP for 4 s."""
    paused = made.nodes["n3"]
    before = (await made.view("n3")).id
    paused.signal(signal.SIGSTOP)
    await anyio.sleep(4)
    paused.signal(signal.SIGCONT)
    took = await made.all_see(made.knows_all)
    row("stopped for 4 s: ALIVE in all views, after it continues", f"{took:.2f} s", "5 s")
    row("... as the same member", str((await made.view("n3")).id == before), "True")


def main() -> int:
    """Print the table and return 0: this is no check."""
    parser = argparse.ArgumentParser(prog="python -m tests.membership_processes", description="Real nodes, measured.")
    parser.add_argument("--nodes", type=int, default=24, metavar="N", help="number of processes (24)")
    parser.add_argument("--killed", type=int, default=8, metavar="N", help="number of them that are killed at once (8)")
    parser.add_argument(
        "--idle", type=float, default=20.0, metavar="S", help="seconds over which idle nodes are measured (20)"
    )
    given = parser.parse_args()
    if not 1 <= given.killed <= given.nodes - 4:
        parser.error("kill at least one node, and leave at least four")
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    anyio.run(measure, given.nodes, given.killed, given.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
