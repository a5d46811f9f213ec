"""Links: one connection each to another program, over WebSocket, raw TCP or memory, all with the interface `base.Link`.

A link moves bytes or messages and does not interpret them.
"""

from mpreg_transports.links.base import Framing, Link, LinkEnded

__all__ = ["Framing", "Link", "LinkEnded"]
