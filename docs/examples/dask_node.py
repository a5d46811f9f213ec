"""A node that fronts a Dask cluster: calls of its functions run on the workers of that cluster.

    python docs/examples/dask_node.py tcp://scheduler.example.com:8786
    python docs/examples/dask_node.py

Without an address it starts a Dask cluster of two processes on this machine. tests/dask runs it.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import Executor

import dask.config
from distributed import Client, LocalCluster

from mpreg_transports import Server

# [settings]
AT_MOST_ONCE = {"distributed.scheduler.allowed-failures": 0}
"""The scheduler's setting with which Dask does not start a call again when its worker dies; mpreg decides that."""
# [/settings]


# [executor]
def executor_of(scheduler: str) -> Callable[[], Executor]:
    """Return a function that connects to a scheduler and returns the executor of that cluster."""

    def make() -> Executor:
        client = Client(scheduler, timeout="5s", set_as_default=False)
        executor: Executor = client.get_executor(pure=False)  # pure: equal calls would share one run
        return executor

    return make


# [/executor]


# [functions]
def count_primes(below: int) -> int:
    """Return the number of primes below a number."""
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, below))


def make_server(scheduler: str, *, port: int = 9001) -> Server:
    """Return a node that runs 64 calls at once on the cluster of that scheduler."""
    server = Server(name="dask", port=port, resources={"dask"})
    server.register(None, count_primes, executor=executor_of(scheduler), concurrency=64, idempotent=True)
    return server


# [/functions]


def main() -> None:
    """Serve until Ctrl-C."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("scheduler", nargs="?")
    parser.add_argument("--port", type=int, default=9001)
    given = parser.parse_args()
    if given.scheduler:
        make_server(given.scheduler, port=given.port).run()
        return
    with dask.config.set(AT_MOST_ONCE):
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1")
    try:
        make_server(str(cluster.scheduler_address), port=given.port).run()
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
