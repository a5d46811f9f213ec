"""Two dozen real nodes: they find each other, lose a third at once, and keep one that is stopped for 4 seconds.

`python -m tests.membership_processes` does the same and prints how long each step took.
"""

from __future__ import annotations

import signal
import time

import anyio
import pytest

from mpreg_proto.view import NodeView
from mpreg_transports.testing import Spec
from mpreg_transports.testing.memory.cluster import memory_cluster
from tests.helpers.node_processes import Load, NodeProcesses, node_processes

pytestmark = pytest.mark.anyio
SIZE, KILLED = 24, 8
KNOWN = 5 * 5.0
"""Seconds until all nodes know all others: five times the documented time. The command prints the measured times."""
BOUND = 8.0
"""Seconds until no call goes to a dead node (docs/explanation/membership.md)."""


@pytest.fixture
def anyio_backend() -> str:
    """One backend for the test itself: the processes under test have their own."""
    return "asyncio"


async def grown(made: NodeProcesses) -> None:
    await made.start(["n0"])
    await made.start([f"n{number}" for number in range(1, SIZE)], peers=[made.nodes["n0"].url])


async def test_24_nodes_lose_8_and_8_new_nodes_take_their_ports() -> None:
    async with node_processes() as made, anyio.create_task_group() as tasks:
        await grown(made)
        assert await made.all_see(made.knows_all) < KNOWN
        before = {name: (await made.view(name)).id for name in made.nodes}
        load = Load(made.nodes["n0"].url)
        tasks.start_soon(load.run)
        await load.more(200)
        assert len({node for _, node in load.answers}) == SIZE, "each node has its share, also those without a link"
        victims = [made.forget(f"n{number}") for number in range(SIZE - KILLED, SIZE)]
        for victim in victims:
            victim.kill()
        killed = time.monotonic()
        await made.start([f"new{number}" for number in range(KILLED)], ports=[one.port for one in victims], peers=[
            made.nodes["n0"].url
        ])  # fmt: skip
        assert sorted(made.nodes[f"new{number}"].port for number in range(KILLED)) == sorted(
            one.port for one in victims
        )
        names = {victim.name for victim in victims}

        def only_the_killed_are_dead(view: NodeView) -> bool:
            dead = {row.name for row in view.members if row.standing == "dead"}
            assert dead <= names, f"{view.shown} marks living ones DEAD: {sorted(dead - names)}"
            return made.knows_all(view)

        await made.all_see(only_the_killed_are_dead)
        await load.more(200)
        await made.all_see(only_the_killed_are_dead)
        assert not [at for at, node in load.answers if node in names and at > killed]
        assert not [error for at, error in load.errors if at > killed + BOUND]
        assert {error.code for _, error in load.errors} <= {1001, 1020, 1023}
        after = {name: (await made.view(name)).id for name in before if name in made.nodes}
        assert after == {name: before[name] for name in after}, "no id was retired"
        tasks.cancel_scope.cancel()


async def test_node_stopped_for_4_seconds_stays_the_same_member() -> None:
    async with node_processes() as made:
        await made.start(["n0"])
        await made.start([f"n{number}" for number in range(1, 5)], peers=[made.nodes["n0"].url])
        await made.all_see(made.knows_all)
        paused = made.nodes["n3"]
        before = (await made.view("n3")).id
        others = [name for name in made.nodes if name != "n3"]
        paused.signal(signal.SIGSTOP)
        stopped = time.monotonic()

        def doubted(view: object) -> bool:
            return any(row.name == "n3" and row.standing != "alive" for row in view.members)  # type: ignore[attr-defined]

        await made.all_see(doubted, by=others)
        await anyio.sleep(max(0.0, stopped + 4 - time.monotonic()))  # the length of the stop is what this tests
        paused.signal(signal.SIGCONT)
        assert await made.all_see(made.knows_all) < KNOWN
        view = await made.view("n3")
        assert view.id == before
        rows = [row for name in others for row in (await made.view(name)).members if row.name == "n3"]
        assert all(row.incarnation > 0 and row.id == before for row in rows), "it refuted"
        assert all(row.standing == "alive" for row in view.members), "it suspects no member after its own stop"


async def test_partition_of_servers_heals_without_restart() -> None:
    def here() -> str:
        return "here"

    async with memory_cluster({name: Spec(functions={f"of-{name}": here}) for name in "abcd"}) as cluster:
        await cluster.agreed()
        for one in "ab":
            for other in "cd":
                cluster.cut(one, other)
        async with cluster.client("a") as near, cluster.client("c") as far:

            async def dead(client: object, names: str) -> bool:
                view = await client.view()  # type: ignore[attr-defined]
                return {row.name for row in view.members if row.standing == "dead"} == set(names)

            with anyio.fail_after(30):
                while not (await dead(near, "cd") and await dead(far, "ab")):  # noqa: ASYNC110  # no event reports it
                    await anyio.sleep(0.05)
            ids = [(await client.view()).id for client in (near, far)]
            cluster.heal()
            with anyio.fail_after(15):
                await cluster.agreed(seconds=15)
            assert await near.call("of-d", wait=5) == "here"
            assert [(await client.view()).id for client in (near, far)] == ids
