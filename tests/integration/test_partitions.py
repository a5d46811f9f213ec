"""Two halves of a cluster without a link between them work alone and become one again afterwards; no node restarts.

Real `Server`s and `Client`s on a network in memory that the test cuts, on the clock of the event loop. Long tests use a
clock that jumps (tests/helpers/virtual.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import pytest

from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_transports.testing import Spec
from mpreg_transports.testing.memory.cluster import MemoryCluster, memory_cluster
from tests.helpers import virtual

pytestmark = pytest.mark.anyio
HERE, THERE = ("a", "b", "c"), ("d", "e", "f")
HEALED = 15
"""Seconds until all have one view again; `HEALED_LATE` after a partition of more than 10 minutes."""
HEALED_LATE = 40
ONE_SEED = 3 * 30 + HEALED
"""The same if one half knows only its seed in the other: after 10 minutes each of three nodes dials it every 90 s."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both event loops, with a clock that jumps."""
    return virtual.backend(request.param)


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give nodes and clients the virtual clock."""
    virtual.set_clocks(monkeypatch)


async def here() -> str:
    return "here"


def halves(limits: Limits = DEFAULT) -> MemoryCluster:
    """Six nodes that know each other; each offers its own function."""
    return memory_cluster({name: Spec(functions={f"of-{name}": here}, limits=limits) for name in (*HERE, *THERE)})


def cut(cluster: MemoryCluster, *, silent: bool) -> None:
    for one in HERE:
        for other in THERE:
            cluster.cut(one, other, silent=silent)


def all_see(cluster: MemoryCluster, standing: str, others: Iterable[str], *, by: Iterable[str]) -> bool:
    """Return whether all nodes in `by` see exactly `others` with this standing ("alive", "dead", ...)."""
    wanted = sorted(others)
    views = [cluster.servers[name].view() for name in by]
    return all(sorted(row.name for row in view.members if row.standing == standing) == wanted for view in views)


def parted(cluster: MemoryCluster) -> bool:
    """Return whether each half sees the other as DEAD, and itself as ALIVE."""
    return all(
        all_see(cluster, "dead", theirs, by=ours) and all_see(cluster, "alive", ours, by=ours)
        for ours, theirs in ((HERE, THERE), (THERE, HERE))
    )


def ids(cluster: MemoryCluster) -> dict[str, str]:
    return {name: cluster.servers[name].view().id for name in cluster.servers}


async def serves(cluster: MemoryCluster, node: str, functions: Iterable[str]) -> None:
    """Assert that all of `functions` can be called through `node`."""
    async with cluster.client(node) as client:
        for name in functions:
            assert await client.call(f"of-{name}", timeout=5) == "here"


async def each_serves_its_own(cluster: MemoryCluster) -> None:
    for ours in (HERE, THERE):
        for node in ours:
            await serves(cluster, node, ours)


async def all_serve_all(cluster: MemoryCluster) -> None:
    for node in (*HERE, *THERE):
        await serves(cluster, node, (*HERE, *THERE))


@pytest.mark.parametrize("silent", [False, True], ids=["links break", "silence"])
@pytest.mark.parametrize("minutes", [0, 12])
async def test_partition_heals_to_one_cluster(silent: bool, minutes: int) -> None:
    """12 minutes are longer than every wait except those of cleanup; then it takes up to 40 s until the view is one."""
    async with halves() as cluster, cluster.client("b") as near, cluster.client("e") as far:
        before = ids(cluster)
        cut(cluster, silent=silent)
        await cluster.until(lambda: parted(cluster), seconds=30)
        await each_serves_its_own(cluster)
        await anyio.sleep(minutes * 60)
        assert parted(cluster)
        await each_serves_its_own(cluster)
        cluster.heal()
        await cluster.agreed(seconds=HEALED_LATE if minutes > 10 else HEALED)
        assert ids(cluster) == before
        await all_serve_all(cluster)
        assert [await near.call("of-f", timeout=5), await far.call("of-c", timeout=5)] == ["here"] * 2


@pytest.mark.parametrize("minutes", [60, 3], ids=["retired", "forgotten"])
async def test_partition_heals_after_members_are_retired(minutes: int) -> None:
    """A dead member is retired after a day and its id is forgotten after a week; here after some minutes.

    A node that meets members that have retired its id takes a new id.
    """
    limits = Limits(dead_for=2 * 60 * SECOND, retired_for=minutes * 60 * SECOND)
    async with halves(limits) as cluster, cluster.client("b") as near, cluster.client("e") as far:
        before = ids(cluster)
        cut(cluster, silent=True)
        await cluster.until(lambda: parted(cluster), seconds=30)
        await anyio.sleep(12 * 60)
        assert all(len(cluster.servers[name].view().members) == len(HERE) for name in cluster.servers), "the dead"
        assert ids(cluster) == before
        await each_serves_its_own(cluster)
        cluster.heal()
        await cluster.agreed(seconds=ONE_SEED)
        await all_serve_all(cluster)
        assert [await near.call("of-f", timeout=5), await far.call("of-c", timeout=5)] == ["here"] * 2
        assert (ids(cluster) == before) is (minutes < 12)
