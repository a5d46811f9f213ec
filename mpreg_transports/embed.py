"""The parts with which an application runs a node in its own server, on this package's driver (docs/howto/embed.md).

`Driver` runs a `Node` of `mpreg_proto` on asyncio or trio. The application gives it links: each connection that it
accepts is a `Link`, given to `Driver.pump`; `Dialler` opens the links that the node wants. `function` makes what the
driver runs from a Python function, and `built_in` gives `echo` and `echos`, which every node offers. `clock` is the
driver's clock in nanoseconds; every input of the node takes its time.
"""

from __future__ import annotations

from mpreg_transports.functions.execution import Function, built_in, function
from mpreg_transports.links.base import Buffer, Link, LinkEnded
from mpreg_transports.runtime.clock import clock
from mpreg_transports.runtime.dialing import Dialler
from mpreg_transports.runtime.driver import Driver
from mpreg_transports.values import default_codec

__all__ = [
    "Buffer",
    "Dialler",
    "Driver",
    "Function",
    "Link",
    "LinkEnded",
    "built_in",
    "clock",
    "default_codec",
    "function",
]
