"""The floor's server, a process of its own: `python -m tests.benchmarks.floor_nodes NAME [--peer NAME:PORT ...]`.

It listens on a port that the system chooses on loopback, prints `ready PORT`, and ends when its stdin ends. Its routing
is a dict from function to connection, its coordinator is callbacks; it never retries, checks or times out.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.floor_link import Answered, FloorLink

STEADYING = 24 << 20
"""A number of bytes. One allocation of this size makes glibc serve smaller blocks from the heap and keep the heap.

By default glibc maps and unmaps every block above 128 KiB, and asyncio receives into a new block of 256 KiB each time.
So a receive of 100 bytes costs three system calls and a page fault. The floor keeps this default, as bare servers do.
"""


def _itself(value: object) -> object:
    return value


def _all_of_them(*values: object) -> tuple[object, ...]:
    return values


def functions_of(name: str) -> dict[str, Callable[..., object]]:
    """Return the functions of node `name`: see `rows.NODES`."""
    return {
        "echo": _itself,
        "echos": _all_of_them,
        f"echo_{name}": _itself,
        f"make_{name}": bytes,
        f"measure_{name}": len,
    }


class FloorNode:
    """The functions that one process serves, itself or through a peer."""

    def __init__(self, name: str) -> None:
        self.functions = functions_of(name)
        self.routes: dict[str, FloorLink] = {}
        self.unsent: list[FloorLink] = []

    def link(self) -> FloorLink:
        """Return the protocol of a new connection."""
        return FloorLink(self.serve, self.unsent)

    def serve(self, link: FloorLink, number: int, function: str, args: list[Any]) -> None:
        """Serve one request: a function, or `graph` with its calls as args."""
        if function == "graph":
            GraphRun(self, args, partial(link.answer, number)).start()
        else:
            self.apply(function, args, partial(link.answer, number))

    def apply(self, function: str, args: list[Any], then: Answered) -> None:
        """Run the function here or call its owner; without an owner it is a KeyError, which ends the connection."""
        local = self.functions.get(function)
        if local is not None:
            then(local(*args))
        else:
            self.routes[function].call(function, args, then)


class GraphRun:
    """One graph in progress.

    A call is `[function, args, needs]`; needs are indices of calls whose results follow args. The result of the last
    call is the answer.
    """

    def __init__(self, node: FloorNode, calls: list[Any], then: Answered) -> None:
        self._node = node
        self._calls = calls
        self._then = then
        self._left = len(calls)
        self._results: list[Any] = [None] * len(calls)
        self._missing = [len(needs) for _, _, needs in calls]
        self._users: list[list[int]] = [[] for _ in calls]
        for at, (_, _, needs) in enumerate(calls):
            for need in needs:
                self._users[need].append(at)

    def start(self) -> None:
        """Run the calls without dependencies; the answers start the others."""
        for at in [at for at, missing in enumerate(self._missing) if not missing]:
            self._run(at)

    def _run(self, at: int) -> None:
        function, args, needs = self._calls[at]
        self._node.apply(function, args + [self._results[need] for need in needs], partial(self._done, at))

    def _done(self, at: int, result: object) -> None:
        self._results[at] = result
        self._left -= 1
        if not self._left:
            self._then(self._results[-1])
        for user in self._users[at]:
            self._missing[user] -= 1
            if not self._missing[user]:
                self._run(user)


async def serve(name: str, peers: list[str]) -> None:
    """Listen, dial the peers, print the ready line, and run until stdin ends."""
    loop = asyncio.get_running_loop()
    node = FloorNode(name)
    for peer, port in (text.split(":") for text in peers):
        _, link = await loop.create_connection(node.link, "127.0.0.1", int(port))
        node.routes.update(dict.fromkeys(functions_of(peer), link))
    server = await loop.create_server(node.link, "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--steady", action="store_true", help="raise glibc's thresholds before serving")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME:PORT")
    options = parser.parse_args()
    if options.steady:
        bytes(STEADYING)
    asyncio.run(serve(options.name, options.peer))


if __name__ == "__main__":
    main()
