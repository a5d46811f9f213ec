"""A node as a process: configured by one JSON argument, prints its address in one line of JSON, serves until a signal.

The test decides the work of its functions: bodies that take time connect to the test's gate
(tests/helpers/processes.py) and stay there until they are released. The process never outlives its parent: it ends when
its stdin ends.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio

from mpreg_proto.limits import SECOND, Limits
from mpreg_transports import Server
from tests.helpers.nodes.child import Announced, end_with_parent


class Bodies:
    """The functions of the node. `gate` is the port of the test's gate."""

    def __init__(self, server: Server, gate: int) -> None:
        self._server = server
        self._gate = gate

    def where(self) -> str:
        """Return the node's name."""
        return self._server.name

    async def held(self, tag: str) -> list[str]:
        """Wait at the gate, in the event loop."""
        async with await anyio.connect_tcp("127.0.0.1", self._gate) as stream:
            await stream.send(self._arrival(tag))
            await stream.receive()
        return [self._server.name, tag]

    def blocked(self, tag: str) -> list[str]:
        """Wait at the gate, in a worker thread."""
        with socket.create_connection(("127.0.0.1", self._gate)) as stream:
            stream.sendall(self._arrival(tag))
            stream.recv(1)
        return [self._server.name, tag]

    def stuck(self, tag: str) -> None:
        """Arrive at the gate, and never return."""
        self.blocked(tag)
        threading.Event().wait()

    def teach(self, name: str) -> None:
        """Offer a new function, from a thread."""
        self._server.register(name, lambda: [name, self._server.name])

    async def teach_here(self, name: str) -> None:
        """Offer a new function, from the event loop."""
        self.teach(name)

    def _arrival(self, tag: str) -> bytes:
        return json.dumps([self._server.name, tag]).encode() + b"\n"


def main() -> None:
    """Run that node until a signal."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    end_with_parent()
    limits = Limits(drain_grace=int(arguments["grace"] * SECOND))
    server = Announced(name=arguments["name"], port=0, peers=arguments["peers"], limits=limits)
    bodies = Bodies(server, arguments["gate"])
    for offer in arguments["offers"]:
        body: Callable[..., Any] = getattr(bodies, offer["body"])
        server.register(offer["name"], body, idempotent=offer["idempotent"])
    server.run(backend=arguments["backend"])
    print(json.dumps({"left": True}), flush=True)


if __name__ == "__main__":
    main()
