"""The three nodes of `mpreg demo`, each in a process of its own: `module:name` targets of cli/node_process.py.

`balancer` has no resources and offers `join`; `shelf_a` and `shelf_b` each hold one part of the standard library's
sources.
"""

from __future__ import annotations

from mpreg_transports.cli.demo.functions import Shelf, join
from mpreg_transports.server import Server


def __getattr__(name: str) -> Server:
    """Create a node at its first use, so that a process reads only the shelf that it serves."""
    if name == "balancer":
        server = Server(name=name, port=0)
        server.register(None, join, idempotent=True)
    elif name in ("shelf_a", "shelf_b"):
        shelf = Shelf(("shelf_a", "shelf_b").index(name))
        server = Server(name=name.replace("_", "-"), port=0, resources={shelf.name})
        for function in (shelf.packages, shelf.count):
            server.register(None, function, idempotent=True)
        # One at a time: two threads that parse at once raise SystemError in CPython 3.11 (python/cpython#106905).
        server.register(None, shelf.measure, idempotent=True, concurrency=1)
    else:
        raise AttributeError(name)
    globals()[name] = server
    return server
