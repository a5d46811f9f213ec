"""Links: one connection each to another program, over WebSocket, raw TCP or memory, all behind `base.Link`.

A link moves bytes or messages and knows nothing of what they mean.
"""

from mpreg_transports.links.base import Framing, Link, LinkEnded

__all__ = ["Framing", "Link", "LinkEnded"]
