"""The pytest plugin: options and settings of `@simulate` (decorator.py), and in-memory clusters as a fixture.

pytest imports this module in every project that has mpreg installed, so it imports nothing of mpreg, and nothing except
pytest, until one of its features is used.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mpreg_transports.testing.memory.cluster import MemoryCluster


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--sim-seed`, `--sim-seeds`, and the setting `sim_corpus`."""
    group = parser.getgroup("mpreg", "simulated clusters")
    group.addoption(
        "--sim-seed",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="run simulated tests with this seed only; may be given again",
    )
    group.addoption(
        "--sim-seeds", type=int, default=None, metavar="N", help="run simulated tests with so many seeds, from 0 on"
    )
    parser.addini(
        "sim_corpus",
        "file of seeds that have failed, to be kept with the tests: they run first, and new ones are written there",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Reject a number of seeds that would test nothing."""
    seeds = config.getoption("sim_seeds")
    if seeds is not None and seeds < 1:
        raise pytest.UsageError(f"--sim-seeds {seeds}: at least 1")


@pytest.fixture
async def mpreg_cluster(anyio_backend: Any) -> AsyncIterator[Callable[[Any], Awaitable[MemoryCluster]]]:
    """Make clusters: `cluster = await mpreg_cluster({"a": Spec(...), "b": Spec()})`. They end with the test.

    For asynchronous tests of the anyio plugin (`@pytest.mark.anyio`), on each backend that `anyio_backend` names.
    """
    from mpreg_transports.testing.memory.cluster import memory_cluster

    async with AsyncExitStack() as stack:

        async def make(nodes: Any) -> MemoryCluster:
            return await stack.enter_async_context(memory_cluster(nodes))

        yield make
